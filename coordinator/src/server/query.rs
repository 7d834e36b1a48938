//! Lists of runs: filters, pages, and the tokens that lead from one page to the next.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message;
use sha2::{Digest, Sha256};
use tenon_engine::{RunId, Time};
use tenon_proto::control::v1::{ListRunsRequest, Run};

use super::fault::{Fault, Result};
use super::fields;

/// Of a request that says nothing.
const USUAL_PAGE: u32 = 100;
/// Largest page.
const LARGEST_PAGE: u32 = 1000;

const STATUSES: [&str; 7] =
    ["pending", "running", "succeeded", "failed", "infrafailed", "timeout", "cancelled"];

/// Which runs are wanted.
#[derive(Clone, Debug)]
pub struct Query {
    request: ListRunsRequest,
    labels: Vec<Selector>,
    since: Option<Time>,
    until: Option<Time>,
    /// Only runs that are older than this one.
    pub before: Option<RunId>,
    /// How many at most.
    pub page: usize,
}

impl Query {
    /// Checks a request.
    pub fn new(request: ListRunsRequest) -> Result<Query> {
        if let Some(wrong) = request.status.iter().find(|it| !STATUSES.contains(&it.as_str())) {
            return Err(Fault::new("invalid/status", format!("no run has the status {wrong:?}"))
                .hint(format!("one of {}", STATUSES.join(", ")))
                .field("status"));
        }
        if !["", "PipelineRun", "TaskRun"].contains(&request.kind.as_str()) {
            let message = format!("there is no kind {:?} of runs", request.kind);
            return Err(Fault::new("invalid/kind", message)
                .hint("PipelineRun or TaskRun")
                .field("kind"));
        }
        if !request.namespace.is_empty() {
            fields::namespace(&request.namespace)?;
        }
        if request.page_size > LARGEST_PAGE {
            let message = format!("a page has at most {LARGEST_PAGE} runs");
            return Err(Fault::new("invalid/page-size", message).field("pageSize"));
        }
        let labels = selectors(&request.labels)?;
        let since = fields::time("since", &request.since)?;
        let until = fields::time("until", &request.until)?;
        let page = match request.page_size {
            0 => USUAL_PAGE,
            size => size,
        } as usize;
        let mut query = Query { request, labels, since, until, before: None, page };
        if !query.request.page_token.is_empty() {
            query.before = Some(query.parse_token()?);
        }
        Ok(query)
    }

    /// Whether a run is wanted.
    pub fn admits(&self, run: &Run) -> bool {
        let request = &self.request;
        let is = |wanted: &String, has: &String| wanted.is_empty() || wanted == has;
        let holds = |wanted: &String, has: &String| wanted.is_empty() || has.contains(wanted);
        is(&request.namespace, &run.namespace)
            && is(&request.kind, &run.kind)
            && (request.status.is_empty() || request.status.contains(&run.status))
            && holds(&request.name, &run.name)
            && holds(&request.pipeline, &run.pipeline)
            && run.id.starts_with(&request.id_prefix.to_ascii_uppercase())
            && self.labels.iter().all(|selector| selector.admits(&run.labels))
            && self.admits_time(run)
    }

    /// Whether no older run than this can be wanted.
    pub fn ends_before(&self, run: &Run) -> bool {
        let Ok(id) = run.id.parse::<RunId>() else { return false };
        self.since.is_some_and(|since| created(id) < since)
    }

    fn admits_time(&self, run: &Run) -> bool {
        let Ok(id) = run.id.parse::<RunId>() else { return false };
        self.since.is_none_or(|since| created(id) >= since)
            && self.until.is_none_or(|until| created(id) < until)
    }

    /// The token of the page after this run.
    pub fn token(&self, last: RunId) -> String {
        let mut bytes = self.fingerprint().to_vec();
        bytes.extend_from_slice(&last.0.to_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn parse_token(&self) -> Result<RunId> {
        let wrong = |message: &str| {
            Fault::new("invalid/page-token", message)
                .hint("repeat the request with the token and the filters of the page before")
                .field("pageToken")
        };
        let bytes = URL_SAFE_NO_PAD
            .decode(&self.request.page_token)
            .map_err(|_| wrong("this is no page token"))?;
        let (fingerprint, id) =
            bytes.split_first_chunk::<8>().ok_or_else(|| wrong("this is no page token"))?;
        let id: [u8; 16] = id.try_into().map_err(|_| wrong("this is no page token"))?;
        if *fingerprint != self.fingerprint() {
            return Err(wrong("the page token belongs to a list with other filters"));
        }
        Ok(RunId(ulid::Ulid::from_bytes(id)))
    }

    /// Tells lists with different filters apart. Pages of one list may differ in size.
    fn fingerprint(&self) -> [u8; 8] {
        let mut filters = self.request.clone();
        filters.page_token.clear();
        filters.page_size = 0;
        let hash: [u8; 32] = Sha256::digest(filters.encode_to_vec()).into();
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        first
    }
}

/// When a run was accepted: its id says it.
fn created(run: RunId) -> Time {
    Time(i64::try_from(run.0.timestamp_ms()).unwrap_or(i64::MAX))
}

/// One requirement on the labels of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Selector {
    Is(String, String),
    IsNot(String, String),
    Has(String),
    HasNot(String),
}

impl Selector {
    fn admits(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Selector::Is(key, value) => labels.get(key) == Some(value),
            Selector::IsNot(key, value) => labels.get(key) != Some(value),
            Selector::Has(key) => labels.contains_key(key),
            Selector::HasNot(key) => !labels.contains_key(key),
        }
    }
}

