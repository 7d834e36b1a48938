//! What would take a look at every task to find out, kept up to date instead: how many tasks are not
//! done, and which must be looked at again because something before them has changed.
//!
//! All of it follows from the tasks' states; it is kept only so that the end of one task costs as
//! much as what follows from it, not as much as the Pipeline is big.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::state::PipelineState;

/// The books of a PipelineRun.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Books {
    /// DAG tasks that are not done.
    pub(super) undone_dag: usize,
    /// Tasks of `finally` that are not done.
    pub(super) undone_finals: usize,
    /// DAG tasks that let nothing new start.
    pub(super) stopping: usize,
    /// Children that go on.
    pub(super) running: usize,
    /// DAG tasks whose fate must be decided anew, by their place in the order.
    stale: BTreeSet<usize>,
    /// Where each DAG task is in the order.
    places: Vec<usize>,
    /// Tasks that do not run and of which that was not told yet.
    pub(super) untold: BTreeSet<usize>,
}

impl Books {
    /// Whether every index leads somewhere.
    pub(super) fn is_sound(&self, dag: usize, tasks: usize) -> bool {
        self.places.len() == dag
            && self.places.iter().chain(&self.stale).all(|place| *place < dag)
            && self.untold.iter().all(|task| *task < tasks)
    }

    /// Whether a task is done or not, of the DAG or of `finally`.
    pub(super) fn undone(&self) -> usize {
        self.undone_dag + self.undone_finals
    }
}

impl PipelineState {
    /// Begins the books: all tasks are there, and their order.
    pub(crate) fn open_books(&mut self) {
        let mut places = vec![0; self.order.len()];
        for (place, task) in self.order.iter().enumerate() {
            places[*task] = place;
        }
        self.books = Books {
            undone_dag: self.dag_len,
            undone_finals: self.tasks.len() - self.dag_len,
            stale: (0..places.len()).collect(),
            places,
            ..Books::default()
        };
        for task in 0..self.tasks.len() {
            self.book(task);
        }
    }

    /// Books what became of a task, whenever something may have: whoever comes after it is looked at
    /// again, and all are when it stops the run.
    pub(crate) fn book(&mut self, index: usize) {
        let is_dag = index < self.dag_len;
        let state = &mut self.tasks[index];
        let (was_done, did_stop) = state.counted;
        let (is_done, stops) = (state.is_done(), is_dag && state.stops_the_run());
        state.counted = (is_done, stops);
        let tells = state.skip.is_some() || state.invalid.is_some() || state.kept.is_some();
        if tells && !state.skip_told {
            self.books.untold.insert(index);
        }
        let undone = match is_dag {
            true => &mut self.books.undone_dag,
            false => &mut self.books.undone_finals,
        };
        match (was_done, is_done) {
            (false, true) => *undone -= 1,
            (true, false) => *undone += 1,
            _ => {}
        }
        match (did_stop, stops) {
            (false, true) => self.books.stopping += 1,
            (true, false) => self.books.stopping -= 1,
            _ => {}
        }
        if !did_stop && stops && self.books.stopping == 1 {
            self.look_at_all();
        }
        if is_dag {
            self.look_behind(index);
        }
    }

    /// The fate of every DAG task must be decided anew.
    pub(crate) fn look_at_all(&mut self) {
        self.books.stale = (0..self.order.len()).collect();
    }

    /// The fate of what comes after a task must be decided anew.
    fn look_behind(&mut self, index: usize) {
        let Books { stale, places, .. } = &mut self.books;
        stale.extend(self.graph.successors(index).iter().map(|task| places[*task]));
    }

    /// The next DAG task, in order, whose fate must be decided anew.
    pub(super) fn next_stale(&mut self) -> Option<usize> {
        let place = self.books.stale.pop_first()?;
        self.order.get(place).copied()
    }
}

#[cfg(test)]
impl PipelineState {
    /// Checks the books against a look at every task.
    pub(super) fn audit(&self, task_runs: &[crate::taskrun::TaskRunState]) {
        use super::skip::{Fate, fate_of_dag_task};
        let undone = |tasks: &[super::PipelineTaskState]| {
            tasks.iter().filter(|task| !task.is_done()).count()
        };
        assert_eq!(self.books.undone_dag, undone(self.dag()));
        assert_eq!(self.books.undone_finals, undone(self.finals()));
        assert_eq!(self.books.stopping, self.dag().iter().filter(|t| t.stops_the_run()).count());
        assert_eq!(self.books.running, self.tasks.iter().map(|task| task.running).sum::<usize>());
        if self.is_halted() {
            return;
        }
        assert!(self.books.stale.is_empty());
        let mut again = self.clone();
        for index in self.order.clone() {
            let state = &self.tasks[index];
            if state.is_scheduled() || state.invalid.is_some() {
                continue;
            }
            let fate = fate_of_dag_task(&mut again, task_runs, index, self.is_stopping());
            match state.skip {
                Some(skip) => assert_eq!(fate, Fate::Skip(skip)),
                None => assert_eq!(fate, Fate::Wait),
            }
        }
    }
}
