//! After everything was put right: waits until nothing is left to be done, and checks all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use serde_json::Value;
use tenon_coordinator::coordinator::Input;
use tenon_coordinator::event_log::{DocumentKind, Record};
use tenon_engine::command::RunObject;
use tenon_engine::{AttemptId, RunId};
use tenon_reporter::history;
use tenon_store::Store as _;

use crate::client::Ask;
use crate::oracle::Violation;
use crate::order::RunOrder;
use crate::queue::{MS, Micros, SECOND};
use crate::trace::hash_of;
use crate::world::{Event, World};

/// Everything must be over so long after everything was put right.
const LIMIT: Micros = 240 * SECOND;

impl World {
    /// Whether nothing is left to be done; if so, the schedule is over.
    pub fn look(&mut self) -> Result<(), Violation> {
        self.cancel_what_is_lost();
        self.open_agents();
        match self.what_is_left() {
            None => self.done = true,
            Some(left) if self.now() > self.healed_at + LIMIT => {
                return Err(Violation::new("everything ends", left));
            }
            Some(_) => self.queue.after(500 * MS, Event::Look),
        }
        Ok(())
    }

    /// An operator lets every agent have work again, as often as one is found that gets none.
    fn open_agents(&mut self) {
        let leader = self.leader().and_then(|life| self.machines.get(&life.0)?.running.as_ref());
        let Some(leader) = leader.filter(|_| self.clients[self.operator()].is_idle()) else {
            return;
        };
        let agents = &leader.coordinator.replica().meta().agents;
        let number = |name: &str| name.strip_prefix("agent-")?.parse().ok();
        let cordoned = agents.iter().filter(|(_, agent)| agent.cordoned);
        let cordoned: Vec<usize> = cordoned.filter_map(|(name, _)| number(name)).collect();
        for agent in cordoned {
            self.ask_for(Ask::Cordon { agent, on: false });
        }
    }

    /// The members, as of the newest configuration.
    pub fn members(&self) -> BTreeSet<u64> {
        let configuration = &self.oracle.configuration;
        let mut members: BTreeSet<u64> =
            configuration.voters.iter().chain(&configuration.learners).copied().collect();
        if members.is_empty() {
            members.insert(1);
        }
        members
    }

    fn what_is_left(&self) -> Option<String> {
        if let Some(client) = self.clients.iter().position(|client| !client.is_idle()) {
            return Some(format!("client {client} is not answered"));
        }
        let mut applied = BTreeMap::new();
        for node in self.members() {
            let Some(running) = self.machines.get(&node).and_then(|m| m.running.as_ref()) else {
                return Some(format!("node {node} is not there"));
            };
            let replica = running.coordinator.replica();
            if let Some(run) = replica.engine().runs().next() {
                let explained = replica.engine().explain(run);
                let work = replica.engine().pending_work_of(run);
                return Some(format!("on node {node}, run {run} goes on: {work:?} {explained:?}"));
            }
            applied.insert(node, replica.meta().applied);
        }
        // Nodes that were all just started show what they had written down; the rest of their logs is still to come.
        let newest = self.oracle.newest_applied();
        if applied.values().any(|index| *index < newest) {
            return Some(format!(
                "nodes have not applied everything, which is {newest}: {applied:?}"
            ));
        }
        let indices: BTreeSet<&u64> = applied.values().collect();
        if indices.len() > 1 {
            return Some(format!("nodes have not applied the same: {applied:?}"));
        }
        if let Some(agent) = self.agents.iter().position(|agent| !agent.is_quiet()) {
            return Some(format!("agent {agent} has not said everything"));
        }
        let last = self.newest_seq();
        let behind = |index: &usize| self.subscribers[*index].seq() != last;
        if let Some(subscriber) = (0..self.subscribers.len()).find(behind) {
            let seq = self.subscribers[subscriber].seq();
            return Some(format!("subscriber {subscriber} was shown {seq} of {last}"));
        }
        None
    }

    fn newest_seq(&self) -> u64 {
        let running = self.members().into_iter().filter_map(|node| {
            self.machines.get(&node).and_then(|machine| machine.running.as_ref())
        });
        running.map(|r| r.coordinator.replica().engine().next_seq() - 1).max().unwrap_or(0)
    }

