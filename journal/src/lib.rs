//! The one durable primitive: an append-only, segmented, checksummed log of records, and the packed form of step output.

pub mod output;
