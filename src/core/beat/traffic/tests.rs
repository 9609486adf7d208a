//! What is counted, what is not, what is kept, and what comes back.

use super::*;

const T0: i64 = 1_790_000_000_000;
const S: i64 = 1_000;

/// A message of protocol 2 as beat sends it.
fn message<'a>(id: &'a str, task: &'a str, origin: &'a str) -> Envelope<'a> {
    Envelope {
        task: Some(task.into()),
        id: Some(id.into()),
        origin: Some(origin.into()),
        retries: Some(0),
        ..Envelope::default()
    }
}

fn push(traffic: &mut Traffic, at_ms: i64, message: &Envelope<'_>) {
    traffic.pushed(at_ms, 0, b"celery", Some(message));
}

fn minutely(traffic: &mut Traffic, from_ms: i64, ticks: i64) {
    for n in 0..ticks {
        let at = from_ms + n * 60 * S;
        push(
            traffic,
            at,
            &message(&format!("id-{at}"), "purge", "gen7@beat"),
        );
    }
}

fn count(traffic: &Traffic) -> u64 {
    let heard = traffic.heard(T0);
    heard
        .lines
        .iter()
        .flat_map(|l| &l.voices)
        .map(|v| v.count)
        .sum()
}

#[test]
fn of_what_the_asker_may_not_see_nothing_is_told_and_each_name_is_asked_once() {
    let mut traffic = Traffic::default();
    for (queue, task) in [("mine", "a"), ("mine", "b"), ("theirs", "c")] {
        let message = message(task, task, "gen1@host");
        traffic.pushed(T0, 0, queue.as_bytes(), Some(&message));
    }
    traffic.redbeat_ticked(T0, 0, b"redbeat::lock", 5_000);
    let mut asked = Vec::new();
    let heard = traffic.heard_of(T0, |key| {
        asked.push(key.to_vec());
        key == b"mine"
    });
    asked.sort();
    assert_eq!(asked, [&b"mine"[..], b"redbeat::lock", b"theirs"]);
    let mut tasks: Vec<&str> = heard.lines.iter().map(|line| &*line.task).collect();
    tasks.sort_unstable();
    assert_eq!(tasks, ["a", "b"]);
    assert_eq!(heard.flows.len(), 1);
    assert!(heard.ticks.is_empty());
    assert_eq!(traffic.heard(T0).lines.len(), 3);
}

#[test]
fn a_rhythm_of_many_messages_at_a_time_is_noticed() {
    let mut traffic = Traffic::default();
    for tick in 0..20 {
        for n in 0..8 {
            let (at, id) = (T0 + tick * 60 * S + n, format!("{tick}-{n}"));
            push(&mut traffic, at, &message(&id, "purge", "gen7@beat"));
        }
    }
    assert!(traffic.series.values().all(|series| series.periodic));
}

type Hash = std::collections::BTreeMap<Vec<u8>, Vec<u8>>;

fn write(traffic: &mut Traffic, hash: &mut Hash) {
    while traffic.has_changes() {
        let changes = traffic.take_changes(|| false);
        assert!(changes.set.len() <= 100 + MOST_LOCKS && changes.del.len() <= 100);
        for field in changes.del {
            hash.remove(&field);
        }
        hash.extend(changes.set);
    }
}

fn written(traffic: &mut Traffic) -> Hash {
    let mut hash = Hash::new();
    write(traffic, &mut hash);
    hash
}

fn read_back(hash: &Hash, now_ms: i64) -> Traffic {
    Traffic::read(
        hash.iter().map(|(f, v)| (f.as_slice(), v.as_slice())),
        now_ms,
    )
}

