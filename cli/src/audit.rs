//! `tenon audit`.

use tenon_proto::control::v1::{AuditEntry, AuditRequest};
use tenon_tekton::duration::GoDuration;

use crate::args::AuditArgs;
use crate::exit::{Exit, Failure};
use crate::inspect::{answer, table};
use crate::remote::{needs_cluster, with};
use crate::terminal;

/// `tenon audit`.
pub fn audit(args: &AuditArgs, server: Option<&str>) -> Result<Exit, Failure> {
    let server = server.ok_or_else(|| needs_cluster("audit"))?;
    let request = AuditRequest {
        since: time("--since", args.since.as_deref())?,
        until: time("--until", args.until.as_deref())?,
        who: args.who.clone().unwrap_or_default(),
        what: args.what.clone().unwrap_or_default(),
        refused: args.refused,
        limit: args.limit,
        local: false,
    };
    with(server, async |remote| {
        let log = remote.client.audit(request).await?;
        answer(args.output, &log, || described(&log.entries))?;
        for node in &log.missing {
            terminal::note(&format!("{node} does not answer: its entries are not shown"));
        }
        Ok(Exit::Success)
    })
}

/// A time as it is, or so long ago.
fn time(flag: &str, text: Option<&str>) -> Result<String, Failure> {
    let Some(text) = text else { return Ok(String::new()) };
    if let Ok(ago) = GoDuration::parse(text) {
        return Ok(terminal::now().plus_millis(-ago.as_millis()).to_string());
    }
    match serde_json::from_value::<tenon_engine::Time>(text.into()) {
        Ok(time) => Ok(time.to_string()),
        Err(_) => Err(Failure::new(Exit::Usage, format!("{flag} {text}: no time"))
            .hint("for example 24h, or 2026-11-30T09:00:00Z")),
    }
}

fn described(entries: &[AuditEntry]) -> String {
    let rows: Vec<[String; 4]> = entries
        .iter()
        .map(|entry| {
            // Milliseconds, the service's name and the token's id are in the JSON.
            let time = entry.time.get(..19).unwrap_or(&entry.time).replace('T', " ");
            let who = entry.who.split(" (").next().unwrap_or_default();
            let what = entry.what.rsplit('/').next().unwrap_or_default();
            let how = match (entry.outcome.as_str(), entry.about.as_str()) {
                ("ok", about) => about.to_owned(),
                (outcome, "") => outcome.to_owned(),
                (outcome, about) => format!("{outcome}: {about}"),
            };
            // So that all fits beside each other.
            let who = who.chars().take(16).collect();
            let what = what.chars().take(20).collect();
            [time, who, what, how]
        })
        .collect();
    match rows.is_empty() {
        true => "no such entries\n".to_owned(),
        false => table(&["TIME", "WHO", "WHAT", "ABOUT"], &rows),
    }
}
