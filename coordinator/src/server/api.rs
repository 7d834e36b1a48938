//! What clients may ask, apart from the protocol in which they ask it: requests are checked here, and
//! here is everything that both protocols answer in the same way.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use sha2::{Digest, Sha256};
use tenon_engine::{RunId, Time};
use tenon_proto::control::v1::{
    CancelRunRequest, ExplainRunRequest, ExplainRunResponse, GetRunObjectsRequest, GetRunRequest,
    ListRunsRequest, ListRunsResponse, ReleaseRunRequest, RerunRunRequest, RerunRunResponse, Run,
    RunObjects, SubmitRequest, SubmitResponse, SubscribeRequest,
};
use tenon_tekton::load::Source;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::access::Caller;
use super::audit::Audit;
use super::control_plane::{ControlPlane, Once};
use super::fault::{self, Fault, Result};
use super::metrics::{Counted, Metrics};
use super::query::Query;
use super::subscription::{Patience, Subscription, blocking};
use super::wish::Wish;
use super::{Limits, fields};
use crate::intake::{self, Chance, Front, Prepared, Remark, flags};

/// A manifest of at most so many bytes is read at once: that takes less than to hand it to another thread.
const AT_ONCE: usize = 4 << 10;

/// What a request may be besides its content.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When it must have been answered.
    pub deadline: Instant,
    /// The answer need not know of every write that was acknowledged before: for reads without a
    /// quorum.
    pub stale: bool,
    /// Who asks.
    pub caller: Caller,
}

/// The operations of the control API.
#[derive(Clone)]
pub struct Api {
    /// The node that does it.
    pub node: Arc<dyn ControlPlane>,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Ends all streams, and lets no further request in.
    pub shutdown: CancellationToken,
    /// Then, when the requests under way are done, lets go of the other nodes.
    pub closing: CancellationToken,
    /// How many requests are under way.
    pub under_way: watch::Sender<usize>,
    /// How much is too much.
    pub limits: Limits,
    /// What was written down.
    pub audit: Option<Audit>,
}

impl Api {
    /// Accepts a run.
    pub async fn submit(&self, request: SubmitRequest, asked: Asked) -> Result<SubmitResponse> {
        let once = once(request.idempotency_key.as_deref(), || {
            // Who sends a request again may do it under another span.
            SubmitRequest { idempotency_key: None, traceparent: None, ..request.clone() }
                .encode_to_vec()
        })?;
        let largest = self.limits.manifest_bytes;
        let bytes =
            request.manifest.len() + request.files.iter().map(|it| it.text.len()).sum::<usize>();
        let (prepared, warnings) = match bytes {
            0..=AT_ONCE => prepare(request, largest)?,
            _ => blocking(move || prepare(request, largest)).await?,
        };
        let namespace = crate::history::namespace_of(&prepared.submission);
        asked.caller.says(format!("namespace {namespace}"));
        asked.caller.may_in(&namespace)?;
        let started =
            self.until(&asked, self.node.submit(Box::new(prepared), once, asked.deadline)).await?;
        asked.caller.says(format!("run {}", started.run.id));
        Ok(SubmitResponse { run: Some(started.run), replayed: started.replayed, warnings })
    }

    /// One run.
    pub async fn get_run(&self, request: GetRunRequest, asked: Asked) -> Result<Run> {
        let run = fields::run_id(&request.id)?;
        self.read(&asked, run, move |node| node.get(run)).await
    }

    /// A page of runs.
    pub async fn list_runs(
        &self,
        request: ListRunsRequest,
        asked: Asked,
    ) -> Result<ListRunsResponse> {
        if !request.namespace.is_empty() {
            asked.caller.may_in(&request.namespace)?;
        }
        let query = Query::new(request)?;
        self.barrier(&asked).await?;
        let node = self.node.clone();
        // A rare filter looks at many runs: the page that is found in time has a successor.
        let until = asked.deadline - asked.deadline.duration_since(Instant::now()) / 4;
        let caller = asked.caller.clone();
        self.until(&asked, blocking(move || page(&*node, &query, &caller, until))).await
    }

