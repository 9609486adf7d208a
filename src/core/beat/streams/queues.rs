//! Queues whose messages are taken, and are not.

use super::*;

fn flow(since_in: i64, since_out: Option<i64>, waits: Option<i64>) -> Movement {
    Movement {
        db: 0,
        queue: b"celery".to_vec(),
        since_ms: NOW - 10 * H,
        per_minute: Some((12, 3)),
        last_in_ms: Some(NOW - since_in),
        last_out_ms: since_out.map(|ago| NOW - ago),
        waiting_since_ms: waits.map(|ago| NOW - ago),
        lowest: None,
    }
}

/// A worker that has taken nothing for a while, and whether its heart beats.
fn at_work(beating: u64) -> Workers {
    let crowd = Crowd {
        hearts: 1,
        beating,
        ..workers(Some(1), Some(0)).on(0).unwrap()
    };
    Workers {
        crowds: Some([(0, crowd)].into()),
        ..Workers::default()
    }
}

/// A worker whose poll just ended.
fn between_polls() -> Workers {
    let crowd = Crowd {
        asking: 1,
        blocked: 0,
        ..workers(Some(1), Some(1)).on(0).unwrap()
    };
    Workers {
        crowds: Some([(0, crowd)].into()),
        ..Workers::default()
    }
}

#[test]
fn what_moves_says_whether_a_queue_is_read() {
    let pile = |e: &mut Evidence| {
        e.expected = vec![expect("purge", 10 * S)];
        e.sightings = vec![Sighting {
            task: "purge".to_owned(),
            queue: b"celery".to_vec(),
            count: 30,
            ..Sighting::default()
        }];
    };
    for (what, length, moved, there, consumed, verdict) in [
        (
            "popped at once",
            0,
            flow(5 * S, Some(5 * S), None),
            workers(Some(1), Some(1)),
            Some(true),
            Verdict::Unknown,
        ),
        (
            "busy, but popped lately",
            9,
            flow(S, Some(20 * S), Some(19 * S)),
            workers(Some(1), Some(0)),
            Some(true),
            Verdict::Unknown,
        ),
        (
            "connections unknown, popped lately",
            9,
            flow(S, Some(20 * S), Some(19 * S)),
            workers(None, None),
            Some(true),
            Verdict::Unknown,
        ),
        (
            "all wait and it is not taken",
            9,
            flow(S, Some(20 * S), Some(19 * S)),
            workers(Some(1), Some(1)),
            Some(false),
            Verdict::QueueNotConsumed,
        ),
        (
            "not taken, seen between two polls",
            9,
            flow(S, None, Some(6 * S)),
            between_polls(),
            Some(false),
            Verdict::QueueNotConsumed,
        ),
        (
            "not taken, seen between two polls, while others are: too early to tell",
            9,
            flow(S, Some(S), Some(6 * S)),
            between_polls(),
            Some(true),
            Verdict::Unknown,
        ),
        (
            "came a moment ago, seen between two polls",
            9,
            flow(S, None, Some(S)),
            between_polls(),
            None,
            Verdict::Unknown,
        ),
        (
            "came a moment ago, though all wait",
            9,
            flow(S, None, Some(S)),
            workers(Some(1), Some(1)),
            None,
            Verdict::Unknown,
        ),
        (
            "everybody gone",
            9,
            flow(S, Some(20 * S), Some(19 * S)),
            workers(Some(0), Some(0)),
            Some(false),
            Verdict::WorkersAbsent,
        ),
        (
            "nobody shows, but somebody pops",
            9,
            flow(S, Some(2 * S), None),
            workers(Some(0), Some(0)),
            Some(true),
            Verdict::Unknown,
        ),
        (
            "busy, and nothing was popped for a minute and a bit",
            30,
            flow(S, None, Some(70 * S)),
            workers(Some(1), Some(0)),
            Some(false),
            Verdict::QueueNotConsumed,
        ),
        (
            "no heart beats, and nothing was popped for a while",
            30,
            flow(S, Some(23 * S), Some(21 * S)),
            at_work(0),
            Some(false),
            Verdict::QueueNotConsumed,
        ),
        (
            "no heart beats, and nothing was popped, not for long",
            30,
            flow(S, Some(21 * S), Some(19 * S)),
            at_work(0),
            Some(true),
            Verdict::Unknown,
        ),
        (
            "its heart beats: it is busy",
            30,
            flow(S, Some(42 * S), Some(40 * S)),
            at_work(1),
            Some(true),
            Verdict::Unknown,
        ),
        (
            "its heart beats, and nothing was popped for a minute and a bit",
            30,
            flow(S, Some(72 * S), Some(70 * S)),
            at_work(1),
            Some(false),
            Verdict::QueueNotConsumed,
        ),
        (
            "busy, and nothing was popped for a while",
            30,
            flow(S, None, Some(40 * S)),
            workers(Some(1), Some(0)),
            None,
            Verdict::Unknown,
        ),
    ] {
        let evidence = watched(|e| {
            pile(e);
            e.queues = vec![queue("celery", length)];
            e.heard.flows = vec![moved];
            e.workers = there;
        });
        let told = judge(&evidence, NOW);
        assert_eq!(told.queues[0].consumed, consumed, "{what}: {}", told.reason);
        assert_eq!(told.verdict, verdict, "{what}: {}", told.reason);
        assert_eq!(told.queues[0].in_per_min, Some(12), "{what}");
        assert_eq!(told.queues[0].out_per_min, Some(3), "{what}");
    }
    // Messages that were taken, and nothing since.
    let frozen = watched(|e| {
        pile(e);
        e.queues = vec![queue("celery", 30)];
        e.heard.flows = vec![flow(S, Some(80 * S), Some(70 * S))];
        e.workers = workers(Some(1), Some(0));
        e.unacked = vec![taken(4, 80 * S, Hold::Absent)];
    });
    let told = judge(&frozen, NOW);
    assert_eq!(told.verdict, Verdict::UnackedStuck, "{}", told.reason);
    assert!(told.reason.contains("frozen"), "{}", told.reason);
}

