//! What the entrypoint and the agent say to each other: the spec of one container and the frames
//! of its record. Only std, so that both sides can use it.
