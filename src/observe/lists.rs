//! Which lists are Celery's queues.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use crate::core::celery::envelope::{Envelope, Kind as Content};
use crate::core::keys::LONGEST_NAME;

/// For how long a list that is no queue is not looked at again, in s.
const NOT_AGAIN_S: u32 = 60;

/// Queues' lists remembered. Beyond, all are forgotten and met again.
const MOST_QUEUES: usize = 20_000;

/// What a list is known to be.
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
    /// By database and name: so many bytes of the name are that of the queue's
    /// first list.
    queues: BTreeMap<i32, HashMap<Vec<u8>, usize>>,
    count: usize,
    others: Others,
    /// Those that were known from elsewhere have been taken up.
    pub adopted: bool,
}

impl Lists {
    /// What is known of the list. The clock is asked only for one that is no queue.
    pub fn look<'a>(&self, db: i32, name: &'a [u8], now_ms: impl FnOnce() -> i64) -> Look<'a> {
        // None of these is remembered, and to look a name of 512 MB up takes as long as
        // the server takes for it.
        if name.len() > LONGEST_NAME {
            return Look::Other;
        }
        // Most lists of a server are none of Celery's.
        if self.others.holds(db, name, now_ms) {
            return Look::Other;
        }
        match self.queues.get(&db).and_then(|lists| lists.get(name)) {
            Some(base) => Look::Queue(name.get(..*base).unwrap_or(name)),
            None => Look::Unknown,
        }
    }

    /// Whether this is a list of a queue that is known, whose first list's name is the
    /// first so many bytes of its own.
    pub fn is_queues(&self, db: i32, name: &[u8], base: usize) -> bool {
        let lists = self.queues.get(&db);
        let first = name.get(..base).unwrap_or(name);
        lists.is_some_and(|lists| lists.contains_key(first))
    }

    /// Notes that the list is a queue's, before anything was pushed to it, or that
    /// another first list is its queue's.
    pub fn adopt<'a>(&mut self, db: i32, name: &'a [u8], base: usize) -> Option<&'a [u8]> {
        if name.len() > LONGEST_NAME || self.count >= MOST_QUEUES {
            return None;
        }
        let lists = self.queues.entry(db).or_default();
        if lists.insert(name.to_vec(), base).is_none() {
            self.count += 1;
        }
        self.others.remove(db, name);
        Some(name.get(..base).unwrap_or(name))
    }

    /// All that are queues' in a database.
    pub fn of(&self, db: i32) -> impl Iterator<Item = &[u8]> {
        let lists = self.queues.get(&db).into_iter();
        lists.flat_map(|lists| lists.keys().map(Vec::as_slice))
    }

    /// Notes what the list turned out to be, by the message that was pushed.
    ///
    /// `known` says that a sweep or a routing table has called it a queue: there a
    /// message whose body is unreadable, or one too large to be read, is work too.
    /// Elsewhere only a task makes a queue, since answers to `inspect` and results of
    /// `rpc://` lie in lists as well.
    pub fn note(
        &mut self,
        db: i32,
        (name, base): (&[u8], usize),
        message: Option<&Envelope<'_>>,
        known: bool,
        now_ms: i64,
    ) {
        let is_queue = match message.map(Envelope::kind) {
            Some(Content::Task) => true,
            Some(Content::PidboxReply) => false,
            Some(Content::Other) | None => known,
        };
        if !is_queue {
            self.others.add(db, name, now_ms);
            return;
        }
        if name.len() > LONGEST_NAME {
            return;
        }
        if self.count >= MOST_QUEUES {
            self.queues.clear();
            self.count = 0;
        }
        let lists = self.queues.entry(db).or_default();
        if lists.insert(name.to_vec(), base).is_none() {
            self.count += 1;
        }
    }
}

/// Lists that are no queues: a table of marks in which a newer list takes the place
/// of an older one, so that a server with any number of lists neither fills the
/// memory nor waits while room is made.
#[derive(Default)]
struct Others {
    /// Keyed anew in each process: nobody can name a list after a queue's mark.
    hasher: RandomState,
    /// Empty until the first is added.
    marks: Vec<Mark>,
}

/// What is kept of a list that is no queue.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// Half of the hash of its database and name; the other half gives the place.
    tag: u32,
    /// To be looked at again from this moment, Unix s; 0 where there is no mark.
    until_s: u32,
}

impl Others {
    /// Places: 512 KiB.
    const PLACES: usize = 1 << 16;

    fn place(&self, db: i32, name: &[u8]) -> (usize, u32) {
        let hash = self.hasher.hash_one((db, name));
        let [a, b, c, d, e, f, g, h] = hash.to_le_bytes();
        let at = u32::from_le_bytes([a, b, c, d]) as usize % Self::PLACES;
        (at, u32::from_le_bytes([e, f, g, h]))
    }

    fn holds(&self, db: i32, name: &[u8], now_ms: impl FnOnce() -> i64) -> bool {
        if self.marks.is_empty() {
            return false;
        }
        let (at, tag) = self.place(db, name);
        let mark = self.marks.get(at).copied().unwrap_or_default();
        // Further ahead than it can have been put, the clock was set back since.
        let left = |now_s: u32| mark.until_s.saturating_sub(now_s);
        mark.tag == tag && mark.until_s > 0 && (1..=NOT_AGAIN_S).contains(&left(seconds(now_ms())))
    }

    fn remove(&mut self, db: i32, name: &[u8]) {
        let (at, tag) = self.place(db, name);
        if let Some(mark) = self.marks.get_mut(at).filter(|mark| mark.tag == tag) {
            *mark = Mark::default();
        }
    }