    /// Ends a run early.
    pub async fn cancel_run(&self, request: CancelRunRequest, asked: Asked) -> Result<Run> {
        let run = fields::run_id(&request.id)?;
        let cancel = fields::cancel(&request.mode, request.now, &request.message)?;
        self.touch(&asked, run).await?;
        let cancelled = self.until(&asked, self.node.cancel(run, cancel, asked.deadline)).await;
        let shown = self.show(run).await;
        match (cancelled, shown) {
            // Whoever repeats this, because the answer was lost, is to hear that it is done.
            (Err(fault), Ok(run)) if fault.code() == "conflict/run-ended" => {
                if run.status == "cancelled" { Ok(run) } else { Err(fault) }
            }
            (cancelled, shown) => cancelled.and(shown),
        }
    }

    /// Runs the same again.
    pub async fn rerun_run(
        &self,
        request: RerunRunRequest,
        asked: Asked,
    ) -> Result<RerunRunResponse> {
        let run = fields::run_id(&request.id)?;
        self.touch(&asked, run).await?;
        let once = once(request.idempotency_key.as_deref(), || {
            let mut bytes = b"rerun".to_vec();
            RerunRunRequest { idempotency_key: None, ..request.clone() }
                .encode(&mut bytes)
                .expect("a vector has room for any message");
            bytes
        })?;
        let rerun = self.node.rerun(run, request.from_failed, once, asked.deadline);
        let started = self.until(&asked, rerun).await?;
        Ok(RerunRunResponse { run: Some(started.run), replayed: started.replayed })
    }

    /// Starts a pending run.
    pub async fn release_run(&self, request: ReleaseRunRequest, asked: Asked) -> Result<Run> {
        let run = fields::run_id(&request.id)?;
        self.touch(&asked, run).await?;
        self.until(&asked, self.node.release(run, asked.deadline)).await?;
        self.show(run).await
    }

    /// What every task of a run does or waits for.
    pub async fn explain_run(
        &self,
        request: ExplainRunRequest,
        asked: Asked,
    ) -> Result<ExplainRunResponse> {
        let run = fields::run_id(&request.id)?;
        self.read(&asked, run, move |node| node.explain(run)).await
    }

    /// The run object and its children.
    pub async fn get_run_objects(
        &self,
        request: GetRunObjectsRequest,
        asked: Asked,
    ) -> Result<RunObjects> {
        let run = fields::run_id(&request.id)?;
        let yaml = self.read(&asked, run, move |node| node.objects(run)).await?;
        Ok(RunObjects { yaml })
    }

    /// A place in the event stream. A reader that does not follow gets, like any other read, what was
    /// acknowledged before; one that follows catches up by itself.
    pub async fn subscribe(
        &self,
        request: SubscribeRequest,
        asked: &Asked,
    ) -> Result<Subscription> {
        let caller = &asked.caller;
        fields::kinds(&request.kinds)?;
        if !request.namespace.is_empty() {
            fields::namespace(&request.namespace)?;
            caller.may_in(&request.namespace)?;
        }
        let run = match &*request.run {
            "" => None,
            id => Some(fields::run_id(id)?),
        };
        if self.shutdown.is_cancelled() {
            return Err(stopping());
        }
        match run {
            _ if !request.follow => self.barrier(asked).await?,
            Some(run) => self.know(run, asked).await?,
            None => {}
        }
        if let Some(run) = run {
            self.look_at(caller, run).await?;
        }
        let open = self.metrics.subscribers.get();
        if open >= self.limits.subscribers {
            let message = format!("{open} streams of events are open on this node already");
            return Err(Fault::new("overloaded/subscribers", message).hint("try another node"));
        }
        let wish = Wish {
            since: request.since,
            follow: request.follow,
            run,
            namespace: request.namespace,
            among: caller.namespaces(),
            kinds: request.kinds,
            tasks: request.tasks,
            steps: request.steps,
        };
        let patience = Patience { idle: self.limits.idle, stall: self.limits.stall };
        let counted = Counted::new(self.metrics.clone());
        Subscription::open(self.node.clone(), wish, patience, self.shutdown.clone(), counted).await
    }

