//! Programs that are measured: started, looked at, and ended by their id.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::Result;

/// A program that runs until it is dropped.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts it; what it says goes into a file beside its data.
    pub fn start(mut command: Command, log: &Path) -> Result<Process> {
        let said = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(|error| format!("open {}: {error}", log.display()))?;
        let also = said.try_clone().map_err(|error| error.to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(said)
            .stderr(also)
            .spawn()
            .map_err(|error| format!("start {command:?}: {error}"))?;
        Ok(Process { child })
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        // One that has ended already is what was wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Resident memory in MB.
    pub fn resident(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .map_err(|error| format!("the process is gone: {error}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kilobytes.map(|kilobytes| kilobytes / 1024.0).ok_or("no VmRSS in its status".to_owned())
    }

    /// Processor time that it has used, in seconds.
    pub fn processor_time(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))
            .map_err(|error| format!("the process is gone: {error}"))?;
        // Its name, in brackets, may hold blanks. `utime` and `stime` are the twelfth and thirteenth behind it.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        let ticks: Vec<f64> =
            fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
        // SAFETY: sysconf only reads.
        let a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        match ticks[..] {
            [user, system] => Ok((user + system) / a_second),
            _ => Err(format!("not what /proc/PID/stat is: {stat}")),
        }
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ports that nobody uses at the moment.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<std::io::Result<_>>()
        .map_err(|error| format!("find a free port: {error}"))?;
    listeners
        .iter()
        .map(|listener| listener.local_addr().map(|address| address.port()))
        .collect::<std::io::Result<_>>()
        .map_err(|error| error.to_string())
}
