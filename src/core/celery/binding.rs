//! kombu's tables of bindings, and the names of the queues they lead to.
//! Everything here is bytes: neither names nor separators need be text.
//!
//! Source: kombu 5.7 `kombu/transport/redis.py`, class `Channel`, unless said
//! otherwise.

use memchr::memmem;

/// Between the parts of a binding and before a priority: kombu's default for
/// the transport option `sep`.
pub const SEP: &[u8] = b"\x06\x16";

/// The steps that priorities are rounded down to by default; a smaller number
/// is served first.
pub const PRIORITY_STEPS: [u8; 4] = [0, 3, 6, 9];

/// The longest separator that [`guess_separator`] finds, in bytes.
const LONGEST_SEP: usize = 8;

/// How many members [`guess_separator`] takes candidates from.
const SAMPLED_MEMBERS: usize = 16;

/// One binding: messages of an exchange that match go to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding<'a> {
    /// The routing key that a direct exchange compares; empty for fanout.
    pub routing_key: &'a [u8],
    /// The pattern that a topic exchange matches; empty for the others.
    pub pattern: &'a [u8],
    /// The queue's name, without the broker's key prefix.
    pub queue: &'a [u8],
}

/// Whose queue a binding leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A process that asked workers something: `<uuid>.reply.<namespace>.pidbox`.
    /// It binds its queue with each question and unbinds it with the answer.
    Asker,
    /// A worker: `<host>.<namespace>.pidbox`. Commands reach it by pub/sub, the
    /// binding only says that it was there.
    Worker,
    /// A monitor, or a worker's gossip: `celeryev.<uuid>`.
    Monitor,
    /// Everybody: a queue of tasks. While it is empty there is no list of its name.
    Work,
}

impl Binding<'_> {
    /// Whose queue it leads to, in the table of this exchange.
    ///
    /// Sources: kombu 5.7 `kombu/pidbox.py` `Mailbox`, celery 5.7
    /// `celery/events/receiver.py`.
    #[must_use]
    pub fn owner(&self, exchange: &[u8]) -> Owner {
        let behind = |end: &[u8]| {
            self.queue
                .strip_suffix(end)
                .is_some_and(|name| name.len() > 1 && name.ends_with(b"."))
        };
        if exchange.ends_with(b".pidbox") && behind(exchange) {
            if exchange.starts_with(b"reply.") {
                Owner::Asker
            } else {
                Owner::Worker
            }
        } else if exchange == b"celeryev" && self.queue.starts_with(b"celeryev.") {
            Owner::Monitor
        } else {
            Owner::Work
        }
    }

    /// Whether a message with this routing key goes to the queue: a topic exchange
    /// compares its pattern, where `*` is a word and `#` anything, the others the
    /// key itself (kombu `kombu/transport/virtual/exchange.py`).
    #[must_use]
    pub fn leads(&self, routing_key: &[u8]) -> bool {
        if self.has_wildcards() {
            topic_matches(self.routing_key, routing_key)
        } else {
            self.routing_key == routing_key
        }
    }

    /// Whether other routing keys than its own may lead to the queue.
    #[must_use]
    pub fn has_wildcards(&self) -> bool {
        let mut words = self.routing_key.split(|byte| *byte == b'.');
        !self.pattern.is_empty() && words.any(|word| matches!(word, b"*" | b"#"))
    }
}

/// The longest topic that is compared, in words, and the longest key, in bytes.
const MOST_WORDS: usize = 64;
const LONGEST_KEY: usize = 4_096;

