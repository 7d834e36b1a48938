//! Traces: one for each run, with a span for everything that took time, whoever leads meanwhile.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tenon_tests::fleet::Fleet;
use tenon_tests::{Tenon, wait_until};
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

const PIPELINE: &str = "
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: traced}
spec:
  pipelineSpec:
    tasks:
    - name: build
      retries: 1
      taskSpec:
        steps:
        - name: compile
          image: busybox
          script: |
            echo parent=$TRACEPARENT
            test $(context.task.retry-count) = 1
";

/// What OTLP clients sent, by span id, and by which ways.
#[derive(Clone, Default)]
struct Received {
    spans: Arc<Mutex<BTreeMap<String, Span>>>,
    ways: Arc<Mutex<BTreeSet<&'static str>>>,
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take("gRPC", request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Received {
    fn take(&self, way: &'static str, request: ExportTraceServiceRequest) {
        self.ways.lock().unwrap().insert(way);
        let mut spans = self.spans.lock().unwrap();
        let resources = request.resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        for span in scopes.flat_map(|scope| scope.spans) {
            spans.insert(hex(&span.span_id), span);
        }
    }

    /// Listens on a free port of this machine, for OTLP over gRPC, and over HTTP below `/otlp`.
    fn listen() -> (Received, String, tokio::runtime::Runtime) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Received::default();
        let service = TraceServiceServer::new(received.clone());
        let service = service.accept_compressed(CompressionEncoding::Gzip);
        let over_http = |State(received): State<Received>, body: Bytes| async move {
            received.take("HTTP", ExportTraceServiceRequest::decode(body).unwrap());
        };
        let router = Routes::new(service).into_axum_router();
        let http = axum::Router::new().route("/otlp/v1/traces", post(over_http));
        let router = router.merge(http.with_state(received.clone()));
        runtime.spawn(axum::serve(listener, router).into_future());
        (received, url, runtime)
    }

    /// `parent name` of each span, the parent by its name; the uppermost spans' parents by their ids.
    fn tree(&self) -> Vec<String> {
        let spans = self.spans.lock().unwrap();
        let mut tree: Vec<String> = spans
            .values()
            .map(|span| {
                let parent = hex(&span.parent_span_id);
                let above = spans.get(&parent).map_or(parent, |above| above.name.clone());
                format!("{above} > {}", span.name)
            })
            .collect();
        tree.sort();
        tree
    }

    fn traces(&self) -> Vec<String> {
        let mut traces: Vec<String> =
            self.spans.lock().unwrap().values().map(|span| hex(&span.trace_id)).collect();
        traces.dedup();
        traces
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const TREE: [&str; 6] = [
    "attempt 1 > compile",
    "attempt 2 > compile",
    "b7ad6b7169203331 > traced",
    "build > attempt 1",
    "build > attempt 2",
    "traced > build",
];

#[test]
fn a_run_of_this_machine_is_one_trace_below_whoever_started_it() {
    let (received, url, _runtime) = Received::listen();
    let tenon = Tenon::host()
        .with_env("OTEL_EXPORTER_OTLP_ENDPOINT", &url)
        .with_env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        .with_env("TRACEPARENT", &format!("00-{TRACE}-{PARENT}-01"));
    let said = tenon.run(PIPELINE, &["-o", "json"]).expect(0);
    assert_eq!(received.tree(), TREE, "{}", said.stderr);
    assert_eq!(received.traces(), [TRACE]);

    // A step knows the span that it is in.
    let events = said.events();
    let logs = events.iter().filter(|event| event["kind"] == "step-log");
    let spans = received.spans.lock().unwrap();
    for log in logs {
        let id = log["spanId"].as_str().unwrap();
        assert_eq!(log["line"], format!("parent=00-{TRACE}-{id}-01"));
        assert!(spans.contains_key(id), "{log}");
    }
}

#[test]
fn a_trace_goes_over_http_where_the_environment_says_so() {
    let (received, url, _runtime) = Received::listen();
    let tenon = Tenon::host()
        .with_env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .with_env("TRACEPARENT", &format!("00-{TRACE}-{PARENT}-01"));
    let said = tenon.run(PIPELINE, &["--otlp-endpoint", &format!("{url}/otlp")]).expect(0);
    assert_eq!(received.tree(), TREE, "{}", said.stderr);
    assert_eq!(*received.ways.lock().unwrap(), BTreeSet::from(["HTTP"]));
}

#[test]
fn a_backend_that_is_away_is_told_and_changes_nothing() {
    let tenon = Tenon::host();
    let said = tenon.run(PIPELINE, &["-o", "json", "--otlp-endpoint", "http://127.0.0.1:1"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("the trace of run"), "{}", said.stderr);
}

#[test]
fn whoever_leads_goes_on_with_the_trace() {
    let (received, url, _runtime) = Received::listen();
    let mut fleet =
        Fleet::start_on(Tenon::host().with_env("OTEL_EXPORTER_OTLP_ENDPOINT", &url), 3, &[]);
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    let yaml = PIPELINE.replace("echo parent", "echo begins; sleep 3; echo parent");
    let tenon = std::mem::replace(&mut fleet.tenon, Tenon::host());
    fleet.tenon = tenon.with_env("TRACEPARENT", &traceparent);
    let (mut run, out) = fleet.start_run(&yaml, &[]);
    wait_until("the step to print", || {
        std::fs::read_to_string(&out).is_ok_and(|text| text.contains("begins"))
    });
    let leader = fleet.leader();
    fleet.coordinators[leader].kill();
    assert!(run.wait().unwrap().success());
    wait_until("all spans", || received.tree().len() == TREE.len());
    assert_eq!(received.tree(), TREE);
    assert_eq!(received.traces(), [TRACE]);
}

#[test]
#[ignore = "needs a backend: `cargo xtask traces-backend` starts one"]
fn a_real_backend_has_the_whole_trace() {
    let variable = |name| std::env::var(name).expect("`cargo xtask traces-backend` sets it");
    let phoenix = variable("TENON_PHOENIX");
    look_into(&phoenix, &Tenon::host(), &variable("TENON_OTLP"));
    let over_http = Tenon::host().with_env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    look_into(&phoenix, &over_http, &format!("http://{phoenix}"));
}

/// Runs the pipeline, has its trace sent, and asks the backend for it.
fn look_into(phoenix: &str, tenon: &Tenon, otlp: &str) {
    let said = tenon.run(PIPELINE, &["-o", "json", "--otlp-endpoint", otlp]).expect(0);
    let events = said.events();
    let trace = events[0]["traceId"].as_str().unwrap().to_owned();
    let mut tree = Vec::new();
    wait_until("the trace in the backend", || {
        let path = format!("/v1/projects/default/spans?limit=1000&trace_id={trace}");
        let answer = tenon_tests::http_get(phoenix, &path).unwrap_or_default();
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
        let spans = answer["data"].as_array().cloned().unwrap_or_default();
        let of_it = spans.iter().filter(|span| span["context"]["trace_id"] == *trace);
        let of_it: Vec<&serde_json::Value> = of_it.collect();
        let name_of = |id: &serde_json::Value| {
            let above = of_it.iter().find(|span| span["context"]["span_id"] == *id);
            above.map_or("nothing", |above| above["name"].as_str().unwrap()).to_owned()
        };
        tree = of_it
            .iter()
            .map(|span| {
                let status = span["status_code"].as_str().unwrap();
                format!(
                    "{} > {} {status}",
                    name_of(&span["parent_id"]),
                    span["name"].as_str().unwrap()
                )
            })
            .collect();
        tree.sort();
        tree.len() == 6
    });
    assert_eq!(
        tree,
        [
            "attempt 1 > compile ERROR",
            "attempt 2 > compile OK",
            "build > attempt 1 ERROR",
            "build > attempt 2 OK",
            "nothing > traced OK",
            "traced > build OK",
        ]
    );
    // Events and spans are joined by these.
    let path = format!("/v1/projects/default/spans?limit=1000&trace_id={trace}");
    let spans = tenon_tests::http_get(phoenix, &path).unwrap();
    for event in events.iter().filter(|event| event["kind"] == "step-end") {
        assert!(spans.contains(event["spanId"].as_str().unwrap()), "{event}");
    }
}
