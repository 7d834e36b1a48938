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

/// How many files and connections this process may have open, after it has asked for all it may have.
pub fn open_files() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes into the struct that it is given, setrlimit reads it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return 1024;
        }
        let wanted = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const wanted) == 0 {
            limit = wanted;
        }
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX / 4).min(usize::MAX / 4)
}

/// Its architecture, as Kubernetes calls it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
