//! Scenario by scenario: what lies in Redis, and what must be said about it.

use super::*;

pub const NOW: i64 = 1_790_000_000_000;
pub const S: i64 = 1_000;
pub const MIN: i64 = 60 * S;
pub const H: i64 = 60 * MIN;

fn nothing() -> Evidence {
    Evidence {
        visibility_timeout_ms: H,
        ..Evidence::default()
    }
}

pub fn celery() -> Evidence {
    Evidence {
        celery_seen: true,
        ..nothing()
    }
}

pub fn with(change: impl FnOnce(&mut Evidence)) -> Evidence {
    let mut evidence = celery();
    change(&mut evidence);
    evidence
}

/// An entry that ran `ran` ago and is due in `due` (negative: overdue).
pub fn entry(name: &str, interval: i64, ran: i64, due: i64) -> Entry {
    Entry {
        key: format!("redbeat:{name}").into_bytes(),
        name: name.to_owned(),
        task: format!("app.{name}"),
        enabled: true,
        interval_ms: Some(interval),
        due_ms: Some(NOW + due),
        last_run_at_ms: Some(NOW - ran),
        has_definition: true,
        queue: None,
    }
}

pub fn redbeat(lock: Hold, entries: Vec<Entry>) -> RedBeat {
    RedBeat {
        db: 0,
        lock_key: b"redbeat::lock".to_vec(),
        schedule_key: b"redbeat::schedule".to_vec(),
        lock,
        total: entries.len() as u64,
        entries,
    }
}

fn schedule(lock: Hold, entries: Vec<Entry>) -> Evidence {
    with(|e| e.redbeat = vec![redbeat(lock, entries)])
}

pub fn queue(name: &str, length: u64) -> Queue {
    Queue {
        name: name.into(),
        length,
        per_priority: vec![(0, length)],
        bound: true,
        ..Queue::default()
    }
}

fn seen(task: &str, origin: &str, queue: &str, count: u64) -> Sighting {
    Sighting {
        task: task.to_owned(),
        origin: origin.to_owned(),
        queue: queue.into(),
        count,
        ..Sighting::default()
    }
}

pub fn marked(task: &str, queue: &str, count: u64, ago: Option<i64>) -> Sighting {
    Sighting {
        beat_marked: true,
        published_at_ms: ago.map(|ago| NOW - ago),
        ..seen(task, "gen7@beat", queue, count)
    }
}

pub fn expect(task: &str, interval_ms: i64) -> Expected {
    Expected {
        task: task.to_owned(),
        interval_ms,
    }
}

fn finish(task: &str, ago: i64, status: &str) -> Finish {
    Finish {
        task: task.to_owned(),
        finished_at_ms: NOW - ago,
        status: status.to_owned(),
        exc_type: (status == "FAILURE").then(|| "OperationalError".to_owned()),
    }
}

pub fn workers(live: Option<u64>, blocked: Option<u64>) -> Workers {
    let crowd = live.zip(blocked).map(|(live, blocked)| Crowd {
        subscribers: live,
        consumers: live.max(blocked),
        blocked,
        asking: blocked,
        ..Crowd::default()
    });
    Workers {
        crowds: crowd.map(|crowd| [(0, crowd)].into()),
        bound: Vec::new(),
    }
}

pub fn taken(count: u64, oldest: i64, mutex: Hold) -> Unacked {
    Unacked {
        key: b"unacked".to_vec(),
        mutex_key: b"unacked_mutex".to_vec(),
        mutex,
        count,
        index_present: true,
        oldest_delivered_at_ms: Some(NOW - oldest),
        newest_delivered_at_ms: Some(NOW - 10 * S),
        past_timeout: if oldest > H { count / 2 } else { 0 },
        ..Unacked::default()
    }
}

/// freeframe#240: four housekeeping tasks, one origin, nobody reads `default`.
fn unread_default(workers_there: Workers) -> Evidence {
    with(|e| {
        e.queues = vec![queue("emails", 0), queue("default", 1128)];
        e.sightings = ["purge", "expire", "digest", "stats"]
            .map(|task| seen(task, "gen7@beat", "default", 50))
            .to_vec();
        e.workers = workers_there;
    })
}

struct Case {
    what: &'static str,
    evidence: Evidence,
    verdict: Verdict,
    publisher: (State, Certainty, Source),
    /// Words the reason must hold.
    says: &'static [&'static str],
}

const NO_SIGN: (State, Certainty, Source) = (State::Unknown, Certainty::None, Source::None);
const REDBEAT_OPEN: (State, Certainty, Source) = (State::Unknown, Certainty::None, Source::RedBeat);
const REDBEAT_ALIVE: (State, Certainty, Source) =
    (State::Alive, Certainty::Proven, Source::RedBeat);
const REDBEAT_LIKELY: (State, Certainty, Source) =
    (State::Alive, Certainty::Inferred, Source::RedBeat);
const REDBEAT_LATE: (State, Certainty, Source) =
    (State::Late, Certainty::Inferred, Source::RedBeat);
const REDBEAT_SEEMS_SILENT: (State, Certainty, Source) =
    (State::Silent, Certainty::Inferred, Source::RedBeat);
const REDBEAT_SILENT: (State, Certainty, Source) =
    (State::Silent, Certainty::Proven, Source::RedBeat);
const MARKED_ONCE: (State, Certainty, Source) =
    (State::Unknown, Certainty::None, Source::BeatHeader);
const MARKED_ALIVE: (State, Certainty, Source) =
    (State::Alive, Certainty::Proven, Source::BeatHeader);
