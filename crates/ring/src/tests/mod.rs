//! The same contract, and the same properties, for every engine.

/// A driver of a new world; if it cannot be made, the property is skipped.
macro_rules! drive {
    ($make:expr, $options:expr) => {
        match $make($options) {
            Some(world) => Driver::new(world),
            None => return,
        }
    };
}

mod adoption;
mod contract;
mod ownership;
mod process;
mod seeds;
mod sockets;
mod world;

/// Runs each property on each engine; an engine that this machine lacks is skipped with a line.
macro_rules! properties {
    ($file:ident over $engine:ident: $($name:ident),* $(,)?) => {
        mod $engine {
            $(
                #[test]
                fn $name() {
                    super::super::$file::$name(super::super::world::$engine);
                }
            )*
        }
    };
}

macro_rules! contract {
    ($($engine:ident)*) => {
        /// What every engine must do.
        mod every_engine {
            $(properties! { contract over $engine:
                bytes_arrive_in_order,
                gathering_loses_nothing,
                receiving_on_is_in_order,
                echo_goes_out_of_the_same_buffer,
                short_sends_resume,
                a_second_send_is_refused,
                stale_tokens_are_ignored,
                close_gives_everything_back,
                a_reset_is_seen_as_one,
                a_peers_reset_ends_both_ways,
                half_closed_connections_still_send,
                pausing_loses_nothing,
                running_out_of_buffers_is_survived,
                slots_are_bounded_and_accepting_recovers,
                doorbells_wake,
                dropping_with_everything_in_flight_is_clean,
                many_come_and_go,
                full_queues_lose_nothing,
                bursts_and_rests_lose_nothing,
                floods_and_trickles_take_turns,
            })*
        }

        /// What every engine must do with sockets that it offers.
        mod every_adoption {
            $(properties! { adoption over $engine:
                offered_sockets_are_adopted_anywhere,
                offered_sockets_are_not_lost,
                freed_slots_are_taken_later,
            })*
        }
    };
}

macro_rules! sockets {
    ($($engine:ident)*) => {
        /// What engines with real sockets must do.
        mod real_engines {
            $(properties! { sockets over $engine:
                outgoing_connections_work,
                a_refused_connection_is_reported,
                a_connection_under_way_can_be_closed,
                stopping_frees_the_port,
                stopping_offers_the_last,
                dropping_frees_the_port,
                no_wait_ends_early,
                fractions_of_a_millisecond_count,
            })*
        }
    };
}

contract! { uring uring_direct epoll simulated simulated_with_faults }
sockets! { uring uring_direct epoll }

/// What an engine must do whose kernel works on memory between two calls.
mod lending {
    properties! { contract over uring: bytes_are_held_until_the_kernel_answers, buffers_come_round }
    properties! { contract over uring_direct: bytes_are_held_until_the_kernel_answers, buffers_come_round }
}

/// What engines know whose sockets are descriptors of the process.
mod addresses {
    properties! { contract over uring: peers_have_an_address }
    properties! { contract over epoll: peers_have_an_address }
    properties! { contract over simulated: peers_have_an_address }
}

/// What engines do that read from descriptors of the process.
mod bulk {
    properties! { sockets over uring: floods_come_in_large_pieces, a_flood_holds_up_nobody }
    properties! { sockets over epoll: floods_come_in_large_pieces, a_flood_holds_up_nobody }
}
