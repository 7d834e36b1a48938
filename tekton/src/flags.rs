//! Tekton's feature flags and defaults (`config-feature-flags`, `config-defaults`), with Tekton's
//! own default values.

use serde::{Deserialize, Serialize};

/// `enable-api-fields`: which stability levels may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApiFields {
    /// Only stable fields.
    Stable,
    /// Stable and beta fields: Tekton's default.
    #[default]
    Beta,
    /// All fields; features with a flag of their own still need that flag.
    Alpha,
}

impl ApiFields {
    /// The flag's value as Tekton spells it in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            ApiFields::Stable => "stable",
            ApiFields::Beta => "beta",
            ApiFields::Alpha => "alpha",
        }
    }
}

/// The flags that change what Tekton accepts or how it runs; keys are Tekton's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct FeatureFlags {
    /// Stability gate.
    pub enable_api_fields: ApiFields,
    /// `cel:` in `when`.
    pub enable_cel_in_whenexpression: bool,
    /// `enum:` of a param.
    pub enable_param_enum: bool,
    /// `$(artifacts.path)` and friends.
    pub enable_artifacts: bool,
    /// A URL-like `name` in a reference.
    pub enable_concise_resolver_syntax: bool,
    /// Comma list of `pipeline`, `pipelinerun`, `taskrun` in which inline specs are refused.
    pub disable_inline_spec: String,
    /// Longest timeout of a run without one of its own, in minutes (`default-timeout-minutes`).
    pub default_timeout_minutes: u32,
    /// `default-max-matrix-combinations-count`.
    pub default_max_matrix_combinations_count: u32,
    /// Longest termination message of a step, in bytes (`max-result-size`).
    pub max_result_size: u32,
}

impl Default for FeatureFlags {
    fn default() -> Self {
        FeatureFlags {
            enable_api_fields: ApiFields::Beta,
            enable_cel_in_whenexpression: false,
            enable_param_enum: false,
            enable_artifacts: false,
            enable_concise_resolver_syntax: false,
            disable_inline_spec: String::new(),
            default_timeout_minutes: 60,
            default_max_matrix_combinations_count: 256,
            max_result_size: 4096,
        }
    }
}
