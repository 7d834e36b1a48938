//! References to Tasks, Pipelines and StepActions: by name, or by a resolver and its params.

use super::Context;
use super::dns::qualified_name_faults;
use super::field_error::{FieldError, FieldErrors};
use super::params::check_given;
use crate::flags::ApiFields;
use crate::v1::Param;

/// The rule for `taskRef`, `pipelineRef` and a step's `ref`; relative to the reference.
pub(crate) fn check_ref(
    context: Context<'_>,
    name: &str,
    resolver: &str,
    params: &[Param],
) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let concise_syntax = || {
        (!context.flags.enable_concise_resolver_syntax).then(|| {
            FieldError::new("feature flag enable-concise-resolver-syntax should be set to true to use concise resolver syntax", "")
        })
    };
    if !params.is_empty() {
        errors.also(context.gate("resolver params", ApiFields::Beta, "params"));
        if !name.is_empty() {
            errors.also(FieldError::multiple_one_of(["name", "params"]));
        }
        if resolver.is_empty() {
            errors.also(FieldError::missing("resolver"));
        }
        errors.also(check_given(params));
    }
    if !resolver.is_empty() {
        errors.also(context.gate("resolver", ApiFields::Beta, "resolver"));
        if is_url_like(name) {
            errors.also(concise_syntax());
        } else if !name.is_empty() {
            errors.also(FieldError::invalid("invalid URI for request", "name"));
        }
    } else if params.is_empty() {
        if name.is_empty() {
            errors.also(FieldError::missing("name"));
        } else if is_url_like(name) {
            errors.also(concise_syntax());
            errors.also(FieldError::missing("resolver"));
        } else {
            let faults = qualified_name_faults(name);
            if !faults.is_empty() {
                errors.also(FieldError::invalid(faults.join(","), "name"));
            }
        }
    }
    errors
}

/// Whether a name holds a scheme, a colon and a slash: `https://…`, `git:/…`.
fn is_url_like(name: &str) -> bool {
    name.match_indices(":/").any(|(at, _)| {
        name[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::FeatureFlags;
    use crate::validate::tests::{parsed, shown};

    #[test]
    fn references() {
        let flags = FeatureFlags::default();
        for (name, resolver, params, errors) in [
            ("a", "", "[]", ""),
            ("", "git", r#"[{"name":"x"}]"#, ""),
            ("", "", "[]", "missing field(s): name"),
            ("", "", r#"[{"name":"x"}]"#, "missing field(s): resolver"),
            ("a", "git", "[]", "invalid value: invalid URI for request: name"),
            (
                "a",
                "git",
                r#"[{"name":"x"}]"#,
                "expected exactly one, got both: name, params\ninvalid value: invalid URI for request: name",
            ),
            (
                "",
                "git",
                r#"[{"name":"x"},{"name":"X"}]"#,
                "expected exactly one, got both: [X].name",
            ),
            (
                "https://x",
                "",
                "[]",
                "feature flag enable-concise-resolver-syntax should be set to true to use concise resolver syntax: \nmissing field(s): resolver",
            ),
        ] {
            let params: Vec<Param> = parsed(params);
            let found = shown(check_ref(Context::new(&flags), name, resolver, &params));
            assert_eq!(found, errors, "{name} {resolver}");
        }
    }

    #[test]
    fn stability_gates() {
        let flags =
            FeatureFlags { enable_api_fields: ApiFields::Stable, ..FeatureFlags::default() };
        assert_eq!(
            shown(check_ref(Context::new(&flags), "", "git", &[])),
            "resolver requires \"enable-api-fields\" feature gate to be \"alpha\" or \"beta\" but it is \"stable\": "
        );
    }
}
