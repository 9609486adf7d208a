//! The assessment as HYGIENE.BEATSTATUS answers it (spec section 4).
//!
//! Unknown integers are -1, never 0; unknown text is empty; yes, no and unknown
//! are words. Lists end at `LISTED`.

use super::assessment::{
    Assessment, Origin, Pace, Publisher, QueuePart, RedBeatPart, Step, Task, UnackedPart, Watch,
    WorkersPart,
};
use super::evidence::Hold;
use super::finding::Finding;
use crate::core::reply::Reply;

/// Longest list in a reply. A person or a monitor reads the worst first; the
/// rest would only hold up the server.
const LISTED: usize = 100;

/// What an integer says when its value is not known.
const UNKNOWN: Reply = Reply::Int(-1);

/// The reply's parts in the order of the contract. `verbose` adds to tasks
/// `last_exception`, to queues `per_priority`, to `unacked` `mutex_ttl_ms`,
/// `eta_ahead` and `redelivered`, and at the end `watch`, `faults`, `evidence` and
/// `next`.
#[must_use]
pub fn reply(assessment: &Assessment, verbose: bool) -> Reply {
    let mut fields = vec![
        field("verdict", Reply::word(assessment.verdict.word())),
        field("reason", Reply::bytes(assessment.reason.as_bytes())),
        field("publisher", publisher(&assessment.publisher)),
        field("tasks", list(&assessment.tasks, |t| task(t, verbose))),
        field("queues", list(&assessment.queues, |q| queue(q, verbose))),
        field("workers", workers(&assessment.workers)),
        field("unacked", unacked(&assessment.unacked, verbose)),
    ];
    if let Some(part) = &assessment.redbeat {
        fields.push(field("redbeat", redbeat(part)));
    }
    if verbose {
        fields.push(field("watch", watch(&assessment.watch)));
        fields.push(field("faults", list(&assessment.findings, fault)));
        fields.push(field("evidence", list(&assessment.evidence, text)));
        fields.push(field("next", list(&assessment.next, step)));
    }
    Reply::Map(fields)
}

fn publisher(part: &Publisher) -> Reply {
    Reply::map([
        ("state", Reply::word(part.state.word())),
        ("certainty", Reply::word(part.certainty.word())),
        ("last_seen_ms", int(part.last_seen_ms)),
        ("origins", list(&part.origins, text)),
        ("source", Reply::word(part.source.word())),
    ])
}

fn task(part: &Task, verbose: bool) -> Reply {
    let word = |word: &Option<String>| Reply::bytes(word.clone().unwrap_or_default());
    let mut fields = vec![
        field("name", text(&part.name)),
        // What was learnt is some ms more or less.
        field(
            "interval_s",
            seconds(part.interval_ms.map(|ms| ms.saturating_add(500))),
        ),
        field("last_published_ms", int(part.last_published_ms)),
        field("last_finished_ms", int(part.last_finished_ms)),
        field("last_status", word(&part.last_status)),
        field("overdue", yes_no(part.overdue)),
    ];
    if verbose {
        fields.push(field("last_exception", word(&part.last_exception)));
    }
    Reply::Map(fields)
}

fn queue(part: &QueuePart, verbose: bool) -> Reply {
    let mut fields = vec![
        field("name", Reply::bytes(part.name.as_slice())),
        field("db", Reply::Int(i64::from(part.db))),
        field("length", Reply::count(part.length)),
        field("oldest_message_s", seconds(part.oldest_message_ms)),
        field("in_per_min", count(part.in_per_min)),
        field("out_per_min", count(part.out_per_min)),
        field("consumed", yes_no(part.consumed)),
        field("maintenance", yes_no(Some(part.maintenance))),
    ];
    if verbose {
        let lists = list(&part.per_priority, |(priority, length)| {
            Reply::map([
                ("priority", Reply::Int(i64::from(*priority))),
                ("length", Reply::count(*length)),
            ])
        });
        fields.push(field("per_priority", lists));
    }
    Reply::Map(fields)
}

fn workers(part: &WorkersPart) -> Reply {
    Reply::map([
        ("live", count(part.live)),
        ("bound", list(&part.bound, |n| Reply::bytes(n.as_slice()))),
        ("blocked_consumers", count(part.blocked_consumers)),
    ])
}

