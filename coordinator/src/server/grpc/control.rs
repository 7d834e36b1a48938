//! `tenon.control.v1.Control`.

use tenon_proto::control::v1::control_server::Control;
use tenon_proto::control::v1::{
    CancelRunRequest, ExplainRunRequest, ExplainRunResponse, GetRunObjectsRequest, GetRunRequest,
    ListRunsRequest, ListRunsResponse, ReleaseRunRequest, RerunRunRequest, RerunRunResponse, Run,
    RunObjects, SubmitRequest, SubmitResponse,
};
use tonic::{Request, Response, Status};

use super::{Service, asked};

/// Each method asks the API in time, and is counted.
macro_rules! control {
    ($($method:ident: $request:ty => $response:ty,)*) => {
        #[tonic::async_trait]
        impl Control for Service {
            $(async fn $method(
                &self,
                request: Request<$request>,
            ) -> Result<Response<$response>, Status> {
                let answer = async {
                    let asked = asked(&request)?;
                    self.api.$method(request.into_inner(), asked).await
                };
                Ok(Response::new(self.api.counted("grpc", stringify!($method), answer).await?))
            })*
        }
    };
}

control! {
    submit: SubmitRequest => SubmitResponse,
    get_run: GetRunRequest => Run,
    list_runs: ListRunsRequest => ListRunsResponse,
    cancel_run: CancelRunRequest => Run,
    rerun_run: RerunRunRequest => RerunRunResponse,
    release_run: ReleaseRunRequest => Run,
    explain_run: ExplainRunRequest => ExplainRunResponse,
    get_run_objects: GetRunObjectsRequest => RunObjects,
}
