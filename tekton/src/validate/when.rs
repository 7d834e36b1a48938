//! `when` expressions of PipelineTasks and steps.

use super::Context;
use super::field_error::{FieldError, FieldErrors};
use super::text::{list, quote};
use crate::v1::WhenExpression;

/// The rule for each expression by itself, relative to the owner of `when`.
pub(crate) fn check(context: Context<'_>, expressions: &[WhenExpression]) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (index, expression) in expressions.iter().enumerate() {
        let found = FieldErrors::from(check_expression(context, expression));
        errors.also(found.via_field_index("when", index));
    }
    errors
}

fn check_expression(context: Context<'_>, expression: &WhenExpression) -> Option<FieldError> {
    let WhenExpression { input, operator, values, cel } = expression;
    let is_plain = !input.is_empty() || !operator.is_empty() || !values.is_empty();
    if !cel.is_empty() {
        if !context.flags.enable_cel_in_whenexpression {
            return Some(FieldError::new(
                format!(
                    "feature flag enable-cel-in-whenexpression should be set to true to use CEL: {cel} in WhenExpression"
                ),
                "",
            ));
        }
        return is_plain.then(|| {
            let values = list(values.iter().map(String::as_str));
            FieldError::about(format!("cel and input+operator+values cannot be set in one WhenExpression: &{{{input} {operator} {values} {cel}}}"), [])
        });
    }
    if !is_plain {
        return Some(FieldError::missing(""));
    }
    if !matches!(operator.as_str(), "in" | "notin") {
        let operator = quote(operator);
        return Some(FieldError::invalid(
            format!("operator {operator} is not recognized. valid operators: in,notin"),
            "",
        ));
    }
    values.is_empty().then(|| FieldError::invalid("expecting non-empty values field", ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::FeatureFlags;
    use crate::validate::tests::{parsed, shown};

    #[test]
    fn expressions() {
        let mut flags = FeatureFlags::default();
        let of = |flags: &FeatureFlags, json: &str| {
            let expressions: Vec<WhenExpression> = parsed(json);
            shown(check(Context::new(flags), &expressions))
        };
        for (json, error) in [
            (r#"[{"input":"","operator":"in","values":[""]}]"#, ""),
            (r#"[{}]"#, "missing field(s): when[0]"),
            (
                r#"[{"input":"a","operator":"eq","values":["b"]}]"#,
                "invalid value: operator \"eq\" is not recognized. valid operators: in,notin: when[0]",
            ),
            (
                r#"[{"input":"a","operator":"in"}]"#,
                "invalid value: expecting non-empty values field: when[0]",
            ),
            (
                r#"[{"cel":"'a'=='b'"}]"#,
                "feature flag enable-cel-in-whenexpression should be set to true to use CEL: 'a'=='b' in WhenExpression: when[0]",
            ),
        ] {
            assert_eq!(of(&flags, json), error);
        }
        flags.enable_cel_in_whenexpression = true;
        assert_eq!(of(&flags, r#"[{"cel":"true"}]"#), "");
        assert_eq!(
            of(&flags, r#"[{"cel":"true","input":"a","operator":"in","values":["b","c"]}]"#),
            "cel and input+operator+values cannot be set in one WhenExpression: &{a in [b c] true}: "
        );
    }
}
