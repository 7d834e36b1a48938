//! Why an attempt waits, in words: what each agent lacks, counted.

use std::collections::BTreeMap;

use super::fit::{self, Refusal};
use super::{Agent, Closed};
use crate::AttemptId;
use crate::work::Requirements;

/// What was found of the agents that refuse for one reason.
#[derive(Default)]
struct Found {
    count: usize,
    /// The most that is free, or there.
    most: u64,
}

/// The message, and whether an agent could take the attempt that had nothing else to do. With each
/// agent comes who it is reserved for, if it is for somebody else.
pub(super) fn explain<'a>(
    agents: impl Iterator<Item = (&'a Agent, Option<&'a AttemptId>)>,
    requirements: &Requirements,
) -> (String, bool) {
    let mut found: BTreeMap<Refusal, Found> = BTreeMap::new();
    let (mut total, mut could_fit, mut ready, mut kept) = (0, false, 0, 0);
    let mut home = None;
    for (agent, holder) in agents {
        total += 1;
        if requirements.home.as_ref() == Some(&agent.name) {
            home = Some(agent);
        }
        let refusal = fit::could_fit(agent, requirements).and_then(|()| {
            could_fit = true;
            fit::has_room(agent, requirements)
        });
        let Err(refusal) = refusal else {
            match holder {
                Some(_) => kept += 1,
                None => ready += 1,
            }
            continue;
        };
        let (cpu, memory) = fit::free(agent);
        let most = match refusal {
            Refusal::Cpu => cpu,
            Refusal::Memory => memory,
            Refusal::SmallCpu => agent.cpu_millis,
            Refusal::SmallMemory => agent.memory_bytes,
            _ => 0,
        };
        let found = found.entry(refusal).or_default();
        found.count += 1;
        found.most = found.most.max(most);
    }
    let down = found.get(&Refusal::Closed(Closed::Down)).map_or(0, |found| found.count);
    if down == total {
        return ("no agent is in contact".to_owned(), false);
    }
    let mut parts: Vec<String> =
        found.iter().map(|(refusal, found)| words(refusal, found, requirements)).collect();
    if kept > 0 {
        let are = if kept == 1 { "is" } else { "are" };
        parts.push(format!("{kept} {are} kept free for who has waited longer"));
    }
    if ready > 0 {
        parts.push(format!("{ready} can take it in its turn"));
    }
    let agents = if total == 1 { "agent" } else { "agents" };
    let mut message = format!("{total} {agents}: {}", parts.join(", "));
    let away = home.is_none_or(|home| home.closed == Some(Closed::Down));
    match (&requirements.home, &requirements.apart, &requirements.near) {
        (Some(name), Some(other), _) => message.push_str(&format!(
            "; its volumes are on {name} and on {other}, and neither can move now"
        )),
        (Some(name), None, _) if away && requirements.unsaved => message.push_str(&format!(
            "; the run's volume is on {name}, which is out of contact, and there is no snapshot of it: \
             start that agent again, or cancel the run"
        )),
        (Some(name), None, _) if home.is_none() => {
            message.push_str(&format!("; the run's volume is on {name}, which is out of contact"));
        }
        (None, _, Some(name)) if ready > 0 => {
            message.push_str(&format!("; {name} has its files, and is waited for a while"));
        }
        _ => {}
    }
    (message, could_fit)
}

/// `2 lack label gpu=true`.
fn words(refusal: &Refusal, found: &Found, requirements: &Requirements) -> String {
    let Found { count, most } = found;
    let one = *count == 1;
    let choose = |singular: &'static str, plural: &'static str| if one { singular } else { plural };
    let at_most = choose("", "at most ");
    let need_cpu = cpu(requirements.cpu_millis);
    let need_memory = memory(requirements.memory_bytes);
    let text = match refusal {
        Refusal::Label(key, value) => format!("{} label {key}={value}", choose("lacks", "lack")),
        Refusal::Affinity => {
            let terms: Vec<String> = requirements.affinity.iter().map(|t| t.to_string()).collect();
            let terms = terms.join(", or ");
            format!("{} not match the node affinity ({terms})", choose("does", "do"))
        }
        Refusal::Image(image) => format!("may not run image {image}"),
        Refusal::Demand(demand) => {
            format!("{} not allow {demand} (--allow-{demand})", choose("does", "do"))
        }
        Refusal::Volume if requirements.apart.is_some() => {
            format!("{} not have all of the run's volumes", choose("does", "do"))
        }
        Refusal::Volume => format!("{} not have the run's volume", choose("does", "do")),
        Refusal::Restore => "cannot take over workspaces".to_owned(),
        Refusal::Closed(Closed::Disk { free, floor }) => {
            let (free, floor) = (memory(*free), memory(*floor));
            format!("{} {free} free on disk, under the floor of {floor}", choose("has", "have"))
        }
        Refusal::Closed(closed) => {
            let why = match closed {
                Closed::Cordoned => "cordoned",
                Closed::Draining => "being drained",
                Closed::Down | Closed::Disk { .. } => "out of contact",
            };
            format!("{} {why}", choose("is", "are"))
        }
        Refusal::SmallCpu => {
            let is = choose("is", "are");
            format!("{is} too small: needs {need_cpu} CPU, {at_most}{} there", cpu(*most))
        }
        Refusal::SmallMemory => {
            let is = choose("is", "are");
            let most = memory(*most);
            format!("{is} too small: needs {need_memory} of memory, {at_most}{most} there")
        }
        Refusal::Slots => format!("{} full: no free slot", choose("is", "are")),
        Refusal::Cpu => {
            let is = choose("is", "are");
            format!("{is} full: needs {need_cpu} CPU, {at_most}{} free", cpu(*most))
        }
        Refusal::Memory => {
            let is = choose("is", "are");
            let most = memory(*most);
            format!("{is} full: needs {need_memory} of memory, {at_most}{most} free")
        }
    };
    format!("{count} {text}")
}

/// `2`, `0.5`.
fn cpu(millis: u64) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `1.5 GiB`, `512 MiB`.
fn memory(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = UNITS.iter().find(|(_, shift)| bytes >> shift > 0);
    let Some((name, shift)) = unit else { return format!("{bytes} bytes") };
    let tenths = (u128::from(bytes) * 10) >> shift;
    let text = format!("{}.{}", tenths / 10, tenths % 10);
    format!("{} {name}", text.trim_end_matches(".0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_for_people() {
        assert_eq!(
            ["2", "0.5", "0.125", "0"],
            [2000, 500, 125, 0].map(cpu).each_ref().map(|t| &**t)
        );
        let sizes = [512 << 20, 3 << 29, 5 << 40, 100];
        let texts = sizes.map(memory);
        assert_eq!(texts.each_ref().map(|t| &**t), ["512 MiB", "1.5 GiB", "5 TiB", "100 bytes"]);
    }
}
