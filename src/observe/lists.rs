//! Which lists are Celery's queues.

use std::collections::{BTreeMap, HashMap};

use crate::core::celery::binding::{SEP, split_priority};
use crate::core::celery::envelope::{Envelope, Kind as Content};
use crate::core::keys::LONGEST_NAME;

/// For how long a list that is no queue is not looked at again, in ms.
const NOT_AGAIN_MS: i64 = 60_000;

/// Lists remembered. Beyond, those that are no queues are forgotten first.
const MOST_LISTS: usize = 20_000;

/// What a list is known to be.
#[derive(Clone, Copy)]
enum List {
    /// A queue's; so many bytes of its name are that of the queue's first list.
    Queue(usize),
    /// Something else's; to be looked at again after this moment, Unix ms.
    Other(i64),
}

/// What is known of a list.
pub enum Look<'a> {
    /// A queue's: the name of the queue's first list.
    Queue(&'a [u8]),
    /// Not a queue's, as of lately.
    Other,
    /// Not known.
    Unknown,
}

/// The lists that were pushed to.
#[derive(Default)]
pub struct Lists {
    dbs: BTreeMap<i32, HashMap<Vec<u8>, List>>,
    count: usize,
}

impl Lists {
    /// What is known of the list. The clock is asked only for one that is no queue.
    pub fn look<'a>(&self, db: i32, name: &'a [u8], now_ms: impl FnOnce() -> i64) -> Look<'a> {
        match self.dbs.get(&db).and_then(|lists| lists.get(name)) {
            Some(List::Queue(base)) => Look::Queue(name.get(..*base).unwrap_or(name)),
            Some(List::Other(until)) if is_ahead(*until, now_ms()) => Look::Other,
            _ => Look::Unknown,
        }
    }

    /// Notes what the list turned out to be, by the message that was pushed.
    ///
    /// `known` says that a sweep or a routing table has called it a queue: there a
    /// message of protocol 1, or one too large to be read, is work too. Elsewhere
    /// only a message of protocol 2 makes a queue, since answers to `inspect` and
    /// results of `rpc://` lie in lists as well.
    pub fn note(
        &mut self,
        db: i32,
        name: &[u8],
        message: Option<&Envelope<'_>>,
        known: bool,
        now_ms: i64,
    ) {
        let is_queue = match message.map(Envelope::kind) {
            Some(Content::Task) => true,
            Some(Content::PidboxReply) => false,
            Some(Content::Other) | None => known,
        };
        let list = if is_queue {
            List::Queue(split_priority(name, SEP).0.len())
        } else {
            List::Other(now_ms.saturating_add(NOT_AGAIN_MS))
        };
        if self.count >= MOST_LISTS {
            self.make_room(now_ms);
        }
        if self.count >= MOST_LISTS || name.len() > LONGEST_NAME {
            return;
        }
        let lists = self.dbs.entry(db).or_default();
        if lists.insert(name.to_vec(), list).is_none() {
            self.count += 1;
        }
    }

    /// Forgets lists that are no queues, and, if there are hardly any, all.
    fn make_room(&mut self, now_ms: i64) {
        for lists in self.dbs.values_mut() {
            lists.retain(|_, list| match list {
                List::Queue(_) => true,
                List::Other(until) => is_ahead(*until, now_ms),
            });
        }
        self.recount();
        if self.count > MOST_LISTS / 2 {
            self.dbs.clear();
        }
        self.recount();
    }

    fn recount(&mut self) {
        self.count = self.dbs.values().map(HashMap::len).sum();
    }
}

/// Whether the moment is still to come. Further ahead than it can have been set, the
/// clock was set back since.
fn is_ahead(until_ms: i64, now_ms: i64) -> bool {
    (1..=NOT_AGAIN_MS).contains(&until_ms.saturating_sub(now_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::celery::envelope::read;

    const TASK: &[u8] = br#"{"body": "W10=", "headers": {"task": "t", "id": "i"}, "properties": {"delivery_tag": "d", "delivery_info": {"exchange": "", "routing_key": "celery"}}}"#;
    const REPLY: &[u8] = br#"{"body": "W10=", "headers": {"ticket": "t"}, "properties": {"delivery_tag": "d", "delivery_info": {"exchange": "reply.celery.pidbox", "routing_key": "r"}}}"#;
    const OLD: &[u8] = br#"{"body": "W10=", "headers": {}, "properties": {"delivery_tag": "d", "delivery_info": {"exchange": "celery", "routing_key": "celery"}}}"#;

    fn told(lists: &Lists, db: i32, name: &[u8], now_ms: i64) -> String {
        match lists.look(db, name, || now_ms) {
            Look::Queue(base) => format!("queue {}", String::from_utf8_lossy(base)),
            Look::Other => "other".to_owned(),
            Look::Unknown => "unknown".to_owned(),
        }
    }

    #[test]
    fn a_list_is_what_its_first_message_says() {
        for (name, element, known, want) in [
            (&b"celery"[..], TASK, false, "queue celery"),
            (b"celery\x06\x163", TASK, false, "queue celery"),
            (b"p:celery", TASK, true, "queue p:celery"),
            (b"celery", OLD, true, "queue celery"),
            (b"b1946ac9-...", OLD, false, "other"),
            (b"x.reply.celery.pidbox", REPLY, true, "other"),
            (b"todo", b"buy milk", false, "other"),
            (b"celery", b"too large to be read", true, "queue celery"),
        ] {
            let mut lists = Lists::default();
            assert_eq!(told(&lists, 0, name, 0), "unknown");
            lists.note(0, name, read(element).as_ref(), known, 0);
            assert_eq!(told(&lists, 0, name, 0), want, "{element:?}");
            assert_eq!(told(&lists, 1, name, 0), "unknown", "another database");
        }
    }

    #[test]
    fn a_list_that_is_no_queue_is_looked_at_again_after_a_while() {
        let mut lists = Lists::default();
        lists.note(0, b"todo", None, false, 1_000);
        assert_eq!(told(&lists, 0, b"todo", 60_999), "other");
        assert_eq!(told(&lists, 0, b"todo", 61_000), "unknown");
        // The clock was set back.
        assert_eq!(told(&lists, 0, b"todo", -3_600_000), "unknown");
    }

    #[test]
    fn a_name_beyond_all_reason_is_not_remembered() {
        let mut lists = Lists::default();
        for (len, want) in [(LONGEST_NAME, "queue"), (LONGEST_NAME + 1, "unknown")] {
            let name = vec![b'q'; len];
            lists.note(0, &name, read(TASK).as_ref(), false, 0);
            assert!(told(&lists, 0, &name, 0).starts_with(want), "{len}");
        }
    }

    #[test]
    fn lists_without_end_do_not_fill_the_memory_and_queues_are_kept_first() {
        let mut lists = Lists::default();
        lists.note(0, b"celery", read(TASK).as_ref(), false, 0);
        for n in 0..50_000_i64 {
            lists.note(0, format!("list{n}").as_bytes(), None, false, n * 10);
            assert!(lists.count <= MOST_LISTS);
        }
        assert_eq!(told(&lists, 0, b"celery", 500_000), "queue celery");
    }
}
