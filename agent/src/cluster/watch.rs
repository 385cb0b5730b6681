//! One watch: everything of one resource, from a full list on and for as long as the agent runs.
//!
//! In: answers of the API server. Out: [`Update`]s, in their order, and the watch's state. It keeps
//! no object.
//!
//! The loop is ours and not `kube::runtime::watcher`, because that ends a whole list for one object
//! that cannot be read, parses a page as a whole, hides `Retry-After` and lists again as soon as it
//! likes. Here one bad object costs itself, memory holds one object at a time, and a kind is listed
//! at most every half minute.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::{mpsc, watch};

use super::ask::{Answer, Asker, Failure, Purpose, Status};
use super::body::{Items, Lines, NoList, Piece};
use super::decode;
use super::pace::{Pace, chance};
use super::served::Served;
use super::state::States;
use super::take::{Next, Take, Update};

/// How long the server keeps a watch open; a part is added by chance, so that not all end at once.
const WATCH_SECONDS: f64 = 290.0;
/// A bookmark comes every minute (apiserver `defaultBookmarkFrequency`); older servers send one
/// shortly before the end. A watch that is silent for longer than both is dead.
const SILENCE_MAX: Duration = Duration::from_secs(345);
/// A watch that ended sooner did not do what it is for.
const WATCH_MIN: Duration = Duration::from_secs(10);
/// A list that says nothing for so long is asked for anew.
const LIST_SILENCE_MAX: Duration = Duration::from_secs(60);
const PAGE: u32 = 500;
/// Objects of a list that are handed over together: a server sends each by itself. More would only
/// take room on their way.
const TOGETHER: usize = 16;

/// One resource and all it takes to follow it.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) take: Take,
    pub(super) asker: Arc<Asker>,
    pub(super) states: Arc<States>,
    pub(super) updates: mpsc::Sender<Update>,
    pub(super) served: watch::Receiver<Option<Served>>,
    /// More of the query, to limit it.
    pub(super) selector: String,
    pub(super) pace: Pace,
    /// Up to where everything is known; none before a full list, and when that is to be repeated.
    pub(super) version: Option<String>,
    /// What a full list must not be older than.
    pub(super) newest: Newest,
    pub(super) paging: bool,
}

/// From which state on a list may be (`resourceVersion`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Newest {
    /// Whatever the server has at hand.
    #[default]
    Any,
    /// Not older than what was seen.
    Seen(String),
    /// What etcd has now: what was seen is known no more.
    Now,
}

