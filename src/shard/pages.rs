//! Answers that contain a page: made once per shard, and sent by any number of connections without copying.

use std::rc::Rc;
use std::sync::Arc;

use crate::console::Page;
use crate::http;
use tickring_ring::SharedBytes;

/// The answers made so far: one for each page and each state of a connection.
#[derive(Default)]
pub(super) struct Pages(Vec<(&'static str, bool, SharedBytes)>);

impl Pages {
    /// The complete answer with `page`; afterwards the connection stays open or closes.
    pub(super) fn answer(&mut self, page: &'static Page, keep_alive: bool) -> SharedBytes {
        let known =
            (self.0.iter()).find(|(path, keeps, _)| (*path, *keeps) == (page.path, keep_alive));
        if let Some((_, _, bytes)) = known {
            return Rc::clone(bytes);
        }
        let mut bytes = Vec::new();
        let answer = http::PageAnswer::whole(keep_alive);
        content(page).write(answer, &mut bytes);
        let bytes = Rc::new(Arc::new(bytes));
        self.0.push((page.path, keep_alive, Rc::clone(&bytes)));
        bytes
    }
}

/// The parts of a page that HTTP needs.
pub(super) fn content(page: &'static Page) -> http::Page<'static> {
    http::Page {
        content_type: page.content_type,
        body: page.body,
        etag: page.etag,
        headers: page.headers,
    }
}