#[test]
fn only_a_first_publish_counts() {
    let plain = || message("a", "purge", "gen7@beat");
    let long = "x".repeat(300);
    let rows = [
        ("a publish", plain(), 1),
        (
            "with an eta and a priority",
            Envelope {
                eta_ms: Some(1),
                priority: Some(9),
                ..plain()
            },
            1,
        ),
        (
            "a retry",
            Envelope {
                retries: Some(1),
                ..plain()
            },
            0,
        ),
        (
            "delivered again",
            Envelope {
                redelivered: true,
                ..plain()
            },
            0,
        ),
        (
            "a child",
            Envelope {
                parent_id: Some("p".into()),
                ..plain()
            },
            0,
        ),
        (
            "no task",
            Envelope {
                task: None,
                ..plain()
            },
            0,
        ),
        (
            "no id",
            Envelope {
                id: None,
                ..plain()
            },
            0,
        ),
        (
            "a control reply",
            Envelope {
                ticket: Some("t".into()),
                ..plain()
            },
            0,
        ),
        (
            "a name too long",
            Envelope {
                task: Some(long.as_str().into()),
                ..plain()
            },
            0,
        ),
        (
            "an origin too long",
            Envelope {
                origin: Some(long.as_str().into()),
                ..plain()
            },
            0,
        ),
        (
            "a line in a name",
            Envelope {
                task: Some("a\nb".into()),
                ..plain()
            },
            0,
        ),
        (
            "no origin",
            Envelope {
                origin: None,
                ..plain()
            },
            1,
        ),
    ];
    for (what, message, expected) in rows {
        let mut traffic = Traffic::default();
        push(&mut traffic, T0, &message);
        push(&mut traffic, T0 + 60 * S, &message);
        assert_eq!(count(&traffic), expected, "{what}: the same id counts once");
        assert_eq!(traffic.awaits(b"a"), expected == 1, "{what}");
    }
    let mut traffic = Traffic::default();
    traffic.pushed(T0, 0, b"celery", None);
    assert_eq!(count(&traffic), 0);
    assert_eq!(traffic.heard(T0).flows[0].last_in_ms, Some(T0));
}

#[test]
fn a_schedule_that_gives_all_messages_one_id_is_heard_and_a_message_that_is_moved_is_not() {
    let mut traffic = Traffic::default();
    let tagged = |tag: &'static str| Envelope {
        delivery_tag: Some(tag.into()),
        ..message("fixed", "purge", "gen7@beat")
    };
    push(&mut traffic, T0, &message("fixed", "purge", "gen7@beat"));
    for (n, tag) in (1..).zip(["b", "c", "d", "e", "f", "g"]) {
        push(&mut traffic, T0 + n * 60 * S, &tagged(tag));
        push(&mut traffic, T0 + n * 60 * S + 30 * S, &tagged(tag));
    }
    assert_eq!(count(&traffic), 7);
    let heard = traffic.heard(T0 + 400 * S);
    let rhythm = heard.lines[0].voices[0].rhythm.unwrap();
    assert!(
        is_steady(&rhythm) && rhythm.interval_ms == 60 * S,
        "{rhythm:?}"
    );
    let again = Envelope {
        redelivered: true,
        ..tagged("h")
    };
    push(&mut traffic, T0 + 500 * S, &again);
    assert_eq!(count(&traffic), 7);
}

#[test]
fn messages_are_told_apart_by_database_queue_task_entry_and_origin() {
    let mut traffic = Traffic::default();
    let of = |id, task, origin, entry: Option<&'static str>| Envelope {
        periodic_task_name: entry.map(Into::into),
        ..message(id, task, origin)
    };
    for (db, queue, message) in [
        (0, "celery", of("1", "purge", "gen7@beat", None)),
        (0, "celery", of("2", "purge", "gen8@web", None)),
        (0, "celery", of("3", "purge", "gen7@beat", Some("nightly"))),
        (1, "celery", of("4", "purge", "gen7@beat", None)),
        (0, "staging", of("5", "purge", "gen7@beat", None)),
    ] {
        traffic.pushed(T0, db, queue.as_bytes(), Some(&message));
    }
    let heard = traffic.heard(T0);
    assert_eq!(heard.lines.len(), 4);
    let voices: usize = heard.lines.iter().map(|line| line.voices.len()).sum();
    assert_eq!(voices, 5);
    let marked = heard
        .lines
        .iter()
        .find(|line| line.entry.is_some())
        .unwrap();
    assert!(marked.voices[0].marked);
}

