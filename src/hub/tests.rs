//! What one hub, or two, must do in particular. What must hold in general is in `cluster`.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::cluster::{Heard, Plainly, parse};
use super::*;
use crate::limits::{CLIENT_PATTERN_KINDS_MAX, PATTERN_KINDS_MAX};
use tickring_ring::SharedBytes;

fn hub(limits: HubLimits) -> Hub {
    Hub::new(ShardId(0), 1, limits)
}

fn topic(text: &str) -> Topic {
    Topic::parse(text).unwrap()
}

fn subscribe(hub: &mut Hub, who: u32, pattern: &str) -> Result<bool, HubError> {
    hub.subscribe(
        SubscriberId(who),
        FormatId::BASE,
        Pattern::parse(pattern).unwrap(),
    )
}

fn publish(hub: &mut Hub, name: &str, encode: &mut Plainly) {
    hub.publish(&topic(name), b"1", 7, None, encode);
}

fn dirty(hub: &mut Hub) -> Vec<SubscriberId> {
    hub.settle();
    std::iter::from_fn(|| hub.poll_dirty()).collect()
}

fn hear(hub: &mut Hub, who: u32, bytes_max: usize) -> Vec<Heard> {
    let composed = hub.compose(SubscriberId(who), &mut Plainly::default(), bytes_max);
    composed
        .map(|composed| parse(&composed.bytes, FormatId::BASE))
        .unwrap_or_default()
}

/// A burst is encoded once, joined once, and everybody holds the very same bytes; a format costs
/// one frame more for each update, once.
#[test]
fn a_burst_is_built_once_for_all() {
    let (mut hub, mut encode) = (hub(HubLimits::default()), Plainly::default());
    for who in 0..1_000 {
        let format = FormatId(if who % 2 == 0 { 0 } else { 15 });
        hub.subscribe(SubscriberId(who), format, Pattern::parse("md.*").unwrap())
            .unwrap();
    }
    for index in 0..16 {
        publish(&mut hub, &format!("md.S{index}"), &mut encode);
    }
    let due = dirty(&mut hub);
    assert_eq!(due.len(), 1_000);
    let mut batches: [Vec<SharedBytes>; 2] = Default::default();
    for who in due {
        let composed = hub.compose(who, &mut encode, 1 << 20).unwrap();
        assert_eq!((composed.deliveries, composed.oldest_ts), (16, Some(7)));
        batches[who.0 as usize % 2].push(composed.bytes);
    }
    for batches in &batches {
        assert!(batches.iter().all(|bytes| Rc::ptr_eq(bytes, &batches[0])));
    }
    assert_eq!(encode.frames, 32);
}

/// One update is not copied: all get the frame that the topic keeps.
#[test]
fn a_single_update_is_its_frame() {
    let (mut hub, mut encode) = (hub(HubLimits::default()), Plainly::default());
    for who in 0..10 {
        subscribe(&mut hub, who, ["a", "*", ">"][who as usize % 3]).unwrap();
    }
    publish(&mut hub, "a", &mut encode);
    let due = dirty(&mut hub);
    let mut compose = |who| hub.compose(who, &mut encode, 1).unwrap().bytes;
    let first = compose(due[0]);
    assert!(
        due[1..]
            .iter()
            .all(|&who| Rc::ptr_eq(&compose(who), &first))
    );
    assert_eq!((due.len(), encode.frames), (10, 1));
}

/// When everybody comes back at once, each part of the snapshots is built once.
#[test]
fn a_herd_shares_its_snapshots() {
    let (mut hub, mut encode) = (hub(HubLimits::default()), Plainly::default());
    for index in 0..100 {
        publish(&mut hub, &format!("md.S{index}"), &mut encode);
    }
    (0..50).for_each(|who| assert_eq!(subscribe(&mut hub, who, "md.>"), Ok(true)));
    let mut parts = BTreeMap::<*const u8, u32>::new();
    for who in 0..50 {
        let mut heard = vec![];
        while let Some(composed) = hub.compose(SubscriberId(who), &mut encode, 400) {
            *parts.entry(composed.bytes.as_ptr()).or_default() += 1;
            heard.extend(parse(&composed.bytes, FormatId::BASE));
        }
        assert!(heard.iter().all(|heard| heard.snapshot));
        // Oldest first.
        let order = (0..100).map(|index| format!("md.S{index}"));
        assert!(heard.into_iter().map(|heard| heard.topic).eq(order));
    }
    assert_eq!(encode.frames, 200);
    assert!(
        parts.len() <= 8 && parts.values().all(|&count| count == 50),
        "{parts:?}"
    );
}

