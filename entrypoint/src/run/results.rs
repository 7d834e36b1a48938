//! Reading the result files when the command is over, and the limit on them: together they must
//! fit the termination message that Tekton would write for the container.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use tenon_entrypoint::Spec;

use crate::sys;

/// The most that is read where the spec sets no limit; a frame holds no more.
const UNLIMITED: usize = 4 << 20;

/// Tekton's numbers for the kinds of entries in a termination message.
const TASK_RESULT: u8 = 1;
const INTERNAL: u8 = 3;
const STEP_RESULT: u8 = 4;

/// The results of a step, name and contents.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Results {
    pub task: Vec<(String, String)>,
    pub step: Vec<(String, String)>,
}

/// What keeps a step from having its results. It fails the step with exit code 1.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// Beyond the limit.
    TooLarge(u32),
    /// A result is there but cannot be read.
    Unreadable(String),
}

impl Failure {
    /// Tekton's words.
    pub fn message(&self) -> String {
        match self {
            Self::TooLarge(limit) => format!(
                "Termination message is above max allowed size {limit}, caused by large task result."
            ),
            Self::Unreadable(what) => format!("Error executing command: {what}"),
        }
    }
}

impl Results {
    /// Reads every declared result that exists. `internal` are Tekton's own entries, which share
    /// the message. With a failure come the results that were stored before it.
    pub fn read(spec: &Spec, internal: &[(&str, &str)]) -> (Self, Option<Failure>) {
        let mut results = Self::default();
        let mut message = Message::new(spec.max_message_size);
        match read_all(spec.results_dir.as_ref(), &spec.results, TASK_RESULT, &mut message) {
            Ok(task) => results.task = task,
            Err(failure) => return (results, Some(failure)),
        }
        let metadata_dir = spec.metadata_dir.as_deref().unwrap_or_default();
        let step_dir = Path::new(metadata_dir).join("results");
        match read_all(&step_dir, &spec.step_results, STEP_RESULT, &mut message) {
            Ok(step) => results.step = step,
            Err(failure) => return (results, Some(failure)),
        }
        for (key, value) in internal {
            message.add(key, value, INTERNAL);
        }
        let failure = message.check().err();
        (results, failure)
    }
}

fn read_all(
    directory: &Path,
    names: &[String],
    kind: u8,
    message: &mut Message,
) -> Result<Vec<(String, String)>, Failure> {
    let mut results = Vec::new();
    for name in names.iter().filter(|name| !name.is_empty()) {
        let path = directory.join(name);
        let Some(contents) = read(&path, message.limit()).map_err(|e| {
            Failure::Unreadable(format!("read {}: {}", path.display(), sys::describe(&e)))
        })?
        else {
            continue;
        };
        message.add(name, &contents, kind);
        results.push((name.clone(), contents));
    }
    message.check()?;
    Ok(results)
}

/// The text of a file, no more than is needed to see that it is too long; `None` when it is not there.
fn read(path: &Path, limit: usize) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The length of the termination message as Go's encoder would write it.
struct Message {
    length: usize,
    max: u32,
}

impl Message {
    fn new(max: u32) -> Self {
        Self { length: 1, max }
    }

    fn limit(&self) -> usize {
        if self.max == 0 { UNLIMITED } else { self.max as usize }
    }

    fn add(&mut self, key: &str, value: &str, kind: u8) {
        debug_assert!(kind < 10, "one digit");
        // {"key":K,"value":V,"type":T} and a comma or the closing bracket.
        self.length += r#"{"key":"","value":"","type":0},"#.len()
            + escaped_length(key)
            + escaped_length(value);
    }

    fn check(&self) -> Result<(), Failure> {
        if self.length > self.limit() {
            let shown = u32::try_from(self.limit()).unwrap_or(u32::MAX);
            return Err(Failure::TooLarge(shown));
        }
        Ok(())
    }
}

/// How long Go writes a text in JSON: it also escapes what HTML would take as markup.
fn escaped_length(text: &str) -> usize {
    text.chars()
        .map(|letter| match letter {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => 6,
            letter if letter < ' ' => 6,
            letter => letter.len_utf8(),
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(directory: &Path, max_message_size: u32) -> Spec {
        Spec {
            results_dir: directory.to_str().unwrap().into(),
            results: vec!["a".into(), "absent".into()],
            metadata_dir: Some(directory.to_str().unwrap().into()),
            step_results: vec!["s".into()],
            max_message_size,
            ..Spec::default()
        }
    }

    #[test]
    fn results_are_raw_and_absent_ones_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a"), "hi\n").unwrap();
        std::fs::create_dir(directory.path().join("results")).unwrap();
        std::fs::write(directory.path().join("results/s"), "5").unwrap();
        let (results, failure) = Results::read(&spec(directory.path(), 4096), &[]);
        assert_eq!(results.task, [("a".to_owned(), "hi\n".to_owned())]);
        assert_eq!(results.step, [("s".to_owned(), "5".to_owned())]);
        assert_eq!(failure, None);
    }

    #[test]
    fn the_limit_is_on_the_message_as_tekton_writes_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a");
        // [{"key":"a","value":"…","type":1}] is 33 bytes without the value.
        let fits = 200 - 33;
        for (contents, too_large) in [
            ("x".repeat(fits), false),
            ("x".repeat(fits + 1), true),
            ("\"".repeat(fits / 2 + 1), true),
            ("<".repeat(fits / 6), false),
            ("<".repeat(fits / 6 + 1), true),
        ] {
            std::fs::write(&file, &contents).unwrap();
            let (results, failure) = Results::read(&spec(directory.path(), 200), &[]);
            assert_eq!(failure.is_some(), too_large, "{} bytes", contents.len());
            assert_eq!(results.task.is_empty(), too_large);
        }
        assert_eq!(
            Failure::TooLarge(4096).message(),
            "Termination message is above max allowed size 4096, caused by large task result."
        );
    }

    #[test]
    fn a_result_that_cannot_be_read_fails_the_step() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("a")).unwrap();
        let (_, failure) = Results::read(&spec(directory.path(), 4096), &[]);
        assert!(failure.unwrap().message().ends_with("a: is a directory"));
    }

    #[test]
    fn a_huge_result_is_not_read_whole() {
        let directory = tempfile::tempdir().unwrap();
        File::create(directory.path().join("a")).unwrap().set_len(1 << 40).unwrap();
        let (_, failure) = Results::read(&spec(directory.path(), 4096), &[]);
        assert_eq!(failure, Some(Failure::TooLarge(4096)));
    }
}
