//! `tenon agents`.

use tenon_proto::control::v1::{
    Agent, CordonAgentRequest, DrainAgentRequest, GetAgentRequest, ListAgentsRequest,
    RemoveAgentRequest, UncordonAgentRequest,
};
use tenon_reporter::pretty::bytes;

use crate::args::AgentsCommand;
use crate::exit::{Exit, Failure};
use crate::inspect::{answer, table};
use crate::remote::{self, Remote};
use crate::terminal;

/// `tenon agents`.
pub fn agents(command: &AgentsCommand, server: Option<&str>) -> Result<Exit, Failure> {
    let server = server.ok_or_else(|| remote::needs_cluster("agents"))?;
    remote::with(server, async |remote| ask(&remote, command).await)
}

async fn ask(remote: &Remote, command: &AgentsCommand) -> Result<Exit, Failure> {
    let client = &remote.client;
    let (agent, output, done) = match command {
        AgentsCommand::List(args) => {
            let agents = client.list_agents(ListAgentsRequest {}).await?.agents;
            answer(args.output, &agents, || list(&agents))?;
            return Ok(Exit::Success);
        }
        AgentsCommand::Show(args) => {
            let agent = client.get_agent(GetAgentRequest { name: args.name.clone() }).await?;
            answer(args.output, &agent, || describe(&agent))?;
            return Ok(Exit::Success);
        }
        AgentsCommand::Cordon(args) => {
            let request = CordonAgentRequest { name: args.name.clone() };
            (client.cordon_agent(request).await?, args.output, "cordoned")
        }
        AgentsCommand::Uncordon(args) => {
            let request = UncordonAgentRequest { name: args.name.clone() };
            (client.uncordon_agent(request).await?, args.output, "uncordoned")
        }
        AgentsCommand::Drain(args) => {
            let deadline = args.deadline.clone().unwrap_or_default();
            let request = DrainAgentRequest { name: args.name.clone(), deadline };
            let agent = client.drain_agent(request).await?;
            let done = if agent.state == "drained" { "drained" } else { "being drained" };
            (agent, args.output, done)
        }
        AgentsCommand::Remove(args) => {
            client.remove_agent(RemoveAgentRequest { name: args.name.clone() }).await?;
            terminal::remark(&format!("agent {} is removed", args.name));
            return Ok(Exit::Success);
        }
    };
    answer(output, &agent, || format!("agent {} is {done}\n", agent.name))?;
    Ok(Exit::Success)
}

fn list(agents: &[Agent]) -> String {
    if agents.is_empty() {
        return "no agent has dialled in yet\n".to_owned();
    }
    let rows: Vec<[String; 6]> = agents
        .iter()
        .map(|agent| {
            [
                agent.name.clone(),
                agent.state.clone(),
                format!("{}/{}", agent.running, agent.slots),
                cpu(agent),
                memory(agent),
                agent.backends.join(","),
            ]
        })
        .collect();
    table(&["NAME", "STATE", "RUNS", "CPU", "MEMORY", "BACKENDS"], &rows)
}

/// What attempts request, of what there is; a dash where that is not known.
fn cpu(agent: &Agent) -> String {
    let number = |millis: u64| {
        let text = format!("{}.{:03}", millis / 1000, millis % 1000);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match agent.cpu_millis {
        0 => "-".to_owned(),
        all => format!("{}/{}", number(agent.cpu_millis_used), number(all)),
    }
}

fn memory(agent: &Agent) -> String {
    match agent.memory_bytes {
        0 => "-".to_owned(),
        all => format!("{}/{}", bytes(agent.memory_bytes_used), bytes(all)),
    }
}

fn describe(agent: &Agent) -> String {
    let mut text = format!("{}  {}\n", agent.name, agent.state);
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("  {name:<9}{value}\n"));
        }
    };
    line("runs", &format!("{} of {}", agent.running, agent.slots));
    line("CPU", &cpu(agent));
    line("memory", &memory(agent));
    line("backends", &agent.backends.join(", "));
    line("images", &agent.allowed_images.join(", "));
    line("allows", &agent.grants.join(", "));
    for (key, value) in &agent.labels {
        line("label", &format!("{key}={value}"));
    }
    line("empty by", &agent.drain_deadline);
    line("software", &agent.software);
    line("seen", &agent.seen_at);
    if !agent.attempts.is_empty() {
        let rows: Vec<[String; 3]> = agent
            .attempts
            .iter()
            .map(|it| [it.run_id.clone(), it.attempt.to_string(), it.task_run.clone()])
            .collect();
        text.push_str(&table(&["RUN", "ATTEMPT", "TASKRUN"], &rows));
    }
    text
}
