//! The routes of HTTP: what the router does and what the OpenAPI document says.

use futures_util::future::BoxFuture;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use tenon_proto::control::v1::{
    AddMemberRequest, Agent, AuditResponse, CancelRunRequest, ClusterStatus,
    CreateJoinTokenRequest, CreateJoinTokenResponse, CreateTokenRequest, CreateTokenResponse,
    ExplainRunResponse, InitRequest, ListAgentsResponse, ListCertificatesResponse,
    ListRunsResponse, ListTokensResponse, ReleaseRunRequest, RemoveAgentResponse, RerunRunRequest,
    RerunRunResponse, RevokeCertificateResponse, RevokeTokenResponse, Run, SubmitRequest,
    SubmitResponse, TransferRequest, WhoAmIResponse,
};

use super::queries::{AUDIT, DRAIN, EVENTS, EVENTS_OF_RUN, LIST, Parameter, REMOVE_MEMBER, SUBMIT};
use super::{Call, Handler, agents, cluster, events, probes, runs, trust};
use crate::server::fault::Result;

/// Makes the schema of a type.
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What comes back.
pub enum Answer {
    /// JSON of a type.
    Json(SchemaOf),
    /// Something else, by its media type.
    Other(&'static [&'static str]),
}

/// One operation.
pub struct Route {
    /// GET, POST or DELETE.
    pub method: &'static str,
    /// Where, with names in braces.
    pub path: &'static str,
    /// `operationId`.
    pub id: &'static str,
    /// The gRPC method that it stands for: whoever may call that may call this.
    pub rights: &'static str,
    /// One line.
    pub about: &'static str,
    /// What the query may have.
    pub parameters: &'static [Parameter],
    /// The JSON body.
    pub body: Option<SchemaOf>,
    /// The body may be YAML as well.
    pub takes_yaml: bool,
    /// Successful statuses.
    pub statuses: &'static [u16],
    /// What comes back.
    pub answer: Answer,
    /// What does it.
    pub handler: Handler,
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// An async function as a [`Handler`].
macro_rules! handler {
    ($function:path) => {{
        fn handle(call: Call) -> BoxFuture<'static, Result<axum::response::Response>> {
            Box::pin($function(call))
        }
        handle
    }};
}

const STREAM: Answer = Answer::Other(&["application/x-ndjson", "text/event-stream"]);

const GET: Route = Route {
    method: "GET",
    path: "",
    id: "",
    rights: "",
    about: "",
    parameters: &[],
    body: None,
    takes_yaml: false,
    statuses: &[200],
    answer: Answer::Other(&["text/plain"]),
    handler: handler!(probes::healthz),
};

const POST: Route = Route { method: "POST", ..GET };

