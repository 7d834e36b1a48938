use super::*;

fn vars() -> Replacements {
    let mut vars = Replacements::new();
    vars.set("params.a", "1");
    vars.set("params.b", "$(params.a)");
    vars.set_array("params.list", vec!["x".into(), "y".into()]);
    vars.set("params.list[0]", "x");
    vars
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
    ] {
        assert_eq!(vars().apply(text), expected, "{text}");
    }
    assert!(matches!(vars().apply("$(date)"), Cow::Borrowed(_)));
}
