//! Params: their declarations, the params given to something, and the set of declared params that
//! references are checked against.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::Context;
use super::field_error::{FieldError, FieldErrors};
use super::text::list;
use super::variables::{PARAMS, Prefix, prohibited_whole, references, unknown};
use crate::v1::{Param, ParamSpec, ParamValue, PropertySpec};

const TYPES: [&str; 3] = ["string", "array", "object"];

/// The declared params that a text may refer to, ready to be asked.
#[derive(Default)]
pub(crate) struct Scope<'a> {
    names: HashSet<&'a str>,
    arrays: HashSet<&'a str>,
    /// The keys of each object param; a name declared twice has all keys of both.
    objects: BTreeMap<&'a str, BTreeSet<&'a str>>,
    /// Object params that say nothing of their keys.
    bare_objects: BTreeSet<&'a str>,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(params: impl IntoIterator<Item = &'a ParamSpec>) -> Self {
        let mut scope = Scope::default();
        for param in params {
            scope.names.insert(&param.name);
            match param.r#type.as_str() {
                "array" => drop(scope.arrays.insert(&param.name)),
                "object" => {
                    let keys = scope.objects.entry(&param.name).or_default();
                    keys.extend(param.properties.keys().map(String::as_str));
                    if param.properties.is_empty() {
                        scope.bare_objects.insert(&param.name);
                    }
                }
                _ => {}
            }
        }
        scope
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    pub(crate) fn has_array(&self, name: &str) -> bool {
        self.arrays.contains(name)
    }

    pub(crate) fn has_object(&self, name: &str) -> bool {
        self.objects.contains_key(name)
    }

    /// Object params must declare their keys.
    pub(crate) fn check_objects_have_properties(&self) -> FieldErrors {
        let mut errors = FieldErrors::default();
        for name in &self.bare_objects {
            errors.also(FieldError::missing(format!("{name}.properties")));
        }
        errors
    }

    /// The keys asked of object params must be declared. An object without any declared key is
    /// skipped when `only_with_keys`, as Tekton does in Pipelines.
    pub(crate) fn check_object_keys(
        &self,
        text: &str,
        named: bool,
        only_with_keys: bool,
    ) -> FieldErrors {
        let mut errors = FieldErrors::default();
        for object in self.objects_in(text) {
            let keys = &self.objects[object];
            if only_with_keys && keys.is_empty() {
                continue;
            }
            let prefix = format!("params.{object}");
            errors.also(unknown(text, Prefix(&prefix), named, |key| keys.contains(key)));
        }
        errors
    }

    /// An object may not stand where a string is wanted.
    pub(crate) fn check_no_whole_object(&self, text: &str) -> Option<FieldError> {
        prohibited_whole(text, PARAMS, |name| self.has_object(name))
    }

    /// The object params whose keys a text may ask for. A name may itself hold dots, so every
    /// beginning of a reference that ends before a dot or bracket is a candidate.
    fn objects_in(&self, text: &str) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        if self.objects.is_empty() {
            return found;
        }
        for reference in references(text, PARAMS) {
            let ends = reference.name.match_indices(['.', '[']).map(|(end, _)| end).take(8);
            for end in ends {
                if let Some((&object, _)) = self.objects.get_key_value(&reference.name[..end]) {
                    found.insert(object);
                }
            }
        }
        found
    }
}

/// Whether every declaration has a known type and a default of that type; relative to the params'
/// names, without an index, as Tekton reports it.
pub(crate) fn check_types<'a>(params: impl IntoIterator<Item = &'a ParamSpec>) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for param in params {
        errors.also(check_type(param));
    }
    errors
}

