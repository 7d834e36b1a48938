//! What clients ask for, until it is answered, and what becomes of proposals on their way.

use tenon_engine::Time;

use super::{CloseReason, Coordinator, Output, Own, READ_AGAIN_MS, Read, Request, RequestError};
use crate::command::Command;
use crate::entry::{RequestId, encode_proposal};
use crate::waiting::Token;

/// After a proposal was refused, the leader's own ones wait so long, in milliseconds.
const HOLD_MS: i64 = 30;

impl Coordinator {
    pub(super) fn request(&mut self, token: Token, request: Request, deadline: Time) {
        let time = self.now;
        let id = self.next_id();
        let command = match request {
            Request::Submit { submission, materials, key } => {
                let sealed = match &self.options.key {
                    Some(seal) => seal.seal(submission.run_id, &materials),
                    None if materials.is_empty() => Vec::new(),
                    None => {
                        self.out.push(Output::Answer(token, Err(RequestError::NoKey)));
                        return;
                    }
                };
                Command::Submit { time, submission, materials: sealed, key }
            }
            Request::Cancel { run, mode, message, now } => {
                Command::Cancel { time, run, mode, message, now }
            }
            Request::Release { run } => Command::Release { time, run },
            Request::ChangeAgent { agent, change } => Command::ChangeAgent { time, agent, change },
            Request::NewNode => Command::NewNode { time },
            Request::Move { node, url } => Command::Move { time, node, url },
            Request::Trust { change } => Command::Trust { time, change },
            Request::Traced { next } => Command::Traced { time, next },
            Request::Probe { payload } => Command::Probe { time, payload },
            Request::Read => {
                let again = time.plus_millis(READ_AGAIN_MS);
                self.reads.insert(id, Read { token, deadline, again, index: None });
                self.out.push(Output::ReadIndex(id));
                return;
            }
        };
        let proposal = encode_proposal(id, &command);
        let (bytes, limit) = (proposal.len(), self.options.max_proposal_bytes);
        if bytes > limit {
            self.out.push(Output::Answer(token, Err(RequestError::TooLarge { bytes, limit })));
            return;
        }
        self.proposals.add(id, token, proposal.clone(), time, deadline);
        self.out.push(Output::Propose { id, proposal });
    }

    pub(super) fn next_id(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId { node: self.options.node, number: self.next_request }
    }

    pub(super) fn propose_own(&mut self, command: &Command, own: Own) {
        let id = self.next_id();
        if matches!(own, Own::Tick) {
            self.ticking = Some(id);
        }
        self.own.insert(id, own);
        self.out.push(Output::Propose { id, proposal: encode_proposal(id, command) });
    }

    pub(super) fn refused(&mut self, id: RequestId) {
        self.proposals.refused(id, self.now);
        match self.own.remove(&id) {
            Some(Own::Place(attempt)) => self.duties.not_placed(&attempt),
            Some(Own::Lost(agent)) => self.leases.not_lost(&agent, self.steady),
            Some(Own::Session(session) | Own::Hello(session)) => {
                // What follows it may be taken, and would then be out of order.
                self.detach(session);
                self.out.push(Output::Close(session, CloseReason::Again));
            }
            _ => {}
        }
        // While the leadership is being handed over nothing is taken: it is no use to ask at once.
        self.hold_until = Some(self.now.plus_millis(HOLD_MS));
    }

    /// Says once more that this member leads, if that was not taken.
    pub(super) fn lead_again(&mut self) {
        let leads = self.leader == Some(self.options.node) && self.leading.is_none();
        if leads && !self.own.values().any(|own| matches!(own, Own::Lead)) {
            let (node, name, term) = (self.options.node, self.options.name.clone(), self.term);
            self.propose_own(&Command::Lead { time: self.now, node, name, term }, Own::Lead);
        }
    }

    pub(super) fn too_late(&self) -> RequestError {
        match self.leader {
            Some(_) => RequestError::Deadline,
            None => RequestError::NoQuorum,
        }
    }
}