#[test]
fn an_end_is_known_by_the_id_of_the_publish_or_by_the_tasks_name() {
    let mut traffic = Traffic::default();
    push(&mut traffic, T0, &message("a", "purge", "gen7@beat"));
    let end = |traffic: &Traffic| traffic.heard(T0).lines[0].end.clone();
    traffic.finished(T0 + S, b"other", None, "SUCCESS", None);
    traffic.finished(T0 + S, b"other", Some(("unknown", T0)), "SUCCESS", None);
    assert_eq!(end(&traffic), None);
    traffic.finished(T0 + S, b"a", None, "FAILURE", Some("KeyError"));
    let failed = End {
        at_ms: T0 + S,
        status: "FAILURE".into(),
        exc_type: Some("KeyError".into()),
        key: Some("a".into()),
    };
    assert_eq!(end(&traffic), Some(failed));
    let of = |at_ms| Some(("purge", at_ms));
    // One of long ago that is restored is no news.
    traffic.finished(T0 + 2 * S, b"other", of(T0), "SUCCESS", None);
    assert_eq!(end(&traffic).unwrap().status, "FAILURE");
    traffic.finished(T0 + 3 * S, b"other", of(T0 + 2 * S), "SUCCESS", None);
    assert_eq!(end(&traffic).unwrap().status, "SUCCESS");
    assert_eq!(end(&traffic).unwrap().at_ms, T0 + 2 * S);
}

#[test]
fn an_end_is_told_to_those_who_may_read_its_result() {
    let mut traffic = Traffic::default();
    push(&mut traffic, T0, &message("a", "purge", "gen7@beat"));
    let named = Some(("purge", T0 + S));
    traffic.finished(T0 + S, b"b:celery-task-meta-1", named, "FAILURE", None);
    let seen = |traffic: &Traffic, may: fn(&[u8]) -> bool| {
        let lines = traffic.heard_of(T0 + S, may).lines;
        lines
            .iter()
            .map(|line| line.end.is_some())
            .collect::<Vec<_>>()
    };
    let not_theirs = |key: &[u8]| !key.starts_with(b"b:");
    assert_eq!(seen(&traffic, |_| true), [true]);
    assert_eq!(
        seen(&traffic, not_theirs),
        [false],
        "the line, without its end"
    );
    assert!(seen(&traffic, |key| key.starts_with(b"b:")).is_empty());
    // Whose result it was is not known: then nobody who may not read all.
    traffic.finished(
        T0 + 2 * S,
        b"\xff",
        Some(("purge", T0 + 2 * S)),
        "SUCCESS",
        None,
    );
    assert_eq!(seen(&traffic, |_| true), [true]);
    assert_eq!(seen(&traffic, |key| key == b"celery"), [false]);
}

#[test]
fn what_was_learnt_comes_back_and_the_break_is_no_gap() {
    let mut traffic = Traffic::default();
    minutely(&mut traffic, T0, 12);
    traffic.finished(
        T0 + 700 * S,
        b"x",
        Some(("purge", T0 + 700 * S)),
        "SUCCESS",
        None,
    );
    traffic.redbeat_ticked(T0 + 700 * S, 3, b"redbeat::lock\xff", 25 * S);
    let hash = written(&mut traffic);
    assert_eq!(hash.len(), 2);
    assert!(!traffic.has_changes());

    let later = T0 + 3_600 * S;
    let mut back = read_back(&hash, later);
    assert!(!back.has_changes());
    let heard = back.heard(later);
    assert_eq!(heard.since_ms, Some(later));
    assert_eq!(heard.ticks[0].lock_key, b"redbeat::lock\xff");
    assert_eq!((heard.ticks[0].db, heard.ticks[0].timeout_ms), (3, 25 * S));
    let line = &heard.lines[0];
    assert_eq!(line.end.as_ref().unwrap().status, "SUCCESS");
    let voice = &line.voices[0];
    assert_eq!((voice.count, voice.last_ms), (12, T0 + 660 * S));
    let before = voice.rhythm.unwrap();
    assert_eq!(
        (before.interval_ms, before.even, before.gaps),
        (60 * S, true, 11)
    );

    minutely(&mut back, later, 2);
    let after = back.heard(later).lines[0].voices[0].rhythm.unwrap();
    assert_eq!(
        (after.interval_ms, after.longest_ms, after.gaps),
        (60 * S, 60 * S, 12)
    );

    // A break of seconds hides no gap of an hour.
    let hash = written(&mut back);
    let mut back = read_back(&hash, later + 61 * S);
    push(
        &mut back,
        later + 3_660 * S,
        &message("n", "purge", "gen7@beat"),
    );
    let after = back.heard(later).lines[0].voices[0].rhythm.unwrap();
    assert_eq!(after.longest_ms, 3_600 * S);
}

