//! HYGIENE.SCAN: what it counts, measures and finds, without touching anything.

use std::time::Duration;

use redis::Cmd;
use tokio::io::AsyncWriteExt;

use crate::celery::{Clock, Form, Message, SEP, binding, iso, seed_big_reply_lists, seed_results};
use crate::client::{Conn, Fields, ToCmd, int};
use crate::cmd;
use crate::data::{DataSet, wait_until_in_step};
use crate::findings::finding;
use crate::server::{Setup, on_every_server, wait_for};

const BUCKETS: [&str; 6] = ["none", "<1m", "<1h", "<1d", "<7d", "more"];

fn classes(scan: &Fields) -> Vec<(String, Fields)> {
    scan.named("classes", "class")
}

fn class(scan: &Fields, name: &str) -> Fields {
    scan.one("classes", "class", name)
}

#[tokio::test]
async fn answers_the_fields_of_the_contract() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 3).await;
        conn.run(Message::new("a.b", "1").push()).await;
        for mut conn in [server.connect().await, server.connect_resp3().await] {
            let scan = conn.fields("HYGIENE.SCAN").await;
            // And what was observed, once it is written down.
            assert!((4..=5).contains(&scan.int("scanned")), "{scan:?}");
            for name in ["duration_ms", "server_ms"] {
                assert!(scan.int(name) >= 0, "{name}");
            }
            for (name, class) in classes(&scan) {
                for field in ["keys", "no_ttl", "bytes", "bytes_no_ttl", "oldest_s"] {
                    assert!(class.has(field), "{name}: {field} in {class:?}");
                }
                assert_eq!(class.map("ttl_histogram").names(), BUCKETS, "{name}");
            }
            assert_eq!(class(&scan, "queue").int("length"), 1);
            assert!(class(&scan, "queue").has("oldest_message_s"));
            for entry in scan.maps("top") {
                let expected = ["name", "db", "class", "type", "bytes", "ttl_s", "elements"];
                assert_eq!(entry.names(), expected);
            }
            for finding in scan.maps("findings") {
                let expected = [
                    "code", "severity", "class", "keys", "bytes", "detail", "advice",
                ];
                assert_eq!(finding.names(), expected);
                let severity = finding.text("severity");
                assert!(
                    ["info", "warning", "critical"].contains(&severity.as_str()),
                    "{severity}"
                );
            }
            let immortal = |finding: &Fields| {
                finding.text("class") == "task_result"
                    && finding.int("keys") == 3
                    && finding.text("advice").contains("FIXTTL")
            };
            assert!(scan.maps("findings").iter().any(immortal), "{scan:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_empty_server_has_nothing_to_tell() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let scan = server.connect().await.fields("HYGIENE.SCAN").await;
        assert_eq!(scan.int("scanned"), 0);
        assert!(
            classes(&scan)
                .iter()
                .all(|(_, class)| class.int("keys") == 0),
            "{scan:?}"
        );
        assert!(scan.maps("top").is_empty());
    })
    .await;
}

