//! Beats that live, die, start again and run twice.

use super::*;

const LIKELY: (State, Certainty) = (State::Alive, Certainty::Inferred);

const PROVEN: (State, Certainty) = (State::Alive, Certainty::Proven);

#[test]
fn a_living_beat_is_never_told_dead_and_a_dead_one_within_two_intervals() {
    for every in [2 * S, 10 * S, MIN, 10 * MIN, H, 6 * H] {
        for sort in ["rhythm", "mark", "expected"] {
            let what = format!("{sort} every {every} ms");
            let end = T0 + 20 * every;
            let mut beat = even("purge", "gen7@beat", T0, end, every);
            let last = beat.last().unwrap().at;
            if sort == "mark" {
                beat = marked(beat);
            }
            let mut server = Server::new(vec![beat]);
            if sort == "expected" {
                server.expected = vec![expect("purge", every)];
            }
            let early = server.states(T0 + 4 * every, every / 4);
            assert!(!early.contains(&State::Silent), "{what}: {early:?}");
            server.until(T0 + 10 * every);
            // Nothing is late while the next is not due and some more.
            let states = server.states(last, (every / 7).max(1));
            assert_eq!(states, [State::Alive], "{what}");
            let alive = if sort == "rhythm" { LIKELY } else { PROVEN };
            assert_eq!(server.beat(), alive, "{what}");
            assert_eq!(server.told().verdict, Verdict::Healthy, "{what}");
            assert_eq!(server.told().publisher.origins, ["gen7@beat"], "{what}");

            let told = server
                .first(State::Silent, last + 5 * every + H, S / 2)
                .unwrap();
            let late = told - last;
            // The pace was learnt through jitter, which may add or take some.
            let slack = (every / 20).min(S);
            assert!(
                late > 2 * every + 5 * S - 2 * slack,
                "{what}: after {late} ms"
            );
            assert!(
                late <= 2 * every + 5 * S + S / 2 + 2 * slack,
                "{what}: after {late} ms"
            );
            let told = server.told();
            assert_eq!(told.verdict, Verdict::BeatSilent, "{what}");
            assert_eq!(told.tasks[0].overdue, Some(true), "{what}");
            let sure = told.publisher.certainty == Certainty::Proven;
            assert_eq!(sure, sort != "rhythm", "{what}");
            assert_eq!(
                told.reason.contains("likely"),
                sort == "rhythm",
                "{}",
                told.reason
            );
        }
    }
}

#[test]
fn a_late_beat_is_a_remark_until_it_is_silent_and_too_little_known_is_neither() {
    for (what, known, states, verdicts) in [
        (
            "paced",
            20,
            vec![State::Alive, State::Late, State::Silent],
            vec![Verdict::Healthy, Verdict::BeatSilent],
        ),
        (
            "two gaps",
            2,
            vec![State::Alive, State::Late, State::Unknown],
            vec![Verdict::Healthy, Verdict::Unknown],
        ),
    ] {
        let end = T0 + known * MIN + 1;
        let mut server = Server::new(vec![marked(even("purge", "gen7@beat", T0, end, MIN))]);
        server.until(end);
        let (mut seen, mut said) = (Vec::new(), Vec::new());
        while server.now < end + 10 * MIN {
            let told = server.told();
            let late = told.publisher.state == State::Late;
            assert_eq!(
                late,
                told.reason.contains("mind that beat is late"),
                "{what}"
            );
            let finding = told.findings.iter().find(|f| f.code == Code::BeatLate);
            assert_eq!(late, finding.is_some(), "{what}");
            seen.push(told.publisher.state);
            said.push(told.verdict);
            let next = server.now + S;
            server.until(next);
        }
        seen.dedup();
        said.dedup();
        assert_eq!((seen, said), (states, verdicts), "{what}");
    }
}

