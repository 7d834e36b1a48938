//! The orders of one container, written by the agent into a file whose path is the only thing that
//! the container's command line shows: environment and arguments may hold secrets.
//!
//! The entrypoint unlinks the file once it is read. Agent and entrypoint are built together, so the
//! encoding carries a version only to fail clearly, not to be compatible.

use crate::wire::{Decoder, Encoder, Malformed};

const MAGIC: &[u8; 8] = b"TENSPEC1";

/// What one container is to do. `Default` is a step that runs nothing and touches no file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// Step or sidecar.
    pub mode: Mode,
    /// The command and its arguments, after all expansions but `$(steps.S.results.R)`. `argv[0]` is
    /// looked up in `PATH` when it has no slash. Empty: nothing is run and the step succeeds.
    pub argv: Vec<String>,
    /// Environment in order; later wins. It goes on top of the environment that the container gives
    /// the entrypoint (the image's).
    pub env: Vec<(String, String)>,
    /// Directory to change to before the command, made (0755) when missing. `None`: stay.
    pub cwd: Option<String>,
    /// The record file (see [`crate::frame`]): appended to, made when missing.
    pub record: String,
    /// Files to wait for, one after the other, before anything runs.
    pub wait_files: Vec<WaitFile>,
    /// Made when the step is over; with `.err` appended when it failed.
    pub post_file: Option<String>,
    /// Where `exitCode`, `results/` and `artifacts/` of this step go (`/tekton/run/<i>/status`).
    pub metadata_dir: Option<String>,
    /// Where task results are (`/tekton/results`).
    pub results_dir: String,
    /// Names of task results to read when the command is over.
    pub results: Vec<String>,
    /// Names of step results to read from `<metadata_dir>/results`.
    pub step_results: Vec<String>,
    /// Where results of earlier steps are found (`/tekton/steps`), for `$(steps.S.results.R)`.
    pub steps_dir: String,
    /// Nanoseconds the command may take; 0: any time; negative: the step fails as in Tekton.
    pub timeout_nanos: i64,
    /// What a non-zero exit means.
    pub on_error: OnError,
    /// All must hold, or the step is skipped successfully.
    pub when: Vec<When>,
    /// Most bytes of the termination message, as Tekton would write it; 0: no limit.
    pub max_message_size: u32,
    /// What `/sys/fs/cgroup` shows counts this container alone.
    pub own_cgroup: bool,
    /// Where credential files go (`/tekton/creds`), and then to `$HOME`.
    pub credentials_dir: String,
    /// The credential files: `.gitconfig`, `.git-credentials`, below `.ssh/` and `.docker/`.
    pub credentials: Vec<CredentialFile>,
    /// A file that also gets the command's stdout (`stdoutConfig.path`).
    pub stdout_path: Option<String>,
    /// A file that also gets the command's stderr. May be the same as `stdout_path`.
    pub stderr_path: Option<String>,
    /// When this file appears and is not empty, the step is killed and ends as cancelled.
    pub cancel_file: Option<String>,
}

/// What kind of container it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// A step: gated, with results and outcome files.
    #[default]
    Step,
    /// A sidecar: it is only recorded and signalled; everything about gates, results, outcome files
    /// and timeouts in the spec is ignored.
    Sidecar,
}

/// Tekton's `onError`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The following steps are skipped and the step fails.
    #[default]
    StopAndFail,
    /// The exit code is recorded and the following steps run.
    Continue,
}

/// A file to wait for. When `<path>.err` appears instead, the step is skipped as failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitFile {
    /// Its path.
    pub path: String,
    /// Wait until it is not empty.
    pub with_content: bool,
}

/// One `when` expression of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// The text to look for.
    pub input: String,
    /// How.
    pub operator: WhenOperator,
    /// Where.
    pub values: Vec<String>,
    /// A CEL expression, `""` when there is none. Not supported here: the step fails and says so.
    pub cel: String,
}

/// `in` or `notin`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenOperator {
    /// The input is among the values.
    #[default]
    In,
    /// It is not.
    NotIn,
}

/// One file with credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialFile {
    /// Relative path, e.g. `.ssh/config`. No `..`.
    pub path: String,
    /// What is in it.
    pub contents: Vec<u8>,
}