/// Whether the words of a topic describe the key. Positions are kept as a set, so
/// that it costs at most their product however many `#` there are.
fn topic_matches(topic: &[u8], key: &[u8]) -> bool {
    // Most end here: what stands before the first wildcard is the key's own.
    let wildcard = topic.iter().position(|byte| matches!(byte, b'*' | b'#'));
    let plain = wildcard.unwrap_or(topic.len());
    if !topic
        .get(..plain)
        .is_some_and(|plain| key.starts_with(plain))
    {
        return false;
    }
    if topic.split(|byte| *byte == b'.').count() > MOST_WORDS || key.len() > LONGEST_KEY {
        return false;
    }
    let mut reached = vec![false; key.len() + 1];
    if let Some(start) = reached.first_mut() {
        *start = true;
    }
    for (nth, word) in topic.split(|byte| *byte == b'.').enumerate() {
        if nth > 0 {
            reached = after(&reached, key, b".");
        }
        reached = match word {
            b"#" => {
                let first = reached.iter().position(|there| *there);
                (0..reached.len())
                    .map(|at| first.is_some_and(|first| at >= first))
                    .collect()
            }
            b"*" => {
                let mut within = false;
                let mut next = vec![false; reached.len()];
                for ((byte, from), to) in key.iter().zip(&reached).zip(next.iter_mut().skip(1)) {
                    within = (within || *from) && *byte != b'.';
                    *to = within;
                }
                next
            }
            word => after(&reached, key, word),
        };
    }
    reached.last() == Some(&true)
}

/// Where one is after `word` from each place reached.
fn after(reached: &[bool], key: &[u8], word: &[u8]) -> Vec<bool> {
    let mut next = vec![false; reached.len()];
    for (at, _) in reached.iter().enumerate().filter(|(_, there)| **there) {
        let follows = key.get(at..).is_some_and(|rest| rest.starts_with(word));
        if let Some(to) = next.get_mut(at + word.len()).filter(|_| follows) {
            *to = true;
        }
    }
    next
}

/// The list that a message of this priority lies in: kombu takes it for 0 where
/// it is absent, holds it between 0 and 9 and rounds it down to a step
/// (`Channel._q_for_pri`, `virtual.Channel._get_message_priority`).
#[must_use]
pub fn list_of(queue: &[u8], sep: &[u8], priority: Option<i64>) -> Vec<u8> {
    let priority = priority.unwrap_or(0).clamp(0, 9);
    let step = PRIORITY_STEPS
        .into_iter()
        .rev()
        .find(|step| i64::from(*step) <= priority)
        .unwrap_or(0);
    list_at(queue, sep, step)
}

/// The list of a queue behind this step.
#[must_use]
pub fn list_at(queue: &[u8], sep: &[u8], step: u8) -> Vec<u8> {
    match step {
        0 => queue.to_vec(),
        step => [queue, sep, step.to_string().as_bytes()].concat(),
    }
}

/// Which of kombu's tables a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// `_kombu.binding.<exchange>`: every queue bound to the exchange.
    Bindings,
    /// `_kombu.binding_permanent.<exchange>`: those of them that never expire.
    /// kombu 5.7 and later.
    Permanent,
    /// `_kombu.binding_deadlines`: when each exchange was last in use. kombu
    /// 5.7 and later.
    Deadlines,
}

/// The name of a binding table, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindingKey<'a> {
    /// The broker's `global_keyprefix`, as it stands before every key.
    pub prefix: &'a [u8],
    /// Which table it is.
    pub table: Table,
    /// The exchange; empty for [`Table::Deadlines`].
    pub exchange: &'a [u8],
}

/// Splits a member of a binding table at the default separator.
#[must_use]
pub fn parse(member: &[u8]) -> Option<Binding<'_>> {
    parse_with(member, SEP)
}

/// Splits a member of a binding table at `sep`; `None` unless that makes three
/// parts, of which the queue is not empty.
#[must_use]
pub fn parse_with<'a>(member: &'a [u8], sep: &[u8]) -> Option<Binding<'a>> {
    let (routing_key, rest) = split_once(member, sep)?;
    let (pattern, queue) = split_once(rest, sep)?;
    if queue.is_empty() || memmem::find(queue, sep).is_some() {
        return None;
    }
    Some(Binding {
        routing_key,
        pattern,
        queue,
    })
}

/// Recovers the separator of a table from members whose pattern is empty.
///
/// It shows twice in a row there: at the head of a control queue
/// (`SS<host>.celery.pidbox`), or between a routing key and a queue of the
/// same name (`celerySScelery`), which is how Celery declares its queues. The
/// answer splits every member given; `None` where nothing does.
#[must_use]
pub fn guess_separator<'a>(members: &[&'a [u8]]) -> Option<&'a [u8]> {
    let splits_all = |sep: &[u8]| {
        members
            .iter()
            .all(|member| parse_with(member, sep).is_some())
    };
    members
        .iter()
        .take(SAMPLED_MEMBERS)
        .flat_map(|member| {
            (1..=LONGEST_SEP)
                .rev()
                .filter_map(|length| candidate(member, length))
        })
        .find(|sep| splits_all(sep))
}

