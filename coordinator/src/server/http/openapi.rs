//! The OpenAPI document, made of the table of routes and the types of the messages. It is committed as
//! docs/openapi.json; a test finds when that is not what the code says.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use tenon_proto::control::v1::Error;

use super::table::{Answer, ROUTES, Route};

/// The document.
pub fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let fault = generator.subschema_for::<Error>();
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let operation = operation(route, &mut generator);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_ascii_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tenon",
            "version": "v1",
            "description": "Runs Tekton pipelines on your own machines. Any node of a cluster \
                answers; what changes something is passed on to the leader. Every request may have \
                the header Request-Timeout (such as 2s; 10 s if not given, 5 minutes at most), and \
                is answered by then. Reads see every write that was acknowledged before, unless \
                stale=true allows an answer without a quorum.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "responses": {
                "fault": {
                    "description": "The request was not done; the code says why.",
                    "content": {"application/json": {"schema": fault}},
                },
            },
        },
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut parameters: Vec<Value> = Vec::new();
    for name in route.path.split('/').filter_map(|part| part.strip_prefix('{')) {
        parameters.push(json!({
            "name": name.trim_end_matches('}'), "in": "path", "required": true,
            "schema": {"type": "string"},
        }));
    }
    for it in route.parameters {
        let one = json!({"type": it.kind});
        let schema = if it.many { json!({"type": "array", "items": one}) } else { one };
        parameters.push(json!({
            "name": it.name, "in": "query", "description": it.about, "schema": schema,
        }));
    }
    let reads = ["/v1/runs", "/v1/events"].iter().any(|path| route.path.starts_with(path));
    if reads && route.method == "GET" {
        parameters.push(json!({
            "name": "stale", "in": "query", "schema": {"type": "boolean"},
            "description": "The answer need not know of writes that other nodes acknowledged",
        }));
    }
    if ["submitRun", "rerunRun"].contains(&route.id) {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header",
            "description": "The same key with the same request gives the same run",
            "schema": {"type": "string", "maxLength": 128},
        }));
    }
    let content = match &route.answer {
        Answer::Json(schema) => json!({"application/json": {"schema": schema(generator)}}),
        Answer::Other(kinds) => {
            kinds.iter().map(|kind| ((*kind).to_owned(), json!({}))).collect::<Map<_, _>>().into()
        }
    };
    let mut responses = Map::new();
    for status in route.statuses {
        let mut response = json!({"description": describe(*status)});
        if *status != 204 {
            response["content"] = content.clone();
        }
        responses.insert(status.to_string(), response);
    }
    responses.insert("default".to_owned(), json!({"$ref": "#/components/responses/fault"}));
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.about,
        "responses": responses,
    });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(schema) = route.body {
        let mut content = json!({"application/json": {"schema": schema(generator)}});
        if route.takes_yaml {
            content["application/yaml"] =
                json!({"schema": {"type": "string", "description": "The manifest"}});
        }
        operation["requestBody"] = json!({"content": content});
    }
    operation
}

fn describe(status: u16) -> &'static str {
    match status {
        200 => "Done.",
        201 => "A run was started.",
        _ => "Nothing will follow.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set to write the document instead of comparing it.
    const REWRITE: &str = "TENON_REWRITE";

    #[test]
    fn the_committed_document_is_what_the_code_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
        let now = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        if std::env::var_os(REWRITE).is_some() {
            std::fs::write(path, &now).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == now,
            "docs/openapi.json is out of date: `just fix` (or {REWRITE}=1 cargo test -p \
             tenon-coordinator --lib openapi) writes it"
        );
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_id_is_its_own() {
        let document = document();
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        let mut ids: Vec<_> = ROUTES.iter().map(|route| route.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ROUTES.len());
    }
}
