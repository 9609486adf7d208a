//! What a key is to Celery, told from its name and type.
//!
//! The facts are those of Celery 3.1 to 5.7, kombu 4.6 to 5.7, RedBeat 2.4 and
//! companions. What the operator named (patterns, exemptions, prefixes) is
//! compiled once into [`Names`]; the hook asks it on every write.

use super::celery::binding::is_uuid;
use super::glob::Glob;

/// What a key is to Celery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// `celery-task-meta-<id>`: the state or result of one task.
    TaskResult,
    /// `celery-taskset-meta-<id>`: a saved group.
    GroupResult,
    /// `celery-taskset-meta-<id>.j .s .t .d .c`: a chord being counted.
    Chord,
    /// A list of messages that wait for a worker; with celery-redis-plus a zset, and
    /// a hash for each message.
    Queue,
    /// Messages that a worker has taken and not acknowledged, their index, their mutex.
    Unacked,
    /// kombu's routing tables, `_kombu.binding*`.
    Binding,
    /// `<id>.reply.celery.pidbox`: answers to `inspect` and `control`; with
    /// celery-redis-plus a zset and its index.
    ReplyQueue,
    /// `celeryev.<id>`: events for one monitor; celery-redis-plus' streams of them and
    /// of commands to workers.
    EventQueue,
    /// Results for one client of the `rpc://` backend.
    RpcReply,
    /// RedBeat's schedule, entries and lock, and those of its like.
    Redbeat,
    /// Locks of celery-singleton, celery-once and the like.
    Lock,
    /// Everything else.
    Other,
}

impl Class {
    /// Every class, in the order the documentation lists them.
    pub const ALL: [Self; 12] = [
        Self::TaskResult,
        Self::GroupResult,
        Self::Chord,
        Self::Queue,
        Self::Unacked,
        Self::Binding,
        Self::ReplyQueue,
        Self::EventQueue,
        Self::RpcReply,
        Self::Redbeat,
        Self::Lock,
        Self::Other,
    ];

    /// Its name in arguments and replies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TaskResult => "task_result",
            Self::GroupResult => "group_result",
            Self::Chord => "chord",
            Self::Queue => "queue",
            Self::Unacked => "unacked",
            Self::Binding => "binding",
            Self::ReplyQueue => "reply_queue",
            Self::EventQueue => "event_queue",
            Self::RpcReply => "rpc_reply",
            Self::Redbeat => "redbeat",
            Self::Lock => "lock",
            Self::Other => "other",
        }
    }

    /// The class of that name, in either case.
    #[must_use]
    pub fn named(word: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|class| class.name().as_bytes().eq_ignore_ascii_case(word))
    }

    /// Why a key of this class is never given a TTL and never deleted by FIXTTL,
    /// even when asked; `None` where the operator may ask.
    #[must_use]
    pub const fn protected(self) -> Option<&'static str> {
        match self {
            Self::Queue => Some("messages in it are work that is not done yet"),
            Self::Unacked => Some("it holds the messages that workers are working on"),
            Self::Binding => Some("without it messages find no queue"),
            Self::Redbeat => Some("it is the schedule of periodic tasks"),
            Self::Other => Some(
                "it is not Celery's; a pattern in hygiene.result-keys makes a key a task_result",
            ),
            _ => None,
        }
    }
}

/// A key's type, as `TYPE` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// `string`
    String,
    /// `list`
    List,
    /// `hash`
    Hash,
    /// `set`
    Set,
    /// `zset`
    Zset,
    /// `stream`
    Stream,
    /// A module's own type, or one this module does not know.
    Module,
}

impl KeyType {
    /// Its name in replies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "list",
            Self::Hash => "hash",
            Self::Set => "set",
            Self::Zset => "zset",
            Self::Stream => "stream",
            Self::Module => "module",
        }
    }
}

/// The task's id in the name of its result, whatever stands in front of the name
/// Celery gives it; `None` for a name of another form.
#[must_use]
pub fn result_id(name: &[u8]) -> Option<&[u8]> {
    let at = memchr::memmem::rfind(name, RESULT)?;
    name.get(at + RESULT.len()..)
}

/// The names that decide, compiled from the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    results: Vec<Glob>,
    exempt: Vec<Glob>,
    prefixes: Vec<Vec<u8>>,
    unacked: Option<Unacked>,
}

