//! Whole conversations with the real shard on the simulated ring, thousands of bad days of them.
//!
//! Each run is made from one seed: which faults the network has, what the clients do and when. A
//! failing run says how to repeat it. `TICKRING_SEED=n` runs that seed alone, `TICKRING_SEEDS=n`
//! runs so many of each kind.
//!
//! What must hold of every run, whatever goes wrong in it:
//! - nothing panics, and everything comes to rest;
//! - an echo stream comes back exactly and in order;
//! - a subscriber that survives ends with the freshest value of each topic it watches, and the
//!   sequence numbers it sees rise;
//! - a connection that breaks disturbs no other;
//! - a shard that drains says 1001 to everyone who listens, and ends in time;
//! - once everybody has left, nothing is left of them.

mod client;
mod defect;
mod echo;
mod fresh;
mod hostile;
mod limits;
mod memory;
mod random;
mod refusals;
mod spread;
mod tls;
mod topics;
mod world;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Once;

/// Runs `run` for each seed, or for the one that the environment names.
fn for_each_seed(name: &str, seeds: u64, run: impl Fn(u64)) {
    watch_panics();
    let number = |name: &str| {
        let value = std::env::var(name).ok()?;
        Some(value.parse::<u64>().expect("a whole number"))
    };
    let seeds = match number("TICKRING_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TICKRING_SEEDS").unwrap_or(seeds),
    };
    for seed in seeds {
        PANICS.set(0);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            run(seed);
            assert_eq!(PANICS.get(), 0, "the shard caught a panic of its own");
        }));
        if let Err(panic) = outcome {
            eprintln!("repeat it with: TICKRING_SEED={seed} cargo test --test simulation {name}");
            resume_unwind(panic);
        }
    }
}

thread_local! {
    /// Panics on this thread, those that a shard caught included.
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            usual(panic);
        }));
    });
}

/// Every message comes back as it went, in order, whatever is cut, fragmented, compressed, mixed with
/// pings, or lost around it; what was sent before a Close or FIN comes back before the end.
#[test]
fn echo_streams_come_back() {
    for_each_seed("echo_streams_come_back", 1_500, echo::run);
}

/// Whatever a peer that reads nothing asks for, in whichever phase, it has the server hold and do no more
/// than its share; and it gets all of it, in order, once it reads.
#[test]
fn peers_that_do_not_read_have_bounds() {
    for_each_seed("peers_that_do_not_read_have_bounds", 40, hostile::run);
}

/// However many peers ask for as much as each may, a turn has a bound.
#[test]
fn a_crowd_has_a_share() {
    for_each_seed("a_crowd_has_a_share", 4, hostile::crowd);
}

/// The same over TLS, with records cut anywhere; both sides end in order, and nothing is left behind.
#[test]
fn echo_streams_come_back_over_tls() {
    for_each_seed("echo_streams_come_back_over_tls", 60, tls::run);
}

/// Handshakes of TLS that arrive together do not hold up a turn.
#[test]
fn handshakes_have_a_share() {
    watch_panics();
    tls::crowd();
}

/// Strangers who begin handshakes, or break TLS, cost others nothing.
#[test]
fn broken_handshakes_have_bounds() {
    watch_panics();
    tls::unfinished();
    tls::garbage();
}

/// TLS does not change how a reader is measured.
#[test]
fn a_pause_over_tls_is_a_pause() {
    watch_panics();
    tls::a_pause();
}

/// Everybody who stays ends with the freshest state, on one shard or on three.
#[test]
fn subscribers_end_with_the_freshest_state() {
    for_each_seed(
        "subscribers_end_with_the_freshest_state",
        1_000,
        topics::run,
    );
}

/// What a slow reader reads is fresh, however much the kernels between would hold.
#[test]
fn slow_readers_read_what_is_fresh() {
    for_each_seed("slow_readers_read_what_is_fresh", 6, fresh::run);
}

/// A shard that gets no turn for long costs the others a value of each topic at most, and has the
/// freshest state once it gets one.
#[test]
fn a_stalled_shard_catches_up() {
    for_each_seed("a_stalled_shard_catches_up", 24, topics::run_stall);
}

/// A panic in the handling of one connection ends that one and no other.
#[test]
fn a_panic_ends_one_connection() {
    defect::run();
}

/// A panic while what is due to a subscriber is sent ends that one and no other.
#[test]
fn a_panic_at_the_end_of_a_turn_ends_one_connection() {
    defect::run_composing();
}

/// A panic in the timer of one connection ends that one and no other.
#[test]
fn a_panic_in_a_timer_ends_one_connection() {
    defect::run_timers();
}

/// A panic while one connection is told of a drain ends that one and no other.
#[test]
fn a_panic_in_a_drain_ends_one_connection() {
    defect::run_draining();
}

/// Whichever shards clients dial and whoever leaves: none gets a newcomer while another has clearly fewer.
#[test]
fn newcomers_are_spread() {
    for_each_seed("newcomers_are_spread", 200, spread::run);
}

/// What a full home does not take of a batch is refused by name.
#[test]
fn a_full_home_refuses_by_name() {
    refusals::run();
}

/// A drain at any moment ends everyone with 1001, in time, and leaves nothing behind.
#[test]
fn draining_ends_everyone() {
    for_each_seed("draining_ends_everyone", 800, topics::run_drain);
}

/// When memory becomes scarce, less of it is used for those who do not read, or read slowly.
#[test]
fn scarce_memory_is_used_sparingly() {
    watch_panics();
    memory::run();
}

/// Each bound of a connection is answered as promised, when it is due.
#[test]
fn bounds_are_answered_as_promised() {
    watch_panics();
    for (name, case) in [
        ("handshake_timeout", limits::handshake_timeout as fn()),
        ("keep_alive_timeout", limits::keep_alive_timeout),
        ("send_timeout", limits::send_timeout),
        ("message_timeout", limits::message_timeout),
        ("silence", limits::silence),
        ("pings", limits::pings),
        ("closing", limits::closing),
        ("floods", limits::floods),
        ("outbox", limits::outbox),
        ("connections_max", limits::connections_max),
        ("compression_contexts", limits::compression_contexts),
    ] {
        eprintln!("{name}");
        case();
    }
}
