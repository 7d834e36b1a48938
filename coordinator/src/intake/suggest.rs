//! "Did you mean" for names that the user chose.

/// The nearest of `known`, as a question, if it is near enough to be meant.
pub fn did_you_mean(name: &str, known: &[&str]) -> Option<String> {
    let best = known.iter().map(|known| (distance(name, known), known)).min()?;
    let close = best.0 <= (name.len() / 3).max(1);
    close.then(|| format!("did you mean \"{}\"?", best.1))
}

/// Levenshtein distance of two short names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
