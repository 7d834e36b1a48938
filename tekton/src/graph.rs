//! The graph of a Pipeline's tasks: edges from `runAfter` and from result references.
//!
//! A built graph has no cycle, no unknown task and no task twice. It knows nothing about what ran.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::resultref;
use crate::v1::PipelineTask;

/// Why tasks make no graph; the texts are Tekton's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Two tasks have one name.
    #[error("task {task} is already present in Graph, can't add it again: duplicate pipeline task")]
    Duplicate {
        /// The name.
        task: String,
    },
    /// Tasks wait for each other.
    #[error("cycle detected; task {task:?} depends on {}", quoted(.on))]
    Cycle {
        /// The first task by name that is in, or behind, a cycle.
        task: String,
        /// What it waits for in vain, sorted.
        on: Vec<String>,
    },
    /// A task waits for one that is not there.
    #[error(
        "couldn't add link between {task} and {dependency}: task {task} depends on {dependency} but {dependency} wasn't present in Pipeline"
    )]
    MissingTask {
        /// Who waits.
        task: String,
        /// For whom.
        dependency: String,
    },
}

impl GraphError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            GraphError::Duplicate { .. } => "graph/duplicate",
            GraphError::Cycle { .. } => "graph/cycle",
            GraphError::MissingTask { .. } => "graph/missing-task",
        }
    }
}

fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    names.join(", ")
}

/// The names of the tasks that a PipelineTask waits for, sorted, each once.
pub fn dependencies(task: &PipelineTask) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = task.run_after.iter().cloned().collect();
    resultref::visit_task(task, &mut |text| {
        names.extend(resultref::in_text(text).map(|reference| reference.pipeline_task));
    });
    names
}

/// Tasks by index, in the order they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    names: Vec<String>,
    previous: Vec<Vec<usize>>,
    next: Vec<Vec<usize>>,
}

impl Graph {
    /// The graph of `spec.tasks`.
    pub fn build(tasks: &[PipelineTask]) -> Result<Graph, GraphError> {
        Self::from_edges(
            tasks.iter().map(|task| task.name.clone()).collect(),
            &tasks.iter().map(dependencies).collect::<Vec<_>>(),
        )
    }

    /// The graph of `spec.finally`: no edges, all may start at once.
    pub fn build_finally(tasks: &[PipelineTask]) -> Result<Graph, GraphError> {
        Self::from_edges(
            tasks.iter().map(|task| task.name.clone()).collect(),
            &vec![BTreeSet::new(); tasks.len()],
        )
    }

    /// The graph of named tasks, each with the names of those it waits for.
    pub fn from_edges(
        names: Vec<String>,
        dependencies: &[BTreeSet<String>],
    ) -> Result<Graph, GraphError> {
        let mut index: HashMap<&str, usize> = HashMap::with_capacity(names.len());
        for (i, name) in names.iter().enumerate() {
            if index.insert(name, i).is_some() {
                return Err(GraphError::Duplicate { task: name.clone() });
            }
        }
        let mut previous = vec![Vec::new(); names.len()];
        let mut next = vec![Vec::new(); names.len()];
        let mut missing = None;
        for (i, wanted) in dependencies.iter().enumerate() {
            for dependency in wanted {
                match index.get(dependency.as_str()) {
                    Some(&before) => {
                        previous[i].push(before);
                        next[before].push(i);
                    }
                    None => {
                        missing.get_or_insert((i, dependency));
                    }
                }
            }
        }
        let graph = Graph { previous, next, names };
        // Tekton looks for cycles before it misses a task.
        graph.check_cycles()?;
        match missing {
            Some((i, dependency)) => Err(GraphError::MissingTask {
                task: graph.names[i].clone(),
                dependency: dependency.clone(),
            }),
            None => Ok(graph),
        }
    }

    fn check_cycles(&self) -> Result<(), GraphError> {
        let order = self.topological_order();
        if order.len() == self.len() {
            return Ok(());
        }
        let mut reached = vec![false; self.len()];
        for task in order {
            reached[task] = true;
        }
        let first =
            (0..self.len()).filter(|task| !reached[*task]).min_by_key(|task| &self.names[*task]);
        match first {
            None => Ok(()),
            Some(task) => {
                let on: BTreeSet<&String> = self.previous[task]
                    .iter()
                    .filter(|before| !reached[**before])
                    .map(|before| &self.names[*before])
                    .collect();
                Err(GraphError::Cycle {
                    task: self.names[task].clone(),
                    on: on.into_iter().cloned().collect(),
                })
            }
        }
    }

    /// Every task after all those it waits for; ties in the order of the Pipeline. Tasks on or
    /// behind a cycle are left out, so in a built graph none is.
    pub fn topological_order(&self) -> Vec<usize> {
        let mut waiting: Vec<usize> = self.previous.iter().map(Vec::len).collect();
        let mut order: Vec<usize> = (0..self.len()).filter(|task| waiting[*task] == 0).collect();
        let mut at = 0;
        while let Some(&task) = order.get(at) {
            at += 1;
            for &after in &self.next[task] {
                waiting[after] -= 1;
                if waiting[after] == 0 {
                    order.push(after);
                }
            }
        }
        order
    }

