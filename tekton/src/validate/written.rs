//! What only the document as written can tell: an empty `properties: {}` is there, for Tekton, while
//! the typed document cannot tell it from none at all.

use super::field_error::FieldError;
use crate::load::{Node, Value};

/// Takes back the complaints about missing properties of whatever has empty ones.
pub(crate) fn forgive_empty_properties(root: &Node, errors: &mut Vec<FieldError>) {
    let is_about_properties = |error: &FieldError| {
        error.message == "missing field(s)"
            && error.paths.iter().any(|path| path.ends_with(".properties"))
    };
    let Some(at) = errors.iter().position(is_about_properties) else {
        return;
    };
    let mut names = Vec::new();
    collect_names(root, &mut names);
    let has_empty_ones = |path: &String| {
        let owner = path.strip_suffix(".properties").unwrap_or_default();
        names.iter().any(|name| {
            let before = owner.strip_suffix(name);
            before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
        })
    };
    errors[at].paths.retain(|path| !has_empty_ones(path));
    if errors[at].paths.is_empty() {
        errors.remove(at);
    }
}

/// The names of all params and results with empty properties.
fn collect_names<'n>(node: &'n Node, names: &mut Vec<&'n str>) {
    match &node.value {
        Value::Seq(items) => items.iter().for_each(|item| collect_names(item, names)),
        Value::Map(entries) => {
            let properties = node.get("properties").and_then(Node::as_map);
            if properties.is_some_and(<[_]>::is_empty) {
                names.extend(node.get("name").and_then(Node::as_str));
            }
            entries.iter().for_each(|entry| collect_names(&entry.value, names));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::flags::FeatureFlags;
    use crate::load::{Source, load};
    use crate::validate::validate_document;

    #[test]
    fn empty_properties_are_properties() {
        for (params, errors) in [
            ("[{name: o, type: object, properties: {}}]", vec![]),
            ("[{name: o, type: object}]", vec!["missing field(s): spec.o.properties"]),
            (
                "[{name: o, type: object, properties: {}}, {name: po, type: object}]",
                vec!["missing field(s): spec.po.properties"],
            ),
        ] {
            let text = format!(
                "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {{name: t}}\nspec: {{params: {params}, steps: [{{image: x}}]}}\n"
            );
            let source = Source { name: "t.yaml".to_owned(), text: text.into() };
            let flags = FeatureFlags::default();
            let loaded = load(&[source], &flags);
            let found = validate_document(&loaded.bundle.documents[0], &flags);
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, errors);
        }
    }
}
