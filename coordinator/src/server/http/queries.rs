//! What the queries of the routes may have.

/// One parameter of a query.
pub struct Parameter {
    /// As it is written.
    pub name: &'static str,
    /// What it means.
    pub about: &'static str,
    /// JSON Schema's type.
    pub kind: &'static str,
    /// It may come several times.
    pub many: bool,
}

const fn text(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, about, kind: "string", many: false }
}

const fn texts(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, about, kind: "string", many: true }
}

const fn number(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, about, kind: "integer", many: false }
}

const fn flag(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, about, kind: "boolean", many: false }
}

/// Of the audit log.
pub const AUDIT: &[Parameter] = &[
    text("since", "Only entries at or after this time (RFC 3339)"),
    text("until", "Only entries before this time (RFC 3339)"),
    text("who", "Only those whose caller's name holds this"),
    text("what", "Only those whose method or object holds this"),
    flag("refused", "Only what was refused or failed"),
    number("limit", "At most so many, the newest: 1000 if not given, 10000 at most"),
    flag("local", "Only what the answering node has"),
];

/// Of a submission.
pub const SUBMIT: &[Parameter] = &[
    number("run", "Which run object of the manifest, counted from 0; with a YAML body only"),
    text("pipeline", "Run this Pipeline; with a YAML body only"),
    text("task", "Run this Task; with a YAML body only"),
    texts("param", "NAME=VALUE; with a YAML body only"),
    texts("workspace", "NAME=SOURCE; with a YAML body only"),
    text("namespace", "Namespace of objects that name none; with a YAML body only"),
    text("timeout", "How long the run may take; with a YAML body only"),
    number("parallel", "At most so many tasks at a time; with a YAML body only"),
    texts("featureFlag", "NAME=VALUE; with a YAML body only"),
];

/// Of the list of runs.
pub const LIST: &[Parameter] = &[
    text("namespace", "Only this namespace"),
    texts("status", "Only these statuses, also separated by commas"),
    text("kind", "PipelineRun or TaskRun"),
    text("name", "Only runs whose name holds this"),
    text("pipeline", "Only runs whose Pipeline's (Task's) name holds this"),
    text("labels", "key=value, key!=value, key or !key, separated by commas"),
    text("since", "Only runs accepted at or after this time (RFC 3339)"),
    text("until", "Only runs accepted before this time (RFC 3339)"),
    text("idPrefix", "Only runs whose id begins like this"),
    number("pageSize", "At most so many: 100 if not given, 1000 at most"),
    text("pageToken", "nextPageToken of the page before, with the same filters"),
];

/// Of the events of all runs.
pub const EVENTS: &[Parameter] = &[
    number("since", "Only events with a greater seq; the header Last-Event-ID goes before"),
    flag("follow", "Go on with what comes; so by default with Server-Sent Events"),
    text("format", "ndjson or sse; the header Accept says it too"),
    text("run", "Only this run"),
    text("namespace", "Only this namespace"),
    texts("kind", "Only these kinds, also separated by commas"),
    texts("task", "Only these tasks"),
    texts("step", "Only these steps or sidecars"),
];

/// Of the events of one run.
pub const EVENTS_OF_RUN: &[Parameter] = &[
    number("since", "Only events with a greater seq; the header Last-Event-ID goes before"),
    flag("follow", "Go on until run-end; so by default with Server-Sent Events"),
    text("format", "ndjson or sse; the header Accept says it too"),
    text("namespace", "Only this namespace"),
    texts("kind", "Only these kinds, also separated by commas"),
    texts("task", "Only these tasks"),
    texts("step", "Only these steps or sidecars"),
];

/// Of the draining of an agent.
pub const DRAIN: &[Parameter] = &[text(
    "deadline",
    "How long what it runs may still take, such as 10m; as long as it takes if not given",
)];

/// Of the removal of a member.
pub const REMOVE_MEMBER: &[Parameter] =
    &[flag("force", "Remove it although the rest would have no majority of nodes that answer")];
