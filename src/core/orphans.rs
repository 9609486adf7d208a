//! What Celery leaves behind when a process dies: the kinds, what may be done to
//! each, and the figures that ORPHANS answers.

use std::collections::BTreeMap;

use super::args::quoted;
use super::keys::{Class, shown};
use super::reply::Reply;
use super::settings::Settings;
use super::span;

/// How long a queue of answers or events must have lain unread, and a table of
/// bindings unused, in ms, unless OLDERTHAN says otherwise. On RabbitMQ such queues
/// die after 10 s to 5 min (kombu `kombu/pidbox.py`).
pub const UNREAD_MS: i64 = 3_600_000;

/// How long no part of a chord must have come, in ms: as long as Celery itself
/// keeps a chord without one. Never less: deleted too early, its body is lost.
pub const CHORD_IDLE_MS: i64 = 86_400_000;

/// Names told of one kind unless LIMIT says otherwise.
pub const NAMES: usize = 10;

/// What lies there without anybody who would come for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Messages that were taken, not acknowledged, and not put back.
    Unacked,
    /// Lists of answers to `inspect` and `control`.
    ReplyQueue,
    /// Lists of events for a monitor.
    EventQueue,
    /// Bindings of askers, monitors and workers that are gone.
    Binding,
    /// Chords whose parts no longer come.
    Chord,
}

impl Kind {
    /// All of them, in the order of the reply.
    pub const ALL: [Self; 5] = [
        Self::Unacked,
        Self::ReplyQueue,
        Self::EventQueue,
        Self::Binding,
        Self::Chord,
    ];

    /// The class it belongs to.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::Unacked => Class::Unacked,
            Self::ReplyQueue => Class::ReplyQueue,
            Self::EventQueue => Class::EventQueue,
            Self::Binding => Class::Binding,
            Self::Chord => Class::Chord,
        }
    }

    /// Its bit in [`Kinds`].
    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// What the setting `sweep-orphans` calls it: what is done to it.
    const fn deed(self) -> &'static str {
        match self {
            Self::Unacked => "requeue",
            kind => kind.class().name(),
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::Unacked => {
                "HYGIENE.ORPHANS REQUEUE DRYRUN, then HYGIENE.ORPHANS REQUEUE; a running worker does it by itself"
            }
            Self::ReplyQueue => {
                "HYGIENE.ORPHANS PURGE reply_queue DRYRUN, then HYGIENE.ORPHANS PURGE reply_queue"
            }
            Self::EventQueue => {
                "HYGIENE.ORPHANS PURGE event_queue DRYRUN, then HYGIENE.ORPHANS PURGE event_queue"
            }
            Self::Binding => {
                "HYGIENE.ORPHANS PURGE binding DRYRUN, then HYGIENE.ORPHANS PURGE binding"
            }
            Self::Chord => "HYGIENE.ORPHANS PURGE chord DRYRUN, then HYGIENE.ORPHANS PURGE chord",
        }
    }

    /// The kind of that class that PURGE takes.
    ///
    /// # Errors
    /// A sentence that says why not, or what would be right.
    pub fn purgeable(word: &[u8]) -> Result<Self, String> {
        let Some(class) = Class::named(word) else {
            return Err(format!(
                "PURGE {}: expected reply_queue, event_queue, binding or chord",
                quoted(word)
            ));
        };
        let why = match class {
            Class::ReplyQueue => return Ok(Self::ReplyQueue),
            Class::EventQueue => return Ok(Self::EventQueue),
            Class::Binding => return Ok(Self::Binding),
            Class::Chord => return Ok(Self::Chord),
            Class::Unacked => {
                "it holds the messages that workers are working on; REQUEUE puts stuck ones back"
            }
            Class::RpcReply => "a client may still come for its result; FIXTTL gives it a TTL",
            Class::TaskResult | Class::GroupResult => "FIXTTL deletes old results",
            Class::Lock => "its holder may be at work; FIXTTL CLASS lock gives it a TTL",
            Class::Queue | Class::Redbeat | Class::Other => {
                class.protected().unwrap_or("it is not asked for")
            }
        };
        Err(format!("PURGE {} is refused: {why}", quoted(word)))
    }
}

/// Some of the kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u8);

impl Kinds {
    /// These.
    #[must_use]
    pub fn of(kinds: impl IntoIterator<Item = Kind>) -> Self {
        Self(kinds.into_iter().fold(0, |bits, kind| bits | kind.bit()))
    }

    /// Whether this one is among them.
    #[must_use]
    pub const fn has(self, kind: Kind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// None at all.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that are among them, in the order of [`Kind::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }

    /// Reads the words of the setting `sweep-orphans`.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse<'a>(words: impl Iterator<Item = &'a [u8]>) -> Result<Self, String> {
        let known = |word: &[u8]| {
            Kind::ALL
                .into_iter()
                .find(|kind| word.eq_ignore_ascii_case(kind.deed().as_bytes()))
        };
        let kinds: Option<Vec<Kind>> = words.map(known).collect();
        kinds.map(Self::of).ok_or_else(|| {
            let deeds = Kind::ALL.map(Kind::deed).join(", ");
            format!("expected some of {deeds}, or nothing")
        })
    }