#[test]
fn what_was_heard_of_a_list_that_proves_a_queues_is_the_queues() {
    let mut traffic = Traffic::default();
    let of = |id: &'static str, task: &'static str| message(id, task, "gen7@beat");
    for (list, id, task) in [
        (&b"celery:3"[..], "1", "purge"),
        (b"celery", "2", "mail"),
        (b"celery:5", "3", "purge"),
        (b"other:3", "4", "purge"),
    ] {
        traffic.pushed(T0, 0, list, Some(&of(id, task)));
        traffic.popped(T0 + S, 0, list);
    }
    let mut hash = written(&mut traffic);
    for from in [&b"celery:3"[..], b"celery:5"] {
        traffic.renamed(0, from, b"celery");
    }
    let heard = traffic.heard(T0 + S);
    let mut lines: Vec<(&str, &[u8])> = heard
        .lines
        .iter()
        .map(|line| (&*line.task, &*line.queue))
        .collect();
    lines.sort_unstable();
    let other = &b"other:3"[..];
    let celery = &b"celery"[..];
    assert_eq!(
        lines,
        [("mail", celery), ("purge", celery), ("purge", other)]
    );
    let mut queues: Vec<&[u8]> = heard.flows.iter().map(|flow| &*flow.queue).collect();
    queues.sort_unstable();
    assert_eq!(queues, [celery, other]);
    write(&mut traffic, &mut hash);
    let back = read_back(&hash, T0 + 2 * S).heard(T0 + 2 * S);
    assert_eq!(back.lines.len(), 3);
    traffic.finished(T0 + S, b"x", Some(("mail", T0 + S)), "SUCCESS", None);
    let lines = traffic.heard(T0 + S).lines;
    assert!(
        lines
            .iter()
            .any(|line| line.task == "mail" && line.end.is_some())
    );
}

#[test]
fn where_messages_of_priority_0_lie_outlives_a_break_and_a_restart() {
    let mut traffic = Traffic::default();
    minutely(&mut traffic, T0, 3);
    traffic.lowest_lies(0, b"celery", 0);
    assert_eq!(traffic.lowest(0, b"celery"), None);
    traffic.lowest_lies(0, b"celery", 9);
    traffic.resumed(T0 + 200 * S);
    assert_eq!(traffic.lowest(0, b"celery"), Some(9));
    let mut back = read_back(&written(&mut traffic), T0 + 300 * S);
    assert_eq!(back.lowest(0, b"celery"), Some(9));
    assert_eq!(back.lowest(1, b"celery"), None);
    back.lowest_lies(0, b"celery", 0);
    assert_eq!(back.lowest(0, b"celery"), None);
}

#[test]
fn fields_that_are_not_ours_are_passed_over() {
    let mut traffic = Traffic::default();
    minutely(&mut traffic, T0, 8);
    let (field, value) = written(&mut traffic).pop_first().unwrap();
    let text = String::from_utf8(value.clone()).unwrap();
    let lines = |field: &[u8], value: &[u8]| {
        let traffic = Traffic::read([(field, value)].into_iter(), T0);
        traffic.heard(T0).lines.len() + traffic.heard(T0).ticks.len()
    };
    assert_eq!(lines(&field, &value), 1);
    assert_eq!(String::from_utf8_lossy(&field), "task:purge queue:0:celery");
    assert_eq!(lines(b"task:other queue:0:celery", &value), 0);
    assert_eq!(
        lines(
            b"redbeat:0:lock",
            b"{\"v\":1,\"lock_timeout_ms\":5,\"last_ms\":5}"
        ),
        1
    );
    assert_eq!(
        lines(
            b"redbeat:x:lock",
            b"{\"v\":1,\"lock_timeout_ms\":5,\"last_ms\":5}"
        ),
        0
    );
    assert_eq!(
        lines(
            b"redbeat:0:lock",
            b"{\"v\":1,\"lock_timeout_ms\":-5,\"last_ms\":5}"
        ),
        0
    );
    for (from, to) in [
        ("\"v\":1", "\"v\":2"),
        ("\"v\":1", "\"v\":1e999"),
        ("{", ""),
        ("\"task\":\"purge\"", "\"task\":7"),
        ("\"db\":0", "\"db\":-1"),
        ("\"origins\":[", "\"origins\":[7,"),
    ] {
        let broken = text.replacen(from, to, 1);
        assert_ne!(broken, text, "{from}");
        let expected = usize::from(from.contains("origins"));
        assert_eq!(lines(&field, broken.as_bytes()), expected, "{to}");
    }
    for junk in [
        &b""[..],
        b"[]",
        b"null",
        b"\xff",
        &[b'['; 20_000],
        &[b' '; 20_000],
    ] {
        assert_eq!(lines(&field, junk), 0);
    }
    // Every cut of a real value, and every byte of it changed, is survived.
    for at in 0..value.len() {
        lines(&field, &value[..at]);
        let mut odd = value.clone();
        odd[at] ^= 0x55;
        lines(&field, &odd);
    }
}