#[test]
fn a_beat_started_again_with_a_longer_interval_is_not_told_silent_after_its_second_message() {
    for (before, after) in [(2 * S, 20 * S), (10 * S, 2 * MIN), (MIN, H)] {
        for mark in [false, true] {
            let what = format!("{before} ms, then {after} ms, marked {mark}");
            let stops = T0 + 40 * before;
            // At no moment at which a minute begins.
            let begins = stops + before / 2 + 9 * S;
            let died = begins + 20 * after;
            let mut streams = vec![
                even("purge", "gen7@beat", T0, stops, before),
                even("purge", "gen8@beat", begins, died, after),
                even("other", "gen8@beat", begins + after / 3, died, after * 2),
            ];
            if mark {
                streams = streams.into_iter().map(marked).collect();
            }
            let last = streams[1].last().unwrap().at;
            let mut server = Server::new(streams);
            server.until(begins + after + S);
            let states = server.states(last, (after / 9).max(S));
            assert!(!states.contains(&State::Silent), "{what}: {states:?}");
            let told = server.first(State::Silent, last + 5 * after, S);
            let late = told.map(|told| told - last);
            let within = 2 * after + 7 * S;
            assert!(late.is_some_and(|late| late <= within), "{what}: {late:?}");
        }
    }
}

#[test]
fn the_fastest_task_of_a_beat_tells_its_death_and_a_task_it_drops_does_not() {
    let end = T0 + 10 * H;
    let fast = |end| even("tick", "gen7@beat", T0, end, MIN);
    let slow = |end| even("digest", "gen7@beat", T0 + 5 * S, end, H);
    let mut server = Server::new(vec![fast(end), slow(end)]);
    server.until(end);
    let told = server.first(State::Silent, end + H, S).unwrap();
    assert!(told - end <= 125 * S + S, "{}", told - end);

    // `tick` is dropped; the next `digest` shows that beat lives.
    let mut server = Server::new(vec![fast(end), slow(end + 20 * H)]);
    server.until(end + H + 10 * S);
    let states = server.states(end + 19 * H, 5 * MIN);
    assert_eq!(states, [State::Alive]);
    let told = server.told();
    assert_eq!(told.verdict, Verdict::Healthy, "{}", told.reason);
    assert_eq!(told.tasks[0].name, "tick");
    assert_eq!(told.tasks[0].overdue, Some(true));
    assert_eq!(told.tasks[1].overdue, Some(false));
    assert!(told.findings.iter().any(|f| f.code == Code::TaskOverdue));
    // Nor is that forgotten with a restart of the server.
    server.restart(end + 19 * H + 10 * MIN);
    assert!(
        !server
            .states(end + 19 * H + 59 * MIN, MIN)
            .contains(&State::Silent)
    );
    // What the operator expects is not forgiven.
    server.expected = vec![expect("tick", MIN)];
    server.until(end + 19 * H + 59 * MIN);
    let told = server.told();
    assert_eq!(told.verdict, Verdict::Unknown, "{}", told.reason);
    assert!(
        told.reason.contains("does not send tick"),
        "{}",
        told.reason
    );
}

#[test]
fn a_restart_is_no_duplicate_no_flapping_and_no_silence() {
    for mark in [false, true] {
        // Down for a while, back with an extra publish, or rolled over.
        for (what, begins) in [
            ("down for 40 s", 40 * S),
            ("extra publish at once", 3 * S),
            ("a rolling update", -30 * S),
        ] {
            let turn = T0 + 20 * MIN;
            let mut streams = vec![
                even("purge", "gen7@beat-a", T0, turn, MIN),
                even("purge", "gen7@beat-b", turn + begins, turn + 60 * MIN, MIN),
            ];
            if begins == 3 * S {
                streams.push(vec![push(turn + 2 * S, "purge", "gen7@beat-b")]);
            }
            if mark {
                streams = streams.into_iter().map(marked).collect();
            }
            let mut server = Server::new(streams);
            server.until(T0 + 10 * MIN);
            let states = server.states(turn + 59 * MIN, S);
            let fine = states
                .iter()
                .all(|s| matches!(s, State::Alive | State::Late));
            assert!(fine, "{what}, marked {mark}: {states:?}");
            assert_eq!(
                (server.told().tasks[0].interval_ms.unwrap() + 500) / S,
                60,
                "{what}"
            );
            assert_eq!(server.told().publisher.origins, ["gen7@beat-b"], "{what}");
        }
    }
}