    /// As that setting shows them.
    #[must_use]
    pub fn show(self) -> String {
        let deeds: Vec<&str> = self.iter().map(Kind::deed).collect();
        deeds.join(" ")
    }
}

/// What ORPHANS is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell what is there.
    Report,
    /// Put stuck messages back into their queues, delete what is of other kinds.
    Clean(Kinds),
}

impl Action {
    /// Whether it is about this kind.
    #[must_use]
    pub fn concerns(self, kind: Kind) -> bool {
        self == Self::Report || self.cleans(kind)
    }

    /// Whether it is to change what is of this kind.
    #[must_use]
    pub const fn cleans(self, kind: Kind) -> bool {
        match self {
            Self::Report => false,
            Self::Clean(kinds) => kinds.has(kind),
        }
    }

    /// Whether it is about kinds of which only idle times tell that they are orphans:
    /// events say by themselves when they happened, messages when they were taken.
    #[must_use]
    pub const fn needs_idle_times(self) -> bool {
        self.cleans(Kind::ReplyQueue) || self.cleans(Kind::Binding) || self.cleans(Kind::Chord)
    }
}

/// From what age on each kind is an orphan, in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ages {
    /// Lists unread and tables unused for so long.
    pub unread_ms: i64,
    /// No part for so long.
    pub chord_ms: i64,
    /// Taken so long ago.
    pub unacked_ms: i64,
}

impl Ages {
    /// What OLDERTHAN makes of the defaults.
    ///
    /// # Errors
    /// It is shorter than what keeps work safe in the action asked for.
    pub fn of(
        action: Action,
        older_than_ms: Option<i64>,
        settings: &Settings,
    ) -> Result<Self, String> {
        let unacked_ms = settings.visibility_timeout_ms;
        for (kind, least, what) in [
            (
                Kind::Unacked,
                unacked_ms,
                "visibility-timeout, within which a worker may hold its messages",
            ),
            (
                Kind::Chord,
                CHORD_IDLE_MS,
                "the time that Celery keeps a chord without a part",
            ),
        ] {
            if let Some(asked) = older_than_ms
                && action.cleans(kind)
                && asked < least
            {
                return Err(format!(
                    "OLDERTHAN {}: expected at least {}, {what}",
                    span::show(asked),
                    span::show(least)
                ));
            }
        }
        let asked = older_than_ms.unwrap_or(0);
        Ok(Self {
            unread_ms: older_than_ms.unwrap_or(UNREAD_MS),
            chord_ms: asked.max(CHORD_IDLE_MS),
            unacked_ms: asked.max(unacked_ms),
        })
    }
}

/// The figures of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    total: u64,
    orphans: u64,
    bytes: u64,
    oldest_ms: Option<i64>,
    kept: BTreeMap<&'static str, u64>,
    names: Vec<(i32, Vec<u8>)>,
}

impl Found {
    /// One is there that is no orphan, or may not be touched: why.
    pub fn keep(&mut self, why: &'static str) {
        self.total += 1;
        *self.kept.entry(why).or_default() += 1;
    }

    /// An orphan: its database and name, its age and its bytes in memory. `names`
    /// is how many are named.
    pub fn orphan(&mut self, db: i32, name: &[u8], age_ms: i64, bytes: u64, names: usize) {
        self.total += 1;
        self.orphans += 1;
        self.bytes += bytes;
        self.oldest_ms = self.oldest_ms.max(Some(age_ms));
        if self.names.len() < names {
            self.names.push((db, shown(name).to_vec()));
        }
    }

    /// How many orphans there are.
    #[must_use]
    pub const fn orphans(&self) -> u64 {
        self.orphans
    }

    /// As the reply tells it.
    #[must_use]
    pub fn reply(&self, kind: Kind) -> Reply {
        let kept = self.kept.iter().map(|(why, count)| {
            Reply::map([("why", Reply::word(why)), ("count", Reply::count(*count))])
        });
        let names = self.names.iter().map(|(db, name)| {
            Reply::map([
                ("db", Reply::Int(i64::from(*db))),
                ("name", Reply::bytes(name.as_slice())),
            ])
        });
        Reply::map([
            ("class", Reply::word(kind.class().name())),
            ("total", Reply::count(self.total)),
            ("orphans", Reply::count(self.orphans)),
            ("bytes", Reply::count(self.bytes)),
            (
                "oldest_s",
                Reply::Int(self.oldest_ms.map_or(-1, |ms| ms / 1_000)),
            ),
            ("kept", Reply::Array(kept.collect())),
            ("names", Reply::Array(names.collect())),
            (
                "advice",
                Reply::word(if self.orphans > 0 { kind.advice() } else { "" }),
            ),
        ])
    }
}

/// The five keys that a chord is counted with, behind `celery-taskset-meta-<group>`.
pub const CHORD_ENDS: [&[u8]; 5] = [b".j", b".s", b".t", b".d", b".c"];