/// Every operation.
pub const ROUTES: &[Route] = &[
    Route {
        path: "/v1/runs",
        id: "submitRun",
        rights: "tenon.control.v1.Control/Submit",
        about: "Accepts a run; when this answers, the run is on the disks of a majority",
        parameters: SUBMIT,
        body: Some(schema::<SubmitRequest>),
        takes_yaml: true,
        statuses: &[201, 200],
        answer: Answer::Json(schema::<SubmitResponse>),
        handler: handler!(runs::submit),
        ..POST
    },
    Route {
        path: "/v1/runs",
        id: "listRuns",
        rights: "tenon.control.v1.Control/ListRuns",
        about: "Lists runs, newest first",
        parameters: LIST,
        answer: Answer::Json(schema::<ListRunsResponse>),
        handler: handler!(runs::list),
        ..GET
    },
    Route {
        path: "/v1/runs/{id}",
        id: "getRun",
        rights: "tenon.control.v1.Control/GetRun",
        about: "One run",
        answer: Answer::Json(schema::<Run>),
        handler: handler!(runs::get),
        ..GET
    },
    Route {
        path: "/v1/runs/{id}/objects",
        id: "getRunObjects",
        rights: "tenon.control.v1.Control/GetRunObjects",
        about: "The run object and its children, as Kubernetes would show them",
        answer: Answer::Other(&["application/yaml"]),
        handler: handler!(runs::objects),
        ..GET
    },
    Route {
        path: "/v1/runs/{id}/explain",
        id: "explainRun",
        rights: "tenon.control.v1.Control/ExplainRun",
        about: "What every task of a run does or waits for",
        answer: Answer::Json(schema::<ExplainRunResponse>),
        handler: handler!(runs::explain),
        ..GET
    },
    Route {
        path: "/v1/runs/{id}/cancel",
        id: "cancelRun",
        rights: "tenon.control.v1.Control/CancelRun",
        about: "Ends a run early",
        body: Some(schema::<CancelRunRequest>),
        answer: Answer::Json(schema::<Run>),
        handler: handler!(runs::cancel),
        ..POST
    },
    Route {
        path: "/v1/runs/{id}/rerun",
        id: "rerunRun",
        rights: "tenon.control.v1.Control/RerunRun",
        about: "Runs the same again, as a new run",
        body: Some(schema::<RerunRunRequest>),
        statuses: &[201, 200],
        answer: Answer::Json(schema::<RerunRunResponse>),
        handler: handler!(runs::rerun),
        ..POST
    },
    Route {
        path: "/v1/runs/{id}/release",
        id: "releaseRun",
        rights: "tenon.control.v1.Control/ReleaseRun",
        about: "Starts a run that was submitted as pending",
        body: Some(schema::<ReleaseRunRequest>),
        answer: Answer::Json(schema::<Run>),
        handler: handler!(runs::release),
        ..POST
    },
    Route {
        path: "/v1/runs/{id}/events",
        id: "runEvents",
        rights: "tenon.control.v1.Events/Subscribe",
        about: "Events of a run; the stream ends after run-end",
        parameters: EVENTS_OF_RUN,
        statuses: &[200, 204],
        answer: STREAM,
        handler: handler!(events::of_run),
        ..GET
    },
    Route {
        path: "/v1/events",
        id: "events",
        rights: "tenon.control.v1.Events/Subscribe",
        about: "Events of all runs in the order of seq, from any retained one",
        parameters: EVENTS,
        answer: STREAM,
        handler: handler!(events::all),
        ..GET
    },
    Route {
        path: "/v1/agents",
        id: "listAgents",
        rights: "tenon.control.v1.Fleet/ListAgents",
        about: "All agents, by name",
        answer: Answer::Json(schema::<ListAgentsResponse>),
        handler: handler!(agents::list),
        ..GET
    },
    Route {
        path: "/v1/agents/{name}",
        id: "getAgent",
        rights: "tenon.control.v1.Fleet/GetAgent",
        about: "One agent, with what it runs",
        answer: Answer::Json(schema::<Agent>),
        handler: handler!(agents::get),
        ..GET
    },
    Route {
        path: "/v1/agents/{name}/cordon",
        id: "cordonAgent",
        rights: "tenon.control.v1.Fleet/CordonAgent",
        about: "Gives an agent no new work; what it runs goes on",
        answer: Answer::Json(schema::<Agent>),
        handler: handler!(agents::cordon),
        ..POST
    },
    Route {
        path: "/v1/agents/{name}/uncordon",
        id: "uncordonAgent",
        rights: "tenon.control.v1.Fleet/UncordonAgent",
        about: "Gives an agent work again; ends a drain as well",
        answer: Answer::Json(schema::<Agent>),
        handler: handler!(agents::uncordon),
        ..POST
    },
    Route {
        path: "/v1/agents/{name}/drain",
        id: "drainAgent",
        rights: "tenon.control.v1.Fleet/DrainAgent",
        about: "Gives an agent no new work; what it still runs at the deadline runs again elsewhere",
        parameters: DRAIN,
        answer: Answer::Json(schema::<Agent>),
        handler: handler!(agents::drain),
        ..POST
    },
    Route {
        method: "DELETE",
        path: "/v1/agents/{name}",
        id: "removeAgent",
        rights: "tenon.control.v1.Fleet/RemoveAgent",
        about: "Removes an agent from the fleet; refused while attempts are placed on it",
        answer: Answer::Json(schema::<RemoveAgentResponse>),
        handler: handler!(agents::remove),
        ..GET
    },
    Route {
        path: "/v1/cluster",
        id: "clusterStatus",
        rights: "tenon.control.v1.Cluster/Status",
        about: "The cluster as this node sees it; answered without a leader too",
        answer: Answer::Json(schema::<ClusterStatus>),
        handler: handler!(cluster::status),
        ..GET
    },
    Route {
        path: "/v1/cluster/init",
        id: "clusterInit",
        rights: "tenon.control.v1.Cluster/Init",
        about: "Makes a cluster of this node, and then of the others that are named",
        body: Some(schema::<InitRequest>),
        answer: Answer::Json(schema::<ClusterStatus>),
        handler: handler!(cluster::init),
        ..POST
    },
    Route {
        path: "/v1/cluster/members",
        id: "clusterAdd",
        rights: "tenon.control.v1.Cluster/Add",
        about: "Makes an empty node a member",
        body: Some(schema::<AddMemberRequest>),
        answer: Answer::Json(schema::<ClusterStatus>),
        handler: handler!(cluster::add),
        ..POST
    },
    Route {
        method: "DELETE",
        path: "/v1/cluster/members/{member}",
        id: "clusterRemove",
        rights: "tenon.control.v1.Cluster/Remove",
        about: "Removes a member, by its id or name",
        parameters: REMOVE_MEMBER,
        answer: Answer::Json(schema::<ClusterStatus>),
        handler: handler!(cluster::remove),
        ..GET
    },
    Route {
        path: "/v1/cluster/transfer",
        id: "clusterTransfer",
        rights: "tenon.control.v1.Cluster/Transfer",
        about: "Hands leadership over",
        body: Some(schema::<TransferRequest>),
        answer: Answer::Json(schema::<ClusterStatus>),
        handler: handler!(cluster::transfer),
        ..POST
    },
    Route {
        path: "/v1/cluster/backup",
        id: "clusterBackup",
        rights: "tenon.control.v1.Cluster/Backup",
        about: "A consistent copy of everything, for `tenon cluster restore`",
        answer: Answer::Other(&["application/octet-stream"]),
        handler: handler!(cluster::backup),
        ..GET
    },
    Route {
        path: "/v1/audit",
        id: "audit",
        rights: "tenon.control.v1.Cluster/Audit",
        about: "The newest entries of the audit log, of all nodes, in the order of time",
        parameters: AUDIT,
        answer: Answer::Json(schema::<AuditResponse>),
        handler: handler!(cluster::audit),
        ..GET
    },
    Route {
        path: "/v1/whoami",
        id: "whoAmI",
        rights: "tenon.control.v1.Trust/WhoAmI",
        about: "What the caller may do",
        answer: Answer::Json(schema::<WhoAmIResponse>),
        handler: handler!(trust::who_am_i),
        ..GET
    },
    Route {
        path: "/v1/tokens",
        id: "createToken",
        rights: "tenon.control.v1.Trust/CreateToken",
        about: "Makes an API token; its text is told only now",
        body: Some(schema::<CreateTokenRequest>),
        statuses: &[201],
        answer: Answer::Json(schema::<CreateTokenResponse>),
        handler: handler!(trust::create_token),
        ..POST
    },
    Route {
        path: "/v1/tokens",
        id: "listTokens",
        rights: "tenon.control.v1.Trust/ListTokens",
        about: "API tokens and join tokens, without their secrets",
        answer: Answer::Json(schema::<ListTokensResponse>),
        handler: handler!(trust::list_tokens),
        ..GET
    },
    Route {
        method: "DELETE",
        path: "/v1/tokens/{token}",
        id: "revokeToken",
        rights: "tenon.control.v1.Trust/RevokeToken",
        about: "Makes a token, of either kind, good no more, at once",
        answer: Answer::Json(schema::<RevokeTokenResponse>),
        handler: handler!(trust::revoke_token),
        ..GET
    },
    Route {
        path: "/v1/join-tokens",
        id: "createJoinToken",
        rights: "tenon.control.v1.Trust/CreateJoinToken",
        about: "Makes a token with which one machine may join; its text is told only now",
        body: Some(schema::<CreateJoinTokenRequest>),
        statuses: &[201],
        answer: Answer::Json(schema::<CreateJoinTokenResponse>),
        handler: handler!(trust::create_join_token),
        ..POST
    },
    Route {
        path: "/v1/certificates",
        id: "listCertificates",
        rights: "tenon.control.v1.Trust/ListCertificates",
        about: "The agents that have certificates",
        answer: Answer::Json(schema::<ListCertificatesResponse>),
        handler: handler!(trust::list_certificates),
        ..GET
    },
    Route {
        method: "DELETE",
        path: "/v1/certificates/{agent}",
        id: "revokeCertificate",
        rights: "tenon.control.v1.Trust/RevokeCertificate",
        about: "Shuts an agent out: its certificates are good no more, and its session ends",
        answer: Answer::Json(schema::<RevokeCertificateResponse>),
        handler: handler!(trust::revoke_certificate),
        ..GET
    },
    Route {
        path: "/healthz",
        id: "healthz",
        rights: "http/healthz",
        about: "Whether the process is alive",
        handler: handler!(probes::healthz),
        ..GET
    },
    Route {
        path: "/readyz",
        id: "readyz",
        rights: "http/readyz",
        about: "Whether the node can serve: a leader is known, and it has caught up",
        handler: handler!(probes::readyz),
        ..GET
    },
    Route {
        path: "/metrics",
        id: "metrics",
        rights: "http/metrics",
        about: "Figures for Prometheus",
        answer: Answer::Other(&["application/openmetrics-text"]),
        handler: handler!(probes::metrics),
        ..GET
    },
    Route {
        path: "/openapi.json",
        id: "openapi",
        rights: "http/openapi",
        about: "This document",
        answer: Answer::Other(&["application/json"]),
        handler: handler!(probes::openapi),
        ..GET
    },
];