const EXPECTED_ALIVE: (State, Certainty, Source) =
    (State::Alive, Certainty::Proven, Source::ExpectedTask);
const EXPECTED_LIKELY: (State, Certainty, Source) =
    (State::Alive, Certainty::Inferred, Source::ExpectedTask);

fn check(cases: Vec<Case>) {
    for case in cases {
        let got = judge(&case.evidence, NOW);
        let shown = format!("{}\n  got {got:#?}", case.what);
        assert_eq!(got.verdict, case.verdict, "{shown}");
        let publisher = &got.publisher;
        assert_eq!(
            (publisher.state, publisher.certainty, publisher.source),
            case.publisher,
            "{shown}"
        );
        for word in case.says {
            assert!(got.reason.contains(word), "no {word:?}: {shown}");
        }
    }
}

#[test]
fn no_evidence_is_unknown_and_never_silence() {
    let hourly = || vec![expect("purge", H)];
    check(vec![
        Case {
            what: "an empty server",
            evidence: nothing(),
            verdict: Verdict::Unknown,
            publisher: NO_SIGN,
            says: &["nothing of Celery"],
        },
        Case {
            what: "a server that is known to have no workers either",
            evidence: Evidence {
                workers: workers(Some(0), Some(0)),
                ..nothing()
            },
            verdict: Verdict::Unknown,
            publisher: NO_SIGN,
            says: &["nothing of Celery"],
        },
        Case {
            what: "C7: no schedule at all, though _kombu.* exists",
            evidence: celery(),
            verdict: Verdict::Unknown,
            publisher: NO_SIGN,
            says: &["stock beat stores no key", "hygiene.expected-tasks"],
        },
        Case {
            what: "messages passed without a rhythm, and none of them is left",
            evidence: Evidence {
                heard: Heard {
                    since_ms: Some(NOW - H),
                    lines: vec![Line {
                        task: "shop.order".to_owned(),
                        queue: b"celery".to_vec(),
                        ..Line::default()
                    }],
                    ..Heard::default()
                },
                ..nothing()
            },
            verdict: Verdict::Unknown,
            publisher: NO_SIGN,
            says: &["Celery uses this server", "to show a rhythm"],
        },
        Case {
            what: "expected tasks of which nothing was seen",
            evidence: with(|e| e.expected = hourly()),
            verdict: Verdict::Unknown,
            publisher: NO_SIGN,
            says: &["nothing that beat leaves"],
        },
        Case {
            what: "idle workers and empty queues",
            evidence: with(|e| {
                e.queues = vec![queue("celery", 0)];
                e.workers = workers(Some(2), Some(2));
            }),
            verdict: Verdict::Unknown,
            publisher: NO_SIGN,
            says: &["nothing that beat leaves"],
        },
        Case {
            what: "stale: the newest known result is five intervals old",
            evidence: with(|e| {
                e.expected = hourly();
                e.results = vec![finish("purge", 5 * H, "SUCCESS")];
            }),
            verdict: Verdict::Unknown,
            publisher: NO_SIGN,
            says: &["nothing that beat leaves"],
        },
        Case {
            what: "stale: a marked message published a day ago",
            evidence: with(|e| {
                e.expected = hourly();
                e.sightings = vec![marked("purge", "celery", 1, Some(24 * H))];
            }),
            verdict: Verdict::Unknown,
            publisher: MARKED_ONCE,
            says: &["published 24 h ago", "does not tell whether beat runs now"],
        },
        Case {
            what: "a marked message of unknown age: beat was there, once",
            evidence: with(|e| e.sightings = vec![marked("purge", "celery", 1, None)]),
            verdict: Verdict::Unknown,
            publisher: MARKED_ONCE,
            says: &["marked by beat", "at an unknown time"],
        },
        Case {
            what: "an expected message of unknown age",
            evidence: with(|e| {
                e.expected = hourly();
                e.sightings = vec![seen("purge", "gen7@beat", "celery", 1)];
            }),
            verdict: Verdict::Unknown,
            publisher: (State::Unknown, Certainty::None, Source::ExpectedTask),
            says: &["at an unknown time"],
        },
    ]);
}

