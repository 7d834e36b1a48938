//! What a pod asks of the machine that runs it.

use super::{Pod, quantity};
use crate::k8s::ResourceRequirements;

/// What all containers of a pod request together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// CPU, in thousandths.
    pub cpu_millis: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
}

impl Pod {
    /// The sum over steps and sidecars, as Kubernetes schedules a pod: although steps run one after
    /// the other, their containers are there together. A container that has a limit and no request of
    /// a resource requests its limit. What is no quantity counts as nothing.
    pub fn requests(&self) -> Requests {
        let steps = self.steps.iter().map(|step| &step.compute_resources);
        let sidecars = self.sidecars.iter().map(|sidecar| &sidecar.compute_resources);
        let mut all = Requests::default();
        for resources in steps.chain(sidecars) {
            let cpu = requested(resources, "cpu", 1_000_000);
            let memory = requested(resources, "memory", 1_000_000_000);
            all.cpu_millis = all.cpu_millis.saturating_add(cpu);
            all.memory_bytes = all.memory_bytes.saturating_add(memory);
        }
        all
    }
}

/// In units of so many billionths, rounded up.
fn requested(resources: &ResourceRequirements, name: &str, unit: i128) -> u64 {
    let quantity = resources.requests.get(name).or_else(|| resources.limits.get(name));
    let value = quantity.and_then(quantity::parse).unwrap_or(0).max(0);
    u64::try_from((value + unit - 1) / unit).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_are_summed_and_limits_stand_for_requests() {
        let pod: Pod = serde_json::from_value(json!({
            "steps": [
                {"name": "a", "computeResources": {"requests": {"cpu": "500m", "memory": "1Gi"}}},
                {"name": "b", "computeResources": {
                    "requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "512Mi"},
                }},
                {"name": "c"},
            ],
            "sidecars": [{"name": "s", "computeResources": {"limits": {"cpu": "0.1"}}}],
        }))
        .unwrap();
        let expected = Requests { cpu_millis: 1600, memory_bytes: 3 << 29 };
        assert_eq!(pod.requests(), expected);
        assert_eq!(Pod::default().requests(), Requests::default());
    }
}
