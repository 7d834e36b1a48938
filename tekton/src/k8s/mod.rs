//! The parts of Kubernetes' core API that Tekton documents are made of, as Kubernetes names them.
//!
//! What Tenon acts on is typed; what only a cluster scheduler understands (affinity, tolerations,
//! …) is carried as JSON, so that it survives into `-o yaml` and to a real Tekton.

mod container;
mod core;
mod meta;
mod volume;

pub use container::*;
pub use core::*;
pub use meta::*;
pub use volume::*;