#[test]
fn a_thousand_tasks_are_kept_and_periodic_ones_before_others() {
    let mut traffic = Traffic::default();
    minutely(&mut traffic, T0, 12);
    let mut hash = written(&mut traffic);
    for n in 0..1_500 {
        let (id, task) = (format!("w{n}"), format!("web{n}"));
        push(
            &mut traffic,
            T0 + 3_600 * S + n,
            &message(&id, &task, "gen9@web"),
        );
        if n % 100 == 0 {
            write(&mut traffic, &mut hash);
        }
    }
    let heard = traffic.heard(T0);
    assert!(
        (900..=1_000).contains(&heard.lines.len()),
        "{}",
        heard.lines.len()
    );
    assert!(heard.lines.iter().any(|line| line.task == "purge"));
    assert!(heard.lines.iter().any(|line| line.task == "web1499"));
    assert!(heard.lines.iter().all(|line| line.task != "web0"));

    write(&mut traffic, &mut hash);
    assert_eq!(hash.len(), heard.lines.len());
    assert_eq!(
        read_back(&hash, T0 + 7_200 * S).heard(T0).lines.len(),
        heard.lines.len()
    );
}

#[test]
fn origins_queues_and_locks_are_bounded_too() {
    let mut traffic = Traffic::default();
    minutely(&mut traffic, T0, 12);
    for n in 0..5_000_i64 {
        let at = T0 + 720 * S + n;
        let origin = format!("gen{n}@web");
        traffic.redbeat_ticked(at, 0, origin.as_bytes(), S);
        traffic.pushed(at, 0, origin.as_bytes(), None);
        push(&mut traffic, at, &message(&origin, "purge", &origin));
    }
    let heard = traffic.heard(T0);
    assert_eq!(heard.lines[0].voices.len(), 8);
    assert!(
        heard.lines[0]
            .voices
            .iter()
            .any(|voice| voice.origin == "gen7@beat")
    );
    assert!(
        (900..=1_000).contains(&heard.flows.len()),
        "{}",
        heard.flows.len()
    );
    assert_eq!(heard.ticks.len(), 16);
    // All at one moment: a bound still leaves most of them.
    let mut traffic = Traffic::default();
    for n in 0..1_001 {
        let name = format!("t{n}");
        push(&mut traffic, T0, &message(&name, &name, "gen9@web"));
    }
    assert!(traffic.heard(T0).lines.len() > 900);
}

#[test]
fn changes_taken_step_by_step_are_those_taken_at_once() {
    let many = || {
        let mut traffic = Traffic::default();
        for n in 0..300 {
            let (id, task) = (format!("w{n}"), format!("web{n}"));
            push(&mut traffic, T0 + n, &message(&id, &task, "gen9@web"));
        }
        traffic
    };
    let whole = written(&mut many());
    assert_eq!(whole.len(), 300);
    let mut traffic = many();
    let mut hash = Hash::new();
    let mut goes = 0;
    while traffic.has_changes() {
        let changes = traffic.take_changes(|| true);
        assert!(changes.set.len() <= 1);
        hash.extend(changes.set);
        goes += 1;
    }
    assert_eq!(hash, whole);
    assert!(goes > 900, "{goes}");
}

