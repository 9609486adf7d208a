//! Streams of messages as they pass, and what is said of beat while they do.

use std::collections::BTreeMap;

use super::scenarios::{H, MIN, NOW, S, celery, entry, expect, queue, redbeat, taken, workers};
use super::*;
use crate::core::celery::envelope::Envelope;

const DAY: i64 = 24 * H;

/// Monday, midnight UTC.
const MONDAY: i64 = 1_789_948_800_000;

/// A moment at which no minute begins.
const T0: i64 = MONDAY + 9 * H + 17 * S;

/// A small generator: the same numbers each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.unsigned_abs().max(1)) as i64
    }

    /// A gap of random traffic.
    fn gap(&mut self, mean: i64) -> i64 {
        let unit = (self.below(1_000_000) + 1) as f64 / 1_000_000.0;
        (-unit.ln() * mean as f64) as i64 + 1
    }
}

#[derive(Clone, Debug)]
struct Push {
    at: i64,
    task: String,
    origin: String,
    marked: bool,
    queue: &'static str,
}

fn push(at: i64, task: &str, origin: &str) -> Push {
    Push {
        at,
        task: task.to_owned(),
        origin: origin.to_owned(),
        marked: false,
        queue: "celery",
    }
}

/// An even pace with up to a second of jitter.
fn even(task: &str, origin: &str, from: i64, to: i64, every: i64) -> Vec<Push> {
    let mut dice = Dice(from.unsigned_abs() | 1);
    let jitter = (every / 20).clamp(1, S);
    (0..)
        .map(|n| from + n * every)
        .take_while(|at| *at < to)
        .map(|at| push(at + dice.below(jitter), task, origin))
        .collect()
}

/// Minute by minute, where `due` says so of the minute since Monday.
fn crontab(task: &str, origin: &str, from: i64, to: i64, due: impl Fn(i64) -> bool) -> Vec<Push> {
    let mut dice = Dice(7);
    let first = (from - MONDAY + MIN - 1) / MIN;
    (first..)
        .take_while(|m| MONDAY + m * MIN < to)
        .filter(|m| due(m % (7 * 24 * 60)))
        .map(|m| push(MONDAY + m * MIN + dice.below(400), task, origin))
        .collect()
}

/// `*/15 9-16 * * 1-5`
fn office(minute: i64) -> bool {
    minute < 5 * 24 * 60 && (9..17).contains(&(minute / 60 % 24)) && minute % 15 == 0
}

fn random(task: &str, origin: &str, from: i64, to: i64, mean: i64) -> Vec<Push> {
    let mut dice = Dice(origin.len() as u64 * 7_919 + mean.unsigned_abs());
    let mut at = from;
    let mut pushes = Vec::new();
    while at < to {
        at += dice.gap(mean);
        pushes.push(push(at, task, origin));
    }
    pushes
}

fn marked(mut pushes: Vec<Push>) -> Vec<Push> {
    pushes.iter_mut().for_each(|push| push.marked = true);
    pushes
}

