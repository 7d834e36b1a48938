//! What a container has used, looked up when it ends: by the kernel's count of this process' children,
//! and by the container's own control group where it has one. Neither is waited for.

use std::fs;
use std::mem::MaybeUninit;

use tenon_entrypoint::frame::Usage;

/// Where a container sees control groups.
const GROUPS: &str = "/sys/fs/cgroup";

/// Until now. `own_group`: what is in [`GROUPS`] counts this container alone.
pub fn usage(own_group: bool) -> Usage {
    let mut usage = of_children();
    if let Ok(text) = fs::read_to_string("/proc/self/io") {
        // Children that were waited for are in it.
        (usage.io_read, usage.io_write) = io(&text);
    }
    if own_group {
        let read = |path: &str| fs::read_to_string(format!("{GROUPS}/{path}")).ok();
        let number = |path: &str| read(path)?.trim().parse().ok();
        // Daemons that a step left behind are counted by the group only.
        let cpu = read("cpu.stat")
            .and_then(|text| field(&text, "usage_usec "))
            .or_else(|| Some(number("cpuacct/cpuacct.usage")? / 1000));
        usage.cpu_micros = usage.cpu_micros.max(cpu);
        let peak = number("memory.peak").or_else(|| number("memory/memory.max_usage_in_bytes"));
        usage.memory_peak = peak.or(usage.memory_peak);
    }
    usage
}

/// CPU time of all children that were waited for, and the largest of them.
fn of_children() -> Usage {
    let mut found = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: rusage is plain data, which the call fills, or leaves zero.
    let found = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, found.as_mut_ptr());
        found.assume_init()
    };
    let micros = |time: libc::timeval| {
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        seconds * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0)
    };
    // Linux counts in KiB.
    let peak = u64::try_from(found.ru_maxrss).unwrap_or(0) * 1024;
    Usage {
        cpu_micros: Some(micros(found.ru_utime) + micros(found.ru_stime)),
        memory_peak: Some(peak).filter(|&peak| peak > 0),
        ..Usage::default()
    }
}

fn io(text: &str) -> (Option<u64>, Option<u64>) {
    (field(text, "read_bytes: "), field(text, "\nwrite_bytes: "))
}

/// The number behind a name.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = &text[text.find(name)? + name.len()..];
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_kernels_texts() {
        let text =
            "rchar: 9\nwchar: 8\nread_bytes: 4096\nwrite_bytes: 12\ncancelled_write_bytes: 7\n";
        assert_eq!(io(text), (Some(4096), Some(12)));
        assert_eq!(field("usage_usec 77\nuser_usec 70\n", "usage_usec "), Some(77));
        assert_eq!(field("nothing", "usage_usec "), None);
    }
}
