//! `--feature-flag NAME=VALUE`: Tekton's flags and defaults, by Tekton's names.

use serde_json::Value;
use tenon_tekton::flags::FeatureFlags;
use tenon_tekton::load::nearest;

use crate::exit::{Exit, Failure};

/// Tekton's defaults with these changes.
pub fn parse(changes: &[String]) -> Result<FeatureFlags, Failure> {
    let mut flags = serde_json::to_value(FeatureFlags::default())
        .expect("flags have text keys, so they are always valid JSON");
    for change in changes {
        let wrong =
            |problem: String| Failure::new(Exit::Usage, format!("--feature-flag: {problem}"));
        let (name, text) =
            change.split_once('=').ok_or_else(|| wrong(format!("{change:?} is not NAME=VALUE")))?;
        let names: Vec<String> =
            flags.as_object().into_iter().flat_map(|all| all.keys().cloned()).collect();
        let Some(flag) = flags.get_mut(name) else {
            let failure =
                wrong(format!("there is no flag {name:?}; there are {}", names.join(", ")));
            return Err(match nearest(name, names.iter().map(String::as_str)) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure,
            });
        };
        *flag = match flag {
            Value::String(_) => Value::from(text),
            _ => serde_json::from_str(text)
                .map_err(|_| wrong(format!("{text:?} is no value of {name}, such as {flag}")))?,
        };
        // Checked one by one, so that the message names the one at fault.
        serde_json::from_value::<FeatureFlags>(flags.clone())
            .map_err(|error| wrong(format!("{change:?}: {error}")))?;
    }
    serde_json::from_value(flags)
        .map_err(|error| Failure::new(Exit::Internal, format!("--feature-flag: {error}")))
}

#[cfg(test)]
mod tests {
    use tenon_tekton::flags::ApiFields;

    use super::*;

    fn parsed(change: &str) -> Result<FeatureFlags, Failure> {
        parse(&[change.to_owned()])
    }

    #[test]
    fn each_kind_of_value() {
        assert_eq!(parsed("enable-api-fields=alpha").unwrap().enable_api_fields, ApiFields::Alpha);
        assert!(parsed("enable-param-enum=true").unwrap().enable_param_enum);
        assert_eq!(parsed("default-timeout-minutes=5").unwrap().default_timeout_minutes, 5);
        assert_eq!(parsed("disable-inline-spec=taskrun").unwrap().disable_inline_spec, "taskrun");
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for change in ["x", "no-such=1", "enable-param-enum=maybe", "enable-api-fields=gamma"] {
            assert!(parsed(change).is_err(), "{change}");
        }
    }
}