    /// What must be so at the end.
    pub fn final_check(&mut self) -> Result<(), Violation> {
        let members = self.members();
        let mut stores: BTreeMap<u64, u64> = BTreeMap::new();
        for node in &members {
            let Some(life) = self.life(*node) else { continue };
            self.apply_step(life, vec![Input::Persist])?;
            let mut content = Vec::new();
            let everything = (Bound::Unbounded, Bound::Unbounded);
            let scanned = self.machines[node].store.scan(everything, false, &mut |key, value| {
                content.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            });
            scanned.map_err(|error| Violation::new("readable state", error.to_string()))?;
            stores.insert(*node, hash_of(content));
        }
        let different: BTreeSet<&u64> = stores.values().collect();
        if different.len() > 1 {
            let what = format!("the stores of nodes {:?} differ", stores.keys());
            return Err(Violation::new("one state", what));
        }
        let mut records = Vec::new();
        for node in &members {
            records = self.whole_history(*node)?;
        }
        self.check_history(&records)
    }

    /// All records of a node, which must be what was shown.
    fn whole_history(&mut self, node: u64) -> Result<Vec<Vec<u8>>, Violation> {
        let Some(running) = self.machines.get(&node).and_then(|m| m.running.as_ref()) else {
            return Err(Violation::new("everything ends", format!("node {node} is not there")));
        };
        let journal = running.events.journal();
        let mut records = Vec::new();
        let mut next = 1;
        let unreadable =
            |what: String| Violation::new("readable history", format!("node {node}: {what}"));
        while next <= running.events.visible() {
            let read = journal.read_range(next, 1 << 20);
            let read = read.map_err(|error| unreadable(error.to_string()))?;
            if read.is_empty() {
                return Err(unreadable(format!("record {next} is missing")));
            }
            for (index, record) in read {
                if index != next {
                    return Err(unreadable(format!("record {index} in place of {next}")));
                }
                records.push(record);
                next += 1;
            }
        }
        if records.len() != self.oracle.records.len() {
            let what = format!(
                "{} records were shown and {} are there",
                self.oracle.records.len(),
                records.len()
            );
            return Err(unreadable(what));
        }
        for (index, record) in (1..).zip(&records) {
            self.oracle.shown(node, index, record)?;
        }
        Ok(records)
    }

    fn check_history(&mut self, records: &[Vec<u8>]) -> Result<(), Violation> {
        let mut runs: BTreeMap<RunId, RunOrder> = BTreeMap::new();
        let mut names: BTreeMap<String, Vec<RunId>> = BTreeMap::new();
        let mut lines: BTreeMap<String, u32> = BTreeMap::new();
        let mut up: BTreeMap<String, bool> = BTreeMap::new();
        let mut last_seq = 0;
        let unreadable = |what: String| Violation::new("readable history", what);
        for record in records {
            match Record::parse(record).map_err(unreadable)? {
                Record::Document { kind: DocumentKind::Submission, run, content } => {
                    let (name, body, finals) = submitted(&content).map_err(unreadable)?;
                    names.entry(name.clone()).or_default().push(run);
                    let order = RunOrder::new(name, body, finals);
                    if runs.insert(run, order).is_some() {
                        let what = format!("run {run} is submitted twice");
                        return Err(Violation::new("one run for a key", what));
                    }
                }
                Record::Document { kind: DocumentKind::Objects, run, .. } => {
                    let Some(order) = runs.get_mut(&run) else {
                        return Err(unreadable(format!("objects of an unknown run {run}")));
                    };
                    order.archived()?;
                }
                Record::Event(_) => {
                    let (header, chunk) = history::decode(record).map_err(unreadable)?;
                    let event: Value = serde_json::from_slice(header)
                        .map_err(|error| unreadable(error.to_string()))?;
                    let mut count = 1;
                    if !chunk.is_empty() {
                        let chunk = tenon_journal::output::unpack(chunk)
                            .map_err(|error| unreadable(error.to_string()))?;
                        count = chunk.len() as u64;
                        for line in chunk.lines() {
                            *lines.entry(line.text.to_owned()).or_default() += 1;
                        }
                    }
                    let seq = event["seq"].as_u64().unwrap_or(0);
                    if seq != last_seq + 1 {
                        return Err(Violation::new(
                            "seq has no gap",
                            format!("{seq} after {last_seq}"),
                        ));
                    }
                    last_seq = seq + count - 1;
                    self.agent_event(&event, &mut up)?;
                    let Some(run) = event["runId"].as_str() else { continue };
                    let run: RunId = run.parse().map_err(|_| unreadable(run.to_owned()))?;
                    let Some(order) = runs.get_mut(&run) else {
                        return Err(unreadable(format!("an event of an unknown run {run}")));
                    };
                    order.event(&event, count)?;
                }
            }
        }
        self.check_agents(&up)?;
        self.check_runs(&runs, &names)?;
        for (line, count) in &lines {
            if *count > 1 {
                let what = format!("line {line:?} is there {count} times");
                return Err(Violation::new("a report is applied once", what));
            }
        }
        // What an agent says of a placement that is lost is taken, and thrown away.
        let missing = |(line, attempt): &(&String, &AttemptId)| {
            let agent = line.split(' ').next().unwrap_or_default();
            let agent_was_lost = self.oracle.lost_agents.contains(agent);
            let order = runs.get(&attempt.run);
            let was_lost = order.is_some_and(|order| order.was_lost(attempt, agent_was_lost));
            !lines.contains_key(*line) && !was_lost
        };
        match self.oracle.lines.iter().find(missing) {
            Some((line, attempt)) => Err(Violation::new(
                "an acknowledged report is never lost",
                format!("line {line:?} of {attempt} is not in the history"),
            )),
            None => Ok(()),
        }
    }