#[test]
fn two_beats_are_told_and_forgotten_when_one_is_stopped() {
    for mark in [false, true] {
        let end = T0 + 40 * MIN;
        let mut streams = vec![
            even("purge", "gen7@beat-a", T0, end + 40 * MIN, MIN),
            even("purge", "gen7@beat-b", T0 + 10 * MIN + 20 * S, end, MIN),
        ];
        if mark {
            streams = streams.into_iter().map(marked).collect();
        }
        let mut server = Server::new(streams);
        assert!(!server.states(T0 + 11 * MIN, S).contains(&State::Duplicate));
        let told = server.first(State::Duplicate, end, S).unwrap() - (T0 + 10 * MIN);
        assert!(told <= 8 * MIN, "{told}");
        let states = server.states(end, 7 * S);
        assert_eq!(states, [State::Duplicate]);
        let told = server.told();
        assert_eq!(told.verdict, Verdict::BeatDuplicate);
        assert_eq!(told.reason.contains("likely"), !mark, "{}", told.reason);
        assert!(told.reason.contains("gen7@beat-a") && told.reason.contains("gen7@beat-b"));
        let mut origins = told.publisher.origins;
        origins.sort();
        assert_eq!(origins, ["gen7@beat-a", "gen7@beat-b"]);
        server.until(end + 5 * MIN);
        assert_eq!(server.states(end + 30 * MIN, 7 * S), [State::Alive]);
    }
}

#[test]
fn two_entries_of_one_task_or_two_projects_are_no_duplicate() {
    // Entries of one origin.
    let mut server = Server::new(vec![
        marked(even("purge", "gen7@beat", T0, T0 + H, MIN)),
        marked(even("purge", "gen7@beat", T0 + 20 * S, T0 + H, MIN)),
    ]);
    server.until(T0 + 10 * MIN);
    assert_eq!(server.states(T0 + H, S), [State::Alive]);
    // The same task in the queues of production and staging.
    let mut staging = marked(even("purge", "gen7@staging", T0 + 20 * S, T0 + H, MIN));
    staging.iter_mut().for_each(|push| push.queue = "staging");
    let mut server = Server::new(vec![
        marked(even("purge", "gen7@beat", T0, T0 + H, MIN)),
        staging,
    ]);
    server.until(T0 + 10 * MIN);
    assert_eq!(server.states(T0 + H, S), [State::Alive]);
    // Of the two the dead one is told.
    let mut server = Server::new(vec![
        marked(even("purge", "gen7@beat", T0, T0 + H, MIN)),
        marked(even("tidy", "gen7@staging", T0 + 20 * S, T0 + 2 * H, MIN)),
    ]);
    server.until(T0 + H + 3 * MIN);
    let told = server.told();
    assert_eq!(told.verdict, Verdict::BeatSilent);
    assert!(told.reason.contains("purge"), "{}", told.reason);
}

#[test]
fn a_beat_that_keeps_dying_is_flapping_until_it_lives() {
    for mark in [false, true] {
        let mut streams = vec![even("tick", "gen1@old", T0, T0 + 30 * MIN, 10 * S)];
        streams.push(even("daily", "gen1@old", T0 + S, T0 + S + 1, DAY));
        for n in 0..12 {
            let from = T0 + 30 * MIN + n * 50 * S;
            streams.push(even(
                "tick",
                &format!("gen{n}@new"),
                from,
                from + 35 * S,
                10 * S,
            ));
        }
        let settled = T0 + 45 * MIN;
        streams.push(even("tick", "gen99@new", settled, settled + H, 10 * S));
        if mark {
            streams = streams.into_iter().map(marked).collect();
        }
        let mut server = Server::new(streams);
        assert!(
            !server
                .states(T0 + 30 * MIN + 60 * S, S)
                .contains(&State::Flapping)
        );
        let told = server.first(State::Flapping, T0 + 40 * MIN, S);
        assert!(
            told.is_some_and(|at| at <= T0 + 35 * MIN),
            "marked {mark}: {told:?}"
        );
        let told = server.told();
        assert_eq!(told.verdict, Verdict::BeatFlapping, "{}", told.reason);
        assert_eq!(told.reason.contains("likely"), !mark, "{}", told.reason);
        server.until(settled + 20 * MIN);
        assert_eq!(server.states(settled + 50 * MIN, 9 * S), [State::Alive]);
    }
}

