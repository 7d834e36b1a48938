//! The part of a pod's affinity that Tenon acts on:
//! `nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution`. One of its terms must match, and of
//! a term all expressions. What is preferred, and affinity between pods, means nothing here.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Expressions that must all hold; without any, nothing matches, as in Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Term {
    /// About labels.
    pub match_expressions: Vec<Expression>,
    /// About fields; there is one, `metadata.name`.
    pub match_fields: Vec<Expression>,
}

/// One condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Expression {
    /// The label, or the field.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt` or `Lt`. Any other holds nowhere.
    pub operator: String,
    /// What the value is compared with.
    pub values: Vec<String>,
}

/// The terms that a podTemplate's `affinity` requires; none, if it requires nothing of a node. What
/// cannot be understood is a term that matches nowhere, so that it is not ignored.
pub fn required_terms(affinity: &Value) -> Vec<Term> {
    let terms = &affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    let Value::Array(terms) = terms else { return Vec::new() };
    terms.iter().map(|term| Term::deserialize(term).unwrap_or_default()).collect()
}

impl Term {
    /// Whether an agent with this name and these labels matches.
    pub fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let label = |expression: &Expression| {
            expression.holds(labels.get(&expression.key).map(String::as_str))
        };
        let field = |expression: &Expression| {
            expression.holds((expression.key == "metadata.name").then_some(name))
        };
        let says_something = !self.match_expressions.is_empty() || !self.match_fields.is_empty();
        says_something
            && self.match_expressions.iter().all(label)
            && self.match_fields.iter().all(field)
    }
}

impl Expression {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = |text: &str| text.parse::<i64>().ok();
        let limit = self.values.first().and_then(|limit| number(limit));
        match (self.operator.as_str(), value) {
            ("In", Some(value)) => self.values.iter().any(|known| known == value),
            ("NotIn", Some(value)) => self.values.iter().all(|known| known != value),
            ("NotIn" | "DoesNotExist", None) | ("Exists", Some(_)) => true,
            ("Gt", Some(value)) => number(value).zip(limit).is_some_and(|(v, limit)| v > limit),
            ("Lt", Some(value)) => number(value).zip(limit).is_some_and(|(v, limit)| v < limit),
            _ => false,
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.match_expressions.iter().chain(&self.match_fields);
        let words: Vec<String> = all
            .map(|it| match it.values.as_slice() {
                [] => format!("{} {}", it.key, it.operator),
                values => format!("{} {} [{}]", it.key, it.operator, values.join(", ")),
            })
            .collect();
        f.write_str(&words.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn expressions_hold_as_in_kubernetes() {
        let labels = BTreeMap::from([
            ("zone".to_owned(), "b".to_owned()),
            ("cores".to_owned(), "16".to_owned()),
        ]);
        for (key, operator, values, expected) in [
            ("zone", "In", &["a", "b"][..], true),
            ("zone", "In", &["a"], false),
            ("gpu", "In", &["true"], false),
            ("zone", "NotIn", &["a"], true),
            ("gpu", "NotIn", &["true"], true),
            ("zone", "Exists", &[], true),
            ("gpu", "Exists", &[], false),
            ("gpu", "DoesNotExist", &[], true),
            ("cores", "Gt", &["8"], true),
            ("cores", "Gt", &["16"], false),
            ("cores", "Lt", &["32"], true),
            ("zone", "Gt", &["8"], false),
            ("zone", "Like", &["b"], false),
        ] {
            let affinity = json!({"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": key, "operator": operator, "values": values}]},
                ]},
            }});
            let terms = required_terms(&affinity);
            assert_eq!(terms[0].matches("a1", &labels), expected, "{}", terms[0]);
        }
        let named = Term {
            match_fields: vec![Expression {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: vec!["a1".to_owned()],
            }],
            ..Term::default()
        };
        assert!(named.matches("a1", &labels) && !named.matches("a2", &labels));
        assert!(!Term::default().matches("a1", &labels), "an empty term matches nothing");
        assert_eq!(required_terms(&json!({"podAffinity": {}})), []);
        assert_eq!(required_terms(&Value::Null), []);
    }
}
