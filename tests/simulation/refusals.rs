//! Requests of the control thread to a home that is full.

use std::sync::Arc;

use tickring::config::Config;
use tickring::hub::{HubLimits, ShardId, Topic};
use tickring::mailbox::{FromShard, Submission, ToShard, mailbox};
use tickring::metrics::ShardMetrics;
use tickring::shard::{Mesh, Now, Settings, Shard};
use tickring_ring::simulated::Simulated;
use tickring_ring::sys::Doorbell;
use tickring_ring::{Options, Ring};

/// Of a batch that does not fit whole, what fits is taken and what does not is named, in order, and
/// nothing else is counted.
pub fn run() {
    let ring = Simulated::new(Options::default()).expect("address space");
    let doorbell = ring.doorbell();
    let mesh = Mesh::join(std::slice::from_ref(&doorbell)).pop();
    let (mut control, link) = mailbox(doorbell, Doorbell::new().expect("an eventfd"));
    let metrics = Arc::new(ShardMetrics::default());
    let settings = Settings {
        hub: HubLimits {
            topics_max: 2,
            ..HubLimits::default()
        },
        ..Settings::from(&Config::default())
    };
    let mesh = mesh.expect("one for one shard");
    let mut shard = Shard::new(
        ShardId(0),
        1,
        ring,
        settings,
        mesh,
        link,
        Arc::clone(&metrics),
    );
    let submissions = ["a", "b", "c", "a", "d", "b"]
        .map(|topic| Submission {
            topic: Topic::parse(topic).expect("a valid name"),
            data: b"1".to_vec(),
            ts: 1,
        })
        .into();
    let publish = ToShard::Publish {
        submissions,
        ticket: 7,
    };
    control.to_shard.push(publish).expect("room");
    shard.turn(&mut Vec::new(), Now::default());
    let answer = control.from_shard.pop();
    let Ok(FromShard::Accepted { ticket: 7, refused }) = answer else {
        panic!("not the answer: {answer:?}");
    };
    let refused: Vec<_> = refused
        .iter()
        .map(|refused| {
            (
                refused.index,
                refused.topic.as_str(),
                refused.error.to_string(),
            )
        })
        .collect();
    let reason = "too many topics are retained (topics_max)".to_owned();
    assert_eq!(refused, [(2, "c", reason.clone()), (4, "d", reason)]);
    assert_eq!(metrics.publications.value(), 4);
    assert_eq!(metrics.topics.value(), 2);
}