    /// Counts a request when it is answered.
    pub async fn counted<T>(
        &self,
        protocol: &'static str,
        operation: &'static str,
        answer: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let begun = Instant::now();
        let under_way = UnderWay::new(&self.under_way);
        let result = answer.await;
        drop(under_way);
        let code = match &result {
            Ok(_) => Cow::Borrowed("ok"),
            Err(fault) => Cow::Owned(fault.code().to_owned()),
        };
        let (protocol, name) = (Cow::Borrowed(protocol), Cow::Borrowed(operation));
        let labels = [("protocol", protocol), ("operation", name), ("code", code)];
        self.metrics.requests.get_or_create(&labels).inc();
        let labels = [("operation", operation)];
        let took = begun.elapsed().as_secs_f64();
        self.metrics.request_duration.get_or_create(&labels).observe(took);
        result
    }

    /// Catches up, if this node has not heard of that run yet: whoever names it may have heard of it
    /// from another node.
    async fn know(&self, run: RunId, asked: &Asked) -> Result<()> {
        let node = self.node.clone();
        if blocking(move || node.get(run)).await?.is_some() {
            return Ok(());
        }
        self.barrier(asked).await
    }

    /// Faults a run that the caller may not change.
    async fn touch(&self, asked: &Asked, run: RunId) -> Result<()> {
        asked.caller.says(format!("run {run}"));
        if asked.caller.sees_all() {
            return Ok(());
        }
        self.until(asked, self.node.read_barrier(asked.deadline)).await?;
        self.look_at(&asked.caller, run).await
    }

    /// Faults a run that the caller may not know of, as one that is not there.
    async fn look_at(&self, caller: &Caller, run: RunId) -> Result<()> {
        if caller.sees_all() {
            return Ok(());
        }
        let found = self.show(run).await?;
        if caller.sees(&found.namespace) { Ok(()) } else { Err(Fault::no_such_run(run)) }
    }

    /// A run that was just changed.
    async fn show(&self, run: RunId) -> Result<Run> {
        let node = self.node.clone();
        blocking(move || node.get(run)?.ok_or_else(|| Fault::no_such_run(run))).await
    }

    async fn read<T: Send + 'static>(
        &self,
        asked: &Asked,
        run: RunId,
        read: impl FnOnce(&dyn ControlPlane) -> Result<Option<T>> + Send + 'static,
    ) -> Result<T> {
        self.barrier(asked).await?;
        self.look_at(&asked.caller, run).await?;
        let node = self.node.clone();
        let found = self.until(asked, blocking(move || read(&*node))).await?;
        found.ok_or_else(|| Fault::no_such_run(run))
    }

    pub(super) async fn barrier(&self, asked: &Asked) -> Result<()> {
        match asked.stale {
            true => Ok(()),
            false => self.until(asked, self.node.read_barrier(asked.deadline)).await,
        }
    }

    /// The node answers by the deadline. Should it not, the client is not made to wait.
    pub(super) async fn until<T>(
        &self,
        asked: &Asked,
        answer: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        if self.shutdown.is_cancelled() {
            return Err(stopping());
        }
        let late = asked.deadline + Duration::from_millis(50);
        tokio::time::timeout_at(late, answer).await.unwrap_or_else(|_| Err(Fault::deadline()))
    }
}

/// The node stops: whoever asks, asks another one.
pub fn stopping() -> Fault {
    Fault::new("unavailable/stopping", "this node is stopping").hint("ask another node")
}

/// One request, for as long as it is under way.
struct UnderWay<'a>(&'a watch::Sender<usize>);

