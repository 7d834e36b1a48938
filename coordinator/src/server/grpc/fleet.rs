//! `tenon.control.v1.Fleet`.

use tenon_proto::control::v1::fleet_server::Fleet;
use tenon_proto::control::v1::{
    Agent, CordonAgentRequest, DrainAgentRequest, GetAgentRequest, ListAgentsRequest,
    ListAgentsResponse, RemoveAgentRequest, RemoveAgentResponse, UncordonAgentRequest,
};
use tonic::{Request, Response, Status};

use super::{Service, asked};

/// Each method asks the API in time, and is counted.
macro_rules! fleet {
    ($($method:ident: $request:ty => $response:ty,)*) => {
        #[tonic::async_trait]
        impl Fleet for Service {
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

fleet! {
    list_agents: ListAgentsRequest => ListAgentsResponse,
    get_agent: GetAgentRequest => Agent,
    cordon_agent: CordonAgentRequest => Agent,
    uncordon_agent: UncordonAgentRequest => Agent,
    drain_agent: DrainAgentRequest => Agent,
    remove_agent: RemoveAgentRequest => RemoveAgentResponse,
}