    fn add(&mut self, db: i32, name: &[u8], now_ms: i64) {
        if self.marks.is_empty() {
            self.marks = vec![Mark::default(); Self::PLACES];
        }
        let (at, tag) = self.place(db, name);
        let until_s = seconds(now_ms).saturating_add(NOT_AGAIN_S);
        if let Some(mark) = self.marks.get_mut(at) {
            *mark = Mark { tag, until_s };
        }
    }
}

/// Unix s, rounded down.
fn seconds(ms: i64) -> u32 {
    u32::try_from(ms / 1_000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::celery::binding::{SEP, split_priority};
    use crate::core::celery::envelope::read;

    const TASK: &[u8] = br#"{"body": "W10=", "headers": {"task": "t", "id": "i"}, "properties": {"delivery_tag": "d", "delivery_info": {"exchange": "", "routing_key": "celery"}}}"#;
    const REPLY: &[u8] = br#"{"body": "W10=", "headers": {"ticket": "t"}, "properties": {"delivery_tag": "d", "delivery_info": {"exchange": "reply.celery.pidbox", "routing_key": "r"}}}"#;
    const OLD: &[u8] = br#"{"body": "W10=", "headers": {}, "properties": {"delivery_tag": "d", "delivery_info": {"exchange": "celery", "routing_key": "celery"}}}"#;

    fn note(
        lists: &mut Lists,
        name: &[u8],
        message: Option<&Envelope<'_>>,
        known: bool,
        now_ms: i64,
    ) {
        let base = split_priority(name, SEP).0.len();
        lists.note(0, (name, base), message, known, now_ms);
    }

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
            note(&mut lists, name, read(element).as_ref(), known, 0);
            assert_eq!(told(&lists, 0, name, 0), want, "{element:?}");
            assert_eq!(told(&lists, 1, name, 0), "unknown", "another database");
        }
    }

    #[test]
    fn a_list_that_is_no_queue_is_looked_at_again_after_a_while() {
        let mut lists = Lists::default();
        note(&mut lists, b"todo", None, false, 1_000);
        assert_eq!(told(&lists, 0, b"todo", 60_999), "other");
        assert_eq!(told(&lists, 0, b"todo", 61_000), "unknown");
        // The clock was set back.
        assert_eq!(told(&lists, 0, b"todo", -3_600_000), "unknown");
    }

    #[test]
    fn a_name_beyond_all_reason_is_not_remembered() {
        let mut lists = Lists::default();
        for (len, want) in [(LONGEST_NAME, "queue"), (LONGEST_NAME + 1, "other")] {
            let name = vec![b'q'; len];
            note(&mut lists, &name, read(TASK).as_ref(), false, 0);
            assert!(told(&lists, 0, &name, 0).starts_with(want), "{len}");
        }
    }

    #[test]
    fn lists_without_end_do_not_fill_the_memory_and_queues_are_kept() {
        let mut lists = Lists::default();
        note(&mut lists, b"celery", read(TASK).as_ref(), false, 0);
        for n in 0..200_000_i64 {
            note(&mut lists, format!("list{n}").as_bytes(), None, false, n);
        }
        assert_eq!(lists.count, 1);
        assert_eq!(lists.others.marks.len(), Others::PLACES);
        assert_eq!(told(&lists, 0, b"celery", 200_000), "queue celery");
        // The youngest found room, whoever had it before.
        assert_eq!(told(&lists, 0, b"list199999", 200_000), "other");
        assert_eq!(told(&lists, 1, b"list199999", 200_000), "unknown");
    }

    #[test]
    fn queues_without_end_do_not_fill_the_memory() {
        let mut lists = Lists::default();
        for n in 0..50_000_i64 {
            let name = format!("queue{n}");
            note(&mut lists, name.as_bytes(), read(TASK).as_ref(), false, n);
            assert!(lists.count <= MOST_QUEUES);
            assert!(told(&lists, 0, name.as_bytes(), n).starts_with("queue"));
        }
    }

    #[test]
    fn a_queue_that_is_known_from_elsewhere_is_one_at_once() {
        let mut lists = Lists::default();
        note(
            &mut lists,
            b"celery",
            Some(&read(OLD).unwrap()),
            false,
            1_000,
        );
        assert_eq!(told(&lists, 0, b"celery", 2_000), "other");
        assert!(!lists.is_queues(0, b"celery\x06\x163", 6));
        assert_eq!(lists.adopt(0, b"celery", 6), Some(&b"celery"[..]));
        assert_eq!(told(&lists, 0, b"celery", 2_000), "queue celery");
        assert!(lists.is_queues(0, b"celery\x06\x163", 6));
        assert_eq!(lists.adopt(0, b"app\x06\x169", 3), Some(&b"app"[..]));
        assert_eq!(lists.adopt(0, &[b'q'; LONGEST_NAME + 1], 1), None);
        assert_eq!(lists.count, 2);
    }

    #[test]
    fn a_list_that_has_become_a_queue_is_one_when_its_time_is_up() {
        let mut lists = Lists::default();
        note(&mut lists, b"celery", None, false, 1_000);
        assert_eq!(told(&lists, 0, b"celery", 2_000), "other");
        assert_eq!(told(&lists, 0, b"celery", 61_000), "unknown");
        note(&mut lists, b"celery", read(TASK).as_ref(), false, 61_000);
        assert_eq!(told(&lists, 0, b"celery", 61_001), "queue celery");
    }
}
