//! Ten thousand agents in contact with three nodes and nothing to do: what their heartbeats cost the node that
//! leads, and what each takes of its memory. The agents pretend, with the session of a real one.

use std::time::Instant;

use tenon_proto::control::v1::ListAgentsRequest;
use tenon_proto::control::v1::fleet_client::FleetClient;
use tokio::time::{Duration, sleep};

use crate::Result;
use crate::agent::Fleet;
use crate::cluster::Cluster;
use crate::figure::{Figure, Goal};
use crate::setting::Setting;

/// How long all agents may take to dial in.
const ARRIVE: Duration = Duration::from_secs(300);
/// Until what was done for the beginning is over.
const SETTLE: Duration = Duration::from_secs(15);

pub async fn measure(setting: &Setting) -> Result<Vec<Figure>> {
    allow_many_files()?;
    let agents = setting.count(10_000, 500);
    let cluster = Cluster::start(setting, "connected", 3).await?;
    let leader = cluster.leader().await?;
    sleep(SETTLE).await;
    let before = cluster.resident(leader)?;
    let began = Instant::now();
    let _fleet = Fleet::start(&cluster.urls(), agents, 8);
    while up(&cluster, leader).await? < agents {
        if began.elapsed() > ARRIVE {
            let up = up(&cluster, leader).await?;
            return Err(format!("{up} of {agents} agents have dialled in"));
        }
        sleep(Duration::from_millis(250)).await;
    }
    eprintln!("{agents} agents dialled in within {:.1} s", began.elapsed().as_secs_f64());
    sleep(SETTLE).await;
    let (at, used) = (Instant::now(), cluster.processor_time(leader)?);
    sleep(Duration::from_secs(setting.count(60, 10) as u64)).await;
    let share = (cluster.processor_time(leader)? - used) / at.elapsed().as_secs_f64() * 100.0;
    let each = (cluster.resident(leader)? - before) * 1024.0 / agents as f64;
    if cluster.leader().await? != leader || up(&cluster, leader).await? != agents {
        return Err("the leader or some agents were lost meanwhile".to_owned());
    }
    Ok(vec![
        Figure::new(
            format!("heartbeats of {agents} agents, of one core of the leader"),
            share,
            "%",
            Goal::AtMost(10.0),
        ),
        Figure::new(
            format!("resident memory of the leader, for each of {agents} agents"),
            each,
            "kB",
            Goal::AtMost(20.0),
        ),
    ])
}

/// How many agents are in contact.
async fn up(cluster: &Cluster, leader: usize) -> Result<usize> {
    let mut client = FleetClient::new(cluster.connect(leader).await?);
    let list = client.list_agents(ListAgentsRequest::default()).await;
    let list = list.map_err(|status| format!("list the agents: {}", status.message()))?;
    Ok(list.into_inner().agents.iter().filter(|agent| agent.state == "up").count())
}

/// A session is a connection, and a connection a file.
fn allow_many_files() -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both only read or write the struct that is here.
    let done = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit)
    };
    match done {
        0 if limit.rlim_cur > 12_000 => Ok(()),
        _ => {
            Err(format!("a process may open {} files here; some 12,000 are needed", limit.rlim_cur))
        }
    }
}