#[test]
fn a_recent_message_or_result_shows_a_live_beat_for_what_it_is_worth() {
    check(vec![
        Case {
            what: "marked, published 10 s ago, interval unknown",
            evidence: with(|e| e.sightings = vec![marked("purge", "celery", 1, Some(10 * S))]),
            verdict: Verdict::Healthy,
            publisher: MARKED_ALIVE,
            says: &["beat is alive", "10 s ago"],
        },
        Case {
            what: "marked, interval unknown, older than beat's longest sleep",
            evidence: with(|e| e.sightings = vec![marked("purge", "celery", 1, Some(6 * MIN))]),
            verdict: Verdict::Unknown,
            publisher: MARKED_ONCE,
            says: &["6 min ago"],
        },
        Case {
            what: "marked, 90 min old, but its interval is an hour",
            evidence: with(|e| {
                e.expected = vec![expect("purge", H)];
                e.sightings = vec![marked("purge", "celery", 1, Some(90 * MIN))];
            }),
            verdict: Verdict::Healthy,
            publisher: MARKED_ALIVE,
            says: &["90 min ago"],
        },
        Case {
            what: "taken by a worker and still running",
            evidence: with(|e| {
                let mut sighting = marked("purge", "celery", 1, Some(20 * S));
                sighting.place = Place::Unacked;
                e.sightings = vec![sighting];
                e.unacked = vec![taken(1, 20 * S, Hold::Absent)];
            }),
            verdict: Verdict::Healthy,
            publisher: MARKED_ALIVE,
            says: &["20 s ago"],
        },
        Case {
            what: "not marked, but expected by the operator",
            evidence: with(|e| {
                e.expected = vec![expect("purge", H)];
                let mut sighting = seen("purge", "gen7@beat", "celery", 1);
                sighting.published_at_ms = Some(NOW - MIN);
                e.sightings = vec![sighting];
            }),
            verdict: Verdict::Healthy,
            publisher: EXPECTED_ALIVE,
            says: &["(expected)", "60 s ago"],
        },
        Case {
            what: "a result can be of a backlog, so it is never proof",
            evidence: with(|e| {
                e.expected = vec![expect("purge", H)];
                e.results = vec![finish("purge", 20 * MIN, "SUCCESS")];
            }),
            verdict: Verdict::Healthy,
            publisher: EXPECTED_LIKELY,
            says: &["likely alive", "finished 20 min ago"],
        },
        Case {
            what: "a web process sends an unknown task often: no beat",
            evidence: with(|e| {
                let mut sighting = seen("send_mail", "gen9@web", "celery", 300);
                sighting.published_at_ms = Some(NOW - S);
                e.sightings = vec![sighting];
            }),
            verdict: Verdict::Unknown,
            publisher: NO_SIGN,
            says: &["nothing that beat leaves"],
        },
        Case {
            what: "times in the future prove nothing",
            evidence: with(|e| {
                e.expected = vec![expect("purge", H)];
                e.sightings = vec![marked("purge", "celery", 1, Some(-H))];
                e.results = vec![finish("purge", -2 * H, "FAILURE")];
            }),
            verdict: Verdict::Unknown,
            publisher: MARKED_ONCE,
            says: &["at an unknown time"],
        },
        Case {
            what: "a clock a few seconds ahead is no reason for doubt",
            evidence: with(|e| e.sightings = vec![marked("purge", "celery", 1, Some(-5 * S))]),
            verdict: Verdict::Healthy,
            publisher: MARKED_ALIVE,
            says: &["0 s ago"],
        },
    ]);
}

