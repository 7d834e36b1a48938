//! State that must be looked up: sorted keys, changed by atomic batches.
