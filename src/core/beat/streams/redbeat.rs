//! RedBeats that tick, and stop.

use super::*;

#[test]
fn what_redbeat_ran_is_proof_without_a_mark() {
    let end = T0 + 20 * MIN;
    let ran = |at: i64, clock: i64| {
        let mut entry = entry("purge", MIN, 0, 0);
        entry.task = "purge".to_owned();
        entry.last_run_at_ms = Some(at + clock);
        entry.due_ms = Some(at + MIN);
        entry
    };
    for (what, clock, certainty) in [
        ("its run and the message agree", 30, Certainty::Proven),
        ("they do not", -9 * S, Certainty::Inferred),
    ] {
        let beat = even("purge", "gen7@beat", T0, end, MIN);
        let last = beat.last().unwrap().at;
        let mut server = Server::new(vec![beat]);
        server.until(end);
        let mut evidence = server.evidence();
        let run = ran(last, clock);
        evidence.redbeat = vec![redbeat(Hold::NoTtl, vec![run])];
        let told = beats::beats(&evidence, end);
        assert_eq!(told[0].certainty, certainty, "{what}");
    }
    // One that keeps dying, unmarked.
    let mut streams = vec![even("purge", "gen1@old", T0, T0 + 5 * MIN, 10 * S)];
    for n in 0..6 {
        let from = T0 + 5 * MIN + n * 40 * S;
        let origin = format!("gen{n}@new");
        streams.push(even("purge", &origin, from, from + 25 * S, 10 * S));
    }
    let mut server = Server::new(streams);
    let last = T0 + 5 * MIN + 4 * 40 * S + 10 * S;
    let now = last + 5 * S;
    server.until(now);
    let mut evidence = server.evidence();
    let mut run = ran(last, 100);
    run.interval_ms = Some(10 * S);
    evidence.redbeat = vec![redbeat(Hold::Ttl(1_490 * S), vec![run])];
    evidence.heard.ticks = vec![Tick {
        last_ms: now - S,
        ..tick(0, 1_500 * S)
    }];
    let told = judge(&evidence, now);
    let publisher = told.publisher;
    assert_eq!(told.verdict, Verdict::BeatFlapping, "{}", told.reason);
    assert_eq!(publisher.certainty, Certainty::Proven, "{}", told.reason);
}

fn tick(ago: i64, timeout: i64) -> Tick {
    Tick {
        db: 0,
        lock_key: b"redbeat::lock".to_vec(),
        timeout_ms: timeout,
        last_ms: NOW - ago,
    }
}

#[test]
fn redbeat_is_heard_to_stop_before_its_lock_runs_out() {
    let overdue = |by: i64| vec![entry("purge", MIN, by + MIN, -by)];
    for (what, lock, entries, ticked, state, certainty) in [
        (
            "ticks, nothing due",
            Hold::Ttl(1_490 * S),
            vec![entry("purge", MIN, 30 * S, 30 * S)],
            tick(10 * S, 1_500 * S),
            State::Alive,
            Certainty::Proven,
        ),
        (
            "an interval and a bit overdue, and no tick since it fell due",
            Hold::Ttl(1_370 * S),
            overdue(70 * S),
            tick(130 * S, 1_500 * S),
            State::Silent,
            Certainty::Proven,
        ),
        (
            "overdue as long, but it never ran the entry and may not know it",
            Hold::Ttl(1_370 * S),
            vec![Entry {
                last_run_at_ms: None,
                ..entry("purge", MIN, 0, -11 * MIN)
            }],
            tick(12 * MIN, 1_500 * S),
            State::Silent,
            Certainty::Inferred,
        ),
        (
            "half an interval overdue, and no tick since: late, which is no fault",
            Hold::Ttl(1_370 * S),
            overdue(40 * S),
            tick(100 * S, 1_500 * S),
            State::Late,
            Certainty::Inferred,
        ),
        (
            "overdue, but it ticks",
            Hold::Ttl(1_498 * S),
            overdue(70 * S),
            tick(2 * S, 1_500 * S),
            State::Alive,
            Certainty::Proven,
        ),
        (
            "no lock left, which used to live for 25 s",
            Hold::Absent,
            vec![entry("digest", H, 10 * MIN, 50 * MIN)],
            tick(2 * MIN, 25 * S),
            State::Silent,
            Certainty::Proven,
        ),
        (
            "no lock, renewed a moment ago: it may be restarting",
            Hold::Absent,
            vec![entry("digest", H, 10 * MIN, 50 * MIN)],
            tick(20 * S, 25 * S),
            State::Unknown,
            Certainty::None,
        ),
        (
            "nothing due, not renewed for more than two of its longest sleeps",
            Hold::Ttl(800 * S),
            vec![entry("digest", 10 * H, H, 9 * H)],
            tick(700 * S, 1_500 * S),
            State::Silent,
            Certainty::Inferred,
        ),
        (
            "renewals are heard no more, its TTL shows them",
            Hold::Ttl(1_490 * S),
            vec![entry("digest", 10 * H, H, 9 * H)],
            tick(700 * S, 1_500 * S),
            State::Alive,
            Certainty::Proven,
        ),
    ] {
        let evidence = watched(|e| {
            e.redbeat = vec![redbeat(lock, entries)];
            e.heard.ticks = vec![ticked];
        });
        let told = judge(&evidence, NOW);
        let publisher = &told.publisher;
        let got = (publisher.state, publisher.certainty);
        assert_eq!(got, (state, certainty), "{what}: {}", told.reason);
    }
}
