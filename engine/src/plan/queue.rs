//! Who is served next: namespaces take turns, and inside a namespace there is an order that never
//! changes while one waits.
//!
//! **Order in a namespace.** Each point of priority is a head start of [`POINT_MS`]: who has waited
//! longest, with the head start added, goes first. So priority counts, and whoever came more than a
//! hundred points' time earlier is never overtaken: nothing starves.
//!
//! **Turns of namespaces** are a deficit round robin. With each turn a namespace is given one unit;
//! an attempt costs as many as it asks for whole CPUs, one at least and 64 at most. A namespace that has nothing to
//! place keeps nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::Waiting;
use crate::work::Requirements;
use crate::{AttemptId, RunId, Time};

/// The head start of one point of priority, in milliseconds.
pub const POINT_MS: i64 = 60_000;

/// What orders the attempts of a namespace: the smallest goes first.
pub fn turn(priority: u8, since: Time) -> i64 {
    since.0.saturating_sub(i64::from(priority).saturating_mul(POINT_MS))
}

/// Where an attempt stands in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// How many attempts of its namespace come before it.
    pub ahead: usize,
    /// How many attempts wait in all namespaces.
    pub waiting: usize,
}

/// An attempt's place in its namespace.
pub(super) type Place = (i64, Arc<AttemptId>);

/// What makes attempts find an agent or none together: what they need, and which run's claims.
type Shape = (Option<RunId>, Arc<Requirements>);

fn shape(attempt: &AttemptId, requirements: &Arc<Requirements>) -> Shape {
    let has_claims = !requirements.claims.is_empty();
    (has_claims.then_some(attempt.run), requirements.clone())
}

/// The attempts of one namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Lane {
    /// What it may still spend, from earlier turns.
    pub(super) deficit: u64,
    by_shape: BTreeMap<Shape, BTreeSet<Place>>,
    /// The first of each shape.
    heads: BTreeMap<Place, Arc<Requirements>>,
    len: usize,
}

/// Everything that waits.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<Arc<AttemptId>, Waiting>,
    pub(super) lanes: BTreeMap<Arc<str>, Lane>,
    /// Attempts that can go to one agent only, which has no room: nobody looks at them until
    /// something changes there.
    parked: BTreeMap<String, Vec<(Arc<str>, Place)>>,
    /// Those of them who may go elsewhere from some time on.
    due: BTreeSet<(Time, Arc<str>, Place)>,
}

/// Nothing costs more: who asks for more than any machine has holds nobody up for long.
const HIGHEST_COST: u64 = 64;