/// The three keys in which a broker keeps what was taken and not acknowledged, by
/// kombu's transport options `unacked_key`, `unacked_index_key` and
/// `unacked_mutex_key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unacked {
    /// The hash of messages.
    pub hash: Vec<u8>,
    /// The zset of when each was taken.
    pub index: Vec<u8>,
    /// The string that a worker holds while it puts messages back.
    pub mutex: Vec<u8>,
}

impl Default for Unacked {
    /// kombu's own names.
    fn default() -> Self {
        Self {
            hash: b"unacked".to_vec(),
            index: b"unacked_index".to_vec(),
            mutex: b"unacked_mutex".to_vec(),
        }
    }
}

impl Unacked {
    /// The same names behind a prefix.
    #[must_use]
    pub fn behind(&self, prefix: &[u8]) -> Self {
        let named = |name: &[u8]| [prefix, name].concat();
        Self {
            hash: named(&self.hash),
            index: named(&self.index),
            mutex: named(&self.mutex),
        }
    }

    /// Whether a key of this name and type is one of the three.
    fn holds(&self, name: &[u8], kind: KeyType) -> bool {
        match kind {
            KeyType::Hash => self.hash == name,
            KeyType::Zset => self.index == name,
            KeyType::String => self.mutex == name,
            _ => false,
        }
    }
}

/// The longest name that is remembered, and the most of a longer one that is shown, in
/// bytes. AMQP allows 255 for a queue's; a key's can have 512 MB.
pub const LONGEST_NAME: usize = 1_024;

/// A name as replies show it.
#[must_use]
pub fn shown(name: &[u8]) -> &[u8] {
    name.get(..LONGEST_NAME).unwrap_or(name)
}

const BINDING: &[u8] = b"_kombu.binding";
const RESULT: &[u8] = b"celery-task-meta-";
const TASKSET: &[u8] = b"celery-taskset-meta-";

impl Names {
    /// `results` are the patterns of `task_result`, `exempt` of what nothing may
    /// touch; `prefixes` are `global_keyprefix` values in use.
    #[must_use]
    pub const fn new(results: Vec<Glob>, exempt: Vec<Glob>, prefixes: Vec<Vec<u8>>) -> Self {
        Self {
            results,
            exempt,
            prefixes,
            unacked: None,
        }
    }

    /// The same names, with others than kombu's own for what is not acknowledged.
    #[must_use]
    pub fn with_unacked(mut self, names: Unacked) -> Self {
        self.unacked = (names != Unacked::default()).then_some(names);
        self
    }

    /// The names that what is not acknowledged may have, without a prefix: those that
    /// a setting gives first.
    pub fn unacked(&self) -> impl Iterator<Item = Unacked> {
        let own = self.unacked.clone();
        let stock = Unacked::default();
        // Another index of the same hash stands in for kombu's own.
        let stock = own
            .as_ref()
            .is_none_or(|own| own.hash != stock.hash)
            .then_some(stock);
        own.into_iter().chain(stock)
    }

    /// The prefix and the names of the three keys of which this hash is one, if a
    /// name in use and one of `prefixes` say so.
    pub fn unacked_of<'a>(
        &self,
        hash: &[u8],
        prefixes: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Option<(&'a [u8], Unacked)> {
        self.unacked().find_map(|names| {
            let prefix = prefixes
                .clone()
                .find(|prefix| hash.strip_prefix(*prefix) == Some(&names.hash))?;
            Some((prefix, names.behind(prefix)))
        })
    }

    /// The same names, looked for behind one more prefix.
    #[must_use]
    pub fn behind(mut self, prefix: Vec<u8>) -> Self {
        self.prefixes.push(prefix);
        self
    }

    /// Whether the operator has put the key out of everything's reach. In doubt it is.
    #[must_use]
    pub fn exempt(&self, name: &[u8]) -> bool {
        self.exempt.iter().any(|glob| glob.may_match(name))
    }

    /// Whether a string of this name is a `task_result`. This is what the hook
    /// asks on each write: no allocation, and for the patterns in use a prefix
    /// comparison that ends at the first byte that differs.
    #[must_use]
    pub fn task_result(&self, name: &[u8]) -> bool {
        let named = self.patterns_match(name)
            || self
                .behind_prefixes(name)
                .chain(in_django_cache(name))
                .any(|rest| self.patterns_match(rest));
        named && !protected_string(self, name)
    }

    fn patterns_match(&self, name: &[u8]) -> bool {
        self.results.iter().any(|glob| glob.matches(name))
    }

