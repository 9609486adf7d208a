//! The reply: names, order, kinds of values, and what stands in for the unknown.

use super::scenarios::{
    H, MIN, NOW, S, celery, entry, expect, marked, queue, redbeat, taken, with, workers,
};
use super::*;
use crate::core::reply::Reply;

/// Field names in order, nested ones with their parent in front.
fn names(reply: &Reply, at: &str, out: &mut Vec<String>) {
    match reply {
        Reply::Map(fields) => {
            for (name, value) in fields {
                let path = format!("{at}{}", String::from_utf8_lossy(name));
                out.push(path.clone());
                names(value, &format!("{path}."), out);
            }
        }
        Reply::Array(items) => {
            if let Some(first) = items.first() {
                names(first, at, out);
            }
        }
        Reply::Done | Reply::Int(_) | Reply::Bulk(_) => {}
        Reply::Text(text) => panic!("a verbatim string at {at}: {text}"),
    }
}

fn pick<'a>(reply: &'a Reply, path: &str) -> &'a Reply {
    path.split('.').fold(reply, |reply, step| match reply {
        Reply::Map(fields) => {
            let found = fields
                .iter()
                .find(|(name, _)| name.as_ref() == step.as_bytes());
            &found.unwrap_or_else(|| panic!("no field {step}")).1
        }
        Reply::Array(items) => &items[step.parse::<usize>().unwrap()],
        other => panic!("no {step} in {other:?}"),
    })
}

fn full() -> Evidence {
    with(|e| {
        e.expected = vec![expect("purge", H)];
        e.redbeat = vec![redbeat(
            Hold::Ttl(1_400 * S),
            vec![entry("tick", MIN, 30 * S, 30 * S)],
        )];
        e.queues = vec![
            Queue {
                per_priority: vec![(0, 1), (3, 2), (6, 3), (9, 4)],
                ..queue("celery", 10)
            },
            queue("\u{6}", 0),
        ];
        e.sightings = vec![marked("purge", "celery", 1, Some(S))];
        e.workers = Workers {
            bound: vec![b"w1@host".to_vec()],
            ..workers(Some(1), Some(0))
        };
        e.unacked = vec![taken(1, 10 * S, Hold::Absent)];
        e.heard.since_ms = Some(NOW - H);
        e.heard.lines = vec![Line {
            task: "purge".to_owned(),
            voices: vec![Voice {
                origin: "gen7@beat".to_owned(),
                last_ms: NOW - S,
                marked: true,
                ..Voice::default()
            }],
            ..Line::default()
        }];
    })
}

#[test]
fn the_reply_has_the_contracts_fields_in_order() {
    let mut got = Vec::new();
    names(&reply(&judge(&full(), NOW), false), "", &mut got);
    assert_eq!(
        got.join(" "),
        "verdict reason \
         publisher publisher.state publisher.certainty publisher.last_seen_ms publisher.origins publisher.source \
         tasks tasks.name tasks.interval_s tasks.last_published_ms tasks.last_finished_ms tasks.last_status tasks.overdue \
         queues queues.name queues.db queues.length queues.oldest_message_s queues.in_per_min queues.out_per_min queues.consumed queues.maintenance \
         workers workers.live workers.bound workers.blocked_consumers \
         unacked unacked.count unacked.oldest_s unacked.stuck unacked.mutex unacked.duplicate_deliveries \
         redbeat redbeat.lock redbeat.lock_ttl_ms redbeat.entries redbeat.overdue_entries redbeat.entries_without_definition"
    );
}

