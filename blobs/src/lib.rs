//! Directories as content-addressed chunks: what a workspace is when it moves from one agent to another.
