//! What all members of a cluster know of trust: a state machine whose input are [`Change`]s in the
//! order of the log.
//!
//! A change that is applied twice changes nothing the second time and is answered as the first time:
//! whoever proposes it may not have heard the first answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Millis;
use crate::certificate::Subject;
use crate::role::Grant;
use crate::token::{Kind, SecretHash, Token};

/// A join token that was used, or has expired, is remembered for so long: whoever tries it again is
/// told why not.
const KEEP_MS: Millis = 7 * 24 * 3_600_000;

/// The record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// The authority; without one everybody may do everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<AuthorityRecord>,
    /// API tokens by id.
    #[serde(default)]
    pub tokens: BTreeMap<String, ApiToken>,
    /// Join tokens by id.
    #[serde(default)]
    pub join_tokens: BTreeMap<String, JoinToken>,
    /// Nodes that have joined and are no members yet, with the time at which they did.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub joining: BTreeMap<u64, Millis>,
    /// Agents that have certificates, by name.
    #[serde(default)]
    pub agents: BTreeMap<String, AgentRecord>,
}

/// The authority of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityRecord {
    /// Its certificate, PEM.
    pub certificate: String,
    /// Its key, sealed by the cluster's key and then hexadecimal.
    pub sealed_key: String,
}

/// An API token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiToken {
    /// Whose it is, for people and for the audit log.
    pub name: String,
    /// Of its secret.
    pub hash: SecretHash,
    /// What its holder may do.
    #[serde(flatten)]
    pub grant: Grant,
    /// When it was made.
    pub created: Millis,
    /// When it ceases to be good; never if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Millis>,
    /// Who made it.
    pub created_by: String,
}

/// A join token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// For a node; else for an agent.
    pub node: bool,
    /// Only for the agent with this name; then the name may be in use, and is taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Of its secret.
    pub hash: SecretHash,
    /// When it was made.
    pub created: Millis,
    /// When it ceases to be good.
    pub expires: Millis,
    /// Who made it.
    pub created_by: String,
    /// Its one use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Used>,
}

/// The one use of a join token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// When.
    pub at: Millis,
    /// Names the use: repeating it is no second one.
    pub by: String,
    /// The Raft id that a node got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u64>,
}

/// The certificates of one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRecord {
    /// Serial numbers of those that are good, with the time until which they are.
    pub serials: BTreeMap<String, Millis>,
    /// Serial numbers of those that were revoked, likewise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub revoked: BTreeMap<String, Millis>,
    /// All of them are revoked, also those that this record does not know (it may come from a backup),
    /// until the agent joins again.
    #[serde(default)]
    pub shut_out: bool,
}

/// What is agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The cluster has an authority from here on.
    Found(AuthorityRecord),
    /// A new API token, with its id.
    AddToken(String, ApiToken),
    /// A token, of either kind, is good no more.
    RemoveToken(String),
    /// A new join token, with its id.
    AddJoinToken(String, JoinToken),
    /// An agent uses a join token.
    JoinAgent {
        /// The token's id.
        token: String,
        /// Hash of the secret that was shown.
        hash: String,
        /// The agent's name.
        agent: String,
        /// Serial number of the certificate that it gets.
        serial: String,
        /// Until when that is good.
        until: Millis,
    },
    /// A node uses a join token, and gets a Raft id.
    JoinNode {
        /// The token's id.
        token: String,
        /// Hash of the secret that was shown.
        hash: String,
        /// Names this use.
        by: String,
    },
    /// An agent has a further certificate.
    Renew {
        /// Its name.
        agent: String,
        /// The serial number of the one with which it asked.
        with: String,
        /// The serial number of the new one.
        serial: String,
        /// Until when that is good.
        until: Millis,
    },
    /// The certificates of an agent are good no more.
    Revoke {
        /// Its name.
        agent: String,
    },
}

/// What a change led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It is done, or was before.
    Done,
    /// A node has joined, under this Raft id.
    Node(u64),
}

/// Why a change was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is an authority already.
    #[error("the cluster has an authority already")]
    Founded,
    /// No such token, or a wrong secret.
    #[error("the cluster knows no such token: it was revoked, or is another cluster's")]
    UnknownToken,
    /// A join token that is good no more.
    #[error("the join token has expired")]
    Expired,
    /// A join token has only one use.
    #[error("the join token was used before: each lets one in, once")]
    Used,
    /// It is for something else.
    #[error("the join token is for {0}")]
    Purpose(&'static str),
    /// It is for another name.
    #[error("the join token is for an agent of another name")]
    OtherName,
    /// Another agent has the name.
    #[error("there is an agent of this name, with a certificate that is good")]
    NameTaken,
    /// The certificate with which it was asked was revoked.
    #[error("the certificate was revoked")]
    Revoked,
    /// No such agent.
    #[error("no agent of this name has a certificate")]
    UnknownAgent,
}

impl Refusal {
    /// A stable code for programs.
    pub fn code(self) -> &'static str {
        match self {
            Refusal::Founded => "conflict/authority",
            Refusal::UnknownToken => "denied/token",
            Refusal::Expired => "denied/expired",
            Refusal::Used => "denied/used",
            Refusal::Purpose(_) => "denied/token-purpose",
            Refusal::OtherName => "denied/agent-name",
            Refusal::NameTaken => "conflict/agent-name",
            Refusal::Revoked => "denied/revoked",
            Refusal::UnknownAgent => "not-found/agent",
        }
    }
}