fn check_type(param: &ParamSpec) -> Option<FieldError> {
    let ParamSpec { name, r#type, .. } = param;
    if !TYPES.contains(&r#type.as_str()) {
        return Some(FieldError::invalid(r#type, format!("{name}.type")));
    }
    if let Some(default) = &param.default
        && default.type_name() != r#type
    {
        let given = default.type_name();
        return Some(FieldError {
            message: format!("\"{type}\" type does not match default value's type: \"{given}\""),
            paths: vec![format!("{name}.type"), format!("{name}.default.type")],
            ..FieldError::default()
        });
    }
    let wrong = keys_of_other_type(&param.properties);
    (!wrong.is_empty()).then(|| {
        FieldError::new(
            format!("The value type specified for these keys {} is invalid", list(wrong)),
            format!("{name}.properties"),
        )
    })
}

/// The keys of an object that are declared to hold something else than a string.
pub(crate) fn keys_of_other_type(properties: &BTreeMap<String, PropertySpec>) -> Vec<&str> {
    properties
        .iter()
        .filter(|(_, property)| property.r#type != "string")
        .map(|(key, _)| key.as_str())
        .collect()
}

/// The items that occur more than once, sorted.
fn repeated<'a>(items: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let mut seen = HashSet::new();
    items.into_iter().filter(|item| !seen.insert(*item)).collect()
}

/// No two declarations may share a name.
pub(crate) fn check_declared_once<'a>(
    params: impl IntoIterator<Item = &'a ParamSpec>,
) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for name in repeated(params.into_iter().map(|param| param.name.as_str())) {
        let error = FieldError::new("parameter appears more than once", "");
        errors.also(FieldErrors::from(error).via_field_key("params", name));
    }
    errors
}

/// `enum` needs its flag, a string param, different values and a default among them.
pub(crate) fn check_enums<'a>(
    context: Context<'_>,
    params: impl IntoIterator<Item = &'a ParamSpec>,
) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for param in params.into_iter().filter(|param| !param.r#enum.is_empty()) {
        let mut complain = |message: String| {
            errors.also(FieldErrors::from(FieldError::new(message, "")).via_key(&param.name));
        };
        if !context.flags.enable_param_enum {
            complain("feature flag `enable-param-enum` should be set to true to use Enum".into());
        }
        if param.r#type != "string" {
            complain("enum can only be set with string type param".into());
        }
        for value in repeated(param.r#enum.iter().map(String::as_str)) {
            complain(format!("parameter enum value {value} appears more than once"));
        }
        if let Some(ParamValue::String(default)) = &param.default
            && !default.is_empty()
            && !param.r#enum.contains(default)
        {
            complain(format!("param default value {default} not in the enum list"));
        }
    }
    errors
}

fn begins_as_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

fn is_object_name(name: &str) -> bool {
    begins_as_variable(name)
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

fn is_string_or_array_name(name: &str) -> bool {
    begins_as_variable(name)
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

/// Names of params, and keys of object params, have a form of their own.
pub(crate) fn check_name_formats<'a>(
    params: impl IntoIterator<Item = &'a ParamSpec>,
) -> FieldErrors {
    let mut wrong_names = BTreeSet::new();
    let mut wrong_objects: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for param in params {
        let name = param.name.as_str();
        if param.r#type != "object" {
            if !is_string_or_array_name(name) {
                wrong_names.insert(name);
            }
            continue;
        }
        if !is_object_name(name) {
            wrong_objects.insert(name, Vec::new());
        }
        for key in param.properties.keys().filter(|key| !is_object_name(key)) {
            wrong_objects.entry(name).or_default().push(key);
        }
    }
    let mut errors = FieldErrors::default();
    if !wrong_names.is_empty() {
        let message = format!(
            "The format of following array and string variable names is invalid: {}",
            list(wrong_names)
        );
        errors.also(FieldError::new(message, "params").details("String/Array Names: \nMust only contain alphanumeric characters, hyphens (-), underscores (_), and dots (.)\nMust begin with a letter or an underscore (_)"));
    }
    if !wrong_objects.is_empty() {
        let shown: Vec<String> = wrong_objects
            .into_iter()
            .map(|(name, keys)| format!("{name}:{}", list(keys)))
            .collect();
        let message =
            format!("Object param name and key name format is invalid: map[{}]", shown.join(" "));
        errors.also(FieldError::new(message, "params").details("Object Names: \nMust only contain alphanumeric characters, hyphens (-), underscores (_) \nMust begin with a letter or an underscore (_)"));
    }
    errors
}

/// Where [`check_names_differ`] finds a repeated name: at its index or under the name itself.
#[derive(Clone, Copy)]
pub(crate) enum Named {
    ByIndex,
    ByKey,
}

/// No two of these names may be equal, letter case ignored.
pub(crate) fn check_names_differ<'a>(
    names: impl IntoIterator<Item = &'a str>,
    named: Named,
) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let mut seen = HashSet::new();
    for (index, name) in names.into_iter().enumerate() {
        if seen.insert(name.to_lowercase()) {
            continue;
        }
        let error = FieldErrors::from(FieldError::multiple_one_of(["name"]));
        errors.also(match named {
            Named::ByIndex => error.via_index(index),
            Named::ByKey => error.via_key(name),
        });
    }
    errors
}

