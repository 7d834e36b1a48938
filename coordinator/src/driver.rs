//! The loop of a local coordinator: inputs become commands, commands become durable, then they are
//! applied, then their events are visible, then what remains to be done is done.
//!
//! The order of these five is what invariants 1 and 3 stand on. Everything that decides is in the
//! engine; everything here is level-triggered on [`Engine::pending_work`]. `told` only keeps the
//! loop from repeating a message within one session: losing it would repeat messages, not work.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tenon_engine::command::CancelMode;
use tenon_engine::{Command, Engine, RunId, Submission, Time};
use tenon_proto::agent::v1::{
    Acknowledge, AgentMessage, CoordinatorMessage, Progress, agent_message, coordinator_message,
};
use tenon_reporter::history::{RunWriter, Store};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::command_log::CommandLog;
use crate::duties::Duties;
use crate::error::{Error, Result};
use crate::local::{AgentLink, Finished, LocalOptions};
use crate::materials::Materials;
use crate::{history, masking, wire};

/// At most so many inputs are agreed on together.
const BATCH: usize = 64;

/// What may reach the driver from the process it lives in.
pub(crate) enum Input {
    Submit {
        submission: Box<Submission>,
        materials: Materials,
        accepted: oneshot::Sender<()>,
        done: oneshot::Sender<Finished>,
    },
    Cancel {
        run: RunId,
        mode: CancelMode,
        message: String,
        /// Kill what runs instead of asking it to end.
        now: bool,
    },
}

/// The state behind [`crate::Local`].
pub(crate) struct Driver {
    state_dir: PathBuf,
    store: Store,
    engine: Engine,
    log: CommandLog,
    writers: BTreeMap<RunId, RunWriter>,
    duties: Duties,
    link: AgentLink,
    outgoing: VecDeque<CoordinatorMessage>,
    progress: broadcast::Sender<Progress>,
    notes: mpsc::UnboundedSender<String>,
    accepted: Vec<oneshot::Sender<()>>,
    done: BTreeMap<RunId, oneshot::Sender<Finished>>,
    last_time: Time,
}

/// What woke the loop.
#[expect(clippy::large_enum_variant, reason = "one exists at a time, and it is taken at once")]
enum Wake {
    Input(Option<Input>),
    Agent(Option<AgentMessage>),
    Sent,
    Deadline,
}

impl Driver {
    pub(crate) fn new(
        options: &LocalOptions,
        store: Store,
        link: AgentLink,
        progress: broadcast::Sender<Progress>,
        notes: mpsc::UnboundedSender<String>,
    ) -> Result<Driver> {
        let id = process_unique_id();
        Ok(Driver {
            log: CommandLog::create(&options.state_dir, &id)?,
            duties: Duties::new(options.grace_ms),
            state_dir: options.state_dir.clone(),
            store,
            engine: Engine::new(),
            writers: BTreeMap::new(),
            link,
            outgoing: VecDeque::new(),
            progress,
            notes,
            accepted: Vec::new(),
            done: BTreeMap::new(),
            last_time: Time(0),
        })
    }

