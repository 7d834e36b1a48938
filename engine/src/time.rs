//! Points in time, as commands bring them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since the Unix epoch, UTC. In JSON: RFC 3339 with exactly three decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

impl Time {
    /// The latest time that is believed, about the year 9575: any timeout can be added to it.
    pub const LATEST: Time = Time(240_000_000_000_000);

    /// This time, or the nearest one between the epoch and [`Time::LATEST`].
    pub fn believable(self) -> Time {
        self.clamp(Time(0), Time::LATEST)
    }

    /// RFC 3339 with whole seconds, as Kubernetes prints times in a status.
    pub fn to_seconds_string(self) -> String {
        self.timestamp().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// This time plus `millis`, without overflow.
    pub fn plus_millis(self, millis: i64) -> Time {
        Time(self.0.saturating_add(millis))
    }

    fn timestamp(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.timestamp().strftime("%Y-%m-%dT%H:%M:%S%.3fZ"))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse::<jiff::Timestamp>()
            .map(|timestamp| Time(timestamp.as_millisecond()))
            .map_err(serde::de::Error::custom)
    }
}
