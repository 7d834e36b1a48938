//! The static entrypoint program, carried inside this one: built by this crate's `build.rs`.
//!
//! Backends write it to where their containers can execute it.

/// The bytes of the executable.
pub static ENTRYPOINT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tenon-entrypoint"));

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
