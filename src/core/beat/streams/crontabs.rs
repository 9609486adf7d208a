//! Beats whose tasks are due by the clock.

use super::*;

/// `*/15 9-16 * * 1-5`
fn office(minute: i64) -> bool {
    minute < 5 * 24 * 60 && (9..17).contains(&(minute / 60 % 24)) && minute % 15 == 0
}

#[test]
fn the_pauses_of_a_crontab_are_no_silence() {
    for mark in [false, true] {
        for (what, due) in [
            ("office hours", office as fn(i64) -> bool),
            ("hourly on work days", |m| m < 5 * 24 * 60 && m % 60 == 0),
            ("three times a day", |m| {
                [9, 11, 17].contains(&(m / 60 % 24)) && m % 60 == 0
            }),
            ("minutes of a list", |m| [0, 10, 15].contains(&(m % 60))),
            ("each minute at night", |m| m / 60 % 24 < 5),
            ("daily", |m| m % (24 * 60) == 4 * 60),
            ("weekly", |m| m == 3 * 24 * 60 + 77),
        ] {
            let mut stream = crontab("purge", "gen7@beat", MONDAY, MONDAY + 60 * DAY, due);
            if mark {
                stream = marked(stream);
            }
            let mut server = Server::new(vec![stream]);
            let states = server.states(MONDAY + 59 * DAY, 13 * MIN);
            let fine = !states.contains(&State::Silent) && !states.contains(&State::Duplicate);
            assert!(fine, "{what}, marked {mark}: {states:?}");
            let alive = server.beat().0 == State::Alive;
            assert!(
                alive || (what == "weekly" && !mark),
                "{what}, marked {mark}"
            );
        }
    }
}

#[test]
fn a_crontabs_dead_beat_is_told_by_the_minute_it_misses_or_by_its_longest_pause() {
    for (what, died, within) in [
        ("in office hours", 10 * H + 10 * MIN, 2 * 15 * MIN + 5 * S),
        ("at night", 20 * H, 2 * (64 * H + 15 * MIN) + 5 * S),
    ] {
        let died = MONDAY + 22 * DAY + died;
        let stream = crontab("purge", "gen7@beat", MONDAY, died, office);
        let last = stream.last().unwrap().at;
        let mut server = Server::new(vec![stream]);
        server.until(died);
        let told = server
            .first(State::Silent, died + 10 * DAY, 10 * S)
            .unwrap();
        assert!(
            told - last <= within + 11 * S,
            "{what}: after {} s",
            (told - last) / S
        );
        assert!(
            told - last > within - 2 * S,
            "{what}: after {} s",
            (told - last) / S
        );
    }
    // Each minute: told after minutes, on the first day too.
    let died = MONDAY + 9 * H + 40 * MIN;
    let stream = crontab(
        "purge",
        "gen7@beat",
        MONDAY + 9 * H + 20 * MIN,
        died,
        |_| true,
    );
    let mut server = Server::new(vec![stream]);
    server.until(died);
    let told = server.first(State::Silent, died + H, S).unwrap();
    assert!(told - died <= 125 * S, "{}", told - died);
    // Every month's weeks: a weekly task, with a restart of beat each day.
    let mut stream = crontab("purge", "", MONDAY, MONDAY + 60 * DAY, |m| m == 5_000);
    for push in &mut stream {
        push.origin = format!("gen7@{}", push.at / DAY);
    }
    let last = stream.last().unwrap().at;
    let mut server = Server::new(vec![marked(stream)]);
    server.until(last);
    let told = server.first(State::Silent, last + 40 * DAY, MIN).unwrap();
    assert!(
        (told - last - 14 * DAY).abs() < 2 * MIN,
        "{}",
        (told - last) / H
    );
}

/// Whether a minute since Monday is due by a crontab in a zone so many minutes
/// ahead of UTC.
fn is_due(
    minutes: &[i64],
    hours: std::ops::Range<i64>,
    days: i64,
    zone: i64,
) -> impl Fn(i64) -> bool {
    move |minute| {
        let local = (minute + zone).rem_euclid(7 * 24 * 60);
        local / (24 * 60) < days
            && hours.contains(&(local / 60 % 24))
            && minutes.contains(&(local % 60))
    }
}

