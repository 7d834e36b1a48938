//! A file system in memory that loses power, runs full and fails, from a seed.

mod random;

pub use random::Random;
