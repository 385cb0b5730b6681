//! Waiting for a descriptor: one that somebody owns in, its readiness out.
//!
//! Nothing is read or written here.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that can be waited for.
#[derive(Debug)]
pub(crate) struct Ready {
    descriptor: AsyncFd<OwnedFd>,
    interest: Interest,
}

impl Ready {
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The descriptor cannot be polled.
    pub(crate) fn new(descriptor: OwnedFd, interest: Interest) -> io::Result<Self> {
        // SAFETY: the descriptor is owned here until the registration is dropped.
        #[expect(unsafe_code, reason = "tokio takes nothing safer than a number")]
        let descriptor = unsafe { AsyncFd::register_with_interest(descriptor, interest) };
        Ok(Self { descriptor: descriptor?, interest })
    }

    /// Comes back at the next change that the descriptor tells of. Dropping the future loses
    /// nothing.
    pub(crate) async fn changed(&self) {
        match self.descriptor.ready(self.interest).await {
            Ok(mut guard) => guard.clear_ready(),
            // Only while the runtime ends.
            Err(_) => std::future::pending().await,
        }
    }
}