    /// What of the name stands behind each prefix in use. Celery 5.3 and 5.4 put
    /// a `_` between prefix and key, 5.5 and later unless the prefix ends in one
    /// of `:_-.`; kombu puts nothing (celery/backends/base.py, `key_t`;
    /// kombu/transport/redis.py, `GlobalKeyPrefixMixin`).
    fn behind_prefixes<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.prefixes
            .iter()
            .filter_map(|prefix| name.strip_prefix(prefix.as_slice()))
            .flat_map(|rest| [Some(rest), rest.strip_prefix(b"_")])
            .flatten()
    }

    /// The name without a prefix in use, and the name itself.
    fn readings<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        std::iter::once(name)
            .chain(self.behind_prefixes(name))
            .chain(in_django_cache(name))
    }

    /// Whether a zset of this name may be a queue of celery-redis-plus: its members
    /// decide.
    #[must_use]
    pub fn may_be_zset_queue(&self, name: &[u8]) -> bool {
        self.readings(name).any(|rest| rest.starts_with(PLUS_QUEUE))
    }

    /// The prefixes in use, the empty one first.
    pub fn prefixes(&self) -> impl Iterator<Item = &[u8]> + Clone {
        std::iter::once(b"".as_slice()).chain(self.prefixes.iter().map(Vec::as_slice))
    }

    fn by_name(&self, name: &[u8], kind: KeyType) -> Class {
        match &self.unacked {
            Some(own) if own.holds(name, kind) => Class::Unacked,
            _ => by_name(name, kind),
        }
    }

    /// The class of a key, as far as name and type tell it. A list that no name
    /// explains is [`Class::Other`] here; whoever can look into it decides.
    #[must_use]
    pub fn class(&self, name: &[u8], kind: KeyType) -> Class {
        for rest in self.readings(name) {
            let class = self.by_name(rest, kind);
            if class != Class::Other {
                return class;
            }
        }
        if kind == KeyType::String && self.task_result(name) {
            return Class::TaskResult;
        }
        // A prefix that nobody told us about still shows in these two.
        if memchr::memmem::find(shown(name), BINDING).is_some()
            && matches!(kind, KeyType::Set | KeyType::Zset)
        {
            return Class::Binding;
        }
        if kind == KeyType::List && name.ends_with(b".reply.celery.pidbox") {
            return Class::ReplyQueue;
        }
        Class::Other
    }
}

/// The key of a result, beside the saved group that its task belongs to.
#[must_use]
pub fn result_of_group(group: &[u8], id: &[u8]) -> Option<Vec<u8>> {
    let at = memchr::memmem::find(group, TASKSET)?;
    Some([group.get(..at)?, RESULT, id].concat())
}

/// The prefix in front of a result's key that no setting names, without the `_` that
/// Celery puts in between; `None` if this is no such key (celery/backends/base.py,
/// `key_t`).
#[must_use]
pub fn unknown_result_prefix(name: &[u8]) -> Option<&[u8]> {
    let at = memchr::memmem::find(name, RESULT).filter(|at| *at > 0)?;
    let prefix = name.get(..at)?;
    if !matches!(prefix.last(), Some(b'_' | b':' | b'-' | b'.')) {
        return None;
    }
    let bare = prefix.strip_suffix(b"_").unwrap_or(prefix);
    (!bare.is_empty()).then_some(bare)
}

/// What stands behind `<KEY_PREFIX>:<version>:`, where Django's cache puts the results
/// that django-celery-results' `CacheBackend` gives it (Django,
/// `core/cache/backends/base.py`, `default_key_func`). Only Celery's own names are
/// looked for there: nothing else tells a version from any other number.
fn in_django_cache(name: &[u8]) -> Option<&[u8]> {
    memchr::memchr_iter(b':', shown(name)).find_map(|at| {
        let (before, rest) = name.split_at_checked(at)?;
        let rest = rest.strip_prefix(b":")?;
        if !rest.starts_with(RESULT) && !rest.starts_with(TASKSET) {
            return None;
        }
        let digits = before.iter().rev().take_while(|byte| byte.is_ascii_digit());
        let digits = digits.count();
        let front = before.len().checked_sub(digits + 1)?;
        (digits > 0 && before.get(front) == Some(&b':')).then_some(rest)
    })
}

