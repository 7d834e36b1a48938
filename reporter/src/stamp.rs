//! Times of output lines as RFC 3339, fast: lines mostly share their second, so only the
//! milliseconds are written anew.

use tenon_engine::Time;

/// The text of the last second that was asked for.
#[derive(Debug, Default)]
pub struct Stamp {
    second: Option<i64>,
    /// `2026-01-02T03:04:05.`
    prefix: String,
}

impl Stamp {
    /// Appends `time_ms` exactly as [`Time`] displays it.
    pub fn write(&mut self, time_ms: i64, out: &mut Vec<u8>) {
        let second = time_ms.div_euclid(1000);
        if self.second != Some(second) {
            let text = Time(second * 1000).to_string();
            self.prefix.clear();
            self.prefix.push_str(text.strip_suffix("000Z").unwrap_or(&text));
            self.second = Some(second);
        }
        let millis = time_ms.rem_euclid(1000);
        out.extend_from_slice(self.prefix.as_bytes());
        // Each of the three is a digit because millis is below 1000.
        let digits = [millis / 100, millis / 10 % 10, millis % 10].map(|digit| b'0' + digit as u8);
        out.extend_from_slice(&digits);
        out.push(b'Z');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_slow_way() {
        let mut stamp = Stamp::default();
        for time in [0, 1, 999, 1000, 1_700_000_000_123, 1_700_000_000_124, -1, 951_782_400_000] {
            let mut out = Vec::new();
            stamp.write(time, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), Time(time).to_string());
        }
    }
}
