//! One attempt's connection to its relay, which is opened again when it breaks: what was ordered and
//! not answered is ordered again, and records go on where they stand here.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tenon_entrypoint::relay::{Answer, Order};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Far;
use super::mirror::Mirror;
use crate::backend::BackendError;

/// How long the way to the daemon may be broken before the attempt is given up.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// So often the relay is told that it is needed. It goes by itself after an hour without a word.
const SIGN_OF_LIFE: Duration = Duration::from_secs(600);
/// Pauses between attempts to open it again.
const PAUSE: Duration = Duration::from_millis(500);

/// A handle; the connection ends with it.
pub struct Link {
    wishes: mpsc::UnboundedSender<Wish>,
    failed: watch::Receiver<Option<String>>,
    _work: JoinSet<()>,
}

enum Wish {
    Order(Vec<Order>, oneshot::Sender<()>),
    Follow(Vec<Mirror>),
}

impl Link {
    /// Opened in the background.
    pub fn open(far: Arc<Far>) -> Link {
        let (wishes, wished) = mpsc::unbounded_channel();
        let (tell, failed) = watch::channel(None);
        let (mirrors, pending) = (Vec::new(), VecDeque::new());
        let work = Work { far, wished, mirrors, pending, last: 0, broken: None };
        let mut tasks = JoinSet::new();
        tasks.spawn(work.run(tell));
        Link { wishes, failed, _work: tasks }
    }

    /// Orders something and returns once it is done, and what the followed records held then is here.
    pub async fn order(&self, orders: Vec<Order>) -> Result<(), BackendError> {
        let done = self.begin(orders);
        tokio::select! {
            done = done => if done.is_ok() { return Ok(()) },
            () = self.wait_for_failure() => {}
        }
        Err(BackendError { code: "docker/relay", message: self.why() })
    }

    /// Orders something; the receiver is told when it is done.
    pub fn begin(&self, orders: Vec<Order>) -> oneshot::Receiver<()> {
        let (done, is_done) = oneshot::channel();
        // Work that has ended has said why.
        let _ = self.wishes.send(Wish::Order(orders, done));
        is_done
    }

    /// Copies records here as they grow: what is over there, here, and from which offset.
    pub fn follow(&self, records: Vec<(String, PathBuf, u64)>) -> std::io::Result<()> {
        let mirrors: std::io::Result<Vec<Mirror>> = records
            .into_iter()
            .map(|(there, here, from)| Mirror::open(there, &here, from))
            .collect();
        let _ = self.wishes.send(Wish::Follow(mirrors?));
        Ok(())
    }

    /// Returns when the connection is given up, with the reason.
    pub async fn failure(&self) -> String {
        self.wait_for_failure().await;
        self.why()
    }

    async fn wait_for_failure(&self) {
        let mut failed = self.failed.clone();
        // That the work has ended is a failure too.
        let _ = failed.wait_for(Option::is_some).await;
    }

    fn why(&self) -> String {
        let why = self.failed.borrow().clone();
        why.unwrap_or_else(|| "the relay on the daemon's machine has ended".to_owned())
    }
}

/// Why a connection is no more.
enum End {
    /// Nobody needs it.
    Unneeded,
    /// It broke.
    Broken(String),
    /// What was ordered cannot be done.
    Failed(String),
}

struct Work {
    far: Arc<Far>,
    wished: mpsc::UnboundedReceiver<Wish>,
    mirrors: Vec<Mirror>,
    /// What was ordered and not answered, with its number.
    pending: VecDeque<(u64, Vec<Order>, oneshot::Sender<()>)>,
    last: u64,
    /// Since when nothing was heard, once the connection broke.
    broken: Option<Instant>,
}

impl Work {
    async fn run(mut self, failed: watch::Sender<Option<String>>) {
        loop {
            let end = self.serve().await;
            let is_patient = self.broken.get_or_insert_with(Instant::now).elapsed() < PATIENCE;
            match end {
                End::Unneeded => return,
                End::Broken(why) if is_patient => {
                    tracing::warn!(%why, "the way to the relay broke; it is opened again");
                    tokio::time::sleep(PAUSE).await;
                }
                End::Broken(why) | End::Failed(why) => {
                    failed.send_replace(Some(why));
                    return;
                }
            }
        }
    }