#[tokio::test]
async fn keys_are_counted_by_class_and_by_what_is_left_of_their_life() {
    on_every_server(async |binary| {
        // What is observed would be a key of its own, written at some moment.
        let server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("observe", "no")
            .start()
            .await;
        let mut conn = server.connect().await;
        // Those above a limit by so much that it takes a while to fall below.
        let lives = [50, 59, 120, 3599, 3660, 86_399, 86_460, 604_799, 604_860];
        for life in lives {
            conn.run(cmd!["SETEX", format!("celery-task-meta-{life}"), life, 1])
                .await;
        }
        conn.run("SET celery-task-meta-none 1").await;
        let rest: Vec<Cmd> = [
            "SET celery-taskset-meta-G 1",
            "SET celery-taskset-meta-G.s 1",
            "INCR celery-taskset-meta-G.t",
            "LPUSH celeryev.0f5ee1b4-3c1c-3b6e-a1f0-6c5bb9b3c5a1 1",
            "LPUSH 0f5ee1b4-3c1c-3b6e-a1f0-6c5bb9b3c5a1.reply.celery.pidbox 1",
            "ZADD redbeat::schedule 1 a",
            "HSET unacked a 1",
            "ZADD unacked_index 1 a",
            "SET SINGLETONLOCK_a 1",
            "SET airflow_variable 1",
        ]
        .map(|words| words.to_cmd())
        .into();
        conn.pipe(rest).await;
        conn.run(binding("celery", "celery", "celery")).await;
        conn.run(Message::new("a.b", "1").push()).await;

        let scan = conn.fields("HYGIENE.SCAN").await;
        let expected = [
            ("task_result", 10, 1),
            ("group_result", 1, 1),
            ("chord", 2, 2),
            ("queue", 1, 1),
            ("unacked", 2, 2),
            ("binding", 1, 1),
            ("reply_queue", 1, 1),
            ("event_queue", 1, 1),
            ("redbeat", 1, 1),
            ("lock", 1, 1),
            ("other", 1, 1),
        ];
        for (name, keys, no_ttl) in expected {
            let seen = class(&scan, name);
            assert_eq!(
                (seen.int("keys"), seen.int("no_ttl")),
                (keys, no_ttl),
                "{name}"
            );
        }
        assert_eq!(scan.int("scanned"), conn.int("DBSIZE").await);
        let histogram = class(&scan, "task_result").map("ttl_histogram");
        let expected = BUCKETS
            .iter()
            .map(|name| (*name).to_owned())
            .zip([1, 2, 2, 2, 2, 1]);
        assert_eq!(histogram.ints(&BUCKETS), expected.collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn keys_of_other_transports_caches_and_systems_are_told_by_type_and_content() {
    const TAG: &str = "0f5ee1b4-3c1c-4b6e-a1f0-6c5bb9b3c5a1";
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let rest: Vec<Cmd> = [
            "SET :1:celery-task-meta-a 1",
            "SET site:2:celery-taskset-meta-a 1",
            "ZADD messages_index:celery 1 a",
            "XADD /0.celeryev * payload 1",
            "XADD /0.celery.pidbox * payload 1",
            "SADD _kombu.binding_permanent.celery a",
            "ZADD _kombu.binding_deadlines 1 celery",
            "ZADD queue:mail 1 not-a-tag",
            "HSET message:7 payload 1",
            "LPUSH queue:default {}",
            "SADD queues default",
            "SET stat:processed 7",
            "HSET rq:job:1 data 1",
            "HSET bull:mail:1 data 1",
            "LPUSH dramatiq:default 1",
            "LPUSH huey.redis.app 1",
            "ZADD arq:queue 1 a",
        ]
        .map(|words| words.to_cmd())
        .into();
        conn.pipe(rest).await;
        conn.run(cmd!["ZADD", "queue:celery", 1, TAG]).await;
        let message = format!("message:{TAG}");
        conn.run(cmd!["HSET", &message, "payload", "{}"]).await;

        let scan = conn.fields("HYGIENE.SCAN").await;
        for (name, keys) in [
            ("task_result", 1),
            ("group_result", 1),
            ("queue", 2),
            ("unacked", 1),
            ("event_queue", 2),
            ("binding", 2),
            ("other", 10),
        ] {
            assert_eq!(class(&scan, name).int("keys"), keys, "{name}");
        }
        assert_eq!(class(&scan, "queue").int("length"), 1);
        assert_eq!(class(&scan, "unacked").int("oldest_s"), -1);
        let systems = class(&scan, "other").map("systems");
        let mut told = systems.names();
        told.sort_unstable();
        assert_eq!(told, ["BullMQ", "Dramatiq", "Huey", "RQ", "Sidekiq", "arq"]);
        let sidekiq = systems.map("Sidekiq");
        assert_eq!(sidekiq.int("keys"), 3);
        assert!(sidekiq.int("bytes") > 0);

        // The hook has stamped the one that is a result, and a sweep touches none of
        // the others.
        assert!(conn.int("TTL :1:celery-task-meta-a").await > 0);
        let fixed = conn
            .fields("HYGIENE.FIXTTL TTL 1h CLASS event_queue reply_queue rpc_reply lock chord")
            .await;
        assert_eq!(fixed.int("stamped"), 0, "{fixed:?}");
        let purged = conn
            .fields("HYGIENE.ORPHANS PURGE event_queue OLDERTHAN 1h")
            .await;
        assert_eq!(purged.int("purged"), 0, "{purged:?}");
        assert_eq!(conn.int("EXISTS /0.celeryev /0.celery.pidbox").await, 2);
    })
    .await;
}

#[tokio::test]
async fn the_priorities_of_a_queue_are_one_length() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        for (priority, count) in [(0, 1), (3, 2), (6, 3), (9, 4)] {
            for n in 0..count {
                let id = format!("{priority}-{n}");
                conn.run(Message::new("a.b", &id).priority(priority).push())
                    .await;
            }
        }
        assert_eq!(conn.int(cmd!["LLEN", format!("celery{SEP}9")]).await, 4);
        let scan = conn.fields("HYGIENE.SCAN").await;
        let queue = class(&scan, "queue");
        assert_eq!((queue.int("length"), queue.int("keys")), (10, 4));
    })
    .await;
}

