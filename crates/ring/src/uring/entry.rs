//! Operations without pointers to memory: whatever their numbers mean, the kernel cannot harm this process's memory, so
//! queueing them is safe.

use io_uring::{opcode, squeue};

/// An operation without pointers, which has no flags and no user data yet.
/// [`Queue::push_pointing`](super::queue::Queue::push_pointing) queues operations that point to memory instead
/// (connect, send, receive, socket options); its caller keeps that memory alive.
pub(super) trait Pointerless {
    /// The entry for the submission queue.
    fn into_entry(self) -> squeue::Entry;
}

macro_rules! pointerless {
    ($($(#[$reason:meta])* $operation:ident)*) => {
        $(
            $(#[$reason])*
            impl Pointerless for opcode::$operation {
                fn into_entry(self) -> squeue::Entry {
                    self.build()
                }
            }
        )*
    };
}

pointerless! {
    /// The multishot form has no room for an address.
    AcceptMulti
    AsyncCancel2
    Close
    /// Two integers for another ring.
    MsgRingData
    PollAdd
    Shutdown
}