#[test]
fn a_task_that_is_dropped_and_comes_again_while_changes_are_taken_is_there_in_the_end() {
    let mut traffic = Traffic::default();
    let mut hash = Hash::new();
    let say = |traffic: &mut Traffic, n: i64, task: &str| {
        let id = format!("{task} {n}");
        push(traffic, T0 + n, &message(&id, task, "gen9@web"));
    };
    for n in 0..900 {
        say(&mut traffic, n, &format!("web{n}"));
    }
    write(&mut traffic, &mut hash);
    let mut dropped = 0;
    for n in 900..4_000 {
        say(&mut traffic, n, &format!("web{n}"));
        if !traffic
            .series
            .values()
            .any(|series| &*series.id.task == "web0")
        {
            dropped += 1;
            say(&mut traffic, n, "web0");
        }
        let changes = traffic.take_changes(|| true);
        for field in changes.del {
            hash.remove(&field);
        }
        hash.extend(changes.set);
    }
    write(&mut traffic, &mut hash);
    assert!(dropped > 1);
    assert_eq!(hash.len(), traffic.heard(T0).lines.len());
    assert!(hash.contains_key(&b"task:web0 queue:0:celery"[..]));
}

#[test]
fn a_clock_that_steps_back_while_changes_are_taken_leaves_nothing_behind() {
    let mut traffic = Traffic::default();
    let of = |task: &'static str, at: i64| {
        let id: &'static str = Box::leak(format!("{task}{at}").into_boxed_str());
        message(id, task, "gen7@beat")
    };
    for n in 0..20 {
        for task in ["a", "b", "c"] {
            let at = T0 + n * 60 * S;
            push(&mut traffic, at, &of(task, at));
        }
    }
    // Who speaks has been noted, and nothing told yet.
    for _ in 0..5 {
        assert!(traffic.take_changes(|| true).set.is_empty());
    }
    let now = T0 - 3_600 * S;
    for task in ["a", "b", "c"] {
        push(&mut traffic, now, &of(task, now));
    }
    written(&mut traffic);
    assert!(traffic.heard(now).lines.iter().all(|line| !line.left));
}

#[test]
fn what_is_not_periodic_is_written_seldom() {
    let mut traffic = Traffic::default();
    for n in 0..40 {
        let id = n.to_string();
        push(
            &mut traffic,
            T0 + n * n * 7,
            &message(&id, "mail", "gen9@web"),
        );
    }
    written(&mut traffic);
    push(&mut traffic, T0 + 60 * S, &message("x", "mail", "gen9@web"));
    assert!(!traffic.has_changes());
    push(
        &mut traffic,
        T0 + 700 * S,
        &message("y", "mail", "gen9@web"),
    );
    assert!(traffic.has_changes());
    written(&mut traffic);
    traffic.mark_all_changed();
    assert_eq!(written(&mut traffic).len(), 1);
}

#[test]
fn a_clock_that_steps_back_leaves_nothing_in_the_future() {
    let mut traffic = Traffic::default();
    minutely(&mut traffic, T0, 12);
    traffic.redbeat_ticked(T0 + 660 * S, 0, b"redbeat::lock", 25 * S);
    let now = T0 - 3_600 * S;
    push(&mut traffic, now, &message("late", "other", "gen9@web"));
    let heard = traffic.heard(now);
    assert!(heard.since_ms <= Some(now));
    assert!(heard.ticks.iter().all(|tick| tick.last_ms <= now));
    for voice in heard.lines.iter().flat_map(|line| &line.voices) {
        assert!(voice.last_ms <= now && voice.first_ms <= now, "{voice:?}");
        assert!(voice.times_ms.iter().all(|at| *at <= now), "{voice:?}");
    }
    // Two events out of order are no step.
    push(
        &mut traffic,
        now - 500,
        &message("early", "other", "gen9@web"),
    );
    assert_eq!(traffic.heard(now).since_ms, heard.since_ms);
}

#[test]
fn the_extremes_are_survived() {
    let mut traffic = Traffic::default();
    for at in [i64::MIN, i64::MAX, 0, -1, i64::MAX, i64::MIN] {
        push(
            &mut traffic,
            at,
            &message(&at.to_string(), "purge", "gen7@beat"),
        );
        traffic.popped(at, u32::MAX, b"");
        traffic.redbeat_ticked(at, 0, b"l", i64::MAX);
        let long = "x".repeat(9_999);
        traffic.finished(at, b"", Some(("purge", at)), &long, Some("\n"));
        traffic.resumed(at);
        let _ = traffic.heard(at);
        let _ = traffic.heard(0);
        let hash = written(&mut traffic);
        read_back(&hash, at);
    }
    assert_eq!(
        traffic.heard(0).lines[0].end.as_ref().unwrap().status.len(),
        100
    );
}

