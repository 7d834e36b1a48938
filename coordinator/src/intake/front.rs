//! Who asks: the same fault is named by the flag that a user typed, or by the field of a request.

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// The command line, on the machine where the run happens.
    CommandLine,
    /// The control API: nothing of the sender's machine can be named.
    Api,
}

impl Front {
    pub(super) fn param(self, name: &str) -> String {
        match self {
            Front::CommandLine => format!("-p {name}"),
            Front::Api => format!("param {name}"),
        }
    }

    pub(super) fn object_example(self, name: &str) -> String {
        match self {
            Front::CommandLine => format!("-p '{name}={{\"name\":\"value\"}}'"),
            Front::Api => r#"{"name":"value"}"#.to_owned(),
        }
    }

    pub(super) fn workspace(self, name: &str, source: &str) -> String {
        match self {
            Front::CommandLine => format!("-w {name}={source}"),
            Front::Api => format!("workspace {name}"),
        }
    }

    pub(super) fn timeout(self, text: &str) -> String {
        match self {
            Front::CommandLine => format!("--timeout {text}"),
            Front::Api => format!("timeout {text:?}"),
        }
    }

    pub(super) fn timeout_example(self) -> &'static str {
        match self {
            Front::CommandLine => "for example --timeout 90s or --timeout 1h30m",
            Front::Api => "for example 90s or 1h30m",
        }
    }

    pub(super) fn choose(self, kind: &str, name: &str) -> String {
        let field = if kind == "Pipeline" { "pipeline" } else { "task" };
        match self {
            Front::CommandLine => format!("choose one: --{field} {name}"),
            Front::Api => format!("choose one: \"{field}\": \"{name}\""),
        }
    }

    pub(super) fn feature_flag(self) -> &'static str {
        match self {
            Front::CommandLine => "--feature-flag",
            Front::Api => "featureFlags",
        }
    }
}
