//! "Did you mean": the nearest of the names that would have been right.

/// The candidate that differs least from `word`, if it differs little.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody mistypes a long word beyond recognition; and the work stays small.
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    let word = word.to_lowercase();
    candidates
        .filter(|candidate| candidate.len() <= 64)
        .map(|candidate| (distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits between two words: insert, delete, replace, or swap neighbours.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least = (above[j] + usize::from(x != y)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let fields = ["steps", "params", "workspaces", "results", "image", "script"];
        for (word, meant) in [
            ("step", Some("steps")),
            ("stepz", Some("steps")),
            ("workspace", Some("workspaces")),
            ("parms", Some("params")),
            ("imgae", Some("image")),
            ("scirpt", Some("script")),
            ("foo", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, fields.into_iter()), meant, "{word}");
        }
    }
}
