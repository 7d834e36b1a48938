//! The client: one connection that is kept, and the loop that repeats a call until it is answered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::access::Access;
use crate::connect::{connect, random, urls};
use crate::error::{Error, Result};
use crate::notice::Notice;
use crate::route::Route;

/// How a client behaves.
#[derive(Clone)]
pub struct Options {
    /// How long a call is tried in all.
    pub deadline: Duration,
    /// How long it is tried while no node has ever answered: a cluster that is not there is not worth
    /// the whole deadline. Each node is tried once in any case.
    pub patience: Duration,
    /// How long one node may take to answer before another one is asked.
    pub attempt: Duration,
    /// What the cluster is shown.
    pub access: Access,
    /// Told when a node does not answer, and when one does again.
    pub on_notice: Arc<dyn Fn(Notice) + Send + Sync>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            deadline: Duration::from_secs(60),
            patience: Duration::from_secs(60),
            attempt: Duration::from_secs(10),
            access: Access::default(),
            on_notice: Arc::new(|_| {}),
        }
    }
}

/// A client of a cluster. Clones share its connection.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    state: Mutex<State>,
}

struct State {
    route: Route,
    current: Option<Node>,
    /// The user was told that nothing answers.
    told: bool,
    /// A node has answered, be it with a refusal.
    answered: bool,
    /// Why each node did not do what it was asked, since one did.
    reasons: Vec<(String, String)>,
}

/// A connection to one node.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) url: Arc<str>,
    pub(crate) channel: Channel,
}

/// Whether a call may be repeated when nobody knows whether it was done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    Always,
    /// Only where it certainly was not.
    IfRefused,
}

impl Client {
    /// A client of the cluster with these nodes: some or all of them, as `http://host:port` or
    /// `host:port`. Connects when it is first used.
    pub fn new<T: AsRef<str>>(nodes: &[T], options: Options) -> Result<Client> {
        let route = Route::new(urls(nodes)?, random());
        let state = Mutex::new(State {
            route,
            current: None,
            told: false,
            answered: false,
            reasons: Vec::new(),
        });
        Ok(Client { shared: Arc::new(Shared { options, state }) })
    }

    /// The nodes that are known, in the order in which they are tried.
    pub fn nodes(&self) -> Vec<String> {
        self.state().route.urls().to_vec()
    }

    pub(crate) fn options(&self) -> &Options {
        &self.shared.options
    }

    /// There are these nodes too.
    pub(crate) fn learn(&self, urls: impl IntoIterator<Item = String>) {
        self.state().route.learn(urls);
    }

    /// Asks one node after the other until one answers for good.
    pub(crate) async fn call<Q, A, F>(
        &self,
        repeat: Repeat,
        question: Q,
        ask: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<A>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let began = Instant::now();
        let deadline = began + self.options().deadline;
        let mut last = None;
        loop {
            let node = match self.node(began).await {
                Ok(node) => node,
                Err(error) => return Err(self.out_of_time(began, last.unwrap_or(error))),
            };
            let until = deadline.min(Instant::now() + self.options().attempt);
            let mut request = self.options().access.request(question.clone());
            request.set_timeout(until.saturating_duration_since(Instant::now()));
            let answer = timeout_at(until, ask(node.channel.clone(), request)).await;
            let (error, certain) = match answer {
                Ok(Ok(answer)) => {
                    self.worked(&node.url);
                    return Ok(answer.into_inner());
                }
                Ok(Err(status)) => {
                    let error = Error::of_status(&node.url, &status);
                    // Who is not the leader has done nothing.
                    let certain = error.code() == "unavailable/not-leader";
                    (error, certain)
                }
                Err(_) => {
                    let status = Status::new(Code::Unavailable, "it does not answer in time");
                    (Error::of_status(&node.url, &status), false)
                }
            };
            if !error.is_passing() {
                self.worked(&node.url);
                return Err(error);
            }
            if repeat == Repeat::IfRefused && !certain {
                // The error says so, and it is not tried again.
                self.leave(&node.url, &error, false);
                return Err(error);
            }
            self.failed(&node.url, &error);
            last = Some(error);
        }
    }

    /// A node to which there is a connection, for what is tried since `began`.
    pub(crate) async fn node(&self, began: Instant) -> Result<Node> {
        let deadline = began + self.options().deadline;
        let mut last = None;
        loop {
            let (next, answered) = {
                let mut state = self.state();
                if let Some(node) = &state.current {
                    return Ok(node.clone());
                }
                (state.route.next_try(), state.answered)
            };
            let at = Instant::now() + next.pause;
            // There is a pause only after all nodes were tried.
            let given_up =
                !answered && next.pause > Duration::ZERO && at >= began + self.options().patience;
            if at >= deadline || given_up {
                let message = "no node answers".to_owned();
                let last = last.unwrap_or(Error::Unreachable { url: next.url, message });
                return Err(self.out_of_time(began, last));
            }
            sleep_until(at).await;
            match timeout_at(deadline, connect(&next.url, &self.options().access)).await {
                Ok(Ok(channel)) => {
                    let node = Node { url: next.url.as_str().into(), channel };
                    self.state().current = Some(node.clone());
                    return Ok(node);
                }
                Ok(Err(error)) => {
                    if !error.is_passing() {
                        return Err(error);
                    }
                    self.failed(&next.url, &error);
                    last = Some(error);
                }
                Err(_) => {
                    let message = "it accepts no connection".to_owned();
                    return Err(Error::Unreachable { url: next.url, message });
                }
            }
        }
    }

    /// A node has answered.
    pub(crate) fn worked(&self, url: &str) {
        let told = {
            let mut state = self.state();
            state.route.worked(url);
            state.answered = true;
            state.reasons.clear();
            std::mem::take(&mut state.told)
        };
        if told {
            (self.options().on_notice)(Notice::Answering { url: url.to_owned() });
        }
    }

    /// A node did not do what it was asked, and another one is to be.
    pub(crate) fn failed(&self, url: &str, error: &Error) {
        self.leave(url, error, true);
    }

    /// Likewise; `tells` whether the user may be told that it goes on.
    fn leave(&self, url: &str, error: &Error, tells: bool) {
        let news = {
            let mut state = self.state();
            state.answered |= matches!(error, Error::Refused(_));
            let why = match error {
                Error::Unreachable { message, .. } => message.clone(),
                other => other.to_string(),
            };
            state.reasons.retain(|(node, _)| node != url);
            state.reasons.push((url.to_owned(), why));
            // Another call may have moved on already.
            if state.current.as_ref().is_none_or(|node| *node.url == *url) {
                state.current = None;
                state.route.failed(url, error.leader_url());
            }
            // Who is not the leader says who is: no news for anybody. And who will not wait long for the
            // first answer is told soon enough that there is none.
            let waits = state.answered || self.options().patience >= self.options().deadline;
            let news = error.leader_url().is_none() && waits && tells && !state.told;
            state.told |= news;
            news
        };
        if news {
            (self.options().on_notice)(Notice::Retrying { why: error.to_string() });
        }
    }

    /// The error after everything was tried since `began`: it names all nodes that were tried.
    pub(crate) fn out_of_time(&self, began: Instant, last: Error) -> Error {
        if !last.is_passing() {
            return last;
        }
        let tried = self.state().reasons.iter().map(|(url, why)| format!("{url}: {why}")).collect();
        Error::Deadline {
            seconds: began.elapsed().as_secs_f64().ceil() as u64,
            tried,
            last: Box::new(last),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