#[test]
fn redbeat_is_taken_for_what_its_keys_prove() {
    let minutely = || entry("purge", MIN, 30 * S, 30 * S);
    let hourly_idle = || entry("digest", H, 50 * MIN, 10 * MIN);
    let overdue = |by: i64| entry("purge", MIN, by + MIN, -by);
    let mut disabled = entry("old", MIN, 40 * 24 * H, -40 * 24 * H);
    disabled.enabled = false;
    let mut done = entry("once", MIN, 40 * 24 * H, 0);
    done.due_ms = Some(-1);
    let bare = Entry {
        key: b"redbeat:ghost".to_vec(),
        name: "ghost".to_owned(),
        enabled: true,
        due_ms: Some(NOW - 24 * H),
        ..Entry::default()
    };
    let ttl = Hold::Ttl(1_400 * S);
    check(vec![
        Case {
            what: "lock renewed lately, nothing overdue",
            evidence: schedule(ttl, vec![minutely()]),
            verdict: Verdict::Healthy,
            publisher: REDBEAT_ALIVE,
            says: &["beat is alive", "redbeat::lock", "23 min"],
        },
        Case {
            what: "lock and an empty schedule: beat ticks with nothing to do",
            evidence: schedule(ttl, vec![]),
            verdict: Verdict::Healthy,
            publisher: REDBEAT_ALIVE,
            says: &["redbeat::lock"],
        },
        Case {
            what: "C7: a member without its hash is told, beat lives",
            evidence: schedule(ttl, vec![minutely(), bare.clone()]),
            verdict: Verdict::Healthy,
            publisher: REDBEAT_ALIVE,
            says: &["without a definition", "redbeat:ghost"],
        },
        Case {
            what: "C7: a member without its hash alone is no sign of silence",
            evidence: schedule(Hold::Absent, vec![bare]),
            verdict: Verdict::Unknown,
            publisher: REDBEAT_OPEN,
            says: &["does not tell"],
        },
        Case {
            what: "C7: disabled and finished entries are no sign",
            evidence: schedule(ttl, vec![disabled.clone(), done.clone(), minutely()]),
            verdict: Verdict::Healthy,
            publisher: REDBEAT_ALIVE,
            says: &["redbeat::lock"],
        },
        Case {
            what: "C7: disabled and finished entries alone, no lock",
            evidence: schedule(Hold::Absent, vec![disabled.clone(), done.clone()]),
            verdict: Verdict::Unknown,
            publisher: REDBEAT_OPEN,
            says: &["is not there"],
        },
        Case {
            what: "C7: a lock without TTL proves nothing",
            evidence: schedule(Hold::NoTtl, vec![]),
            verdict: Verdict::Unknown,
            publisher: REDBEAT_OPEN,
            says: &["has no TTL and proves nothing"],
        },
        Case {
            what: "C7: a lock without TTL, but an entry ran 30 s ago",
            evidence: schedule(Hold::NoTtl, vec![minutely()]),
            verdict: Verdict::Healthy,
            publisher: REDBEAT_ALIVE,
            says: &["ran an entry 30 s ago", "no TTL"],
        },
        Case {
            what: "C7: a lock without TTL, the hourly entry ran 50 min ago",
            evidence: schedule(Hold::NoTtl, vec![hourly_idle()]),
            verdict: Verdict::Healthy,
            publisher: REDBEAT_LIKELY,
            says: &["likely alive", "50 min ago"],
        },
        Case {
            what: "C7: a lock without TTL and 900 s overdue",
            evidence: schedule(Hold::NoTtl, vec![overdue(15 * MIN)]),
            verdict: Verdict::BeatSilent,
            publisher: REDBEAT_SEEMS_SILENT,
            says: &["seems silent", "purge", "15 min ago", "proves nothing"],
        },
        Case {
            what: "C7: a lock with TTL outlives its beat: 900 s overdue",
            evidence: schedule(Hold::Ttl(600 * S), vec![overdue(15 * MIN)]),
            verdict: Verdict::BeatSilent,
            publisher: REDBEAT_SEEMS_SILENT,
            says: &["seems silent", "due 15 min ago", "outlives a dead beat"],
        },
        Case {
            what: "no lock, and an entry it used to run is an interval and a bit overdue",
            evidence: schedule(Hold::Absent, vec![overdue(70 * S)]),
            verdict: Verdict::BeatSilent,
            publisher: REDBEAT_SEEMS_SILENT,
            says: &["seems silent", "due 70 s ago", "is not there"],
        },
        Case {
            what: "no lock, and an entry it used to run is half an interval overdue",
            evidence: schedule(Hold::Absent, vec![overdue(40 * S)]),
            verdict: Verdict::Healthy,
            publisher: REDBEAT_LATE,
            says: &["mind that RedBeat is late"],
        },
        Case {
            what: "five minutes and a bit: late, not silent",
            evidence: schedule(ttl, vec![overdue(6 * MIN)]),
            verdict: Verdict::Healthy,
            publisher: REDBEAT_LATE,
            says: &["mind that RedBeat is late", "6 min ago"],
        },
        Case {
            what: "within beat's longest sleep nothing is said",
            evidence: schedule(ttl, vec![overdue(290 * S)]),
            verdict: Verdict::Healthy,
            publisher: REDBEAT_ALIVE,
            says: &["beat is alive"],
        },
        Case {
            what: "a lock that lives for five hours betrays an hour's sleep",
            evidence: schedule(Hold::Ttl(5 * H - MIN), vec![overdue(15 * MIN)]),
            verdict: Verdict::Healthy,
            publisher: REDBEAT_ALIVE,
            says: &["beat is alive"],
        },
        Case {
            what: "no lock, nothing overdue: stopped, dead or idle, who knows",
            evidence: schedule(Hold::Absent, vec![hourly_idle()]),
            verdict: Verdict::Unknown,
            publisher: REDBEAT_OPEN,
            says: &["is not there", "does not tell"],
        },
        Case {
            what: "no lock, ran 30 s ago: run without a lock, or just stopped",
            evidence: schedule(Hold::Absent, vec![minutely()]),
            verdict: Verdict::Healthy,
            publisher: REDBEAT_LIKELY,
            says: &["likely alive"],
        },
        Case {
            what: "no lock and overdue by more than a lock lives",
            evidence: schedule(Hold::Absent, vec![overdue(2 * H)]),
            verdict: Verdict::BeatSilent,
            publisher: REDBEAT_SILENT,
            says: &["RedBeat is silent", "due 2 h ago"],
        },
        Case {
            what: "a lock that still lives leaves room for a retuned beat",
            evidence: schedule(Hold::Ttl(600 * S), vec![overdue(2 * H)]),
            verdict: Verdict::BeatSilent,
            publisher: REDBEAT_SEEMS_SILENT,
            says: &["seems silent", "2 h ago"],
        },
        Case {
            what: "another entry ran since: beat lives and leaves this one",
            evidence: schedule(
                ttl,
                vec![overdue(2 * H), entry("tick", MIN, 10 * S, 50 * S)],
            ),
            verdict: Verdict::Unknown,
            publisher: REDBEAT_ALIVE,
            says: &["ran other entries but not purge"],
        },
        Case {
            what: "one entry was left long ago and then the others stopped too",
            evidence: schedule(
                Hold::Absent,
                vec![overdue(240 * H), entry("tick", MIN, 2 * H, MIN - 2 * H)],
            ),
            verdict: Verdict::BeatSilent,
            publisher: REDBEAT_SILENT,
            says: &["entry tick", "119 min ago"],
        },
        Case {
            what: "a schedule left behind when the project went back to stock beat",
            evidence: with(|e| {
                e.redbeat = vec![redbeat(Hold::Absent, vec![overdue(40 * 24 * H)])];
                e.sightings = vec![marked("app.purge", "celery", 1, Some(10 * S))];
            }),
            verdict: Verdict::Unknown,
            publisher: MARKED_ALIVE,
            says: &["another beat runs", "stale"],
        },
        Case {
            what: "a marked message from before the silence does not hide it",
            evidence: with(|e| {
                e.expected = vec![expect("daily", 24 * H)];
                e.redbeat = vec![redbeat(Hold::Absent, vec![overdue(2 * H)])];
                e.sightings = vec![marked("daily", "celery", 1, Some(3 * H))];
            }),
            verdict: Verdict::BeatSilent,
            publisher: REDBEAT_SILENT,
            says: &["RedBeat is silent"],
        },
        Case {
            what: "of two prefixes the dead one is told",
            evidence: with(|e| {
                let mut dead = redbeat(Hold::Absent, vec![overdue(2 * H)]);
                dead.schedule_key = b"b::schedule".to_vec();
                e.redbeat = vec![redbeat(ttl, vec![minutely()]), dead];
            }),
            verdict: Verdict::BeatSilent,
            publisher: REDBEAT_SILENT,
            says: &["2 h ago"],
        },
        Case {
            what: "last run in the future is no proof of life",
            evidence: schedule(Hold::NoTtl, vec![entry("purge", MIN, -H, H)]),
            verdict: Verdict::Unknown,
            publisher: REDBEAT_OPEN,
            says: &["proves nothing"],
        },
    ]);
}

