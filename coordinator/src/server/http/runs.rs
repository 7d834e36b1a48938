//! `/v1/runs`.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tenon_proto::control::v1::{
    CancelRunRequest, ExplainRunRequest, GetRunObjectsRequest, GetRunRequest, ListRunsRequest,
    ParamValue, ReleaseRunRequest, RerunRunRequest, SubmitRequest, WorkspaceSource,
};

use super::body::{self, Kind};
use super::{Call, content, json};
use crate::server::fault::{Fault, Result};

/// A manifest in JSON is longer than it is: quotes and line ends are escaped.
const ESCAPED: usize = 2;

impl Call {
    fn id(&mut self) -> String {
        self.path.remove("id").unwrap_or_default()
    }

    /// The header `Idempotency-Key`, which must not say something else than the body.
    fn key(&self, in_body: Option<String>) -> Result<Option<String>> {
        let Some(header) = self.parts.headers.get("idempotency-key") else { return Ok(in_body) };
        let header = header.to_str().unwrap_or_default().to_owned();
        match in_body {
            Some(body) if body != header => {
                let message = "the header Idempotency-Key and the body have different keys";
                Err(Fault::new("invalid/idempotency-key", message).field("idempotencyKey"))
            }
            _ => Ok(Some(header)),
        }
    }

    /// A small JSON body in which the run's id need not be, because the path has it.
    async fn json_of_run<T: serde::de::DeserializeOwned + Default>(
        &mut self,
        id_of: fn(&mut T) -> &mut String,
    ) -> Result<T> {
        let id = self.id();
        let mut request = self.json::<T>().await?;
        let in_body = id_of(&mut request);
        if !in_body.is_empty() && *in_body != id {
            let message = "the path and the body name different runs";
            return Err(Fault::new("invalid/run-id", message).field("id"));
        }
        *in_body = id;
        Ok(request)
    }
}

pub async fn submit(mut call: Call) -> Result<Response> {
    let kind = body::kind(&call.parts.headers)?;
    let limit = ESCAPED * call.api.limits.manifest_bytes;
    let body = body::read(std::mem::take(&mut call.body), limit, call.asked.deadline).await?;
    let mut request = match kind {
        Kind::Json => {
            if !call.parts.uri.query().unwrap_or_default().is_empty() {
                let message = "a JSON body says everything: there are no parameters beside it";
                return Err(Fault::new("invalid/parameter", message));
            }
            body::json::<SubmitRequest>(&body)?
        }
        Kind::Yaml => {
            let manifest = String::from_utf8(body.into()).map_err(|error| {
                let valid = error.utf8_error().valid_up_to();
                let message = format!("the manifest is no UTF-8 text from byte {valid} on");
                Fault::new("invalid/manifest", message)
            })?;
            of_query(&mut call, manifest)?
        }
    };
    request.idempotency_key = call.key(request.idempotency_key)?;
    if request.traceparent.is_none() {
        let header = call.parts.headers.get("traceparent");
        request.traceparent = header.and_then(|text| text.to_str().ok()).map(str::to_owned);
    }
    let answer = call.api.submit(request, call.asked).await?;
    let status = if answer.replayed { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, json(&answer)).into_response())
}

fn of_query(call: &mut Call, manifest: String) -> Result<SubmitRequest> {
    let query = &mut call.query;
    let param = |(name, value)| ParamValue { name, value };
    let workspace = |(name, source)| WorkspaceSource { name, source };
    Ok(SubmitRequest {
        manifest,
        run: query.number("run")?,
        pipeline: query.optional("pipeline")?,
        task: query.optional("task")?,
        params: query.pairs("param")?.into_iter().map(param).collect(),
        workspaces: query.pairs("workspace")?.into_iter().map(workspace).collect(),
        namespace: query.text("namespace")?,
        timeout: query.optional("timeout")?,
        parallel: query.number("parallel")?,
        feature_flags: query.pairs("featureFlag")?.into_iter().collect(),
        idempotency_key: None,
        files: Vec::new(),
        traceparent: None,
    })
}

pub async fn list(mut call: Call) -> Result<Response> {
    let query = &mut call.query;
    let request = ListRunsRequest {
        namespace: query.text("namespace")?,
        status: query.list("status"),
        kind: query.text("kind")?,
        name: query.text("name")?,
        pipeline: query.text("pipeline")?,
        labels: query.text("labels")?,
        since: query.text("since")?,
        until: query.text("until")?,
        id_prefix: query.text("idPrefix")?,
        page_size: query.number("pageSize")?.unwrap_or_default(),
        page_token: query.text("pageToken")?,
    };
    Ok(json(&call.api.list_runs(request, call.asked).await?))
}

pub async fn get(mut call: Call) -> Result<Response> {
    let request = GetRunRequest { id: call.id() };
    Ok(json(&call.api.get_run(request, call.asked).await?))
}

pub async fn objects(mut call: Call) -> Result<Response> {
    let request = GetRunObjectsRequest { id: call.id() };
    let objects = call.api.get_run_objects(request, call.asked).await?;
    Ok(content("application/yaml", objects.yaml))
}

pub async fn explain(mut call: Call) -> Result<Response> {
    let request = ExplainRunRequest { id: call.id() };
    Ok(json(&call.api.explain_run(request, call.asked).await?))
}

pub async fn cancel(mut call: Call) -> Result<Response> {
    let request = call.json_of_run::<CancelRunRequest>(|it| &mut it.id).await?;
    Ok(json(&call.api.cancel_run(request, call.asked).await?))
}

pub async fn rerun(mut call: Call) -> Result<Response> {
    let mut request = call.json_of_run::<RerunRunRequest>(|it| &mut it.id).await?;
    request.idempotency_key = call.key(request.idempotency_key)?;
    let answer = call.api.rerun_run(request, call.asked).await?;
    let status = if answer.replayed { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, json(&answer)).into_response())
}

pub async fn release(mut call: Call) -> Result<Response> {
    let request = call.json_of_run::<ReleaseRunRequest>(|it| &mut it.id).await?;
    Ok(json(&call.api.release_run(request, call.asked).await?))
}