impl UnderWay<'_> {
    fn new(count: &watch::Sender<usize>) -> UnderWay<'_> {
        // Whoever waits for the last one need not hear of more.
        count.send_if_modified(|count| {
            *count += 1;
            false
        });
        UnderWay(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.send_if_modified(|count| {
            *count -= 1;
            *count == 0
        });
    }
}

/// The client's key with the hash of what it belongs to.
fn once(key: Option<&str>, request: impl FnOnce() -> Vec<u8>) -> Result<Option<Once>> {
    let Some(key) = fields::key(key)? else { return Ok(None) };
    let hash = Sha256::digest(request());
    let request = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Some(Once { key: key.to_owned(), request }))
}

/// Makes the one run that a request asks for.
fn prepare(
    request: SubmitRequest,
    largest: usize,
) -> Result<(Prepared, Vec<tenon_proto::control::v1::Detail>)> {
    let bytes =
        request.manifest.len() + request.files.iter().map(|it| it.text.len()).sum::<usize>();
    if bytes > largest {
        let message = format!("the manifest has {bytes} bytes; a run's may have {largest} at most");
        return Err(Fault::new("too-large/manifest", message).field("manifest"));
    }
    let changes = request.feature_flags.iter().map(|(name, value)| (&**name, &**value));
    let flags = flags::parse(Front::Api, changes)?;
    let mut sources = Vec::new();
    if !request.manifest.is_empty() {
        sources.push(Source { name: "manifest".to_owned(), text: request.manifest.into() });
    }
    for file in request.files {
        sources.push(Source { name: file.name, text: file.text.into() });
    }
    let request = intake::Request {
        sources,
        pipeline: request.pipeline,
        task: request.task,
        run: request.run.map(|run| run as usize),
        params: request.params.into_iter().map(|it| (it.name, it.value)).collect(),
        workspaces: request.workspaces.into_iter().map(|it| (it.name, it.source)).collect(),
        namespace: fields::namespace(&request.namespace)?.to_owned(),
        timeout: request.timeout,
        traceparent: request.traceparent,
        parallel: match request.parallel {
            Some(0) => {
                let message = "no run gets on with 0 tasks at a time";
                return Err(Fault::new("invalid/parallel", message).field("parallel"));
            }
            parallel => parallel,
        },
        flags,
        front: Front::Api,
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Time(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    #[expect(clippy::cast_possible_truncation, reason = "any 64 of the 80 random bits will do")]
    let mut random = || ulid::Ulid::new().random() as u64;
    let mut warnings = Vec::new();
    let mut remark = |remark: Remark| {
        if let Remark::Warning(warning) = remark {
            warnings.push(fault::detail(&warning));
        }
    };
    let mut chance = Chance { now, random: &mut random };
    let mut prepared = intake::prepare(&request, &mut chance, &mut remark)?;
    match prepared.len() {
        1 => Ok((prepared.remove(0), warnings)),
        several => {
            let message =
                format!("the manifest holds {several} run objects; one request is one run");
            Err(Fault::new("invalid/several-runs", message)
                .hint("choose one: \"run\": 0 is the first")
                .field("run"))
        }
    }
}

fn page(
    node: &dyn ControlPlane,
    query: &Query,
    caller: &Caller,
    until: Instant,
) -> Result<ListRunsResponse> {
    let mut runs: Vec<Run> = Vec::new();
    let mut last = None;
    let mut more = false;
    node.visit_runs(query.before, &mut |run| {
        if query.ends_before(&run) {
            return ControlFlow::Break(());
        }
        if runs.len() == query.page || last.is_some() && Instant::now() >= until {
            more = true;
            return ControlFlow::Break(());
        }
        last = run.id.parse().ok();
        if query.admits(&run) && caller.sees(&run.namespace) {
            runs.push(run);
        }
        ControlFlow::Continue(())
    })?;
    let next_page_token = match last {
        Some(last) if more => query.token(last),
        _ => String::new(),
    };
    Ok(ListRunsResponse { runs, next_page_token })
}
