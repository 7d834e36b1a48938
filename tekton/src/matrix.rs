//! The combinations of a matrix: one TaskRun each, in Tekton's order.
//!
//! Works on values whose variables are applied. The first param varies fastest. The number of
//! combinations is checked before they are made ([`count`]): a matrix can be as large as a product.

use std::collections::BTreeMap;

use crate::v1::{Matrix, Param, ParamValue};

/// One TaskRun's worth of a matrix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Combination {
    /// The params, sorted by name, all strings.
    pub params: Vec<Param>,
}

type Values = BTreeMap<String, String>;

fn string_of(value: &ParamValue) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn array_of(value: &ParamValue) -> &[String] {
    match value {
        ParamValue::Array(items) => items,
        _ => &[],
    }
}

/// Whether the PipelineTask fans out at all.
pub fn is_matrixed(matrix: Option<&Matrix>) -> bool {
    matrix.is_some_and(|matrix| !matrix.params.is_empty() || !matrix.include.is_empty())
}

/// Whether some matrix param is an empty array: then the task is skipped.
pub fn has_empty_array(matrix: &Matrix) -> bool {
    matrix
        .params
        .iter()
        .any(|param| matches!(&param.value, ParamValue::Array(items) if items.is_empty()))
}

/// How many TaskRuns the matrix makes; saturates rather than overflows.
///
/// Counts what [`combinations`] makes, except that an empty array counts as if it were absent, as in
/// Tekton: such a task is skipped, not run.
pub fn count(matrix: &Matrix) -> usize {
    if matrix.params.is_empty() {
        return matrix.include.len();
    }
    let product = matrix
        .params
        .iter()
        .map(|param| array_of(&param.value).len())
        .filter(|length| *length > 0)
        .fold(1usize, usize::saturating_mul);
    product.saturating_add(new_from_include(matrix))
}

/// Includes that match no combination of the params.
fn new_from_include(matrix: &Matrix) -> usize {
    matrix
        .include
        .iter()
        .filter(|include| {
            let mut named = include.params.iter().filter_map(|param| {
                let values = matrix.params.iter().find(|p| p.name == param.name)?;
                Some(array_of(&values.value).contains(&string_of(&param.value)))
            });
            match named.next() {
                None => false,
                Some(first) => !first && named.all(|is_known| !is_known),
            }
        })
        .count()
}

/// All combinations, in Tekton's order.
pub fn combinations(matrix: &Matrix) -> Vec<Combination> {
    let includes: Vec<Values> = matrix
        .include
        .iter()
        .map(|include| {
            include
                .params
                .iter()
                .map(|param| (param.name.clone(), string_of(&param.value)))
                .collect()
        })
        .collect();
    if matrix.params.is_empty() {
        return includes.into_iter().map(to_combination).collect();
    }
    let mut all: Vec<Values> = Vec::new();
    for param in &matrix.params {
        all = distribute(&all, param);
    }
    for values in &mut all {
        for include in &includes {
            if agrees(values, include) {
                values.extend(include.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
        }
    }
    for include in includes {
        if is_new(&all, &include) {
            all.push(include);
        }
    }
    all.into_iter().map(to_combination).collect()
}

fn distribute(all: &[Values], param: &Param) -> Vec<Values> {
    let values = array_of(&param.value);
    if all.is_empty() {
        return values
            .iter()
            .map(|value| Values::from([(param.name.clone(), value.clone())]))
            .collect();
    }
    values
        .iter()
        .flat_map(|value| {
            all.iter().map(move |combination| {
                let mut combination = combination.clone();
                combination.insert(param.name.clone(), value.clone());
                combination
            })
        })
        .collect()
}

/// No param of the include has another value in the combination.
fn agrees(combination: &Values, include: &Values) -> bool {
    include
        .iter()
        .all(|(name, value)| combination.get(name).is_none_or(|existing| existing == value))
}

/// No combination has any param of the include with the same value.
fn is_new(all: &[Values], include: &Values) -> bool {
    !include.is_empty()
        && !all.iter().any(|combination| {
            include.iter().any(|(name, value)| combination.get(name) == Some(value))
        })
}

fn to_combination(values: Values) -> Combination {
    Combination {
        params: values
            .into_iter()
            .map(|(name, value)| Param { name, value: ParamValue::String(value) })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::IncludeParams;

    fn array(name: &str, values: &[&str]) -> Param {
        Param {
            name: name.into(),
            value: ParamValue::Array(values.iter().map(|v| (*v).to_owned()).collect()),
        }
    }

    fn include(name: &str, params: &[(&str, &str)]) -> IncludeParams {
        IncludeParams {
            name: name.into(),
            params: params
                .iter()
                .map(|(name, value)| Param { name: (*name).into(), value: (*value).into() })
                .collect(),
        }
    }

    fn shown(matrix: &Matrix) -> Vec<String> {
        combinations(matrix)
            .iter()
            .map(|combination| {
                let values: Vec<String> = combination
                    .params
                    .iter()
                    .map(|p| format!("{}={}", p.name, p.value.as_str().unwrap_or("?")))
                    .collect();
                values.join(",")
            })
            .collect()
    }

    #[test]
    fn the_first_param_varies_fastest() {
        let matrix = Matrix {
            params: vec![
                array("platform", &["linux", "mac"]),
                array("browser", &["chrome", "safari"]),
            ],
            include: vec![],
        };
        assert_eq!(
            shown(&matrix),
            [
                "browser=chrome,platform=linux",
                "browser=chrome,platform=mac",
                "browser=safari,platform=linux",
                "browser=safari,platform=mac",
            ]
        );
        assert_eq!(count(&matrix), 4);
    }

    #[test]
    fn includes_extend_add_or_stand_alone() {
        let mut matrix = Matrix {
            params: vec![array("GOARCH", &["amd64", "arm"]), array("version", &["1", "2"])],
            include: vec![
                include("all", &[("package", "p")]),
                include("one", &[("GOARCH", "arm"), ("flag", "-x")]),
                include("new", &[("GOARCH", "s390x"), ("version", "9")]),
            ],
        };
        assert_eq!(
            shown(&matrix),
            [
                "GOARCH=amd64,package=p,version=1",
                "GOARCH=arm,flag=-x,package=p,version=1",
                "GOARCH=amd64,package=p,version=2",
                "GOARCH=arm,flag=-x,package=p,version=2",
                "GOARCH=s390x,version=9",
            ]
        );
        assert_eq!(count(&matrix), 5);
        matrix.params.clear();
        assert_eq!(shown(&matrix).len(), 3);
        assert_eq!(count(&matrix), 3);
    }

    #[test]
    fn empty_arrays_are_noticed() {
        let matrix =
            Matrix { params: vec![array("a", &[]), array("b", &["1", "2"])], include: vec![] };
        assert!(has_empty_array(&matrix));
        assert_eq!(count(&matrix), 2);
        assert_eq!(count(&Matrix::default()), 0);
        let huge: Vec<Param> = (0..80).map(|i| array(&format!("p{i}"), &["1", "2"])).collect();
        let matrix = Matrix { params: huge, include: vec![] };
        assert_eq!(count(&matrix), usize::MAX);
    }
}