/// A subscriber that never composes is found due once, and a publication leaves nothing behind
/// for it.
#[test]
fn a_silent_subscriber_costs_nothing() {
    let (mut hub, mut encode) = (hub(HubLimits::default()), Plainly::default());
    subscribe(&mut hub, 0, ">").unwrap();
    publish(&mut hub, "a", &mut encode);
    assert_eq!(dirty(&mut hub), [SubscriberId(0)]);
    for round in 0..10_000 {
        publish(&mut hub, ["a", "b", "c"][round % 3], &mut encode);
        assert_eq!(dirty(&mut hub), []);
    }
    assert_eq!(
        (hub.groups.nodes.len(), hub.subscribers.members.len()),
        (3, 1)
    );
    assert!(hub.subscribers.owed.is_empty() && hub.subscribers.joined.is_empty());
    let seqs: Vec<u64> = hear(&mut hub, 0, 1 << 20)
        .iter()
        .map(|heard| heard.seq)
        .collect();
    assert_eq!(seqs.iter().sum::<u64>(), 10_001);
    let stats = hub.stats();
    assert_eq!(
        (stats.publications, stats.deliveries, stats.skipped),
        (10_001, 3, 9_998)
    );
}

/// A reader that can carry a tenth of what is published hears of every topic, in turn, and always
/// its freshest value.
#[test]
fn no_topic_starves_a_slow_reader() {
    let (mut hub, mut encode) = (hub(HubLimits::default()), Plainly::default());
    subscribe(&mut hub, 0, ">").unwrap();
    let mut heard_at = BTreeMap::<String, u64>::new();
    for turn in 1..=500 {
        for index in 10..110 {
            publish(&mut hub, &format!("t{index}"), &mut encode);
        }
        hub.settle();
        let heard = hear(&mut hub, 0, 140);
        assert!((8..=12).contains(&heard.len()));
        for heard in heard {
            assert_eq!(heard.seq, turn);
            heard_at.insert(heard.topic, turn);
        }
    }
    assert_eq!(heard_at.len(), 100);
    assert!(
        heard_at.values().all(|&turn| turn > 500 - 15),
        "{heard_at:?}"
    );
    assert_eq!(hub.subscribers.owed.len(), 1);
    while !hear(&mut hub, 0, 140).is_empty() {}
    assert!(hub.subscribers.owed.is_empty());
}

/// Where turns go by and all is sent, frames are written into a few buffers over and over, at the home as
/// on a shard that only watches.
#[test]
fn a_steady_stream_reuses_its_frames() {
    let mut encode = Plainly::default();
    let mut hubs = [1, 0].map(|shard| Hub::new(ShardId(shard), 2, HubLimits::default()));
    let names: Vec<String> = (0..100).map(|index| format!("md.S{index}")).collect();
    let names: Vec<&String> = names.iter().take(8).collect();
    hubs.iter_mut()
        .for_each(|hub| (0..20).for_each(|who| assert!(subscribe(hub, who, "md.*").is_ok())));
    let mut frames = BTreeSet::new();
    for turn in 0..500 {
        exchange(&mut hubs, &mut encode);
        for name in &names[..1 + turn % names.len()] {
            publish(&mut hubs[0], name, &mut encode);
        }
        exchange(&mut hubs, &mut encode);
        for hub in &mut hubs {
            let mut sends = vec![];
            for who in dirty(hub) {
                sends.push(hub.compose(who, &mut encode, 1 << 20).unwrap().bytes);
            }
            assert_eq!(sends.len(), 20);
            frames.extend(sends.iter().map(|bytes| bytes.as_ptr()));
        }
    }
    assert!(frames.len() <= 64, "{} frames", frames.len());
}

fn exchange(hubs: &mut [Hub; 2], encode: &mut Plainly) {
    loop {
        let [first, second] = hubs;
        if let Some((_, message)) = first.poll_message() {
            second.handle_message(ShardId(1), message, encode);
        } else if let Some((_, message)) = second.poll_message() {
            first.handle_message(ShardId(0), message, encode);
        } else {
            return;
        }
    }
}

