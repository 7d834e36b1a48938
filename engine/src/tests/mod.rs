//! The engine's tests as stories: a fake agent ([`sim`]) answers the engine's work with reports.

#![expect(clippy::needless_pass_by_value, reason = "a test hands over json!(…) where it writes it")]

mod cancel;
mod claims;
mod documents;
mod events;
mod groups;
mod halts;
mod held;
mod random;
mod rerun;
mod scheduling;
mod sim;
mod status;
mod submit;
mod timeouts;