/// Why a stream ended.
#[derive(Debug)]
enum End {
    /// As streams end.
    Ended,
    Failed(Failure),
    /// The server does not do streaming lists.
    NoStreaming,
    /// Nobody listens.
    Closed,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Frame {
    metadata: FrameMeta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct FrameMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    next: String,
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Watcher {
    /// Until nobody listens.
    pub(super) async fn run(mut self) {
        loop {
            if self.take.resource.is_defined() && !self.is_served().await {
                return;
            }
            let pause = self.pace.pause(self.version.is_none(), Instant::now(), chance());
            tokio::time::sleep(pause).await;
            let began = Instant::now();
            let ended = match (&self.version, self.paging) {
                (Some(_), _) => self.follow().await,
                (None, true) => self.page().await,
                (None, false) => self.stream().await,
            };
            let was_short = began.elapsed() < WATCH_MIN;
            if !was_short {
                self.pace.succeeded();
            }
            match ended {
                Ok(()) => {}
                Err(End::Ended) if was_short => self.pace.failed(None),
                Err(End::Ended) => {}
                Err(End::Closed) => return,
                Err(End::NoStreaming) => {
                    tracing::debug!("{}: no streaming lists", self.take.resource.name);
                    self.paging = true;
                }
                Err(End::Failed(failure)) => self.failed(failure),
            }
        }
    }

    /// Waits until it is known whether the resource is served, and if it is not, until it is. False
    /// if nobody listens.
    async fn is_served(&mut self) -> bool {
        loop {
            let served = self.served.borrow_and_update().clone();
            if let Some(served) = served {
                match served.get(self.take.resource.name) {
                    Some(version) => {
                        if self.take.version != *version {
                            self.take.version = version;
                            self.version = None;
                        }
                        return true;
                    }
                    None => {
                        self.version = None;
                        self.newest = Newest::Any;
                        self.take.begin();
                        self.take.end();
                        if self.flush().await.is_err() {
                            return false;
                        }
                        self.complete();
                    }
                }
            }
            let still = loop {
                tokio::select! {
                    changed = self.served.changed() => break changed,
                    () = tokio::time::sleep(LIST_SILENCE_MAX / 2) => {
                        // Nothing there is as current as the last answer of discovery.
                        let current = self.states.all().get("discovery").and_then(|s| s.current_at);
                        self.states.change(self.take.resource.name, |state| {
                            if state.synced { state.current_at = current.max(state.current_at); }
                        });
                    }
                }
            };
            if still.is_err() {
                return false;
            }
        }
    }

    /// A streaming list (Kubernetes 1.32 and newer, if not switched off), and the watch after it.
    async fn stream(&mut self) -> Result<(), End> {
        let version = self.newest.parameter();
        let query = format!(
            "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion={version}"
        );
        let answer = match self.ask_watch(&query, "list").await {
            // 422 from those that know the parameter and have it switched off.
            Err(failure) if matches!(failure.code, 400 | 422) => return Err(End::NoStreaming),
            answer => answer?,
        };
        self.pace.listed(Instant::now());
        self.take.begin();
        self.events(answer, true).await
    }

    async fn follow(&mut self) -> Result<(), End> {
        let version = self.version.clone().unwrap_or_default();
        let answer = self.ask_watch(&format!("resourceVersion={version}"), "watch").await?;
        self.heard();
        self.events(answer, false).await
    }

    async fn ask_watch(&self, query: &str, verb: &'static str) -> Result<Answer, Failure> {
        let seconds = WATCH_SECONDS * (1.0 + chance() / 5.0);
        let path = self.path(&format!(
            "watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds:.0}&{query}"
        ));
        self.asker.ask(Purpose { verb, resource: self.take.resource.name }, &path).await
    }

    fn path(&self, query: &str) -> String {
        let path = self.take.resource.path(self.take.version);
        let selectors = [self.take.resource.selector, self.selector.as_str()];
        let selectors: String = selectors
            .iter()
            .filter(|selector| !selector.is_empty())
            .map(|selector| format!("{selector}&"))
            .collect();
        format!("{path}?{selectors}{query}")
    }

    /// Events until the stream ends; `initial`: the list is not complete yet.
    async fn events(&mut self, mut answer: Answer, mut initial: bool) -> Result<(), End> {
        let mut lines = Lines::default();
        loop {
            let silence = if initial { LIST_SILENCE_MAX } else { SILENCE_MAX };
            let Some(chunk) = answer.chunk(silence).await? else {
                // Servers before streaming lists ignore what they were asked, and end in time.
                return if initial { Err(End::NoStreaming) } else { Err(End::Ended) };
            };
            let was_initial = initial;
            let stopped = self.lines(&mut lines, &chunk, &mut initial);
            if !initial || stopped.is_some() || self.take.waiting() >= TOGETHER {
                self.flush().await?;
            }
            if was_initial && !initial {
                self.complete();
            } else if !initial {
                self.heard();
            }
            if let Some(stopped) = stopped {
                return Err(stopped);
            }
        }
    }

    /// Takes the lines of one chunk; says why no more are to be read, if so.
    fn lines(&mut self, lines: &mut Lines, chunk: &[u8], initial: &mut bool) -> Option<End> {
        let mut last = Vec::new();
        let mut stopped = None;
        let mut lost = false;
        // Why it broke off is in `stopped`.
        let _ = lines.push(chunk, &mut |piece| {
            let line = match piece {
                Piece::Object(line) => line,
                Piece::TooLarge(beginning) => {
                    self.take.too_large(beginning);
                    return ControlFlow::Continue(());
                }
            };
            match self.take.line(line) {
                // Only the last one's version is looked for.
                Next::Event => line.clone_into(&mut last),
                Next::Bookmark { version, ends_list } => {
                    last.clear();
                    if *initial && !ends_list {
                        stopped = Some(End::NoStreaming);
                        return ControlFlow::Break(());
                    }
                    if *initial {
                        self.take.end();
                        *initial = false;
                    }
                    if !version.is_empty() {
                        self.version = Some(version);
                    }
                }
                Next::Error(status) => {
                    let status: Status = serde_json::from_str(&status).unwrap_or_default();
                    stopped = Some(Failure::of(status).into());
                    return ControlFlow::Break(());
                }
                // In a list it costs itself; later nobody knows what it said.
                Next::Lost(_) if *initial => {}
                Next::Lost(problem) => {
                    lost = true;
                    stopped = Some(Failure::said(problem).into());
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        if lost {
            self.version = None;
        } else if !*initial && !last.is_empty() {
            let version = decode::version_of(&last);
            if !version.is_empty() {
                self.version = Some(version);
            }
        }
        stopped
    }

    /// A full list in pages, or in one answer where the server has it at hand.
    async fn page(&mut self) -> Result<(), End> {
        let name = self.take.resource.name;
        let mut next = String::new();
        loop {
            let query = match next.as_str() {
                "" if self.newest == Newest::Any => format!("limit={PAGE}&resourceVersion=0"),
                "" => format!("limit={PAGE}"),
                next => format!("limit={PAGE}&continue={next}"),
            };
            let purpose = Purpose { verb: "list", resource: name };
            let mut answer = self.asker.ask(purpose, &self.path(&query)).await?;
            if next.is_empty() {
                self.pace.listed(Instant::now());
                self.take.begin();
            }
            let mut items = Items::default();
            while let Some(chunk) = answer.chunk(LIST_SILENCE_MAX).await? {
                let told = items.push(&chunk, &mut |piece| match piece {
                    Piece::Object(item) => self.take.item(item),
                    Piece::TooLarge(beginning) => self.take.too_large(beginning),
                });
                if told == Err(NoList::FrameTooLarge) {
                    return Err(Failure::said("the answer is no list").into());
                }
                self.flush().await?;
            }
            let frame: Frame = serde_json::from_slice(items.frame())
                .map_err(|error| Failure::said(format!("no whole list: {error}")))?;
            if frame.metadata.next.is_empty() {
                self.take.end();
                self.flush().await?;
                self.version = Some(frame.metadata.resource_version);
                self.complete();
                return Ok(());
            }
            next = frame.metadata.next;
        }
    }

    /// Hands over what has come.
    async fn flush(&mut self) -> Result<(), End> {
        for update in self.take.updates() {
            self.updates.send(update).await.map_err(|_| End::Closed)?;
        }
        Ok(())
    }

    fn complete(&mut self) {
        self.pace.complete();
        self.states.change(self.take.resource.name, |state| state.synced = true);
        self.heard();
    }

    fn heard(&mut self) {
        if let Some(version) = &self.version {
            self.newest = Newest::Seen(version.clone());
        }
        self.states.change(self.take.resource.name, |state| {
            state.current_at = Some(Instant::now());
            (state.failure, state.lost_at) = (None, None);
        });
    }

    fn failed(&mut self, failure: Failure) {
        let name = self.take.resource.name;
        let is_list = self.version.is_none();
        match failure.code {
            // What was known is too old to go on from, or known no more.
            410 | 504 if is_list => self.newest = Newest::Now,
            410 => (self.version, self.newest) = (None, Newest::Now),
            // Discovery will say that it is gone.
            404 if self.take.resource.is_defined() => self.version = None,
            _ => {}
        }
        // The list that has to follow waits its time.
        if failure.code != 410 || is_list {
            self.pace.failed(failure.retry_after);
        }
        let said = match failure.code {
            0 => failure.said,
            code => format!("{} ({code})", failure.said),
        };
        self.states.change(name, |state| {
            if state.failure.as_ref() != Some(&said) {
                tracing::warn!("{name} cannot be watched: {said}");
            }
            state.failure = Some(said);
            state.lost_at.get_or_insert_with(Instant::now);
        });
    }
}

impl Newest {
    fn parameter(&self) -> &str {
        match self {
            Self::Any => "0",
            Self::Seen(version) => version,
            Self::Now => "",
        }
    }
}
