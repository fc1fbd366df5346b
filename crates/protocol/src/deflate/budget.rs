//! Limits how many compression contexts a shard holds between messages. A peer can make the shard hold them, and each
//! takes tens to hundreds of kilobytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The count and its limit. The contexts themselves share the count; they may outlive a call but not their connection.
pub(crate) struct Budget {
    held: Arc<AtomicUsize>,
    held_max: usize,
}

impl Budget {
    pub(crate) fn new(held_max: usize) -> Self {
        Self {
            held: Arc::default(),
            held_max,
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        // Relaxed: a count, read and written by one shard in all but name.
        self.held.load(Ordering::Relaxed) < self.held_max
    }

    /// Counts one context until the result is dropped. `None`: the limit is reached.
    pub(crate) fn hold(&self) -> Option<Held> {
        self.has_room().then(|| {
            self.held.fetch_add(1, Ordering::Relaxed);
            Held(Arc::clone(&self.held))
        })
    }
}

/// One context's place in the budget.
pub(crate) struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
