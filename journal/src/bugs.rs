//! Deliberate bugs, to test the tests: the simulator must catch each of them.
//!
//! A bug is switched on for the current thread, and only where the cargo feature `simulation` is: elsewhere [`is_on`] is a
//! constant `false`, and the code behind it is gone.

/// What can be broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// The Raft log is not synced before it is acknowledged.
    SkipLogSync,
    /// The store is not synced before the Raft log is compacted.
    SkipStateSync,
    /// The vote is not stored.
    ForgetVote,
    /// A committed entry is applied again after a restart.
    ApplyTwice,
    /// A client is answered before its entry is applied.
    AcknowledgeEarly,
    /// A proposal that was acknowledged is thrown away.
    DropAcknowledged,
    /// A task is placed again although its lease has not run out.
    ReplaceWithoutLease,
    /// An event is shown to a subscriber before it is committed.
    ShowBeforeCommit,
    /// The history is not synced before the store says that it was written.
    SkipHistorySync,
    /// Applying an entry depends on something else than the entry and the state.
    NondeterministicApply,
    /// An agent takes an old directory of a claim for the current one.
    StaleWorkspace,
    /// A claim is made of an older snapshot than the newest.
    OldSnapshot,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 12] = [
        Bug::SkipLogSync,
        Bug::SkipStateSync,
        Bug::ForgetVote,
        Bug::ApplyTwice,
        Bug::AcknowledgeEarly,
        Bug::DropAcknowledged,
        Bug::ReplaceWithoutLease,
        Bug::ShowBeforeCommit,
        Bug::SkipHistorySync,
        Bug::NondeterministicApply,
        Bug::StaleWorkspace,
        Bug::OldSnapshot,
    ];
}

#[cfg(feature = "simulation")]
mod switches {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static ON: Cell<u32> = const { Cell::new(0) };
    }

    /// Whether this thread is to misbehave so.
    pub fn is_on(bug: Bug) -> bool {
        ON.get() & bit(bug) != 0
    }

    /// Switches a bug on for this thread, until the value is dropped.
    #[must_use]
    pub fn switch_on(bug: Bug) -> SwitchedOn {
        let before = ON.get();
        ON.set(before | bit(bug));
        SwitchedOn { before, _this_thread: std::marker::PhantomData }
    }

    /// A bug is on as long as this lives.
    #[derive(Debug)]
    pub struct SwitchedOn {
        before: u32,
        _this_thread: std::marker::PhantomData<*const ()>,
    }

    impl Drop for SwitchedOn {
        fn drop(&mut self) {
            ON.set(self.before);
        }
    }

    fn bit(bug: Bug) -> u32 {
        1 << bug as u32
    }
}

#[cfg(feature = "simulation")]
pub use switches::{SwitchedOn, is_on, switch_on};

/// Whether this thread is to misbehave so.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub const fn is_on(_: Bug) -> bool {
    false
}
