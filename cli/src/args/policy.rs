//! What tasks may have of the machine that runs them: the same flags for `run` and `agent`.

use clap::Args;

/// What is allowed beyond Kubernetes' baseline standard.
#[derive(Clone, Debug, Default, Args)]
pub struct PolicyArgs {
    /// Let tasks have privileged containers: these can do all that root of this machine can
    #[arg(long, help_heading = "What tasks may have")]
    pub allow_privileged: bool,

    /// Let tasks run without seccomp and AppArmor profiles, and with an unmasked /proc
    #[arg(long, help_heading = "What tasks may have")]
    pub allow_unconfined: bool,

    /// Let tasks add this capability, such as NET_ADMIN, or ALL; may be repeated
    #[arg(long, value_name = "NAME", help_heading = "What tasks may have")]
    pub allow_capability: Vec<String>,

    /// Let tasks use the machine's network (hostNetwork)
    #[arg(long, help_heading = "What tasks may have")]
    pub allow_host_network: bool,

    /// Let tasks mount (hostPath) this directory of the machine and all below it; may be repeated
    #[arg(long, value_name = "DIR", value_parser = parse_host_path,
          help_heading = "What tasks may have")]
    pub allow_host_path: Vec<String>,

    /// Let tasks mount the container engine's socket: whoever has it is root of this machine
    #[arg(long, help_heading = "What tasks may have")]
    pub allow_docker_socket: bool,

    /// Run only images that match this pattern, in which * stands for any text; may be repeated
    /// [default: all]
    #[arg(long, value_name = "PATTERN", help_heading = "What tasks may have")]
    pub allow_image: Vec<String>,

    /// At most so many processes and threads in a container; 0 for no limit
    #[arg(long, default_value_t = 4096, value_name = "N", help_heading = "What tasks may have")]
    pub pids_limit: u32,
}

fn parse_host_path(text: &str) -> Result<String, String> {
    match text.starts_with('/') {
        true => Ok(text.to_owned()),
        false => Err("not an absolute path".to_owned()),
    }
}
