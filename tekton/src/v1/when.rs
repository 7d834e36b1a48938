//! `when` expressions, of pipeline tasks and of steps.

use crate::object::object;

object! {
    /// Either `input`/`operator`/`values` or `cel`.
    pub struct WhenExpression {
        input: String,
        /// `in` or `notin`; text, so that validation can name a wrong one.
        operator: String,
        values: Vec<String>,
        cel: String,
    }
}
