//! What this machine is called, and how much it can do at a time.

/// The host's name.
pub fn name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "local".to_owned(), |name| name.trim().to_owned())
}

/// How many attempts at a time: steps mostly wait, so more than there are cores.
pub fn slots() -> usize {
    std::thread::available_parallelism().map_or(4, |cores| cores.get().max(2) * 4)
}