/// As `kubectl -l` writes them, sets left out.
fn selectors(text: &str) -> Result<Vec<Selector>> {
    let mut selectors = Vec::new();
    for part in text.split(',').map(str::trim).filter(|_| !text.trim().is_empty()) {
        let (key, selector): (&str, &dyn Fn(String) -> Selector) =
            if let Some((key, value)) = part.split_once("!=") {
                (key, &|key| Selector::IsNot(key, value.trim().to_owned()))
            } else if let Some((key, value)) = part.split_once("==").or(part.split_once('=')) {
                (key, &|key| Selector::Is(key, value.trim().to_owned()))
            } else if let Some(key) = part.strip_prefix('!') {
                (key, &Selector::HasNot)
            } else {
                (part, &Selector::Has)
            };
        let key = key.trim();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        if key.is_empty() || !key.bytes().all(allowed) {
            let message = format!("{part:?} is no requirement on a label");
            return Err(Fault::new("invalid/labels", message)
                .hint("key=value, key!=value, key or !key, separated by commas")
                .field("labels"));
        }
        selectors.push(selector(key.to_owned()));
    }
    Ok(selectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01HF7YAT00000000000000000A";

    fn run() -> Run {
        Run {
            id: ID.to_owned(),
            namespace: "team".to_owned(),
            kind: "PipelineRun".to_owned(),
            name: "build-x7".to_owned(),
            pipeline: "build".to_owned(),
            status: "running".to_owned(),
            labels: [("tier".to_owned(), "web".to_owned())].into(),
            ..Run::default()
        }
    }

    fn query(change: impl FnOnce(&mut ListRunsRequest)) -> Result<Query> {
        let mut request = ListRunsRequest::default();
        change(&mut request);
        Query::new(request)
    }

    #[test]
    fn each_filter_alone() {
        let admits = |change: &dyn Fn(&mut ListRunsRequest)| query(change).unwrap().admits(&run());
        assert!(admits(&|_| ()));
        assert!(admits(&|it| it.namespace = "team".into()));
        assert!(!admits(&|it| it.namespace = "other".into()));
        assert!(admits(&|it| it.status = vec!["failed".into(), "running".into()]));
        assert!(!admits(&|it| it.status = vec!["failed".into()]));
        assert!(!admits(&|it| it.kind = "TaskRun".into()));
        assert!(admits(&|it| it.name = "d-x".into()));
        assert!(!admits(&|it| it.pipeline = "deploy".into()));
        assert!(admits(&|it| it.id_prefix = "01hf7".into()));
        assert!(!admits(&|it| it.id_prefix = "01J".into()));
        assert!(admits(&|it| it.labels = "tier=web, !old ,tier".into()));
        assert!(!admits(&|it| it.labels = "tier!=web".into()));
        assert!(!admits(&|it| it.labels = "old".into()));
        // The id says 2023-11-14T22:13:20Z.
        assert!(admits(&|it| it.since = "2023-11-14T22:13:20Z".into()));
        assert!(!admits(&|it| it.since = "2023-11-14T22:13:21Z".into()));
        assert!(!admits(&|it| it.until = "2023-11-14T22:13:20Z".into()));
    }

    #[test]
    fn a_token_leads_on_with_the_same_filters_only() {
        let first = query(|it| it.namespace = "team".into()).unwrap();
        let token = first.token(ID.parse().unwrap());
        let next = query(|it| {
            it.namespace = "team".into();
            it.page_size = 7;
            it.page_token = token.clone();
        });
        assert_eq!(next.unwrap().before, Some(ID.parse().unwrap()));
        for (namespace, token) in [("other", &*token), ("team", "abc"), ("team", "%%"), ("", "AA")]
        {
            let fault = query(|it| {
                it.namespace = namespace.into();
                it.page_token = token.into();
            });
            assert_eq!(fault.unwrap_err().code(), "invalid/page-token", "{token}");
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let code = |change: &dyn Fn(&mut ListRunsRequest)| query(change).unwrap_err().0.code;
        assert_eq!(code(&|it| it.status = vec!["done".into()]), "invalid/status");
        assert_eq!(code(&|it| it.kind = "Pod".into()), "invalid/kind");
        assert_eq!(code(&|it| it.page_size = 1001), "invalid/page-size");
        assert_eq!(code(&|it| it.labels = "a b=c".into()), "invalid/labels");
        assert_eq!(code(&|it| it.labels = ",".into()), "invalid/labels");
        assert_eq!(code(&|it| it.until = "now".into()), "invalid/time");
    }
}
