//! The end of a shard: everyone is sent what is due, then Close, until all have left or the time is up.

use super::accepting::Accepting;
use super::connection::Flags;
use super::timers::TICK_MS;
use super::{Settings, Shard};
use crate::mailbox::FromShard;
use tickring_ring::Ring;

/// The server is shutting down.
#[derive(Debug)]
pub(super) struct Draining {
    since_ms: u64,
    /// Clients to whom updates are due are still being sent them.
    is_delivering: bool,
}

impl<R: Ring> Shard<R> {
    /// Stops accepting and closes everyone, with 1001 unless the server has failed (1012), once they have been sent
    /// what is due to them.
    pub(super) fn drain(&mut self) {
        if self.draining.is_some() {
            return;
        }
        self.draining = Some(Draining {
            since_ms: self.services.now.ms,
            is_delivering: true,
        });
        self.services.is_draining = true;
        self.services.accepting = Accepting::Stopped;
        self.services.ring.stop_listening();
        self.spread.stop();
        self.services.hub.settle();
        for index in 0..self.connections.len() {
            self.serve_at(index, |services, token, connection| {
                services.send_away(token, connection);
            });
        }
    }

    /// Whether everybody has left, or the drain window is over and the rest were reset.
    pub(super) fn is_drained(&mut self) -> bool {
        let Some(Draining {
            since_ms,
            is_delivering,
        }) = &mut self.draining
        else {
            return false;
        };
        let draining_ms = self.services.now.ms - *since_ms;
        let Settings {
            drain_timeout_ms,
            close_timeout_ms,
            ..
        } = self.services.settings;
        // Whoever has not read what is due by then is still sent a Close.
        let delivered_ms = drain_timeout_ms.saturating_sub(close_timeout_ms + CLOSE_MARGIN_MS);
        if draining_ms >= delivered_ms && std::mem::take(is_delivering) {
            for index in 0..self.connections.len() {
                self.serve_at(index, |services, token, connection| {
                    if connection.flags.contains(Flags::LEAVING) {
                        services.send_farewell(token, connection);
                    }
                });
            }
        }
        // The home answers publishers until the last shard has gone.
        let have_all_left = self.connections_live == 0
            && draining_ms >= LAST_ACCEPTS_MS
            && self.spread.is_over()
            && (!self.services.hub.is_home() || self.mesh.is_alone());
        if !have_all_left && draining_ms < drain_timeout_ms {
            return false;
        }
        self.mesh.hang_up();
        self.control.send(FromShard::Ended);
        self.control.flush();
        true
    }
}

/// The closing handshakes that begin last end this much before the drain window does: a few turns of the timer wheel.
const CLOSE_MARGIN_MS: u64 = 5 * TICK_MS;
/// How long a draining shard stays for connections that the kernel has accepted and not yet reported: the ring yields
/// them in the next wait or two.
const LAST_ACCEPTS_MS: u64 = 20;
