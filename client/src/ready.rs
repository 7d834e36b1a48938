//! Whether one node can serve: what load balancers ask, for those who have no HTTP client at hand.

use tonic::codegen::{Service as _, http};
use tower::ServiceExt as _;

use crate::access::Access;
use crate::connect::connect;
use crate::error::{Error, Result};

/// Asks `/readyz` of that node, once: whether it can serve, and in words.
///
/// # Errors
/// When it does not answer.
pub async fn ready(url: &str, access: &Access) -> Result<(bool, String)> {
    let mut channel = connect(url, access).await?;
    let asked = http::Request::get("/readyz").body(tonic::body::Body::empty());
    let request = asked.map_err(|_| Error::Access("this cannot be asked"))?;
    let answer = async { channel.ready().await?.call(request).await };
    let answer = answer.await.map_err(|error| Error::unreachable(url, &error))?;
    Ok(match answer.status() {
        http::StatusCode::OK => (true, "it can serve".to_owned()),
        status => (false, format!("it cannot serve yet ({status})")),
    })
}
