//! What a client tells its user while it goes on trying.

/// Something that a person who waits may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A node did not answer as it should; others, or the same one later, are tried.
    Retrying {
        /// Why, in words.
        why: String,
    },
    /// After that: a node answers again.
    Answering {
        /// Which one.
        url: String,
    },
}
