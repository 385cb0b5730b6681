//! From the bytes of an answer to one JSON object at a time.
//!
//! In: chunks of a body as they come. Out: [`Piece`]s: the lines of a watch, or the items of a list
//! and what stands around them. It holds one object and never a whole body, and it never waits.

use std::ops::ControlFlow;

/// A longer object is skipped: etcd takes no request above 1.5 MB unless it is told to.
pub(super) const OBJECT_BYTES_MAX: usize = 8 << 20;
/// What stands around the items of a list is some hundred bytes.
const FRAME_BYTES_MAX: usize = 64 << 10;
/// A buffer that one large object made is given back.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// A part of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// One line, or one item.
    Object(&'a [u8]),
    /// One that was longer than [`OBJECT_BYTES_MAX`], and its beginning.
    TooLarge(&'a [u8]),
}

/// Splits a watch: one event a line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    held: Held,
}

/// Splits a list: the elements of its `items`, wherever that stands.
#[derive(Debug, Default)]
pub(super) struct Items {
    held: Held,
    /// Everything else, with `items` empty.
    frame: Vec<u8>,
    depth: usize,
    state: Text,
    /// The string that ended last at depth 1: a key, if a colon follows.
    key: Vec<u8>,
    place: Place,
}

/// How a list ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoList {
    /// More than `items` and some words about them.
    FrameTooLarge,
}

#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    too_large: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Text {
    #[default]
    Outside,
    Inside,
    Escaped,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Not in `items`.
    #[default]
    Frame,
    /// In `items`, between two of them.
    Between,
    /// In one of the items.
    Item,
}