/// The separator of `length` bytes that `member` shows, if it does.
fn candidate(member: &[u8], length: usize) -> Option<&[u8]> {
    let around = member.len().checked_sub(2 * length)?;
    let name = if member.ends_with(b".pidbox") {
        0
    } else if around > 0 && around % 2 == 0 {
        around / 2
    } else {
        return None;
    };
    let (before, rest) = member.split_at_checked(name)?;
    let (sep, rest) = rest.split_at_checked(length)?;
    let (again, after) = rest.split_at_checked(length)?;
    (sep == again && (name == 0 || before == after)).then_some(sep)
}

/// Takes the name of a binding table apart; `None` for any other key.
#[must_use]
pub fn binding_key(key: &[u8]) -> Option<BindingKey<'_>> {
    let (prefix, rest) = split_once(key, b"_kombu.binding")?;
    let (table, exchange) = if let Some(exchange) = rest.strip_prefix(b".") {
        (Table::Bindings, exchange)
    } else if let Some(exchange) = rest.strip_prefix(b"_permanent.") {
        (Table::Permanent, exchange)
    } else if rest == b"_deadlines" {
        (Table::Deadlines, &b""[..])
    } else {
        return None;
    };
    Some(BindingKey {
        prefix,
        table,
        exchange,
    })
}

/// Splits a list's name into the queue and the priority, which kombu appends
/// as `<sep><number>`; the plain name is the priority 0.
#[must_use]
pub fn split_priority<'a>(name: &'a [u8], sep: &[u8]) -> (&'a [u8], Option<u8>) {
    let split = || {
        if sep.is_empty() {
            return None;
        }
        let at = memmem::rfind(name, sep).filter(|at| *at > 0)?;
        let (queue, rest) = name.split_at_checked(at)?;
        Some((queue, number(rest.strip_prefix(sep)?)?))
    };
    match split() {
        Some((queue, priority)) => (queue, Some(priority)),
        None => (name, None),
    }
}

/// The number at the end of a name.
#[must_use]
pub fn last_number(name: &[u8]) -> Option<u8> {
    let digits = name
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    number(name.get(name.len() - digits..)?)
}

