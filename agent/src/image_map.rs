//! `--image-map`: which images stand for which, for mirrors, air gaps, and digests that exist only
//! elsewhere.
//!
//! A file of lines `PATTERN REPLACEMENT`; `#` begins a comment. Quotes around either are dropped and
//! a `:` after the pattern (followed by white space) is allowed, so a flat YAML map is the same file.
//! `*` in a pattern matches any run of characters; each `*` of the replacement takes what the `*` of
//! that position matched. The first line that matches wins. An image is matched as it is written
//! and in its full form (`docker.io/library/busybox:latest`), its tag or digest included.

/// An ordered list of replacements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageMap {
    rules: Vec<(String, String)>,
}

/// A line of the file is not a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line}: {problem}; a line is `PATTERN REPLACEMENT`, such as `docker.io/library/* mirror.local/*`"
)]
pub struct ImageMapError {
    /// 1-based.
    pub line: usize,
    /// What is wrong.
    pub problem: &'static str,
}

impl ImageMap {
    /// Reads the text of a map file.
    pub fn parse(text: &str) -> Result<ImageMap, ImageMapError> {
        let mut rules = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split(" #").next().unwrap_or_default().trim();
            if line.is_empty() || line.starts_with('#') || line == "---" {
                continue;
            }
            let error = |problem| ImageMapError { line: index + 1, problem };
            let (pattern, replacement) =
                line.split_once(char::is_whitespace).ok_or_else(|| error("no replacement"))?;
            let pattern = unquote(pattern.strip_suffix(':').unwrap_or(pattern));
            let replacement = unquote(replacement.trim());
            if pattern.is_empty() || replacement.is_empty() {
                return Err(error("an empty name"));
            }
            if replacement.contains(char::is_whitespace) {
                return Err(error("more than two words"));
            }
            if stars(replacement) > stars(pattern) {
                return Err(error("more `*` in the replacement than in the pattern"));
            }
            rules.push((pattern.to_owned(), replacement.to_owned()));
        }
        Ok(ImageMap { rules })
    }

    /// The image that stands for this one, if any rule says so.
    pub fn replace(&self, image: &str) -> Option<String> {
        let full = full_name(image);
        self.rules.iter().find_map(|(pattern, replacement)| {
            let parts = match_glob(pattern, image).or_else(|| match_glob(pattern, &full))?;
            let mut parts = parts.into_iter();
            let mut replaced = String::new();
            for (index, literal) in replacement.split('*').enumerate() {
                if index > 0 {
                    replaced.push_str(parts.next().unwrap_or_default());
                }
                replaced.push_str(literal);
            }
            Some(replaced)
        })
    }
}

fn stars(text: &str) -> usize {
    text.matches('*').count()
}

fn unquote(text: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    text
}

/// The name with registry and namespace, and `:latest` where neither tag nor digest is given.
pub fn full_name(image: &str) -> String {
    let first = image.split('/').next().unwrap_or_default();
    let has_registry =
        image.contains('/') && (first.contains('.') || first.contains(':') || first == "localhost");
    let mut full = if has_registry {
        image.to_owned()
    } else if image.contains('/') {
        format!("docker.io/{image}")
    } else {
        format!("docker.io/library/{image}")
    };
    if !full.contains('@') && !has_tag(&full) {
        full.push_str(":latest");
    }
    full
}

/// Whether the last component of an image name carries a tag.
pub fn has_tag(image: &str) -> bool {
    let name = image.split('@').next().unwrap_or_default();
    name.rsplit('/').next().unwrap_or_default().contains(':')
}

/// What each `*` of the pattern matched, or `None`. Stars take as little as possible, the last one
/// the rest; time is linear in text times stars.
fn match_glob<'a>(pattern: &str, text: &'a str) -> Option<Vec<&'a str>> {
    let mut literals = pattern.split('*');
    let mut rest = text.strip_prefix(literals.next()?)?;
    let mut taken = Vec::new();
    let mut literals = literals.peekable();
    while let Some(literal) = literals.next() {
        let at = if literals.peek().is_none() {
            rest.ends_with(literal).then(|| rest.len() - literal.len())?
        } else {
            rest.find(literal)?
        };
        taken.push(&rest[..at]);
        rest = &rest[at + literal.len()..];
    }
    rest.is_empty().then_some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "
# mirrors
docker.io/library/busybox@sha256:1303* busybox:latest
gcr.io/*/git-init:*  mirror.local/*/git:*
\"quay.io/*\": 'mirror.local/quay/*'
busybox:1.36 bb
docker.io/library/* mirror.local/*   # the rest
";

    #[test]
    fn first_matching_rule_wins() {
        let map = ImageMap::parse(MAP).unwrap();
        for (image, expected) in [
            ("busybox@sha256:1303dbf110", Some("busybox:latest")),
            ("gcr.io/tekton-releases/git-init:v0.1", Some("mirror.local/tekton-releases/git:v0.1")),
            ("quay.io/a/b", Some("mirror.local/quay/a/b")),
            ("busybox:1.36", Some("bb")),
            ("busybox", Some("mirror.local/busybox:latest")),
            ("alpine:3", Some("mirror.local/alpine:3")),
            ("ghcr.io/x/y", None),
            ("x/y", None),
        ] {
            assert_eq!(map.replace(image).as_deref(), expected, "{image}");
        }
    }

    #[test]
    fn bad_lines_are_located() {
        for (text, line) in [("a b\nonly", 2), ("a b c", 1), ("a *", 1), ("\n\n'' b", 3)] {
            assert_eq!(ImageMap::parse(text).unwrap_err().line, line, "{text}");
        }
    }

    #[test]
    fn full_names() {
        for (image, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("a/b:1", "docker.io/a/b:1"),
            ("localhost/b", "localhost/b:latest"),
            ("r:5000/b", "r:5000/b:latest"),
            ("b@sha256:00", "docker.io/library/b@sha256:00"),
        ] {
            assert_eq!(full_name(image), full);
        }
    }
}
