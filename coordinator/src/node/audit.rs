//! What the other members have in their audit logs.

use std::time::Duration;

use futures_util::future::join_all;
use tenon_proto::control::v1::{AuditEntry, AuditRequest};
use tokio::time::{Instant, timeout_at};

use super::{Handle, transport};

/// How long a member may take; the others' entries are worth more than to wait for ever.
const PATIENCE: Duration = Duration::from_secs(5);

impl Handle {
    /// Asks every other member for its own entries: by its name, what it has, or why that is not
    /// known.
    pub(super) async fn audit_of_others(
        &self,
        request: AuditRequest,
        deadline: Instant,
    ) -> Vec<(String, Result<Vec<AuditEntry>, String>)> {
        let Some(member) = self.member() else { return Vec::new() };
        let own = self.identity();
        let until = deadline.min(Instant::now() + PATIENCE);
        let request = AuditRequest { local: true, ..request };
        let others = member.members.borrow().clone();
        let others = others.into_iter().filter(|(id, _)| *id != member.identity.node);
        let asked = others.map(|(id, other)| {
            let (request, own) = (request.clone(), own.clone());
            async move {
                let ask = async {
                    let mut client = transport::cluster(&other.url, id, own.as_ref()).await?;
                    let answer = client.audit(request).await;
                    answer
                        .map(|answer| answer.into_inner().entries)
                        .map_err(|status| status.message().to_owned())
                };
                let told = timeout_at(until, ask).await;
                (other.name, told.unwrap_or_else(|_| Err("it did not answer in time".to_owned())))
            }
        });
        join_all(asked).await
    }
}