    /// How many tasks there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no task.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// A task's name.
    pub fn name(&self, task: usize) -> &str {
        &self.names[task]
    }

    /// The index of a name; linear, so keep the answer.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// The tasks that this one waits for.
    pub fn predecessors(&self, task: usize) -> &[usize] {
        &self.previous[task]
    }

    /// The tasks that wait for this one.
    pub fn successors(&self, task: usize) -> &[usize] {
        &self.next[task]
    }

    /// The tasks that are not done and whose predecessors all are, in the order of the Pipeline.
    /// `done` says for each index whether the task succeeded, failed or was skipped.
    pub fn schedulable(&self, done: &[bool]) -> Vec<usize> {
        let is_done = |task: usize| done.get(task).copied().unwrap_or(false);
        (0..self.len())
            .filter(|&task| !is_done(task) && self.previous[task].iter().all(|&b| is_done(b)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &[&str])]) -> Result<Graph, GraphError> {
        let names = edges.iter().map(|(name, _)| (*name).to_owned()).collect();
        let deps: Vec<BTreeSet<String>> = edges
            .iter()
            .map(|(_, deps)| deps.iter().map(|dep| (*dep).to_owned()).collect())
            .collect();
        Graph::from_edges(names, &deps)
    }

    fn text(edges: &[(&str, &[&str])]) -> String {
        graph(edges).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn refuses_in_tektons_words() {
        assert_eq!(
            text(&[("a", &["b"]), ("b", &["a"])]),
            r#"cycle detected; task "a" depends on "b""#
        );
        assert_eq!(text(&[("a", &["a"])]), r#"cycle detected; task "a" depends on "a""#);
        assert_eq!(
            text(&[("z", &[]), ("b", &["c", "z"]), ("c", &["d", "b"]), ("d", &["b"])]),
            r#"cycle detected; task "b" depends on "c""#
        );
        assert_eq!(
            text(&[("x", &["y"])]),
            "couldn't add link between x and y: task x depends on y but y wasn't present in Pipeline"
        );
        assert_eq!(
            text(&[("x", &[]), ("x", &[])]),
            "task x is already present in Graph, can't add it again: duplicate pipeline task"
        );
        // A cycle is said first.
        assert!(text(&[("a", &["b"]), ("b", &["a"]), ("c", &["no"])]).starts_with("cycle"));
    }

    #[test]
    fn schedules_what_waits_for_nothing() {
        let graph =
            graph(&[("d", &["b", "c"]), ("b", &["a"]), ("c", &["a"]), ("a", &[])]).expect("a DAG");
        assert_eq!(graph.schedulable(&[false; 4]), [3]);
        assert_eq!(graph.schedulable(&[false, false, false, true]), [1, 2]);
        assert_eq!(graph.schedulable(&[false, true, true, true]), [0]);
        assert!(graph.schedulable(&[true; 4]).is_empty());
        assert_eq!(graph.topological_order(), [3, 1, 2, 0]);
    }

    use proptest::prelude::*;

    /// Edges of up to 12 tasks, any to any.
    fn any_edges() -> impl Strategy<Value = Vec<BTreeSet<usize>>> {
        (1usize..12).prop_flat_map(|count| {
            prop::collection::vec(prop::collection::btree_set(0..count, 0..3), count)
        })
    }

    /// Whether some task reaches itself: transitive closure, the slow way.
    fn has_cycle(edges: &[BTreeSet<usize>]) -> bool {
        let count = edges.len();
        let mut reach: Vec<Vec<bool>> = (0..count)
            .map(|from| (0..count).map(|to| edges[from].contains(&to)).collect())
            .collect();
        for via in 0..count {
            for from in 0..count {
                for to in 0..count {
                    reach[from][to] |= reach[from][via] && reach[via][to];
                }
            }
        }
        (0..count).any(|task| reach[task][task])
    }

    proptest! {
        #[test]
        fn refuses_cycles_and_orders_the_rest(edges in any_edges()) {
            let names: Vec<String> = (0..edges.len()).map(|i| format!("t{i}")).collect();
            let deps: Vec<BTreeSet<String>> = edges
                .iter()
                .map(|deps| deps.iter().map(|dep| names[*dep].clone()).collect())
                .collect();
            let built = Graph::from_edges(names, &deps);
            prop_assert_eq!(built.is_err(), has_cycle(&edges));
            let Ok(graph) = built else { return Ok(()) };
            let order = graph.topological_order();
            prop_assert_eq!(order.len(), graph.len());
            // Running in waves of what is schedulable reaches every task, each after what it waits for.
            let mut done = vec![false; graph.len()];
            let mut rounds = 0;
            while done.iter().any(|is_done| !is_done) {
                let wave = graph.schedulable(&done);
                prop_assert!(!wave.is_empty() && rounds <= graph.len());
                for task in wave {
                    prop_assert!(graph.predecessors(task).iter().all(|before| done[*before]));
                    done[task] = true;
                }
                rounds += 1;
            }
            for (at, task) in order.iter().enumerate() {
                for before in graph.predecessors(*task) {
                    prop_assert!(order[..at].contains(before));
                }
            }
        }
    }
}
