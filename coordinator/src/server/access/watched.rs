//! Answers that end when whoever gets them ceases to be trusted: sessions and streams would otherwise
//! go on for as long as the connection does.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::HeaderMap;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tenon_trust::Trust;
use tokio::sync::watch;
use tonic::Status;

use super::{Caller, now};
use crate::server::fault::Fault;

/// However far the clocks are apart, whether somebody is trusted is looked at so often.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// A body for somebody.
pub struct Watched {
    body: Body,
    ends: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    is_grpc: bool,
}

impl Watched {
    /// Ends when `caller` ceases to be trusted.
    pub fn new(
        body: Body,
        caller: Caller,
        trust: watch::Receiver<Arc<Trust>>,
        is_grpc: bool,
    ) -> Watched {
        // What is whole already needs no watching.
        let ends = (body.size_hint().exact().is_none() && !body.is_end_stream())
            .then(|| Box::pin(until_distrusted(caller, trust)) as Pin<Box<_>>);
        Watched { body, ends, is_grpc }
    }
}

async fn until_distrusted(caller: Caller, mut trust: watch::Receiver<Arc<Trust>>) {
    loop {
        let until = {
            let trust = trust.borrow_and_update();
            if !caller.stands(&trust, now()) {
                return;
            }
            caller.until(&trust)
        };
        let left = until.map_or(LOOK_AGAIN, |until| {
            Duration::from_millis(u64::try_from(until - now()).unwrap_or(0).saturating_add(1))
        });
        tokio::select! {
            changed = trust.changed() => if changed.is_err() {
                // The node ends, and says so itself.
                return std::future::pending().await;
            },
            () = tokio::time::sleep(left.min(LOOK_AGAIN)) => {}
        }
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(ends) = &mut self.ends
            && ends.as_mut().poll(context).is_ready()
        {
            self.ends = None;
            self.body = Body::empty();
            let fault = Fault::new(
                "unavailable/distrusted",
                "the token or certificate of this \
                stream is good no more",
            )
            .hint("ask again, with one that is");
            if !self.is_grpc {
                return Poll::Ready(Some(Err(axum::Error::new(fault))));
            }
            let mut trailers = HeaderMap::new();
            return Poll::Ready(match Status::from(fault).add_header(&mut trailers) {
                Ok(()) => Some(Ok(Frame::trailers(trailers))),
                Err(status) => Some(Err(axum::Error::new(status))),
            });
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
