//! Substitution by table and by property: single pass, unknown references kept, arrays in place.

use super::*;
use proptest::prelude::*;

fn vars() -> Replacements {
    let mut vars = Replacements::new();
    vars.set("params.a", "1");
    vars.set("params.b", "$(params.a)");
    vars.set_array("params.list", vec!["x".into(), "y".into()]);
    vars.set("params.list[0]", "x");
    vars.set_array("params.none", vec![]);
    vars.set_object("params.o", [("k".to_owned(), "v".to_owned())].into());
    vars.set("params.o.k", "v");
    vars
}

fn list(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

#[test]
fn one_pass_over_the_text() {
    for (text, expected) in [
        ("$(params.a)", "1"),
        ("$(params.b)", "$(params.a)"),
        ("$$(params.a)", "$1"),
        ("$(unknown) $(params.a", "$(unknown) $(params.a"),
        ("$(x $(params.a))", "$(x 1)"),
        ("é$(params.list[0])é", "éxé"),
        ("$(params.list[*])", "$(params.list[*])"),
        ("", ""),
    ] {
        assert_eq!(vars().apply(text), expected, "{text}");
    }
    assert!(matches!(vars().apply("$(date)"), Cow::Borrowed(_)));
}

#[test]
fn whole_arrays_fill_elements() {
    for (items, expected) in [
        (list(&["a", "$(params.list[*])", "b"]), list(&["a", "x", "y", "b"])),
        (list(&["$(params.list)"]), list(&["x", "y"])),
        (list(&["$(params.none[*])", "$(params.a)"]), list(&["1"])),
        (list(&["-$(params.list[*])"]), list(&["-$(params.list[*])"])),
    ] {
        let mut replaced = items;
        vars().apply_to_list(&mut replaced);
        assert_eq!(replaced, expected);
    }
}

#[test]
fn a_string_that_is_one_reference_takes_its_type() {
    let array = ParamValue::Array(list(&["x", "y"]));
    let object = ParamValue::Object([("k".to_owned(), "v".to_owned())].into());
    for (text, kinds, expected) in [
        ("$(params.list[*])", Kinds::All, array.clone()),
        ("$(params.list)", Kinds::StringsAndArrays, array),
        ("$(params.list[*])", Kinds::Strings, "$(params.list[*])".into()),
        ("$(params.o[*])", Kinds::All, object),
        ("$(params.o[*])", Kinds::StringsAndArrays, "$(params.o[*])".into()),
        ("$(params.o.k)!", Kinds::All, "v!".into()),
        ("$(params.list[0])", Kinds::All, "x".into()),
        (" $(params.list[*])", Kinds::All, " $(params.list[*])".into()),
    ] {
        let mut value = ParamValue::from(text);
        vars().apply_to_value(&mut value, kinds);
        assert_eq!(value, expected, "{text} {kinds:?}");
    }
}

#[test]
fn when_takes_arrays() {
    let mut when = [WhenExpression {
        input: "$(params.list[*])".into(),
        operator: "in".into(),
        values: list(&["$(params.list[*])", "$(params.a)", "z"]),
        cel: "'$(params.a)' == '1'".into(),
    }];
    vars().apply_to_when(&mut when, Kinds::All);
    assert_eq!(when[0].input, r#"["x","y"]"#);
    assert_eq!(when[0].values, ["x", "y", "1", "z"]);
    assert_eq!(when[0].cel, "'1' == '1'");
    let escaped = go_json_array(&list(&["<a>&"]));
    assert_eq!(escaped, r#"["\u003ca\u003e\u0026"]"#);
}

/// What Tekton's replacer does, slowly: at each place the key that fits, else one character.
fn slow(text: &str, with: &BTreeMap<String, String>) -> String {
    let mut output = String::new();
    let mut rest = text;
    'text: while let Some(first) = rest.chars().next() {
        for (key, value) in with {
            if let Some(after) = rest.strip_prefix(&format!("$({key})")) {
                output.push_str(value);
                rest = after;
                continue 'text;
            }
        }
        output.push(first);
        rest = &rest[first.len_utf8()..];
    }
    output
}

fn texts() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop_oneof![
            Just("$(".to_owned()),
            Just(")".to_owned()),
            Just("$".to_owned()),
            Just("$(params.a)".to_owned()),
            Just("$(b)".to_owned()),
            Just("$(unknown.key)".to_owned()),
            "[a-c.é]{1,4}",
        ],
        0..12,
    )
    .prop_map(|parts| parts.concat())
}

fn maps() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(
        prop_oneof![Just("params.a".to_owned()), "[a-c.]{1,4}"],
        texts(),
        0..5,
    )
}

proptest! {
    #[test]
    fn replaces_as_a_plain_single_pass_does(text in texts(), map in maps()) {
        let mut with = Replacements::new();
        for (key, value) in &map {
            with.set(key.clone(), value.clone());
        }
        // Equality with the single pass also says: unknown keys stay, replaced text is not rescanned.
        let replaced = with.apply(&text).into_owned();
        prop_assert_eq!(&replaced, &slow(&text, &map));
        if !map.keys().any(|key| text.contains(&format!("$({key})"))) {
            prop_assert!(matches!(with.apply(&text), Cow::Borrowed(_)));
            prop_assert_eq!(replaced, text);
        }
    }

    #[test]
    fn values_without_references_make_it_idempotent(text in texts(), value in "[a-z]{0,3}") {
        let mut with = Replacements::new();
        with.set("params.a", value);
        let once = with.apply(&text).into_owned();
        // A replaced value may close an outer reference, hence at most one more match can appear.
        if !once.contains("$(params.a)") {
            prop_assert_eq!(with.apply(&once), once.as_str());
        }
    }
}
