//! What an agent and the relay say to each other, where the agent's files are not the daemon's: orders
//! to the relay's standard input, answers from its standard output.
//!
//! Each message is a length (four bytes) and that many bytes. Orders are carried out one after the
//! other, and each may be given again: an agent that lost the connection repeats what was not
//! answered.

use crate::wire::{Decoder, Encoder, Malformed};

/// The variable that names the process which is to be told that the relay's container is needed.
pub const HOLDER: &str = "TENON_HOLDER";

/// Most bytes of one message.
const MOST: usize = 64 << 20;

/// What the relay is to do. Paths are the relay's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Make a directory and its parents, and set its mode.
    Directory {
        /// Where.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// Make a directory where there is none, for every user to write in. No symlink is followed:
    /// what is there may be a step's.
    Share {
        /// Where.
        path: String,
    },
    /// Write a file.
    File {
        /// Where; its directory is there.
        path: String,
        /// Permission bits.
        mode: u32,
        /// What is in it.
        contents: Vec<u8>,
    },
    /// Make a symlink.
    Link {
        /// Where.
        path: String,
        /// What it says.
        target: String,
    },
    /// Place the relay's own program in that directory, where it is not there yet.
    Program {
        /// The directory.
        path: String,
    },
    /// Make the file `out.err` in that directory, unless `out` or `out.err` is there.
    Unblock {
        /// The directory.
        path: String,
    },
    /// Remove a tree, or nothing.
    Remove {
        /// Which.
        path: String,
    },
    /// Pass on what is in that file from that offset on, and what will be.
    Follow {
        /// What to call it in answers.
        file: u32,
        /// Which.
        path: String,
        /// From where.
        from: u64,
    },
    /// Nobody needs the file before that offset any more: its room is given back.
    Kept {
        /// Which of those that are followed.
        file: u32,
        /// Up to where.
        upto: u64,
    },
    /// Answer with this number, once everything before is done and the files that are followed are
    /// read to their present ends.
    Report {
        /// The number.
        number: u64,
    },
}

/// What the relay says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// More of a file that is followed.
    Bytes {
        /// Which.
        file: u32,
        /// Where in it.
        at: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// Its writer has found no room.
    Touched {
        /// Which.
        file: u32,
    },
    /// The answer to [`Order::Report`].
    Done {
        /// Its number.
        number: u64,
    },
    /// An order could not be carried out.
    Failed {
        /// Why.
        message: String,
    },
}

/// A message with its length before it.
fn framed(encode: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    let mut e = Encoder::default();
    e.u32(0);
    encode(&mut e);
    let length = u32::try_from(e.bytes.len() - 4).expect("short because files in pods are");
    e.bytes[..4].copy_from_slice(&length.to_le_bytes());
    e.bytes
}

/// Takes the first whole message off `buffer`; none where it is not there yet.
fn message(buffer: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let Some((length, rest)) = buffer.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length > MOST {
        return Err(Malformed("a message is too long"));
    }
    Ok(rest.get(..length))
}