/// A server that watches.
struct Server {
    traffic: Traffic,
    now: i64,
    pending: Vec<Push>,
    sent: u64,
    expected: Vec<Expected>,
    hash: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Server {
    fn new(streams: Vec<Vec<Push>>) -> Self {
        let mut server = Self {
            traffic: Traffic::default(),
            now: i64::MIN,
            pending: Vec::new(),
            sent: 0,
            expected: Vec::new(),
            hash: BTreeMap::new(),
        };
        server.add(streams);
        server.now = server.pending.last().map_or(T0, |push| push.at) - S;
        server.traffic.resumed(server.now);
        server
    }

    fn add(&mut self, streams: Vec<Vec<Push>>) {
        self.pending.extend(streams.into_iter().flatten());
        self.pending.sort_by_key(|push| std::cmp::Reverse(push.at));
    }

    fn deliver(&mut self, push: &Push) {
        self.sent += 1;
        let id = format!("id-{}", self.sent);
        let message = Envelope {
            task: Some(push.task.as_str().into()),
            id: Some(id.as_str().into()),
            origin: Some(push.origin.as_str().into()),
            beat: push.marked,
            ..Envelope::default()
        };
        self.traffic
            .pushed(push.at, 0, push.queue.as_bytes(), Some(&message));
    }

    /// Everything up to a moment passes.
    fn until(&mut self, to: i64) -> &mut Self {
        while self.pending.last().is_some_and(|push| push.at <= to) {
            let push = self.pending.pop().unwrap();
            self.deliver(&push);
        }
        self.now = to;
        self
    }

    fn evidence(&self) -> Evidence {
        Evidence {
            heard: self.traffic.heard(self.now),
            expected: self.expected.clone(),
            ..celery()
        }
    }

    fn told(&self) -> Assessment {
        judge(&self.evidence(), self.now)
    }

    /// State and certainty.
    fn beat(&self) -> (State, Certainty) {
        let told = self.told().publisher;
        (told.state, told.certainty)
    }

    /// The first moment from now on at which this is said, looking each `step`.
    fn first(&mut self, state: State, to: i64, step: i64) -> Option<i64> {
        while self.now < to {
            let next = self.now + step;
            self.until(next);
            if self.beat().0 == state {
                return Some(self.now);
            }
        }
        None
    }

    /// States seen up to a moment, looking each `step`.
    fn states(&mut self, to: i64, step: i64) -> Vec<State> {
        let mut states = Vec::new();
        while self.now < to {
            let next = (self.now + step).min(to);
            self.until(next);
            let state = self.beat().0;
            if !states.contains(&state) {
                states.push(state);
            }
        }
        states
    }

    fn write(&mut self) {
        while self.traffic.has_changes() {
            let changes = self.traffic.take_changes();
            self.hash.extend(changes.set);
            for field in changes.del {
                self.hash.remove(&field);
            }
        }
    }

    /// The server goes, what is sent meanwhile is lost to it, and it comes back.
    fn restart(&mut self, back: i64) {
        self.write();
        self.pending.retain(|push| push.at > back);
        let fields = self.hash.iter();
        self.traffic = Traffic::read(fields.map(|(f, v)| (f.as_slice(), v.as_slice())), back);
        self.now = back;
    }
}

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

#[test]
fn what_people_cause_is_no_beat() {
    let end = T0 + 6 * H;
    let mut streams: Vec<Vec<Push>> = [S / 10, S, 10 * S, MIN, 10 * MIN]
        .into_iter()
        .zip(["a", "bb", "ccc", "dddd", "eeeee"])
        .map(|(mean, host)| random("mail", &format!("gen9@{host}"), T0, end, mean))
        .collect();
    // A burst each now and then, and new processes all the time.
    for n in 0..40 {
        let at = T0 + n * n * 13 * S;
        let origin = format!("gen{n}@web");
        streams.push(
            (0..20)
                .map(|i| push(at + i * 7, "report", &origin))
                .collect(),
        );
    }
    let mut server = Server::new(streams);
    let states = server.states(end + 2 * H, 11 * S);
    assert_eq!(states, [State::Unknown]);
    let told = server.told();
    assert_eq!(told.verdict, Verdict::Unknown);
    assert_eq!(told.publisher.source, Source::None);
    assert!(told.tasks.is_empty());
}

#[test]
fn web_traffic_on_top_neither_hides_a_beat_nor_its_death() {
    let end = T0 + H;
    for mark in [false, true] {
        let beat = even("purge", "gen7@beat", T0, end, MIN);
        let beat = if mark { marked(beat) } else { beat };
        let mut streams = vec![beat];
        for host in ["a", "bb", "ccc"] {
            let origin = format!("gen9@{host}");
            streams.push(random("purge", &origin, T0, end + 2 * H, 20 * S));
            streams.push(random("mail", &origin, T0, end + 2 * H, 3 * S));
        }
        let mut server = Server::new(streams);
        server.until(T0 + 10 * MIN);
        let states = server.states(end, 3 * S);
        assert_eq!(states, [State::Alive], "marked {mark}");
        assert_eq!(server.told().publisher.origins, ["gen7@beat"]);
        let told = server.first(State::Silent, end + H, S).unwrap();
        assert!(told - end <= 126 * S, "{}", told - end);
    }
}

#[test]
fn processes_that_come_and_go_and_send_the_same_hide_no_dead_beat() {
    for (every, mean) in [(2 * S, S), (MIN, 20 * S)] {
        for expected in [false, true] {
            let what = format!("every {every} ms, expected {expected}");
            let end = T0 + 30 * every;
            let mut streams = vec![even("purge", "gen7@beat", T0, end, every)];
            // Too slow to have shown its interval, and sent by the others as well.
            let slow = 14 * every;
            streams.push(even("slow", "gen7@beat", T0 + S / 2, end, slow));
            for n in 0..200 {
                let origin = format!("gen{n}@web{}", "x".repeat(n % 7));
                let from = T0 + n as i64 * 10 * mean;
                streams.push(random("purge", &origin, from, from + 20 * mean, mean));
                streams.push(random("slow", &origin, from, from + 20 * mean, mean));
            }
            let mut server = Server::new(streams);
            if expected {
                server.expected = vec![expect("purge", every), expect("slow", slow)];
            }
            server.until(T0 + 15 * every);
            assert_eq!(server.states(end - S, S / 2), [State::Alive], "{what}");
            let last = end - every;
            let told = server.first(State::Silent, end + 10 * every, S / 4);
            let after = told.map(|at| at - last);
            // Whoever came new in time may be beat, until it does not come again.
            let bound = 2 * every + 5 * S + 3 * mean;
            assert!(after.is_some_and(|ms| ms <= bound), "{what}: {after:?}");
            let certainty = server.beat().1;
            assert_eq!(certainty == Certainty::Proven, expected, "{what}");
            // And it stays so.
            let stays = server.states(end + 20 * every, S / 4);
            assert_eq!(stays, [State::Silent], "{what}");
            // One that starts again is heard, late as it is.
            let back = server.now + S;
            server.add(vec![even(
                "purge",
                "gen8@beat",
                back,
                back + 60 * every,
                every,
            )]);
            server.until(back + 7 * every);
            let alive = server.states(back + 30 * every, S / 2);
            assert_eq!(alive, [State::Alive], "{what}");
        }
    }
}

/// Web servers, in beat's intervals.
#[derive(Clone, Copy)]
struct Web {
    processes: u64,
    /// Requests after which a process is replaced.
    requests: u64,
    /// Between two of one process.
    mean: f64,
}

const TWO: Web = Web {
    processes: 2,
    requests: 25,
    mean: 0.333,
};

/// Too many for each to be kept, and each too seldom to show that it has no rhythm.
const MANY: Web = Web {
    processes: 30,
    requests: u64::MAX,
    mean: 5.0,
};

/// Replaced before they show it.
const SHORT_LIVED: Web = Web {
    processes: 4,
    requests: 5,
    mean: 1.0,
};

/// Each request sends one to four tasks, a quarter of them one of beat's and a
/// quarter the other.
fn web(web: Web, seed: u64, from: i64, to: i64, every: i64) -> Vec<Vec<Push>> {
    let mut streams = Vec::new();
    let mean = (web.mean * every as f64) as i64;
    for server in 0..web.processes {
        let number = seed * web.processes + server + 1;
        let mut dice = Dice(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (mut at, mut life) = (from, 0);
        while at < to {
            let origin = format!("gen{life}@web{server}");
            let mut pushes = Vec::new();
            for _ in 0..web.requests {
                at += dice.gap(mean);
                if at >= to {
                    break;
                }
                for n in 0..=dice.below(4) {
                    let task = ["mail", "mail", "fast", "slow"][dice.below(4) as usize];
                    pushes.push(push(at + n, task, &origin));
                }
            }
            streams.push(pushes);
            at += mean / 10;
            life += 1;
        }
    }
    streams
}

/// A beat that dies among web processes: the states said while it lived, how long
/// after its last message it was told silent, and the states said after that.
fn dies(
    among: Web,
    every: i64,
    expected: bool,
    seed: u64,
) -> (Vec<State>, Option<i64>, Vec<State>) {
    let slow = every * 7 / 2;
    let end = T0 + 40 * every + seed as i64 % 60 * every / 60;
    let mut streams = web(among, seed, T0, end + 60 * every, every);
    let beat = [("fast", every), ("slow", slow)].map(|(t, e)| even(t, "gen7@beat", T0, end, e));
    let last = beat.iter().flatten().map(|push| push.at).max().unwrap();
    streams.extend(beat);
    let mut server = Server::new(streams);
    if expected {
        server.expected = vec![expect("fast", every), expect("slow", slow)];
    }
    server.until(T0 + 15 * every);
    let lived = server.states(end, every / 20);
    let told = server.first(State::Silent, end + 20 * every, every / 20);
    let stays = server.states(end + 50 * every, every / 20);
    (lived, told.map(|at| at - last), stays)
}

/// A beat that starts again among web processes: the states said in its first
/// intervals, whether it is known in its slow line then, and the states after.
fn starts_again(
    among: Web,
    every: i64,
    expected: bool,
    seed: u64,
) -> (Vec<State>, bool, Vec<State>) {
    let slow = every * 7 / 2;
    let turn = T0 + 40 * every;
    let end = turn + 60 * every;
    let mut streams = web(among, seed, T0, end, every);
    // Rolled over, or down for a while.
    let begins = turn + [-every / 2, every / 10, every / 2, every * 4 / 5][seed as usize % 4];
    for (origin, from, to) in [("gen7@a", T0, turn), ("gen8@b", begins, end)] {
        streams.push(even("fast", origin, from, to, every));
        streams.push(even("slow", origin, from, to, slow));
    }
    let mut server = Server::new(streams);
    if expected {
        server.expected = vec![expect("fast", every), expect("slow", slow)];
    }
    server.until(T0 + 15 * every);
    let mut states = server.states(turn, every / 20);
    states.extend(server.states(turn + 3 * every, every / 20));
    let heard = is_beats(&server.told(), "slow", "gen8@b");
    let after = server.states(turn + 50 * every, every / 20);
    (states, heard, after)
}

#[test]
fn a_dead_beat_is_told_in_time_while_web_processes_send_all_of_its_tasks() {
    // Whoever comes new in time, sends nothing but beat's tasks and comes in its
    // pace may be beat. Of fresh numbers 5 of 100 are told late among two web
    // servers, and 30 where a new process comes in each interval.
    for (among, seeds, late_ones) in [(TWO, 100, 10), (MANY, 15, 0), (SHORT_LIVED, 30, 15)] {
        for (every, expected) in [(2 * S, true), (2 * S, false), (MIN, true), (MIN, false)] {
            let (mut late, mut relapsed) = (0, 0);
            for seed in 0..seeds {
                let what = format!("every {every} ms, expected {expected}, seed {seed}");
                let (lived, after, stays) = dies(among, every, expected, seed);
                let fine = |s: &State| matches!(s, State::Alive | State::Late);
                assert!(lived.iter().all(fine), "{what}: {lived:?}");
                let bound = 2 * every + 5 * S;
                // At worst the silence of another is waited for as well.
                assert!(after.is_some_and(|ms| ms <= 2 * bound), "{what}: {after:?}");
                // The pace is learnt through jitter, and looked at in steps.
                late += u64::from(after > Some(bound + every / 10));
                // Some gaps of one process look even by accident.
                relapsed += u64::from(stays != [State::Silent]);
            }
            let what = format!("every {every} ms, expected {expected}: {late}, {relapsed}");
            assert!(late <= late_ones && relapsed * 30 <= seeds, "{what}");
        }
    }
}

#[test]
fn a_beat_that_starts_again_among_web_processes_is_heard_in_all_of_its_lines() {
    for (among, seeds) in [(TWO, 100), (MANY, 20), (SHORT_LIVED, 30)] {
        for (every, expected) in [(2 * S, true), (2 * S, false), (MIN, true), (MIN, false)] {
            for seed in 100..100 + seeds {
                let what = format!("every {every} ms, expected {expected}, seed {seed}");
                let (states, heard, after) = starts_again(among, every, expected, seed);
                let fine = |s: &State| matches!(s, State::Alive | State::Late);
                assert!(states.iter().all(fine), "{what}: {states:?}");
                assert!(heard, "{what}");
                assert!(after.iter().all(fine), "{what}: {after:?}");
                // Early messages of who is not known yet may be late ones.
                assert!(after.contains(&State::Alive), "{what}: {after:?}");
            }
        }
    }
}

/// Whether this origin's publishes of a task are taken for beat's.
fn is_beats(told: &Assessment, task: &str, origin: &str) -> bool {
    let mut paces = told.watch.rhythms.iter();
    paces.any(|pace| pace.task == task && pace.origin == origin && pace.beat)
}

#[test]
fn two_beats_among_web_processes_are_told() {
    for expected in [true, false] {
        for seed in 200..220 {
            let what = format!("expected {expected}, seed {seed}");
            let (every, end) = (2 * S, T0 + 3 * MIN);
            let mut streams = web(TWO, seed, T0, end, every);
            for (origin, from) in [("gen7@a", T0), ("gen8@b", T0 + MIN + S)] {
                streams.push(even("fast", origin, from, end, every));
                streams.push(even("slow", origin, from, end, 7 * S));
            }
            let mut server = Server::new(streams);
            if expected {
                server.expected = vec![expect("fast", every), expect("slow", 7 * S)];
            }
            server.until(T0 + MIN);
            let told = server.first(State::Duplicate, end, S / 10);
            assert!(told.is_some_and(|at| at <= T0 + 85 * S), "{what}: {told:?}");
            let mut origins = server.told().publisher.origins;
            origins.retain(|origin| origin.contains('@') && !origin.contains("web"));
            origins.sort();
            assert_eq!(origins, ["gen7@a", "gen8@b"], "{what}");
        }
    }
}

#[test]
fn a_beat_whose_fastest_line_is_known_only_later_is_heard_before_and_after() {
    for expected in [true, false] {
        for seed in 300..320 {
            let what = format!("expected {expected}, seed {seed}");
            let (every, slow) = (2 * S, 7 * S);
            // The fast task is added while beat runs (RedBeat, a database).
            let (added, end) = (T0 + 3 * MIN, T0 + 5 * MIN);
            let mut streams = web(TWO, seed, T0, end + 2 * MIN, every);
            streams.push(even("fast", "gen7@beat", added, end, every));
            streams.push(even("slow", "gen7@beat", T0, end, slow));
            let mut server = Server::new(streams);
            if expected {
                server.expected = vec![expect("slow", slow)];
            }
            server.until(T0 + 2 * MIN);
            assert_eq!(server.states(added, S / 10), [State::Alive], "{what}");
            if expected {
                server.expected.push(expect("fast", every));
            }
            assert_eq!(server.states(end, S / 10), [State::Alive], "{what}");
            assert!(is_beats(&server.told(), "slow", "gen7@beat"), "{what}");
            let told = server.first(State::Silent, end + MIN, S / 10);
            assert!(
                told.is_some_and(|at| at <= end + 15 * S),
                "{what}: {told:?}"
            );
        }
    }
}

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

#[test]
fn a_crowd_of_tasks_does_not_drown_the_beat() {
    let mut streams = vec![even("purge", "gen7@beat", T0, T0 + 2 * H, MIN)];
    for n in 0..1_500 {
        let at = T0 + 20 * MIN + n * S;
        streams.push(vec![push(at, &format!("web{n}"), "gen9@web")]);
    }
    streams.push(even(&"x".repeat(5_000), "gen7@beat", T0, T0 + H, MIN));
    streams.push(even("a\r\nb", "gen7@beat", T0, T0 + H, MIN));
    let mut server = Server::new(streams);
    server.until(T0 + 20 * MIN);
    assert_eq!(server.states(T0 + 90 * MIN, 37 * S), [State::Alive]);
    assert!(server.evidence().heard.lines.len() <= 1_000);
    let told = reply(&server.told(), true);
    assert!(format!("{told:?}").len() < 1_000_000);
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
        let told = server.told();
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

/// Watched since long before NOW.
fn watched(change: impl FnOnce(&mut Evidence)) -> Evidence {
    let mut evidence = celery();
    evidence.heard.since_ms = Some(NOW - 10 * H);
    change(&mut evidence);
    evidence
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

fn flow(since_in: i64, since_out: Option<i64>, waits: Option<i64>) -> Movement {
    Movement {
        db: 0,
        queue: b"celery".to_vec(),
        per_minute: Some((12, 3)),
        last_in_ms: Some(NOW - since_in),
        last_out_ms: since_out.map(|ago| NOW - ago),
        waiting_since_ms: waits.map(|ago| NOW - ago),
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
