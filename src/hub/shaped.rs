//! Subscriptions whose updates depend on what their subscriber was sent before, or are written in another way: what has
//! changed of an object (`mode` `merge`), rows of a table (`keyed`), and receipts.
//!
//! For each such subscriber and topic the hub remembers the value that was last sent. What goes out next is the merge patch
//! ([`patch`](super::patch)) from that value to the newest one. So whatever was published in between, one patch stands for
//! it, and a subscriber that applies the patches in their order has the newest value. Subscribers who were last sent the same
//! value get the same bytes, which are made once.
//!
//! - A value is sent whole if it is the first one, a snapshot, or no object; if a patch cannot say it or would be longer; and
//!   if what was sent before is forgotten, since there was no room for it. A subscriber replaces what it has then.
//! - What is remembered is the value itself, shared with all who remember it, so keeping it costs an entry.
//! - What is due is found as for everybody ([`gather`](super::gather)): filters, rates and what is owed stay what they are.
//!
//! A table is no thing of its own: its rows are topics, `TABLE.KEY`, and the pattern `TABLE.*` selects them. With `keyed`
//! their updates say so.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::arena::Id;
use super::compose::{Composed, Delivered, older};
use super::gather::Entry;
use super::message::{Encode, Span};
use super::replica::TopicState;
use super::subscriber::Subscribers;
use super::{Hub, Mode};
use crate::limits::{CLIENT_PATCHED_BYTES_MAX, PATCHED_BYTES_MAX, SENT_VALUE_BYTES};
use tickring_ring::SharedBytes;

/// How the updates of a membership are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// As what has changed.
    pub(super) has_patches: bool,
    /// As rows of a table.
    pub(super) has_rows: bool,
    pub(super) has_receipts: bool,
}

impl Form {
    pub(super) fn of(mode: Mode, has_receipts: bool) -> Self {
        Self {
            has_patches: mode == Mode::Merge,
            has_rows: mode == Mode::Keyed,
            has_receipts,
        }
    }

    /// The mode that has it, if not all values are sent.
    pub(super) const fn mode(self) -> Mode {
        match self {
            Self {
                has_patches: true, ..
            } => Mode::Merge,
            Self { has_rows: true, .. } => Mode::Keyed,
            _ => Mode::Latest,
        }
    }

    pub(super) fn is_plain(self) -> bool {
        self == Self::default()
    }

    /// True if it depends on what was sent before.
    const fn looks_back(self) -> bool {
        self.has_patches || self.has_receipts
    }
}

/// The forms of a shard's memberships, and what was sent to their subscribers.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    forms: HashMap<Id, Form, RandomState>,
    /// By subscriber.
    clients: HashMap<Id, Client, RandomState>,
    bytes: usize,
}

/// What one subscriber was sent.
#[derive(Debug, Default)]
struct Client {
    /// How many of its memberships have a form.
    members: u32,
    /// By topic, the value that it was last sent.
    sent: HashMap<Id, Sent, RandomState>,
    bytes: usize,
}

/// A value that a subscriber was sent.
#[derive(Debug)]
pub(super) struct Sent {
    /// Whose it is: the topic's place may have become another's.
    name: Arc<str>,
    pub(super) seq: u64,
    pub(super) ts: u64,
    /// None: it is not needed, or no object.
    base: Option<SharedBytes>,
    span: Span,
}

impl Sent {
    /// The value, if it is known.
    pub(super) fn data(&self) -> Option<&[u8]> {
        let base = self.base.as_ref()?;
        Some(&base[self.span.start as usize..self.span.end as usize])
    }

    fn bytes(&self) -> usize {
        SENT_VALUE_BYTES + self.base.as_ref().map_or(0, |base| base.len())
    }
}

impl Shapes {
    /// The form of a membership.
    pub(super) fn form(&self, member: Id) -> Form {
        self.forms.get(&member).copied().unwrap_or_default()
    }

    /// True if a subscriber has memberships with forms.
    pub(super) fn has(&self, subscriber: Id) -> bool {
        self.clients.contains_key(&subscriber)
    }

    /// The bytes that are remembered for a subscriber.
    pub(super) fn bytes_of(&self, subscriber: Id) -> usize {
        let client = self.clients.get(&subscriber);
        client.map_or(0, |client| client.bytes)
    }