/// The params given to a run or a reference: names differ.
pub(crate) fn check_given(params: &[Param]) -> FieldErrors {
    check_names_differ(params.iter().map(|param| param.name.as_str()), Named::ByKey)
}

/// The params given to a PipelineTask or its matrix: names differ.
pub(crate) fn check_given_once(params: &[Param]) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let mut seen = HashSet::new();
    for (index, Param { name, .. }) in params.iter().enumerate() {
        if !seen.insert(name) {
            let message = format!(
                "parameter names must be unique, the parameter \"{name}\" is also defined at"
            );
            errors.also(FieldError::new(message, format!("[{index}].name")));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::FeatureFlags;
    use crate::validate::tests::{parsed, shown};

    fn specs(json: &str) -> Vec<ParamSpec> {
        parsed(json)
    }

    #[test]
    fn types_and_defaults() {
        for (json, errors) in [
            (r#"[{"name":"a","type":"string","default":"x"}]"#, ""),
            (r#"[{"name":"a","type":"weird"}]"#, "invalid value: weird: a.type"),
            (
                r#"[{"name":"a","type":"array","default":"s"}]"#,
                "\"array\" type does not match default value's type: \"string\": a.default.type, a.type",
            ),
            (
                r#"[{"name":"a","type":"object","properties":{"k":{"type":"array"},"l":{"type":"string"}}}]"#,
                "The value type specified for these keys [k] is invalid: a.properties",
            ),
        ] {
            assert_eq!(shown(check_types(&specs(json))), errors);
        }
    }

    #[test]
    fn names() {
        for (json, beginning) in [
            (r#"[{"name":"a.b-c_1","type":"string"}]"#, ""),
            (
                r#"[{"name":"1a","type":"string"},{"name":"","type":"array"}]"#,
                "The format of following array and string variable names is invalid: [ 1a]: params\nString/Array Names: \nMust",
            ),
            (
                r#"[{"name":"a.b","type":"object","properties":{"k":{},"x.y":{}}}]"#,
                "Object param name and key name format is invalid: map[a.b:[x.y]]: params\nObject Names: \nMust",
            ),
        ] {
            let found = shown(check_name_formats(&specs(json)));
            assert!(found.starts_with(beginning) && found.is_empty() == beginning.is_empty());
        }
        let twice = specs(r#"[{"name":"a"},{"name":"b"},{"name":"a"}]"#);
        assert_eq!(
            shown(check_declared_once(&twice)),
            "parameter appears more than once: params[a]"
        );
    }

    #[test]
    fn enums() {
        let params = specs(
            r#"[{"name":"a","type":"array","enum":["x","x"]},{"name":"b","type":"string","default":"z","enum":["x"]}]"#,
        );
        let mut flags = FeatureFlags::default();
        assert_eq!(
            shown(check_enums(Context::new(&flags), &params[1..])),
            "feature flag `enable-param-enum` should be set to true to use Enum: [b]\nparam default value z not in the enum list: [b]"
        );
        flags.enable_param_enum = true;
        assert_eq!(
            shown(check_enums(Context::new(&flags), &params[..1])),
            "enum can only be set with string type param: [a]\nparameter enum value x appears more than once: [a]"
        );
    }

    #[test]
    fn given_names() {
        let params: Vec<Param> = parsed(r#"[{"name":"a"},{"name":"A"},{"name":"b"}]"#);
        assert_eq!(shown(check_given(&params)), "expected exactly one, got both: [A].name");
        assert_eq!(shown(check_given_once(&params)), "");
        let params: Vec<Param> = parsed(r#"[{"name":"a"},{"name":"a"}]"#);
        assert_eq!(
            shown(check_given_once(&params)),
            "parameter names must be unique, the parameter \"a\" is also defined at: [1].name"
        );
    }

    #[test]
    fn object_keys() {
        let params = specs(
            r#"[{"name":"o","type":"object","properties":{"k":{"type":"string"}}},{"name":"p","type":"object"}]"#,
        );
        let scope = Scope::new(&params);
        for (text, errors) in [
            ("$(params.o.k) $(params.q.x)", ""),
            ("$(params.o.x)", "non-existent variable in \"$(params.o.x)\": "),
            ("$(params.p.x)", "non-existent variable in \"$(params.p.x)\": "),
        ] {
            assert_eq!(shown(scope.check_object_keys(text, false, false)), errors);
        }
        assert_eq!(shown(scope.check_object_keys("$(params.p.x)", false, true)), "");
        assert_eq!(shown(scope.check_objects_have_properties()), "missing field(s): p.properties");
    }
}