impl Order {
    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        framed(|e| match self {
            Order::Directory { path, mode } => {
                e.u8(0);
                e.str(path);
                e.u32(*mode);
            }
            Order::Share { path } => {
                e.u8(1);
                e.str(path);
            }
            Order::File { path, mode, contents } => {
                e.u8(2);
                e.str(path);
                e.u32(*mode);
                e.bytes(contents);
            }
            Order::Link { path, target } => {
                e.u8(3);
                e.str(path);
                e.str(target);
            }
            Order::Program { path } => {
                e.u8(4);
                e.str(path);
            }
            Order::Unblock { path } => {
                e.u8(5);
                e.str(path);
            }
            Order::Remove { path } => {
                e.u8(6);
                e.str(path);
            }
            Order::Follow { file, path, from } => {
                e.u8(7);
                e.u32(*file);
                e.str(path);
                e.u64(*from);
            }
            Order::Kept { file, upto } => {
                e.u8(8);
                e.u32(*file);
                e.u64(*upto);
            }
            Order::Report { number } => {
                e.u8(9);
                e.u64(*number);
            }
        })
    }

    /// The first order in `buffer` and how long it is; none where it is not whole yet.
    ///
    /// # Errors
    /// When the bytes are no order.
    pub fn decode(buffer: &[u8]) -> Result<Option<(Order, usize)>, Malformed> {
        let Some(bytes) = message(buffer)? else { return Ok(None) };
        let mut d = Decoder::new(bytes);
        let order = match d.u8()? {
            0 => Order::Directory { path: d.str()?, mode: d.u32()? },
            1 => Order::Share { path: d.str()? },
            2 => Order::File { path: d.str()?, mode: d.u32()?, contents: d.bytes()?.to_vec() },
            3 => Order::Link { path: d.str()?, target: d.str()? },
            4 => Order::Program { path: d.str()? },
            5 => Order::Unblock { path: d.str()? },
            6 => Order::Remove { path: d.str()? },
            7 => Order::Follow { file: d.u32()?, path: d.str()?, from: d.u64()? },
            8 => Order::Kept { file: d.u32()?, upto: d.u64()? },
            9 => Order::Report { number: d.u64()? },
            _ => return Err(Malformed("not an order")),
        };
        d.end()?;
        Ok(Some((order, 4 + bytes.len())))
    }
}

impl Answer {
    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        framed(|e| match self {
            Answer::Bytes { file, at, bytes } => {
                e.u8(0);
                e.u32(*file);
                e.u64(*at);
                e.bytes(bytes);
            }
            Answer::Touched { file } => {
                e.u8(1);
                e.u32(*file);
            }
            Answer::Done { number } => {
                e.u8(2);
                e.u64(*number);
            }
            Answer::Failed { message } => {
                e.u8(3);
                e.str(message);
            }
        })
    }

    /// The first answer in `buffer` and how long it is; none where it is not whole yet.
    ///
    /// # Errors
    /// When the bytes are no answer.
    pub fn decode(buffer: &[u8]) -> Result<Option<(Answer, usize)>, Malformed> {
        let Some(bytes) = message(buffer)? else { return Ok(None) };
        let mut d = Decoder::new(bytes);
        let answer = match d.u8()? {
            0 => Answer::Bytes { file: d.u32()?, at: d.u64()?, bytes: d.bytes()?.to_vec() },
            1 => Answer::Touched { file: d.u32()? },
            2 => Answer::Done { number: d.u64()? },
            3 => Answer::Failed { message: d.str()? },
            _ => return Err(Malformed("not an answer")),
        };
        d.end()?;
        Ok(Some((answer, 4 + bytes.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood_once_it_is_whole() {
        let path = || "/tenon/disk/a".to_owned();
        for order in [
            Order::Directory { path: path(), mode: 0o700 },
            Order::Share { path: path() },
            Order::File { path: path(), mode: 0o644, contents: vec![0, 255] },
            Order::Link { path: path(), target: "x".into() },
            Order::Program { path: path() },
            Order::Unblock { path: path() },
            Order::Remove { path: path() },
            Order::Follow { file: 3, path: path(), from: 1 << 40 },
            Order::Kept { file: 3, upto: 1 << 40 },
            Order::Report { number: u64::MAX },
        ] {
            let bytes = order.encode();
            for length in 0..bytes.len() {
                assert_eq!(Order::decode(&bytes[..length]), Ok(None), "cut at {length}");
            }
            let two = [&bytes[..], &bytes[..]].concat();
            assert_eq!(Order::decode(&two), Ok(Some((order, bytes.len()))));
        }
        for answer in [
            Answer::Bytes { file: 1, at: 2, bytes: vec![3] },
            Answer::Touched { file: 1 },
            Answer::Done { number: 7 },
            Answer::Failed { message: "no".into() },
        ] {
            let bytes = answer.encode();
            assert_eq!(Answer::decode(&bytes[..bytes.len() - 1]), Ok(None));
            assert_eq!(Answer::decode(&bytes), Ok(Some((answer, bytes.len()))));
        }
        assert!(Order::decode(&[1, 0, 0, 0, 99]).is_err());
        assert!(Answer::decode(&u32::MAX.to_le_bytes()).is_err());
    }
}
