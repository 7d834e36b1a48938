//! What a plain YAML scalar means: YAML 1.1's rules as Kubernetes' YAML reader applies them, and the
//! text that Go's JSON writer gives to numbers.
//!
//! So `yes`, `on` and `y` are true, `010` is eight, `0o10` too, `1_000` is a thousand, dates are
//! text. Sexagesimal numbers are text, as in Kubernetes.

use super::node::Value;

/// Resolves an untagged plain scalar.
pub fn resolve(text: &str) -> Result<Value, String> {
    let Some(&first) = text.as_bytes().first() else {
        return Ok(Value::Null);
    };
    // Most scalars begin with a letter that begins none of the special words.
    let special = matches!(
        first,
        b'y' | b'Y'
            | b'n'
            | b'N'
            | b't'
            | b'T'
            | b'f'
            | b'F'
            | b'o'
            | b'O'
            | b'~'
            | b'.'
            | b'+'
            | b'-'
            | b'0'..=b'9'
    );
    if !special {
        return Ok(Value::String(text.into()));
    }
    if let Some(value) = word(text) {
        return value;
    }
    Ok(match first {
        b'+' | b'-' | b'.' | b'0'..=b'9' => {
            number(text).unwrap_or_else(|| Value::String(text.into()))
        }
        _ => Value::String(text.into()),
    })
}

/// Resolves a scalar with one of YAML's own tags (`!!int`, …), quoted or not.
pub fn resolve_as(tag: &str, text: &str) -> Result<Value, String> {
    let plain = resolve(text)?;
    let fits = match (tag, &plain) {
        ("null", Value::Null) | ("bool", Value::Bool(_)) => Some(plain),
        ("int", Value::Int(_) | Value::Uint(_)) | ("float", Value::Float(_)) => Some(plain),
        #[expect(clippy::cast_precision_loss, reason = "as Go converts it")]
        ("float", Value::Int(value)) => Some(Value::Float(*value as f64)),
        ("binary" | "timestamp", _) => Some(Value::String(text.into())),
        _ => None,
    };
    fits.ok_or_else(|| format!("cannot decode !!str `{text}` as a !!{tag}"))
}

fn word(text: &str) -> Option<Result<Value, String>> {
    Some(Ok(match text {
        "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Value::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        ".nan" | ".NaN" | ".NAN" => return Some(Err("json: unsupported value: NaN".to_owned())),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Some(Err("json: unsupported value: +Inf".to_owned()));
        }
        "-.inf" | "-.Inf" | "-.INF" => {
            return Some(Err("json: unsupported value: -Inf".to_owned()));
        }
        _ => return None,
    }))
}

fn number(text: &str) -> Option<Value> {
    let plain: std::borrow::Cow<'_, str> =
        if text.contains('_') { text.replace('_', "").into() } else { text.into() };
    let (negative, digits) = match plain.as_bytes().first()? {
        b'-' => (true, &plain[1..]),
        b'+' => (false, &plain[1..]),
        _ => (false, &*plain),
    };
    if let Some(value) = integer(negative, digits) {
        return Some(value);
    }
    if is_float(digits) {
        let value: f64 = plain.parse().ok()?;
        return value.is_finite().then_some(Value::Float(value));
    }
    None
}

/// Go's `strconv.ParseInt(s, 0, 64)`, then `ParseUint`.
fn integer(negative: bool, digits: &str) -> Option<Value> {
    let bytes = digits.as_bytes();
    let (radix, rest) = match bytes {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if rest.is_empty() || !rest.bytes().all(|byte| char::from(byte).is_digit(radix)) {
        return None;
    }
    let magnitude = u64::from_str_radix(rest, radix).ok()?;
    match (negative, i64::try_from(magnitude)) {
        (false, Ok(value)) => Some(Value::Int(value)),
        (false, Err(_)) => Some(Value::Uint(magnitude)),
        (true, Ok(value)) => Some(Value::Int(-value)),
        (true, Err(_)) => (magnitude == 1 << 63).then_some(Value::Int(i64::MIN)),
    }
}

/// `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(digits: &str) -> bool {
    let (mantissa, exponent) = match digits.find(['e', 'E']) {
        Some(at) => (&digits[..at], Some(&digits[at + 1..])),
        None => (digits, None),
    };
    let numeric = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_fits = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && numeric(fraction),
        Some((whole, fraction)) => numeric(whole) && numeric(fraction),
        None => !mantissa.is_empty() && numeric(mantissa),
    };
    mantissa_fits
        && exponent.is_none_or(|exponent| {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            !digits.is_empty() && numeric(digits)
        })
}

/// A number as Go's `encoding/json` prints it.
pub fn go_float(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        // Rust: 1e21, 1e-7; Go: 1e+21, 1e-07 shortened to 1e-7.
        let text = format!("{value:e}");
        return match text.split_once('e') {
            Some((mantissa, exponent)) if !exponent.starts_with('-') => {
                format!("{mantissa}e+{exponent}")
            }
            _ => text,
        };
    }
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_they_mean_to_kubernetes() {
        let text = |text: &str| Value::String(text.into());
        for (input, value) in [
            ("", Value::Null),
            ("~", Value::Null),
            ("NULL", Value::Null),
            ("nULL", text("nULL")),
            ("y", Value::Bool(true)),
            ("On", Value::Bool(true)),
            ("no", Value::Bool(false)),
            ("nO", text("nO")),
            ("10", Value::Int(10)),
            ("-10", Value::Int(-10)),
            ("+10", Value::Int(10)),
            ("010", Value::Int(8)),
            ("0o10", Value::Int(8)),
            ("0x1F", Value::Int(31)),
            ("0b101", Value::Int(5)),
            ("09", Value::Float(9.0)),
            ("1_000", Value::Int(1000)),
            ("18446744073709551615", Value::Uint(u64::MAX)),
            ("-9223372036854775808", Value::Int(i64::MIN)),
            ("1.5", Value::Float(1.5)),
            (".5", Value::Float(0.5)),
            ("1.", Value::Float(1.0)),
            ("1e3", Value::Float(1000.0)),
            ("1.2.3", text("1.2.3")),
            ("12:30", text("12:30")),
            ("2024-01-02", text("2024-01-02")),
            ("-", text("-")),
            (".", text(".")),
            ("0x", text("0x")),
            ("1e", text("1e")),
        ] {
            assert_eq!(resolve(input), Ok(value), "{input}");
        }
        assert!(resolve(".nan").is_err());
    }

    #[test]
    fn floats_print_as_go_prints_them() {
        for (value, text) in [
            (1.0, "1"),
            (1.5, "1.5"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (0.0, "0"),
        ] {
            assert_eq!(go_float(value), text);
        }
    }
}