#[test]
fn waiting_work_is_blamed_on_the_link_that_is_broken() {
    let idle = || workers(Some(2), Some(2));
    let maintenance = |length| Queue {
        maintenance: true,
        oldest_message_ms: Some(NOW - 25 * H),
        ..queue("maintenance", length)
    };
    check(vec![
        Case {
            what: "C5: workers wait while `default` is not empty",
            evidence: unread_default(idle()),
            verdict: Verdict::QueueNotConsumed,
            publisher: NO_SIGN,
            says: &[
                "queue default holds 1128 messages",
                "nobody reads it",
                "2 consumers wait",
                "4 tasks",
                "1 origin",
            ],
        },
        Case {
            what: "C5 with beat's marks: it published, when is not known",
            evidence: with(|e| {
                e.queues = vec![queue("default", 1128)];
                e.sightings = vec![marked("purge", "default", 100, None)];
                e.workers = idle();
            }),
            verdict: Verdict::QueueNotConsumed,
            publisher: MARKED_ONCE,
            says: &["default", "marked by beat"],
        },
        Case {
            what: "C5 with no worker at all",
            evidence: unread_default(workers(Some(0), Some(0))),
            verdict: Verdict::WorkersAbsent,
            publisher: NO_SIGN,
            says: &["1128 messages wait in queue default and nobody works"],
        },
        Case {
            what: "no worker, and work in more than one queue",
            evidence: with(|e| {
                e.queues = vec![queue("default", 1128), queue("mail", 2)];
                e.workers = workers(Some(0), Some(0));
            }),
            verdict: Verdict::WorkersAbsent,
            publisher: NO_SIGN,
            says: &["1130 messages wait (1128 of them in queue default) and nobody works"],
        },
        Case {
            what: "busy workers: whether they read it is not known",
            evidence: unread_default(workers(Some(2), Some(1))),
            verdict: Verdict::Unknown,
            publisher: NO_SIGN,
            says: &["nothing that beat leaves"],
        },
        Case {
            what: "busy workers and a pile of one expected task",
            evidence: with(|e| {
                e.expected = vec![expect("purge", H)];
                e.queues = vec![queue("default", 40)];
                e.sightings = vec![seen("purge", "gen7@beat", "default", 40)];
                e.workers = workers(Some(2), Some(0));
            }),
            verdict: Verdict::Unknown,
            publisher: (State::Unknown, Certainty::None, Source::ExpectedTask),
            says: &["default holds 40", "purge", "busy", "not known"],
        },
        Case {
            what: "a few messages and busy workers are daily life",
            evidence: with(|e| {
                e.queues = vec![queue("celery", 3)];
                e.sightings = vec![marked("purge", "celery", 1, Some(S))];
                e.workers = workers(Some(1), Some(0));
            }),
            verdict: Verdict::Healthy,
            publisher: MARKED_ALIVE,
            says: &["beat is alive"],
        },
        Case {
            what: "workers unknown: a pile is told as what it seems",
            evidence: with(|e| {
                e.expected = vec![expect("purge", H)];
                e.queues = vec![maintenance(3)];
                e.sightings = vec![seen("purge", "gen7@beat", "maintenance", 3)];
            }),
            verdict: Verdict::QueueNotConsumed,
            publisher: (State::Unknown, Certainty::None, Source::ExpectedTask),
            says: &[
                "maintenance queue maintenance",
                "it seems",
                "oldest message 25 h",
            ],
        },
        Case {
            what: "workers unknown: two messages are no pile",
            evidence: with(|e| {
                e.expected = vec![expect("purge", H)];
                e.queues = vec![maintenance(2)];
                e.sightings = vec![seen("purge", "gen7@beat", "maintenance", 2)];
            }),
            verdict: Verdict::Unknown,
            publisher: (State::Unknown, Certainty::None, Source::ExpectedTask),
            says: &["at an unknown time"],
        },
        Case {
            what: "maintenance is named before a longer queue",
            evidence: with(|e| {
                e.queues = vec![queue("default", 1128), maintenance(2)];
                e.workers = idle();
            }),
            verdict: Verdict::QueueNotConsumed,
            publisher: NO_SIGN,
            says: &["maintenance queue maintenance holds 2 messages"],
        },
        Case {
            what: "the operator called it maintenance, whatever lies in it",
            evidence: with(|e| {
                e.queues = vec![maintenance(1)];
                e.sightings = vec![seen("send_mail", "gen9@web", "maintenance", 1)];
                e.workers = idle();
            }),
            verdict: Verdict::QueueNotConsumed,
            publisher: NO_SIGN,
            says: &["maintenance queue maintenance holds 1 message "],
        },
        Case {
            what: "unread, and what lies in it could not be looked at",
            evidence: with(|e| {
                e.queues = vec![queue("default", 2)];
                e.workers = idle();
            }),
            verdict: Verdict::QueueNotConsumed,
            publisher: NO_SIGN,
            says: &["queue default holds 2 messages and nobody reads it"],
        },
        Case {
            what: "a list left behind, nothing periodic in it, breaks nothing",
            evidence: with(|e| {
                e.redbeat = vec![redbeat(Hold::Ttl(1_400 * S), vec![])];
                e.queues = vec![queue("old", 2)];
                e.sightings = vec![seen("send_mail", "gen9@web", "old", 2)];
                e.workers = idle();
            }),
            verdict: Verdict::Healthy,
            publisher: REDBEAT_ALIVE,
            says: &["mind that queue old holds 2 messages"],
        },
        Case {
            what: "no worker and nothing to do: not healthy, not broken",
            evidence: with(|e| {
                e.redbeat = vec![redbeat(Hold::Ttl(1_400 * S), vec![])];
                e.workers = workers(Some(0), Some(0));
            }),
            verdict: Verdict::Unknown,
            publisher: REDBEAT_ALIVE,
            says: &["no worker listens", "no work waits"],
        },
        Case {
            what: "RedBeat on a server of its own: its workers are elsewhere",
            evidence: Evidence {
                redbeat: vec![redbeat(Hold::Ttl(1_400 * S), vec![])],
                workers: workers(Some(0), Some(0)),
                ..nothing()
            },
            verdict: Verdict::Healthy,
            publisher: REDBEAT_ALIVE,
            says: &["beat is alive"],
        },
        Case {
            what: "workers of another database do not read this queue",
            evidence: with(|e| {
                e.queues = vec![maintenance(2)];
                e.workers.crowds = workers(Some(1), Some(0))
                    .crowds
                    .map(|crowds| crowds.into_values().map(|crowd| (3, crowd)).collect());
            }),
            verdict: Verdict::QueueNotConsumed,
            publisher: NO_SIGN,
            says: &["connected to other databases than 0"],
        },
        Case {
            what: "busy here, idle on another database: not known",
            evidence: with(|e| {
                e.queues = vec![maintenance(2)];
                let busy = workers(Some(1), Some(0)).crowds;
                let idle = workers(Some(2), Some(2)).crowds;
                let idle = idle.into_iter().flat_map(|c| c.into_values());
                e.workers.crowds =
                    busy.map(|busy| busy.into_iter().chain(idle.map(|c| (3, c))).collect());
            }),
            verdict: Verdict::Unknown,
            publisher: NO_SIGN,
            says: &["nothing that beat leaves"],
        },
        Case {
            what: "a busy consumer without remote control is a worker",
            evidence: with(|e| {
                e.queues = vec![queue("celery", 1)];
                let crowd = Crowd {
                    consumers: 1,
                    ..Crowd::default()
                };
                e.workers.crowds = Some([(0, crowd)].into());
            }),
            verdict: Verdict::Unknown,
            publisher: NO_SIGN,
            says: &["nothing that beat leaves"],
        },
        Case {
            what: "a waiting consumer without remote control is a worker",
            evidence: with(|e| {
                e.queues = vec![queue("celery", 1)];
                e.workers = workers(Some(0), Some(1));
            }),
            verdict: Verdict::Unknown,
            publisher: NO_SIGN,
            says: &["nothing that beat leaves"],
        },
        Case {
            what: "so is whoever took a message ten seconds ago",
            evidence: with(|e| {
                e.queues = vec![queue("celery", 1)];
                e.workers = workers(Some(0), Some(0));
                e.unacked = vec![taken(1, 10 * S, Hold::Absent)];
            }),
            verdict: Verdict::Unknown,
            publisher: NO_SIGN,
            says: &["nothing that beat leaves"],
        },
        Case {
            what: "unknown liveness is no absence",
            evidence: with(|e| {
                e.queues = vec![queue("celery", 5)];
                e.workers = workers(None, Some(0));
            }),
            verdict: Verdict::Unknown,
            publisher: NO_SIGN,
            says: &["nothing that beat leaves"],
        },
        Case {
            what: "an unread queue is mended before a silent beat",
            evidence: with(|e| {
                e.redbeat = vec![redbeat(
                    Hold::Absent,
                    vec![entry("purge", MIN, 3 * H, -2 * H)],
                )];
                e.queues = vec![maintenance(4)];
                e.workers = idle();
            }),
            verdict: Verdict::QueueNotConsumed,
            publisher: REDBEAT_SILENT,
            says: &["maintenance"],
        },
    ]);
}

