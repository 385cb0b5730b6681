//! HTTP/1.1 as it is on the wire, as much of it as a proxy and a client of an API server need.
//!
//! In: bytes of a connection. Out: heads and bodies, in pieces as they come. It knows no faults and
//! opens no connection.

use std::fmt::Write as _;
use std::io::{self, BufRead, Read as _, Write};

/// What a line of a head, or of a chunk, may have at most.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// How much of a body is handed on at a time.
const PIECE_BYTES_MAX: u64 = 64 * 1024;

/// The first line of a message and its headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// `GET /path HTTP/1.1`, `HTTP/1.1 200 OK`.
    pub first: String,
    /// Names as they came.
    pub headers: Vec<(String, String)>,
}

/// How far a body goes from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes.
    Left(u64),
    /// Chunks until an empty one.
    Chunked,
    /// All that comes.
    UntilEnd,
}

impl Head {
    /// The next message's head; none if the connection ends before it.
    ///
    /// # Errors
    /// If the connection fails or does not speak HTTP.
    pub fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let first = line(reader)?;
        if first.is_empty() {
            return Ok(None);
        }
        let mut headers = Vec::new();
        loop {
            let line = line(reader)?;
            if line.is_empty() {
                return Ok(Some(Self { first, headers }));
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            headers.push((name.to_string(), value.trim().to_string()));
        }
    }

    /// The value of a header, whatever the case of its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Replaces a header, or removes it.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        self.headers.retain(|(own, _)| !own.eq_ignore_ascii_case(name));
        self.headers.extend(value.map(|value| (name.to_string(), value.to_string())));
    }

    /// A word of the first line: method and path, or version and status.
    #[must_use]
    pub fn word(&self, number: usize) -> &str {
        self.first.split(' ').nth(number).unwrap_or_default()
    }

    /// The body that follows; `otherwise` if nothing says how long it is.
    #[must_use]
    pub fn body(&self, otherwise: Body) -> Body {
        if self.get("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            return Body::Chunked;
        }
        let length = self.get("content-length").and_then(|value| value.parse().ok());
        length.map_or(otherwise, Body::Left)
    }

    /// As it goes on the wire.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        text.push_str("\r\n");
        text
    }
}

impl Body {
    /// The next piece; empty at the end.
    ///
    /// # Errors
    /// If the connection ends before the body does.
    pub fn piece(&mut self, reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
        match *self {
            Self::Left(0) => Ok(Vec::new()),
            Self::Left(left) => {
                let bytes = some(reader, left)?;
                if bytes.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *self = Self::Left(left - bytes.len() as u64);
                Ok(bytes)
            }
            Self::Chunked => {
                let size = line(reader)?;
                let size = size.split(';').next().unwrap_or_default();
                let size = u64::from_str_radix(size, 16);
                let size = size.map_err(|_| io::ErrorKind::InvalidData)?;
                let mut bytes = Vec::new();
                reader.take(size).read_to_end(&mut bytes)?;
                if bytes.len() as u64 != size || !line(reader)?.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                if size == 0 {
                    *self = Self::Left(0);
                }
                Ok(bytes)
            }
            Self::UntilEnd => some(reader, PIECE_BYTES_MAX),
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// If the connection ends before the body does.
    pub fn read(mut self, reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let piece = self.piece(reader)?;
            if piece.is_empty() {
                return Ok(all);
            }
            all.extend(piece);
        }
    }
}

/// Writes bytes as one chunk; none of them end the body.
///
/// # Errors
/// If the connection fails.
pub fn write_chunk(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    to.write_all(&chunk)?;
    to.flush()
}

/// What is there, at most so much, without waiting for more.
fn some(reader: &mut impl BufRead, most: u64) -> io::Result<Vec<u8>> {
    let there = reader.fill_buf()?;
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(there.len());
    let bytes = there[..length].to_vec();
    reader.consume(length);
    Ok(bytes)
}

/// Without its end; empty too where the connection ends.
fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut text = String::new();
    reader.take(LINE_BYTES_MAX).read_line(&mut text)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_string())
}

#[cfg(test)]
mod tests {
    use super::{Body, Head, write_chunk};

    #[test]
    fn a_message_is_read_to_its_own_end_and_no_further() {
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in ["{\"a\":", "1}\n", ""] {
            write_chunk(&mut bytes, piece.as_bytes()).unwrap();
        }
        bytes.extend_from_slice(b"PUT /x HTTP/1.1\r\ncontent-length: 2\r\n\r\nabrest");
        let mut reader = bytes.as_slice();
        let head = Head::read(&mut reader).unwrap().unwrap();
        assert_eq!((head.word(1), head.body(Body::UntilEnd)), ("200", Body::Chunked));
        assert_eq!(Body::Chunked.read(&mut reader).unwrap(), b"{\"a\":1}\n");
        let head = Head::read(&mut reader).unwrap().unwrap();
        assert_eq!((head.word(1), head.get("Content-Length")), ("/x", Some("2")));
        assert_eq!(head.body(Body::Left(0)).read(&mut reader).unwrap(), b"ab");
        assert_eq!(Body::UntilEnd.read(&mut reader).unwrap(), b"rest");
        assert_eq!(Head::read(&mut reader).unwrap(), None);
        assert!(Body::Left(1).read(&mut reader).is_err(), "half a body is none");
    }
}
