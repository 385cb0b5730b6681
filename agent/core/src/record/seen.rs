//! A reader of a secret file, as the kernel's ring tells it: bytes in, a [`ReaderSeen`] out. Names
//! are what a process and a file system say, so that every byte of them may be hostile.

use parapet_common::{COMM_BYTES, FILE_NAME_BYTES, ReadKey, SHORT_NAME_BYTES, SecretSeen};

use super::{DecodeError, long, word};
use crate::flow::Timestamp;
use crate::secrets::{FileId, ReaderId, ReaderSeen, VolumeId};

/// What takes the place of a character that a terminal would not show as itself.
const REPLACEMENT: char = '\u{fffd}';

/// The time is the event's, and its receiver's to fill in.
pub(super) fn reader(body: &[u8]) -> Result<ReaderSeen, DecodeError> {
    use std::mem::offset_of;
    let key = offset_of!(SecretSeen, key);
    let file = FileId {
        volume: VolumeId {
            device: word(body, key + offset_of!(ReadKey, device))?,
            generation: word(body, key + offset_of!(ReadKey, generation))?,
        },
        inode: long(body, key + offset_of!(ReadKey, inode))?,
    };
    let program_device = word(body, key + offset_of!(ReadKey, program_device))?;
    let reader = ReaderId {
        cgroup_id: long(body, key + offset_of!(ReadKey, cgroup_id))?,
        program: (program_device, long(body, key + offset_of!(ReadKey, program_inode))?),
        uid: word(body, key + offset_of!(ReadKey, uid))?,
    };
    Ok(ReaderSeen {
        file,
        reader,
        at: Timestamp(0),
        pid: word(body, offset_of!(SecretSeen, pid))?,
        comm: name(body, offset_of!(SecretSeen, comm), COMM_BYTES)?,
        program: name(body, offset_of!(SecretSeen, program), SHORT_NAME_BYTES)?,
        folder: name(body, offset_of!(SecretSeen, folder), SHORT_NAME_BYTES)?,
        name: name(body, offset_of!(SecretSeen, file), FILE_NAME_BYTES)?,
    })
}

/// Up to the first zero byte, or the whole field without one.
fn name(body: &[u8], at: usize, bytes: usize) -> Result<String, DecodeError> {
    let needed = at + bytes;
    let field = body.get(at..needed).ok_or(DecodeError::Short { found: body.len(), needed })?;
    let field = field.split(|byte| *byte == 0).next().unwrap_or_default();
    let shown = |character: char| if is_shown(character) { character } else { REPLACEMENT };
    Ok(String::from_utf8_lossy(field).chars().map(shown).collect())
}

/// Neither a control character nor one that turns the direction of what follows, or is not seen.
fn is_shown(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{00ad}'
                | '\u{061c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(text: &[u8], bytes: usize) -> Vec<u8> {
        let mut field = text.to_vec();
        // What was in the ring before is no part of a name.
        field.extend([0, b'x']);
        field.resize(bytes, b'y');
        field
    }

    fn body(comm: &[u8], program: &[u8], folder: &[u8], file: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        for long in [1_u64, 2, 3] {
            body.extend(long.to_ne_bytes());
        }
        for word in [4_u32, 5, 6, 7, 8, 0] {
            body.extend(word.to_ne_bytes());
        }
        body.extend(field(comm, COMM_BYTES));
        body.extend(field(program, SHORT_NAME_BYTES));
        body.extend(field(folder, SHORT_NAME_BYTES));
        body.extend(field(file, FILE_NAME_BYTES));
        body
    }

    #[test]
    fn a_reader_is_its_key_and_names() {
        let body = body(b"cat", b"busybox", b"..2024_05_01", b"tls.crt");
        assert_eq!(body.len(), size_of::<SecretSeen>());
        let expected = ReaderSeen {
            file: FileId { volume: VolumeId { device: 5, generation: 6 }, inode: 2 },
            reader: ReaderId { cgroup_id: 1, program: (4, 3), uid: 7 },
            at: Timestamp(0),
            pid: 8,
            comm: "cat".to_owned(),
            program: "busybox".to_owned(),
            folder: "..2024_05_01".to_owned(),
            name: "tls.crt".to_owned(),
        };
        assert_eq!(reader(&body), Ok(expected));
        for length in 0..body.len() {
            assert!(reader(&body[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn hostile_names_are_shown_as_what_they_are() {
        let body = body(b"\x1b[2Jx\n", b"\xff\xfe", "\u{202e}txt\u{200b}".as_bytes(), b"");
        let seen = reader(&body).unwrap();
        assert_eq!(seen.comm, "\u{fffd}[2Jx\u{fffd}");
        assert_eq!(seen.program, "\u{fffd}\u{fffd}");
        assert_eq!(seen.folder, "\u{fffd}txt\u{fffd}");
        assert_eq!(seen.name, "");
    }

    #[test]
    fn a_name_without_an_end_is_as_long_as_its_field() {
        let mut body = body(b"", b"", b"", b"");
        let last = body.len() - FILE_NAME_BYTES;
        body[last..].fill(b'a');
        assert_eq!(reader(&body).unwrap().name, "a".repeat(FILE_NAME_BYTES));
    }
}