#[test]
fn taken_messages_are_stuck_only_when_nothing_will_put_them_back() {
    let of = |unacked| with(|e| e.unacked = vec![unacked]);
    check(vec![
        Case {
            what: "C8: the mutex never expires",
            evidence: of(taken(500, 25 * H, Hold::NoTtl)),
            verdict: Verdict::UnackedStuck,
            publisher: NO_SIGN,
            says: &["unacked_mutex has no TTL", "500 messages", "25 h ago"],
        },
        Case {
            what: "old entries, nobody sweeps",
            evidence: of(taken(3, 2 * H, Hold::Absent)),
            verdict: Verdict::UnackedStuck,
            publisher: NO_SIGN,
            says: &["2 h ago", "visibility timeout of 60 min"],
        },
        Case {
            what: "a sweep is due any moment",
            evidence: of(taken(3, H + 100 * S, Hold::Ttl(200 * S))),
            verdict: Verdict::Unknown,
            publisher: NO_SIGN,
            says: &["nothing that beat leaves"],
        },
        Case {
            what: "C8: only entries whose eta lies ahead",
            evidence: of(Unacked {
                oldest_delivered_at_ms: None,
                past_timeout: 0,
                eta_ahead: 4,
                ..taken(4, 25 * H, Hold::Absent)
            }),
            verdict: Verdict::Unknown,
            publisher: NO_SIGN,
            says: &["nothing that beat leaves"],
        },
        Case {
            what: "a delivery in the future is young",
            evidence: of(taken(1, -24 * H, Hold::Absent)),
            verdict: Verdict::Unknown,
            publisher: NO_SIGN,
            says: &["nothing that beat leaves"],
        },
    ]);
}

