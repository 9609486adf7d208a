//! HYGIENE.STATS, INFO hygiene, and what is published when the verdict changes.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use redis::Value;

use crate::celery::{Clock, Form, Message, binding, result, result_key, seed_results, started};
use crate::client::{Conn, Fields, list, text};
use crate::cmd;
use crate::server::{Server, Setup, on_every_server, same, stays, wait_for};

const CHANNEL: &str = "hygiene:events";
/// Two looks a second apart, and as much again for a slow machine.
const LOOKS: Duration = Duration::from_secs(20);

async fn stats(conn: &mut Conn) -> Fields {
    conn.fields("HYGIENE.STATS").await
}

/// A server that looks for the verdict every second.
fn watching(setup: Setup) -> Setup {
    setup.setting("verdict-interval", "1s")
}

/// Waits until a look has begun after this moment and ended.
async fn looked(conn: &mut Conn) -> Fields {
    let before = stats(conn).await.int("looks_total");
    wait_for("two more looks", LOOKS, async || {
        let stats = stats(conn).await;
        if stats.int("looks_total") >= before + 2 {
            Ok(stats)
        } else {
            Err(format!("{stats:?}"))
        }
    })
    .await
}

/// A periodic message that nobody takes.
async fn strand_a_message(conn: &mut Conn) {
    conn.run(binding("maintenance", "maintenance", "maintenance"))
        .await;
    let message = Message::new("app.clean", "1").queue("maintenance");
    conn.run(message.by_beat().push()).await;
}

async fn listen(server: &Server) -> redis::aio::PubSub {
    let client = redis::Client::open(("127.0.0.1", server.port)).expect("an address");
    let mut channel = client.get_async_pubsub().await.expect("a connection");
    channel.subscribe(CHANNEL).await.expect("a subscription");
    channel
}

/// The next event, or `None` after that long.
async fn heard(channel: &mut redis::aio::PubSub, long: Duration) -> Option<serde_json::Value> {
    let mut messages = channel.on_message();
    let message = tokio::time::timeout(long, messages.next()).await.ok()??;
    let text: String = message.get_payload().expect("text");
    Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

#[tokio::test]
async fn writes_are_counted_by_what_they_left_and_what_became_of_them() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        for n in 0..3 {
            conn.run(cmd!["SET", result_key(&format!("bare{n}")), "1"])
                .await;
        }
        for n in 0..2 {
            conn.run(cmd!["SETEX", result_key(&format!("own{n}")), 50, "1"])
                .await;
        }
        conn.run("SET other 1").await;
        let seen = stats(&mut conn).await;
        for (name, wanted) in [
            ("results_written_without_ttl_total", 3),
            ("results_written_with_ttl_total", 2),
            ("stamped_by_hook_total", 3),
            ("task_result_stamped_total", 3),
            ("cut_by_hook_total", 0),
            ("deleted_total", 0),
            ("enforce", 1),
        ] {
            assert_eq!(seen.int(name), wanted, "{name} in {seen:?}");
        }
        assert!(seen.int("hook_calls_total") >= 6, "{seen:?}");
        assert!(seen.int("stamp_runs_total") >= 1, "{seen:?}");

        // Without enforcement the leak is counted all the same.
        conn.run("HYGIENE.CONFIG SET enforce no").await;
        conn.run(cmd!["SET", result_key("leak"), "1"]).await;
        assert_eq!(conn.ttl(result_key("leak")).await, -1);
        let seen = stats(&mut conn).await;
        assert_eq!(seen.int("results_written_without_ttl_total"), 4);
        assert_eq!(seen.int("stamped_by_hook_total"), 3);
        assert_eq!(seen.int("enforce"), 0);
    })
    .await;
}

/// How often results were written, by what clients gave them: with a TTL, without.
async fn written(conn: &mut Conn) -> (i64, i64) {
    let seen = stats(conn).await;
    (
        seen.int("results_written_with_ttl_total"),
        seen.int("results_written_without_ttl_total"),
    )
}