#[test]
fn a_frozen_worker_turns_healthy_into_its_fault_with_nothing_in_between() {
    for (every, hearts, within) in [
        (2 * S, true, 25 * S),
        (2 * S, false, 65 * S),
        (7 * S, true, 35 * S),
        (MIN, true, 4 * MIN),
        (MIN, false, 12 * MIN),
        (10 * MIN, true, 40 * MIN),
        (10 * MIN, false, 70 * MIN),
    ] {
        let what = format!("every {every} ms, hearts known {hearts}");
        let froze = T0 + 30 * every + every / 2;
        let end = froze + within + 10 * every;
        let mut server = Server::new(vec![even("purge", "gen7@beat", T0, end, every)]);
        let (mut said, mut waiting) = (Vec::new(), 0);
        while server.now < end {
            let before = server.sent;
            let next = server.now + S / 2;
            server.until(next);
            let came = server.sent - before;
            // It waited in BRPOP as it froze, which takes one message more.
            if came > 0 && (waiting == 0 && server.now < froze + every) {
                server.traffic.popped(server.now, 0, b"celery");
            } else {
                waiting += came;
            }
            if server.now < T0 + 20 * every {
                continue;
            }
            let mut evidence = server.evidence();
            evidence.queues = vec![queue("celery", waiting)];
            if waiting > 0 {
                evidence.sightings = vec![Sighting {
                    task: "purge".to_owned(),
                    queue: b"celery".to_vec(),
                    count: waiting.min(50),
                    ..Sighting::default()
                }];
            }
            let still_ms = server.now - froze;
            evidence.workers = match still_ms {
                ..=1_000 => workers(Some(1), Some(1)),
                _ if hearts => at_work(u64::from(still_ms <= 10 * S)),
                _ => workers(Some(1), Some(0)),
            };
            let told = judge(&evidence, server.now);
            if said
                .last()
                .is_none_or(|(_, verdict)| *verdict != told.verdict)
            {
                said.push((still_ms, told.verdict));
            }
            assert_eq!(told.publisher.state, State::Alive, "{what}");
            if told.verdict == Verdict::QueueNotConsumed {
                let ping = "inspect ping";
                assert!(told.next[0].command.contains(ping), "{what}: {told:?}");
                assert!(told.findings[0].advice.contains(ping), "{what}: {told:?}");
            }
        }
        let verdicts: Vec<Verdict> = said.iter().map(|(_, verdict)| *verdict).collect();
        assert_eq!(
            verdicts,
            [Verdict::Healthy, Verdict::QueueNotConsumed],
            "{what}: {said:?}"
        );
        assert!(said[1].0 <= within, "{what}: {said:?}");
    }
}
