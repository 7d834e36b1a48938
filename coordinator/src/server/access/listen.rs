//! Connections: TLS, and nobody who is slow on purpose.
//!
//! A connection is handed to the server when its handshake is done and it has said which protocol it
//! speaks; until then it costs a task and a timer, and is dropped when either takes too long. There is a
//! number of connections that are never exceeded, however slow those who have them are.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tenon_trust::{Certificate, SharedIdentity, tls};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt;
use tonic::transport::server::{Connected, TcpIncoming};

use super::turn::Turn;
use crate::server::Limits;
use crate::server::audit::Audit;
use crate::server::fault::{Fault, Result};

/// What an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Connections that are ready and wait for the server.
pub const READY: usize = 64;
/// Connections that may shake hands at a time; more are dropped at once.
const SHAKING: usize = 4096;
/// Between two complaints about too many connections.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
/// What somebody is told who speaks HTTP where TLS is spoken.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\n\
    connection: close\r\n\r\nThis port speaks TLS: use https://\n";

/// What is known of a connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Where the other end is.
    pub from: SocketAddr,
    /// Its certificate, which the authority has signed; why it is of no use, if it is of none.
    pub certificate: Option<Result<Arc<Certificate>, String>>,
}

/// Takes connections until nobody wants them any more.
pub async fn listen(
    mut incoming: TcpIncoming,
    identity: Option<SharedIdentity>,
    limits: Limits,
    audit: Option<Audit>,
    ready: mpsc::Sender<io::Result<Io>>,
) -> Result<()> {
    let acceptor = match &identity {
        Some(identity) => {
            let config = tls::server(identity).map_err(Fault::internal)?;
            Some(TlsAcceptor::from(Arc::new(config)))
        }
        None => None,
    };
    let mut shaking = JoinSet::new();
    let room = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
    let mut told: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = incoming.next() => accepted,
            Some(_) = shaking.join_next() => continue,
            () = ready.closed() => None,
        };
        let stream = match accepted {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => {
                // Too many open files, for example: the next one may do.
                tracing::warn!(%error, "cannot take a connection");
                continue;
            }
            None => return Ok(()),
        };
        let permit = Arc::clone(&room).try_acquire_owned().ok();
        let Some(permit) = permit.filter(|_| shaking.len() < SHAKING) else {
            if told.is_none_or(|told| told.elapsed() > TOLD_AGAIN) {
                told = Some(Instant::now());
                let open = limits.connections - room.available_permits();
                tracing::warn!(open, "too many connections: further ones are closed");
            }
            continue;
        };
        let (acceptor, audit, ready) = (acceptor.clone(), audit.clone(), ready.clone());
        shaking.spawn(async move {
            let Ok(from) = stream.peer_addr() else { return };
            match shake(stream, from, acceptor, limits, permit).await {
                Ok(io) => drop(ready.send(Ok(io)).await),
                Err(Some(why)) => {
                    if let Some(audit) = audit {
                        audit.refused_connection(from, &why).await;
                    }
                }
                Err(None) => {}
            }
        });
    }
}

/// Everything before the first request. An error without a reason is nobody's fault.
async fn shake(
    stream: TcpStream,
    from: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    limits: Limits,
    permit: OwnedSemaphorePermit,
) -> Result<Io, Option<String>> {
    let late = |what: &str| Some(format!("{what} did not come in time"));
    let mut connection = Connection { from, certificate: None };
    let mut stream = match acceptor {
        None => Stream::Plain(stream),
        Some(acceptor) => {
            let mut first = [0];
            let peeked = timeout(limits.handshake, stream.peek(&mut first)).await;
            match peeked.map_err(|_| late("the handshake"))? {
                // The first byte of a handshake; a request begins with a letter.
                Ok(1) if first[0].is_ascii_uppercase() => {
                    use tokio::io::AsyncWriteExt;
                    let mut stream = stream;
                    let told = stream.write_all(SPEAK_TLS);
                    let _ = timeout(limits.handshake, told).await;
                    return Err(Some("it does not speak TLS".to_owned()));
                }
                Ok(1) => {}
                Ok(_) | Err(_) => return Err(None),
            }
            let shaken = timeout(limits.handshake, acceptor.accept(stream)).await;
            let stream = match shaken.map_err(|_| late("the handshake"))? {
                Ok(stream) => stream,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(None),
                Err(error) => return Err(Some(error.to_string())),
            };
            let chain = stream.get_ref().1.peer_certificates();
            connection.certificate = chain.and_then(|chain| chain.first()).map(|own| {
                Certificate::of_der(own).map(Arc::new).map_err(|error| error.to_string())
            });
            Stream::Tls(Box::new(stream))
        }
    };
    let mut begun = BytesMut::with_capacity(PREFACE.len());
    let begin = async {
        while begun.len() < PREFACE.len() && PREFACE.starts_with(&begun) {
            let room = PREFACE.len() - begun.len();
            if (&mut stream).take(room as u64).read_buf(&mut begun).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        io::Result::Ok(())
    };
    match timeout(limits.handshake, begin).await {
        Ok(Ok(())) => {
            let (begun, turn) = (begun.freeze(), Turn::default());
            Ok(Io { stream, begun, turn, connection, _permit: permit })
        }
        Ok(Err(_)) => Err(None),
        Err(_) => Err(late("the first request")),
    }
}

/// A connection with what was read of it already.
pub struct Io {
    stream: Stream,
    begun: Bytes,
    turn: Turn,
    connection: Connection,
    /// Room for another connection when this one is closed.
    _permit: OwnedSemaphorePermit,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Io {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

/// Does the same with either kind of stream.
macro_rules! either {
    ($stream:expr, $it:ident => $do:expr) => {
        match $stream {
            Stream::Plain($it) => {
                let $it = Pin::new($it);
                $do
            }
            Stream::Tls($it) => {
                let $it = Pin::new($it.as_mut());
                $do
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), it => it.poll_read(context, buffer))
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.turn.reads();
        if self.begun.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let count = self.begun.len().min(buffer.remaining());
        buffer.put_slice(&self.begun[..count]);
        self.begun.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let it = self.get_mut();
        ready!(it.turn.writes(context));
        either!(&mut it.stream, it => it.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let it = self.get_mut();
        ready!(it.turn.writes(context));
        either!(&mut it.stream, it => it.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.get_mut().stream, it => it.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.get_mut().stream, it => it.poll_shutdown(context))
    }
}
