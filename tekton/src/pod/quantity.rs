//! Kubernetes quantities as numbers: compared, and divided among steps.

use crate::k8s::Quantity;

/// Suffixes with their size in billionths.
const SUFFIXES: &[(&str, i128)] = &[
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
];
const NANO: i128 = 1_000_000_000;

/// The quantity in billionths; `None` if it is none.
pub(super) fn parse(quantity: &Quantity) -> Option<i128> {
    let text = quantity.0.trim();
    let unsigned = text.trim_start_matches(['+', '-']);
    let digits = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(digits);
    let scale = match suffix {
        "" => NANO,
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        _ => match SUFFIXES.iter().find(|(name, _)| *name == suffix) {
            Some((_, factor)) => factor * NANO,
            None => {
                let exponent: u32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
                10i128.checked_pow(exponent)?.checked_mul(NANO)?
            }
        },
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut value = whole.checked_mul(scale)?;
    let mut place = scale;
    for digit in fraction.bytes() {
        place /= 10;
        value = value.checked_add(place * i128::from(digit.checked_sub(b'0')?))?;
    }
    Some(if text.starts_with('-') { -value } else { value })
}

/// A `steps`-th of a quantity: whole bytes of memory and storage, thousandths of anything else.
pub(super) fn share(name: &str, quantity: &Quantity, steps: usize) -> Quantity {
    let (Some(value), Ok(steps)) = (parse(quantity), i128::try_from(steps)) else {
        return quantity.clone();
    };
    if matches!(name, "memory" | "ephemeral-storage") {
        // Kubernetes rounds a fraction of a byte up before it divides.
        let bytes = (value + NANO - 1) / NANO / steps.max(1);
        return Quantity(print(bytes, quantity.0.ends_with('i')));
    }
    let milli_size = NANO / 1_000;
    let milli = (value + milli_size - 1) / milli_size / steps.max(1);
    Quantity(if milli % 1_000 == 0 { print(milli / 1_000, false) } else { format!("{milli}m") })
}

/// The shortest exact form: `512Mi`, `2k`, `7`.
fn print(value: i128, is_binary: bool) -> String {
    let best = SUFFIXES
        .iter()
        .filter(|(name, factor)| {
            name.ends_with('i') == is_binary && value != 0 && value % factor == 0
        })
        .max_by_key(|(_, factor)| *factor);
    match best {
        Some((name, factor)) => format!("{}{name}", value / factor),
        None => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_compared_and_shared() {
        let q = |text: &str| Quantity(text.into());
        assert_eq!(parse(&q("1.5")), Some(1_500_000_000));
        assert!(parse(&q("1Gi")) > parse(&q("1G")));
        assert_eq!(parse(&q("1e3")), parse(&q("1k")));
        assert_eq!(parse(&q("x")), None);
        for (name, text, steps, part) in [
            ("cpu", "2", 4, "500m"),
            ("cpu", "1", 3, "333m"),
            ("cpu", "4", 2, "2"),
            ("memory", "1Gi", 2, "512Mi"),
            ("memory", "3k", 3, "1k"),
        ] {
            assert_eq!(share(name, &q(text), steps), q(part), "{text}");
        }
    }
}
