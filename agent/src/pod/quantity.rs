//! Kubernetes quantities as numbers: `100m`, `64Mi`, `1.5`, `2e3`.

/// Billionths of a unit; `None` when the text is not a quantity or does not fit.
pub fn nanos(text: &str) -> Option<i128> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let scale: i128 = match suffix {
        "" => 1_000_000_000,
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "k" => 1_000_000_000_000,
        "M" => 1_000_000_000_000_000,
        "G" => 1_000_000_000_000_000_000,
        "T" => 1_000_000_000_000_000_000_000,
        "P" => 1_000_000_000_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000_000_000_000,
        "Ki" => 1_000_000_000 << 10,
        "Mi" => 1_000_000_000 << 20,
        "Gi" => 1_000_000_000 << 30,
        "Ti" => 1_000_000_000 << 40,
        "Pi" => 1_000_000_000 << 50,
        "Ei" => 1_000_000_000 << 60,
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let nano_power = u32::try_from(power.checked_add(9)?).ok()?;
            10i128.checked_pow(nano_power)?
        }
    };
    let (negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let parse = |digits: &str| -> Option<i128> {
        match digits {
            "" => Some(0),
            digits => digits.parse().ok(),
        }
    };
    let mut value = parse(whole)?.checked_mul(scale)?;
    let fraction_scale = 10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    value = value.checked_add(parse(fraction)?.checked_mul(scale)? / fraction_scale)?;
    Some(if negative { -value } else { value })
}

/// Whole units, rounded up.
pub fn units(text: &str) -> Option<i64> {
    let nanos = nanos(text)?;
    i64::try_from((nanos + 999_999_999).div_euclid(1_000_000_000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, expected) in [
            ("1", Some(1_000_000_000)),
            ("100m", Some(100_000_000)),
            ("0.5", Some(500_000_000)),
            (".5", Some(500_000_000)),
            ("64Mi", Some(67_108_864_000_000_000)),
            ("1.5Ki", Some(1_536_000_000_000)),
            ("2e3", Some(2_000_000_000_000)),
            ("1E", Some(1_000_000_000_000_000_000_000_000_000)),
            ("-1", Some(-1_000_000_000)),
            ("", None),
            ("Mi", None),
            ("1x", None),
            ("1.2.3", None),
            ("1e999", None),
        ] {
            assert_eq!(nanos(text), expected, "{text}");
        }
        assert_eq!(units("1m"), Some(1));
        assert_eq!(units("1Gi"), Some(1 << 30));
    }
}