#[tokio::test]
async fn expired_messages_and_tasks_taken_twice_are_told() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        let expiring = |id: &str, queue: &str, ms: i64| {
            let body = Message::new("a.b", id).queue(queue).body();
            let expires = format!(r#""expires": "{}""#, iso(ms, Form::Utc));
            let marked = body.replace(r#""expires": null"#, &expires);
            assert_ne!(marked, body);
            cmd!["LPUSH", queue, marked]
        };
        // The head is the newest.
        let messages = [
            expiring("1", "all", clock.ago(60)),
            expiring("2", "all", clock.ago(30)),
            expiring("3", "some", clock.ago(60)),
            expiring("4", "some", clock.ago(-3600)),
            expiring("5", "fresh", clock.ago(-3600)),
            Message::new("a.b", "6").queue("never").push(),
        ];
        conn.pipe(messages).await;
        for n in 0..700 {
            let message = Message::new("a.b", &format!("u{n}"));
            conn.pipe(message.unacked(clock.ago_s(5))).await;
        }
        let scan = conn.fields("HYGIENE.SCAN").await;
        let expired = finding(&scan, "expired_messages").expect("a finding");
        assert_eq!(expired.int("keys"), 2, "{expired:?}");
        let detail = expired.text("detail");
        assert!(detail.contains("in 2 lists 3 of 4 messages"), "{detail}");
        assert!(finding(&scan, "duplicate_deliveries").is_none());

        for id in ["u1", "u1", "u699"] {
            let message = Message::new("a.b", id);
            let tag = format!("again-{}", conn.int("HLEN unacked").await);
            let value = format!(r#"[{}, "", "celery"]"#, message.body());
            conn.run(cmd!["HSET", "unacked", tag, value]).await;
        }
        conn.run("HSET unacked noise 1").await;
        let scan = conn.fields("HYGIENE.SCAN").await;
        let twice = finding(&scan, "duplicate_deliveries").expect("a finding");
        assert_eq!(
            (twice.int("keys"), twice.text("class")),
            (3, "unacked".into())
        );
    })
    .await;
}

#[tokio::test]
async fn memory_that_no_key_explains_is_told_with_where_it_may_be() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run("SET airflow 1").await;
        let scan = conn.fields("HYGIENE.SCAN").await;
        assert!(finding(&scan, "memory_outside_keys").is_none(), "{scan:?}");
        // The server makes room for an argument as soon as it knows its length.
        let mut half = tokio::net::TcpStream::connect(("127.0.0.1", server.port))
            .await
            .expect("a connection");
        half.write_all(b"*2\r\n$4\r\nECHO\r\n$200000000\r\nx")
            .await
            .expect("half a command");
        let found = wait_for("the finding", Duration::from_secs(10), async || {
            let scan = conn.fields("HYGIENE.SCAN").await;
            finding(&scan, "memory_outside_keys").ok_or_else(|| format!("{scan:?}"))
        })
        .await;
        assert!(found.int("bytes") >= 200_000_000, "{found:?}");
        // Part of the keys explains nothing.
        for words in [
            "HYGIENE.SCAN MATCH *",
            "HYGIENE.SCAN DB 0",
            "HYGIENE.SCAN MEMORY OFF",
        ] {
            let scan = conn.fields(words).await;
            assert!(finding(&scan, "memory_outside_keys").is_none(), "{words}");
        }
        drop(half);
    })
    .await;
}

