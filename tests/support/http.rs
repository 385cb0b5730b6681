//! One GET over a connection of its own.
//!
//! In: an address and a path. Out: status, headers and body as they came. It follows nothing and
//! never tries again.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Asks for a path. HTTP/1.0, so that the body comes unchunked and ends with the connection.
///
/// # Errors
/// If nobody answers within ten seconds, or no HTTP.
pub fn get(server: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    let patience = Duration::from_secs(10);
    let shown = || format!("http://{server}{path}");
    let mut stream = TcpStream::connect_timeout(&server, patience).with_context(shown)?;
    stream.set_read_timeout(Some(patience)).with_context(shown)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n").with_context(shown)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(shown)?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(shown)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).with_context(shown)?;
    Ok(Answer { status, head: head.to_string(), body: body.to_string() })
}
