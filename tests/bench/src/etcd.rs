//! Three nodes of etcd, as Debian packages it, and the two calls of its gRPC API that are needed.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use tokio::time::sleep;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

use crate::Result;
use crate::cluster::PATIENCE;
use crate::lean::Lean;
use crate::process::{Process, free_ports};
use crate::setting::Setting;

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
    #[prost(int64, tag = "3")]
    revision: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// A cluster of three, with everything that etcd does by default.
pub struct Etcd {
    nodes: Vec<(Process, u16)>,
}

impl Etcd {
    /// Starts it and waits for its leader; `None` where etcd is not installed.
    pub async fn start(setting: &Setting) -> Result<Option<Etcd>> {
        let Some(program) = program() else { return Ok(None) };
        let ports = free_ports(6)?;
        let (clients, peers) = ports.split_at(3);
        let members: Vec<String> =
            (0..3).map(|number| format!("e{number}=http://127.0.0.1:{}", peers[number])).collect();
        let mut nodes = Vec::new();
        for number in 0..3 {
            let dir = setting.dir(&format!("etcd-{number}"))?;
            let peer = format!("http://127.0.0.1:{}", peers[number]);
            let client = format!("http://127.0.0.1:{}", clients[number]);
            let mut command = Command::new(&program);
            command
                .args(["--name", &format!("e{number}"), "--logger", "zap", "--log-level", "error"])
                .arg("--data-dir")
                .arg(&dir)
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--initial-cluster", &members.join(","), "--initial-cluster-state", "new"]);
            nodes.push((Process::start(command, &dir.with_extension("log"))?, clients[number]));
        }
        let etcd = Etcd { nodes };
        etcd.leader().await?;
        Ok(Some(etcd))
    }

    /// Where the leader's clients connect.
    pub async fn leader(&self) -> Result<String> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            for (_, port) in &self.nodes {
                let url = format!("http://127.0.0.1:{port}");
                if leads(&url).await.unwrap_or(false) {
                    return Ok(url);
                }
            }
            sleep(std::time::Duration::from_millis(50)).await;
        }
        Err("etcd has no leader".to_owned())
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join("etcd")).find(|it| it.is_file())
}

async fn leads(url: &str) -> Result<bool> {
    let path = PathAndQuery::from_static("/etcdserverpb.Maintenance/Status");
    let answer: StatusResponse = call(&Lean::connect(url).await?, path, StatusRequest {}).await?;
    Ok(answer.leader != 0 && answer.header.is_some_and(|header| header.member_id == answer.leader))
}

/// Stores a value, which etcd agrees on and makes durable before it answers.
pub async fn put(connection: &Lean, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
    let answer: PutResponse = call(connection, path, PutRequest { key, value }).await?;
    answer.header.map(|_| ()).ok_or("etcd answered without a header".to_owned())
}

async fn call<Q, A>(connection: &Lean, path: PathAndQuery, question: Q) -> Result<A>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut client = Grpc::with_origin(connection.clone(), connection.origin());
    client.ready().await.map_err(|error| error.to_string())?;
    let request = tonic::Request::new(question);
    let codec: ProstCodec<Q, A> = ProstCodec::default();
    let answer = client.unary(request, path, codec).await;
    Ok(answer.map_err(|status| status.message().to_owned())?.into_inner())
}