    /// A subscriber is being sent a topic's newest value.
    fn note(&mut self, subscriber: Id, topic_id: Id, topic: &TopicState, form: Form) {
        let Some(client) = self.clients.get_mut(&subscriber) else {
            return;
        };
        if let Some(before) = client.sent.remove(&topic_id) {
            client.bytes -= before.bytes();
            self.bytes -= before.bytes();
        }
        if topic.is_withdrawn || !form.looks_back() {
            return;
        }
        let sent = Sent {
            name: Arc::clone(&topic.name),
            seq: topic.seq,
            ts: topic.ts,
            base: form.has_patches.then(|| topic.base_shared()),
            span: topic.span(),
        };
        let bytes = sent.bytes();
        if client.bytes + bytes > CLIENT_PATCHED_BYTES_MAX {
            client.sent = HashMap::default();
            self.bytes -= std::mem::take(&mut client.bytes);
        }
        if self.bytes + bytes <= PATCHED_BYTES_MAX && bytes <= CLIENT_PATCHED_BYTES_MAX {
            client.sent.insert(topic_id, sent);
            client.bytes += bytes;
            self.bytes += bytes;
        }
    }

    /// What a subscriber was last sent of a topic, if that is older than its newest value.
    fn sent(&self, subscriber: Id, topic_id: Id, topic: &TopicState) -> Option<&Sent> {
        let sent = self.clients.get(&subscriber)?.sent.get(&topic_id)?;
        let is_its = Arc::ptr_eq(&sent.name, &topic.name) && sent.seq < topic.seq;
        (is_its && !topic.is_withdrawn).then_some(sent)
    }
}

impl Subscribers {
    /// A new membership has this form.
    #[cold]
    pub(super) fn begin_shaped(&mut self, member: Id, form: Form) {
        let id = self.members[member].subscriber;
        self.shapes.forms.insert(member, form);
        self.shapes.clients.entry(id).or_default().members += 1;
    }
}

impl Hub {
    /// A membership ends, with a form or without: what its subscriber was sent of its topics is forgotten, as the client may
    /// forget it.
    #[inline]
    pub(super) fn end_shaped(&mut self, member: Id) {
        if !self.subscribers.shapes.forms.is_empty() {
            self.end_form(member);
        }
    }

    #[cold]
    #[inline(never)]
    fn end_form(&mut self, member: Id) {
        let record = &self.subscribers.members[member];
        let (id, group) = (record.subscriber, record.group);
        let shapes = &mut self.subscribers.shapes;
        let Some(client) = shapes.clients.get_mut(&id) else {
            return;
        };
        if shapes.forms.remove(&member).is_some() {
            client.members -= 1;
        }
        if shapes.forms.is_empty() {
            shapes.forms = HashMap::default();
        }
        let before = client.bytes;
        let pattern = &self.groups.groups[group].pattern;
        if client.members == 0 {
            client.bytes = 0;
        } else if pattern.is_literal() {
            let topic = self.topics.find(pattern.as_str());
            if let Some(sent) = topic.and_then(|topic| client.sent.remove(&topic)) {
                client.bytes -= sent.bytes();
            }
        } else {
            self.work_done += client.sent.len() as u64;
            client.sent.retain(|_, sent| !pattern.matches(&sent.name));
            client.bytes = client.sent.values().map(Sent::bytes).sum();
        }
        shapes.bytes -= before - client.bytes;
        if client.members == 0 {
            shapes.clients.remove(&id);
            let who = self.subscribers.subscribers[id].who;
            self.mark(who);
        }
    }

    /// How a subscriber is sent a topic: if several of its patterns select it, each has its say.
    fn form_of(&self, id: Id, topic: &TopicState) -> Form {
        let mut form = Form::default();
        for node in self.groups.nodes_of(topic.nodes) {
            let Some(member) = self.subscribers.membership(id, node.group) else {
                continue;
            };
            let of_member = self.subscribers.shapes.form(member);
            form.has_rows |= of_member.has_rows;
            form.has_patches |= of_member.has_patches;
            form.has_receipts |= of_member.has_receipts;
        }
        // A row is sent whole.
        form.has_patches &= !form.has_rows;
        form
    }