    /// Runs until the handle is gone and every run is over, or until the log refuses.
    pub(crate) fn run(mut self, inputs: mpsc::Receiver<Input>) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(
            |source| Error::Io {
                action: "start the runtime of",
                path: "coordinator".into(),
                source,
            },
        )?;
        runtime.block_on(self.serve(inputs))?;
        self.log.close(&self.state_dir)
    }

    async fn serve(&mut self, mut inputs: mpsc::Receiver<Input>) -> Result<()> {
        let mut open = true;
        while open || !self.writers.is_empty() {
            let mut batch = Vec::new();
            let mut acknowledge = None;
            let mut wake = self.wait(&mut inputs, open).await;
            loop {
                match wake {
                    Wake::Input(Some(input)) => self.take_input(input, &mut batch),
                    Wake::Input(None) => open = false,
                    Wake::Agent(Some(message)) => {
                        self.take_message(message, &mut batch, &mut acknowledge);
                    }
                    Wake::Agent(None) => return Err(Error::Stopped),
                    Wake::Sent | Wake::Deadline => {}
                }
                if batch.len() >= BATCH {
                    break;
                }
                wake = if let Ok(message) = self.link.from_agent.try_recv() {
                    Wake::Agent(Some(message))
                } else if let Ok(input) = inputs.try_recv() {
                    Wake::Input(Some(input))
                } else {
                    break;
                };
            }
            let now = self.now();
            if self.engine.next_deadline().is_some_and(|deadline| deadline <= now) {
                batch.push(Command::Tick { time: now });
            }
            self.agree(batch)?;
            loop {
                let now = self.now();
                let placements = self.duties.placements(&self.engine, now);
                if placements.is_empty() {
                    break;
                }
                self.agree(placements)?;
            }
            self.duties.messages(&self.engine, &mut self.outgoing);
            self.outgoing.extend(acknowledge.map(acknowledgement));
            self.finish_runs()?;
        }
        for message in self.outgoing.drain(..) {
            if self.link.to_agent.send(message).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Waits for the next thing that matters. Sending happens here too, so that an agent which is
    /// busy reporting never blocks the loop that takes its reports.
    async fn wait(&mut self, inputs: &mut mpsc::Receiver<Input>, open: bool) -> Wake {
        let sleep = self.engine.next_deadline().map(|deadline| {
            let millis = u64::try_from(deadline.0 - self.now().0).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(millis))
        });
        let timer = async {
            match sleep {
                Some(sleep) => sleep.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            permit = self.link.to_agent.reserve(), if !self.outgoing.is_empty() => {
                if let (Ok(permit), Some(message)) = (permit, self.outgoing.pop_front()) {
                    permit.send(message);
                }
                Wake::Sent
            }
            message = self.link.from_agent.recv() => Wake::Agent(message),
            input = inputs.recv(), if open => Wake::Input(input),
            () = timer => Wake::Deadline,
        }
    }

    fn take_input(&mut self, input: Input, batch: &mut Vec<Command>) {
        match input {
            Input::Submit { submission, materials, accepted, done } => {
                self.duties.keep(submission.run_id, materials);
                self.accepted.push(accepted);
                self.done.insert(submission.run_id, done);
                batch.push(Command::Submit { time: self.now(), submission });
            }
            Input::Cancel { run, mode, message, now } => {
                if now {
                    self.duties.hurry(run);
                }
                batch.push(Command::Cancel { time: self.now(), run, mode, message });
            }
        }
    }

    fn take_message(
        &mut self,
        message: AgentMessage,
        batch: &mut Vec<Command>,
        acknowledge: &mut Option<u64>,
    ) {
        match message.message {
            Some(agent_message::Message::Hello(hello)) => self.duties.welcome(hello),
            Some(agent_message::Message::Progress(progress)) => {
                // Nobody needs to be watching, or listening.
                if progress.note {
                    let _ = self.notes.send(progress.what);
                } else {
                    let _ = self.progress.send(progress);
                }
            }
            Some(agent_message::Message::Report(report)) => {
                let number = report.number;
                if let Ok((attempt, mut report)) = wire::report_from_wire(report) {
                    self.duties.hide_secrets(attempt.run, &mut report);
                    batch.push(Command::Report { time: self.now(), attempt, report });
                }
                *acknowledge = Some(number);
            }
            Some(agent_message::Message::Reports(reports)) => {
                for report in reports.reports {
                    let message = agent_message::Message::Report(report);
                    let message = AgentMessage { message: Some(message) };
                    self.take_message(message, batch, acknowledge);
                }
            }
            Some(agent_message::Message::Heartbeat(_)) | None => {}
        }
    }

    /// Makes the commands durable, applies them, and shows their events.
    fn agree(&mut self, commands: Vec<Command>) -> Result<()> {
        if commands.is_empty() {
            return Ok(());
        }
        self.log.commit(&commands)?;
        let mut touched = BTreeSet::new();
        for command in commands {
            if let Command::Submit { time, submission } = &command {
                let writer = self.store.create(history::summary_of(submission, *time))?;
                self.writers.insert(submission.run_id, writer);
            }
            let mut events = self.engine.apply(command);
            for event in &mut events {
                masking::show_event(event);
                let Some(run) = event.run_id else { continue };
                touched.insert(run);
                if let Some(writer) = self.writers.get_mut(&run) {
                    writer.append([&*event])?;
                }
            }
        }
        for run in touched {
            if let Some(writer) = self.writers.get_mut(&run) {
                writer.flush()?;
            }
        }
        for accepted in self.accepted.drain(..) {
            // Whoever submitted may have gone; the run goes on.
            let _ = accepted.send(());
        }
        Ok(())
    }

    /// Closes the history of runs that are over, and tells whoever waits for them.
    fn finish_runs(&mut self) -> Result<()> {
        let over: Vec<RunId> = self
            .writers
            .keys()
            .copied()
            .filter(|run| self.engine.outcome(*run).is_some())
            .filter(|run| self.duties.end_was_told(*run))
            .collect();
        for run in over {
            let Some(outcome) = self.engine.outcome(run) else { continue };
            let objects = history::shown(self.engine.objects(run));
            if let Some(writer) = self.writers.remove(&run) {
                let exit_code = outcome.rejected.then_some(4);
                writer.finish(&history::objects_to_yaml(&objects), exit_code)?;
            }
            self.engine.remove(run);
            self.duties.forget(run);
            if let Some(done) = self.done.remove(&run) {
                // Nobody may be waiting any more.
                let _ = done.send(Finished { outcome, objects });
            }
        }
        Ok(())
    }

    /// The wall clock, never going back.
    fn now(&mut self) -> Time {
        self.last_time = self.last_time.max(now());
        self.last_time
    }
}

fn acknowledgement(number: u64) -> CoordinatorMessage {
    let message = coordinator_message::Message::Acknowledge(Acknowledge { number });
    CoordinatorMessage { message: Some(message) }
}

fn now() -> Time {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

/// A name for this coordinator's log that no other on this machine has: the time in nanoseconds
/// and the process id.
fn process_unique_id() -> String {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let tail = u128::from(elapsed.subsec_nanos()) << 32 | u128::from(std::process::id());
    ulid::Ulid::from_parts(millis, tail).to_string()
}
