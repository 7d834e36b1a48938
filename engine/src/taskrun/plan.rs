//! The Pod of an attempt: StepActions are looked up here, the rest is the language's business.

use std::collections::BTreeMap;

use tenon_tekton::pod::{Plan, PlanInput, plan};
use tenon_tekton::rejection::Rejection;
use tenon_tekton::v1::StepActionSpec;

use super::{Context, TaskRunState};

/// Plans the next attempt's Pod.
pub(super) fn plan_pod(task_run: &TaskRunState, ctx: &Context<'_>) -> Result<Plan, Rejection> {
    let step_actions = step_actions(task_run, ctx)?;
    let object = &task_run.object;
    let resolved = &task_run.resolved;
    plan(&PlanInput {
        task_run: object,
        task_spec: &resolved.spec,
        task_name: resolved.name.as_deref().unwrap_or(&object.metadata.name),
        step_actions: &step_actions,
        service_account: ctx.service_account(&object.spec.service_account_name),
        retry_count: task_run.retries_status.len(),
        run_uid: &ctx.materials.run_uid,
        flags: &ctx.materials.flags,
    })
}

/// The StepActions that the steps refer to, by the index of the step.
fn step_actions(
    task_run: &TaskRunState,
    ctx: &Context<'_>,
) -> Result<BTreeMap<usize, StepActionSpec>, Rejection> {
    let mut found = BTreeMap::new();
    for (index, step) in task_run.resolved.spec.steps.iter().enumerate() {
        let Some(reference) = &step.r#ref else {
            continue;
        };
        let missing = |why: String| {
            let name = &step.name;
            let message =
                format!("failed to resolve step ref for step \"{name}\" (index {index}): {why}");
            Rejection::new("TaskRunResolutionFailed", message)
        };
        if !reference.resolver.is_empty() {
            return Err(missing(no_resolver(&reference.resolver)));
        }
        let Some(action) = ctx.materials.step_actions.get(&reference.name) else {
            return Err(missing(not_found("stepactions", &reference.name)));
        };
        found.insert(index, action.spec.clone());
    }
    Ok(found)
}

/// Kubernetes' words for a missing object.
pub(crate) fn not_found(resource: &str, name: &str) -> String {
    format!("{resource}.tekton.dev \"{name}\" not found")
}

/// For a `resolver:` reference, which nothing here can follow.
pub(crate) fn no_resolver(resolver: &str) -> String {
    format!(
        "resolver \"{resolver}\" is not available in this build: \
         give the object in a file and refer to it by name"
    )
}