impl Spec {
    /// The bytes of the spec file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::default();
        e.bytes.extend_from_slice(MAGIC);
        e.u8(match self.mode {
            Mode::Step => 0,
            Mode::Sidecar => 1,
        });
        e.strings(&self.argv);
        e.pairs(&self.env);
        e.option(self.cwd.as_deref(), Encoder::str);
        e.str(&self.record);
        e.list(&self.wait_files, |e, w| {
            e.str(&w.path);
            e.bool(w.with_content);
        });
        e.option(self.post_file.as_deref(), Encoder::str);
        e.option(self.metadata_dir.as_deref(), Encoder::str);
        e.str(&self.results_dir);
        e.strings(&self.results);
        e.strings(&self.step_results);
        e.str(&self.steps_dir);
        e.i64(self.timeout_nanos);
        e.bool(self.on_error == OnError::Continue);
        e.list(&self.when, |e, w| {
            e.str(&w.input);
            e.bool(w.operator == WhenOperator::NotIn);
            e.strings(&w.values);
            e.str(&w.cel);
        });
        e.u32(self.max_message_size);
        e.bool(self.own_cgroup);
        e.str(&self.credentials_dir);
        e.list(&self.credentials, |e, c| {
            e.str(&c.path);
            e.bytes(&c.contents);
        });
        e.option(self.stdout_path.as_deref(), Encoder::str);
        e.option(self.stderr_path.as_deref(), Encoder::str);
        e.option(self.cancel_file.as_deref(), Encoder::str);
        e.bytes
    }

    /// Reads what [`Spec::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are of another version, cut, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut d = Decoder::new(bytes);
        if d.take(MAGIC.len())? != MAGIC {
            return Err(Malformed("not a spec of this version"));
        }
        let spec = Self {
            mode: match d.u8()? {
                0 => Mode::Step,
                1 => Mode::Sidecar,
                _ => return Err(Malformed("unknown mode")),
            },
            argv: d.strings()?,
            env: d.pairs()?,
            cwd: d.option(Decoder::str)?,
            record: d.str()?,
            wait_files: d.list(|d| Ok(WaitFile { path: d.str()?, with_content: d.bool()? }))?,
            post_file: d.option(Decoder::str)?,
            metadata_dir: d.option(Decoder::str)?,
            results_dir: d.str()?,
            results: d.strings()?,
            step_results: d.strings()?,
            steps_dir: d.str()?,
            timeout_nanos: d.i64()?,
            on_error: if d.bool()? { OnError::Continue } else { OnError::StopAndFail },
            when: d.list(|d| {
                Ok(When {
                    input: d.str()?,
                    operator: if d.bool()? { WhenOperator::NotIn } else { WhenOperator::In },
                    values: d.strings()?,
                    cel: d.str()?,
                })
            })?,
            max_message_size: d.u32()?,
            own_cgroup: d.bool()?,
            credentials_dir: d.str()?,
            credentials: d
                .list(|d| Ok(CredentialFile { path: d.str()?, contents: d.bytes()?.to_vec() }))?,
            stdout_path: d.option(Decoder::str)?,
            stderr_path: d.option(Decoder::str)?,
            cancel_file: d.option(Decoder::str)?,
        };
        d.end()?;
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Spec {
        Spec {
            mode: Mode::Sidecar,
            argv: vec!["sh".into(), "-c".into(), "echo \"ä\"\n".into()],
            env: vec![("A".into(), "1".into()), ("B".into(), String::new())],
            cwd: Some("/workspace/src".into()),
            record: "/tekton/record".into(),
            wait_files: vec![WaitFile { path: "/tekton/run/0/out".into(), with_content: true }],
            post_file: Some("/tekton/run/1/out".into()),
            metadata_dir: Some("/tekton/run/1/status".into()),
            results_dir: "/tekton/results".into(),
            results: vec!["sum".into()],
            step_results: vec!["len".into()],
            steps_dir: "/tekton/steps".into(),
            timeout_nanos: -1,
            on_error: OnError::Continue,
            when: vec![When {
                input: "a".into(),
                operator: WhenOperator::NotIn,
                values: vec!["b".into()],
                cel: "true".into(),
            }],
            max_message_size: 4096,
            own_cgroup: true,
            credentials_dir: "/tekton/creds".into(),
            credentials: vec![CredentialFile { path: ".ssh/id_x".into(), contents: vec![0, 255] }],
            stdout_path: Some("/workspace/out".into()),
            stderr_path: Some("/workspace/err".into()),
            cancel_file: Some("/tekton/downward/cancel".into()),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for spec in [Spec::default(), full()] {
            assert_eq!(Spec::decode(&spec.encode()), Ok(spec));
        }
    }

    #[test]
    fn a_cut_or_longer_file_is_refused() {
        let bytes = full().encode();
        for length in 0..bytes.len() {
            assert!(Spec::decode(&bytes[..length]).is_err(), "cut at {length}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(Spec::decode(&longer).is_err());
        assert_eq!(Spec::decode(b"#!/bin/sh"), Err(Malformed("not a spec of this version")));
    }
}
