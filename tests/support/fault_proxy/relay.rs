//! One connection of the agent's and the one to the server that answers it.
//!
//! In: requests, one after the other. Out: their answers, as the server gave them or as the fault
//! has it. One thread does both ways: HTTP/1.1 answers only when it has been asked.

use std::io::{self, BufReader, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::Shared;
use super::fault::{Asking, Fault, resource};
use crate::control_plane::api::Connection;
use crate::wire::{Body, Head, write_chunk};

/// How often it looks whether a connection that hangs was cut.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) fn serve(shared: &Shared, number: u64, mut client: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut server: Option<Connection> = None;
    while let Some(mut head) = Head::read(&mut reader)? {
        let body = head.body(Body::Left(0)).read(&mut reader)?;
        let target = head.word(1).to_string();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let resource = resource(path);
        let asking = if resource == path { Asking::Other } else { Asking::of(head.word(0), query) };
        let fault = shared.begin(number, asking, resource, query);
        if let Some(fault) = fault.as_ref()
            && answer(shared, &mut client, query, fault)?
        {
            continue;
        }
        head.set("Accept-Encoding", None);
        head.set("Connection", None);
        head.set("Host", Some(&shared.door.address.to_string()));
        let mut connection = match server.take() {
            Some(connection) => connection,
            None => match shared.door.connect() {
                Ok(connection) => {
                    shared.hold(number, &connection.get_ref().sock)?;
                    connection
                }
                // As a server that is gone: the agent sees its connection end.
                Err(_) => return Err(io::ErrorKind::ConnectionRefused.into()),
            },
        };
        connection.get_mut().write_all(head.text().as_bytes())?;
        connection.get_mut().write_all(&body)?;
        connection.get_mut().flush()?;
        relay(&mut connection, &mut client, fault.as_ref())?;
        server = Some(connection);
        shared.end(number);
    }
    Ok(())
}

/// Answers in the server's place; whether it did.
fn answer(shared: &Shared, client: &mut TcpStream, query: &str, fault: &Fault) -> io::Result<bool> {
    match fault {
        Fault::Gone => refuse(client, "410 Gone", "", &status(410, "Expired")),
        Fault::NoStreaming => {
            refuse(client, "422 Unprocessable Entity", "", &status(422, "Invalid"))
        }
        Fault::TooManyRequests(seconds) => {
            let after = format!("Retry-After: {seconds}\r\n");
            refuse(client, "429 Too Many Requests", &after, &status(429, "TooManyRequests"))
        }
        Fault::Broken => {
            refuse(client, "500 Internal Server Error", "", &status(500, "InternalError"))
        }
        Fault::GoneEvent => {
            let event = format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", status(410, "Expired"));
            begin_stream(client)?;
            write_chunk(client, event.as_bytes())?;
            write_chunk(client, b"")
        }
        Fault::BookmarksOnly(pause) => {
            begin_stream(client)?;
            loop {
                thread::sleep(*pause);
                write_chunk(client, bookmark(query).as_bytes())?;
            }
        }
        Fault::Hang => loop {
            if shared.is_cut(client) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            thread::sleep(PAUSE);
        },
        Fault::Slow(..) | Fault::Before(_) | Fault::Instead(_) | Fault::CutAfter(_) => {
            return Ok(false);
        }
    }?;
    Ok(true)
}

fn refuse(client: &mut TcpStream, first: &str, header: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {first}\r\nContent-Type: application/json\r\n{header}Content-Length: {length}"
    );
    client.write_all(format!("{head}\r\n\r\n{body}").as_bytes())
}

fn begin_stream(client: &mut TcpStream) -> io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked";
    client.write_all(format!("{head}\r\n\r\n").as_bytes())
}

fn status(code: u16, reason: &str) -> String {
    format!(
        "{{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{{}},\"status\":\"Failure\",\
         \"message\":\"ordered by a test\",\"reason\":\"{reason}\",\"code\":{code}}}"
    )
}

/// At the version that the watch began with: nothing has happened since.
fn bookmark(query: &str) -> String {
    let version = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
    format!(
        "{{\"type\":\"BOOKMARK\",\"object\":{{\"metadata\":{{\"resourceVersion\":\"{}\"}}}}}}\n",
        version.unwrap_or("1")
    )
}

/// Hands the server's answer on, in chunks of our own: a fault may add to it.
fn relay(server: &mut Connection, client: &mut TcpStream, fault: Option<&Fault>) -> io::Result<()> {
    let mut head = Head::read(server)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut body = head.body(Body::Left(0));
    head.set("Content-Length", None);
    head.set("Transfer-Encoding", Some("chunked"));
    client.write_all(head.text().as_bytes())?;
    match fault {
        Some(Fault::Before(bytes)) => write_chunk(client, bytes.as_bytes())?,
        Some(Fault::Instead(bytes)) => {
            body.read(server)?;
            write_chunk(client, bytes.as_bytes())?;
            return write_chunk(client, b"");
        }
        _ => {}
    }
    let mut passed = 0;
    loop {
        let piece = body.piece(server)?;
        if piece.is_empty() {
            return write_chunk(client, b"");
        }
        match fault {
            Some(Fault::Slow(bytes, pause)) => {
                for part in piece.chunks((*bytes).max(1)) {
                    thread::sleep(*pause);
                    write_chunk(client, part)?;
                }
            }
            Some(Fault::CutAfter(bytes)) if passed + piece.len() > *bytes => {
                write_chunk(client, &piece[..bytes - passed])?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            _ => write_chunk(client, &piece)?,
        }
        passed += piece.len();
    }
}
