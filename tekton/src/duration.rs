//! Go durations (`1h0m0s`), as Tekton reads and prints them.

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A length of time in whole nanoseconds, with Go's text form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(pub i64);

impl GoDuration {
    /// `n` whole seconds.
    pub const fn from_secs(n: i64) -> Self {
        GoDuration(n * 1_000_000_000)
    }

    /// Whole milliseconds, rounded toward zero.
    pub const fn as_millis(self) -> i64 {
        self.0 / 1_000_000
    }

    /// Reads Go's form: a sign, then numbers with units `ns us µs ms s m h`; or a bare `0`.
    ///
    /// The error is Go's own text, e.g. `time: unknown unit "d" in duration "1d"`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let quoted = || format!("{text:?}");
        let invalid = || format!("time: invalid duration {}", quoted());
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(GoDuration(0));
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let number_end =
                rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (number, after) = rest.split_at(number_end);
            let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
            if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
                return Err(invalid());
            }
            let unit_end =
                after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
            let (unit, next) = after.split_at(unit_end);
            let scale: i128 = match unit {
                "" => return Err(format!("time: missing unit in duration {}", quoted())),
                "ns" => 1,
                "us" | "µs" | "μs" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                other => {
                    return Err(format!("time: unknown unit {other:?} in duration {}", quoted()));
                }
            };
            let whole: i128 = if whole.is_empty() {
                0
            } else {
                whole.parse::<i64>().map_err(|_| invalid())?.into()
            };
            let mut fraction_nanos: i128 = 0;
            let mut place = scale;
            for digit in fraction.bytes() {
                place /= 10;
                fraction_nanos += i128::from(digit - b'0') * place;
            }
            total += whole * scale + fraction_nanos;
            rest = next;
        }
        let signed = if negative { -total } else { total };
        i64::try_from(signed).map(GoDuration).map_err(|_| invalid())
    }
}

impl std::fmt::Display for GoDuration {
    /// Go's `Duration.String()`: `1h0m0s`, `1.5s`, `100ms`, `0s`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let decimal = |value: u64, unit: u64| {
            let fraction = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
            let fraction = fraction.trim_end_matches('0');
            let whole = value / unit;
            if fraction.is_empty() { whole.to_string() } else { format!("{whole}.{fraction}") }
        };
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write!(f, "{}µs", decimal(nanos, 1_000)),
            1_000_000..1_000_000_000 => write!(f, "{}ms", decimal(nanos, 1_000_000)),
            _ => {
                let minutes = nanos / 60_000_000_000;
                if minutes >= 60 {
                    write!(f, "{}h", minutes / 60)?;
                }
                if minutes > 0 {
                    write!(f, "{}m", minutes % 60)?;
                }
                write!(f, "{}s", decimal(nanos % 60_000_000_000, 1_000_000_000))
            }
        }
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    /// Asks for a newtype of this name, so that the loader, which reports all faults and not the
    /// first alone, can tell a duration from other text.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = GoDuration;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a duration such as 1h30m")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<GoDuration, E> {
                GoDuration::parse(text).map_err(E::custom)
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<GoDuration, D::Error> {
                deserializer.deserialize_str(self)
            }
        }
        deserializer.deserialize_newtype_struct("GoDuration", Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_go_prints() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (100_000_000, "100ms"),
            (2_000_000_000, "2s"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (-1_000_000_000, "-1s"),
            (5_400_000_000_000, "1h30m0s"),
        ] {
            assert_eq!(GoDuration(nanos).to_string(), text);
            assert_eq!(GoDuration::parse(text), Ok(GoDuration(nanos)));
        }
    }

    #[test]
    fn refuses_in_gos_words() {
        for (text, error) in [
            ("1d", r#"time: unknown unit "d" in duration "1d""#),
            ("10", r#"time: missing unit in duration "10""#),
            ("soon", r#"time: invalid duration "soon""#),
            ("", r#"time: invalid duration """#),
        ] {
            assert_eq!(GoDuration::parse(text), Err(error.to_owned()));
        }
    }
}
