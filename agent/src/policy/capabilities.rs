//! Linux capabilities as sets.

use std::collections::BTreeSet;

use tenon_tekton::k8s;
use tenon_tekton::pod::capability;

/// All of them, in the kernel's order: the place is the number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What root has in a container that asks for nothing: enough to install packages, to unpack archives,
/// to change users and to serve a low port. Of Docker's own, MKNOD, NET_RAW, AUDIT_WRITE and SETPCAP are
/// not among them. SETFCAP is: installing packages with RPM fails without it, and new privileges come
/// from no file anyway.
const DEFAULT: [&str; 10] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETUID",
    "SYS_CHROOT",
];

/// The capabilities that a container may ever have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capabilities {
    /// All but these.
    AllBut(BTreeSet<String>),
    /// These.
    Only(BTreeSet<String>),
}

impl Capabilities {
    /// What is left of the default after `drop`, and `add`: as Kubernetes has it, `ALL` stands for all,
    /// and what is added is there although it is dropped.
    pub fn of(asked: Option<&k8s::Capabilities>) -> Capabilities {
        let none = k8s::Capabilities::default();
        let asked = asked.unwrap_or(&none);
        let names = |names: &[String]| -> BTreeSet<String> {
            names.iter().map(|name| capability(name)).collect()
        };
        let (add, drop) = (names(&asked.add), names(&asked.drop));
        if add.contains("ALL") {
            return match drop.contains("ALL") {
                true => Capabilities::Only(BTreeSet::new()),
                false => Capabilities::AllBut(drop),
            };
        }
        let mut kept: BTreeSet<String> = match drop.contains("ALL") {
            true => BTreeSet::new(),
            false => {
                DEFAULT.map(str::to_owned).into_iter().filter(|it| !drop.contains(it)).collect()
            }
        };
        kept.extend(add);
        Capabilities::Only(kept)
    }

    /// Whether that one is among them.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Capabilities::AllBut(dropped) => !dropped.contains(name),
            Capabilities::Only(kept) => kept.contains(name),
        }
    }

    /// One bit for each, by the kernel's numbers. What has no name here goes with all.
    pub fn bits(&self) -> u64 {
        let known = NAMES.iter().enumerate().filter(|(_, name)| self.has(name));
        let known = known.fold(0, |bits, (number, _)| bits | 1 << number);
        match self {
            Capabilities::AllBut(_) => known | (u64::MAX << NAMES.len()),
            Capabilities::Only(_) => known,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(add: &[&str], drop: &[&str]) -> Capabilities {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Capabilities::of(Some(&k8s::Capabilities { add: names(add), drop: names(drop) }))
    }

    #[test]
    fn added_and_dropped_as_kubernetes_does() {
        let default = Capabilities::of(None);
        assert!(default.has("CHOWN") && !default.has("NET_RAW"));
        assert_eq!(default.bits().count_ones(), 10);
        assert_eq!(of(&[], &["ALL"]).bits(), 0);
        assert_eq!(of(&["cap_chown"], &["ALL"]).bits(), 1);
        assert!(of(&["NET_RAW"], &[]).has("NET_RAW") && !of(&[], &["CAP_KILL"]).has("KILL"));
        assert!(of(&["KILL"], &["KILL"]).has("KILL"));
        assert_eq!(of(&["ALL"], &[]).bits(), u64::MAX);
        assert_eq!(of(&["ALL"], &["CHOWN"]).bits(), u64::MAX - 1);
        assert_eq!(of(&["BPF"], &["ALL"]).bits(), 1 << 39);
    }
}
