//! A graph as text: tasks level by level, each with the tasks that it waits for.
//!
//! Lines between boxes become unreadable with few dozen tasks; levels stay readable with hundreds.

use super::{Drawing, Node};

/// Draws the graph.
pub fn draw(drawing: &Drawing) -> String {
    let mut out = format!("{}\n", drawing.pipeline);
    let widest = drawing
        .tasks
        .iter()
        .chain(&drawing.finally)
        .map(|node| label(node).chars().count())
        .max()
        .unwrap_or(0);
    let mut levels: Vec<(String, Vec<&Node>)> = Vec::new();
    for node in &drawing.tasks {
        match levels.get_mut(node.level) {
            Some((_, nodes)) => nodes.push(node),
            None => levels.push(((node.level + 1).to_string(), vec![node])),
        }
    }
    if !drawing.finally.is_empty() {
        levels.push(("finally".to_owned(), drawing.finally.iter().collect()));
    }
    let count = levels.len();
    for (position, (title, nodes)) in levels.into_iter().enumerate() {
        let last = position + 1 == count;
        let (branch, trunk) = if last { ("└─", "  ") } else { ("├─", "│ ") };
        out.push_str(&format!("{branch} {title}\n"));
        for (index, node) in nodes.iter().enumerate() {
            let twig = if index + 1 == nodes.len() { "└─" } else { "├─" };
            let label = label(node);
            let line = match node.after.is_empty() {
                true => format!("{trunk}   {twig} {label}"),
                false => {
                    let fill = " ".repeat(widest - label.chars().count());
                    format!("{trunk}   {twig} {label}{fill}  ← {}", node.after.join(", "))
                }
            };
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    out
}

/// The name, with signs for what fans out (`×`) and what may be skipped (`?`).
fn label(node: &Node) -> String {
    let matrix = if node.matrix { " ×" } else { "" };
    let when = if node.when { " ?" } else { "" };
    format!("{}{matrix}{when}", node.name)
}