/// What the keys of one chord have in common, from the name of one of them.
#[must_use]
pub fn chord_of(name: &[u8]) -> Option<&[u8]> {
    CHORD_ENDS.iter().find_map(|end| name.strip_suffix(*end))
}

/// Whether a cluster holds these keys together: their names' hash tags are the
/// same, or the names themselves.
#[must_use]
pub fn same_slot(a: &[u8], b: &[u8]) -> bool {
    hash_tag(a) == hash_tag(b)
}

/// What of a name decides its slot: between the first `{` and the next `}`, if that
/// is anything (Redis, `keyHashSlot`).
fn hash_tag(name: &[u8]) -> &[u8] {
    let inside = || {
        let (_, rest) = name.split_at_checked(memchr::memchr(b'{', name)? + 1)?;
        let (tag, _) = rest.split_at_checked(memchr::memchr(b'}', rest)?)?;
        (!tag.is_empty()).then_some(tag)
    };
    inside().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_work_is_never_purged_and_the_reason_is_told() {
        for class in Class::ALL {
            let found = Kind::purgeable(class.name().as_bytes());
            let expected = matches!(
                class,
                Class::ReplyQueue | Class::EventQueue | Class::Binding | Class::Chord
            );
            assert_eq!(found.is_ok(), expected, "{}", class.name());
            if let Err(why) = found {
                assert!(why.contains("is refused: "), "{why}");
            }
        }
        let why = Kind::purgeable(b"everything").unwrap_err();
        assert!(why.contains("expected reply_queue"), "{why}");
    }

    #[test]
    fn older_than_never_reaches_what_may_be_at_work() {
        const HOUR: i64 = 3_600_000;
        let settings = Settings::default();
        let ages = |action, older| Ages::of(action, older, &settings);
        let of = |kind| Action::Clean(Kinds::of([kind]));
        let (chord, requeue) = (of(Kind::Chord), of(Kind::Unacked));
        for (what, action, older, expected) in [
            ("by default", Action::Report, None, Some((HOUR, HOUR))),
            (
                "shorter in a report",
                Action::Report,
                Some(0),
                Some((0, HOUR)),
            ),
            (
                "longer",
                Action::Report,
                Some(3 * HOUR),
                Some((3 * HOUR, 3 * HOUR)),
            ),
            (
                "a minute for lists",
                of(Kind::ReplyQueue),
                Some(60_000),
                Some((60_000, HOUR)),
            ),
            ("a minute for messages", requeue, Some(60_000), None),
            (
                "the timeout itself",
                requeue,
                Some(HOUR),
                Some((HOUR, HOUR)),
            ),
            ("an hour for a chord", chord, Some(HOUR), None),
            (
                "a day for a chord",
                chord,
                Some(24 * HOUR),
                Some((24 * HOUR, 24 * HOUR)),
            ),
        ] {
            let found = ages(action, older).ok();
            assert_eq!(
                found.map(|ages| (ages.unread_ms, ages.unacked_ms)),
                expected,
                "{what}"
            );
            assert!(
                found.is_none_or(|ages| ages.chord_ms >= CHORD_IDLE_MS),
                "{what}"
            );
        }
        let why = ages(requeue, Some(60_000)).unwrap_err();
        assert!(
            why.starts_with("OLDERTHAN 1m: expected at least 1h"),
            "{why}"
        );
    }

    #[test]
    fn kinds_are_read_by_what_is_done_to_them_and_shown_so() {
        for (words, expected) in [
            ("", Some("")),
            ("requeue", Some("requeue")),
            ("CHORD requeue chord", Some("requeue chord")),
            ("unacked", None),
            ("queue", None),
            ("requeue,chord", None),
        ] {
            let found = Kinds::parse(words.split_whitespace().map(str::as_bytes));
            let shown = found.ok().map(Kinds::show);
            assert_eq!(shown.as_deref(), expected, "{words}");
        }
        let why = Kinds::parse([b"all".as_slice()].into_iter()).unwrap_err();
        assert!(why.contains("requeue, reply_queue, event_queue"), "{why}");
    }

    #[test]
    fn the_keys_of_a_chord_lead_to_one_name() {
        for (name, expected) in [
            ("celery-taskset-meta-G.j", Some("celery-taskset-meta-G")),
            (
                "myapp_celery-taskset-meta-G.c",
                Some("myapp_celery-taskset-meta-G"),
            ),
            ("celery-taskset-meta-G", None),
            (".j", Some("")),
        ] {
            assert_eq!(
                chord_of(name.as_bytes()),
                expected.map(str::as_bytes),
                "{name}"
            );
        }
    }

    #[test]
    fn a_cluster_holds_names_of_one_tag_together() {
        for (a, b, expected) in [
            ("{app}unacked", "{app}celery", true),
            ("unacked", "celery", false),
            ("unacked", "unacked", true),
            ("a{}b", "a{}c", false),
            ("a{x}b{y}", "{x}", true),
            ("a{x", "b{x", false),
        ] {
            assert_eq!(same_slot(a.as_bytes(), b.as_bytes()), expected, "{a} {b}");
        }
    }
}