/// Strings of the broker and of schedulers that a wide pattern such as `*` in
/// `result-keys` must not take for results.
fn protected_string(names: &Names, name: &[u8]) -> bool {
    names
        .readings(name)
        .any(|rest| names.by_name(rest, KeyType::String) != Class::Other)
}

fn by_name(name: &[u8], kind: KeyType) -> Class {
    use KeyType::{Hash, List, Set, Stream, String, Zset};
    // One look at the first byte keeps the rest off the path of foreign keys.
    match (name.first(), kind) {
        (Some(b'c'), _) if name.starts_with(TASKSET) => return taskset(name, kind),
        (Some(b'c'), List) if name.starts_with(b"celeryev.") => return Class::EventQueue,
        (Some(b'c'), Hash) if name == b"celery:schedule" => return Class::Redbeat,
        (Some(b'm'), Hash) if name.strip_prefix(PLUS_MESSAGE).is_some_and(is_uuid) => {
            return Class::Queue;
        }
        (Some(b'm' | b'q'), Zset) if answers(name) => return Class::ReplyQueue,
        (Some(b'm'), Zset) if messages_index(name) => return Class::Unacked,
        (Some(b'/'), Stream) if broadcasts(name) => return Class::EventQueue,
        (Some(b'_'), Set | Zset) if name.starts_with(BINDING) => return Class::Binding,
        (Some(b'u'), _) => {
            let class = match (name, kind) {
                (b"unacked", Hash) | (b"unacked_index", Zset) | (b"unacked_mutex", String) => {
                    Class::Unacked
                }
                _ => Class::Other,
            };
            return class;
        }
        (Some(b'r'), Zset | Hash | Set | String)
            if name.starts_with(b"redbeat:") || name.starts_with(b"redisbeater:") =>
        {
            return Class::Redbeat;
        }
        _ => {}
    }
    match kind {
        List if reply_queue(name) => Class::ReplyQueue,
        String if lock(name) => Class::Lock,
        _ => Class::Other,
    }
}

fn reply_queue(queue: &[u8]) -> bool {
    queue.ends_with(b".pidbox") && memchr::memmem::find(queue, b".reply.").is_some()
}

/// What celery-redis-plus puts in front of a queue's name for its zset of delivery
/// tags, of a queue's for their index, and of a delivery tag for the message itself
/// (celery-redis-plus 0.4, `constants.py`).
const PLUS_QUEUE: &[u8] = b"queue:";
const PLUS_INDEX: &[u8] = b"messages_index:";
const PLUS_MESSAGE: &[u8] = b"message:";

/// Whether this is a queue of answers, or its index, under celery-redis-plus.
fn answers(name: &[u8]) -> bool {
    [PLUS_QUEUE, PLUS_INDEX]
        .iter()
        .any(|before| name.strip_prefix(*before).is_some_and(reply_queue))
}

/// The keys of one queue under celery-redis-plus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlusQueue<'a> {
    prefix: &'a [u8],
    /// Its name, which each of its messages bears as `routing_key`.
    pub queue: &'a [u8],
}

impl<'a> PlusQueue<'a> {
    /// Those of the queue whose zset, or whose index, has this name.
    #[must_use]
    pub fn of(name: &'a [u8]) -> Option<Self> {
        [PLUS_INDEX, PLUS_QUEUE].iter().find_map(|before| {
            let at = memchr::memmem::find(name, before)?;
            let (prefix, rest) = name.split_at_checked(at)?;
            let queue = rest.strip_prefix(*before)?;
            Some(Self { prefix, queue })
        })
    }

    /// The zset of delivery tags that wait.
    #[must_use]
    pub fn zset(&self) -> Vec<u8> {
        [self.prefix, PLUS_QUEUE, self.queue].concat()
    }

    /// The zset of when each message is put back.
    #[must_use]
    pub fn index(&self) -> Vec<u8> {
        [self.prefix, PLUS_INDEX, self.queue].concat()
    }

    /// The hash of the message with that delivery tag.
    #[must_use]
    pub fn message(&self, tag: &[u8]) -> Vec<u8> {
        [self.prefix, PLUS_MESSAGE, tag].concat()
    }
}

/// celery-redis-plus' index of messages by the time they are put back at, one or one
/// for each queue.
#[must_use]
pub fn messages_index(name: &[u8]) -> bool {
    name.strip_prefix(b"messages_index")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b":"))
}

