//! Who asks, and what they may.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tenon_trust::{Certificate, Grant, Millis, Reach, Right, Subject, Trust, method};

use crate::server::fault::{Fault, Result};

/// As whom somebody asks.
#[derive(Clone, Debug)]
pub enum Who {
    /// Nobody has to say who they are.
    Everybody,
    /// They did not prove anything, for this reason.
    Nobody(Fault),
    /// A user, by token.
    User {
        /// The token's id.
        id: String,
        /// The token's name.
        name: String,
        /// What it allows.
        grant: Grant,
    },
    /// A node or an agent, by certificate.
    Machine(Arc<Certificate>),
}

/// Who asks, and from where.
#[derive(Clone, Debug)]
pub struct Caller {
    /// As whom.
    pub who: Who,
    /// From where.
    pub from: Option<SocketAddr>,
    about: Arc<Mutex<Vec<String>>>,
}

impl Caller {
    /// Somebody.
    pub fn new(who: Who, from: Option<SocketAddr>) -> Caller {
        Caller { who, from, about: Arc::default() }
    }

    /// Nobody in particular, where that does not matter.
    pub fn everybody() -> Caller {
        Caller::new(Who::Everybody, None)
    }

    /// What the call is about, for the audit log. Never anything that is secret.
    pub fn says(&self, about: impl Into<String>) {
        self.about.lock().unwrap_or_else(PoisonError::into_inner).push(about.into());
    }

    /// All that was said, and nothing from now on.
    pub fn about(&self) -> String {
        self.about.lock().unwrap_or_else(PoisonError::into_inner).join(", ")
    }

    /// Faults a call of a method that is not the caller's, by the table of methods.
    pub fn may(&self, name: &str) -> Result<()> {
        if matches!(self.who, Who::Everybody) {
            return Ok(());
        }
        let Some(method) = method(name) else {
            return Err(Fault::new("denied/method", format!("nobody may call {name}")));
        };
        let not = |needed: &str| {
            let message = format!("{} may not do this: {needed}", self.name());
            Err(Fault::new("denied/role", message))
        };
        match (&self.who, method.right) {
            (Who::Everybody, _) | (_, Right::Anyone) => Ok(()),
            (Who::Nobody(fault), _) => Err(fault.clone()),
            (Who::User { grant, .. }, Right::Role(role) | Right::NodeOr(role)) => {
                if grant.role < role {
                    return not(&format!("it takes the role {role}"));
                }
                if method.reach == Reach::Cluster && !grant.is_everywhere() {
                    let message = "the token is good in some namespaces only, and this is about the \
                                   whole cluster";
                    return Err(Fault::new("denied/namespace", message));
                }
                Ok(())
            }
            (Who::Machine(it), Right::Agent) if matches!(it.subject, Subject::Agent(_)) => Ok(()),
            (Who::Machine(it), Right::Node | Right::NodeOr(_))
                if matches!(it.subject, Subject::Node(_)) =>
            {
                Ok(())
            }
            (_, Right::Role(role)) => not(&format!("it takes a token with the role {role}")),
            (_, Right::Agent) => not("it is for agents, by their certificates"),
            (_, Right::Node | Right::NodeOr(_)) => not("it is for nodes, by their certificates"),
        }
    }

    /// Whether what is in this namespace may be seen by the caller.
    pub fn sees(&self, namespace: &str) -> bool {
        match &self.who {
            Who::User { grant, .. } => grant.covers(namespace),
            _ => true,
        }
    }

    /// Whether the caller may see everything, in whatever namespace.
    pub fn sees_all(&self) -> bool {
        match &self.who {
            Who::User { grant, .. } => grant.is_everywhere(),
            _ => true,
        }
    }

    /// The only namespaces that the caller sees; all if empty.
    pub fn namespaces(&self) -> BTreeSet<String> {
        match &self.who {
            Who::User { grant, .. } => grant.namespaces.clone(),
            _ => BTreeSet::new(),
        }
    }

    /// Faults a namespace in which the caller may do nothing.
    pub fn may_in(&self, namespace: &str) -> Result<()> {
        if self.sees(namespace) {
            return Ok(());
        }
        let message = format!("{} may do nothing in namespace {namespace}", self.name());
        Err(Fault::new("denied/namespace", message).field("namespace"))
    }

    /// Faults an agent that calls itself otherwise than its certificate does.
    pub fn may_be_agent(&self, name: &str) -> Result<()> {
        match &self.who {
            Who::Machine(it) if it.subject != Subject::Agent(name.to_owned()) => {
                let message = format!("{} calls itself agent {name}", it.subject);
                Err(Fault::new("denied/agent-name", message)
                    .hint("start it with the name for which it has joined, or let it join again"))
            }
            _ => Ok(()),
        }
    }

    /// Faults a node that calls itself otherwise than its certificate does.
    pub fn may_be_node(&self, id: u64) -> Result<()> {
        match &self.who {
            Who::Machine(it) if it.subject != Subject::Node(id) => {
                let message = format!("{} calls itself node {id}", it.subject);
                Err(Fault::new("peer/stranger", message))
            }
            _ => Ok(()),
        }
    }

    /// The node that asks, if one does.
    pub fn node(&self) -> Option<u64> {
        match &self.who {
            Who::Machine(it) => match it.subject {
                Subject::Node(id) => Some(id),
                Subject::Agent(_) => None,
            },
            _ => None,
        }
    }

    /// Whether the caller is still trusted.
    pub fn stands(&self, trust: &Trust, now: Millis) -> bool {
        match &self.who {
            Who::User { id, .. } => trust.token_stands(id, now),
            Who::Machine(it) => it.until > now && trust.stands(&it.subject, &it.serial),
            Who::Everybody | Who::Nobody(_) => true,
        }
    }

    /// When the caller ceases to be trusted by itself.
    pub fn until(&self, trust: &Trust) -> Option<Millis> {
        match &self.who {
            Who::User { id, .. } => trust.tokens.get(id).and_then(|token| token.expires),
            Who::Machine(it) => Some(it.until),
            Who::Everybody | Who::Nobody(_) => None,
        }
    }

    /// For people and for the audit log.
    pub fn name(&self) -> String {
        match &self.who {
            Who::Everybody | Who::Nobody(_) => "anybody".to_owned(),
            Who::User { id, name, .. } => format!("{name} (token {id})"),
            Who::Machine(it) => it.subject.to_string(),
        }
    }
}