#[tokio::test]
async fn a_write_of_a_result_is_counted_once_whatever_events_come_of_it() {
    on_every_server(async |binary| {
        for max_ttl in ["0", "1m"] {
            let server = Setup::on(binary).setting("max-ttl", max_ttl).start().await;
            let mut conn = server.connect().await;
            let key = result_key;
            // Each of them raises two events, and the longer TTL is cut.
            conn.run(cmd!["SETEX", key("a"), 50, "1"]).await;
            conn.run(cmd!["SET", key("b"), "1", "EX", 500]).await;
            assert_eq!(written(&mut conn).await, (2, 0), "max-ttl {max_ttl}");
            // A TTL that comes alone is no write.
            conn.run(cmd!["EXPIRE", key("a"), 40]).await;
            conn.run(cmd!["GETEX", key("b"), "EX", 600]).await;
            assert_eq!(written(&mut conn).await, (2, 0), "max-ttl {max_ttl}");
            conn.run(cmd!["SET", key("a"), "1"]).await;
            assert_eq!(written(&mut conn).await, (2, 1), "max-ttl {max_ttl}");
            // As Celery did before 4.0: the TTL is the client's. What takes long among
            // it must not make a TTL that was cut look too long again: the server's own
            // count goes by the time at which the transaction began.
            let pair = [
                cmd!["SET", key("c"), "1"],
                cmd!["EXPIRE", key("c"), 500],
                cmd!["SETEX", key("d"), 500, "1"],
                cmd!["EVAL", "for i = 1, 5000000 do end", 0],
                cmd!["EXPIRE", key("c"), 400],
            ];
            conn.transaction(&pair).await.expect("done");
            assert_eq!(written(&mut conn).await, (4, 1), "max-ttl {max_ttl}");
            let cuts = match max_ttl {
                "0" => 0,
                _ if binary.generic_events_do_harm() => {
                    binary.left_out("generic events do harm there: a TTL that comes alone is cut");
                    3
                }
                _ => 4,
            };
            let seen = stats(&mut conn).await;
            assert_eq!(seen.int("cut_by_hook_total"), cuts, "{seen:?}");
            assert_eq!(seen.int("stamped_by_hook_total"), 1, "{seen:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn of_a_key_written_again_and_again_at_once_no_stamp_passes_for_a_clients_ttl() {
    on_every_server(async |binary| {
        for cluster in [false, true] {
            let setup = Setup::on(binary);
            let setup = if cluster {
                let node = setup.cluster_node();
                node.config("cluster-require-full-coverage no")
            } else {
                setup
            };
            let server = setup.start().await;
            let mut conn = server.connect().await;
            if cluster {
                let slot = conn.int("CLUSTER KEYSLOT one").await;
                conn.run(cmd!["CLUSTER", "ADDSLOTS", slot]).await;
                wait_for("a cluster", LOOKS, async || {
                    match conn.text("CLUSTER INFO").await {
                        told if told.contains("cluster_state:ok") => Ok(()),
                        told => Err(told),
                    }
                })
                .await;
            }
            let set = |id: &str| cmd!["SET", result_key(&format!("{{one}}{id}")), "1"];
            let setex = |id: &str| cmd!["SETEX", result_key(&format!("{{one}}{id}")), 3_600, "1"];
            let all = [set("a"), set("a"), set("a")];
            conn.transaction(&all).await.expect("done");
            assert_eq!(written(&mut conn).await, (0, 3), "cluster: {cluster}");
            let all = [set("a"), set("b"), set("a"), setex("c"), set("b")];
            conn.transaction(&all).await.expect("done");
            assert_eq!(written(&mut conn).await, (1, 7), "cluster: {cluster}");
            // The last one decides, and it was the client's.
            let all = [set("a"), set("b"), setex("a")];
            conn.transaction(&all).await.expect("done");
            assert_eq!(written(&mut conn).await, (3, 8), "cluster: {cluster}");
            let seen = stats(&mut conn).await;
            assert_eq!(seen.int("stamped_by_hook_total"), 4, "{seen:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_time_of_the_hook_is_known_once_enough_calls_were_timed() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run("HYGIENE.STATS RESET").await;
        let before = stats(&mut conn).await;
        assert_eq!(before.int("hook_time_us_total"), 0, "{before:?}");
        let writes = (0..20_000).map(|n| cmd!["SET", result_key(&n.to_string()), "1"]);
        conn.pipe(writes).await;
        let after = stats(&mut conn).await;
        assert!(after.int("hook_calls_total") >= 20_000, "{after:?}");
        let per_call_ns = after.int("hook_time_us_total") * 1_000 / after.int("hook_calls_total");
        assert!((1..1_000_000).contains(&per_call_ns), "{after:?}");
        assert!(after.int("stamp_time_us_total") > 0, "{after:?}");
    })
    .await;
}

#[tokio::test]
async fn every_field_is_told_alone_in_both_protocols_and_in_info() {
    on_every_server(async |binary| {
        let server = watching(Setup::on(binary)).start().await;
        let mut conn = server.connect().await;
        strand_a_message(&mut conn).await;
        looked(&mut conn).await;
        let flat = conn.value("HYGIENE.STATS").await;
        assert!(matches!(flat, Value::Array(_)), "RESP2 gets a flat list");
        let mut modern = server.connect_resp3().await;
        let map = modern.value("HYGIENE.STATS").await;
        // Redis 6.2 has no maps for modules.
        assert_eq!(matches!(map, Value::Map(_)), binary.is_7_0_or_newer());

        let all = Fields::of(&flat);
        assert_eq!(all.names(), Fields::of(&map).names());
        let names: BTreeSet<&str> = all.names().into_iter().collect();
        assert_eq!(names.len(), all.0.len(), "no name comes twice");
        for (name, value) in &all.0 {
            let fixed = name.split(':').next().unwrap_or_default();
            assert!(
                fixed
                    .chars()
                    .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_')),
                "{name}"
            );
            let words = ["verdict", "beat_state"].contains(&name.as_str());
            assert_eq!(matches!(value, Value::BulkString(_)), words, "{name}");
            let alone = conn.value(cmd!["HYGIENE.STATS", "FIELD", name]).await;
            assert_eq!(
                std::mem::discriminant(&alone),
                std::mem::discriminant(value),
                "{name}"
            );
            let info = conn.info("hygiene", &format!("hygiene_{name}")).await;
            assert_eq!(info.is_some(), !name.contains(':'), "{name} {info:?}");
        }
        assert!(all.has("queue_length:0:maintenance"), "{all:?}");
        for word in ["verdict", "VERDICT"] {
            let told = conn.text(cmd!["HYGIENE.STATS", "field", word]).await;
            assert!(
                ["unknown", "workers_absent"].contains(&told.as_str()),
                "{told}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn wrong_words_are_refused_counted_and_change_nothing() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run(cmd!["SET", result_key("a"), "1"]).await;
        for (words, expected) in [
            ("HYGIENE.STATS ALL", "ERR unknown option 'ALL'"),
            ("HYGIENE.STATS FIELD", "ERR FIELD needs a value"),
            ("HYGIENE.STATS FIELD nothing", "ERR no field 'nothing'"),
            ("HYGIENE.STATS RESET NOW", "ERR unknown option 'NOW'"),
            (
                "HYGIENE.STATS FIELD verdict now",
                "ERR unknown option 'now'",
            ),
        ] {
            let error = conn.error(words).await;
            assert!(error.starts_with(expected), "{words}: {error}");
        }
        conn.error("HYGIENE.CANCEL").await;
        let seen = stats(&mut conn).await;
        assert_eq!(seen.int("errors_refused_total"), 5);
        // From 7.0 on the server counts arguments before it calls the command.
        let ours = i64::from(!binary.is_7_0_or_newer());
        assert_eq!(seen.int("errors_arity_total"), ours);
        assert_eq!(
            seen.int("stamped_by_hook_total"),
            1,
            "RESET NOW reset nothing"
        );
        let since = seen.int("counters_since_ms");
        tokio::time::sleep(Duration::from_millis(5)).await;
        let done = conn.value("HYGIENE.STATS RESET").await;
        assert_eq!(done, Value::Okay, "as CONFIG RESETSTAT answers");
        let seen = stats(&mut conn).await;
        for name in seen.names() {
            let counts = name.ends_with("_total") || name.starts_with("longest_");
            // Looking goes on meanwhile.
            if counts && !name.contains("look") {
                assert_eq!(seen.int(name), 0, "{name}");
            }
        }
        for name in ["slice_p99_us", "slice_p999_us", "slice_cpu_p999_us"] {
            assert_eq!(seen.int(name), -1, "{name}: none yet");
        }
        assert!(seen.int("counters_since_ms") > since, "{seen:?}");
    })
    .await;
}

#[tokio::test]
async fn the_last_sweep_tells_its_result_and_what_lay_there_without_ttl() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        let seen = stats(&mut conn).await;
        for name in [
            "last_sweep_ok",
            "last_sweep_end_ms",
            "results",
            "slice_p99_us",
        ] {
            assert_eq!(seen.int(name), -1, "{name}: none yet");
        }
        let now = Clock::of(&mut conn).await;
        seed_results(&mut conn, "seed", 300).await;
        conn.run(cmd!["SETEX", result_key("own"), 500, "1"]).await;
        conn.run(cmd!["SET", result_key("begun"), started("begun")])
            .await;

        conn.run("HYGIENE.SCAN").await;
        let seen = stats(&mut conn).await;
        assert_eq!(seen.int("results"), 302, "{seen:?}");
        assert_eq!(seen.int("results_without_ttl"), 301, "{seen:?}");
        assert_eq!(seen.int("jobs_finished_total"), 1);
        conn.run("HYGIENE.SCAN PREFIX x").await;
        conn.run("HYGIENE.SCAN DB 1").await;
        assert_eq!(
            stats(&mut conn).await.int("results"),
            302,
            "not of all keys"
        );

        conn.run("HYGIENE.CONFIG SET sweep-interval 1s").await;
        let seen = wait_for("a sweep", LOOKS, async || {
            let seen = stats(&mut conn).await;
            match seen.int("last_sweep_ok") {
                1 => Ok(seen),
                _ => Err(format!("{seen:?}")),
            }
        })
        .await;
        conn.run("HYGIENE.CONFIG SET sweep-interval 0").await;
        for (name, wanted) in [
            ("last_sweep_scanned_keys", 302),
            ("last_sweep_stamped_keys", 301),
            ("last_sweep_deleted_keys", 0),
            ("results", 302),
            ("results_without_ttl", 301),
            ("stamped_by_sweeps_total", 301),
            ("task_result_stamped_total", 301),
            ("sweeps_total", 1),
            ("sweeps_failed_total", 0),
        ] {
            assert_eq!(seen.int(name), wanted, "{name} in {seen:?}");
        }
        assert!(seen.int("last_sweep_end_ms") >= now.0, "{seen:?}");
        let [p99, p999, longest] =
            ["slice_p99_us", "slice_p999_us", "longest_slice_us"].map(|name| seen.int(name));
        assert!(0 <= p99 && p99 <= p999 && p999 <= longest, "{seen:?}");
        let [p999, longest] =
            ["slice_cpu_p999_us", "longest_slice_cpu_us"].map(|name| seen.int(name));
        assert!(0 <= p999 && p999 <= longest && longest > 0, "{seen:?}");

        // Deleted ones, by class, and a payload that holds no date.
        let old = now.ago(3 * 3_600);
        conn.run(result_set("old", old)).await;
        conn.run(cmd!["SET", result_key("odd"), "x".repeat(100)])
            .await;
        let reply = conn.fields("HYGIENE.FIXTTL").await;
        let seen = stats(&mut conn).await;
        assert_eq!(seen.int("task_result_deleted_total"), reply.int("deleted"));
        assert!(reply.int("deleted") >= 1, "{reply:?}");
        assert_eq!(seen.int("freed_bytes_total"), reply.int("bytes_freed"));
        assert!(seen.int("unreadable_results_total") >= 1, "{seen:?}");
        assert_eq!(seen.int("sweeps_total"), 1, "FIXTTL is no background sweep");
    })
    .await;
}

fn result_set(id: &str, done_ms: i64) -> redis::Cmd {
    cmd![
        "SET",
        result_key(id),
        result(id, "SUCCESS", done_ms, Form::Utc)
    ]
}

#[tokio::test]
async fn a_change_of_verdict_is_published_once_and_told_in_stats() {
    on_every_server(async |binary| {
        let server = watching(Setup::on(binary)).start().await;
        let mut conn = server.connect().await;
        let mut channel = listen(&server).await;
        let first = stats(&mut conn).await;
        assert_eq!(first.text("verdict"), "", "not looked yet: {first:?}");
        assert_eq!(first.int("verdict_code"), -1);
        let none = looked(&mut conn).await;
        assert_eq!(none.text("verdict"), "unknown", "{none:?}");
        assert_eq!(none.int("verdict_code"), 1);

        strand_a_message(&mut conn).await;
        let event = heard(&mut channel, LOOKS).await.expect("an event");
        assert_eq!(event["event"], "verdict");
        assert_eq!(event["verdict"], "workers_absent", "{event}");
        assert_eq!(event["verdict_code"], 8);
        assert_eq!(event["before"], "unknown");
        assert_eq!(event["before_code"], 1);
        assert_eq!(event["node"], "");
        assert!(
            event["reason"]
                .as_str()
                .is_some_and(|r| r.contains("maintenance"))
        );
        let seen = stats(&mut conn).await;
        assert_eq!(seen.text("verdict"), "workers_absent");
        assert_eq!(seen.int("verdict_code"), 8);
        assert_eq!(event["at_ms"], seen.int("verdict_since_ms"));
        assert_eq!(seen.int("verdict_changes_total"), 1);
        assert_eq!(seen.int("events_published_total"), 1);
        assert_eq!(seen.int("queues_messages"), 1);
        assert_eq!(seen.int("workers_live"), 0);
        assert_eq!(seen.int("queue_length:0:maintenance"), 1);
        assert_eq!(seen.int("queue_maintenance:0:maintenance"), 1);
        assert_eq!(
            seen.text("verdict"),
            conn.fields("HYGIENE.BEATSTATUS").await.text("verdict")
        );

        // It goes on, and is not told again.
        assert!(heard(&mut channel, Duration::from_secs(3)).await.is_none());
        conn.run("DEL maintenance").await;
        let event = heard(&mut channel, LOOKS).await.expect("the end of it");
        assert_eq!(event["before"], "workers_absent", "{event}");
        assert_ne!(event["verdict"], "workers_absent", "{event}");
    })
    .await;
}

#[tokio::test]
async fn what_is_seen_once_is_no_change() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("verdict-interval", "2s")
            .start()
            .await;
        let mut conn = server.connect().await;
        looked(&mut conn).await;
        strand_a_message(&mut conn).await;
        // As soon as it is seen, it is over.
        let looks = stats(&mut conn).await.int("looks_total");
        wait_for("one look", LOOKS, async || {
            let seen = stats(&mut conn).await;
            same(seen.int("looks_total") > looks, true)
        })
        .await;
        conn.run("DEL maintenance").await;
        looked(&mut conn).await;
        let seen = looked(&mut conn).await;
        assert_eq!(seen.text("verdict"), "unknown", "{seen:?}");
        assert_eq!(seen.int("events_published_total"), 0);
    })
    .await;
}

#[tokio::test]
async fn a_replica_and_a_server_told_not_to_look_tell_no_verdict() {
    on_every_server(async |binary| {
        let primary = watching(Setup::on(binary)).start().await;
        let replica = watching(Setup::on(binary))
            .replica_of(&primary)
            .start()
            .await;
        let mut conn = primary.connect().await;
        let mut channel = listen(&replica).await;
        strand_a_message(&mut conn).await;
        wait_for("the verdict", LOOKS, async || {
            same(
                stats(&mut conn).await.text("verdict").as_str(),
                "workers_absent",
            )
        })
        .await;
        let mut follower = replica.connect().await;
        let seen = stats(&mut follower).await;
        assert_eq!(seen.text("verdict"), "", "{seen:?}");
        for name in ["verdict_code", "queues", "looks_total"] {
            let nothing = if name == "looks_total" { 0 } else { -1 };
            assert_eq!(seen.int(name), nothing, "{name}");
        }
        assert!(
            heard(&mut channel, Duration::from_millis(500))
                .await
                .is_none()
        );

        conn.run("HYGIENE.CONFIG SET verdict-interval 0").await;
        wait_for("the watch to end", LOOKS, async || {
            same(stats(&mut conn).await.int("verdict_code"), -1)
        })
        .await;
        stays("no look", Duration::from_secs(2), async || {
            same(stats(&mut conn).await.text("beat_state").as_str(), "")
        })
        .await;

        // A primary by promotion takes it up.
        follower.run("REPLICAOF NO ONE").await;
        let event = heard(&mut channel, LOOKS).await.expect("an event");
        assert_eq!(event["verdict"], "workers_absent", "{event}");
    })
    .await;
}

#[tokio::test]
async fn names_of_queues_are_told_to_who_may_read_them_and_are_text() {
    on_every_server(async |binary| {
        let server = watching(Setup::on(binary)).start().await;
        let mut conn = server.connect().await;
        strand_a_message(&mut conn).await;
        let odd: &[u8] = b"caf\xc3\xa9\xff\n";
        conn.run(cmd!["LPUSH", odd, Message::new("app.odd", "2").body()])
            .await;
        let seen = wait_for("both queues", LOOKS, async || {
            let seen = stats(&mut conn).await;
            if seen.int("queues") >= 2 {
                Ok(seen)
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await;
        assert_eq!(
            seen.int("queue_length:0:caf\u{e9}\\xff\\x0a"),
            1,
            "{seen:?}"
        );
        if !binary.is_7_0_or_newer() {
            return binary.left_out("it lets no module check rights");
        }
        conn.run("ACL SETUSER monitor on nopass +@all ~other*")
            .await;
        let mut monitor = server.connect().await;
        monitor.run("AUTH monitor any").await;
        let seen = stats(&mut monitor).await;
        assert!(
            seen.0.iter().all(|(name, _)| !name.contains(':')),
            "{seen:?}"
        );
        assert!(seen.int("queues") >= 2, "sums name nothing");
        let error = monitor
            .error("HYGIENE.STATS FIELD queue_length:0:maintenance")
            .await;
        assert!(error.starts_with("ERR no field"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn is_there_in_scripts_and_transactions_and_after_a_reload() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run(cmd!["SET", result_key("a"), "1"]).await;
        let script = "return redis.call('HYGIENE.STATS')";
        let word = if binary.is_7_0_or_newer() {
            "EVAL_RO"
        } else {
            "EVAL"
        };
        let flat = Fields::of(&conn.value(cmd![word, script, 0]).await);
        assert_eq!(flat.int("stamped_by_hook_total"), 1);
        let answers = conn.transaction(&[cmd!["HYGIENE.STATS"]]).await.unwrap();
        assert_eq!(Fields::of(&answers[0]).names(), flat.names());
    })
    .await;
}

#[tokio::test]
async fn commands_are_documented_with_what_may_stand_behind_them() {
    on_every_server(async |binary| {
        if !binary.is_7_0_or_newer() {
            return binary.left_out("it has no COMMAND DOCS");
        }
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        for (name, wanted) in [
            ("beatstatus", "[VERBOSE]"),
            ("cancel", "id"),
            ("config", "(GET glob...|SET (name value)...)"),
            ("doctor", ""),
            (
                "fixttl",
                "[TTL ttl] [JITTER percent] [FROMDONE] [MAXAGE max-age] [CLASS class...] \
                 [MATCH glob] [(DB db|ALLDBS)] [LIMIT limit] [DRYRUN] [ASYNC]",
            ),
            ("help", ""),
            ("jobs", ""),
            (
                "keys",
                "cursor [CLASS class] [(NOTTL|TTLBELOW below|TTLABOVE above)] [OLDERTHAN age] \
                 [MATCH glob] [COUNT count]",
            ),
            (
                "orphans",
                "[(REQUEUE|PURGE class)] [OLDERTHAN age] [(DB db|ALLDBS)] [LIMIT limit] [DRYRUN] \
                 [ASYNC]",
            ),
            (
                "scan",
                "[(DB db|ALLDBS)] [PREFIX prefix] [MATCH glob] [MEMORY (EXACT|SAMPLE|OFF)] \
                 [TOP top] [ASYNC]",
            ),
            ("stats", "[(FIELD name|RESET)]"),
            (
                "trigger",
                "task [QUEUE queue] [ARGS json-array] [KWARGS json-object] [TIMEOUT timeout] \
                 [DB db]",
            ),
        ] {
            let name = format!("hygiene.{name}");
            let docs = conn.fields(cmd!["COMMAND", "DOCS", &name]).await;
            let docs = Fields::of(&docs.0[0].1);
            for field in ["summary", "since", "complexity"] {
                assert!(!docs.text(field).is_empty(), "{name} {field}");
            }
            let arguments = if docs.has("arguments") {
                list(docs.get("arguments"))
            } else {
                Vec::new()
            };
            assert_eq!(syntax(&arguments, " "), wanted, "{name}");
        }
        // As many as are registered.
        let all = conn.value("COMMAND LIST FILTERBY MODULE hygiene").await;
        assert_eq!(released(&all).len(), 12, "{all:?}");
    })
    .await;
}

/// Of these commands those of a release: a build for tests has one more.
fn released(commands: &Value) -> Vec<String> {
    let mut names: Vec<String> = list(commands).iter().map(text).collect();
    names.retain(|name| name != "hygiene.fault");
    names
}

/// Arguments as a person would write them.
fn syntax(arguments: &[Value], between: &str) -> String {
    let each: Vec<String> = arguments
        .iter()
        .map(|argument| {
            let argument = Fields::of(argument);
            let parts = |between| syntax(&list(argument.get("arguments")), between);
            let mut words: Vec<String> = Vec::new();
            if argument.has("token") {
                words.push(argument.text("token"));
            }
            match argument.text("type").as_str() {
                "pure-token" => {}
                "oneof" => words.push(format!("({})", parts("|"))),
                "block" => words.push(format!("({})", parts(" "))),
                _ => words.push(argument.text("name")),
            }
            let mut shown = words.join(" ");
            let flags: Vec<String> = if argument.has("flags") {
                list(argument.get("flags")).iter().map(text).collect()
            } else {
                Vec::new()
            };
            if flags.iter().any(|flag| flag == "multiple") {
                shown += "...";
            }
            if flags.iter().any(|flag| flag == "optional") {
                shown = format!("[{shown}]");
            }
            shown
        })
        .collect();
    each.join(between)
}

#[tokio::test]
async fn the_module_has_a_category_of_its_own_where_the_server_lets_it() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let categories: Vec<String> = list(&conn.value("ACL CAT").await)
            .iter()
            .map(text)
            .collect();
        if !categories.iter().any(|name| name == "hygiene") {
            return binary.left_out("modules have no category of their own");
        }
        let named = if binary.acl_cat_names_modules_commands() {
            12
        } else {
            binary.left_out("its ACL CAT names no command of a module");
            0
        };
        let members = conn.value("ACL CAT hygiene").await;
        assert_eq!(released(&members).len(), named, "{members:?}");
        conn.run("ACL SETUSER operator on nopass ~* -@all +@hygiene -@dangerous")
            .await;
        let mut operator = server.connect().await;
        operator.run("AUTH operator any").await;
        operator.run("HYGIENE.STATS").await;
        operator.run("HYGIENE.HELP").await;
        for words in ["HYGIENE.FIXTTL", "HYGIENE.SCAN", "GET a"] {
            let error = operator.error(words).await;
            assert!(error.starts_with("NOPERM"), "{words}: {error}");
        }
        // A second load finds it there.
        conn.run("MODULE UNLOAD hygiene").await;
        let path = crate::server::module_path();
        conn.run(cmd!["MODULE", "LOAD", path.to_str()]).await;
        let members = conn.value("ACL CAT hygiene").await;
        assert_eq!(released(&members).len(), named, "{members:?}");
    })
    .await;
}

#[tokio::test]
async fn redis_cli_shows_clean_json() {
    on_every_server(async |binary| {
        let server = watching(Setup::on(binary)).start().await;
        let mut conn = server.connect().await;
        strand_a_message(&mut conn).await;
        looked(&mut conn).await;
        for words in [
            "HYGIENE.STATS",
            "HYGIENE.STATS FIELD verdict_code",
            "HYGIENE.BEATSTATUS VERBOSE",
            "HYGIENE.SCAN",
            "HYGIENE.FIXTTL DRYRUN",
            "HYGIENE.ORPHANS",
            "HYGIENE.JOBS",
            "HYGIENE.KEYS 0",
            "HYGIENE.CONFIG GET *",
            "HYGIENE.DOCTOR",
            "HYGIENE.HELP",
        ] {
            let output = std::process::Command::new("redis-cli")
                .args(["-p", &server.port.to_string(), "--json"])
                .args(words.split(' '))
                .output();
            let Ok(output) = output else {
                return binary.left_out("redis-cli is not on PATH");
            };
            let said = String::from_utf8(output.stdout).expect("JSON is UTF-8");
            let json: serde_json::Value = serde_json::from_str(&said)
                .unwrap_or_else(|error| panic!("{words}: {error}: {said}"));
            if words == "HYGIENE.STATS" && binary.is_7_0_or_newer() {
                assert_eq!(json["queue_length:0:maintenance"], 1, "{said}");
            }
        }
    })
    .await;
}
