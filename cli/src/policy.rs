//! From flags to what tasks may have of this machine.

use tenon_agent::docker::endpoint::{Endpoint, endpoint};
use tenon_agent::policy::Policy;
use tenon_tekton::pod::Demand;

use crate::args::PolicyArgs;
use crate::exit::{Exit, Failure};

/// The policy of an agent, or of `tenon run`: `command` is whose flags allow more.
pub fn policy(args: &PolicyArgs, command: &'static str) -> Result<Policy, Failure> {
    let flags = [
        (args.allow_privileged, Demand::Privileged),
        (args.allow_unconfined, Demand::Unconfined),
        (args.allow_host_network, Demand::HostNetwork),
        (args.allow_docker_socket, Demand::ContainerSocket),
    ];
    let mut grants: Vec<Demand> =
        flags.into_iter().filter_map(|(said, grant)| said.then_some(grant)).collect();
    let capabilities = args.allow_capability.iter().map(|name| format!("capability={name}"));
    let paths = args.allow_host_path.iter().map(|path| format!("host-path={path}"));
    for grant in capabilities.chain(paths) {
        let parsed =
            grant.parse().map_err(|error| Failure::new(Exit::Usage, format!("--allow-{error}")))?;
        grants.push(parsed);
    }
    Ok(Policy {
        command,
        grants,
        images: args.allow_image.clone(),
        pids_limit: args.pids_limit,
        socket: match endpoint() {
            Ok(Endpoint::Unix(path)) => Some(path),
            // Another machine's, or one that cannot be used.
            _ => None,
        },
    })
}
