//! What is said while the watch breaks, begins again, or never hears anything.

use super::*;

#[test]
fn a_restart_of_the_server_forgets_nothing_and_claims_nothing() {
    for mark in [false, true] {
        let sort = |stream| if mark { marked(stream) } else { stream };
        let lives = sort(even("purge", "gen7@beat", T0, T0 + 3 * H, MIN));
        let mut server = Server::new(vec![lives.clone()]);
        server.until(T0 + 30 * MIN);
        server.restart(T0 + 50 * MIN);
        assert_ne!(server.beat().0, State::Silent);
        assert_ne!(
            server.beat().0,
            State::Alive,
            "nothing was heard for 20 minutes"
        );
        server.until(T0 + 52 * MIN);
        assert_eq!(server.beat().0, State::Alive);
        assert_eq!((server.told().tasks[0].interval_ms.unwrap() + 500) / S, 60);

        // It died while nobody watched.
        let mut server = Server::new(vec![lives]);
        server.until(T0 + 30 * MIN);
        server.pending.clear();
        server.restart(T0 + 50 * MIN);
        let told = server.first(State::Silent, T0 + 2 * H, S).unwrap();
        let after = told - (T0 + 50 * MIN);
        assert!((125 * S..=127 * S).contains(&after), "{after}");
        // And a restart after that does not unlearn it.
        server.restart(T0 + 3 * H);
        assert_ne!(server.beat().0, State::Alive);
        assert!(server.first(State::Silent, T0 + 4 * H, S).is_some());
    }
}

#[test]
fn a_break_in_the_watch_is_no_silence() {
    let mut server = Server::new(vec![even("purge", "gen7@beat", T0, T0 + 3 * H, MIN)]);
    server.until(T0 + 30 * MIN);
    let back = T0 + 90 * MIN;
    server.pending.retain(|push| push.at > back);
    server.traffic.resumed(back);
    server.now = back;
    let states = server.states(T0 + 2 * H, S);
    assert!(
        !states.contains(&State::Silent) && !states.contains(&State::Late),
        "{states:?}"
    );
    assert!(states.contains(&State::Alive));
}

#[test]
fn a_clock_that_steps_back_is_no_silence_and_hides_none_for_long() {
    let step = 2 * H;
    let mut server = Server::new(vec![even("purge", "gen7@beat", T0, T0 + H, MIN)]);
    server.until(T0 + H);
    let back = T0 + H - step;
    server.now = back;
    server.add(vec![even("purge", "gen7@beat", back, back + H, MIN)]);
    server.until(back + S);
    let states = server.states(back + H, S);
    assert_eq!(states, [State::Alive]);
    assert!(server.first(State::Silent, back + 2 * H, S).is_some());
}

/// Healthy beats of all sorts, through restarts of theirs and of the server.
#[test]
fn no_healthy_stream_is_ever_told_silent() {
    for seed in 1..=200_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let fast = [2 * S, 5 * S, 30 * S, MIN, 5 * MIN, H][dice.below(6) as usize];
        let mark = dice.below(2) == 0;
        let cron = dice.below(3) == 0;
        let span = (60 * fast).max(40 * MIN);
        let mut streams = Vec::new();
        let mut from = T0 + dice.below(S);
        let mut life = 0;
        // Beat restarts now and then; a new one begins within an interval.
        while from < T0 + span + 4 * fast + MIN {
            // Long enough for its slowest task.
            let to = from + (6 * MIN).max(fast * 33) + fast * dice.below(40);
            let origin = format!("gen{life}@beat");
            streams.push(even("fast", &origin, from, to, fast));
            for n in 0..dice.below(4) {
                let every = fast * (2 + dice.below(30));
                streams.push(even(
                    &format!("slow{n}"),
                    &origin,
                    from + dice.below(fast),
                    to,
                    every,
                ));
            }
            if cron {
                streams.push(crontab("cron", &origin, from, to, |m| m % 15 == 0));
            }
            from = to + dice.below((fast / 2).min(10 * MIN));
            life += 1;
        }
        if mark {
            streams = streams.into_iter().map(marked).collect();
        }
        for n in 0..dice.below(4) {
            let origin = format!("gen{n}@web{}", "x".repeat(n as usize));
            let mean = fast / 10 + dice.below(3 * fast) + 1;
            let task = if dice.below(2) == 0 { "fast" } else { "mail" };
            streams.push(random(task, &origin, T0 + 2 * S, T0 + span, mean));
        }
        let mut server = Server::new(streams);
        if dice.below(4) == 0 {
            server.expected = vec![expect("fast", fast)];
        }
        while server.now < T0 + span - fast {
            let next = server.now + 1 + dice.below(fast.max(20 * S));
            if dice.below(4) == 0 {
                server.write();
            }
            match dice.below(60) {
                0 => server.restart(next + dice.below(3 * fast)),
                1 => {
                    let back = next + dice.below(3 * fast);
                    server.pending.retain(|push| push.at > back);
                    server.traffic.resumed(back);
                    server.now = back;
                }
                _ => {
                    server.until(next);
                }
            }
            let told = server.told();
            let state = told.publisher.state;
            let wrong = matches!(state, State::Silent | State::Duplicate | State::Flapping)
                || told.verdict == Verdict::BeatSilent;
            assert!(
                !wrong,
                "seed {seed}, fast {fast}, marked {mark}, {} s in: {}\n{:#?}",
                (server.now - T0) / S,
                told.reason,
                told.watch
            );
        }
    }
}

#[test]
fn an_expected_task_that_was_never_sent_is_a_finding_and_no_silence() {
    let mut server = Server::new(vec![random("mail", "gen9@web", T0, T0 + 9 * H, MIN)]);
    server.expected = vec![expect("purge", H)];
    let missing = |server: &Server| {
        // Nothing of Celery's lies there: its messages that passed show it is used.
        let evidence = Evidence {
            celery_seen: false,
            ..server.evidence()
        };
        let told = judge(&evidence, server.now);
        assert_eq!(told.verdict, Verdict::Unknown, "{}", told.reason);
        assert_eq!(told.publisher.state, State::Unknown);
        told.findings
            .iter()
            .any(|f| f.code == Code::ExpectedTaskMissing)
    };
    let since = server.now;
    server.until(since + 2 * H);
    assert!(!missing(&server));
    server.until(since + 2 * H + 10 * S);
    assert!(missing(&server));
    assert!(
        server.told().reason.contains("never started"),
        "{}",
        server.told().reason
    );
}

#[test]
fn ends_are_told_of_tasks_whose_publish_was_seen() {
    let mut server = Server::new(vec![even("purge", "gen7@beat", T0, T0 + H, MIN)]);
    server.until(T0 + 20 * MIN);
    let id = format!("id-{}", server.sent);
    assert!(server.traffic.awaits(id.as_bytes()));
    let end = server.now;
    server
        .traffic
        .finished(end, id.as_bytes(), None, "FAILURE", Some("KeyError"));
    let told = server.told();
    assert_eq!(told.verdict, Verdict::TasksFailing, "{}", told.reason);
    assert!(told.reason.contains("KeyError"));
    let task = &told.tasks[0];
    assert_eq!(task.last_finished_ms, Some(end));
    assert_eq!(task.last_status.as_deref(), Some("FAILURE"));
    assert_eq!(task.overdue, Some(false));
    server
        .traffic
        .finished(end + S, id.as_bytes(), None, "SUCCESS", None);
    server.until(end + S);
    assert_eq!(server.told().verdict, Verdict::Healthy);
}