impl Trust {
    /// Applies a change at `now`. `next_node` is the Raft id that the next node gets.
    pub fn apply(
        &mut self,
        change: Change,
        now: Millis,
        next_node: &mut u64,
    ) -> Result<Done, Refusal> {
        self.forget(now);
        match change {
            Change::Found(record) => match &self.authority {
                None => self.authority = Some(record),
                Some(known) if *known == record => {}
                Some(_) => return Err(Refusal::Founded),
            },
            Change::AddToken(id, token) => {
                self.tokens.entry(id).or_insert(token);
            }
            Change::RemoveToken(id) => {
                self.tokens.remove(&id);
                self.join_tokens.remove(&id);
            }
            Change::AddJoinToken(id, token) => {
                self.join_tokens.entry(id).or_insert(token);
            }
            Change::JoinAgent { token, hash, agent, serial, until } => {
                return self.join_agent(&token, &hash, agent, serial, until, now);
            }
            Change::JoinNode { token, hash, by } => {
                let token = self.join_token(&token, &hash, true, &by, now)?;
                let id = match token.used.take().and_then(|used| used.node) {
                    Some(id) => id,
                    None => {
                        let id = *next_node;
                        *next_node += 1;
                        id
                    }
                };
                token.used = Some(Used { at: now, by, node: Some(id) });
                self.joining.insert(id, now);
                return Ok(Done::Node(id));
            }
            Change::Renew { agent, with, serial, until } => {
                if !self.trusts_agent(&agent, &with) {
                    return Err(Refusal::Revoked);
                }
                self.agents.entry(agent).or_default().serials.insert(serial, until);
            }
            Change::Revoke { agent } => {
                let record = self.agents.get_mut(&agent).ok_or(Refusal::UnknownAgent)?;
                record.revoked.append(&mut record.serials);
                record.shut_out = true;
            }
        }
        Ok(Done::Done)
    }

    fn join_agent(
        &mut self,
        token: &str,
        hash: &str,
        agent: String,
        serial: String,
        until: Millis,
        now: Millis,
    ) -> Result<Done, Refusal> {
        let taken = self.agents.get(&agent).is_some_and(|known| {
            !known.shut_out
                && known.serials.iter().any(|(known, until)| *until > now && *known != serial)
        });
        let token = self.join_token(token, hash, false, &serial, now)?;
        match &token.agent {
            Some(only) if *only != agent => return Err(Refusal::OtherName),
            None if taken => return Err(Refusal::NameTaken),
            _ => {}
        }
        token.used = Some(Used { at: now, by: serial.clone(), node: None });
        let record = self.agents.entry(agent).or_default();
        // Whoever had the name before has it no more.
        record.serials.remove(&serial);
        record.revoked.append(&mut record.serials);
        record.serials.insert(serial, until);
        record.shut_out = false;
        Ok(Done::Done)
    }

    /// A join token that may be used now, in the use named `by`.
    fn join_token(
        &mut self,
        id: &str,
        hash: &str,
        node: bool,
        by: &str,
        now: Millis,
    ) -> Result<&mut JoinToken, Refusal> {
        let token = self.join_tokens.get_mut(id).filter(|token| token.hash.is(hash));
        let token = token.ok_or(Refusal::UnknownToken)?;
        match &token.used {
            Some(used) if used.by != by => return Err(Refusal::Used),
            None if token.expires <= now => return Err(Refusal::Expired),
            _ => {}
        }
        match (token.node, node) {
            (true, false) => Err(Refusal::Purpose("a coordinator")),
            (false, true) => Err(Refusal::Purpose("an agent")),
            _ => Ok(token),
        }
    }

    /// Drops what nobody will ask for any more.
    fn forget(&mut self, now: Millis) {
        self.tokens.retain(|_, token| token.expires.is_none_or(|at| at + KEEP_MS > now));
        self.join_tokens.retain(|_, token| {
            token.used.as_ref().map_or(token.expires, |used| used.at) + KEEP_MS > now
        });
        self.joining.retain(|_, since| *since + KEEP_MS > now);
        for record in self.agents.values_mut() {
            record.serials.retain(|_, until| *until > now);
            record.revoked.retain(|_, until| *until > now);
        }
    }

    /// A node has become a member; it joins no more. Says whether it did before.
    pub fn became_member(&mut self, id: u64) -> bool {
        self.joining.remove(&id).is_some()
    }

    /// The API token that somebody shows, if it is good at `now`.
    pub fn api_token(&self, shown: &Token, now: Millis) -> Option<&ApiToken> {
        let known = self.tokens.get(&shown.id).filter(|_| shown.kind == Kind::Api)?;
        let good = known.hash.is(&shown.secret.hash())
            && known.expires.is_none_or(|expires| expires > now);
        good.then_some(known)
    }

    /// Whether the token with this id is good at `now`, for whoever has shown it before.
    pub fn token_stands(&self, id: &str, now: Millis) -> bool {
        self.tokens.get(id).is_some_and(|token| token.expires.is_none_or(|at| at > now))
    }

    /// Whether an agent may speak with this certificate, which the authority has signed.
    pub fn trusts_agent(&self, agent: &str, serial: &str) -> bool {
        match self.agents.get(agent) {
            Some(record) => !record.shut_out && !record.revoked.contains_key(serial),
            // Joined after the backup from which this record comes.
            None => true,
        }
    }

    /// Whether whoever proved to be `subject` with this certificate is still trusted. Of nodes the
    /// membership decides.
    pub fn stands(&self, subject: &Subject, serial: &str) -> bool {
        match subject {
            Subject::Agent(name) => self.trusts_agent(name, serial),
            Subject::Node(_) => true,
        }
    }
}