/// By the server's own measure, every element looked at.
async fn measured(conn: &mut Conn, keys: &[String]) -> i64 {
    let commands = keys
        .iter()
        .map(|key| cmd!["MEMORY", "USAGE", key, "SAMPLES", 0]);
    conn.pipe(commands).await.iter().map(int).sum()
}

#[tokio::test]
async fn a_few_reply_lists_that_hold_all_the_memory_come_first() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let lists = seed_big_reply_lists(&mut conn).await;
        seed_results(&mut conn, "s", 5000).await;
        let results: Vec<String> = (0..5000)
            .map(|n| format!("celery-task-meta-s{n}"))
            .collect();

        for mode in ["EXACT", "SAMPLE"] {
            let scan = conn
                .fields(format!("HYGIENE.SCAN MEMORY {mode} TOP 5"))
                .await;
            let order: Vec<String> = classes(&scan).into_iter().map(|(name, _)| name).collect();
            assert_eq!(order[0], "reply_queue", "{mode}: {order:?}");
            let replies = class(&scan, "reply_queue");
            assert_eq!((replies.int("keys"), replies.int("no_ttl")), (22, 22));
            for (name, keys) in [("reply_queue", &lists), ("task_result", &results)] {
                let told = class(&scan, name).int("bytes");
                let real = measured(&mut conn, keys).await;
                assert!(
                    (told - real).abs() * 20 <= real,
                    "{mode} {name}: {told} for {real}"
                );
            }
            let results = class(&scan, "task_result");
            assert_eq!(
                (results.int("keys"), results.int("bytes_no_ttl")),
                (5000, 0)
            );
            let top = scan.maps("top");
            assert_eq!(top.len(), 5);
            let sizes: Vec<i64> = top.iter().map(|entry| entry.int("bytes")).collect();
            assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
            let first = &top[0];
            assert_eq!(first.text("class"), "reply_queue");
            assert_eq!(
                (first.int("db"), first.int("ttl_s"), first.int("elements")),
                (0, -1, 1)
            );
            assert_eq!(first.text("type"), "list");
            let immortal = |finding: &Fields| {
                finding.text("class") == "reply_queue" && finding.int("keys") == 22
            };
            let findings = scan.maps("findings");
            assert!(findings.iter().any(immortal), "{findings:?}");
        }
        let off = conn.fields("HYGIENE.SCAN MEMORY OFF").await;
        assert_eq!(class(&off, "reply_queue").int("keys"), 22);
    })
    .await;
}

#[tokio::test]
async fn classes_are_ordered_by_bytes() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run(cmd!["SET", "airflow", "x".repeat(3000)]).await;
        conn.run(cmd!["LPUSH", "celeryev.a", "x".repeat(200_000)])
            .await;
        conn.run(cmd!["SET", "celery-task-meta-a", "x".repeat(20_000)])
            .await;
        let scan = conn.fields("HYGIENE.SCAN MEMORY EXACT").await;
        let sizes: Vec<i64> = classes(&scan)
            .iter()
            .map(|(_, class)| class.int("bytes"))
            .collect();
        assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
        let order: Vec<String> = classes(&scan).into_iter().map(|(name, _)| name).collect();
        assert_eq!(order[..3], ["event_queue", "task_result", "other"]);
    })
    .await;
}

#[tokio::test]
async fn db_prefix_match_and_top_bound_what_is_told() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut zero = server.connect().await;
        let mut nine = server.connect_db(9).await;
        seed_results(&mut zero, "z", 10).await;
        seed_results(&mut nine, "n", 20).await;
        nine.run("SET myapp_celery-task-meta-a 1").await;
        nine.run("SET airflow 1").await;
        let rows = [
            ("HYGIENE.SCAN", 30, "every database"),
            ("HYGIENE.SCAN ALLDBS", 30, "every database, said so"),
            ("HYGIENE.SCAN DB 0", 10, "one"),
            ("HYGIENE.SCAN DB 9", 20, "another"),
            (
                "HYGIENE.SCAN DB 9 MATCH celery-task-meta-n1*",
                11,
                "by pattern",
            ),
        ];
        for (words, keys, what) in rows {
            let scan = zero.fields(words).await;
            assert_eq!(
                class(&scan, "task_result").int("keys"),
                keys,
                "{what}: {words}"
            );
        }
        let prefixed = zero.fields("HYGIENE.SCAN PREFIX myapp_").await;
        // Only what lies behind the prefix, told by what it is without it.
        let results = class(&prefixed, "task_result");
        assert_eq!(results.int("keys"), 1, "looks through the prefix");
        for count in [0, 1, 7] {
            let scan = zero.fields(format!("HYGIENE.SCAN TOP {count}")).await;
            assert_eq!(scan.maps("top").len(), count);
        }
    })
    .await;
}

