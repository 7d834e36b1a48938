//! The static entrypoint program, carried inside this one: built by this crate's `build.rs`.
//!
//! Backends write it to where their containers can execute it.

/// The bytes of the executable.
pub static ENTRYPOINT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tenon-entrypoint"));
/// Tells one build of it from another.
pub const ENTRYPOINT_HASH: &str = env!("TENON_ENTRYPOINT_HASH");

#[cfg(test)]
mod tests {
    use super::ENTRYPOINT;

    #[test]
    fn it_is_an_executable_that_needs_no_loader() {
        assert_eq!(&ENTRYPOINT[..4], b"\x7fELF");
        let interpreter = b"/lib64/ld-linux";
        assert!(!ENTRYPOINT.windows(interpreter.len()).any(|window| window == interpreter));
        assert!(ENTRYPOINT.len() < 3 << 20, "{} bytes", ENTRYPOINT.len());
    }
}
