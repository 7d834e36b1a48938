//! Lists of images that a machine runs, as patterns.

/// Whether one of the patterns matches an image; without patterns all are allowed. In a pattern `*`
/// stands for any text.
pub fn image_is_allowed(patterns: &[String], image: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| image_matches(pattern, image))
}

/// Whether a pattern, in which `*` stands for any text, matches an image.
pub fn image_matches(pattern: &str, image: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == image };
    let Some(mut text) = image.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_images() {
        for (pattern, image, expected) in [
            ("busybox", "busybox", true),
            ("busybox", "busybox:1", false),
            ("busybox*", "busybox:1", true),
            ("registry.example/*", "registry.example/team/app:1", true),
            ("registry.example/*", "evil.example/registry.example/app", false),
            ("*/app:*", "r/app:2", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("a*a", "a", false),
            ("*", "anything", true),
        ] {
            assert_eq!(image_matches(pattern, image), expected, "{pattern} {image}");
        }
        assert!(image_is_allowed(&[], "x") && !image_is_allowed(&["y".to_owned()], "x"));
    }
}