#[tokio::test]
async fn changes_nothing_not_even_what_is_idle() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 100).await;
        let mut watcher = server.connect().await;
        watcher
            .run("WATCH celery-task-meta-s1 celery-task-meta-s2")
            .await;
        let before = DataSet::of(&server).await;
        conn.run("HYGIENE.SCAN MEMORY EXACT").await;
        before.assert_same(&DataSet::of(&server).await, "after a scan");
        let answer = watcher.transaction(&[cmd!["PING"]]).await;
        assert!(
            answer.is_ok_and(|answers| answers.len() == 1),
            "a WATCH holds"
        );
    })
    .await;
}

#[tokio::test]
async fn works_on_a_read_only_replica() {
    on_every_server(async |binary| {
        let primary = Setup::on(binary).setting("enforce", "no").start().await;
        let replica = Setup::on(binary).replica_of(&primary).start().await;
        seed_results(&mut primary.connect().await, "s", 100).await;
        wait_until_in_step(&primary, &replica).await;
        let scan = replica.connect().await.fields("HYGIENE.SCAN").await;
        let results = class(&scan, "task_result");
        assert_eq!((results.int("keys"), results.int("no_ttl")), (100, 100));
    })
    .await;
}

#[tokio::test]
async fn two_clients_at_once_get_a_whole_answer_each() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut first = server.connect().await;
        let mut second = server.connect().await;
        seed_results(&mut first, "s", 20_000).await;
        let (one, other) = tokio::join!(
            first.fields("HYGIENE.SCAN"),
            second.fields("HYGIENE.SCAN MATCH celery-task-meta-s1*"),
        );
        assert_eq!(class(&one, "task_result").int("keys"), 20_000);
        assert_eq!(class(&other, "task_result").int("keys"), 11_111);
    })
    .await;
}

#[tokio::test]
async fn tells_what_has_changed_since_the_same_scan_and_so_proves_a_clean_up() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 100).await;
        conn.run("LPUSH celeryev.a 1").await;
        let first = conn.fields("HYGIENE.SCAN").await.map("since_last");
        assert_eq!(first.int("seconds"), -1, "there was none before");
        assert!(first.map("classes").names().is_empty());

        seed_results(&mut conn, "t", 10).await;
        conn.run("DEL celeryev.a").await;
        // Another question is another scan.
        let other = conn.fields("HYGIENE.SCAN MATCH *").await.map("since_last");
        assert_eq!(other.int("seconds"), -1);
        let second = conn.fields("HYGIENE.SCAN").await.map("since_last");
        assert!(second.int("seconds") >= 0);
        let changed = second.map("classes");
        assert_eq!(changed.names(), ["task_result", "event_queue"]);
        let results = changed.map("task_result");
        assert_eq!((results.int("keys"), results.int("no_ttl")), (10, 10));
        assert!(results.int("bytes") > 0);
        let events = changed.map("event_queue");
        assert_eq!(events.int("keys"), -1);
        assert!(events.int("bytes") < 0);

        conn.run("HYGIENE.FIXTTL").await;
        let third = conn.fields("HYGIENE.SCAN").await.map("since_last");
        assert_eq!(
            third.map("classes").map("task_result").int("no_ttl"),
            -110,
            "the clean-up shows"
        );
        let fourth = conn.fields("HYGIENE.SCAN").await.map("since_last");
        assert!(fourth.map("classes").names().is_empty(), "{fourth:?}");
    })
    .await;
}