/// Each bound is met with its error, and what was refused has left nothing behind.
#[test]
fn bounds_are_kept() {
    let limits = HubLimits {
        subscriptions_max: 2,
        topics_max: 2,
        patterns_max: 3,
        ..HubLimits::default()
    };
    let (mut hub, mut encode) = (hub(limits), Plainly::default());
    assert_eq!(subscribe(&mut hub, 0, "a"), Ok(true));
    assert_eq!(subscribe(&mut hub, 0, "b.*"), Ok(true));
    assert_eq!(subscribe(&mut hub, 0, "a"), Ok(false));
    assert_eq!(
        subscribe(&mut hub, 0, "c"),
        Err(HubError::TooManySubscriptions)
    );
    assert_eq!(subscribe(&mut hub, 1, "c"), Ok(true));
    assert_eq!(subscribe(&mut hub, 2, "d"), Err(HubError::TooManyPatterns));
    assert_eq!(subscribe(&mut hub, 2, "a"), Ok(true));
    let stats = hub.stats();
    assert_eq!(
        (stats.groups, stats.subscribers, stats.subscriptions),
        (3, 3, 4)
    );

    let results =
        ["a", "b", "c", "a"].map(|name| hub.publish_here(&topic(name), b"1", 0, &mut encode));
    assert_eq!(results, [Ok(1), Ok(1), Err(HubError::TooManyTopics), Ok(2)]);
    assert_eq!(hub.stats().topics, 2);
}

