//! StepAction (`tekton.dev/v1beta1`, also `v1alpha1`): a reusable step.

use crate::k8s::{EnvVar, ObjectMeta, SecurityContext, VolumeMount};
use crate::object::{Absent, object};
use crate::v1::{ParamSpec, StepResult};

object! {
    /// `kind: StepAction`.
    pub struct StepAction {
        api_version: String,
        kind: String,
        metadata: ObjectMeta,
        spec: StepActionSpec,
    }
}

object! {
    /// What the step does.
    pub struct StepActionSpec {
        description: String,
        image: String,
        command: Vec<String>,
        args: Vec<String>,
        env: Vec<EnvVar>,
        script: String,
        working_dir: String,
        params: Vec<ParamSpec>,
        results: Vec<StepResult>,
        security_context: Option<SecurityContext>,
        volume_mounts: Vec<VolumeMount>,
    }
}

impl Absent for StepActionSpec {
    fn is_absent(&self) -> bool {
        false
    }
}