    /// Agents come up and go down in turns, starting with up.
    fn agent_event(
        &mut self,
        event: &Value,
        up: &mut BTreeMap<String, bool>,
    ) -> Result<(), Violation> {
        let is_up = match event["kind"].as_str() {
            Some("agent-up") => true,
            Some("agent-down") => false,
            _ => return Ok(()),
        };
        let agent = event["agent"].as_str().unwrap_or_default();
        self.oracle.lost += u64::from(event["reason"] == "infra/agent-lost");
        if !is_up {
            self.oracle.lost_agents.insert(agent.to_owned());
        }
        match up.insert(agent.to_owned(), is_up) {
            Some(was_up) if was_up != is_up => Ok(()),
            None if is_up => Ok(()),
            _ => Err(Violation::new("agents come and go in turns", event.to_string())),
        }
    }

    /// The last event of each agent says what the state says.
    fn check_agents(&self, up: &BTreeMap<String, bool>) -> Result<(), Violation> {
        for node in self.members() {
            let Some(running) = self.machines.get(&node).and_then(|m| m.running.as_ref()) else {
                continue;
            };
            let agents = &running.coordinator.replica().meta().agents;
            let known: BTreeMap<String, bool> =
                agents.iter().map(|(name, agent)| (name.clone(), !agent.down)).collect();
            if known != *up {
                let what = format!("node {node} knows {known:?}, and its history says {up:?}");
                return Err(Violation::new("agents come and go in turns", what));
            }
        }
        Ok(())
    }

    fn check_runs(
        &self,
        runs: &BTreeMap<RunId, RunOrder>,
        names: &BTreeMap<String, Vec<RunId>>,
    ) -> Result<(), Violation> {
        for (name, of_name) in names {
            if of_name.len() > 1 {
                let what = format!("{name} is there as {of_name:?}");
                return Err(Violation::new("one run for a key", what));
            }
        }
        for (run, order) in runs {
            order.is_over(*run)?;
        }
        for (key, known) in &self.oracle.keys {
            let Some((run, body)) = known.acknowledged else { continue };
            match runs.get(&run) {
                None => {
                    let what = format!("run {run} of {key} is not there");
                    return Err(Violation::new("an acknowledged submission is never lost", what));
                }
                Some(order) if order.name != *key || order.body != body => {
                    let what = format!("run {run} is not what {key} has submitted");
                    return Err(Violation::new("one run for a key", what));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// Name, body and `finally` tasks of a stored submission.
fn submitted(content: &[u8]) -> Result<(String, u64, Vec<String>), String> {
    let (length, rest) = content.split_first_chunk::<8>().ok_or("a submission cut short")?;
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    let json = rest.get(..length).ok_or("a submission cut short")?;
    let submission: tenon_engine::Submission =
        serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let (metadata, finals) = match &submission.run {
        RunObject::PipelineRun(run) => {
            let finals = run.spec.pipeline_spec.iter().flat_map(|spec| &spec.finally);
            (&run.metadata, finals.map(|task| task.name.clone()).collect())
        }
        RunObject::TaskRun(run) => (&run.metadata, Vec::new()),
    };
    let body = metadata.labels.get("body").and_then(|body| body.parse().ok());
    Ok((metadata.name.clone(), body.unwrap_or(u64::MAX), finals))
}
