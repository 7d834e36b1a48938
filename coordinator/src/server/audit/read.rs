//! The audit log, read again: the newest entries that somebody asks for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tenon_engine::Time;
use tenon_proto::control::v1::{AuditEntry, AuditRequest, AuditResponse};

use super::super::api::{Api, Asked};
use super::super::fault::{Fault, Result};

/// Entries that are answered if nothing is said, and at most.
const USUAL: usize = 1000;
const MOST: usize = 10_000;

/// A line as it is in the file.
#[derive(Deserialize)]
struct Stored {
    time: String,
    who: String,
    from: String,
    what: String,
    #[serde(default)]
    about: String,
    outcome: String,
}

/// Which entries are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    since: Option<Time>,
    until: Option<Time>,
    who: String,
    what: String,
    refused: bool,
    limit: usize,
}

impl Filter {
    /// As a request says it.
    pub fn of(request: &AuditRequest) -> Result<Filter> {
        let time = |field: &'static str, text: &str| match text {
            "" => Ok(None),
            text => serde_json::from_value(text.into()).map(Some).map_err(|_| {
                Fault::new("invalid/time", format!("{text:?} is no time"))
                    .hint("RFC 3339, such as 2026-11-30T09:00:00Z")
                    .field(field)
            }),
        };
        let limit = usize::try_from(request.limit).unwrap_or(MOST);
        Ok(Filter {
            since: time("since", &request.since)?,
            until: time("until", &request.until)?,
            who: request.who.to_lowercase(),
            what: request.what.to_lowercase(),
            refused: request.refused,
            limit: if limit == 0 { USUAL } else { limit.min(MOST) },
        })
    }

    fn takes(&self, entry: &Stored, time: Time) -> bool {
        let holds = |text: &str, part: &str| part.is_empty() || text.to_lowercase().contains(part);
        self.since.is_none_or(|since| time >= since)
            && self.until.is_none_or(|until| time < until)
            && holds(&entry.who, &self.who)
            && (holds(&entry.what, &self.what) || holds(&entry.about, &self.what))
            && !(self.refused && entry.outcome == "ok")
    }
}

/// The newest entries in a log's directory that are wanted, in the order of time. A line that is no
/// entry, such as one that a crash has cut, is left out.
pub fn read(dir: &Path, filter: &Filter, node: &str) -> io::Result<Vec<AuditEntry>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    // `audit-TIME.ndjson` in the order of time, before `audit.ndjson`.
    files.sort();
    let mut newest: Vec<AuditEntry> = Vec::new();
    'files: for path in files.iter().rev() {
        let text = match fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            // It became an older file meanwhile, and was read as that, or was removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for line in text.lines().rev() {
            let Ok(entry) = serde_json::from_str::<Stored>(line) else { continue };
            let Ok(time) = serde_json::from_value::<Time>(entry.time.clone().into()) else {
                continue;
            };
            if filter.since.is_some_and(|since| time < since) {
                break 'files;
            }
            if filter.takes(&entry, time) {
                newest.push(AuditEntry {
                    time: entry.time,
                    who: entry.who,
                    from: entry.from,
                    what: entry.what,
                    about: entry.about,
                    outcome: entry.outcome,
                    node: node.to_owned(),
                });
            }
            if newest.len() == filter.limit {
                break 'files;
            }
        }
    }
    newest.reverse();
    Ok(newest)
}

impl Api {
    /// The audit log: of this node alone, or with what the others have.
    pub async fn audit(&self, request: AuditRequest, asked: Asked) -> Result<AuditResponse> {
        let filter = Filter::of(&request)?;
        let Some(audit) = &self.audit else {
            let message = "a cluster in which anybody may do anything has no audit log";
            return Err(Fault::new("conflict/no-audit", message)
                .hint("`tenon cluster init --data-dir` makes one that knows who asks"));
        };
        let status = self.node.status().await;
        let own = status.members.iter().find(|member| member.id == status.node);
        let name = own.map(|member| member.name.clone()).unwrap_or_default();
        let (dir, of_file) = (audit.dir.clone(), filter.clone());
        let reading = tokio::task::spawn_blocking(move || read(&dir, &of_file, &name));
        let mut answer = AuditResponse::default();
        let others = async {
            match request.local {
                true => Vec::new(),
                false => self.node.audit_elsewhere(request.clone(), asked.deadline).await,
            }
        };
        let (entries, others) = tokio::join!(reading, others);
        answer.entries = entries.map_err(Fault::internal)?.map_err(Fault::internal)?;
        for (member, entries) in others {
            match entries {
                Ok(entries) => answer.entries.extend(entries),
                Err(error) => {
                    tracing::warn!(%member, %error, "cannot ask a member for its audit log");
                    answer.missing.push(member);
                }
            }
        }
        // RFC 3339 in UTC with milliseconds: its texts are in the order of time.
        answer.entries.sort_by(|a, b| a.time.cmp(&b.time));
        let older = answer.entries.len().saturating_sub(filter.limit);
        answer.entries.drain(..older);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(time: &str, who: &str, what: &str, outcome: &str) -> String {
        format!(
            "{{\"time\":\"2026-11-30T{time}.000Z\",\"who\":\"{who}\",\"from\":\"127.0.0.1:1\",\
             \"what\":\"{what}\",\"outcome\":\"{outcome}\"}}\n"
        )
    }

    #[test]
    fn the_newest_that_are_wanted_over_all_files() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let old = line("08:00:00", "ann (token 1)", "Control/Submit", "ok")
            + &line("08:30:00", "bob", "Trust/CreateToken", "ok");
        fs::write(dir.join("audit-2026-11-30T08-45-00.000Z.ndjson"), old).unwrap();
        let new = line("09:00:00", "ann (token 1)", "Cluster/Remove", "denied/role")
            + &line("09:30:00", "ann (token 1)", "Control/Submit", "ok")
            + "{\"time\":\"2026-11-30T09:3";
        fs::write(dir.join("audit.ndjson"), new).unwrap();
        let asked = |request: AuditRequest| -> Vec<String> {
            let filter = Filter::of(&request).unwrap();
            let entries = read(dir, &filter, "c1").unwrap();
            entries.iter().map(|entry| entry.time[11..16].to_owned()).collect()
        };
        let all = AuditRequest::default();
        assert_eq!(asked(all.clone()), ["08:00", "08:30", "09:00", "09:30"]);
        assert_eq!(asked(AuditRequest { limit: 2, ..all.clone() }), ["09:00", "09:30"]);
        assert_eq!(asked(AuditRequest { limit: 3, ..all.clone() }), ["08:30", "09:00", "09:30"]);
        let since = "2026-11-30T08:30:00Z".to_owned();
        let until = "2026-11-30T09:30:00Z".to_owned();
        assert_eq!(asked(AuditRequest { since, until, ..all.clone() }), ["08:30", "09:00"]);
        let who = "ANN".to_owned();
        assert_eq!(asked(AuditRequest { who, refused: true, ..all.clone() }), ["09:00"]);
        let what = "submit".to_owned();
        assert_eq!(asked(AuditRequest { what, ..all.clone() }), ["08:00", "09:30"]);
        let since = "yesterday".to_owned();
        let fault = Filter::of(&AuditRequest { since, ..all }).unwrap_err();
        assert_eq!(fault.code(), "invalid/time");
    }
}
