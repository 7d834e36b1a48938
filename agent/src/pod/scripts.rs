//! Script files, as Tekton writes them.

use tenon_proto::agent::v1::AttemptId;

/// Letters of Kubernetes' random names.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The text of the file: what has no `#!` gets a shell that stops at the first error. Blank space
/// before `#!` counts as having one, although the kernel sees none: so does Tekton.
pub fn text(script: &str) -> String {
    if script.trim().starts_with("#!") {
        script.to_owned()
    } else {
        format!("#!/bin/sh\nset -e\n{script}")
    }
}

/// The file's name: `script-<index>-<5 letters>` or `sidecar-script-…`. The letters are a hash of
/// the attempt, so that every restart derives the same.
pub fn file_name(attempt: &AttemptId, sidecar: bool, index: usize) -> String {
    let prefix = if sidecar { "sidecar-script" } else { "script" };
    let name = format!("{prefix}-{index}");
    // FNV-1a
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in super::attempt_key(attempt).bytes().chain(name.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let mut letters = String::new();
    for _ in 0..5 {
        letters.push(char::from(ALPHABET[(hash % 27) as usize]));
        hash /= 27;
    }
    format!("{name}-{letters}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shebang_rule() {
        for (script, expected) in [
            ("echo\n", "#!/bin/sh\nset -e\necho\n"),
            ("#!/bin/bash\necho", "#!/bin/bash\necho"),
            ("\n  #!/bin/bash\n", "\n  #!/bin/bash\n"),
            ("\necho $$ $$$", "#!/bin/sh\nset -e\n\necho $$ $$$"),
        ] {
            assert_eq!(text(script), expected);
        }
    }

    #[test]
    fn names_are_stable_and_differ() {
        let attempt = AttemptId::default();
        let name = file_name(&attempt, false, 3);
        assert!(name.starts_with("script-3-") && name.len() == 14, "{name}");
        assert_eq!(name, file_name(&attempt, false, 3));
        assert_ne!(name[9..], file_name(&attempt, false, 4)[9..]);
        assert!(file_name(&attempt, true, 0).starts_with("sidecar-script-0-"));
    }
}
