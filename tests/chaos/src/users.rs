//! Those who use the cluster: each submits one run after the other, with a key of its own for each,
//! and waits for its end; some are cancelled.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tenon_client::{Client, Options};
use tenon_proto::control::v1::{CancelRunRequest, SubmitRequest, SubscribeRequest};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Failure;
use crate::kinds::{Expect, INFRAFAILED, Kind};
use crate::random::Random;

/// How long a user tries to submit a run.
const PATIENCE: Duration = Duration::from_secs(120);

/// What one user asked, and what it was told.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The run's name and the idempotency key.
    pub name: String,
    /// What must come of it.
    pub expect: Expect,
    /// What was sent.
    pub request: SubmitRequest,
    /// The run's id, once it was acknowledged.
    pub run: Option<String>,
    /// The run's status, once its user saw that it had ended.
    pub ended: Option<String>,
}

/// What all users share.
struct Shared {
    urls: Vec<String>,
    kinds: Vec<Kind>,
    marks: Option<String>,
    asked: Mutex<Vec<Asked>>,
    acknowledged: AtomicUsize,
    ended: AtomicUsize,
    faults: Mutex<Vec<String>>,
    stop: CancellationToken,
}

/// The users.
pub struct Users {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Users {
    /// So many users, who begin at once. Steps leave marks in `marks`, where they can.
    pub fn start(
        count: usize,
        urls: &[String],
        kinds: Vec<Kind>,
        marks: Option<String>,
        random: &mut Random,
    ) -> Users {
        let shared = Arc::new(Shared {
            urls: urls.to_vec(),
            kinds,
            marks,
            asked: Mutex::default(),
            acknowledged: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            faults: Mutex::default(),
            stop: CancellationToken::new(),
        });
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let user = User { shared: Arc::clone(&shared), random: Random::new(random.bits()) };
            tasks.spawn(user.work(number));
        }
        Users { shared, tasks }
    }

    /// How many runs were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// How many runs have ended, as far as their users know.
    pub fn ended(&self) -> usize {
        self.shared.ended.load(Ordering::Relaxed)
    }

    /// Lets every user finish what it began, for at most so long; gives all that was asked and what
    /// went wrong.
    pub async fn finish(mut self, limit: Duration) -> (Vec<Asked>, Vec<String>) {
        self.shared.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let in_time = tokio::time::timeout(limit, all).await.is_ok();
        self.tasks.shutdown().await;
        let take = |faults: &Mutex<Vec<String>>| {
            std::mem::take(&mut *faults.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let mut faults = take(&self.shared.faults);
        let asked = self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !in_time {
            let waiting = asked.iter().filter(|asked| asked.run.is_some() && asked.ended.is_none());
            faults.extend(waiting.map(|asked| {
                let run = asked.run.as_deref().unwrap_or_default();
                format!(
                    "{} ({run}) has not ended {} s after the last fault",
                    asked.name,
                    limit.as_secs()
                )
            }));
        }
        (asked, faults)
    }
}

struct User {
    shared: Arc<Shared>,
    random: Random,
}

impl User {
    async fn work(mut self, number: usize) {
        for count in 0.. {
            if self.shared.stop.is_cancelled() {
                return;
            }
            let name = format!("u{number}-{count}");
            if let Err(fault) = self.one_run(&name).await {
                println!("FAULT {fault}");
                self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
            }
        }
    }

    /// Submits one run and sees it through.
    async fn one_run(&mut self, name: &str) -> Result<(), Failure> {
        let shared = Arc::clone(&self.shared);
        let kind = self.random.pick(&shared.kinds).clone();
        let name = format!("{name}-{}", kind.name);
        let request = SubmitRequest {
            manifest: kind.manifest(&name, shared.marks.as_deref()),
            idempotency_key: Some(name.clone()),
            ..SubmitRequest::default()
        };
        let index = {
            let mut asked = shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.push(Asked {
                name: name.clone(),
                expect: kind.expect.clone(),
                request: request.clone(),
                run: None,
                ended: None,
            });
            asked.len() - 1
        };
        let note = |change: &dyn Fn(&mut Asked)| {
            change(&mut shared.asked.lock().unwrap_or_else(PoisonError::into_inner)[index]);
        };
        // Any node, a different one each time.
        let mut urls = shared.urls.clone();
        let first = self.random.below(urls.len() as u64);
        urls.rotate_left(usize::try_from(first).unwrap_or(0));
        let options = Options { deadline: PATIENCE, ..Options::default() };
        let client = Client::new(&urls, options).map_err(|error| error.to_string())?;
        let failed = |what: &str, error: tenon_client::Error| {
            format!("{name}: cannot {what}: {error} [{}]", error.code())
        };
        let answer = client.submit(request).await.map_err(|error| failed("submit", error))?;
        let run = answer.run.unwrap_or_default().id;
        note(&|asked| asked.run = Some(run.clone()));
        shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        if kind.cancel {
            self.cancel(&client, &run).await.map_err(|error| failed("cancel", error))?;
        }
        let ended = client.wait(&run).await.map_err(|error| failed("wait", error))?;
        note(&|asked| asked.ended = Some(ended.status.clone()));
        shared.ended.fetch_add(1, Ordering::Relaxed);
        // Whether a run was given up rightly, its events say.
        match ended.status == kind.expect.status || ended.status == INFRAFAILED {
            true => Ok(()),
            false => Err(format!(
                "{name} ({run}) ended as {}, {}: {}; it should be {}",
                ended.status, ended.reason, ended.message, kind.expect.status
            )),
        }
    }

    /// Cancels a run once a task of it has started.
    async fn cancel(&self, client: &Client, run: &str) -> tenon_client::Result<()> {
        let kinds = vec!["task-start".to_owned()];
        let run = run.to_owned();
        let request = SubscribeRequest {
            run: run.clone(),
            kinds,
            follow: true,
            ..SubscribeRequest::default()
        };
        client.events(request).next().await?;
        let message = "the chaos suite wants it".to_owned();
        let request = CancelRunRequest { id: run, message, ..CancelRunRequest::default() };
        match client.cancel_run(request).await {
            // An earlier try did it, and nobody heard so.
            Err(error) if error.code() == "conflict/run-ended" => Ok(()),
            answer => answer.map(|_| ()),
        }
    }
}
