//! What the coordinator tells the threads.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::measure::interval::Window;

/// Shared by the coordinator and all threads of a run.
pub struct Orders {
    /// The run's times, once every thread is ready.
    window: OnceLock<Window>,
    /// The end, which an interrupt moves to the front.
    end_ns: AtomicU64,
    /// Stop at once; nothing more is of interest.
    is_aborted: AtomicBool,
    /// Threads that are done may end.
    is_dismissed: AtomicBool,
}

impl Orders {
    /// No orders yet.
    pub const fn new() -> Self {
        Self {
            window: OnceLock::new(),
            end_ns: AtomicU64::new(u64::MAX),
            is_aborted: AtomicBool::new(false),
            is_dismissed: AtomicBool::new(false),
        }
    }

    /// Starts the run.
    pub fn start(&self, window: Window) {
        // The coordinator starts a run once.
        let _ = self.window.set(window);
    }

    /// Ends the run at `now_ns` unless it ends before.
    pub fn end(&self, now_ns: u64) {
        self.end_ns.fetch_min(now_ns, Ordering::Relaxed);
    }

    /// Makes every thread leave.
    pub fn abort(&self) {
        self.is_aborted.store(true, Ordering::Relaxed);
    }

    /// Lets threads that are done end; they are to be unparked after this.
    pub fn dismiss(&self) {
        self.is_dismissed.store(true, Ordering::Release);
    }

    /// Keeps a thread that is done until it is dismissed. A thread that has ended is no longer in the
    /// kernel's accounting, and the last sample of it may be taken late.
    pub fn wait_until_dismissed(&self) {
        while !self.is_dismissed.load(Ordering::Acquire) {
            std::thread::park();
        }
    }

    /// The run's times as they are now.
    pub fn window(&self) -> Option<Window> {
        let window = *self.window.get()?;
        let end_ns = window.end_ns.min(self.end_ns.load(Ordering::Relaxed));
        Some(Window { end_ns, ..window })
    }

    /// Whether every thread is to leave.
    pub fn is_aborted(&self) -> bool {
        self.is_aborted.load(Ordering::Relaxed)
    }
}