/// celery-redis-plus' streams, `/<db>.celeryev` and `/<db>.<namespace>.pidbox`, a
/// routing key behind them or none.
fn broadcasts(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b"/") else {
        return false;
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let Some(exchange) = rest.get(digits..).and_then(|rest| rest.strip_prefix(b".")) else {
        return false;
    };
    let exchange = exchange.split(|byte| *byte == b'/').next();
    let exchange = exchange.unwrap_or_default();
    digits > 0 && (exchange == b"celeryev" || exchange.ends_with(b".pidbox"))
}

/// Saved groups and the five helpers of a chord. A group's own id may end like
/// a helper's name; then the type decides where it can, and where it cannot the
/// key counts as a helper, which nothing writes by itself.
fn taskset(name: &[u8], kind: KeyType) -> Class {
    let helper = match name.last_chunk::<2>() {
        Some(b".j") => matches!(kind, KeyType::Zset | KeyType::List),
        Some(b".d") => kind == KeyType::Set,
        Some(b".s" | b".t" | b".c") => kind == KeyType::String,
        _ => false,
    };
    if helper {
        Class::Chord
    } else if kind == KeyType::String {
        Class::GroupResult
    } else {
        Class::Other
    }
}

fn lock(name: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 5] = [
        b"SINGLETONLOCK_",
        b"qo_",
        b"once_task:",
        b"h-lock:",
        b"h-rate:",
    ];
    const NAMES: [&[u8]; 5] = [
        b"beatlock::lock",
        b"celery:beat-lock",
        b"celery:beat:task_lock",
        b"celery_lease:lock",
        b"celery:multibeat:lock",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::KeyType::{Hash, List, Set, Stream, String, Zset};
    use super::*;

    fn globs(patterns: &[&str]) -> Vec<Glob> {
        patterns
            .iter()
            .map(|pattern| Glob::new(pattern.as_bytes()).unwrap())
            .collect()
    }

    fn names(results: &[&str], exempt: &[&str], prefixes: &[&str]) -> Names {
        Names::new(
            globs(results),
            globs(exempt),
            prefixes.iter().map(|p| p.as_bytes().to_vec()).collect(),
        )
    }

    #[test]
    fn a_name_and_a_type_make_a_class() {
        let names = names(&["celery-task-meta-*"], &[], &["myapp", "shop:"]);
        for (name, kind, expected) in [
            ("celery-task-meta-1", String, Class::TaskResult),
            ("celery-task-meta-", String, Class::TaskResult),
            ("celery-task-meta-1", List, Class::Other),
            ("myapp_celery-task-meta-1", String, Class::TaskResult),
            ("myappcelery-task-meta-1", String, Class::TaskResult),
            ("shop:celery-task-meta-1", String, Class::TaskResult),
            ("shop:_celery-task-meta-1", String, Class::TaskResult),
            ("other_celery-task-meta-1", String, Class::Other),
            ("celery-taskset-meta-1", String, Class::GroupResult),
            ("celery-taskset-meta-1.j", Zset, Class::Chord),
            ("celery-taskset-meta-1.j", List, Class::Chord),
            ("celery-taskset-meta-1.j", String, Class::GroupResult),
            ("celery-taskset-meta-1.s", String, Class::Chord),
            ("celery-taskset-meta-1.t", String, Class::Chord),
            ("celery-taskset-meta-1.d", Set, Class::Chord),
            ("celery-taskset-meta-1.c", String, Class::Chord),
            ("myapp_celery-taskset-meta-1.t", String, Class::Chord),
            ("unacked", Hash, Class::Unacked),
            ("unacked_index", Zset, Class::Unacked),
            ("unacked_mutex", String, Class::Unacked),
            ("myappunacked", Hash, Class::Unacked),
            ("unacked", String, Class::Other),
            ("_kombu.binding.celery", Set, Class::Binding),
            ("_kombu.binding.celery", Zset, Class::Binding),
            ("_kombu.binding_permanent.celery", Set, Class::Binding),
            ("_kombu.binding_deadlines", Zset, Class::Binding),
            ("unknown_kombu.binding.celery", Set, Class::Binding),
            ("a.reply.celery.pidbox", List, Class::ReplyQueue),
            ("a.reply.other.pidbox", List, Class::ReplyQueue),
            ("celeryev.a", List, Class::EventQueue),
            (":1:celery-task-meta-1", String, Class::TaskResult),
            ("shop:12:celery-task-meta-1", String, Class::TaskResult),
            ("a:b:1:celery-task-meta-1", String, Class::TaskResult),
            (":1:celery-taskset-meta-1", String, Class::GroupResult),
            (":1:celery-task-meta-1", Hash, Class::Other),
            (":v1:celery-task-meta-1", String, Class::Other),
            ("::celery-task-meta-1", String, Class::Other),
            ("1:celery-task-meta-1", String, Class::Other),
            (":1:celery-task", String, Class::Other),
            (":1:unacked_mutex", String, Class::Other),
            ("myapp_kombu.binding_deadlines", Zset, Class::Binding),
            ("_kombu.binding_permanent.celery", String, Class::Other),
            ("messages_index", Zset, Class::Unacked),
            ("messages_index:celery", Zset, Class::Unacked),
            ("messages_indexed", Zset, Class::Other),
            ("messages_index:celery", Hash, Class::Other),
            (
                "message:0f5ee1b4-3c1c-4b6e-a1f0-6c5bb9b3c5a1",
                Hash,
                Class::Queue,
            ),
            (
                "message:0f5ee1b4-3c1c-4b6e-a1f0-6c5bb9b3c5a1",
                String,
                Class::Other,
            ),
            ("message:17", Hash, Class::Other),
            // Its members decide.
            ("queue:celery", Zset, Class::Other),
            ("queue:a.reply.celery.pidbox", Zset, Class::ReplyQueue),
            ("queue:a.reply.celery.pidbox", List, Class::ReplyQueue),
            ("queue:a.reply.celery.pidbox", Set, Class::Other),
            (
                "myapp_messages_index:a.reply.other.pidbox",
                Zset,
                Class::ReplyQueue,
            ),
            ("messages_index:w1@lab.celery.pidbox", Zset, Class::Unacked),
            ("/0.celeryev", Stream, Class::EventQueue),
            ("/12.celeryev/worker.#", Stream, Class::EventQueue),
            ("myapp/0.celery.pidbox", Stream, Class::EventQueue),
            ("/0.celeryev", List, Class::Other),
            ("/0.orders", Stream, Class::Other),
            ("/.celeryev", Stream, Class::Other),
            ("redbeat::schedule", Zset, Class::Redbeat),
            ("redisbeater::schedule", Zset, Class::Redbeat),
            ("celery:schedule", Hash, Class::Redbeat),
            ("celery:schedule", String, Class::Other),
            ("redbeat::statics", Set, Class::Redbeat),
            ("redbeat::lock", String, Class::Redbeat),
            ("redbeat:my task", Hash, Class::Redbeat),
            ("SINGLETONLOCK_0", String, Class::Lock),
            ("qo_task_a-1", String, Class::Lock),
            ("once_task:app.t:0123456789abcdef", String, Class::Lock),
            ("h-lock:app.t", String, Class::Lock),
            ("h-rate:app.t", String, Class::Lock),
            ("beatlock::lock", String, Class::Lock),
            ("celery:beat-lock", String, Class::Lock),
            ("celery:beat:task_lock", String, Class::Lock),
            ("celery_lease:lock", String, Class::Lock),
            ("celery:multibeat:lock", String, Class::Lock),
            ("celery:multibeat:lock", Hash, Class::Other),
            ("airflow_variable", String, Class::Other),
            ("celery", List, Class::Other),
            ("events", Stream, Class::Other),
            ("", String, Class::Other),
        ] {
            assert_eq!(
                names.class(name.as_bytes(), kind),
                expected,
                "{name:?} {}",
                kind.name()
            );
        }
    }

    #[test]
    fn what_is_not_acknowledged_may_have_other_names() {
        let own = Unacked {
            hash: b"taken".to_vec(),
            index: b"taken_at".to_vec(),
            mutex: b"unacked_mutex".to_vec(),
        };
        let names = names(&["*"], &[], &["shop:"]).with_unacked(own.clone());
        for (name, kind, expected) in [
            ("taken", Hash, Class::Unacked),
            ("taken_at", Zset, Class::Unacked),
            ("shop:taken", Hash, Class::Unacked),
            ("taken", Zset, Class::Other),
            ("taken_at", Hash, Class::Other),
            ("unacked", Hash, Class::Unacked),
            ("unacked_mutex", String, Class::Unacked),
        ] {
            let found = names.class(name.as_bytes(), kind);
            assert_eq!(found, expected, "{name} {}", kind.name());
        }
        let of = |hash: &str| {
            let found = names.unacked_of(hash.as_bytes(), names.prefixes());
            found.map(|(prefix, names)| (prefix.to_vec(), names.index, names.mutex))
        };
        let three = |parts: [&str; 3]| parts.map(|part| part.as_bytes().to_vec()).into();
        assert_eq!(of("taken"), Some(three(["", "taken_at", "unacked_mutex"])));
        assert_eq!(
            of("shop:unacked"),
            Some(three(["shop:", "shop:unacked_index", "shop:unacked_mutex"]))
        );
        assert_eq!(of("app_unacked"), None);
        // kombu's own hash with another index is not looked for twice.
        let moved = Unacked {
            index: b"when".to_vec(),
            ..Unacked::default()
        };
        assert_eq!(
            names
                .with_unacked(moved.clone())
                .unacked()
                .collect::<Vec<_>>(),
            [moved]
        );
    }

    #[test]
    fn a_wide_pattern_does_not_reach_what_holds_work() {
        let names = names(&["*"], &[], &[]);
        for name in [
            "unacked_mutex",
            "redbeat::lock",
            "celery-taskset-meta-1.t",
            "SINGLETONLOCK_0",
        ] {
            assert!(!names.task_result(name.as_bytes()), "{name}");
        }
        assert!(names.task_result(b"anything"));
        assert_eq!(names.class(b"anything", List), Class::Other);
    }

    #[test]
    fn results_in_djangos_cache_are_results_where_the_patterns_say_so() {
        let stock = names(&["celery-task-meta-*"], &[], &["shop:"]);
        for name in [
            ":1:celery-task-meta-a",
            "site:2:celery-task-meta-a",
            "shop::1:celery-task-meta-a",
        ] {
            assert!(stock.task_result(name.as_bytes()), "{name}");
        }
        for name in [
            ":1:celery-taskset-meta-a",
            ":1:session",
            "a1:celery-task-meta-a",
        ] {
            assert!(!stock.task_result(name.as_bytes()), "{name}");
        }
        // The operator named other keys, or only some.
        let own = names(&["mine-*", "celery-task-meta-7*"], &[], &[]);
        assert!(!own.task_result(b":1:mine-1"));
        assert!(!own.task_result(b":1:celery-task-meta-1"));
        assert!(own.task_result(b":1:celery-task-meta-71"));
    }

    #[test]
    fn a_result_shows_the_prefix_that_no_setting_names() {
        for (name, expected) in [
            ("shop_celery-task-meta-1", Some("shop")),
            ("shop:celery-task-meta-1", Some("shop:")),
            ("shop:_celery-task-meta-1", Some("shop:")),
            ("{a}.celery-task-meta-1", Some("{a}.")),
            ("celery-task-meta-1", None),
            ("_celery-task-meta-1", None),
            ("mycelery-task-meta-1", None),
            ("shop_celery-taskset-meta-1", None),
        ] {
            let found = unknown_result_prefix(name.as_bytes());
            assert_eq!(found, expected.map(str::as_bytes), "{name}");
        }
        let found = result_of_group(b"shop_celery-taskset-meta-G", b"a");
        assert_eq!(
            found.as_deref(),
            Some(b"shop_celery-task-meta-a".as_slice())
        );
        assert_eq!(result_of_group(b"group", b"a"), None);
    }

    #[test]
    fn exemptions_are_patterns_on_the_whole_name() {
        let names = names(&["celery-task-meta-*"], &["celery-task-meta-keep-*"], &[]);
        assert!(names.exempt(b"celery-task-meta-keep-1"));
        assert!(!names.exempt(b"celery-task-meta-1"));
    }

    #[test]
    fn names_that_are_not_text_are_names() {
        let names = names(&["celery-task-meta-*"], &[], &[]);
        assert!(names.task_result(b"celery-task-meta-\xff\x00\x06"));
    }

    #[test]
    fn only_classes_that_hold_no_work_may_be_asked_for() {
        for class in Class::ALL {
            let asked = class.protected().is_none();
            let expected = matches!(
                class,
                Class::TaskResult
                    | Class::GroupResult
                    | Class::Chord
                    | Class::ReplyQueue
                    | Class::EventQueue
                    | Class::RpcReply
                    | Class::Lock
            );
            assert_eq!(asked, expected, "{}", class.name());
            assert_eq!(Class::named(class.name().as_bytes()), Some(class));
        }
    }
}
