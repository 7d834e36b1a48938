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

/// Its CPUs, in thousandths.
pub fn cpu_millis() -> u64 {
    std::thread::available_parallelism().map_or(0, |cores| cores.get() as u64 * 1000)
}

/// Its memory, in bytes; 0 where that cannot be known.
pub fn memory() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// Its architecture, as Kubernetes calls it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
