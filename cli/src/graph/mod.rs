//! `tenon graph`: a Pipeline's tasks and what they wait for, as text, for Graphviz, for Mermaid, or
//! as JSON. The edges are the `tekton` crate's; only the drawing is here.

mod ascii;
mod markup;

use serde::Serialize;
use tenon_tekton::graph::Graph;
use tenon_tekton::load::Document;
use tenon_tekton::object::Object;
use tenon_tekton::v1::{PipelineSpec, PipelineTask};

use crate::args::{GraphArgs, GraphFormat};
use crate::exit::{Exit, Failure};
use crate::{input, terminal};

/// A graph that is ready to be drawn.
#[derive(Debug, Serialize)]
pub struct Drawing {
    /// The Pipeline's name.
    pub pipeline: String,
    /// Tasks, in an order in which they could run.
    pub tasks: Vec<Node>,
    /// Tasks that run at the end, whatever happens.
    pub finally: Vec<Node>,
}

/// One task.
#[derive(Debug, Serialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The tasks that it waits for.
    pub after: Vec<String>,
    /// How many tasks must run one after the other before it.
    pub level: usize,
    /// It fans out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub matrix: bool,
    /// It may be skipped.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub when: bool,
}

/// `tenon graph`.
pub fn graph(args: &GraphArgs) -> Result<Exit, Failure> {
    let bundle = input::load_valid(&args.files)?;
    let mut drawings = Vec::new();
    for document in &bundle.documents {
        let Some((name, spec)) = pipeline(document) else {
            continue;
        };
        if args.pipeline.as_ref().is_none_or(|wanted| *wanted == name) {
            drawings.push(draw(name, spec)?);
        }
    }
    if drawings.is_empty() {
        let message = match &args.pipeline {
            Some(name) => format!("no Pipeline \"{name}\" in the files"),
            None => "the files define no Pipeline".to_owned(),
        };
        return Err(Failure::new(Exit::Usage, message));
    }
    let texts: Vec<String> = match args.output {
        GraphFormat::Json => vec![terminal::to_json(&drawings)?],
        GraphFormat::Ascii => drawings.iter().map(ascii::draw).collect(),
        GraphFormat::Dot => drawings.iter().map(markup::dot).collect(),
        GraphFormat::Mermaid => drawings.iter().map(markup::mermaid).collect(),
    };
    terminal::print(&texts.join("\n"))?;
    Ok(Exit::Success)
}

/// The Pipeline that a document defines: itself, or inside a PipelineRun.
fn pipeline(document: &Document) -> Option<(String, &PipelineSpec)> {
    match &document.object {
        Object::Pipeline(pipeline) => Some((document.name().to_owned(), &pipeline.spec)),
        Object::PipelineRun(run) => {
            let name = match document.name() {
                "" => run.metadata.generate_name.trim_end_matches('-').to_owned(),
                name => name.to_owned(),
            };
            run.spec.pipeline_spec.as_ref().map(|spec| (name, spec))
        }
        _ => None,
    }
}

/// Works out the edges and levels.
pub fn draw(pipeline: String, spec: &PipelineSpec) -> Result<Drawing, Failure> {
    let invalid = |error: tenon_tekton::graph::GraphError| {
        Failure::new(Exit::Validation, format!("{pipeline}: {error}"))
    };
    let tasks = Graph::build(&spec.tasks).map_err(invalid)?;
    let finally = Graph::build_finally(&spec.finally).map_err(invalid)?;
    Ok(Drawing {
        tasks: nodes(&tasks, &spec.tasks),
        finally: nodes(&finally, &spec.finally),
        pipeline,
    })
}

fn nodes(graph: &Graph, tasks: &[PipelineTask]) -> Vec<Node> {
    let mut levels = vec![0; graph.len()];
    let mut nodes = Vec::with_capacity(graph.len());
    for task in graph.topological_order() {
        let after = graph.predecessors(task);
        levels[task] = after.iter().map(|before| levels[*before] + 1).max().unwrap_or(0);
        let name = graph.name(task);
        let declared = tasks.iter().find(|declared| declared.name == name);
        nodes.push(Node {
            name: name.to_owned(),
            after: after.iter().map(|before| graph.name(*before).to_owned()).collect(),
            level: levels[task],
            matrix: declared.is_some_and(|task| task.matrix.is_some()),
            when: declared.is_some_and(|task| !task.when.is_empty()),
        });
    }
    // A stable sort: inside a level the order stays that of the graph.
    nodes.sort_by_key(|node| node.level);
    nodes
}

#[cfg(test)]
mod tests;
