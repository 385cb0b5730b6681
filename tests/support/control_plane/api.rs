//! A client of the API server that asks for exactly what a test says.
//!
//! In: requests. Out: answers as they came. It trusts no certificate but the server's own and keeps
//! one connection as long as that lives.

use std::fs;
use std::io::{self, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use crate::http::Answer;
use crate::namespace::Namespace;
use crate::wire::{Body, Head};

/// How long the server may be silent on a plain request.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the API server.
pub type Connection = BufReader<StreamOwned<ClientConnection, TcpStream>>;

/// Where an API server is and how it is known.
#[derive(Clone, Debug)]
pub struct Door {
    /// Its address.
    pub address: SocketAddr,
    /// The file with its certificate.
    pub authority: PathBuf,
    /// From where it is reached, if not from here.
    pub network: Option<Namespace>,
}

impl Door {
    /// Connects, with all that TLS takes.
    ///
    /// # Errors
    /// If nobody is there, or somebody else.
    pub fn connect(&self) -> anyhow::Result<Connection> {
        let open = || Ok(TcpStream::connect_timeout(&self.address, Duration::from_secs(5))?);
        let stream = match &self.network {
            Some(network) => network.within(open),
            None => open(),
        };
        let stream = stream.with_context(|| format!("nobody is at {}", self.address))?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(self.address.ip());
        let session = ClientConnection::new(Arc::new(config(&self.authority)?), name)?;
        Ok(BufReader::with_capacity(64 * 1024, StreamOwned::new(session, stream)))
    }
}

fn config(authority: &Path) -> anyhow::Result<ClientConfig> {
    let shown = || authority.display().to_string();
    let pem = fs::read(authority).with_context(shown)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.with_context(shown)?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config?.with_root_certificates(roots).with_no_client_auth())
}

/// One who asks.
pub struct Api {
    door: Door,
    token: String,
    kept: Option<Connection>,
}

impl Api {
    /// With this bearer token, at this door.
    #[must_use]
    pub fn new(door: Door, token: &str) -> Self {
        Self { door, token: token.to_string(), kept: None }
    }

    /// Asks once. A connection that was kept and has ended meanwhile is replaced.
    ///
    /// # Errors
    /// If nobody answers.
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<Answer> {
        let shown = || format!("{method} {path}");
        if let Some(mut kept) = self.kept.take()
            && let Ok(answer) = self.exchange(&mut kept, method, path, body)
        {
            self.kept = Some(kept);
            return Ok(answer);
        }
        let mut fresh = self.door.connect().with_context(shown)?;
        fresh.get_ref().sock.set_read_timeout(Some(PATIENCE))?;
        let answer = self.exchange(&mut fresh, method, path, body).with_context(shown)?;
        self.kept = Some(fresh);
        Ok(answer)
    }

    /// Asks and wants what was asked for.
    ///
    /// # Errors
    /// If it is refused; the server's words are quoted.
    pub fn want(&mut self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.ask(method, path, &body)?;
        if !(200..300).contains(&answer.status) {
            bail!("{method} {path} answered {}: {}", answer.status, answer.body.trim());
        }
        serde_json::from_str(&answer.body).with_context(|| format!("{method} {path}"))
    }

    fn exchange(
        &self,
        connection: &mut Connection,
        method: &str,
        path: &str,
        body: &str,
    ) -> io::Result<Answer> {
        let kind = if method == "PATCH" { "merge-patch+json" } else { "json" };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/{kind}\r\nAccept: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.door.address,
            self.token,
            body.len(),
        );
        connection.get_mut().write_all(request.as_bytes())?;
        let head = Head::read(connection)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = head.word(1).parse().map_err(|_| io::ErrorKind::InvalidData)?;
        let body = head.body(Body::Left(0)).read(connection)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer { status, head: head.text(), body })
    }
}