    /// One connection, to its end.
    async fn serve(&mut self) -> End {
        let opened = tokio::time::timeout(PATIENCE, self.far.open()).await;
        let session = match opened {
            Ok(Ok(session)) => session,
            Ok(Err(error)) => return End::Broken(error.message),
            Err(_) => return End::Broken("the relay cannot be started in time".to_owned()),
        };
        let (mut output, mut input) = (session.output, session.input);
        let (send, mut to_send) = mpsc::unbounded_channel::<Vec<u8>>();
        // Apart from the reading: the relay may be waiting for that before it reads on.
        let sending = async move {
            while let Some(bytes) = to_send.recv().await {
                input.write_all(&bytes).await?;
                input.flush().await?;
            }
            std::io::Result::Ok(())
        };
        tokio::pin!(sending);
        // The receiver is in the future above, which lives as long.
        let say = |order: &Order| drop(send.send(order.encode()));
        for (number, mirror) in self.mirrors.iter().enumerate() {
            say(&mirror.follow(number));
        }
        for (number, orders, _) in &self.pending {
            orders.iter().for_each(say);
            say(&Order::Report { number: *number });
        }
        let mut buffer = Vec::new();
        let mut alive = tokio::time::interval(SIGN_OF_LIFE);
        loop {
            tokio::select! {
                _ = alive.tick() => say(&Order::Report { number: 0 }),
                sent = &mut sending => {
                    let why = sent.err().map_or_else(String::new, |error| error.to_string());
                    return End::Broken(format!("the relay takes no orders: {why}"));
                }
                wish = self.wished.recv() => match wish {
                    None => return End::Unneeded,
                    Some(Wish::Follow(mirrors)) => {
                        let first = self.mirrors.len();
                        for (number, mirror) in mirrors.iter().enumerate() {
                            say(&mirror.follow(first + number));
                        }
                        self.mirrors.extend(mirrors);
                    }
                    Some(Wish::Order(orders, done)) => {
                        self.last += 1;
                        orders.iter().for_each(say);
                        say(&Order::Report { number: self.last });
                        self.pending.push_back((self.last, orders, done));
                    }
                },
                read = output.next() => {
                    let bytes = match read {
                        Some(Ok(bytes)) => bytes,
                        Some(Err(error)) => return End::Broken(error.to_string()),
                        None => return End::Broken("the relay has ended".to_owned()),
                    };
                    self.broken = None;
                    if let bollard::container::LogOutput::StdErr { message } = &bytes {
                        let said = String::from_utf8_lossy(message).into_owned();
                        return End::Broken(said);
                    }
                    buffer.extend_from_slice(&bytes.into_bytes());
                    let mut used = 0;
                    loop {
                        match Answer::decode(&buffer[used..]) {
                            Ok(Some((answer, length))) => {
                                used += length;
                                match self.take(answer) {
                                    Ok(orders) => orders.iter().for_each(say),
                                    Err(why) => return End::Failed(why),
                                }
                            }
                            Ok(None) => break,
                            Err(error) => return End::Failed(format!("the relay's words: {error}")),
                        }
                    }
                    buffer.drain(..used);
                }
            }
        }
    }

    /// Takes an answer; gives what is to be ordered in turn.
    fn take(&mut self, answer: Answer) -> Result<Option<Order>, String> {
        match answer {
            Answer::Done { number } => {
                while let Some((first, ..)) = self.pending.front()
                    && *first <= number
                    && let Some((.., done)) = self.pending.pop_front()
                {
                    // Who waits no more needs not to know.
                    let _ = done.send(());
                }
                Ok(None)
            }
            Answer::Failed { message } => {
                Err(format!("the relay on the daemon's machine: {message}"))
            }
            Answer::Bytes { file, at, bytes } => self.with(file, |mirror| mirror.take(at, &bytes)),
            Answer::Touched { file } => self.with(file, Mirror::touch),
        }
    }

    fn with(
        &mut self,
        file: u32,
        act: impl FnOnce(&mut Mirror) -> std::io::Result<Option<u64>>,
    ) -> Result<Option<Order>, String> {
        let mirror = usize::try_from(file).ok().and_then(|index| self.mirrors.get_mut(index));
        let mirror = mirror.ok_or_else(|| "the relay speaks of an unknown record".to_owned())?;
        let kept = act(mirror).map_err(|error| format!("a record cannot be written: {error}"))?;
        Ok(kept.map(|upto| Order::Kept { file, upto }))
    }
}
