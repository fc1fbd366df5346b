//! Operations that point to no memory: whatever their numbers say, the kernel can do no harm to this process's
//! memory, so queueing them is safe.

use io_uring::{opcode, squeue};

/// An operation without pointers, still to be given its flags and its name. What points to memory (connect, send,
/// receive, socket options) is queued by [`Queue::push_pointing`](super::queue::Queue::push_pointing) instead, whose
/// caller keeps that memory alive.
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
