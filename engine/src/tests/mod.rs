//! The engine's tests as stories: a fake agent ([`sim`]) answers the engine's work with reports.

mod cancel;
mod events;
mod random;
mod scheduling;
mod sim;
mod status;
mod submit;
mod timeouts;