#[test]
fn verbose_adds_fields_and_changes_none() {
    let mut evidence = full();
    evidence.unacked[0].mutex = Hold::NoTtl;
    let assessment = judge(&evidence, NOW);
    let (mut plain, mut verbose) = (Vec::new(), Vec::new());
    names(&reply(&assessment, false), "", &mut plain);
    names(&reply(&assessment, true), "", &mut verbose);
    let added: Vec<String> = verbose
        .iter()
        .filter(|name| !plain.contains(name))
        .cloned()
        .collect();
    assert_eq!(
        added.join(" "),
        "tasks.last_exception queues.per_priority queues.per_priority.priority queues.per_priority.length \
         unacked.mutex_ttl_ms unacked.eta_ahead unacked.redelivered \
         watch watch.since_ms \
         watch.origins watch.origins.origin watch.origins.first_ms watch.origins.last_ms watch.origins.count watch.origins.beat \
         watch.rhythms watch.rhythms.task watch.rhythms.periodic_name watch.rhythms.db watch.rhythms.queue watch.rhythms.origin \
         watch.rhythms.first_ms watch.rhythms.last_ms watch.rhythms.count watch.rhythms.interval_ms watch.rhythms.longest_gap_ms \
         watch.rhythms.rhythm watch.rhythms.marked watch.rhythms.beat \
         faults faults.code faults.severity faults.detail faults.advice evidence next next.command next.what_for"
    );
    verbose.retain(|name| plain.contains(name));
    assert_eq!(verbose, plain);
}

#[test]
fn every_field_name_is_snake_case() {
    let mut got = Vec::new();
    names(&reply(&judge(&full(), NOW), true), "", &mut got);
    for name in got {
        let plain = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.';
        assert!(name.chars().all(plain), "{name}");
    }
}

#[test]
fn the_reply_says_what_was_judged() {
    let told = reply(&judge(&full(), NOW), true);
    for (path, want) in [
        ("verdict", Reply::word("healthy")),
        ("publisher.state", Reply::word("alive")),
        ("publisher.source", Reply::word("beat header")),
        ("publisher.last_seen_ms", Reply::Int(NOW - S)),
        ("tasks.1.name", Reply::word("purge")),
        ("tasks.1.interval_s", Reply::Int(3600)),
        ("tasks.1.last_finished_ms", Reply::Int(-1)),
        ("tasks.1.last_status", Reply::word("")),
        // C15: one queue of length 10, its four lists told apart on demand.
        ("queues.0.length", Reply::Int(10)),
        ("queues.0.per_priority.3.priority", Reply::Int(9)),
        ("queues.0.per_priority.3.length", Reply::Int(4)),
        ("queues.0.consumed", Reply::word("unknown")),
        ("queues.0.maintenance", Reply::word("no")),
        ("queues.0.oldest_message_s", Reply::Int(-1)),
        ("queues.1.name", Reply::word("\u{6}")),
        ("workers.bound.0", Reply::word("w1@host")),
        ("unacked.oldest_s", Reply::Int(10)),
        ("unacked.mutex", Reply::word("absent")),
        ("redbeat.lock", Reply::word("held")),
        ("redbeat.lock_ttl_ms", Reply::Int(1_400 * S)),
        ("redbeat.entries", Reply::Int(1)),
    ] {
        assert_eq!(pick(&told, path), &want, "{path}");
    }
}

#[test]
fn what_is_not_known_is_minus_one_and_redbeat_is_left_out() {
    let told = reply(&judge(&celery(), NOW), false);
    for path in [
        "publisher.last_seen_ms",
        "workers.live",
        "workers.blocked_consumers",
        "unacked.oldest_s",
    ] {
        assert_eq!(pick(&told, path), &Reply::Int(-1), "{path}");
    }
    let Reply::Map(fields) = &told else {
        panic!("not a map")
    };
    assert!(fields.iter().all(|(name, _)| name.as_ref() != b"redbeat"));
}

#[test]
fn long_lists_are_cut_after_the_worst() {
    let evidence = with(|e| {
        e.queues = (0..300).map(|n| queue(&format!("q{n}"), n)).collect();
        e.workers = workers(Some(1), Some(1));
    });
    let Reply::Array(queues) = pick(&reply(&judge(&evidence, NOW), false), "queues").clone() else {
        panic!("not a list")
    };
    assert_eq!(queues.len(), 100);
    assert_eq!(pick(&queues[0], "name"), &Reply::word("q299"));
}
