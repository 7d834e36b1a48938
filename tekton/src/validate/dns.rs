//! Kubernetes' rules for names (RFC 1123 labels and subdomains, qualified names), with its messages.

use super::field_error::FieldError;
use super::text::quote;
use crate::k8s::ObjectMeta;

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;
/// What an API server appends to `generateName`, and how much of the base it keeps.
const GENERATED_ENDING: &str = "xxxxx";
const GENERATED_BASE_MAX: usize = LABEL_MAX - GENERATED_ENDING.len();

fn is_lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, of any length.
fn has_label_form(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    is_lower_alphanumeric(first)
        && is_lower_alphanumeric(last)
        && bytes.iter().all(|&byte| is_lower_alphanumeric(byte) || byte == b'-')
}

/// Whether a text is a DNS label of at most 63 bytes.
pub(crate) fn is_label(text: &str) -> bool {
    text.len() <= LABEL_MAX && has_label_form(text)
}

/// Whether a text is a DNS subdomain: labels of any length with dots between them.
fn is_subdomain(text: &str) -> bool {
    text.len() <= SUBDOMAIN_MAX && text.split('.').all(has_label_form)
}

/// `([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]`: the form of qualified names and of result names.
pub(crate) fn has_qualified_form(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// What is wrong with a qualified name, `[prefix/]name`; nothing when it is well-formed.
pub(crate) fn qualified_name_faults(text: &str) -> Vec<String> {
    const FORM: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
    let mut faults = Vec::new();
    let name = match text.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                faults.push("prefix part must be non-empty".to_owned());
            } else {
                if prefix.len() > SUBDOMAIN_MAX {
                    faults.push(format!("prefix part must be no more than {SUBDOMAIN_MAX} bytes"));
                }
                if !prefix.split('.').all(has_label_form) {
                    faults.push(format!("prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{LABEL}(\\.{LABEL})*')"));
                }
            }
            name
        }
        _ => {
            return vec![format!(
                "a qualified name {FORM} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        faults.push(format!("name part must be no more than {LABEL_MAX} bytes"));
    }
    if !has_qualified_form(name) {
        faults.push(format!("name part {FORM}"));
    }
    faults
}

/// The rule for `metadata.name` of every Tekton object; a `generateName` stands for the name that an
/// API server would make of it.
pub(crate) fn check_metadata(metadata: &ObjectMeta) -> Option<FieldError> {
    let generated;
    let name = if metadata.name.is_empty() && !metadata.generate_name.is_empty() {
        let base = metadata.generate_name.as_str();
        let base = &base[..base.floor_char_boundary(GENERATED_BASE_MAX)];
        generated = format!("{base}{GENERATED_ENDING}");
        &generated
    } else {
        &metadata.name
    };
    if !is_subdomain(name) {
        let message = format!("invalid resource name {}: must be a valid DNS label", quote(name));
        return Some(FieldError::new(message, "name"));
    }
    (name.len() > LABEL_MAX).then(|| {
        FieldError::new("Invalid resource name: length must be no more than 63 characters", "name")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str, generate_name: &str) -> Option<String> {
        let metadata = ObjectMeta {
            name: name.to_owned(),
            generate_name: generate_name.to_owned(),
            ..ObjectMeta::default()
        };
        check_metadata(&metadata).map(|error| error.to_string())
    }

    #[test]
    fn labels() {
        for (text, valid) in [
            ("a", true),
            ("0-a", true),
            ("", false),
            ("-a", false),
            ("a-", false),
            ("A", false),
            ("a.b", false),
            ("ü", false),
        ] {
            assert_eq!(is_label(text), valid, "{text}");
        }
        assert!(is_label(&"a".repeat(63)));
        assert!(!is_label(&"a".repeat(64)));
    }

    #[test]
    fn metadata_names() {
        assert_eq!(message("a.b-c", ""), None);
        assert_eq!(message("", "a-"), None);
        assert_eq!(message("", &"a".repeat(80)), None);
        for name in ["", "Upper", "a_b", "a..b", "-a"] {
            assert_eq!(
                message(name, ""),
                Some(format!("invalid resource name \"{name}\": must be a valid DNS label: name"))
            );
        }
        assert_eq!(
            message(&"a".repeat(64), "").as_deref(),
            Some("Invalid resource name: length must be no more than 63 characters: name")
        );
    }

    #[test]
    fn qualified_names() {
        for (text, beginning) in [
            ("MyName", None),
            ("example.com/my.name", None),
            ("has space", Some("name part must consist of")),
            ("a/b/c", Some("a qualified name must consist of")),
            ("/b", Some("prefix part must be non-empty")),
            ("UP/b", Some("prefix part a lowercase RFC 1123 subdomain must")),
            ("a/", Some("name part must be non-empty")),
        ] {
            let faults = qualified_name_faults(text);
            match beginning {
                None => assert!(faults.is_empty(), "{text}: {faults:?}"),
                Some(beginning) => assert!(faults[0].starts_with(beginning), "{text}: {faults:?}"),
            }
        }
        assert_eq!(
            qualified_name_faults(&"a".repeat(64)),
            ["name part must be no more than 63 bytes"]
        );
    }
}
