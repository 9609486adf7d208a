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
