//! A graph in the languages of Graphviz and Mermaid.

use super::{Drawing, Node};

/// Graphviz.
pub fn dot(drawing: &Drawing) -> String {
    let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut out = format!(
        "digraph {} {{\n  rankdir=LR;\n  node [shape=box, style=rounded];\n",
        quote(&drawing.pipeline)
    );
    for node in drawing.tasks.iter().chain(&drawing.finally) {
        let style = match (node.matrix, node.when) {
            (true, _) => " [peripheries=2]",
            (false, true) => " [style=\"rounded,dashed\"]",
            (false, false) => "",
        };
        out.push_str(&format!("  {}{style};\n", quote(&node.name)));
    }
    for node in &drawing.tasks {
        for before in &node.after {
            out.push_str(&format!("  {} -> {};\n", quote(before), quote(&node.name)));
        }
    }
    if !drawing.finally.is_empty() {
        out.push_str("  subgraph cluster_finally {\n    label=\"finally\";\n");
        for node in &drawing.finally {
            out.push_str(&format!("    {};\n", quote(&node.name)));
        }
        out.push_str("  }\n");
    }
    out.push_str("}\n");
    out
}

/// Mermaid. Nodes are numbered, because names may be words of the language.
pub fn mermaid(drawing: &Drawing) -> String {
    let all: Vec<&Node> = drawing.tasks.iter().chain(&drawing.finally).collect();
    let number = |name: &str| all.iter().position(|node| node.name == name).unwrap_or_default();
    let shape = |index: usize, node: &Node| {
        let name = node.name.replace('"', "#quot;");
        match (node.matrix, node.when) {
            (true, _) => format!("t{index}[[\"{name}\"]]"),
            (false, true) => format!("t{index}{{{{\"{name}\"}}}}"),
            (false, false) => format!("t{index}[\"{name}\"]"),
        }
    };
    let mut out = "graph LR\n".to_owned();
    for (index, node) in all.iter().enumerate().take(drawing.tasks.len()) {
        out.push_str(&format!("  {}\n", shape(index, node)));
    }
    for (index, node) in drawing.tasks.iter().enumerate() {
        for before in &node.after {
            out.push_str(&format!("  t{} --> t{index}\n", number(before)));
        }
    }
    if !drawing.finally.is_empty() {
        out.push_str("  subgraph finally\n");
        for (index, node) in all.iter().enumerate().skip(drawing.tasks.len()) {
            out.push_str(&format!("    {}\n", shape(index, node)));
        }
        out.push_str("  end\n");
    }
    out
}