fn unacked(part: &UnackedPart, verbose: bool) -> Reply {
    let mut fields = vec![
        field("count", Reply::count(part.count)),
        field("oldest_s", seconds(part.oldest_ms)),
        field("stuck", Reply::count(part.stuck)),
        field("mutex", hold(part.mutex)),
        field("duplicate_deliveries", Reply::count(part.duplicates)),
    ];
    if verbose {
        fields.push(field("mutex_ttl_ms", ttl(part.mutex)));
        fields.push(field("eta_ahead", Reply::count(part.eta_ahead)));
        fields.push(field("redelivered", Reply::count(part.redelivered)));
    }
    Reply::Map(fields)
}

fn redbeat(part: &RedBeatPart) -> Reply {
    Reply::map([
        ("lock", hold(part.lock)),
        ("lock_ttl_ms", ttl(part.lock)),
        ("entries", Reply::count(part.entries)),
        ("overdue_entries", Reply::count(part.overdue)),
        (
            "entries_without_definition",
            Reply::count(part.without_definition),
        ),
    ])
}

fn watch(part: &Watch) -> Reply {
    Reply::map([
        ("since_ms", int(part.since_ms)),
        ("origins", list(&part.origins, origin)),
        ("rhythms", list(&part.rhythms, pace)),
    ])
}

fn origin(part: &Origin) -> Reply {
    Reply::map([
        ("origin", text(&part.name)),
        ("first_ms", Reply::Int(part.first_ms)),
        ("last_ms", Reply::Int(part.last_ms)),
        ("count", Reply::count(part.count)),
        ("beat", yes_no(Some(part.beat))),
    ])
}

fn pace(part: &Pace) -> Reply {
    Reply::map([
        ("task", text(&part.task)),
        ("periodic_name", text(&part.entry)),
        ("db", Reply::Int(i64::from(part.db))),
        ("queue", Reply::bytes(part.queue.as_slice())),
        ("origin", text(&part.origin)),
        ("first_ms", Reply::Int(part.first_ms)),
        ("last_ms", Reply::Int(part.last_ms)),
        ("count", Reply::count(part.count)),
        ("interval_ms", int(part.interval_ms)),
        ("longest_gap_ms", int(part.longest_ms)),
        ("rhythm", Reply::word(part.rhythm)),
        ("marked", yes_no(Some(part.marked))),
        ("beat", yes_no(Some(part.beat))),
    ])
}

fn fault(finding: &Finding) -> Reply {
    Reply::map([
        ("code", Reply::word(finding.code.word())),
        ("severity", Reply::word(finding.code.severity().word())),
        ("detail", text(&finding.detail)),
        ("advice", text(&finding.advice)),
    ])
}

fn step(part: &Step) -> Reply {
    Reply::map([
        ("command", text(&part.command)),
        ("what_for", text(&part.what_for)),
    ])
}

type Field = (std::borrow::Cow<'static, [u8]>, Reply);

fn field(name: &'static str, value: Reply) -> Field {
    (std::borrow::Cow::Borrowed(name.as_bytes()), value)
}

fn list<T>(items: &[T], each: impl Fn(&T) -> Reply) -> Reply {
    Reply::Array(items.iter().take(LISTED).map(each).collect())
}

fn text(text: &String) -> Reply {
    Reply::bytes(text.as_bytes())
}

fn int(value: Option<i64>) -> Reply {
    value.map_or(UNKNOWN, Reply::Int)
}

fn count(value: Option<u64>) -> Reply {
    value.map_or(UNKNOWN, Reply::count)
}

fn seconds(ms: Option<i64>) -> Reply {
    int(ms.map(|ms| ms / 1000))
}

fn yes_no(value: Option<bool>) -> Reply {
    Reply::word(match value {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    })
}

/// `held` expires by itself, `no_ttl` never does.
fn hold(value: Hold) -> Reply {
    Reply::word(match value {
        Hold::Absent => "absent",
        Hold::NoTtl => "no_ttl",
        Hold::Ttl(_) => "held",
    })
}

fn ttl(value: Hold) -> Reply {
    int(match value {
        Hold::Ttl(ms) => Some(ms),
        Hold::Absent | Hold::NoTtl => None,
    })
}