impl Held {
    fn extend(&mut self, bytes: &[u8]) {
        let room = OBJECT_BYTES_MAX.saturating_sub(self.bytes.len());
        self.too_large |= bytes.len() > room;
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn piece(&self) -> Piece<'_> {
        match self.too_large {
            true => Piece::TooLarge(self.bytes.get(..KEPT_BYTES_MAX).unwrap_or(&self.bytes)),
            false => Piece::Object(&self.bytes),
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        self.too_large = false;
    }
}

impl Lines {
    /// Tells every line that the chunk completes, until told to stop.
    pub(super) fn push(
        &mut self,
        mut chunk: &[u8],
        tell: &mut impl FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        while let Some(end) = memchr::memchr(b'\n', chunk) {
            let (line, rest) = chunk.split_at(end);
            chunk = rest.get(1..).unwrap_or_default();
            // Most lines of a large answer lie in one chunk: those are not copied.
            let told = if self.held.bytes.is_empty() && line.len() <= OBJECT_BYTES_MAX {
                if line.is_empty() { ControlFlow::Continue(()) } else { tell(Piece::Object(line)) }
            } else {
                self.held.extend(line);
                tell(self.held.piece())
            };
            self.held.clear();
            told?;
        }
        self.held.extend(chunk);
        ControlFlow::Continue(())
    }
}

impl Items {
    /// Tells every item that the chunk completes.
    pub(super) fn push(
        &mut self,
        chunk: &[u8],
        tell: &mut impl FnMut(Piece<'_>),
    ) -> Result<(), NoList> {
        let mut item_from = if self.place == Place::Item { Some(0) } else { None };
        for (at, byte) in chunk.iter().copied().enumerate() {
            let was = self.place;
            self.step(byte);
            match (was, self.place) {
                (Place::Between, Place::Item) => item_from = Some(at),
                (Place::Item, Place::Between) => {
                    let from = item_from.take().unwrap_or_default();
                    self.held.extend(chunk.get(from..=at).unwrap_or_default());
                    tell(self.held.piece());
                    self.held.clear();
                }
                (Place::Frame, _) | (_, Place::Frame) => {
                    self.frame.push(byte);
                    if self.frame.len() > FRAME_BYTES_MAX {
                        return Err(NoList::FrameTooLarge);
                    }
                }
                _ => {}
            }
        }
        if let Some(from) = item_from {
            self.held.extend(chunk.get(from..).unwrap_or_default());
        }
        Ok(())
    }

    /// The list without its items.
    pub(super) fn frame(&self) -> &[u8] {
        &self.frame
    }

    fn step(&mut self, byte: u8) {
        match self.state {
            Text::Inside => {
                match byte {
                    b'\\' => self.state = Text::Escaped,
                    b'"' => self.state = Text::Outside,
                    _ => {}
                }
                // Keys of a list are short.
                if self.depth == 1 && byte != b'"' && self.key.len() < 16 {
                    self.key.push(byte);
                }
                return;
            }
            Text::Escaped => return self.state = Text::Inside,
            Text::Outside => {}
        }
        match byte {
            b'"' => {
                self.state = Text::Inside;
                if self.depth == 1 {
                    self.key.clear();
                }
            }
            b'{' | b'[' => {
                self.depth += 1;
                match self.place {
                    Place::Frame if byte == b'[' && self.depth == 2 && self.key == b"items" => {
                        self.place = Place::Between;
                    }
                    Place::Between => self.place = Place::Item,
                    _ => {}
                }
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                match (self.place, self.depth) {
                    (Place::Item, 2) => self.place = Place::Between,
                    (Place::Between, 0..=1) => self.place = Place::Frame,
                    _ => {}
                }
                if self.depth == 1 {
                    self.key.clear();
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Items and frame of a list that comes in chunks of this many bytes.
    fn split(list: &str, chunk: usize) -> (Vec<String>, String) {
        let mut items = Items::default();
        let mut told = Vec::new();
        for chunk in list.as_bytes().chunks(chunk) {
            let mut tell = |piece: Piece<'_>| match piece {
                Piece::Object(item) => told.push(String::from_utf8(item.to_vec()).unwrap()),
                Piece::TooLarge(_) => told.push("too large".to_owned()),
            };
            items.push(chunk, &mut tell).unwrap();
        }
        (told, String::from_utf8(items.frame().to_vec()).unwrap())
    }

    #[test]
    fn a_list_is_told_item_by_item_however_it_is_cut() {
        let list = r#"{"kind":"PodList","x":"items","metadata":{"items":[1],"continue":"c\"["},
            "items": [{"a":"}]\\\"","items":[{}]} , {"b":[1,[2]]},{}],"last":{}}"#;
        let items = [r#"{"a":"}]\\\"","items":[{}]}"#, r#"{"b":[1,[2]]}"#, "{}"];
        let frame = "{\"kind\":\"PodList\",\"x\":\"items\",\"metadata\":{\"items\":[1],\
                     \"continue\":\"c\\\"[\"},\n            \"items\": [],\"last\":{}}";
        for chunk in 1..list.len() + 1 {
            let (told, around) = split(list, chunk);
            assert_eq!((told, around.as_str()), (items.map(str::to_owned).to_vec(), frame));
        }
        assert_eq!(split(r#"{"items":null}"#, 3), (vec![], r#"{"items":null}"#.to_owned()));
        assert_eq!(split(r#"{"items":[]}"#, 2), (vec![], r#"{"items":[]}"#.to_owned()));
    }

    #[test]
    fn a_body_that_is_no_list_does_not_fill_the_memory() {
        let mut items = Items::default();
        let noise = vec![b'x'; FRAME_BYTES_MAX + 1];
        assert_eq!(items.push(&noise, &mut |_| {}), Err(NoList::FrameTooLarge));
    }

    #[test]
    fn lines_are_told_however_they_are_cut_and_a_huge_one_is_skipped() {
        let huge = "y".repeat(OBJECT_BYTES_MAX + 1);
        let text = format!("one\n\ntwo\n{huge}\nthree\nrest");
        for chunk in [1 << 12, 1 << 20, text.len()] {
            let (mut lines, mut told) = (Lines::default(), Vec::new());
            for chunk in text.as_bytes().chunks(chunk) {
                let flow = lines.push(chunk, &mut |piece| {
                    told.push(match piece {
                        Piece::Object(line) => String::from_utf8(line.to_vec()).unwrap(),
                        Piece::TooLarge(line) => format!("too large: {}", line.len()),
                    });
                    ControlFlow::Continue(())
                });
                assert_eq!(flow, ControlFlow::Continue(()));
            }
            let cut = format!("too large: {KEPT_BYTES_MAX}");
            assert_eq!(told, ["one", "two", cut.as_str(), "three"]);
            assert!(lines.held.bytes.capacity() <= KEPT_BYTES_MAX);
        }
    }
}
