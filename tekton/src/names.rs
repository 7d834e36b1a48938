//! Names of what a run makes: TaskRuns, pods, volumes, claims.
//!
//! Every name is a function of its inputs, so that a replay makes the same names. Random bits, where
//! Kubernetes would draw them, are an argument.

use md5::{Digest, Md5};
use sha2::Sha256;

use crate::k8s::PersistentVolumeClaim;

/// Longest name of a Kubernetes object here.
const LONGEST: usize = 63;
/// Length of an MD5 digest in hex.
const MD5_LENGTH: usize = 32;
/// The alphabet of Kubernetes' random name endings.
const RANDOM_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The longest prefix of at most `length` bytes that ends at a character boundary.
fn cut(text: &str, length: usize) -> &str {
    &text[..text.floor_char_boundary(length)]
}

/// knative's `ChildName`: `parent` + `suffix`, with a hash in the middle when that is too long.
pub fn child_name(parent: &str, suffix: &str) -> String {
    if parent.len() + suffix.len() <= LONGEST {
        return format!("{parent}{suffix}");
    }
    let head = LONGEST - MD5_LENGTH;
    let name = if head > suffix.len() {
        let digest = hex(&Md5::digest(parent.as_bytes()));
        format!("{}{digest}{suffix}", cut(parent, head - suffix.len()))
    } else {
        // The suffix does not fit beside the hash: it is hashed too, and fills what space is left.
        let digest = hex(&Md5::digest(format!("{parent}{suffix}").as_bytes()));
        let start = cut(parent, head);
        let rest = LONGEST - start.len() - digest.len();
        format!("{start}{digest}{}", cut(suffix, rest))
    };
    // knative drops what may not end a name.
    name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

/// Names of the `count` runs of a PipelineTask; only a fan-out of several gets an index.
pub fn task_run_names(pipeline_run: &str, pipeline_task: &str, count: usize) -> Vec<String> {
    let plain = child_name(pipeline_run, &format!("-{pipeline_task}"));
    if count == 1 {
        return vec![plain];
    }
    let longest = LONGEST - format!("-{count}").len();
    (0..count)
        .map(|i| {
            let name = child_name(pipeline_run, &format!("-{pipeline_task}-{i}"));
            if name.ends_with(&format!("-{i}")) {
                name
            } else {
                format!("{}-{i}", cut(&plain, longest))
            }
        })
        .collect()
}

/// Name of the pod of attempt `retry` (0 is the first) of a TaskRun.
pub fn pod_name(task_run: &str, retry: usize) -> String {
    match retry {
        0 => child_name(task_run, "-pod"),
        n => child_name(task_run, &format!("-pod-retry{n}")),
    }
}

/// What an API server makes of `generateName`: the base, cut to 58, and five random characters drawn
/// from `bits`.
pub fn generated_name(generate_name: &str, mut bits: u64) -> String {
    let mut name = cut(generate_name, LONGEST - 5).to_owned();
    let radix = RANDOM_ALPHABET.len() as u64;
    for _ in 0..5 {
        name.push(char::from(RANDOM_ALPHABET[(bits % radix) as usize]));
        bits /= radix;
    }
    name
}

/// Cuts a name to 63 characters and drops what may not end one (Tekton's `RestrictLength`).
pub fn restrict_length(base: &str) -> String {
    cut(base, LONGEST).trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

/// `prefix-` and the first `length` hex digits of the 32-bit FNV-1a hash of `name`.
pub fn hashed_name(prefix: &str, name: &str, length: usize) -> String {
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let digits = format!("{hash:x}");
    format!("{prefix}-{:0<length$}", cut(&digits, length))
}

/// Name of the volume of a bound workspace, avoiding the names in `used`.
pub fn workspace_volume_name(workspace: &str, used: &[String]) -> String {
    let mut name = hashed_name("ws", workspace, 5);
    while used.contains(&name) {
        name = hashed_name("ws", &format!("{name}$"), 5);
    }
    name
}

/// Name of the claim made from a workspace's `volumeClaimTemplate` for the run with `owner_uid`.
pub fn claim_name(template: &PersistentVolumeClaim, workspace: &str, owner_uid: &str) -> String {
    let digest = hex(&Sha256::digest(format!("{workspace}{owner_uid}").as_bytes()));
    let base = match template.metadata.name.as_str() {
        "" => "pvc",
        name => name,
    };
    format!("{base}-{}", &digest[..10])
}

/// `step-<name>`, or `step-unnamed-<index>` for a step without a name.
pub fn step_container(name: &str, index: usize) -> String {
    if name.is_empty() {
        format!("step-unnamed-{index}")
    } else {
        restrict_length(&format!("step-{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_joined() {
        assert_eq!(child_name("asdf", "f"), "asdff");
        assert_eq!(pod_name("tr", 0), "tr-pod");
        assert_eq!(pod_name("tr", 2), "tr-pod-retry2");
    }

    #[test]
    fn long_names_carry_a_hash() {
        // The example of Tekton's documentation.
        assert_eq!(
            pod_name(
                "task-run-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789",
                0
            ),
            "task-run-0123456789-01234560d38957287bb0283c59440df14069f59-pod"
        );
        let long = "a".repeat(63);
        assert_eq!(child_name(&long, "-deployment").len(), 63);
        assert_eq!(child_name(&long, &"b".repeat(63)).len(), 63);
    }

    #[test]
    fn matrix_names_have_an_index_unless_alone() {
        assert_eq!(task_run_names("pr", "t", 1), ["pr-t"]);
        assert_eq!(task_run_names("pr", "t", 2), ["pr-t-0", "pr-t-1"]);
        assert!(task_run_names("pr", "t", 0).is_empty());
        let names = task_run_names("pr", &"x".repeat(63), 12);
        assert!(names.iter().all(|name| name.len() <= 63));
        assert!(names[11].ends_with("-11"));
    }

    #[test]
    fn volumes_and_claims_are_hashed() {
        assert_eq!(hashed_name("ws", "", 5), "ws-811c9");
        let first = workspace_volume_name("source", &[]);
        assert_eq!(first.len(), 8);
        assert_ne!(workspace_volume_name("source", std::slice::from_ref(&first)), first);
        let claim = claim_name(&PersistentVolumeClaim::default(), "ws", "uid");
        assert!(claim.starts_with("pvc-") && claim.len() == 14);
    }

    #[test]
    fn generated_names_follow_the_bits() {
        let name = generated_name("build-", 12_345_678_901);
        assert_eq!(name.len(), 11);
        assert_eq!(name, generated_name("build-", 12_345_678_901));
        assert!(generated_name(&"x".repeat(80), 7).len() == 63);
        assert_eq!(restrict_length("abc-"), "abc");
    }
}