/// What an attempt costs its namespace.
pub(super) fn cost(requirements: &Requirements) -> u64 {
    requirements.cpu_millis.div_ceil(1000).clamp(1, HIGHEST_COST)
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn get(&self, attempt: &AttemptId) -> Option<&Waiting> {
        self.waiting.get(attempt)
    }

    /// In no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.values()
    }

    pub(super) fn insert(&mut self, waiting: Waiting) {
        if self.waiting.get(&waiting.attempt) == Some(&waiting) {
            return;
        }
        self.remove(&waiting.attempt);
        let id = Arc::new(waiting.attempt.clone());
        let requirements = waiting.requirements.clone();
        let place = (turn(requirements.priority, waiting.since), id.clone());
        let namespace = requirements.namespace.as_str();
        if !self.lanes.contains_key(namespace) {
            self.lanes.insert(namespace.into(), Lane::default());
        }
        if let Some(lane) = self.lanes.get_mut(namespace) {
            lane.insert(place, requirements);
        }
        self.waiting.insert(id, waiting);
    }

    pub(super) fn remove(&mut self, attempt: &AttemptId) -> Option<Waiting> {
        let (id, waiting) = self.waiting.remove_entry(attempt)?;
        let requirements = &waiting.requirements;
        let namespace = requirements.namespace.as_str();
        if let Some(lane) = self.lanes.get_mut(namespace) {
            let place = (turn(requirements.priority, waiting.since), id);
            lane.remove(&place, requirements);
            if lane.len == 0 {
                self.lanes.remove(namespace);
            }
        }
        Some(waiting)
    }

    /// The first attempt of a shape can go to one agent only, for good or `until` some time, and that has no room.
    pub(super) fn park(
        &mut self,
        namespace: &Arc<str>,
        place: &Place,
        home: &str,
        until: Option<Time>,
    ) {
        let Some(lane) = self.lanes.get_mut(namespace) else { return };
        if lane.heads.remove(place).is_some() {
            let parked = (namespace.clone(), place.clone());
            self.parked.entry(home.to_owned()).or_default().push(parked);
            self.due.extend(until.map(|until| (until, namespace.clone(), place.clone())));
        }
    }

    /// When the first of those is due who may then go elsewhere.
    pub(super) fn next_due(&self) -> Option<Time> {
        self.due.first().map(|(time, ..)| *time)
    }

    /// Time has passed.
    pub(super) fn unpark_due(&mut self, now: Time) {
        while self.due.first().is_some_and(|(time, ..)| *time <= now)
            && let Some((_, namespace, place)) = self.due.pop_first()
        {
            self.unpark_one(&namespace, place);
        }
    }

    fn unpark_one(&mut self, namespace: &str, place: Place) {
        let Some(waiting) = self.waiting.get(&place.1) else { return };
        if let Some(lane) = self.lanes.get_mut(namespace) {
            lane.unpark(place, &waiting.requirements);
        }
    }

    /// Something has changed at an agent.
    pub(super) fn unpark(&mut self, home: &str) {
        for (namespace, place) in self.parked.remove(home).into_iter().flatten() {
            self.unpark_one(&namespace, place);
        }
    }

    pub(super) fn position(&self, attempt: &AttemptId) -> Position {
        let waiting = self.waiting.len();
        let Some((id, it)) = self.waiting.get_key_value(attempt) else {
            return Position { ahead: 0, waiting };
        };
        let place = (turn(it.requirements.priority, it.since), id.clone());
        let lane = self.lanes.get(it.requirements.namespace.as_str());
        let shapes = lane.into_iter().flat_map(|lane| lane.by_shape.values());
        let ahead = shapes.map(|places| places.range(..&place).count()).sum();
        Position { ahead, waiting }
    }

    /// The namespaces, the one that comes after `last` first.
    pub(super) fn lanes_after(&self, last: Option<&str>) -> Vec<Arc<str>> {
        let after = match last {
            Some(last) => (Bound::Excluded(last), Bound::Unbounded),
            None => (Bound::Unbounded, Bound::Unbounded),
        };
        let first = self.lanes.range::<str, _>(after).map(|(name, _)| name.clone());
        let until =
            last.map(|last| self.lanes.range::<str, _>((Bound::Unbounded, Bound::Included(last))));
        let rest = until.into_iter().flatten().map(|(name, _)| name.clone());
        first.chain(rest).collect()
    }
}

impl Lane {
    fn insert(&mut self, place: Place, requirements: Arc<Requirements>) {
        self.len += 1;
        let places = self.by_shape.entry(shape(&place.1, &requirements)).or_default();
        let before = places.first().cloned();
        places.insert(place.clone());
        if before.as_ref().is_none_or(|before| place < *before) {
            before.map(|before| self.heads.remove(&before));
            self.heads.insert(place, requirements);
        }
    }

    fn remove(&mut self, place: &Place, requirements: &Arc<Requirements>) {
        let shape = shape(&place.1, requirements);
        let Some(places) = self.by_shape.get_mut(&shape) else { return };
        if !places.remove(place) {
            return;
        }
        self.len -= 1;
        let next = places.first().cloned();
        if next.is_none() {
            self.by_shape.remove(&shape);
        }
        self.heads.remove(place);
        // Also of one that was parked.
        if let Some(next) = next.filter(|next| next > place) {
            self.heads.insert(next, requirements.clone());
        }
    }

    fn unpark(&mut self, place: Place, requirements: &Arc<Requirements>) {
        let places = self.by_shape.get(&shape(&place.1, requirements));
        if places.and_then(BTreeSet::first) == Some(&place) {
            self.heads.insert(place, requirements.clone());
        }
    }

    /// The first attempt after a place, among the first of each shape.
    pub(super) fn head_after(&self, place: Option<&Place>) -> Option<(&Place, &Arc<Requirements>)> {
        let after = match place {
            Some(place) => (Bound::Excluded(place), Bound::Unbounded),
            None => (Bound::Unbounded, Bound::Unbounded),
        };
        self.heads.range::<Place, _>(after).next()
    }
}