/// The same in another database.
fn in_db(server: &mut Server, db: u32, pushes: Vec<Push>) {
    for push in pushes {
        server.deliver(db, &push);
        server.now = push.at;
    }
}

#[test]
fn a_beat_that_comes_back_with_other_tasks_is_not_told_dead_for_the_old_ones() {
    for mark in [false, true] {
        let turn = T0 + H;
        let mut old = even("app.purge", "gen7@beat-a", T0, turn, MIN);
        let mut new = even("app.clean", "gen7@beat-b", turn + 40 * S, turn + 2 * H, MIN);
        if mark {
            (old, new) = (marked(old), marked(new));
        }
        let mut server = Server::new(vec![old, new]);
        // Without a mark it takes some messages until the new one shows as a beat.
        server.until(turn + if mark { 40 * S } else { 7 * MIN });
        let states = server.states(turn + 2 * H, 5 * S);
        let fine = states
            .iter()
            .all(|s| matches!(s, State::Alive | State::Late));
        assert!(fine, "marked {mark}: {states:?}");
        let told = server.told();
        assert_eq!(told.publisher.origins, ["gen7@beat-b"], "marked {mark}");
        let dropped = told.findings.iter().find(|f| f.code == Code::TaskOverdue);
        assert!(dropped.is_some_and(|f| f.detail.contains("app.purge")));
        // Nor does that hide the death of the new one.
        assert!(server.first(State::Silent, turn + 3 * H, 5 * S).is_some());
    }
}

#[test]
fn only_who_is_known_as_well_takes_the_place_of_a_beat() {
    let turn = T0 + H;
    let old = marked(even("app.purge", "gen7@beat", T0, turn, MIN));
    // Another's rhythm, begun after the death, is no beat's mark.
    let other = even("app.poll", "gen9@web", turn + 40 * S, turn + 2 * H, 10 * S);
    let mut server = Server::new(vec![old.clone(), other]);
    server.until(turn + H);
    assert_eq!(server.told().verdict, Verdict::BeatSilent);
    // A beat that ran beside it all the time goes on with its own.
    let beside = marked(even(
        "app.other",
        "gen8@beat",
        T0 + 7 * S,
        turn + 2 * H,
        MIN,
    ));
    let mut server = Server::new(vec![old, beside]);
    server.until(turn + H);
    assert_eq!(server.told().verdict, Verdict::BeatSilent);
}

#[test]
fn a_broker_that_moves_to_another_database_leaves_no_dead_beat_behind() {
    let turn = T0 + H;
    let old = || marked(even("app.purge", "gen7@beat-a", T0, turn, MIN));
    let mut server = Server::new(vec![old()]);
    server.until(turn + 10 * S);
    let new = even("app.purge", "gen7@beat-b", turn + 40 * S, turn + H, MIN);
    in_db(&mut server, 3, marked(new));
    assert_eq!(
        server.told().verdict,
        Verdict::Healthy,
        "{}",
        server.told().reason
    );
    // What another project sends in its own is no sign of this one's.
    let mut server = Server::new(vec![old()]);
    server.until(turn + 10 * S);
    let other = even("shop.tick", "gen7@beat-c", turn + 40 * S, turn + H, MIN);
    in_db(&mut server, 3, marked(other));
    assert_eq!(server.told().verdict, Verdict::BeatSilent);
}
