//! Becoming a member, and changing who is one.

/// Why a change of the membership was not made.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {}
