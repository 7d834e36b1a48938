//! Whether `when` expressions allow a task or step to run.
//!
//! Works on expressions whose variables are applied. `cel:` is not evaluated here: it is behind a
//! flag that is off, and a run that uses it is refused before it starts.

use crate::v1::WhenExpression;

/// A `cel:` expression was met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CEL in when expressions is not supported: {expression}")]
pub struct CelUnsupported {
    /// The expression as written.
    pub expression: String,
}

impl CelUnsupported {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        "when/cel-unsupported"
    }
}

/// Whether all expressions hold; none at all is true.
pub fn evaluate(expressions: &[WhenExpression]) -> Result<bool, CelUnsupported> {
    for when in expressions {
        if !when.cel.is_empty() {
            return Err(CelUnsupported { expression: when.cel.clone() });
        }
        let is_in = when.values.contains(&when.input);
        // Tekton takes every other operator for `notin`; validation lets only the two through.
        if is_in != (when.operator == "in") {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn when(input: &str, operator: &str, values: &[&str]) -> WhenExpression {
        WhenExpression {
            input: input.into(),
            operator: operator.into(),
            values: values.iter().map(|v| (*v).to_owned()).collect(),
            cel: String::new(),
        }
    }

    #[test]
    fn all_must_hold() {
        for (expressions, allowed) in [
            (vec![], true),
            (vec![when("a", "in", &["a", "b"])], true),
            (vec![when("a", "notin", &["a", "b"])], false),
            (vec![when("c", "notin", &["a"]), when("c", "in", &[])], false),
            (vec![when("", "in", &[""])], true),
        ] {
            assert_eq!(evaluate(&expressions), Ok(allowed), "{expressions:?}");
        }
    }

    #[test]
    fn cel_is_refused() {
        let cel = WhenExpression { cel: "'a' == 'a'".into(), ..WhenExpression::default() };
        assert!(evaluate(&[cel]).is_err());
    }
}
