//! A replicated log on raft-rs.
