//! `tenon coordinator`, and the operator's commands on a coordinator's files.

use std::path::Path;

use crate::args::{CoordinatorArgs, RecoverArgs, RestoreArgs};
use crate::exit::{Exit, Failure};

/// `tenon coordinator`.
pub fn coordinator(_args: &CoordinatorArgs, _state_dir: &Path) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Internal, "not there yet"))
}

/// `tenon cluster restore`.
pub fn restore(_args: &RestoreArgs) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Internal, "not there yet"))
}

/// `tenon cluster recover`.
pub fn recover(_args: &RecoverArgs) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Internal, "not there yet"))
}