#[test]
fn a_failing_periodic_task_is_named_with_its_exception() {
    check(vec![
        Case {
            what: "the newest run failed, an older one did not",
            evidence: with(|e| {
                e.expected = vec![expect("purge", H)];
                e.results = vec![
                    finish("purge", 70 * MIN, "SUCCESS"),
                    finish("purge", 10 * MIN, "FAILURE"),
                ];
            }),
            verdict: Verdict::TasksFailing,
            publisher: EXPECTED_LIKELY,
            says: &["purge", "10 min ago", "OperationalError"],
        },
        Case {
            what: "it failed and then recovered",
            evidence: with(|e| {
                e.expected = vec![expect("purge", H)];
                e.results = vec![
                    finish("purge", 10 * MIN, "SUCCESS"),
                    finish("purge", 70 * MIN, "FAILURE"),
                ];
            }),
            verdict: Verdict::Healthy,
            publisher: EXPECTED_LIKELY,
            says: &["likely alive"],
        },
        Case {
            what: "a failure from many intervals ago says nothing about now",
            evidence: with(|e| {
                e.expected = vec![expect("purge", H)];
                e.results = vec![finish("purge", 9 * H, "FAILURE")];
            }),
            verdict: Verdict::Unknown,
            publisher: NO_SIGN,
            says: &["nothing that beat leaves"],
        },
        Case {
            what: "a task that is not periodic may fail",
            evidence: with(|e| e.results = vec![finish("send_mail", MIN, "FAILURE")]),
            verdict: Verdict::Unknown,
            publisher: NO_SIGN,
            says: &["nothing that beat leaves"],
        },
    ]);
}

#[test]
fn the_extremes_of_time_and_count_are_survived() {
    for extreme in [i64::MIN, -1, 0, 1, i64::MAX] {
        let evidence = with(|e| {
            e.visibility_timeout_ms = extreme;
            e.expected = vec![expect("purge", extreme)];
            let mut odd = entry("purge", extreme, 0, 0);
            odd.due_ms = Some(extreme);
            odd.last_run_at_ms = Some(extreme);
            e.redbeat = [Hold::Absent, Hold::NoTtl, Hold::Ttl(extreme)]
                .map(|lock| redbeat(lock, vec![odd.clone()]))
                .to_vec();
            let mut sighting = marked("purge", "celery", u64::MAX, None);
            sighting.published_at_ms = Some(extreme);
            let mut other = sighting.clone();
            other.origin = "gen8@beat".to_owned();
            e.sightings = vec![sighting, other];
            e.queues = vec![queue("celery", u64::MAX), queue("b", u64::MAX)];
            e.workers = workers(Some(u64::MAX), Some(u64::MAX));
            e.results = vec![Finish {
                finished_at_ms: extreme,
                ..finish("purge", 0, "FAILURE")
            }];
            e.unacked = vec![
                Unacked {
                    oldest_delivered_at_ms: Some(extreme),
                    newest_delivered_at_ms: Some(extreme),
                    past_timeout: u64::MAX,
                    ..taken(u64::MAX, 0, Hold::Ttl(extreme))
                };
                2
            ];
        });
        for now in [i64::MIN, 0, NOW, i64::MAX] {
            let got = judge(&evidence, now);
            assert!(!got.reason.is_empty(), "{extreme} at {now}");
            assert!(matches!(
                reply(&got, true),
                crate::core::reply::Reply::Map(_)
            ));
        }
    }
}

#[test]
fn every_fault_is_kept_worst_first() {
    let mut evidence = unread_default(workers(Some(2), Some(2)));
    evidence.expected = vec![expect("purge", H)];
    evidence.results = vec![finish("purge", MIN, "FAILURE")];
    evidence.unacked = vec![Unacked {
        duplicates: 2,
        ..taken(500, 25 * H, Hold::NoTtl)
    }];
    evidence.redbeat = vec![redbeat(
        Hold::NoTtl,
        vec![entry("tick", MIN, 3 * H, -2 * H)],
    )];
    evidence
        .sightings
        .push(marked("tick", "emails", 1, Some(-H)));
    let codes: Vec<Code> = judge(&evidence, NOW)
        .findings
        .iter()
        .map(|f| f.code)
        .collect();
    assert_eq!(
        codes,
        [
            Code::QueueNotConsumed,
            Code::UnackedStuck,
            Code::BeatSilent,
            Code::TasksFailing,
            Code::LockWithoutTtl,
            Code::DuplicateDeliveries,
            Code::ClockSkew,
        ]
    );
}

#[test]
fn two_origins_of_one_task_are_told_but_not_judged() {
    let mut second = marked("purge", "celery", 1, Some(40 * S));
    second.origin = "gen9@other".to_owned();
    let evidence = with(|e| {
        e.expected = vec![expect("purge", H)];
        e.sightings = vec![marked("purge", "celery", 1, Some(10 * S)), second];
    });
    let got = judge(&evidence, NOW);
    assert_eq!(got.verdict, Verdict::Healthy);
    assert_eq!(got.publisher.origins, ["gen7@beat", "gen9@other"]);
    assert!(
        got.evidence
            .iter()
            .any(|line| line.contains("two beats, or one restarted")),
        "{:#?}",
        got.evidence
    );
}

