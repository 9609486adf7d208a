//! HYGIENE.ORPHANS: what is found, what PURGE takes and leaves, and how REQUEUE puts
//! messages back.

use std::collections::{BTreeMap, BTreeSet};

use redis::Cmd;

use crate::celery::{
    Clock, HOUR, Message, SEP, binding, event, oid, old_unacked, queue_key, reply_binding,
    reply_list, seed_big_reply_lists, seed_results,
};
use crate::client::{Conn, Fields, bytes, list, text};
use crate::cmd;
use crate::data::{DataSet, append_only_commands, wait_until_in_step};
use crate::jobs;
use crate::keys::{keys, restore_idle};
use crate::server::{Server, Setup, on_every_server};

const DAY: i64 = 24 * HOUR;

/// One class of an answer.
fn of(answer: &Fields, class: &str) -> Fields {
    answer.one("orphans", "class", class)
}

/// How many of a class there are, are orphans, and why others are none.
fn figures(answer: &Fields, class: &str) -> (i64, i64, Vec<(String, i64)>) {
    let found = of(answer, class);
    let kept = found
        .maps("kept")
        .iter()
        .map(|kept| (kept.text("why"), kept.int("count")))
        .collect();
    (found.int("total"), found.int("orphans"), kept)
}

/// Whether a word stands in one of the reasons.
fn kept_for(answer: &Fields, class: &str, word: &str) -> i64 {
    figures(answer, class)
        .2
        .iter()
        .filter(|(why, _)| why.contains(word))
        .map(|(_, count)| count)
        .sum()
}

/// An answer without what differs between two runs over the same data: how long they
/// took, and ages, a second of which may pass in between.
fn lasting(answer: &Fields) -> Vec<(String, redis::Value)> {
    answer
        .0
        .iter()
        .filter(|(name, _)| !["duration_ms", "server_ms"].contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), ageless(value)))
        .collect()
}

/// The same without ages: in maps, and in flat lists of names and values.
fn ageless(value: &redis::Value) -> redis::Value {
    use redis::Value::{Array, Int, Map};
    let is_age = |name: &redis::Value| matches!(bytes_of(name), Some(b"oldest_s"));
    match value {
        Array(items) => {
            let mut kept: Vec<redis::Value> = Vec::new();
            for item in items {
                let age = kept.last().is_some_and(is_age);
                kept.push(if age { Int(0) } else { ageless(item) });
            }
            Array(kept)
        }
        Map(fields) => Map(fields
            .iter()
            .map(|(name, value)| {
                let value = if is_age(name) { Int(0) } else { ageless(value) };
                (name.clone(), value)
            })
            .collect()),
        other => other.clone(),
    }
}