/// A decimal number as Python prints it.
fn number(digits: &[u8]) -> Option<u8> {
    let plain = digits == b"0" || matches!(digits.first(), Some(b'1'..=b'9'));
    if !plain {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The lists that a queue consists of under the default steps, in the order
/// of [`PRIORITY_STEPS`].
#[must_use]
pub fn priority_names(queue: &[u8], sep: &[u8]) -> [Vec<u8>; 4] {
    PRIORITY_STEPS.map(|step| list_at(queue, sep, step))
}

/// The worker whose control queue this is: `w1@lab` of
/// `w1@lab.celery.pidbox`. `None` also for the reply queue of a process that
/// asked, `<uuid>.reply.celery.pidbox` (kombu `kombu/pidbox.py`).
#[must_use]
pub fn worker_of(queue: &[u8]) -> Option<&[u8]> {
    let worker = queue.strip_suffix(b".celery.pidbox")?;
    let asker = worker.strip_suffix(b".reply");
    if worker.is_empty() || asker.is_some_and(is_uuid) {
        return None;
    }
    Some(worker)
}

/// Whether this is a UUID in its usual form of 36 characters.
#[must_use]
pub fn is_uuid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn split_once<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    if at.is_empty() {
        return None;
    }
    let (before, rest) = bytes.split_at_checked(memmem::find(bytes, at)?)?;
    Some((before, rest.strip_prefix(at)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Bytes<'a> = &'a [u8];
    type KeyParts<'a> = (Bytes<'a>, Table, Bytes<'a>);

    const ASKER: &str = "6f1e0b9a-0000-3000-8000-000000000002";

    #[test]
    fn splits_a_member_into_three() {
        let rows: &[(&str, Bytes, Option<[Bytes; 3]>)] = &[
            (
                "direct",
                b"celery\x06\x16\x06\x16celery",
                Some([b"celery", b"", b"celery"]),
            ),
            (
                "a control queue",
                b"\x06\x16\x06\x16w1@lab.celery.pidbox",
                Some([b"", b"", b"w1@lab.celery.pidbox"]),
            ),
            (
                "topic",
                b"worker.#\x06\x16^worker\\..*?$\x06\x16celeryev.1",
                Some([b"worker.#", b"^worker\\..*?$", b"celeryev.1"]),
            ),
            (
                "no text",
                b"\xff\x00\x06\x16\x06\x16\xfe\x06",
                Some([b"\xff\x00", b"", b"\xfe\x06"]),
            ),
            (
                "a name with half a separator",
                b"a\x06\x06\x16\x06\x16b",
                Some([b"a\x06", b"", b"b"]),
            ),
            ("two parts", b"celery\x06\x16celery", None),
            ("four parts", b"a\x06\x16b\x06\x16c\x06\x16d", None),
            ("no queue", b"celery\x06\x16\x06\x16", None),
            ("another separator", b"celery::::celery", None),
            ("separators alone", b"\x06\x16\x06\x16", None),
            ("empty", b"", None),
        ];
        for (row, member, expected) in rows {
            let found = parse(member).map(|b| [b.routing_key, b.pattern, b.queue]);
            assert_eq!(found, *expected, "{row}");
        }
        let other = parse_with(b"celery::::celery", b"::").unwrap();
        assert_eq!((other.pattern, other.queue), (&b""[..], &b"celery"[..]));
        assert_eq!(parse_with(b"celery", b""), None);
    }

    fn of<'a>(routing_key: &'a str, pattern: &'a str, queue: &'a str) -> Binding<'a> {
        Binding {
            routing_key: routing_key.as_bytes(),
            pattern: pattern.as_bytes(),
            queue: queue.as_bytes(),
        }
    }

    #[test]
    fn a_queue_is_work_unless_exchange_and_name_say_otherwise() {
        for (exchange, queue, expected) in [
            ("celery", "celery", Owner::Work),
            ("celery.pidbox", "w1@lab.celery.pidbox", Owner::Worker),
            ("shop.pidbox", "w1@lab.shop.pidbox", Owner::Worker),
            ("reply.celery.pidbox", "a.reply.celery.pidbox", Owner::Asker),
            ("reply.shop.pidbox", "a.reply.shop.pidbox", Owner::Asker),
            ("celeryev", "celeryev.a", Owner::Monitor),
            // A person may call a queue anything.
            ("celery", "celeryev.a", Owner::Work),
            ("celery", "w1@lab.celery.pidbox", Owner::Work),
            ("celeryev", "audit", Owner::Work),
            ("celery.pidbox", "celery.pidbox", Owner::Work),
            ("celery.pidbox", ".celery.pidbox", Owner::Work),
            ("reply.celery.pidbox", "mail", Owner::Work),
            ("", "celery", Owner::Work),
        ] {
            let found = of("", "", queue).owner(exchange.as_bytes());
            assert_eq!(found, expected, "{exchange} {queue}");
        }
    }

    #[test]
    fn a_message_finds_the_queues_that_kombu_finds() {
        for (key, pattern, routing_key, expected) in [
            ("celery", "", "celery", true),
            ("celery", "", "celeryx", false),
            ("a.*", "", "a.b", false),
            ("", "", "", true),
            ("a.*", r"^a\.[^\.]+$", "a.b", true),
            ("a.*", r"^a\.[^\.]+$", "a.b.c", false),
            ("a.*", r"^a\.[^\.]+$", "a.", false),
            ("a.#", r"^a\..*?$", "a.b.c", true),
            ("a.#", r"^a\..*?$", "a.", true),
            ("a.#", r"^a\..*?$", "a", false),
            ("#", r"^.*?$", "", true),
            ("#", r"^.*?$", "x.y", true),
            ("#.b", r"^.*?\.b$", "a.a.b", true),
            ("#.b", r"^.*?\.b$", "a.a.c", false),
            ("*.#.*", r"^[^\.]+\..*?\.[^\.]+$", "a.b.c.d", true),
            ("*.#.*", r"^[^\.]+\..*?\.[^\.]+$", "a.b", false),
            ("a.b", r"^a\.b$", "a.b", true),
            ("a.b", r"^a\.b$", "aXb", false),
            ("task*", r"^task\*$", "task1", false),
        ] {
            let found = of(key, pattern, "q").leads(routing_key.as_bytes());
            assert_eq!(found, expected, "{key} for {routing_key}");
        }
        let endless = "#.".repeat(40) + "x";
        assert!(!of(&endless, "^", "q").leads("a.".repeat(1_000).as_bytes()));
    }

    #[test]
    fn a_priority_is_rounded_down_to_a_step() {
        for (priority, expected) in [
            (None, "q"),
            (Some(0), "q"),
            (Some(2), "q"),
            (Some(3), "q:3"),
            (Some(5), "q:3"),
            (Some(8), "q:6"),
            (Some(9), "q:9"),
            (Some(255), "q:9"),
            (Some(-1), "q"),
        ] {
            let found = list_of(b"q", b":", priority);
            assert_eq!(found, expected.as_bytes(), "{priority:?}");
        }
    }

    #[test]
    fn recovers_the_separator_from_members_without_a_pattern() {
        let rows: &[(&str, &[Bytes], Option<Bytes>)] = &[
            (
                "the default, direct",
                &[b"celery\x06\x16\x06\x16celery"],
                Some(SEP),
            ),
            (
                "the default, control",
                &[b"\x06\x16\x06\x16w1@lab.celery.pidbox"],
                Some(SEP),
            ),
            ("one byte", &[b"celery||celery"], Some(b"|")),
            ("two equal bytes", &[b"celery::::celery"], Some(b"::")),
            (
                "one byte, control",
                &[b"::w1@lab.celery.pidbox"],
                Some(b":"),
            ),
            ("four bytes", &[b"q<--><-->q"], Some(b"<-->")),
            ("no text", &[b"q\xff\x00\xff\x00q"], Some(b"\xff\x00")),
            (
                "another routing key beside it",
                &[b"low::::slow", b"celery::::celery"],
                Some(b"::"),
            ),
            (
                "a pattern beside it",
                &[b"a.#::^a\\..*$::q", b"q::::q"],
                Some(b"::"),
            ),
            ("a queue of doubled letters", &[b"aabb||aabb"], Some(b"|")),
            ("a queue of one letter, doubled", &[b"aa||aa"], Some(b"|")),
            ("one that fits no other member", &[b"q||q", b"celery"], None),
            ("only patterns", &[b"#\x06\x16^.*$\x06\x16celeryev.1"], None),
            ("no members", &[], None),
            ("empty members", &[b"", b""], None),
        ];
        for (row, members, expected) in rows {
            assert_eq!(guess_separator(members), *expected, "{row}");
        }
    }

    #[test]
    fn takes_the_names_of_binding_tables_apart() {
        let rows: &[(&str, Bytes, Option<KeyParts>)] = &[
            (
                "plain",
                b"_kombu.binding.celery",
                Some((b"", Table::Bindings, b"celery")),
            ),
            (
                "an exchange with dots",
                b"_kombu.binding.reply.celery.pidbox",
                Some((b"", Table::Bindings, b"reply.celery.pidbox")),
            ),
            (
                "a prefix",
                b"app1:_kombu.binding.celery",
                Some((b"app1:", Table::Bindings, b"celery")),
            ),
            (
                "a hash tag for a prefix",
                b"{app1}:_kombu.binding.celeryev",
                Some((b"{app1}:", Table::Bindings, b"celeryev")),
            ),
            (
                "a prefix without a mark",
                b"\xff\x00_kombu.binding.\xfe",
                Some((b"\xff\x00", Table::Bindings, b"\xfe")),
            ),
            (
                "permanent",
                b"p_kombu.binding_permanent.default",
                Some((b"p", Table::Permanent, b"default")),
            ),
            (
                "deadlines",
                b"p_kombu.binding_deadlines",
                Some((b"p", Table::Deadlines, b"")),
            ),
            ("more than deadlines", b"_kombu.binding_deadlines.x", None),
            (
                "permanent without an exchange's dot",
                b"_kombu.binding_permanent",
                None,
            ),
            ("no dot", b"_kombu.binding", None),
            ("another word", b"_kombu.bindings.celery", None),
            ("a queue", b"celery", None),
            ("empty", b"", None),
        ];
        for (row, key, expected) in rows {
            let found = binding_key(key).map(|k| (k.prefix, k.table, k.exchange));
            assert_eq!(found, *expected, "{row}");
        }
    }

    #[test]
    fn splits_the_priority_off_a_list() {
        let rows: &[(&str, Bytes, Bytes, Option<u8>)] = &[
            ("plain", b"celery", b"celery", None),
            ("three", b"celery\x06\x163", b"celery", Some(3)),
            ("nine", b"celery\x06\x169", b"celery", Some(9)),
            (
                "the largest byte",
                b"celery\x06\x16255",
                b"celery",
                Some(255),
            ),
            (
                "zero, which kombu leaves out",
                b"celery\x06\x160",
                b"celery",
                Some(0),
            ),
            (
                "the last separator counts",
                b"a\x06\x163\x06\x166",
                b"a\x06\x163",
                Some(6),
            ),
            ("no text", b"\xff\x00\x06\x166", b"\xff\x00", Some(6)),
            (
                "too large",
                b"celery\x06\x16256",
                b"celery\x06\x16256",
                None,
            ),
            (
                "a leading zero",
                b"celery\x06\x1603",
                b"celery\x06\x1603",
                None,
            ),
            ("a sign", b"celery\x06\x16+3", b"celery\x06\x16+3", None),
            ("no number", b"celery\x06\x16", b"celery\x06\x16", None),
            ("a word", b"celery\x06\x16high", b"celery\x06\x16high", None),
            ("no queue", b"\x06\x163", b"\x06\x163", None),
            ("another separator", b"celery:3", b"celery:3", None),
            ("empty", b"", b"", None),
        ];
        for (row, name, queue, priority) in rows {
            assert_eq!(split_priority(name, SEP), (*queue, *priority), "{row}");
        }
        assert_eq!(split_priority(b"celery:3", b":"), (&b"celery"[..], Some(3)));
        assert_eq!(split_priority(b"celery3", b""), (&b"celery3"[..], None));
    }

    #[test]
    fn the_lists_of_one_queue_lead_back_to_it() {
        let names = priority_names(b"celery", SEP);
        let expected: [&[u8]; 4] = [
            b"celery",
            b"celery\x06\x163",
            b"celery\x06\x166",
            b"celery\x06\x169",
        ];
        assert_eq!(names, expected);
        for (name, step) in names.iter().zip(PRIORITY_STEPS) {
            let (queue, priority) = split_priority(name, SEP);
            assert_eq!((queue, priority.unwrap_or(0)), (&b"celery"[..], step));
        }
    }

    #[test]
    fn knows_a_worker_by_its_control_queue() {
        let reply = format!("{ASKER}.reply.celery.pidbox");
        let own = format!("{ASKER}.celery.pidbox");
        let rows: &[(&str, Bytes, Option<Bytes>)] = &[
            ("a worker", b"w1@lab.celery.pidbox", Some(b"w1@lab")),
            (
                "a beat under remote control",
                b"celerybeat@lab.celery.pidbox",
                Some(b"celerybeat@lab"),
            ),
            (
                "a host with dots",
                b"celery@a.b.celery.pidbox",
                Some(b"celery@a.b"),
            ),
            (
                "a host called reply",
                b"w1@my.reply.celery.pidbox",
                Some(b"w1@my.reply"),
            ),
            (
                "a worker named by a uuid",
                own.as_bytes(),
                Some(ASKER.as_bytes()),
            ),
            ("no text", b"\xff@\x00.celery.pidbox", Some(b"\xff@\x00")),
            ("a reply queue", reply.as_bytes(), None),
            ("no worker", b".celery.pidbox", None),
            ("another namespace", b"w1@lab.other.pidbox", None),
            ("a queue", b"celery", None),
            ("empty", b"", None),
        ];
        for (row, queue, expected) in rows {
            assert_eq!(worker_of(queue), *expected, "{row}");
        }
    }
}
