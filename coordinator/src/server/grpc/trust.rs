//! `tenon.control.v1.Trust`.

use tenon_proto::control::v1::trust_server::Trust;
use tenon_proto::control::v1::{
    CreateJoinTokenRequest, CreateJoinTokenResponse, CreateTokenRequest, CreateTokenResponse,
    JoinRequest, JoinResponse, ListCertificatesRequest, ListCertificatesResponse,
    ListTokensRequest, ListTokensResponse, RenewRequest, RenewResponse, RevokeCertificateRequest,
    RevokeCertificateResponse, RevokeTokenRequest, RevokeTokenResponse, WhoAmIRequest,
    WhoAmIResponse,
};
use tonic::{Request, Response, Status};

use super::{Service, asked, caller};
use crate::server::access::Caller;

/// Methods that look at what this node knows, and methods that change something: each of these asks the
/// API in time, and is counted.
macro_rules! trust {
    (
        looks { $($look:ident: $seen:ty => $shown:ty = $how:expr;)* }
        changes { $($method:ident: $request:ty => $response:ty;)* }
    ) => {
        #[tonic::async_trait]
        impl Trust for Service {
            $(async fn $look(&self, request: Request<$seen>) -> Result<Response<$shown>, Status> {
                let how: fn(&Service, &Caller) -> $shown = $how;
                Ok(Response::new(how(self, &caller(&request))))
            })*

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

trust! {
    looks {
        who_am_i: WhoAmIRequest => WhoAmIResponse = |it, caller| it.api.who_am_i(caller);
        list_tokens: ListTokensRequest => ListTokensResponse = |it, _| it.api.list_tokens();
        list_certificates: ListCertificatesRequest => ListCertificatesResponse
            = |it, _| it.api.list_certificates();
    }
    changes {
        join: JoinRequest => JoinResponse;
        renew: RenewRequest => RenewResponse;
        create_token: CreateTokenRequest => CreateTokenResponse;
        revoke_token: RevokeTokenRequest => RevokeTokenResponse;
        create_join_token: CreateJoinTokenRequest => CreateJoinTokenResponse;
        revoke_certificate: RevokeCertificateRequest => RevokeCertificateResponse;
    }
}
