//! Tekton's flags and defaults, by Tekton's names.

use serde_json::Value;
use tenon_tekton::flags::FeatureFlags;
use tenon_tekton::load::nearest;

use super::Front;
use super::error::{Error, Result};

/// Tekton's defaults with these changes.
pub fn parse<'a>(
    front: Front,
    changes: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<FeatureFlags> {
    let mut flags = serde_json::to_value(FeatureFlags::default())
        .expect("flags have text keys, so they are always valid JSON");
    let wrong = |problem: String| {
        let message = format!("{}: {problem}", front.feature_flag());
        Error::request("featureFlags", "invalid/feature-flag", message)
    };
    for (name, text) in changes {
        let names: Vec<String> =
            flags.as_object().into_iter().flat_map(|all| all.keys().cloned()).collect();
        let Some(flag) = flags.get_mut(name) else {
            let error = wrong(format!("there is no flag {name:?}; there are {}", names.join(", ")));
            return Err(match nearest(name, names.iter().map(String::as_str)) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error,
            });
        };
        *flag = match flag {
            Value::String(_) => Value::from(text),
            _ => serde_json::from_str(text)
                .map_err(|_| wrong(format!("{text:?} is no value of {name}, such as {flag}")))?,
        };
        // Checked one by one, so that the message names the one at fault.
        serde_json::from_value::<FeatureFlags>(flags.clone())
            .map_err(|error| wrong(format!("{:?}: {error}", format!("{name}={text}"))))?;
    }
    serde_json::from_value(flags)
        .map_err(|error| Error::Internal(format!("{}: {error}", front.feature_flag())))
}

#[cfg(test)]
mod tests {
    use tenon_tekton::flags::ApiFields;

    use super::*;

    fn parsed(name: &str, value: &str) -> Result<FeatureFlags> {
        parse(Front::CommandLine, [(name, value)])
    }

    #[test]
    fn each_kind_of_value() {
        let alpha = parsed("enable-api-fields", "alpha").unwrap();
        assert_eq!(alpha.enable_api_fields, ApiFields::Alpha);
        assert!(parsed("enable-param-enum", "true").unwrap().enable_param_enum);
        assert_eq!(parsed("default-timeout-minutes", "5").unwrap().default_timeout_minutes, 5);
        assert_eq!(
            parsed("disable-inline-spec", "taskrun").unwrap().disable_inline_spec,
            "taskrun"
        );
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (name, value) in
            [("no-such", "1"), ("enable-param-enum", "maybe"), ("enable-api-fields", "gamma")]
        {
            assert!(parsed(name, value).is_err(), "{name}");
        }
    }
}
