//! The part of the state that says whom the cluster trusts, and readers' view of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tenon_engine::Time;
use tenon_trust::{Change, Done, Refusal, Trust};
use tokio::sync::watch;

use super::Replica;
use super::record::keys;
use crate::error::{Error, Result};

/// What this member has applied of trust, as it changes; cheap to clone.
#[derive(Clone)]
pub struct TrustView {
    newest: watch::Sender<Arc<Trust>>,
    /// The store does not have the newest.
    changed: Arc<AtomicBool>,
}

impl Default for TrustView {
    fn default() -> TrustView {
        TrustView { newest: watch::channel(Arc::default()).0, changed: Arc::default() }
    }
}

impl TrustView {
    /// The newest.
    pub fn newest(&self) -> Arc<Trust> {
        self.newest.borrow().clone()
    }

    /// The newest, and whatever follows.
    pub fn watch(&self) -> watch::Receiver<Arc<Trust>> {
        self.newest.subscribe()
    }

    /// The newest, if the store does not have it; the caller stores it now.
    pub(super) fn take_changed(&self) -> Option<Arc<Trust>> {
        self.changed.swap(false, Ordering::Relaxed).then(|| self.newest())
    }
}

impl Replica {
    pub(super) fn change_trust(&mut self, change: Change, time: Time) -> Result<Done, Refusal> {
        let mut trust = Trust::clone(&self.trust.newest());
        let done = trust.apply(change, time.0, &mut self.meta.next_node);
        self.trust.changed.store(true, Ordering::Relaxed);
        self.trust.newest.send_replace(Arc::new(trust));
        done
    }

    /// Who is a member joins no more.
    pub(super) fn note_members(&mut self) {
        let newest = self.trust.newest();
        if newest.joining.keys().any(|id| self.meta.members.contains_key(id)) {
            let mut trust = Trust::clone(&newest);
            for id in self.meta.members.keys() {
                trust.became_member(*id);
            }
            self.trust.changed.store(true, Ordering::Relaxed);
            self.trust.newest.send_replace(Arc::new(trust));
        }
    }

    pub(super) fn load_trust(&mut self) -> Result<()> {
        let trust = match self.store.get(keys::TRUST)? {
            Some(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| Error::Record(error.to_string()))?
            }
            None => Trust::default(),
        };
        self.trust.changed.store(false, Ordering::Relaxed);
        self.trust.newest.send_replace(Arc::new(trust));
        Ok(())
    }
}
