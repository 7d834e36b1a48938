//! How long a request may take: what the client says, within bounds.

use std::time::Duration;

use axum::http::HeaderMap;
use tokio::time::Instant;

use super::fault::{Fault, Result};

/// Of a request that says nothing.
const USUAL: Duration = Duration::from_secs(10);
/// Nobody is made to wait longer.
const LONGEST: Duration = Duration::from_secs(300);
/// The header of HTTP requests: `2s`, `500ms`, or a number of seconds.
pub const HEADER: &str = "request-timeout";

/// When a request must have been answered, by its headers. Of gRPC's own deadline a little is kept
/// back, so that the answer says more than that time is up.
pub fn of(headers: &HeaderMap) -> Result<Instant> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let time = match (text("grpc-timeout"), text(HEADER)) {
        (Some(text), _) => match parse_grpc(text) {
            Some(time) => time.saturating_sub((time / 10).min(Duration::from_millis(100))),
            None => return Err(wrong("grpc-timeout", text)),
        },
        (None, Some(text)) => parse(text).ok_or_else(|| wrong(HEADER, text))?,
        (None, None) => USUAL,
    };
    Ok(Instant::now() + time.min(LONGEST))
}

fn wrong(name: &str, text: &str) -> Fault {
    Fault::new("invalid/timeout", format!("the header {name}: {text:?} is no duration"))
        .hint("for example 2s, 500ms or 1.5")
}

fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = number.trim().parse::<f64>().ok()? * unit;
    (seconds > 0.0).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

/// As the gRPC specification has it: at most eight digits and a unit.
fn parse_grpc(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|it| it.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_both_protocols() {
        let ms = |number| Some(Duration::from_millis(number));
        for (text, want) in [
            ("2s", ms(2000)),
            ("500ms", ms(500)),
            ("1.5", ms(1500)),
            ("0", None),
            ("-1", None),
            ("soon", None),
            ("1e300", None),
            ("NaN", None),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
        for (text, want) in
            [("2S", ms(2000)), ("1H", ms(3_600_000)), ("", None), ("S", None), ("123456789m", None)]
        {
            assert_eq!(parse_grpc(text), want, "{text}");
        }
    }

    #[test]
    fn nobody_waits_longer_than_the_longest() {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, "86400".parse().unwrap());
        assert!(of(&headers).unwrap() <= Instant::now() + LONGEST);
        headers.insert(HEADER, "never".parse().unwrap());
        assert_eq!(of(&headers).unwrap_err().code(), "invalid/timeout");
    }
}
