//! Questions to the API server, counted.
//!
//! In: a path to read. Out: the body as it comes, or a [`Failure`] that says what to do next. Only
//! GET is ever sent. Every question is counted here, by the one function that sends, so that none
//! can be missed; what the client asks for itself (a fresh token) goes elsewhere.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use hyper::body::Body as _;
use kube::client::{Body, Client};
use serde::Deserialize;

/// An answer's head must be here by then.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);
/// An error's body is read up to here.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Small answers are read up to here.
const WHOLE_BYTES_MAX: usize = 4 << 20;
/// Series of requests: verbs x resources x the codes an API server has.
pub const REQUEST_SERIES_MAX: usize = 512;

/// Counted requests: (verb, resource, code) to how many.
pub type Requests = BTreeMap<(&'static str, &'static str, u16), u64>;

/// Sends and counts.
#[derive(Debug)]
pub(super) struct Asker {
    client: Unshown,
    requests: Mutex<Requests>,
}

struct Unshown(Client);

impl std::fmt::Debug for Unshown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// What a question is for, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Purpose {
    /// `list`, `watch` or `get`.
    pub(super) verb: &'static str,
    /// The plural name.
    pub(super) resource: &'static str,
}

/// Why there is no answer, or no more of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// 0 if no server answered.
    pub(super) code: u16,
    /// In words, on one line.
    pub(super) said: String,
    /// How long the server wants to be left alone.
    pub(super) retry_after: Option<Duration>,
}

/// A body that is read chunk by chunk.
pub(super) struct Answer {
    body: Body,
}

/// `metav1.Status`, as far as it is used.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub(super) code: u16,
    pub(super) message: String,
    details: StatusDetails,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatusDetails {
    retry_after_seconds: u64,
}

impl Failure {
    /// Of which no server is the cause, or which it did not name.
    pub(super) fn said(said: impl Into<String>) -> Self {
        Self { code: 0, said: said.into(), retry_after: None }
    }

    pub(super) fn of(status: Status) -> Self {
        let seconds = status.details.retry_after_seconds;
        let retry_after = (seconds > 0).then(|| Duration::from_secs(seconds));
        Self { code: status.code, said: status.message, retry_after }
    }
}

impl Asker {
    pub(super) fn new(client: Client) -> Self {
        Self { client: Unshown(client), requests: Mutex::default() }
    }

    pub(super) fn requests(&self) -> Requests {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the head of the answer.
    pub(super) async fn ask(&self, purpose: Purpose, path: &str) -> Result<Answer, Failure> {
        let mut request = Request::get(path)
            .body(Body::empty())
            .map_err(|error| Failure::said(format!("{path}: {error}")))?;
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let sent = tokio::time::timeout(HEAD_TIME_MAX, self.client.0.send(request)).await;
        let answer = match sent {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                self.count(purpose, 0);
                return Err(Failure::said(words(&error)));
            }
            Err(_) => {
                self.count(purpose, 0);
                let seconds = HEAD_TIME_MAX.as_secs();
                return Err(Failure::said(format!("no answer within {seconds} s")));
            }
        };
        self.count(purpose, answer.status().as_u16());
        let (head, body) = answer.into_parts();
        let mut answer = Answer { body };
        if head.status.is_success() {
            return Ok(answer);
        }
        let text = answer.whole(ERROR_BYTES_MAX).await.unwrap_or_default();
        Err(refusal(head.status, &head.headers, &text))
    }

    /// The whole of a small answer.
    pub(super) async fn whole(&self, purpose: Purpose, path: &str) -> Result<Vec<u8>, Failure> {
        self.ask(purpose, path).await?.whole(WHOLE_BYTES_MAX).await
    }

    fn count(&self, purpose: Purpose, code: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (purpose.verb, purpose.resource, code);
        if requests.len() < REQUEST_SERIES_MAX || requests.contains_key(&key) {
            *requests.entry(key).or_default() += 1;
        }
    }
}

impl Answer {
    /// The next chunk; none at the end. A server that says nothing for so long is given up.
    pub(super) async fn chunk(&mut self, silence_max: Duration) -> Result<Option<Bytes>, Failure> {
        let next = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx));
        loop_until_data(next, silence_max).await
    }

    async fn whole(&mut self, bytes_max: usize) -> Result<Vec<u8>, Failure> {
        let mut whole = Vec::new();
        loop {
            let Some(chunk) = self.chunk(HEAD_TIME_MAX).await? else { return Ok(whole) };
            if whole.len() + chunk.len() > bytes_max {
                return Err(Failure::said(format!("an answer of more than {bytes_max} bytes")));
            }
            whole.extend_from_slice(&chunk);
        }
    }
}

async fn loop_until_data(
    next: impl Future<Output = Option<Result<hyper::body::Frame<Bytes>, kube::Error>>>,
    silence_max: Duration,
) -> Result<Option<Bytes>, Failure> {
    match tokio::time::timeout(silence_max, next).await {
        // Trailers say nothing here.
        Ok(Some(Ok(frame))) => Ok(Some(frame.into_data().unwrap_or_default())),
        Ok(Some(Err(error))) => Err(Failure::said(words(&error))),
        Ok(None) => Ok(None),
        Err(_) => Err(Failure::said(format!("silent for {} s", silence_max.as_secs()))),
    }
}

fn refusal(status: StatusCode, headers: &HeaderMap, text: &[u8]) -> Failure {
    let told = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let body: Status = serde_json::from_slice(text).unwrap_or_default();
    let mut failure = Failure::of(body);
    failure.code = status.as_u16();
    if failure.said.is_empty() {
        failure.said = status.to_string();
    }
    failure.retry_after = told.map(Duration::from_secs).or(failure.retry_after);
    failure
}

/// The error and what it comes from: the first alone says only that something failed.
fn words(error: &kube::Error) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let more = error.to_string();
        if !words.contains(&more) {
            words.push_str(": ");
            words.push_str(&more);
        }
        source = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_the_server_said_and_when_to_come_back() {
        let mut headers = HeaderMap::new();
        let body = br#"{"kind":"Status","message":"slow down","code":1,
            "details":{"retryAfterSeconds":3}}"#;
        let refused = |headers: &HeaderMap, body: &[u8]| {
            refusal(StatusCode::TOO_MANY_REQUESTS, headers, body)
        };
        let said = |said: &str, seconds: Option<u64>| Failure {
            code: 429,
            said: said.to_owned(),
            retry_after: seconds.map(Duration::from_secs),
        };
        assert_eq!(refused(&headers, body), said("slow down", Some(3)));
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("9"));
        assert_eq!(refused(&headers, b"<html>"), said("429 Too Many Requests", Some(9)));
    }
}
