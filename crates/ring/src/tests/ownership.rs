//! What the types of owners forbid. The compiler is the test: with a forbidden trait this file does not build.

use super::super::pool::{BufferId, Pool};
use super::super::uring::Uring;
use super::super::{Lease, Outgoing, SharedBytes};

/// Builds only if the type lacks the trait: otherwise two implementations fit, and the call is ambiguous.
macro_rules! lacks {
    ($owner:ty: $forbidden:path) => {{
        trait Fits<Case> {
            fn fits() {}
        }
        #[allow(dead_code, reason = "it names a case")]
        struct Forbidden;
        impl<T: ?Sized> Fits<()> for T {}
        impl<T: ?Sized + $forbidden> Fits<Forbidden> for T {}
        <$owner as Fits<_>>::fits();
    }};
}

/// Whoever has a buffer cannot make a second owner of it.
#[test]
fn owners_of_buffers_cannot_be_copied() {
    lacks!(BufferId: Clone);
    lacks!(Lease: Clone);
    lacks!(Outgoing: Clone);
}

/// What counts its users without atomics, and a ring that the kernel serves to one thread alone, stay on their thread.
#[test]
fn rings_and_leases_stay_on_their_thread() {
    lacks!(Uring: Send);
    lacks!(Pool: Send);
    lacks!(Lease: Send);
    lacks!(Lease: Sync);
    lacks!(SharedBytes: Send);
}