#[test]
fn last_seen_is_the_latest_moment_that_something_proves() {
    for (what, evidence, seen) in [
        ("nothing", celery(), None),
        (
            "a lock: at the latest its time-out ago",
            schedule(Hold::Ttl(1_400 * S), vec![]),
            Some(NOW - 100 * S),
        ),
        (
            "a lock and a later run",
            schedule(Hold::Ttl(20 * S), vec![entry("purge", MIN, 30 * S, 30 * S)]),
            Some(NOW - 30 * S),
        ),
        (
            "a lock longer than the default",
            schedule(Hold::Ttl(i64::MAX), vec![]),
            Some(NOW),
        ),
        (
            "a message in the queue",
            with(|e| e.sightings = vec![marked("purge", "celery", 1, Some(24 * H))]),
            Some(NOW - 24 * H),
        ),
    ] {
        assert_eq!(judge(&evidence, NOW).publisher.last_seen_ms, seen, "{what}");
    }
}

#[test]
fn a_task_is_overdue_only_where_a_due_time_says_so() {
    let evidence = with(|e| {
        e.expected = vec![expect("stale", H), expect("fresh", H), expect("never", H)];
        e.results = vec![
            finish("stale", 9 * H, "SUCCESS"),
            finish("fresh", 10 * MIN, "SUCCESS"),
        ];
        e.redbeat = vec![redbeat(
            Hold::Ttl(1_400 * S),
            vec![
                entry("late", MIN, 20 * MIN, -15 * MIN),
                entry("fine", MIN, 30 * S, 30 * S),
            ],
        )];
    });
    let got: Vec<(String, Option<bool>)> = judge(&evidence, NOW)
        .tasks
        .into_iter()
        .map(|t| (t.name, t.overdue))
        .collect();
    let want = [
        ("app.late", Some(true)),
        ("app.fine", Some(false)),
        ("fresh", Some(false)),
        ("never", None),
        ("stale", None),
    ];
    assert_eq!(got, want.map(|(name, overdue)| (name.to_owned(), overdue)));
}

/// As much as a look takes in. `of` makes the voices of the task of that number.
fn at_the_bounds(of: impl Fn(usize) -> Vec<Voice>) -> Evidence {
    let names = |stem: &'static str, count: usize| (0..count).map(move |n| format!("{stem}{n}"));
    with(|e| {
        e.queues = names("queue", 500).map(|name| queue(&name, 1)).collect();
        e.sightings = names("queue", 500)
            .map(|name| marked(&format!("app.{name}"), &name, 1, Some(S)))
            .collect();
        let entries = names("entry", 300).map(|name| entry(&name, MIN, 10 * MIN, -9 * MIN));
        e.redbeat = vec![redbeat(Hold::Absent, entries.collect())];
        e.expected = names("app.expected", 200)
            .map(|task| expect(&task, MIN))
            .collect();
        e.results = names("app.result", 1_000)
            .map(|task| Finish {
                task,
                finished_at_ms: NOW - S,
                status: "FAILURE".to_owned(),
                exc_type: None,
            })
            .collect();
        e.heard.since_ms = Some(NOW - H);
        e.heard.flows = names("queue", 1_000)
            .map(|name| Movement {
                queue: name.into(),
                ..Movement::default()
            })
            .collect();
        let lines = names("queue", 1_000).enumerate().map(|(n, name)| {
            let voices = of(n);
            Line {
                task: format!("app.{name}"),
                queue: name.into(),
                whole: voices[0].clone(),
                voices,
                crowd: 9,
                ..Line::default()
            }
        });
        e.heard.lines = lines.collect();
    })
}

/// One that came each minute until so long ago.
pub fn voice(origin: String, ago: i64) -> Voice {
    Voice {
        origin,
        known_ms: NOW - H,
        first_ms: NOW - H,
        last_ms: NOW - ago,
        count: 50,
        times_ms: (0..16).map(|n| NOW - ago - (15 - n) * MIN).collect(),
        rhythm: Some(Rhythm {
            interval_ms: MIN,
            longest_ms: MIN,
            gaps: 15,
            alike: 15,
            even: true,
            clock: false,
        }),
        ..Voice::default()
    }
}

/// A search through all of the others for each of many took half a second here.
#[test]
fn a_verdict_on_as_much_as_a_look_takes_in_is_no_long_piece_of_work() {
    let marked = |voice: Voice| Voice {
        marked: true,
        ..voice
    };
    let each_his_own = |n| {
        let voices = (0..8).map(|of| marked(voice(format!("gen{of}@host{n}"), 10 * MIN)));
        voices.collect::<Vec<_>>()
    };
    let in_a_row = |n: usize| {
        let ago = i64::try_from(n).expect("small");
        vec![Voice {
            first_ms: NOW - ago - 1,
            times_ms: Vec::new(),
            ..marked(voice(format!("gen1@host{n}"), ago))
        }]
    };
    let a_fleet = |n: usize| {
        let voices = (0..8).map(|of| voice(format!("gen{of}@web{}", n % 25), S));
        voices.collect::<Vec<_>>()
    };
    for (what, evidence) in [
        ("each its own beats", at_the_bounds(each_his_own)),
        ("one after the other", at_the_bounds(in_a_row)),
        ("a fleet that sends all of it", at_the_bounds(a_fleet)),
    ] {
        // The quickest of some: the machine may have been busy with others.
        let took = (0..5).map(|_| {
            let begun = std::time::Instant::now();
            assert!(!judge(&evidence, NOW).findings.is_empty());
            begun.elapsed()
        });
        let took = took.min().expect("five of them");
        assert!(took.as_millis() < 250, "{what}: {took:?}");
    }
}
