//! What agents have left on a daemon that is not theirs alone, and who never came back.
//!
//! As long as an agent has anything there its helper runs, now and then at least ([`Far::keep_up`]), and without the
//! agent it ends by itself. So a helper that ended long ago says that what has the same owner is nobody's. Whether a
//! process of another machine still runs, nothing else would tell.
//!
//! [`Far::keep_up`]: super::Far::keep_up

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveVolumeOptions,
};

use super::RELAY;
use crate::clock::now_ms;
use crate::docker::{error, labels};

/// The owners whose helpers have ended longer ago than that.
pub async fn left_behind(docker: &Docker, longer_than: Duration) -> BTreeSet<String> {
    let filters = HashMap::from([
        ("label", vec![labels::OWNER.to_owned()]),
        ("name", vec![format!("^/?{RELAY}")]),
        ("status", vec!["exited".to_owned()]),
    ]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let mut owners = BTreeSet::new();
    // A daemon that cannot list them has said so where it matters.
    for helper in docker.list_containers(Some(options)).await.unwrap_or_default() {
        let owner = helper.labels.unwrap_or_default().remove(labels::OWNER);
        let id = helper.id.unwrap_or_default();
        // One that is gone by now is somebody's.
        let found = docker.inspect_container(&id, None::<InspectContainerOptions>).await;
        let state = found.ok().and_then(|found| found.state);
        let ended =
            state.filter(|state| state.running == Some(false)).and_then(|it| it.finished_at);
        if ended.is_some_and(|ended| is_past(&ended, longer_than, now_ms())) {
            owners.extend(owner);
        }
    }
    owners
}

/// Whether a time of the daemon's was longer ago than that; not if it is none.
fn is_past(time: &str, longer_than: Duration, now_ms: i64) -> bool {
    let time = time.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_millisecond);
    let longer_than = i64::try_from(longer_than.as_millis()).unwrap_or(i64::MAX);
    time.is_ok_and(|time| now_ms.saturating_sub(time) >= longer_than)
}

/// Removes the volumes whose owner `which` holds for; says how many.
pub async fn reap_volumes(docker: &Docker, which: impl Fn(&str) -> bool) -> usize {
    let filters = HashMap::from([("label", vec![labels::OWNER.to_owned()])]);
    let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
    // A daemon that cannot list them has said so where it matters.
    let listed = docker.list_volumes(Some(options)).await.unwrap_or_default();
    let mut reaped = 0;
    for volume in listed.volumes.unwrap_or_default() {
        if volume.labels.get(labels::OWNER).is_some_and(|owner| which(owner)) {
            reaped += usize::from(remove_volume(docker, &volume.name).await);
        }
    }
    reaped
}

pub(super) async fn remove_volume(docker: &Docker, name: &str) -> bool {
    match docker.remove_volume(name, None::<RemoveVolumeOptions>).await {
        Ok(()) => true,
        Err(error) if error::status(&error) == Some(404) => false,
        Err(error) => {
            tracing::warn!(name, %error, "a volume cannot be removed");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ended_long_ago_is_past() {
        let hour = Duration::from_secs(3600);
        let at = 1_790_000_000_000;
        let time = jiff::Timestamp::from_millisecond(at).unwrap().to_string();
        assert!(!is_past(&time, hour, at + 3_599_999));
        assert!(is_past(&time, hour, at + 3_600_000));
        // As Docker writes it, and a clock that is behind the daemon's.
        assert!(is_past("2026-11-30T12:00:00.123456789Z", Duration::ZERO, i64::MAX));
        assert!(!is_past(&time, hour, at - 1));
        assert!(!is_past("", Duration::ZERO, at));
    }
}
