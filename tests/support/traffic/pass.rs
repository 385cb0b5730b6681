//! A descriptor that is opened by one process and read by another.
//!
//! In: a file and a socket. Out: opens (of the giver) and reads (of the taker).

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};

use anyhow::Context as _;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::{say, until_stdin_ends};
use crate::reading::Pass;
use crate::task::{Counts, Line};

pub(super) fn perform(task: &Pass) -> anyhow::Result<Counts> {
    match task {
        Pass::Give { path, socket } => {
            let listener = UnixListener::bind(socket).context("the socket")?;
            let file = File::open(path).context("the file")?;
            say(&Line::Ready)?;
            let (stream, _) = listener.accept().context("nobody asks")?;
            let files = [file.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut passed = SendAncillaryBuffer::new(&mut space);
            anyhow::ensure!(passed.push(SendAncillaryMessage::ScmRights(&files)), "no room");
            sendmsg(&stream, &[IoSlice::new(b"x")], &mut passed, SendFlags::empty())?;
            Ok(Counts { attempts: 1, ..Counts::default() })
        }
        Pass::Take { socket } => {
            let stream = UnixStream::connect(socket).context("the socket")?;
            let mut byte = [0];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut passed = RecvAncillaryBuffer::new(&mut space);
            recvmsg(&stream, &mut [IoSliceMut::new(&mut byte)], &mut passed, RecvFlags::empty())?;
            let mut files = passed.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(files) => Some(files),
                _ => None,
            });
            let file = files.next().and_then(|mut files| files.next()).context("no descriptor")?;
            let mut file = File::from(file);
            file.read_to_end(&mut Vec::new()).context("read")?;
            say(&Line::Ready)?;
            until_stdin_ends();
            Ok(Counts { answered: 1, ..Counts::default() })
        }
    }
}
