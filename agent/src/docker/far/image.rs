//! An image that holds nothing but the entrypoint: for containers that do something for the agent and
//! not for a step. It is imported once a version, and stays.

use bollard::Docker;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::TryStreamExt as _;

use crate::backend::BackendError;
use crate::docker::error;
use crate::entrypoint_binary::{ENTRYPOINT, ENTRYPOINT_HASH};

/// Its name without the tag.
const NAME: &str = "tenon-entrypoint";
/// Where the program is in it.
const PROGRAM: &str = "tekton/bin/entrypoint";

/// Makes sure that the daemon has it, and gives its name.
pub async fn ensure(docker: &Docker) -> Result<String, BackendError> {
    let name = format!("{NAME}:{ENTRYPOINT_HASH}");
    match docker.inspect_image(&name).await {
        Ok(_) => return Ok(name),
        Err(error) if error::status(&error) == Some(404) => {}
        Err(error) => return Err(failed(&error)),
    }
    let options =
        CreateImageOptionsBuilder::default().from_src("-").repo(NAME).tag(ENTRYPOINT_HASH).build();
    let body = bollard::body_full(archive().into());
    let imported: Result<Vec<_>, _> =
        docker.create_image(Some(options), Some(body), None).try_collect().await;
    imported.map_err(|error| failed(&error))?;
    Ok(name)
}

fn failed(error: &bollard::errors::Error) -> BackendError {
    BackendError {
        code: "docker/entrypoint-image",
        message: format!("the image {NAME} cannot be imported: {}", error::message(error)),
    }
}

/// A tar archive with the program.
fn archive() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ENTRYPOINT.len() + 8192);
    for directory in ["tekton/", "tekton/bin/"] {
        bytes.extend(header(directory, 0o755, 0, b'5'));
    }
    bytes.extend(header(PROGRAM, 0o755, ENTRYPOINT.len(), b'0'));
    bytes.extend_from_slice(ENTRYPOINT);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    // Two empty blocks are its end.
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// One header of a POSIX archive.
fn header(name: &str, mode: u32, size: usize, kind: u8) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, text: &str| {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(257, "ustar\u{0}00");
    header[156] = kind;
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[test]
    fn tar_reads_the_archive() {
        let dir = tempfile::tempdir().unwrap();
        let mut tar = Command::new("tar")
            .args(["-xf", "-", "-C"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(&super::archive()).unwrap();
        assert!(tar.wait().unwrap().success());
        let program = std::fs::read(dir.path().join(super::PROGRAM)).unwrap();
        assert!(program == super::ENTRYPOINT);
    }
}