/// A client cannot fill the server with patterns: those of one connection have a bound in bytes, and so have
/// all together.
#[test]
fn no_client_fills_the_server_with_patterns() {
    let mut hub = hub(HubLimits {
        watched_bytes_max: 4 << 20,
        ..HubLimits::default()
    });
    // The longest names: a connection may have as many as the number allows.
    let long = |who: u32, index: u32| format!("{who:0>100}.{index:0>154}");
    for index in 0..1_024 {
        assert_eq!(subscribe(&mut hub, 0, &long(0, index)), Ok(true));
    }
    assert_eq!(
        subscribe(&mut hub, 0, &long(0, 1_024)),
        Err(HubError::TooManySubscriptions)
    );
    // Wildcards of many tokens take more.
    let deep = |index: u32| format!("{}{index}", "*.".repeat(15));
    let count = (0..).find(|&index| subscribe(&mut hub, 1, &deep(index)).is_err());
    assert!((200..300).contains(&count.unwrap()), "{count:?}");
    assert_eq!(
        subscribe(&mut hub, 1, &deep(9_999)),
        Err(HubError::TooManyPatternBytes)
    );
    assert_eq!(subscribe(&mut hub, 1, "a"), Ok(true));
    let mut refused = None;
    for (who, index) in (2..100).flat_map(|who| (0..1_024).map(move |index| (who, index))) {
        refused = subscribe(&mut hub, who, &long(who, index)).err();
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(refused, Some(HubError::TooManyWatchedBytes));
    // When they have gone there is room again.
    (0..100).for_each(|who| hub.remove(SubscriberId(who)));
    assert_eq!(hub.groups.pattern_bytes, 0);
    assert_eq!(subscribe(&mut hub, 200, "b"), Ok(true));
}

/// Compressed frames and those of snapshots, which topics keep beside the plain one, are bounded in bytes
/// however many topics there are; what was given up is made again.
#[test]
fn frames_kept_are_bounded() {
    let (mut hub, mut encode) = (hub(HubLimits::default()), Plainly::default());
    let data = "1".repeat(1 << 16);
    for index in 0..500 {
        let name = topic(&format!("t{index}"));
        hub.publish(&name, data.as_bytes(), 0, None, &mut encode);
    }
    for format in 9..15 {
        let who = SubscriberId(format.into());
        let pattern = Pattern::parse(">").unwrap();
        hub.subscribe(who, FormatId(format), pattern).unwrap();
        let mut heard = 0;
        while let Some(composed) = hub.compose(who, &mut encode, 1 << 16) {
            heard += parse(&composed.bytes, FormatId(format)).len();
        }
        assert_eq!(heard, 500);
        let kept_bytes = hub.frames.kept_bytes();
        assert!(kept_bytes <= crate::limits::KEPT_FRAMES_BYTES_MAX + (1 << 17));
        assert!(format < 13 || kept_bytes > crate::limits::KEPT_FRAMES_BYTES_MAX / 2);
    }
}

fn publish_as(hub: &mut Hub, who: u32, name: &str, bytes: usize) -> Result<u64, HubError> {
    let ticket = Ticket {
        who: SubscriberId(who),
        generation: 0,
        request: RequestId::None,
    };
    let data = "1".repeat(bytes);
    let encode = &mut Plainly::default();
    hub.publish(&topic(name), data.as_bytes(), 0, Some(ticket), encode);
    hub.poll_accepted().expect("it is answered at once").1
}

/// A client that keeps all that it may is refused by name, and only that: it may go on writing what it has,
/// and others may write too. Coming again and again gains it no more than the clients' share. The server's
/// own publications find room all the while, up to the bound of all.
#[test]
fn no_client_fills_the_server() {
    let limits = HubLimits {
        retained_bytes_max: 100_000,
        client_topics_max: 5,
        client_retained_bytes_max: 10_000,
        ..HubLimits::default()
    };
    let (mut hub, mut encode) = (hub(limits), Plainly::default());
    let mut kept = 0;
    for life in 0..40 {
        for index in 0.. {
            let name = format!("chat.{life}.{index}");
            match publish_as(&mut hub, 7, &name, if life % 2 == 0 { 1 } else { 4_000 }) {
                Ok(_) => kept += 1,
                Err(HubError::TooManyTopicsOfClient) => {
                    assert_eq!((life % 2, index), (0, 5));
                    assert!(publish_as(&mut hub, 7, &format!("chat.{life}.0"), 1).is_ok());
                    break;
                }
                Err(HubError::TooManyBytesOfClient) => {
                    assert_eq!((life % 2, index), (1, 2));
                    assert!(publish_as(&mut hub, 8, &name, 1).is_ok());
                    assert!(publish_as(&mut hub, 8, &name, 4).is_ok());
                    // `null` is what frees it again.
                    assert_eq!(hub.withdraw(&topic(&name), 0, &mut encode), Ok(true));
                    break;
                }
                Err(error) => {
                    assert_eq!(error, HubError::TooManyBytesOfClients);
                    break;
                }
            }
        }
        hub.remove(SubscriberId(7));
        hub.remove(SubscriberId(8));
    }
    let stats = hub.stats();
    assert!(stats.topics < kept, "those who have gone make room");
    assert!(
        (45_000..=50_000).contains(&stats.retained_bytes),
        "{stats:?}"
    );

    let mut publish = |hub: &mut Hub, name: &str, bytes| {
        let data = "1".repeat(bytes);
        hub.publish_here(&topic(name), data.as_bytes(), 0, &mut encode)
    };
    assert!((0..40).all(|index| publish(&mut hub, &format!("md.{index}"), 500).is_ok()));
    assert_eq!(
        publish(&mut hub, "md.last", 50_000),
        Err(HubError::TooManyBytes)
    );
    assert!(hub.stats().retained_bytes <= 100_000);
    assert_eq!(
        hub.stats().topics,
        stats.topics + 40,
        "what was refused is not there"
    );
    // What the server overwrites is the clients' no more.
    assert!(publish(&mut hub, "chat.1.0", 4_000).is_ok());
    assert!(publish_as(&mut hub, 9, "chat.new", 2_000).is_ok());
}

/// `null` ends a topic: its watchers hear it as the last value, newcomers hear nothing, its memory is free,
/// and if it begins again its numbers go on above those that anybody has heard.
#[test]
fn null_ends_a_topic() {
    for watched in [false, true] {
        let limits = HubLimits {
            withdrawn_max: 1,
            ..HubLimits::default()
        };
        let (mut hub, mut encode) = (hub(limits), Plainly::default());
        if watched {
            subscribe(&mut hub, 0, "*").unwrap();
        }
        let mut publish = |hub: &mut Hub, name: &str, data: &str| {
            hub.publish_here(&topic(name), data.as_bytes(), 0, &mut encode)
        };
        assert_eq!(publish(&mut hub, "a", "null"), Ok(0), "there was none");
        for seq in 1..=5 {
            assert_eq!(publish(&mut hub, "a", "1"), Ok(seq));
        }
        hear(&mut hub, 0, 1 << 20);
        assert_eq!(publish(&mut hub, "a", " null "), Ok(6));
        assert_eq!(publish(&mut hub, "a", "null"), Ok(0), "it has ended");
        let heard = hear(&mut hub, 0, 1 << 20);
        assert_eq!(heard.len(), usize::from(watched));
        subscribe(&mut hub, 1, "*").unwrap();
        assert_eq!(hear(&mut hub, 1, 1 << 20), []);
        let stats = hub.stats();
        assert_eq!((stats.topics, stats.retained_bytes), (0, 0));
        // Another end takes its place among those remembered.
        assert!(publish(&mut hub, "b", "1").is_ok());
        assert!(publish(&mut hub, "b", "null").is_ok());
        hub.work_off();
        assert!(hub.topics.find("a").is_some(), "not in the same turn");
        hub.work_off();
        assert_eq!(hub.topics.find("a"), None);
        assert!(publish(&mut hub, "a", "2").unwrap() > 6);
        let heard = hear(&mut hub, 1, 1 << 20);
        let last = heard.last().unwrap();
        assert!(
            last.topic == "a" && last.seq > 6 && last.data == "2",
            "{heard:?}"
        );
    }
}

/// A connection in the slot of one that has gone hears nothing of the former's, and is due for its
/// own.
#[test]
fn a_slot_is_used_again() {
    let (mut hub, mut encode) = (hub(HubLimits::default()), Plainly::default());
    publish(&mut hub, "b", &mut encode);
    subscribe(&mut hub, 5, "a").unwrap();
    publish(&mut hub, "a", &mut encode);
    hub.settle();
    hub.remove(SubscriberId(5));
    hub.remove(SubscriberId(5));
    assert_eq!(hub.poll_dirty(), None);
    subscribe(&mut hub, 5, "b").unwrap();
    publish(&mut hub, "a", &mut encode);
    assert_eq!(dirty(&mut hub), [SubscriberId(5)]);
    let heard = hear(&mut hub, 5, 1 << 20);
    assert!(matches!(&heard[..], [Heard { topic, seq: 1, snapshot: true, .. }] if topic == "b"));
    assert!(hear(&mut hub, 5, 1 << 20).is_empty());
}

/// Between two shards: a value retained before the watch is a snapshot, one on its way to a shard
/// whose last subscriber has left is dropped, and one overtaken by a newer is too.
#[test]
fn races_between_shards() {
    let mut encode = Plainly::default();
    let mut hubs = [1, 0].map(|shard| Hub::new(ShardId(shard), 2, HubLimits::default()));
    let name = "t".to_owned();
    publish(&mut hubs[0], &name, &mut encode);

    subscribe(&mut hubs[1], 0, &name).unwrap();
    exchange(&mut hubs, &mut encode);
    let heard = hear(&mut hubs[1], 0, 1 << 20);
    assert!(matches!(
        &heard[..],
        [Heard {
            seq: 1,
            snapshot: true,
            ..
        }]
    ));

    publish(&mut hubs[0], &name, &mut encode);
    let (_, in_flight) = hubs[0].poll_message().unwrap();
    hubs[1].remove(SubscriberId(0));
    hubs[1].handle_message(ShardId(1), in_flight, &mut encode);
    assert_eq!(hubs[1].stats().topics, 0);

    publish(&mut hubs[0], &name, &mut encode);
    let (_, in_flight) = hubs[0].poll_message().unwrap();
    subscribe(&mut hubs[1], 0, &name).unwrap();
    hubs[1].handle_message(ShardId(1), in_flight, &mut encode);
    exchange(&mut hubs, &mut encode);
    let heard = hear(&mut hubs[1], 0, 1 << 20);
    assert!(
        matches!(
            &heard[..],
            [Heard {
                seq: 3,
                snapshot: true,
                ..
            }]
        ),
        "{heard:?}"
    );
    assert!(hear(&mut hubs[1], 0, 1 << 20).is_empty());
}

/// A topic that begins again after its end is live to a shard that had not known it, since it subscribed
/// before.
#[test]
fn what_begins_again_is_live() {
    let mut encode = Plainly::default();
    let mut hubs = [1, 0].map(|shard| Hub::new(ShardId(shard), 2, HubLimits::default()));
    publish(&mut hubs[0], "a", &mut encode);
    assert_eq!(hubs[0].withdraw(&topic("a"), 0, &mut encode), Ok(true));
    subscribe(&mut hubs[1], 0, "*").unwrap();
    exchange(&mut hubs, &mut encode);
    assert_eq!(hear(&mut hubs[1], 0, 1 << 20), []);

    publish(&mut hubs[0], "a", &mut encode);
    exchange(&mut hubs, &mut encode);
    let heard = hear(&mut hubs[1], 0, 1 << 20);
    let [heard] = &heard[..] else {
        panic!("{heard:?}")
    };
    assert!(heard.seq == 3 && !heard.snapshot, "{heard:?}");
    assert_eq!(hubs[1].stats().skipped, 0);
}

/// A batch that is remembered for a group is not given to another pattern's in its place, although
/// nothing was published in between.
#[test]
fn a_place_used_again_is_another_group() {
    let (mut hub, mut encode) = (hub(HubLimits::default()), Plainly::default());
    for name in ["a.a", "a.b", "b.a", "b.b"] {
        publish(&mut hub, name, &mut encode);
    }
    for (who, pattern) in [(0, "a.*"), (1, "b.*")] {
        subscribe(&mut hub, who, pattern).unwrap();
        let heard = hear(&mut hub, who, 1 << 20);
        assert_eq!(heard.len(), 2);
        assert!(
            heard
                .iter()
                .all(|heard| heard.topic.starts_with(&pattern[..1])),
            "{heard:?}"
        );
        hub.remove(SubscriberId(who));
    }
}

/// Messages cross threads; a subscriber's state is small.
#[test]
fn messages_cross_threads() {
    fn is_send<T: Send>() {}
    is_send::<Message>();
    assert!(size_of::<Message>() <= 96);
}

/// What a client makes the hub do in a turn has a bound that does not grow with the topics, however it
/// subscribes and unsubscribes; and a change for another client goes out in the same turn.
#[test]
fn commands_cost_little_whatever_they_select() {
    const PATTERNS: [&str; 5] = ["*.*", "md.*", "md.>", "*.>", ">"];
    let most = [1_000, 50_000].map(|topics| {
        let (mut hub, mut encode) = (hub(HubLimits::default()), Plainly::default());
        for index in 0..topics {
            publish(&mut hub, &format!("md.S{index}"), &mut encode);
        }
        subscribe(&mut hub, 1, "md.S1").unwrap();
        hub.work_off();
        hear(&mut hub, 1, 1 << 20);
        let (mut most, mut heard) = (0, 0);
        for turn in 0..400 {
            let before = hub.work_done();
            // All five come and go, in turn and at once.
            let count = if turn % 100 < 50 { 1 } else { 5 };
            for pattern in (turn..turn + count).map(|at| PATTERNS[at % 5]) {
                if !subscribe(&mut hub, 0, pattern).unwrap() {
                    hub.unsubscribe(SubscriberId(0), &Pattern::parse(pattern).unwrap());
                }
            }
            publish(&mut hub, "md.S1", &mut encode);
            hub.work_off();
            let due = dirty(&mut hub);
            assert!(due.contains(&SubscriberId(1)));
            assert_eq!(hear(&mut hub, 1, 1 << 20).len(), 1);
            heard += hear(&mut hub, 0, 1 << 14).len();
            most = most.max(hub.work_done() - before);
        }
        assert!(heard > 0, "the other one is served as well");
        most
    });
    let bound = 8 * crate::limits::HUB_WORK_PER_TURN as u64;
    assert!(most.iter().all(|&most| most <= bound), "{most:?}");
}

/// A topic is in few groups however many tokens it has: the kinds of patterns are bounded, for a client and for
/// all, and of a kind that is there any number of patterns is welcome.
#[test]
fn kinds_of_patterns_are_bounded() {
    let mut hub = hub(HubLimits::default());
    // All kinds of six tokens but the literal.
    let kinds: Vec<_> = (1..64_u32)
        .map(|any| {
            let token = |at: u32| if (any >> at) & 1 == 1 { "*" } else { "a" };
            (0..6).map(token).collect::<Vec<_>>().join(".")
        })
        .chain([">".into(), "a.>".into()])
        .collect();
    for (index, pattern) in kinds.iter().enumerate() {
        let who = (index / CLIENT_PATTERN_KINDS_MAX) as u32;
        let more = subscribe(&mut hub, who, pattern);
        match index < PATTERN_KINDS_MAX {
            true => assert_eq!(more, Ok(true), "{index}"),
            false => assert_eq!(more, Err(HubError::TooManyKinds), "{index}"),
        }
    }
    // As many as it may have.
    hub.remove(SubscriberId(1));
    for pattern in &kinds[CLIENT_PATTERN_KINDS_MAX..2 * CLIENT_PATTERN_KINDS_MAX] {
        let refused = subscribe(&mut hub, 0, pattern);
        assert_eq!(refused, Err(HubError::TooManyKindsOfClient));
        assert_eq!(subscribe(&mut hub, 9, pattern), Ok(true));
        assert_eq!(subscribe(&mut hub, 0, pattern), Ok(true), "it is there now");
    }
    for number in 0..100 {
        let pattern = format!("b{number}.*.a.a.a.a");
        assert_eq!(subscribe(&mut hub, 10, &pattern), Ok(true));
    }
}

/// However many topics are deleted at once, who keeps up hears of each.
#[test]
fn who_keeps_up_hears_of_every_end() {
    let (mut hub, mut encode) = (hub(HubLimits::default()), Plainly::default());
    let count = 2 * crate::limits::WITHDRAWN_MAX;
    subscribe(&mut hub, 0, ">").unwrap();
    for round in 0..2 {
        for index in 0..count {
            publish(&mut hub, &format!("t{index}"), &mut encode);
        }
        hub.work_off();
        assert_eq!(dirty(&mut hub), [SubscriberId(0)]);
        assert_eq!(hear(&mut hub, 0, 1 << 30).len(), count);
        for index in 0..count {
            let name = topic(&format!("t{index}"));
            assert_eq!(hub.withdraw(&name, 0, &mut encode), Ok(true));
        }
        hub.work_off();
        assert_eq!(dirty(&mut hub), [SubscriberId(0)]);
        assert_eq!(hear(&mut hub, 0, 1 << 30).len(), count, "in round {round}");
    }
    hub.work_off();
    assert!(hub.topics.find("t0").is_none(), "then they are forgotten");
}

/// Clients that come, publish and go do not shut the others out: what they left makes room, and its watchers hear
/// of that. What the server or a client that is still there has published stays.
#[test]
fn who_has_gone_makes_room() {
    let limits = HubLimits {
        topics_max: 200,
        client_topics_max: 10,
        ..HubLimits::default()
    };
    let (mut hub, mut encode) = (hub(limits), Plainly::default());
    for index in 0..50 {
        let name = topic(&format!("server.{index}"));
        hub.publish_here(&name, b"1", 0, &mut encode).unwrap();
    }
    subscribe(&mut hub, 1_000, "a.*").unwrap();
    let publish = |hub: &mut Hub, who: u32, name: &str, encode: &mut Plainly| {
        let ticket = Ticket {
            who: SubscriberId(who),
            generation: 0,
            request: RequestId::None,
        };
        hub.publish(&topic(name), b"1", 0, Some(ticket), encode);
        hub.poll_accepted().unwrap().1
    };
    for index in 0..10 {
        publish(&mut hub, 999, &format!("stays.{index}"), &mut encode).unwrap();
    }
    for who in 0..100 {
        for index in 0..10 {
            let name = format!("a.{who}-{index}");
            assert!(publish(&mut hub, who, &name, &mut encode).is_ok(), "{name}");
        }
        hub.remove(SubscriberId(who));
    }
    assert_eq!(hub.stats().publications_refused, 0);
    let is_there = |hub: &Hub, name: String| {
        let known = hub.topics.find(&name);
        known.is_some_and(|id| !hub.topics[id].is_withdrawn)
    };
    assert!((0..50).all(|index| is_there(&hub, format!("server.{index}"))));
    assert!((0..10).all(|index| is_there(&hub, format!("stays.{index}"))));
    let heard = hear(&mut hub, 1_000, 1 << 20);
    let ended = heard.iter().filter(|heard| heard.data == "null").count();
    assert!(ended >= 900, "{ended}");
}
