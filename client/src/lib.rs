//! Talks to a cluster.