#[test]
fn no_crontab_of_some_hours_is_told_silent_when_its_hours_are_over() {
    let shifted: Vec<i64> = (0..4).map(|n| 5 + 15 * n).collect();
    let dense: Vec<i64> = (5..=25).collect();
    let each_third: Vec<i64> = (0..20).map(|n| 3 * n + 1).collect();
    let minutes: [&[i64]; 9] = [
        &[0, 20],
        &[5, 35],
        &[10, 30, 50],
        &[7, 8, 9],
        &[50, 55],
        &[0, 3, 6, 40],
        &shifted,
        &dense,
        &each_third,
    ];
    for minutes in minutes {
        for (hours, days) in [(9..18, 5), (22..23, 7)] {
            for zone in [0, 330] {
                let due = is_due(minutes, hours.clone(), days, zone);
                let what = format!("{minutes:?} in {hours:?} of {days} days, zone {zone}");
                let stream = crontab("purge", "gen7@beat", MONDAY, MONDAY + 10 * DAY, due);
                let mut server = Server::new(vec![marked(stream)]);
                // What comes each minute is taken for "every minute" on the first day.
                server.until(MONDAY + 47 * H);
                while server.now < MONDAY + 9 * DAY {
                    let next = server.now + 17 * MIN;
                    server.until(next);
                    let (state, _) = server.beat();
                    assert_ne!(
                        state,
                        State::Silent,
                        "{what}, {} min after Monday",
                        (server.now - MONDAY) / MIN
                    );
                }
            }
        }
    }
}

/// `5-25 * * * *`
fn a_range(minute: i64) -> bool {
    (5..=25).contains(&(minute % 60))
}

#[test]
fn a_crontab_of_a_range_of_minutes_is_not_told_silent_at_its_end_once_that_shows() {
    let begun = MONDAY + 9 * H;
    let end = begun + 8 * H;
    let range = |origin, from| crontab("purge", origin, from, end, a_range);
    for mark in [false, true] {
        for (what, streams, from) in [
            (
                "alone, from its second hour on",
                vec![range("gen7@beat", begun)],
                66 * MIN,
            ),
            (
                "alone, heard from the middle of its first range on",
                vec![range("gen7@beat", begun + 17 * MIN)],
                66 * MIN,
            ),
            (
                "its beat was heard before it",
                vec![
                    range("gen7@beat", begun),
                    even("digest", "gen7@beat", begun + 2 * MIN, end, H),
                ],
                0,
            ),
            (
                "the same, and beat started again within the range",
                vec![
                    even("digest", "gen7@beat", begun + 2 * MIN, begun + 10 * MIN, H),
                    crontab("purge", "gen7@beat", begun, begun + 10 * MIN, a_range),
                    even("digest", "gen8@beat", begun + 12 * MIN, end, H),
                    range("gen8@beat", begun + 12 * MIN),
                ],
                0,
            ),
        ] {
            let mark = |stream| if mark { marked(stream) } else { stream };
            let mut server = Server::new(streams.into_iter().map(mark).collect());
            server.until(begun + from);
            while server.now < end - H {
                let next = server.now + 20 * S;
                server.until(next);
                assert_ne!(
                    server.beat().0,
                    State::Silent,
                    "{what}: {} min after nine: {}",
                    (server.now - begun) / MIN,
                    server.told().reason
                );
            }
        }
    }
}

#[test]
fn a_beat_of_each_minute_is_told_silent_in_time_in_its_first_hours_whatever_else_it_sends() {
    let begun = MONDAY + 9 * H + 2 * MIN + 20 * S;
    for lived in [10 * MIN, 40 * MIN, 58 * MIN, 70 * MIN, 110 * MIN, 130 * MIN] {
        for restarts in [false, true] {
            let died = begun + lived;
            let started = if restarts { begun + 4 * MIN } else { begun };
            let mut streams = vec![
                crontab("purge", "gen8@beat", started, died, |_| true),
                even("digest", "gen8@beat", started + S, died, H),
            ];
            if restarts {
                streams.push(crontab("purge", "gen7@beat", begun, started, |_| true));
            }
            let streams = streams.into_iter().map(marked).collect();
            let mut server = Server::new(streams);
            server.until(died);
            let told = server.first(State::Silent, died + H, S);
            let late = told.map(|told| told - died);
            assert!(
                late.is_some_and(|late| late <= 125 * S),
                "lived {} min, restarts {restarts}: {late:?}",
                lived / MIN
            );
        }
    }
}

#[test]
fn a_crontab_that_is_thinned_out_is_not_told_silent_when_its_hours_are_over() {
    for restart in [false, true] {
        let changed = MONDAY + 2 * DAY + 14 * H;
        let often: Vec<i64> = (0..12).map(|n| 5 * n).collect();
        let seldom = [0, 15, 30, 45];
        let origin = if restart { "gen8@beat" } else { "gen7@beat" };
        let before = crontab(
            "purge",
            "gen7@beat",
            MONDAY,
            changed,
            is_due(&often, 9..18, 5, 0),
        );
        let after = crontab(
            "purge",
            origin,
            changed,
            MONDAY + 5 * DAY,
            is_due(&seldom, 9..18, 5, 0),
        );
        let mut server = Server::new(vec![marked(before), marked(after)]);
        server.until(changed + 20 * MIN);
        let states = server.states(MONDAY + 4 * DAY + 9 * H, 5 * MIN);
        if restart {
            assert!(!states.contains(&State::Silent), "{states:?}");
        }
        server.until(MONDAY + 4 * DAY + 9 * H);
        let states = server.states(MONDAY + 5 * DAY, 5 * MIN);
        assert!(!states.contains(&State::Silent), "{restart}: {states:?}");
    }
}