/// Not a measurement; it fails only where a push grew a hundredfold.
#[test]
fn a_push_of_something_known_is_cheap() {
    let mut traffic = Traffic::default();
    let ids: Vec<String> = (0..20_000)
        .map(|n| format!("5932f627-0000-4000-8000-{n:012}"))
        .collect();
    let started = std::time::Instant::now();
    for (n, id) in (0..).zip(&ids) {
        push(
            &mut traffic,
            T0 + n * 1_000,
            &message(id, "app.tasks.purge", "gen7@beat-0"),
        );
    }
    let each = started.elapsed() / 20_000;
    println!("{each:?} a push");
    assert!(each < std::time::Duration::from_micros(100));
}

#[test]
fn who_was_there_is_known_for_longer_than_what_it_sent() {
    let mut traffic = Traffic::default();
    let mut n = 0;
    let mut say = |traffic: &mut Traffic, at: i64, task: &str, origin: &str| {
        n += 1;
        push(traffic, at, &message(&format!("id-{n}"), task, origin));
    };
    say(&mut traffic, T0, "mail", "gen1@web");
    // Nine others, each of them newer: no room is left for it.
    for other in 2..11 {
        say(
            &mut traffic,
            T0 + other * S,
            "mail",
            &format!("gen{other}@web"),
        );
    }
    say(&mut traffic, T0 + 60 * S, "purge", "gen1@web");
    say(&mut traffic, T0 + 61 * S, "purge", "gen99@web");
    let known = |traffic: &Traffic, origin: &str| {
        let lines = traffic.heard(T0 + 70 * S).lines;
        let purge = lines.into_iter().find(|line| line.task == "purge");
        let mut voices = purge.unwrap().voices.into_iter();
        voices
            .find(|v| v.origin == origin)
            .map(|v| (v.known_ms - T0, v.first_ms - T0))
    };
    assert_eq!(known(&traffic, "gen1@web"), Some((0, 60 * S)));
    assert_eq!(known(&traffic, "gen99@web"), Some((61 * S, 61 * S)));
    // A clock that steps back takes all of it along.
    say(&mut traffic, T0 + 11 * S, "purge", "gen100@web");
    assert_eq!(known(&traffic, "gen1@web"), Some((-50 * S, 10 * S)));
}

#[test]
fn a_beats_slow_task_is_kept_among_many_and_so_is_that_they_are_many() {
    let mut traffic = Traffic::default();
    let mut sent: Vec<(i64, &str, String)> = Vec::new();
    for n in 0..60 {
        sent.push((n * 60, "fast", "gen7@beat".to_owned()));
        sent.push((n * 60 + 20, "fast", format!("gen{n}@web")));
        sent.push((n * 60 + 21, "slow", format!("gen{n}@web")));
    }
    sent.push((9 * 60 + 1, "slow", "gen7@beat".to_owned()));
    sent.sort();
    for (n, (at, task, origin)) in (0..).zip(&sent) {
        let id = format!("id-{n}");
        push(&mut traffic, T0 + at * S, &message(&id, task, origin));
    }
    let end = T0 + 61 * 60 * S;
    let line = |traffic: &Traffic, task: &str| {
        let lines = traffic.heard(end).lines;
        lines.into_iter().find(|line| line.task == task).unwrap()
    };
    let has_beat = |line: &Line| line.voices.iter().any(|v| v.origin == "gen7@beat");
    assert!(has_beat(&line(&traffic, "slow")));
    assert_eq!(line(&traffic, "fast").crowd, 16);
    // Nor does a restart of the server lose that.
    let hash = traffic.take_changes(|| false).set;
    let fields = hash.iter().map(|(f, v)| (f.as_slice(), v.as_slice()));
    let again = Traffic::read(fields, end);
    assert!(has_beat(&line(&again, "slow")));
    assert_eq!(line(&again, "fast").crowd, 16);
}
