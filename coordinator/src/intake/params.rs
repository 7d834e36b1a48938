//! Params that are given as text: values by the type that the Pipeline or Task declares, or, where it
//! declares none, by their looks.

use std::collections::BTreeMap;

use tenon_tekton::v1::{Param, ParamSpec, ParamValue};

use super::error::{Error, Result};
use super::{Front, Remark, Request, did_you_mean};

/// Puts the params of the request over those of a run. `declared` is `None` where the run's own spec
/// declares them and propagation makes any name meaningful.
pub(super) fn apply(
    request: &Request,
    declared: Option<&[ParamSpec]>,
    params: &mut Vec<Param>,
    remark: &mut dyn FnMut(Remark),
) -> Result<()> {
    let mut order: Vec<&str> = Vec::new();
    let mut texts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, value) in &request.params {
        if key.is_empty() {
            return Err(wrong("a param has no name".to_owned()));
        }
        let texts = texts.entry(key).or_default();
        if texts.is_empty() {
            order.push(key);
        }
        texts.push(value);
    }
    for key in order {
        let declaration = declared.and_then(|specs| specs.iter().find(|spec| spec.name == key));
        if let Some(specs) = declared
            && declaration.is_none()
        {
            let known: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
            let help = did_you_mean(key, &known).unwrap_or_default();
            let note = format!("{}: no such param is declared; {help}", request.front.param(key));
            remark(Remark::Note(note.trim_end_matches("; ").to_owned()));
        }
        let wanted = declaration.map(|spec| spec.r#type.as_str()).unwrap_or_default();
        let value = value(request.front, key, wanted, &texts[key])?;
        match params.iter_mut().find(|param| param.name == key) {
            Some(param) => param.value = value,
            None => params.push(Param { name: key.to_owned(), value }),
        }
    }
    Ok(())
}

/// The value of one param. `wanted` is `string`, `array`, `object`, or empty where unknown.
fn value(front: Front, key: &str, wanted: &str, texts: &[&str]) -> Result<ParamValue> {
    let param = front.param(key);
    if let [text] = texts {
        let parsed = match wanted {
            "string" => return Ok(ParamValue::String((*text).to_owned())),
            "array" => json_array(text),
            "object" => json_object(text),
            _ => json_array(text).or_else(|| json_object(text)),
        };
        return match (parsed, wanted) {
            (Some(value), _) => Ok(value),
            (None, "array") => Ok(ParamValue::Array(vec![(*text).to_owned()])),
            (None, "object") => Err(wrong(format!(
                "{param}: an object is wanted, for example {}",
                front.object_example(key)
            ))),
            (None, _) => Ok(ParamValue::String((*text).to_owned())),
        };
    }
    match wanted {
        "string" => {
            Err(wrong(format!("{param} is given {} times, but it is a string", texts.len())))
        }
        "object" => Err(wrong(format!(
            "{param} is given {} times: give the object once, as JSON",
            texts.len()
        ))),
        _ => Ok(ParamValue::Array(texts.iter().map(|text| (*text).to_owned()).collect())),
    }
}

fn wrong(message: String) -> Error {
    Error::request("params", "invalid/param", message)
}

fn json_array(text: &str) -> Option<ParamValue> {
    let items: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
    Some(ParamValue::Array(items.iter().map(plain).collect()))
}

fn json_object(text: &str) -> Option<ParamValue> {
    let entries: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let plain = entries.iter().map(|(key, value)| (key.clone(), plain(value)));
    Some(ParamValue::Object(plain.collect()))
}

/// Params hold strings only: anything else becomes its JSON text.
fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(items: &[&str]) -> ParamValue {
        ParamValue::Array(items.iter().map(|item| (*item).to_owned()).collect())
    }

    fn object(entries: &[(&str, &str)]) -> ParamValue {
        let entries = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        ParamValue::Object(entries.collect())
    }

    #[test]
    fn values_follow_the_declared_type() {
        let cases: [(&str, &[&str], Option<ParamValue>); 13] = [
            ("", &["x"], Some("x".into())),
            ("", &[""], Some("".into())),
            ("", &[r#"["a","b"]"#], Some(array(&["a", "b"]))),
            ("", &["[1,true]"], Some(array(&["1", "true"]))),
            ("", &["[not json"], Some("[not json".into())),
            ("", &[r#"{"k":"v"}"#], Some(object(&[("k", "v")]))),
            ("", &["a", "b"], Some(array(&["a", "b"]))),
            ("string", &[r#"["a"]"#], Some(r#"["a"]"#.into())),
            ("string", &["a", "b"], None),
            ("array", &["a"], Some(array(&["a"]))),
            ("array", &["[]"], Some(array(&[]))),
            ("object", &["x"], None),
            ("object", &[r#"{"k":1}"#], Some(object(&[("k", "1")]))),
        ];
        for (wanted, texts, want) in cases {
            assert_eq!(
                value(Front::CommandLine, "p", wanted, texts).ok(),
                want,
                "{wanted} {texts:?}"
            );
        }
    }
}