fn bytes_of(value: &redis::Value) -> Option<&[u8]> {
    match value {
        redis::Value::BulkString(bytes) => Some(bytes),
        redis::Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

/// Lays a key to rest for so long.
async fn rest(conn: &mut Conn, key: &str, idle_s: i64) {
    restore_idle(conn, key, key, idle_s).await;
}

async fn start(binary: &'static crate::server::Binary) -> (Server, Conn) {
    let server = Setup::on(binary).setting("enforce", "no").start().await;
    let conn = server.connect().await;
    (server, conn)
}

/// Six reply lists: four of them bound, two of those and one other long unread.
async fn some_reply_lists(conn: &mut Conn) {
    for n in 0..6 {
        let name = reply_list(n);
        conn.run(cmd!["LPUSH", &name, "x".repeat(10_000)]).await;
        if n < 4 {
            conn.run(reply_binding(n)).await;
        }
        if [0, 1, 5].contains(&n) {
            rest(conn, &name, 2 * HOUR).await;
        }
    }
}

#[tokio::test]
async fn a_report_finds_all_kinds_and_is_no_use_of_anything() {
    on_every_server(async |binary| {
        let (server, mut conn) = start(binary).await;
        let clock = Clock::of(&mut conn).await;
        seed_results(&mut conn, "s", 50).await;
        some_reply_lists(&mut conn).await;
        conn.run("LPUSH celeryev.a 1").await;
        rest(&mut conn, "celeryev.a", 2 * HOUR).await;
        conn.run(binding("celeryev", "#", "celeryev.gone")).await;
        rest(&mut conn, "_kombu.binding.celeryev", 2 * HOUR).await;
        conn.run("SET celery-taskset-meta-G.s 5").await;
        rest(&mut conn, "celery-taskset-meta-G.s", 2 * DAY).await;
        conn.run(binding("celery", "celery", "celery")).await;
        let late = Message::new("a.b", "late");
        conn.pipe(late.unacked_by("", "celery", clock.ago_s(25 * HOUR)))
            .await;
        conn.pipe(Message::new("a.b", "now").unacked(clock.ago_s(5)))
            .await;

        let before = DataSet::of(&server).await;
        let idle = [
            (reply_list(0), 2 * HOUR),
            (reply_list(1), 2 * HOUR),
            (reply_list(5), 2 * HOUR),
            ("celeryev.a".to_owned(), 2 * HOUR),
            ("_kombu.binding.celeryev".to_owned(), 2 * HOUR),
            ("celery-taskset-meta-G.s".to_owned(), 2 * DAY),
            ("unacked".to_owned(), 2 * HOUR),
            ("unacked_index".to_owned(), 2 * HOUR),
            ("_kombu.binding.celery".to_owned(), 2 * HOUR),
        ];
        // Reading all of it was a use.
        for (key, idle_s) in &idle {
            rest(&mut conn, key, *idle_s).await;
        }
        for mut conn in [server.connect().await, server.connect_resp3().await] {
            let answer = conn.fields("HYGIENE.ORPHANS").await;
            assert_eq!(answer.text("complete"), "yes");
            for (class, total, orphans) in [
                ("unacked", 1, 1),
                ("reply_queue", 6, 3),
                ("event_queue", 1, 1),
                ("binding", 5, 1),
                ("chord", 1, 1),
            ] {
                let (found, lost, kept) = figures(&answer, class);
                assert_eq!((found, lost), (total, orphans), "{class}: {kept:?}");
                let advice = of(&answer, class).text("advice");
                assert!(advice.contains("HYGIENE.ORPHANS "), "{class}: {advice}");
            }
            assert!((2 * HOUR..3 * HOUR).contains(&of(&answer, "binding").int("oldest_s")));
            let places = answer.maps("unacked");
            let [place] = places.as_slice() else {
                panic!("{places:?}");
            };
            assert_eq!(place.text("name"), "unacked");
            assert_eq!((place.int("messages"), place.int("stuck")), (2, 1));
            assert!(place.int("oldest_s") >= 25 * HOUR);
            assert_eq!(place.text("mutex"), "absent");
        }
        for (key, idle_s) in &idle {
            let now = conn.int(cmd!["OBJECT", "IDLETIME", key]).await;
            // Where the server must be asked by a command, Valkey 9.1 takes an idle
            // time back in thousands of seconds only.
            let least = idle_s / 1000 * 1000;
            assert!((least..idle_s + HOUR).contains(&now), "{key}: {now}");
        }
        before.assert_same(&DataSet::of(&server).await, "after a report");
    })
    .await;
}

#[tokio::test]
async fn twenty_two_reply_lists_go_with_their_bindings_and_a_live_one_stays() {
    on_every_server(async |binary| {
        let (server, mut conn) = start(binary).await;
        let lists = seed_big_reply_lists(&mut conn).await;
        for list in &lists {
            rest(&mut conn, list, 2 * HOUR).await;
        }
        conn.run(cmd!["LPUSH", reply_list(99), "{}"]).await;
        conn.run(reply_binding(99)).await;
        let before = DataSet::of(&server).await;
        // Reading them was a use.
        for list in &lists {
            rest(&mut conn, list, 2 * HOUR).await;
        }
        let dry = conn
            .fields("HYGIENE.ORPHANS PURGE reply_queue DRYRUN")
            .await;
        before.assert_same(&DataSet::of(&server).await, "after a dry run");
        for list in &lists {
            rest(&mut conn, list, 2 * HOUR).await;
        }
        let done = conn.fields("HYGIENE.ORPHANS PURGE reply_queue").await;
        assert_eq!(
            done.ints(&["purged", "members_removed"]),
            dry.ints(&["purged", "members_removed"])
        );
        assert_eq!((done.int("purged"), done.int("members_removed")), (22, 12));
        assert!(done.int("bytes_freed") > 22_000_000, "{done:?}");
        assert_eq!(conn.int("EXISTS unacked").await, 0);
        let left = conn.int("SCARD _kombu.binding.reply.celery.pidbox").await;
        assert_eq!(left, 1, "the one that is in use");
        assert_eq!(conn.int(cmd!["LLEN", reply_list(99)]).await, 1);
        let again = conn.fields("HYGIENE.ORPHANS PURGE reply_queue").await;
        assert_eq!((again.int("purged"), again.int("members_removed")), (0, 0));
        assert!(server.log().contains("ORPHANS PURGE reply_queue by client"));
        assert_eq!(
            conn.info("hygiene", "hygiene_purged_total").await,
            Some("22".to_owned())
        );
    })
    .await;
}

#[tokio::test]
async fn event_queues_go_with_their_members_and_members_without_a_list_by_themselves() {
    on_every_server(async |binary| {
        let (_server, mut conn) = start(binary).await;
        let clock = Clock::of(&mut conn).await;
        for n in 0..200 {
            let name = format!("celeryev.{}", oid(n));
            let mut push = cmd!["RPUSH", &name];
            push.arg((0..50).map(|n| event(clock.ago(n * 2))).collect::<Vec<_>>());
            conn.run(push).await;
            rest(&mut conn, &name, 2 * HOUR).await;
        }
        let members = (0..240).map(|n| binding("celeryev", "#", &format!("celeryev.{}", oid(n))));
        conn.pipe(members).await;
        rest(&mut conn, "_kombu.binding.celeryev", 2 * HOUR).await;

        let report = conn.fields("HYGIENE.ORPHANS LIMIT 3").await;
        assert_eq!(figures(&report, "event_queue").1, 200);
        assert_eq!(of(&report, "event_queue").maps("names").len(), 3);
        let (total, orphans, _) = figures(&report, "binding");
        assert_eq!((total, orphans), (240, 40));

        let done = conn
            .fields("HYGIENE.ORPHANS PURGE event_queue LIMIT 150")
            .await;
        assert_eq!(
            (done.int("purged"), done.int("members_removed")),
            (150, 150)
        );
        let done = conn.fields("HYGIENE.ORPHANS PURGE event_queue").await;
        assert_eq!((done.int("purged"), done.int("members_removed")), (50, 50));
        assert_eq!(conn.int("DBSIZE").await, 1);
        // That was no use of the table: the rest can be told.
        let done = conn.fields("HYGIENE.ORPHANS PURGE binding").await;
        assert_eq!((done.int("purged"), done.int("members_removed")), (40, 40));
        assert_eq!(conn.int("DBSIZE").await, 0);
    })
    .await;
}

#[tokio::test]
async fn an_event_queue_that_workers_still_write_is_known_by_its_oldest_event() {
    on_every_server(async |binary| {
        let (_server, mut conn) = start(binary).await;
        let clock = Clock::of(&mut conn).await;
        for (name, oldest_s) in [("celeryev.dead", 3 * HOUR), ("celeryev.live", 30)] {
            conn.run(binding("celeryev", "#", name)).await;
            for ago in [oldest_s, 10, 0] {
                conn.run(cmd!["LPUSH", name, event(clock.ago(ago))]).await;
            }
        }
        // Of a list whose elements are none nothing is known.
        conn.run("LPUSH celeryev.strange 1").await;
        let done = conn.fields("HYGIENE.ORPHANS PURGE event_queue").await;
        assert_eq!((done.int("purged"), done.int("members_removed")), (1, 1));
        assert_eq!(conn.int("EXISTS celeryev.dead").await, 0);
        assert_eq!(conn.int("EXISTS celeryev.live celeryev.strange").await, 2);
        let members = list(&conn.value("SMEMBERS _kombu.binding.celeryev").await);
        assert_eq!(members.len(), 1);
        assert!(text(&members[0]).ends_with("celeryev.live"));
    })
    .await;
}

#[tokio::test]
async fn kombu_5_7s_second_table_is_kept_in_step() {
    on_every_server(async |binary| {
        let (_server, mut conn) = start(binary).await;
        for name in ["celeryev.a", "celeryev.gone"] {
            conn.run(binding("celeryev", "#", name)).await;
            let member = format!("#{SEP}{SEP}{name}");
            conn.run(cmd!["SADD", "_kombu.binding_permanent.celeryev", member])
                .await;
        }
        conn.run("LPUSH celeryev.a 1").await;
        rest(&mut conn, "celeryev.a", 2 * HOUR).await;
        rest(&mut conn, "_kombu.binding.celeryev", 2 * HOUR).await;
        conn.run("HYGIENE.ORPHANS PURGE event_queue").await;
        assert_eq!(conn.int("SCARD _kombu.binding_permanent.celeryev").await, 1);
        conn.run("HYGIENE.ORPHANS PURGE binding").await;
        assert_eq!(conn.int("DBSIZE").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_binding_of_a_queue_of_tasks_is_never_stale_and_one_of_a_process_only_if_it_is_gone() {
    on_every_server(async |binary| {
        let (server, mut conn) = start(binary).await;
        // An empty queue has no list: that is no sign of anything.
        for (exchange, queue) in [
            ("celery", "celery"),
            ("default", "mail"),
            ("celeryev", "audit"),
            ("reply.celery.pidbox", "odd"),
            ("w1.dq", "w1@lab.dq"),
        ] {
            conn.run(binding(exchange, queue, queue)).await;
        }
        conn.run(binding("celery.pidbox", "", "w1@lab.celery.pidbox"))
            .await;
        conn.run(binding("celeryev", "worker.#", "celeryev.gossip"))
            .await;
        conn.run(reply_binding(1)).await;
        let tables = [
            "_kombu.binding.celery.pidbox",
            "_kombu.binding.celeryev",
            "_kombu.binding.reply.celery.pidbox",
        ];
        // All in use lately: only the worker's, that nothing is routed by, is stale.
        let young = conn.fields("HYGIENE.ORPHANS").await;
        assert_eq!(figures(&young, "binding").1, 1, "{young:?}");
        for table in tables {
            rest(&mut conn, table, 2 * HOUR).await;
        }
        {
            // A worker that is there is subscribed to patterns.
            let mut worker = server.connect_resp3().await;
            worker.run("PSUBSCRIBE /0.celery.pidbox").await;
            let live = conn.fields("HYGIENE.ORPHANS PURGE binding").await;
            assert_eq!(
                live.int("purged"),
                1,
                "an asker is told by its table: {live:?}"
            );
            assert_eq!(kept_for(&live, "binding", "connected"), 2);
        }
        crate::server::wait_for(
            "the worker to be gone",
            std::time::Duration::from_secs(10),
            async || crate::server::same(conn.int("PUBSUB NUMPAT").await, 0),
        )
        .await;
        let done = conn.fields("HYGIENE.ORPHANS PURGE binding").await;
        assert_eq!(done.int("purged"), 2);
        let mut left = Vec::new();
        for exchange in [
            "celery",
            "default",
            "celeryev",
            "reply.celery.pidbox",
            "w1.dq",
        ] {
            left.push(
                conn.int(cmd!["SCARD", format!("_kombu.binding.{exchange}")])
                    .await,
            );
        }
        assert_eq!(left, [1; 5], "those of queues of tasks");
    })
    .await;
}

#[tokio::test]
async fn a_chord_goes_as_a_whole_after_a_day_and_never_while_a_part_may_come() {
    on_every_server(async |binary| {
        let (_server, mut conn) = start(binary).await;
        for group in ["dead", "live"] {
            let key = |end: &str| format!("celery-taskset-meta-{group}{end}");
            conn.run(cmd!["ZADD", key(".j"), 0, "[1, \"t\", \"SUCCESS\", 3]"])
                .await;
            conn.run(cmd!["SET", key(".s"), "120000"]).await;
            conn.run(cmd!["SET", key(".t"), "120001"]).await;
            conn.run(cmd!["SADD", key(".d"), "t:0"]).await;
            for end in [".j", ".t", ".d"] {
                rest(&mut conn, &key(end), 2 * DAY).await;
            }
            let idle = if group == "dead" { 2 * DAY } else { 23 * HOUR };
            rest(&mut conn, &key(".s"), idle).await;
        }
        // A saved group of an unlucky name, and one whose chord is gone.
        conn.run("SET celery-taskset-meta-dead {\"result\":[]}")
            .await;
        rest(&mut conn, "celery-taskset-meta-dead", 9 * DAY).await;
        let why = conn.error("HYGIENE.ORPHANS PURGE chord OLDERTHAN 1h").await;
        assert!(why.contains("expected at least 1d"), "{why}");
        let dry = conn.fields("HYGIENE.ORPHANS PURGE chord DRYRUN").await;
        let done = conn.fields("HYGIENE.ORPHANS PURGE chord").await;
        assert_eq!(lasting(&dry), lasting(&done));
        assert_eq!(done.int("purged"), 1);
        assert_eq!(kept_for(&done, "chord", "part"), 1);
        let left: Vec<String> = {
            let mut keys: Vec<String> =
                list(&conn.value("KEYS *").await).iter().map(text).collect();
            keys.sort();
            keys
        };
        assert_eq!(
            left,
            ["dead", "live.d", "live.j", "live.s", "live.t"]
                .map(|end| format!("celery-taskset-meta-{end}"))
        );
    })
    .await;
}

#[tokio::test]
async fn what_holds_work_is_refused_with_the_reason_and_wrong_words_by_name() {
    let server = Setup::new().start().await;
    let mut conn = server.connect().await;
    for (words, expected) in [
        ("PURGE queue", "work that is not done yet"),
        ("PURGE unacked", "REQUEUE puts stuck ones back"),
        ("PURGE redbeat", "schedule of periodic tasks"),
        ("PURGE task_result", "FIXTTL"),
        ("PURGE rpc_reply", "a client may still come"),
        ("PURGE other", "not Celery's"),
        ("PURGE lock", "its holder may be at work"),
        ("PURGE all", "PURGE 'all': expected reply_queue"),
        ("PURGE", "PURGE needs a value"),
        ("REQUEUE PURGE chord", "REQUEUE or PURGE is given twice"),
        ("REQUEUE OLDERTHAN 1m", "OLDERTHAN 1m: expected at least 1h"),
        ("OLDERTHAN x", "OLDERTHAN 'x': expected seconds"),
        ("LIMIT 0", "LIMIT '0'"),
        ("DB 16", "DB '16': this server has no such database"),
        ("DB 0 ALLDBS", "DB or ALLDBS is given twice"),
        ("MATCH a", "unknown option 'MATCH'"),
    ] {
        let why = conn.error(format!("HYGIENE.ORPHANS {words}")).await;
        assert!(
            why.starts_with("ERR ") && why.contains(expected),
            "{words}: {why}"
        );
    }
}

#[tokio::test]
async fn without_idle_times_only_what_dates_itself_can_be_purged() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .config("maxmemory-policy allkeys-lfu")
            .start()
            .await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        conn.run(cmd!["LPUSH", reply_list(1), "1"]).await;
        conn.run(cmd!["LPUSH", "celeryev.a", event(clock.ago(2 * HOUR))])
            .await;
        for class in ["reply_queue", "binding", "chord"] {
            let why = conn.error(format!("HYGIENE.ORPHANS PURGE {class}")).await;
            assert!(why.contains("LFU"), "{class}: {why}");
        }
        let report = conn.fields("HYGIENE.ORPHANS").await;
        assert_eq!(kept_for(&report, "reply_queue", "LFU"), 1);
        let done = conn.fields("HYGIENE.ORPHANS PURGE event_queue").await;
        assert_eq!(done.int("purged"), 1);
    })
    .await;
}

#[tokio::test]
async fn a_stuck_message_goes_back_as_kombu_puts_it_back_and_never_twice() {
    on_every_server(async |binary| {
        let (server, mut conn) = start(binary).await;
        let clock = Clock::of(&mut conn).await;
        let waits = Message::new("a.b", "waits");
        conn.run(waits.push()).await;
        let plain = Message::new("a.b", "plain");
        let older = Message::new("a.b", "older");
        conn.pipe(older.unacked(clock.ago_s(3 * HOUR))).await;
        let urgent = Message::new("a.b", "urgent").priority(7);
        let elsewhere = Message::new("a.b", "elsewhere").queue("mail");
        for message in [&plain, &urgent, &elsewhere] {
            conn.pipe(message.unacked(clock.ago_s(2 * HOUR))).await;
        }
        let dry = conn.fields("HYGIENE.ORPHANS REQUEUE DRYRUN").await;
        assert_eq!(
            (dry.int("requeued"), conn.int("HLEN unacked").await),
            (4, 4)
        );
        let done = conn.fields("HYGIENE.ORPHANS REQUEUE").await;
        assert_eq!(lasting(&dry), lasting(&done));
        assert_eq!(conn.int("EXISTS unacked unacked_index").await, 0);
        for (list_name, expected) in [
            (
                "celery".to_owned(),
                vec![waits.body(), plain.redelivered(), older.redelivered()],
            ),
            (queue_key("celery", 6), vec![urgent.redelivered()]),
            ("mail".to_owned(), vec![elsewhere.redelivered()]),
        ] {
            // At the end that is read next, the oldest last.
            let found = conn.value(cmd!["LRANGE", &list_name, 0, -1]).await;
            let found: Vec<String> = list(&found).iter().map(text).collect();
            assert_eq!(found, expected, "{list_name}");
        }
        let again = conn.fields("HYGIENE.ORPHANS REQUEUE").await;
        assert_eq!(again.int("requeued"), 0);
        assert_eq!(conn.int("LLEN celery").await, 3);
        assert!(server.log().contains("4 messages put back"));
    })
    .await;
}

#[tokio::test]
async fn five_hundred_stuck_behind_a_mutex_without_ttl_come_back_once_it_expires() {
    on_every_server(async |binary| {
        let (_server, mut conn) = start(binary).await;
        let clock = Clock::of(&mut conn).await;
        let mut late = BTreeSet::new();
        for n in 0..500 {
            let id = format!("m{n:03}");
            let age_s = 10 + n * (25 * HOUR - 10) / 499;
            let mut message = Message::new("a.b", &id);
            if n % 10 == 0 {
                // Hours ahead: it waits there for its time.
                message = message.eta(clock.ago(-5 * HOUR));
            } else if age_s > HOUR + 60 {
                late.insert(id);
            }
            conn.pipe(message.unacked(clock.ago_s(age_s))).await;
        }
        conn.run("SET unacked_mutex token").await;
        let blocked = conn.fields("HYGIENE.ORPHANS REQUEUE").await;
        assert_eq!(blocked.int("requeued"), 0);
        assert_eq!(blocked.maps("unacked")[0].text("mutex"), "no_ttl");
        let why = kept_for(&blocked, "unacked", "no TTL");
        assert_eq!(usize::try_from(why).unwrap(), late.len());
        conn.run("PEXPIRE unacked_mutex 60000").await;
        let held = conn.fields("HYGIENE.ORPHANS REQUEUE").await;
        assert_eq!(held.int("requeued"), 0);
        assert_eq!(held.maps("unacked")[0].text("mutex"), "held");
        assert_eq!(conn.int("HLEN unacked").await, 500);
        assert_eq!(
            conn.text("GET unacked_mutex").await,
            "token",
            "not ours to free"
        );

        conn.run("DEL unacked_mutex").await;
        let done = conn.fields("HYGIENE.ORPHANS REQUEUE").await;
        assert_eq!(usize::try_from(done.int("requeued")).unwrap(), late.len());
        let place = &done.maps("unacked")[0];
        assert!(place.int("oldest_s") >= 24 * HOUR && place.int("waiting") > 40);
        let back = list(&conn.value("LRANGE celery 0 -1").await);
        let back: BTreeSet<String> = back
            .iter()
            .map(|element| {
                let message: serde_json::Value = serde_json::from_slice(&bytes(element)).unwrap();
                message["headers"]["id"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(back, late);
        let left = 500 - i64::try_from(late.len()).unwrap();
        assert_eq!(conn.int("HLEN unacked").await, left);
        assert_eq!(conn.int("ZCARD unacked_index").await, left);
        assert_eq!(conn.int("EXISTS unacked_mutex").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_message_finds_its_queue_by_the_bindings_and_is_left_where_there_is_none() {
    on_every_server(async |binary| {
        let (_server, mut conn) = start(binary).await;
        let clock = Clock::of(&mut conn).await;
        let then = clock.ago_s(2 * HOUR);
        let member =
            |key: &str, pattern: &str, queue: &str| format!("{key}{SEP}{pattern}{SEP}{queue}");
        for (table, member) in [
            ("_kombu.binding.direct", member("mail", "", "letters")),
            (
                "_kombu.binding.topic",
                member("order.#", r"^order\..*?$", "orders"),
            ),
            (
                "_kombu.binding.topic",
                member("order.*", r"^order\.[^\.]+$", "audit"),
            ),
            // Behind a prefix that no setting names, with another separator.
            ("shop:_kombu.binding.celery", "celery::::celery".to_owned()),
        ] {
            conn.run(cmd!["SADD", table, member]).await;
        }
        let of = |id: &str, key: &str| Message::new("a.b", id).queue(key);
        conn.pipe(of("d", "mail").unacked_by("", "direct", then))
            .await;
        conn.pipe(of("t", "order.new").unacked_by("", "topic", then))
            .await;
        conn.pipe(of("deep", "order.new.eu").unacked_by("", "topic", then))
            .await;
        conn.pipe(of("lost", "x").unacked_by("", "direct", then))
            .await;
        conn.pipe(of("gone", "x").unacked_by("", "dropped", then))
            .await;
        conn.pipe(
            of("p", "celery")
                .priority(3)
                .unacked_by("shop:", "celery", then),
        )
        .await;
        conn.run("SET wrong text").await;
        conn.pipe(of("w", "wrong").unacked(then)).await;

        let done = conn.fields("HYGIENE.ORPHANS REQUEUE").await;
        assert_eq!(done.int("requeued"), 4, "{done:?}");
        assert_eq!(kept_for(&done, "unacked", "no binding"), 2);
        assert_eq!(kept_for(&done, "unacked", "is no list"), 1);
        for (name, length) in [
            ("letters", 1),
            ("orders", 2),
            ("audit", 1),
            ("shop:celery::3", 1),
        ] {
            assert_eq!(conn.int(cmd!["LLEN", name]).await, length, "{name}");
        }
        let left = list(&conn.value("HKEYS unacked").await);
        let left: BTreeSet<String> = left.iter().map(text).collect();
        assert_eq!(
            left,
            ["tag-gone", "tag-lost", "tag-w"].map(str::to_owned).into()
        );
        assert_eq!(conn.int("ZCARD unacked_index").await, 3);
        assert_eq!(conn.int("EXISTS shop:unacked").await, 0);
    })
    .await;
}

/// A message taken under other names than kombu's own.
async fn taken(conn: &mut Conn, names: [&str; 2], message: &Message, at_s: i64) {
    let [hash, index] = names;
    conn.pipe(message.unacked_by("own:", "", at_s)).await;
    for (from, to) in [("own:unacked", hash), ("own:unacked_index", index)] {
        // One after the other into the same key.
        let dump = conn.value(cmd!["EVAL", MOVE, 2, from, to]).await;
        drop(dump);
    }
}

/// Moves what lies in one hash or zset to another.
const MOVE: &str = "if redis.call('TYPE', KEYS[1]).ok == 'hash' then \
      local all = redis.call('HGETALL', KEYS[1]) \
      redis.call('HSET', KEYS[2], unpack(all)) \
    else \
      local all = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES') \
      for i = 1, #all, 2 do redis.call('ZADD', KEYS[2], all[i + 1], all[i]) end \
    end \
    return redis.call('DEL', KEYS[1])";

#[tokio::test]
async fn messages_taken_under_other_names_are_known_by_a_setting() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("unacked-key", "taken")
            .setting("unacked-index-key", "taken:times")
            .setting("unacked-mutex-key", "taken:lock")
            .start()
            .await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        for n in 0..3 {
            let message = Message::new("a.b", &format!("m{n}"));
            let names = ["taken", "taken:times"];
            taken(&mut conn, names, &message, clock.ago_s(2 * HOUR)).await;
        }
        conn.run("SET taken:lock token").await;
        let scan = conn.fields("HYGIENE.SCAN").await;
        let unacked = scan.one("classes", "class", "unacked");
        assert_eq!(unacked.int("keys"), 3);
        assert!(unacked.int("oldest_s") >= 2 * HOUR);
        let stuck = crate::findings::finding(&scan, "unacked_mutex_without_ttl");
        let advice = stuck.expect("a finding").text("advice");
        assert!(advice.contains("EXPIRE taken:lock 300"), "{advice}");
        let status = conn.fields("HYGIENE.BEATSTATUS").await;
        let part = status.map("unacked");
        assert_eq!(
            (part.int("count"), part.text("mutex")),
            (3, "no_ttl".into())
        );
        assert_eq!(part.int("stuck"), 3, "{part:?}");

        let held = conn.fields("HYGIENE.ORPHANS REQUEUE").await;
        assert_eq!(held.int("requeued"), 0, "the mutex is respected: {held:?}");
        conn.run("DEL taken:lock").await;
        let done = conn.fields("HYGIENE.ORPHANS REQUEUE").await;
        assert_eq!(done.int("requeued"), 3, "{done:?}");
        assert_eq!(conn.int("LLEN celery").await, 3);
        assert_eq!(conn.int("EXISTS taken taken:times").await, 0);
    })
    .await;
}

#[tokio::test]
async fn messages_taken_under_names_that_nobody_gave_are_known_by_what_lies_there() {
    on_every_server(async |binary| {
        let (_server, mut conn) = start(binary).await;
        let clock = Clock::of(&mut conn).await;
        let then = clock.ago_s(2 * HOUR);
        let names = ["work.now", "work.when"];
        let bound = Message::new("a.b", "bound");
        taken(&mut conn, names, &bound, then).await;
        let unbound = Message::new("a.b", "unbound").queue("nowhere");
        taken(&mut conn, names, &unbound, then).await;
        for n in 0..30 {
            conn.run(cmd!["HSET", format!("user:{n}"), "name", "x"])
                .await;
            conn.run(cmd!["ZADD", format!("score:{n}"), then, "tag-x"])
                .await;
        }
        // A hash of messages that do not bear the tags they lie under is none of kombu's.
        let body = bound.body();
        conn.run(cmd![
            "HSET",
            "archive",
            "1",
            format!(r#"[{body}, "", "celery"]"#)
        ])
        .await;

        let lost = conn.fields("HYGIENE.ORPHANS REQUEUE").await;
        assert_eq!(lost.int("requeued"), 0, "whose queue? {lost:?}");
        assert_eq!(kept_for(&lost, "unacked", "no routing table"), 2);
        conn.run(binding("celery", "celery", "celery")).await;

        let scan = conn.fields("HYGIENE.SCAN").await;
        assert_eq!(scan.one("classes", "class", "unacked").int("keys"), 2);
        assert_eq!(scan.one("classes", "class", "other").int("keys"), 61);
        let told = crate::findings::finding(&scan, "unacked_under_other_names");
        let told = told.expect("a finding");
        let detail = told.text("detail");
        assert!(
            detail.contains("'work.now' of index 'work.when'"),
            "{detail}"
        );
        assert!(
            told.text("advice").contains("unacked-index-key"),
            "{told:?}"
        );
        let part = conn.fields("HYGIENE.BEATSTATUS").await.map("unacked");
        assert_eq!((part.int("count"), part.int("stuck")), (2, 2), "{part:?}");
        let shown = keys(&mut conn, "CLASS unacked COUNT 1000").await;
        assert_eq!(shown, ["work.now", "work.when"]);

        // The mutex may have its old name, or one like the hash.
        for mutex in ["unacked_mutex", "work.now_mutex"] {
            conn.run(cmd!["SET", mutex, "t", "EX", 60]).await;
            let held = conn.fields("HYGIENE.ORPHANS REQUEUE").await;
            assert_eq!(kept_for(&held, "unacked", "mutex is held"), 1, "{held:?}");
            conn.run(cmd!["DEL", mutex]).await;
        }
        let done = conn.fields("HYGIENE.ORPHANS REQUEUE").await;
        assert_eq!(done.int("requeued"), 1, "{done:?}");
        assert_eq!(done.maps("unacked")[0].text("index"), "work.when");
        assert_eq!(kept_for(&done, "unacked", "no binding"), 1);
        let back = conn.value("LRANGE celery 0 -1").await;
        let back: Vec<String> = list(&back).iter().map(text).collect();
        assert_eq!(back, [bound.redelivered()]);
        assert_eq!(conn.int("HLEN work.now").await, 1);
        assert_eq!(conn.int("ZCARD work.when").await, 1);
        assert_eq!(conn.int("HLEN archive").await, 1);
    })
    .await;
}

#[tokio::test]
async fn what_nobody_can_date_or_read_is_left() {
    on_every_server(async |binary| {
        let (_server, mut conn) = start(binary).await;
        let clock = Clock::of(&mut conn).await;
        let then = clock.ago_s(2 * HOUR);
        // Protocol 1 keeps the eta in its body.
        conn.pipe(old_unacked("due", None, then)).await;
        conn.pipe(old_unacked("past", Some(clock.ago(60)), then))
            .await;
        conn.pipe(old_unacked("ahead", Some(clock.ago(-HOUR)), then))
            .await;
        let odd = Message::new("a.b", "odd")
            .body()
            .replace("\"eta\": null", "\"eta\": \"soon\"");
        for (tag, value) in [
            ("odd", format!(r#"[{odd}, "", "celery"]"#)),
            ("noise", "\u{80}pickle".to_owned()),
            ("cut", r#"[{"body": "#.to_owned()),
        ] {
            conn.run(cmd!["HSET", "unacked", tag, value]).await;
            conn.run(cmd!["ZADD", "unacked_index", then, tag]).await;
        }
        conn.run(cmd!["ZADD", "unacked_index", then, "acknowledged"])
            .await;
        conn.run(cmd!["HSET", "unacked", "never-indexed", "[]"])
            .await;
        conn.run(cmd!["HSET", "unacked", "never-indexed-2", "[]"])
            .await;

        let done = conn.fields("HYGIENE.ORPHANS REQUEUE").await;
        assert_eq!(done.int("requeued"), 2, "{done:?}");
        assert_eq!(kept_for(&done, "unacked", "eta lies ahead"), 1);
        assert_eq!(kept_for(&done, "unacked", "when it is due"), 1);
        assert_eq!(kept_for(&done, "unacked", "cannot be read"), 2);
        assert_eq!(kept_for(&done, "unacked", "gone"), 1);
        assert_eq!(conn.int("LLEN celery").await, 2);
        assert_eq!(conn.int("HLEN unacked").await, 6);
        assert_eq!(conn.int("ZCARD unacked_index").await, 5);
        // More messages than entries of the index: those come back to nobody.
        assert_eq!(done.maps("unacked")[0].int("not_indexed"), 1);
    })
    .await;
}

#[tokio::test]
async fn replicas_and_the_append_only_file_get_each_item_in_one_transaction() {
    on_every_server(async |binary| {
        let primary = Setup::on(binary)
            .setting("enforce", "no")
            .append_only()
            .start()
            .await;
        let replica = Setup::on(binary).replica_of(&primary).start().await;
        let mut conn = primary.connect().await;
        let clock = Clock::of(&mut conn).await;
        some_reply_lists(&mut conn).await;
        for n in 0..50 {
            let message = Message::new("a.b", &format!("m{n}")).priority(n % 10);
            conn.pipe(message.unacked(clock.ago_s(2 * HOUR + i64::from(n))))
                .await;
        }
        wait_until_in_step(&primary, &replica).await;
        conn.run("HYGIENE.ORPHANS REQUEUE LIMIT 20").await;
        conn.run("HYGIENE.ORPHANS REQUEUE").await;
        conn.run("HYGIENE.ORPHANS PURGE reply_queue").await;
        wait_until_in_step(&primary, &replica).await;
        let held = DataSet::of(&primary).await;
        held.assert_same(&DataSet::of(&replica).await, "the replica");
        let names: Vec<String> = append_only_commands(&primary)
            .iter()
            .map(|(_, words)| String::from_utf8_lossy(&words[0]).to_ascii_uppercase())
            .collect();
        assert!(names.iter().any(|name| name == "RPUSH"));
        let (mut open, mut unit) = (false, Vec::new());
        for name in &names {
            match name.as_str() {
                "MULTI" => (open, unit) = (true, Vec::new()),
                "EXEC" => {
                    let count = |name: &str| unit.iter().filter(|word| *word == name).count();
                    assert_eq!(count("RPUSH"), count("HDEL"), "{unit:?}");
                    assert_eq!(count("RPUSH"), count("ZREM"), "{unit:?}");
                    open = false;
                }
                name @ ("RPUSH" | "ZREM" | "HDEL" | "SREM") => {
                    assert!(open, "{name} stands alone");
                    unit.push(name.to_owned());
                }
                _ => {}
            }
        }
    })
    .await;
}

#[tokio::test]
async fn only_what_the_caller_may_change_and_nobody_exempted_is_touched() {
    on_every_server(async |binary| {
        if !binary.is_7_0_or_newer() {
            return;
        }
        let server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("exempt-keys", "celeryev.keep*")
            .start()
            .await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        for name in ["celeryev.keep", "celeryev.mine", "celeryev.bound"] {
            conn.run(cmd!["LPUSH", name, 1]).await;
        }
        conn.run(binding("celeryev", "#", "celeryev.bound")).await;
        for name in ["celeryev.keep", "celeryev.mine", "celeryev.bound"] {
            rest(&mut conn, name, 2 * HOUR).await;
        }
        conn.pipe(Message::new("a.b", "1").unacked(clock.ago_s(2 * HOUR)))
            .await;
        conn.run("ACL SETUSER cleaner on nopass ~celeryev.* %R~* +hygiene.orphans")
            .await;
        let mut cleaner = server.connect().await;
        cleaner.run("AUTH cleaner x").await;
        let done = cleaner.fields("HYGIENE.ORPHANS PURGE event_queue").await;
        // Its table may not be changed, so the bound one stays whole.
        assert_eq!((done.int("purged"), done.int("skipped_noperm")), (1, 1));
        assert_eq!(kept_for(&done, "event_queue", "exempt"), 1);
        let done = cleaner.fields("HYGIENE.ORPHANS REQUEUE").await;
        assert_eq!((done.int("requeued"), done.int("skipped_noperm")), (0, 1));
        assert_eq!(conn.int("HLEN unacked").await, 1);
        let left = conn
            .int("EXISTS celeryev.keep celeryev.mine celeryev.bound")
            .await;
        assert_eq!(left, 2);
        conn.run("ACL SETUSER blind on nopass ~none +hygiene.orphans")
            .await;
        let mut blind = server.connect().await;
        blind.run("AUTH blind x").await;
        let seen = blind.fields("HYGIENE.ORPHANS").await;
        for kind in seen.maps("orphans") {
            assert_eq!(kind.int("total"), 0, "{kind:?}");
        }
        assert!(seen.maps("unacked").is_empty() && seen.int("skipped_noperm") > 0);
    })
    .await;
}

#[tokio::test]
async fn it_is_a_job_like_others_and_refused_where_nothing_can_wait() {
    on_every_server(async |binary| {
        let primary = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = primary.connect().await;
        let clock = Clock::of(&mut conn).await;
        seed_results(&mut conn, "s", 20_000).await;
        for n in 0..300 {
            let message = Message::new("a.b", &format!("m{n}"));
            conn.pipe(message.unacked(clock.ago_s(2 * HOUR))).await;
        }
        let refused = conn.transaction(&[cmd!["HYGIENE.ORPHANS"]]).await;
        let text = format!("{refused:?}");
        assert!(text.contains("ASYNC"), "{text}");
        let id = jobs::start(&mut conn, "HYGIENE.ORPHANS REQUEUE ASYNC").await;
        let job = jobs::wait_until(&mut conn, id, "finished").await;
        assert_eq!(job.text("what"), "HYGIENE.ORPHANS");
        assert_eq!(job.map("result").int("requeued"), 300);

        let replica = Setup::on(binary).replica_of(&primary).start().await;
        wait_until_in_step(&primary, &replica).await;
        let mut lower = replica.connect().await;
        for words in ["REQUEUE", "PURGE chord", "REQUEUE ASYNC"] {
            let why = lower.error(format!("HYGIENE.ORPHANS {words}")).await;
            assert!(why.starts_with("READONLY You can't write"), "{why}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_replica_reports_and_shows_what_would_be_done() {
    on_every_server(async |binary| {
        let primary = Setup::on(binary).setting("enforce", "no").start().await;
        let replica = Setup::on(binary).replica_of(&primary).start().await;
        let mut conn = primary.connect().await;
        let clock = Clock::of(&mut conn).await;
        conn.pipe(Message::new("a.b", "1").unacked(clock.ago_s(2 * HOUR)))
            .await;
        conn.run(cmd!["LPUSH", "celeryev.a", event(clock.ago(2 * HOUR))])
            .await;
        wait_until_in_step(&primary, &replica).await;
        let before = DataSet::of(&replica).await;
        let mut lower = replica.connect().await;
        let report = lower.fields("HYGIENE.ORPHANS").await;
        assert_eq!(figures(&report, "unacked").1, 1, "{report:?}");
        assert_eq!(figures(&report, "event_queue").1, 1, "{report:?}");
        let dry = lower.fields("HYGIENE.ORPHANS REQUEUE DRYRUN").await;
        assert_eq!(dry.int("requeued"), 1);
        before.assert_same(&DataSet::of(&replica).await, "after a report");
    })
    .await;
}

#[tokio::test]
async fn one_that_is_cancelled_leaves_each_message_whole_in_one_place() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("max-writes-per-sec", "2000")
            .start()
            .await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        let all = 3_000;
        let commands = (0..all)
            .flat_map(|n| Message::new("a.b", &format!("m{n}")).unacked(clock.ago_s(2 * HOUR)));
        conn.pipe(commands).await;
        let id = jobs::start(&mut conn, "HYGIENE.ORPHANS REQUEUE ASYNC").await;
        crate::server::wait_for(
            "some to be back",
            std::time::Duration::from_secs(30),
            async || match conn.int("LLEN celery").await {
                0 => Err("none".to_owned()),
                _ => Ok(()),
            },
        )
        .await;
        conn.run(cmd!["HYGIENE.CANCEL", id]).await;
        let job = jobs::wait_until(&mut conn, id, "cancelled").await;
        assert!(
            job.text("error").contains("was stopped: cancelled"),
            "{job:?}"
        );
        let back = conn.int("LLEN celery").await;
        let left = conn.int("HLEN unacked").await;
        assert!(left > 0, "all are back already");
        assert_eq!(back + left, all);
        assert_eq!(conn.int("ZCARD unacked_index").await, left);
        conn.run("HYGIENE.CONFIG SET max-writes-per-sec 100000")
            .await;
        let rest = conn.fields("HYGIENE.ORPHANS REQUEUE").await;
        assert_eq!(rest.int("requeued"), left);
        assert_eq!(conn.int("LLEN celery").await, all);
    })
    .await;
}

#[tokio::test]
async fn a_message_goes_where_its_topic_leads_however_many_others_there_are() {
    on_every_server(async |binary| {
        let (_server, mut conn) = start(binary).await;
        let clock = Clock::of(&mut conn).await;
        let topic = |n: usize| format!("shop.{}.k{n}.*.#", "x".repeat(100));
        let bind = |exchange: &str, key: &str, queue: &str| {
            let table = format!("_kombu.binding.{exchange}");
            let pattern = if key.contains('*') { "^$" } else { "" };
            cmd!["SADD", table, format!("{key}{SEP}{pattern}{SEP}{queue}")]
        };
        conn.pipe((0..3_000).map(|n| bind("wide", &topic(n), &format!("q{n}"))))
            .await;
        conn.run(bind("wide", &topic(7), "q7too")).await;
        conn.pipe((0..300).map(|n| bind("all", "k", &format!("many{n}"))))
            .await;
        conn.run(bind("one", "k.*", "never")).await;
        conn.run(bind("one", "k", "plain")).await;
        for n in 0..60 {
            // Each twice, in turns.
            let n = n % 30;
            let key = format!("shop.{}.k{}.eu.new", "x".repeat(100), n * 100 + 7);
            let message = Message::new("a.b", &format!("{n}-{}", clock.0)).queue(&key);
            conn.pipe(message.unacked_by("", "wide", clock.ago_s(2 * HOUR + n)))
                .await;
        }
        for (exchange, key) in [("all", "k"), ("one", "k"), ("wide", "nowhere")] {
            let message = Message::new("a.b", exchange).queue(key);
            let message = if key == "nowhere" {
                Message::new("a.b", "lost").queue(key)
            } else {
                message
            };
            conn.pipe(message.unacked_by("", exchange, clock.ago_s(2 * HOUR)))
                .await;
        }
        let all = conn.int("HLEN unacked").await;
        let done = conn.fields("HYGIENE.ORPHANS REQUEUE").await;
        assert_eq!(done.int("requeued"), all - 2, "{done:?}");
        assert_eq!(kept_for(&done, "unacked", "more queues"), 1);
        assert_eq!(kept_for(&done, "unacked", "no binding"), 1);
        assert_eq!(conn.int("HLEN unacked").await, 2);
        assert_eq!(conn.int("LLEN plain").await, 1);
        for n in (0..30).map(|n| n * 100 + 7) {
            assert_eq!(conn.int(cmd!["LLEN", format!("q{n}")]).await, 1, "{n}");
        }
        assert_eq!(conn.int("LLEN q7too").await, 1);
        let lists = list(&conn.value("KEYS *").await).len();
        // The tables, unacked and its index.
        assert_eq!(lists, 30 + 2 + 3 + 2, "nothing else was written");
    })
    .await;
}

#[tokio::test]
async fn one_database_can_be_asked_for() {
    on_every_server(async |binary| {
        let (server, mut zero) = start(binary).await;
        let clock = Clock::of(&mut zero).await;
        let mut nine = server.connect_db(9).await;
        for conn in [&mut zero, &mut nine] {
            conn.pipe(Message::new("a.b", "1").unacked(clock.ago_s(2 * HOUR)))
                .await;
        }
        let done = zero.fields("HYGIENE.ORPHANS REQUEUE DB 9").await;
        assert_eq!(done.int("requeued"), 1);
        assert_eq!(zero.int("HLEN unacked").await, 1);
        assert_eq!(nine.int("EXISTS unacked").await, 0);
        let report = zero.fields("HYGIENE.ORPHANS DB 9").await;
        assert_eq!(figures(&report, "unacked").0, 0, "{report:?}");
        let report = zero.fields("HYGIENE.ORPHANS ALLDBS").await;
        assert_eq!(figures(&report, "unacked").1, 1, "{report:?}");
    })
    .await;
}

#[tokio::test]
async fn in_the_background_only_what_is_named_is_cleaned_and_never_by_a_replica() {
    on_every_server(async |binary| {
        let started = |words: &'static str| async move {
            let primary = Setup::on(binary)
                .setting("sweep-interval", "1s")
                .start()
                .await;
            let replica = Setup::on(binary)
                .setting("sweep-interval", "1s")
                .setting("sweep-orphans", "requeue event_queue")
                .replica_of(&primary)
                .start()
                .await;
            let mut conn = primary.connect().await;
            let clock = Clock::of(&mut conn).await;
            for n in 0..300 {
                let message = Message::new("a.b", &format!("m{n}"));
                conn.pipe(message.unacked(clock.ago_s(2 * HOUR))).await;
            }
            conn.pipe(Message::new("a.b", "young").unacked(clock.ago_s(60)))
                .await;
            for name in ["celeryev.a", "celeryev.b"] {
                conn.run(binding("celeryev", "#", name)).await;
                conn.run(cmd!["LPUSH", name, event(clock.ago(2 * HOUR))])
                    .await;
            }
            conn.run(cmd!["HYGIENE.CONFIG", "SET", "sweep-orphans", words])
                .await;
            (primary, replica, conn)
        };
        let sweeps = |jobs: Vec<Fields>| {
            let of = |job: &Fields| job.text("what") == "SWEEP ORPHANS";
            jobs.iter().filter(|job| of(job)).count()
        };
        let all = |value: &redis::Value| list(value).iter().map(Fields::of).collect::<Vec<_>>();

        // By default nothing is done.
        let (primary, replica, mut conn) = started("").await;
        crate::server::wait_for(
            "two sweeps",
            std::time::Duration::from_secs(30),
            async || {
                let done = all(&conn.value("HYGIENE.JOBS").await);
                if done.len() > 1 {
                    Ok(())
                } else {
                    Err(format!("{done:?}"))
                }
            },
        )
        .await;
        assert_eq!(sweeps(all(&conn.value("HYGIENE.JOBS").await)), 0);
        assert_eq!(conn.int("HLEN unacked").await, 301);
        drop((primary, replica));

        let (primary, replica, mut conn) = started("requeue event_queue").await;
        crate::server::wait_for(
            "the messages to be back and the queues of events to be gone",
            std::time::Duration::from_secs(30),
            async || {
                let left = (
                    conn.int("HLEN unacked").await,
                    conn.int("EXISTS celeryev.a celeryev.b _kombu.binding.celeryev")
                        .await,
                );
                crate::server::same(left, (1, 0))
            },
        )
        .await;
        assert_eq!(conn.int("LLEN celery").await, 300);
        crate::server::wait_for(
            "the line in the log",
            std::time::Duration::from_secs(10),
            async || {
                let log = primary.log();
                let line = "ORPHANS REQUEUE, PURGE event_queue by sweep-interval: 300 messages \
                            put back into their queues, 2 purged, 2 bindings removed";
                match log.matches(line).count() {
                    1 => Ok(()),
                    n => Err(format!("{n} lines in {log}")),
                }
            },
        )
        .await;
        assert!(sweeps(all(&conn.value("HYGIENE.JOBS").await)) > 0);
        wait_until_in_step(&primary, &replica).await;
        let mut lower = replica.connect().await;
        assert_eq!(sweeps(all(&lower.value("HYGIENE.JOBS").await)), 0);
        DataSet::of(&primary)
            .await
            .assert_same(&DataSet::of(&replica).await, "the replica");
    })
    .await;
}

#[tokio::test]
async fn every_database_is_looked_at_and_each_message_stays_in_its_own() {
    on_every_server(async |binary| {
        let (server, mut zero) = start(binary).await;
        let clock = Clock::of(&mut zero).await;
        let mut nine = server.connect_db(9).await;
        for conn in [&mut zero, &mut nine] {
            conn.pipe(Message::new("a.b", "1").unacked(clock.ago_s(2 * HOUR)))
                .await;
        }
        let done = zero.fields("HYGIENE.ORPHANS REQUEUE").await;
        assert_eq!(done.int("requeued"), 2);
        let dbs: Vec<i64> = done.maps("unacked").iter().map(|p| p.int("db")).collect();
        assert_eq!(dbs, [0, 9]);
        for conn in [&mut zero, &mut nine] {
            assert_eq!(conn.int("LLEN celery").await, 1);
            assert_eq!(conn.int("DBSIZE").await, 1);
        }
    })
    .await;
}

/// Numbers that look random and are the same in each run of a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let at = self.below(of.len() as u64);
        &of[usize::try_from(at).unwrap()]
    }
}

/// Every message by its id, wherever it is: in a list or in unacked. Sweeps may move
/// some while they are counted: then they are counted again.
async fn messages(conn: &mut Conn, expected: &BTreeMap<String, usize>) -> BTreeMap<String, usize> {
    for _ in 0..5 {
        let found = counted(conn).await;
        if found == *expected {
            return found;
        }
    }
    counted(conn).await
}

async fn counted(conn: &mut Conn) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let keys = list(&conn.value("KEYS *").await);
    for key in keys.iter().map(bytes) {
        let elements = match conn.text(cmd!["TYPE", &key]).await.as_str() {
            "list" => list(&conn.value(cmd!["LRANGE", &key, 0, -1]).await),
            "hash" if key.ends_with(b"unacked") || key == b"work.now" => {
                list(&conn.value(cmd!["HVALS", &key]).await)
            }
            _ => continue,
        };
        for element in elements {
            let element = bytes(&element);
            let Ok(value) = serde_json::from_slice::<serde_json::Value>(&element) else {
                continue;
            };
            let message = value.get(0).unwrap_or(&value);
            if let Some(id) = message["headers"]["id"].as_str() {
                *found.entry(id.to_owned()).or_default() += 1;
            }
        }
    }
    found
}

/// One thing that a publisher or a worker of Celery does meanwhile.
async fn work(
    conn: &mut Conn,
    random: &mut Random,
    clock: Clock,
    expected: &mut BTreeMap<String, usize>,
) {
    match random.below(3) {
        0 => {
            let id = format!("new{}", random.below(u64::from(u32::MAX)));
            conn.run(Message::new("a.b", &id).queue("mail").push())
                .await;
            expected.insert(id, 1);
        }
        1 => {
            // Taken by a worker that dies a while ago.
            let message = conn.value("RPOP celery").await;
            if message != redis::Value::Nil {
                let message = bytes(&message);
                let read: serde_json::Value = serde_json::from_slice(&message).unwrap();
                let tag = read["properties"]["delivery_tag"].as_str().unwrap();
                let value = [b"[".as_slice(), &message, br#", "", "celery"]"#].concat();
                let at_s = clock.ago_s(random.below(8_000).cast_signed());
                let taken = [
                    cmd!["ZADD", "unacked_index", at_s, tag],
                    cmd!["HSET", "unacked", tag, value],
                ];
                conn.transaction(&taken).await.unwrap();
            }
        }
        _ => {
            // Acknowledged.
            let tags = list(&conn.value("HKEYS unacked").await);
            if let Some(tag) = tags.first() {
                let tag = text(tag);
                let done = [
                    cmd!["ZREM", "unacked_index", &tag],
                    cmd!["HDEL", "unacked", &tag],
                ];
                let answers = conn.transaction(&done).await.unwrap();
                // Unless it was put back in between.
                if answers[1] == redis::Value::Int(1) {
                    expected.remove(tag.strip_prefix("tag-").unwrap());
                }
            }
        }
    }
}

#[tokio::test]
async fn no_sequence_of_commands_loses_a_message_or_a_binding_of_a_queue_of_tasks() {
    const QUEUES: [&str; 3] = ["celery", "mail", "maintenance"];
    const COMMANDS: [&str; 18] = [
        "HYGIENE.ORPHANS",
        "HYGIENE.ORPHANS REQUEUE DB 0",
        "HYGIENE.ORPHANS REQUEUE OLDERTHAN 90m LIMIT 1",
        "HYGIENE.ORPHANS PURGE binding OLDERTHAN 0 LIMIT 2",
        "HYGIENE.ORPHANS PURGE reply_queue OLDERTHAN 0 DB 0 LIMIT 1",
        "HYGIENE.ORPHANS REQUEUE",
        "HYGIENE.ORPHANS REQUEUE LIMIT 3",
        "HYGIENE.ORPHANS REQUEUE DRYRUN",
        "HYGIENE.ORPHANS PURGE reply_queue OLDERTHAN 0",
        "HYGIENE.ORPHANS PURGE event_queue OLDERTHAN 0",
        "HYGIENE.ORPHANS PURGE binding OLDERTHAN 0",
        "HYGIENE.ORPHANS PURGE chord",
        "HYGIENE.FIXTTL MAXAGE 1s",
        "HYGIENE.FIXTTL CLASS reply_queue event_queue rpc_reply lock group_result TTL 1h",
        "HYGIENE.FIXTTL FROMDONE TTL 1s MAXAGE 0",
        "HYGIENE.SCAN",
        "HYGIENE.BEATSTATUS",
        "HYGIENE.KEYS 0 COUNT 1000",
    ];
    const SWEPT: &str = "requeue reply_queue event_queue binding chord";
    on_every_server(async |binary| {
        for seed in [1, 2026, 0xdead_beef] {
            let mut random = Random(seed);
            // The background does its part in between.
            let server = Setup::on(binary)
                .setting("sweep-interval", "1s")
                .setting("sweep-orphans", SWEPT)
                .start()
                .await;
            let mut conn = server.connect().await;
            let clock = Clock::of(&mut conn).await;
            let mut expected = BTreeMap::new();
            let mut bound = BTreeSet::new();
            for n in 0..120 {
                let id = format!("m{n}");
                let queue = *random.one(&QUEUES);
                let prefix = *random.one(&["", "", "shop:", "eu:"]);
                let exchange = *random.one(&["", queue, "nowhere"]);
                let mut message = Message::new("a.b", &id)
                    .queue(queue)
                    .priority(u8::try_from(random.below(10)).unwrap());
                if random.below(4) == 0 {
                    message = message.eta(clock.ago(60 * (60 - random.below(120).cast_signed())));
                }
                let age_s = random.below(8_000).cast_signed();
                if random.below(3) == 0 {
                    conn.run(message.push()).await;
                } else if random.below(4) == 0 {
                    let names = ["work.now", "work.when"];
                    taken(&mut conn, names, &message, clock.ago_s(age_s)).await;
                } else {
                    conn.pipe(message.unacked_by(prefix, exchange, clock.ago_s(age_s)))
                        .await;
                }
                expected.insert(id, 1);
            }
            for queue in QUEUES {
                for (prefix, sep) in [("", SEP), ("shop:", SEP), ("eu:", "::")] {
                    if random.below(5) > 0 {
                        let table = format!("{prefix}_kombu.binding.{queue}");
                        let member = format!("{queue}{sep}{sep}{queue}");
                        conn.run(cmd!["SADD", &table, &member]).await;
                        bound.insert((table, member));
                    }
                }
            }
            let rubbish: Vec<Cmd> = (0..20)
                .flat_map(|n| {
                    [
                        cmd!["LPUSH", reply_list(n), "{}"],
                        reply_binding(n),
                        binding("celeryev", "#", &format!("celeryev.{n}")),
                        binding("celery.pidbox", "", &format!("w{n}@lab.celery.pidbox")),
                        cmd![
                            "LPUSH",
                            format!("celeryev.{}", n * 2),
                            event(clock.ago(9_000))
                        ],
                        cmd!["SET", format!("celery-task-meta-{n}"), "{}"],
                        cmd!["INCR", format!("celery-taskset-meta-{n}.t")],
                        cmd!["ZADD", format!("celery-taskset-meta-{n}.j"), n, "part"],
                        cmd!["HSET", format!("user:{n}"), "name", "x"],
                    ]
                })
                .collect();
            conn.pipe(rubbish).await;
            for n in 0..10 {
                for end in ["t", "j"] {
                    rest(
                        &mut conn,
                        &format!("celery-taskset-meta-{n}.{end}"),
                        2 * DAY,
                    )
                    .await;
                }
            }
            for step in 0..25 {
                let command = *random.one(&COMMANDS);
                match random.below(6) {
                    0 => conn.run("SET unacked_mutex t PX 20").await,
                    1 => conn.run("DEL unacked_mutex").await,
                    _ => {}
                }
                conn.run(command).await;
                for _ in 0..random.below(4) {
                    work(&mut conn, &mut random, clock, &mut expected).await;
                }
                let at = format!("seed {seed}, step {step}, {command}");
                assert_eq!(messages(&mut conn, &expected).await, expected, "{at}");
                for (table, member) in &bound {
                    let there = conn.int(cmd!["SISMEMBER", table, member]).await;
                    assert_eq!(there, 1, "{at}: {table}");
                }
            }
        }
    })
    .await;
}
