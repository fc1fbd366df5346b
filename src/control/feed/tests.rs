//! The supervisor, with feeds that fail on purpose.

use super::*;
use crate::config::Demo;
use std::cell::RefCell;
use std::rc::Rc;
use tokio::task::LocalSet;
use tokio::time::sleep;

/// What a feed does in each of its lives; after the last one it waits for the end.
#[derive(Clone)]
struct Scripted {
    lives: Rc<RefCell<Vec<&'static str>>>,
    /// Lives of this very feed, which a panic begins anew.
    count: usize,
    counts: Rc<RefCell<Vec<usize>>>,
}

impl Feed for Scripted {
    async fn run(&mut self, outlet: &mut Outlet) -> Result<(), FeedError> {
        self.count += 1;
        self.counts.borrow_mut().push(self.count);
        outlet.connected();
        let life = self.lives.borrow_mut().pop();
        match life {
            Some("panics") => panic!("the defect"),
            Some("refused") => Err(FeedError::Refused {
                status: 429,
                retry_after: Some(Duration::from_millis(30)),
            }),
            Some(other) => Err(FeedError::Upstream(other.to_owned())),
            None => {
                outlet.stopped().await;
                Ok(())
            }
        }
    }
}

/// A scripted feed that runs.
fn running(feed: Scripted, counters: &Arc<FeedMetrics>, backoff: Backoff) -> [Running; 1] {
    let stop = watch::Sender::new(false);
    let publisher = Publisher::new(Vec::new(), Box::new(|| false));
    let outlet = Outlet::new(publisher, Arc::clone(counters), stop.subscribe());
    let mut task = JoinSet::new();
    let make = move || feed.clone();
    task.spawn_local(supervise("scripted".to_owned(), make, outlet, backoff));
    let config = FeedConfig {
        name: "scripted".to_owned(),
        reconnect_min_ms: 1,
        reconnect_max_ms: 1,
        kind: FeedKind::Exchange(Demo {
            symbols: 1,
            rate: 1,
            seed: 1,
        }),
    };
    [Running {
        config,
        counters: Arc::clone(counters),
        stop,
        task,
    }]
}

/// Runs a scripted feed until it waits, then stops it; its counters and the counts of each life.
fn lives(script: &[&'static str]) -> (Arc<FeedMetrics>, Vec<usize>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let counters = Arc::new(FeedMetrics::new("scripted", []));
    let counts = Rc::new(RefCell::new(Vec::new()));
    let feed = Scripted {
        lives: Rc::new(RefCell::new(script.iter().rev().copied().collect())),
        count: 0,
        counts: Rc::clone(&counts),
    };
    LocalSet::new().block_on(&runtime, async {
        let mut feeds = running(feed, &counters, Backoff::new(1, 5));
        while counts.borrow().len() <= script.len() {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(counters.up.value(), 1);
        stop(&mut feeds).await;
        assert!(feeds[0].task.is_empty());
    });
    let counts = counts.borrow().clone();
    (counters, counts)
}

/// A feed that fails is started again and remembers what it knew; it is up only while it runs.
#[test]
fn a_feed_that_fails_is_started_again() {
    let (counters, counts) = lives(&["fails", "refused", "fails"]);
    assert_eq!(counts, [1, 2, 3, 4]);
    assert_eq!((counters.failures.value(), counters.panics.value()), (3, 0));
    assert_eq!((counters.connects.value(), counters.up.value()), (4, 0));
}

/// A defect in a feed costs that feed its memory, and nobody else anything.
#[test]
fn a_feed_that_panics_is_made_anew() {
    let (counters, counts) = lives(&["fails", "panics", "fails"]);
    assert_eq!(counts, [1, 2, 1, 2]);
    assert_eq!((counters.failures.value(), counters.panics.value()), (2, 1));
}

/// A feed in a long pause does not hold up the end.
#[test]
fn a_pause_ends_with_the_server() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let counters = Arc::new(FeedMetrics::new("scripted", []));
        let feed = Scripted {
            lives: Rc::new(RefCell::new(vec!["fails"])),
            count: 0,
            counts: Rc::default(),
        };
        // The random part of the pause is zero once in 86 million times.
        let day_ms = 86_400_000;
        let mut feeds = running(feed, &counters, Backoff::new(day_ms, day_ms));
        while counters.failures.value() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        stop(&mut feeds).await;
        assert!(feeds[0].task.is_empty());
        assert_eq!(counters.connects.value(), 1);
    });
}