    /// One gathered update for a subscriber, which is about to be sent it if there is room.
    fn frame_for(&mut self, id: Id, entry: Entry, encode: &mut impl Encode) -> (SharedBytes, Form) {
        self.complete(entry.topic);
        let form = self.form_of(id, &self.topics[entry.topic]);
        let format = self.subscribers.subscribers[id].format.plain();
        let format = match form.has_rows {
            true => format.of_rows(),
            false => format,
        };
        let topic = &mut self.topics[entry.topic];
        let shapes = &self.subscribers.shapes;
        let sent = match form.looks_back() && !entry.snapshot {
            true => shapes.sent(id, entry.topic, topic),
            false => None,
        };
        let frame = match sent {
            Some(sent) => topic.frame_since(sent, form, format, &mut self.frames, encode),
            None => {
                let frame = topic.frame(format, entry.snapshot, &mut self.frames, encode);
                SharedBytes::clone(frame)
            }
        };
        (frame, form)
    }

    /// [`Hub::compose`] for a subscriber with forms, or a window.
    #[cold]
    #[inline(never)]
    pub(super) fn compose_shaped(
        &mut self,
        id: Id,
        encode: &mut impl Encode,
        bytes_max: usize,
    ) -> Option<Composed> {
        let room = self.room_to_show(id);
        let lines = match self.subscribers.subscribers[id].paced {
            _ if room == 0 => return None,
            0 => None,
            _ => self.compose_lines(id, encode, bytes_max, room),
        };
        let composed = lines.or_else(|| self.compose_some(id, encode, bytes_max, room))?;
        self.note_unshown(id, composed.deliveries);
        Some(composed)
    }

    fn compose_some(
        &mut self,
        id: Id,
        encode: &mut impl Encode,
        bytes_max: usize,
        updates_max: usize,
    ) -> Option<Composed> {
        if !self.gather_some(id, bytes_max) {
            return None;
        }
        let (mut frames, mut bytes, mut oldest_ts) = (Vec::new(), 0, None);
        for at in 0..self.walk.entries.len().min(updates_max) {
            let entry = self.walk.entries[at];
            let (frame, form) = self.frame_for(id, entry, encode);
            if !frames.is_empty() && bytes + frame.len() > bytes_max {
                break;
            }
            bytes += frame.len();
            frames.push(frame);
            let topic = &self.topics[entry.topic];
            if !entry.snapshot {
                oldest_ts = older(oldest_ts, topic.ts);
            }
            self.subscribers.shapes.note(id, entry.topic, topic, form);
        }
        let deliveries = frames.len();
        self.commit(id, deliveries);
        Some(Composed {
            bytes: self.frames.join(frames, bytes),
            deliveries: deliveries as u32,
            oldest_ts,
        })
    }

    /// [`Hub::compose_each`] for a subscriber with forms, or a window.
    #[cold]
    #[inline(never)]
    pub(super) fn compose_each_shaped<E: Encode>(
        &mut self,
        id: Id,
        encode: &mut E,
        bytes_max: usize,
        deliver: &mut impl FnMut(&mut E, &[u8]),
    ) -> Option<Delivered> {
        let room = self.room_to_show(id);
        let lines = match self.subscribers.subscribers[id].paced {
            _ if room == 0 => return None,
            0 => None,
            _ => self.compose_each_line(id, encode, (bytes_max, room), deliver),
        };
        let delivered =
            lines.or_else(|| self.compose_each_some(id, encode, (bytes_max, room), deliver))?;
        self.note_unshown(id, delivered.deliveries);
        Some(delivered)
    }

    fn compose_each_some<E: Encode>(
        &mut self,
        id: Id,
        encode: &mut E,
        (bytes_max, updates_max): (usize, usize),
        deliver: &mut impl FnMut(&mut E, &[u8]),
    ) -> Option<Delivered> {
        if !self.gather_some(id, bytes_max) {
            return None;
        }
        let (mut sent, mut bytes, mut oldest_ts) = (0, 0, None);
        for at in 0..self.walk.entries.len().min(updates_max) {
            let entry = self.walk.entries[at];
            let (frame, form) = self.frame_for(id, entry, encode);
            deliver(encode, &frame);
            let topic = &self.topics[entry.topic];
            if !entry.snapshot {
                oldest_ts = older(oldest_ts, topic.ts);
            }
            self.subscribers.shapes.note(id, entry.topic, topic, form);
            bytes += frame.len();
            sent += 1;
            if bytes >= bytes_max {
                break;
            }
        }
        self.commit(id, sent);
        Some(Delivered {
            deliveries: sent as u32,
            oldest_ts,
        })
    }
}

#[cfg(test)]
mod tests;
