//! A cluster of `tenon coordinator` processes on loopback.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tenon_client::{Access, Client, Options};
use tenon_proto::control::v1::cluster_client::ClusterClient;
use tenon_proto::control::v1::{ClusterStatus, InitRequest, StatusRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use crate::Result;
use crate::process::{Process, free_ports};
use crate::setting::Setting;

/// How long anything may take before the measurement is given up.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(5);

/// The nodes of one cluster.
pub struct Cluster {
    tenon: PathBuf,
    nodes: Vec<Node>,
}

struct Node {
    dir: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl Cluster {
    /// Starts so many nodes on empty directories and makes a cluster of them.
    pub async fn start(setting: &Setting, name: &str, size: usize) -> Result<Cluster> {
        let mut nodes = Vec::new();
        for (number, port) in free_ports(size)?.into_iter().enumerate() {
            let dir = setting.dir(&format!("{name}-{}", number + 1))?;
            nodes.push(Node { dir, port, process: None });
        }
        let mut cluster = Cluster { tenon: setting.tenon.clone(), nodes };
        for number in 0..size {
            cluster.spawn(number)?;
        }
        for number in 0..size {
            cluster.wait_until_it_answers(number).await?;
        }
        let peers = (1..size).map(|number| cluster.url(number)).collect();
        let mut first = ClusterClient::new(cluster.connect(0).await?);
        let made = timeout(PATIENCE, first.init(InitRequest { peers })).await;
        made.map_err(|_| "the cluster was not made in time")?
            .map_err(|status| format!("make a cluster: {}", status.message()))?;
        for number in 0..size {
            cluster.wait_until_ready(number).await?;
        }
        Ok(cluster)
    }

    /// Starts the process of a node.
    pub fn spawn(&mut self, number: usize) -> Result<()> {
        let node = &mut self.nodes[number];
        let mut command = Command::new(&self.tenon);
        command
            .arg("coordinator")
            .args(["--name", &format!("c{}", number + 1)])
            .args(["--listen", &format!("127.0.0.1:{}", node.port)])
            .arg("--data-dir")
            .arg(&node.dir);
        node.process = Some(Process::start(command, &node.dir.with_extension("log"))?);
        Ok(())
    }

    /// `kill -9`.
    pub fn kill(&mut self, number: usize) {
        self.nodes[number].process = None;
    }

    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    pub fn url(&self, number: usize) -> String {
        format!("http://127.0.0.1:{}", self.nodes[number].port)
    }

    pub fn urls(&self) -> Vec<String> {
        (0..self.size()).map(|number| self.url(number)).collect()
    }

    /// Resident memory of a node in MB.
    pub fn resident(&self, number: usize) -> Result<f64> {
        self.nodes[number].process.as_ref().ok_or("the node is not running")?.resident()
    }

    /// A client that finds the leader by itself.
    pub fn client(&self) -> Result<Client> {
        Client::new(&self.urls(), Options::default()).map_err(|error| error.to_string())
    }

    /// Processor time that a node has used, in seconds.
    pub fn processor_time(&self, number: usize) -> Result<f64> {
        self.nodes[number].process.as_ref().ok_or("the node is not running")?.processor_time()
    }

    pub async fn connect(&self, number: usize) -> Result<Channel> {
        let url = self.url(number);
        tenon_client::connect::connect(&url, &Access::default())
            .await
            .map_err(|error| error.to_string())
    }

    pub async fn status(&self, number: usize) -> Result<ClusterStatus> {
        let mut client = ClusterClient::new(self.connect(number).await?);
        let status = client.status(StatusRequest {}).await;
        Ok(status.map_err(|status| status.message().to_owned())?.into_inner())
    }

    /// The number of the leader, once there is one.
    pub async fn leader(&self) -> Result<usize> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            for number in 0..self.size() {
                if self.nodes[number].process.is_none() {
                    continue;
                }
                if self.status(number).await.is_ok_and(|status| status.role == "leader") {
                    return Ok(number);
                }
            }
            sleep(LOOK).await;
        }
        Err("there is no leader".to_owned())
    }

    async fn wait_until_it_answers(&mut self, number: usize) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if TcpStream::connect(("127.0.0.1", self.nodes[number].port)).await.is_ok() {
                return Ok(());
            }
            let node = &mut self.nodes[number];
            if !node.process.as_mut().is_some_and(Process::is_alive) {
                let log = node.dir.with_extension("log");
                let said = std::fs::read_to_string(log).unwrap_or_default();
                return Err(format!("node {} ended: {}", number + 1, said.trim()));
            }
            sleep(LOOK).await;
        }
        Err(format!("node {} does not listen", number + 1))
    }

    /// Waits until `/readyz` of a node says yes.
    pub async fn wait_until_ready(&mut self, number: usize) -> Result<()> {
        self.wait_until_it_answers(number).await?;
        let began = Instant::now();
        let mut last = String::new();
        while began.elapsed() < PATIENCE {
            match readyz(self.nodes[number].port).await {
                Ok(answer) if answer.starts_with("HTTP/1.1 200") => return Ok(()),
                Ok(answer) => last = answer,
                Err(error) => last = error.to_string(),
            }
            sleep(LOOK).await;
        }
        Err(format!("node {} does not get ready: {last}", number + 1))
    }
}

async fn readyz(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
