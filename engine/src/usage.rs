//! What steps have used of their machine: the `usage` of events (docs/events.md).

use serde::{Deserialize, Serialize};

/// What was used, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceUsage {
    /// CPU time in millionths of a second; in JSON `cpuSeconds`.
    #[serde(rename = "cpuSeconds", with = "seconds", skip_serializing_if = "Option::is_none")]
    pub cpu_micros: Option<u64>,
    /// The most memory at a time, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
    /// Bytes that had to be read from a disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_read_bytes: Option<u64>,
    /// Bytes that were to be written to a disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_write_bytes: Option<u64>,
}

impl ResourceUsage {
    /// Of one after the other: the sum, and of memory the larger one.
    #[must_use]
    pub fn and(self, next: ResourceUsage) -> ResourceUsage {
        fn both(a: Option<u64>, b: Option<u64>, how: fn(u64, u64) -> u64) -> Option<u64> {
            match (a, b) {
                (Some(a), Some(b)) => Some(how(a, b)),
                (a, b) => a.or(b),
            }
        }
        ResourceUsage {
            cpu_micros: both(self.cpu_micros, next.cpu_micros, u64::saturating_add),
            memory_peak_bytes: both(self.memory_peak_bytes, next.memory_peak_bytes, u64::max),
            io_read_bytes: both(self.io_read_bytes, next.io_read_bytes, u64::saturating_add),
            io_write_bytes: both(self.io_write_bytes, next.io_write_bytes, u64::saturating_add),
        }
    }

    /// Itself, unless nothing is known.
    pub fn known(self) -> Option<ResourceUsage> {
        (self != ResourceUsage::default()).then_some(self)
    }

    /// All of several, one after the other.
    pub fn all(parts: impl IntoIterator<Item = ResourceUsage>) -> ResourceUsage {
        parts.into_iter().fold(ResourceUsage::default(), ResourceUsage::and)
    }

    /// What no machine can have used in any time is of a clock or counter gone wrong, and not known.
    pub(crate) fn believe(&mut self) {
        const MOST: u64 = 1 << 50;
        for value in [
            &mut self.cpu_micros,
            &mut self.memory_peak_bytes,
            &mut self.io_read_bytes,
            &mut self.io_write_bytes,
        ] {
            *value = value.filter(|&value| value <= MOST);
        }
    }
}

/// Millionths as seconds.
mod seconds {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(micros: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match micros {
            Some(micros) => to.serialize_f64(*micros as f64 / 1e6),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        let seconds = Option::<f64>::deserialize(from)?;
        Ok(seconds.map(|seconds| (seconds * 1e6).round() as u64))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usages() -> impl Strategy<Value = ResourceUsage> {
        let value = || proptest::option::of(0..1u64 << 50);
        (value(), value(), value(), value()).prop_map(|(cpu, memory, read, write)| ResourceUsage {
            cpu_micros: cpu,
            memory_peak_bytes: memory,
            io_read_bytes: read,
            io_write_bytes: write,
        })
    }

    proptest! {
        #[test]
        fn json_keeps_every_number(usage in usages()) {
            let text = serde_json::to_string(&usage).unwrap();
            prop_assert_eq!(serde_json::from_str::<ResourceUsage>(&text).unwrap(), usage);
        }

        #[test]
        fn order_does_not_matter(a in usages(), b in usages(), c in usages()) {
            prop_assert_eq!(a.and(b).and(c), c.and(a.and(b)));
            prop_assert_eq!(ResourceUsage::all([a]), a);
        }
    }

    #[test]
    fn as_events_show_it() {
        let usage = ResourceUsage {
            cpu_micros: Some(1_500_000),
            memory_peak_bytes: Some(4096),
            ..ResourceUsage::default()
        };
        let text = serde_json::to_string(&usage).unwrap();
        assert_eq!(text, r#"{"cpuSeconds":1.5,"memoryPeakBytes":4096}"#);
        assert_eq!(ResourceUsage::default().known(), None);
    }
}
