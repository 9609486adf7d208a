//! What is learnt by watching queues, and the hash that remembers it (case C6).

use std::time::Duration;

use redis::Value;
use tokio::time::MissedTickBehavior;

use crate::celery::{Clock, HOUR, Message, binding, extended, queue_key, result_key};
use crate::client::{Conn, Fields};
use crate::cmd;
use crate::data::{assert_same_data, wait_until_in_step};
use crate::replication::results_without_ttl;
use crate::server::{Binary, Setup, on_every_server, on_one_server, same, stays, wait_for};

const STATE: &str = "hygiene:state";
/// The hash is written at most every 10 s.
const WRITTEN: Duration = Duration::from_secs(25);

/// What BEATSTATUS answers.
pub async fn status(conn: &mut Conn) -> Fields {
    conn.fields("HYGIENE.BEATSTATUS").await
}

/// Pushes as beat does, and takes it again as a worker does.
pub async fn publish(conn: &mut Conn, message: &Message) {
    conn.run(message.push()).await;
    conn.run("RPOP celery").await;
}

/// A message of beat's, with the task and a number for its id.
pub fn marked(task: &str, n: usize) -> Message {
    Message::new(task, &format!("{task}-{n}")).by_beat()
}

/// Waits until what was observed lies in the data set.
pub async fn wait_for_state(conn: &mut Conn) -> i64 {
    wait_for("the hash to be written", WRITTEN, async || {
        match conn.int(cmd!["HLEN", STATE]).await {
            0 => Err("no fields".to_owned()),
            fields => Ok(fields),
        }
    })
    .await
}

#[tokio::test]
async fn a_message_of_beat_is_seen_though_a_worker_takes_it_at_once() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let mut worker = server.connect().await;
        let waiting = tokio::spawn(async move { worker.value("BRPOP celery 20").await });
        let before = Clock::of(&mut conn).await.0;
        tokio::time::sleep(Duration::from_millis(200)).await;
        conn.run(marked("purge", 1).push()).await;
        waiting.await.expect("a worker");
        assert_eq!(conn.int("LLEN celery").await, 0);

        let status = status(&mut conn).await;
        let publisher = status.map("publisher");
        assert_eq!(publisher.text("state"), "alive", "{status:?}");
        assert_eq!(publisher.text("certainty"), "proven");
        assert_eq!(publisher.text("source"), "beat header");
        assert!(publisher.int("last_seen_ms") >= before, "{status:?}");
        let task = status.one("tasks", "name", "purge");
        assert!(task.int("last_published_ms") >= before, "{status:?}");
    })
    .await;
}

#[tokio::test]
async fn every_way_of_a_push_is_heard() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        // Arguments are looked at from the server's first round on.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let body = |n| marked(&format!("task{n}"), n).body();
        let high = queue_key("celery", 3);
        conn.run(cmd!["LPUSH", "celery", body(0)]).await;
        conn.run(cmd!["RPUSH", "celery", body(1)]).await;
        conn.run(cmd!["LPUSH", &high, body(2)]).await;
        conn.transaction(&[cmd!["LPUSH", "celery", body(3)], cmd!["RPOP", "celery"]])
            .await
            .unwrap();
        conn.run(cmd![
            "EVAL",
            "return redis.call('LPUSH', KEYS[1], ARGV[1])",
            1,
            "prefix:celery",
            body(4)
        ])
        .await;
        let mut other = server.connect_db(5).await;
        other.run(cmd!["LPUSH", "celery", body(5)]).await;
        // Of several the one that comes to lie at the end of the list.
        let some = |n| Message::new(&format!("no{n}"), "no").body();
        conn.run(cmd!["LPUSH", "celery", some(0), body(6)]).await;
        conn.run(cmd!["rpush", "celery", some(1), body(7)]).await;
        conn.run(cmd!["RPUSHX", "celery", body(8)]).await;
        // What a command moves is no argument of it.
        conn.run(cmd!["LPUSH", "aside", body(9)]).await;
        conn.run("DEL aside").await;
        conn.run(cmd!["RPUSH", "aside", "1", body(10), "2"]).await;
        conn.run("LPOP aside").await;
        conn.run("RPOP aside").await;
        conn.run("RPOPLPUSH aside celery").await;
        // A push that fails, then one that an event without a command could be
        // taken for.
        conn.run("SET text x").await;
        let refused = conn.error(cmd!["LPUSH", "text", body(11)]).await;
        assert!(refused.starts_with("WRONGTYPE"), "{refused}");
        conn.run(cmd!["LPUSH", "celery", body(12)]).await;
        let long = body(13).replacen(
            r#""body": ""#,
            &format!(r#""body": "{}"#, "W10s".repeat(300_000)),
            1,
        );
        assert!(long.len() > 1_200_000);
        conn.run(cmd!["LPUSH", "celery", long]).await;
        let status = status(&mut conn).await;
        for name in ["no0", "no1", "task11"] {
            assert!(
                !status
                    .maps("tasks")
                    .iter()
                    .any(|task| task.text("name") == name),
                "{name}: {status:?}"
            );
        }
        for n in (0..14).filter(|n| *n != 11) {
            let task = status.one("tasks", "name", &format!("task{n}"));
            assert!(task.int("last_published_ms") > 0, "task{n}: {status:?}");
        }
    })
    .await;
}

/// With the transport option `sep`, as Celery's own page on Redis priorities has it.
#[tokio::test]
async fn the_lists_of_a_queue_are_one_queue_behind_a_separator_of_ones_own() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run(cmd!["SADD", "_kombu.binding.celery", "celery::celery"])
            .await;
        let mut pass = async |n: usize| {
            let body = marked("purge", n).body();
            conn.run(cmd!["LPUSH", "celery:3", body]).await;
            conn.run("RPOP celery:3").await;
            conn.fields("HYGIENE.BEATSTATUS VERBOSE").await
        };
        // The first look shows the separator.
        pass(1).await;
        let seen = pass(2).await;
        let told = |fields: &[Fields], name: &str| -> Vec<String> {
            fields.iter().map(|fields| fields.text(name)).collect()
        };
        assert_eq!(told(&seen.maps("queues"), "name"), ["celery"], "{seen:?}");
        let rhythms = seen.map("watch").maps("rhythms");
        assert_eq!(told(&rhythms, "queue"), ["celery"], "{seen:?}");
        assert_eq!(rhythms[0].int("count"), 2, "{seen:?}");
    })
    .await;
}

#[tokio::test]
async fn threads_that_read_and_write_for_the_server_spoil_nothing() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).config("io-threads 3").start().await;
        server.connect().await.run("SET text x").await;
        let mut clients = Vec::new();
        for client in 0..8 {
            let mut conn = server.connect().await;
            clients.push(tokio::spawn(async move {
                for n in 0..100 {
                    let message = marked(&format!("task{client}"), n);
                    // What is held of a push that fails is let go by the next command.
                    conn.error(cmd!["LPUSH", "text", message.body()]).await;
                    publish(&mut conn, &message).await;
                    let key = result_key(&format!("{client}-{n}"));
                    conn.run(cmd!["SET", &key, "x".repeat(n * 100)]).await;
                }
            }));
        }
        for client in clients {
            client.await.expect("a client");
        }
        server.assert_alive();
        let mut conn = server.connect().await;
        let status = status(&mut conn).await;
        for client in 0..8 {
            let task = status.one("tasks", "name", &format!("task{client}"));
            assert!(task.int("last_published_ms") > 0, "{task:?}");
        }
        for figure in ["unreadable_messages_total", "faults_total"] {
            let told = conn.int(cmd!["HYGIENE.STATS", "FIELD", figure]).await;
            assert_eq!(told, 0, "{figure}");
        }
        wait_for("all to have a TTL", Duration::from_secs(5), async || {
            same(results_without_ttl(&server).await, 0)
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn commands_are_filtered_only_while_observe_is_on() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        for (observe, filters) in [("yes", 1), ("no", 0), ("yes", 1)] {
            conn.run(cmd!["HYGIENE.CONFIG", "SET", "observe", observe])
                .await;
            let wanted = format!("filters={filters},");
            wait_for(
                "the filter to come or go",
                Duration::from_secs(5),
                async || {
                    let modules = conn.text("INFO modules").await;
                    modules.contains(&wanted).then_some(()).ok_or(modules)
                },
            )
            .await;
        }
    })
    .await;
}

#[tokio::test]
async fn tasks_of_protocol_1_are_read_and_their_rhythm_counts_where_it_can_be_beats() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("expected-tasks", "expected=2s")
            .start()
            .await;
        let mut conn = server.connect().await;
        let beat = "f4aca169-03ec-3932-b40e-4793bcc54793";
        let old = |task: &str, n: usize| {
            let message = Message::new(task, &format!("{task}-{n}")).protocol_1();
            message.origin(beat)
        };
        for n in 0..3 {
            publish(&mut conn, &old("marked", n).by_beat()).await;
            publish(&mut conn, &old("entered", n).by_entry("each second")).await;
            publish(&mut conn, &old("expected", n)).await;
            // A task's own child looks the same, and ends with the workers.
            publish(&mut conn, &old("child", n)).await;
        }
        let seen = conn.fields("HYGIENE.BEATSTATUS VERBOSE").await;
        let publisher = seen.map("publisher");
        assert_eq!(publisher.text("certainty"), "proven", "{seen:?}");
        let mut told: Vec<String> = seen.maps("tasks").iter().map(|t| t.text("name")).collect();
        told.sort_unstable();
        assert_eq!(told, ["entered", "expected", "marked"], "{seen:?}");
        let rhythms = seen.map("watch").maps("rhythms");
        assert_eq!(rhythms.len(), 3, "{seen:?}");
        for rhythm in rhythms {
            assert_eq!(rhythm.text("origin"), beat, "{rhythm:?}");
            assert_eq!(rhythm.int("count"), 3, "{rhythm:?}");
        }
        // Pickled, it names nothing.
        let packed = old("packed", 1).body().replace("eyJ0YXNr", "gASVAgAA");
        conn.run(cmd!["LPUSH", "celery", packed]).await;
        let unread = conn.int("HYGIENE.STATS FIELD unreadable_messages_total").await;
        assert_eq!(unread, 1);
        // The end of one that was seen.
        let failed = r#"{"status": "FAILURE", "result": {"exc_type": "OSError", "exc_message": [], "exc_module": "builtins"}, "traceback": null, "children": [], "date_done": "2026-11-25T03:43:28.737886+00:00", "task_id": "expected-2"}"#;
        conn.run(cmd!["SET", result_key("expected-2"), failed]).await;
        wait_for("the end to be noticed", Duration::from_secs(5), async || {
            let task = status(&mut conn).await.one("tasks", "name", "expected");
            same(task.text("last_status"), "FAILURE".to_owned())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_task_of_protocol_1_makes_its_list_a_queue_and_waits_for_its_eta() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        for n in 0..3 {
            let message = Message::new("work", &format!("w{n}")).protocol_1();
            conn.run(message.push()).await;
        }
        let late = Message::new("late", "late")
            .protocol_1()
            .eta(clock.ago(-HOUR));
        conn.pipe(late.unacked(clock.ago_s(2 * HOUR))).await;
        let seen = conn.fields("HYGIENE.BEATSTATUS VERBOSE").await;
        assert_eq!(seen.one("queues", "name", "celery").int("length"), 3);
        let unacked = seen.map("unacked");
        assert_eq!(unacked.int("eta_ahead"), 1, "{seen:?}");
        assert_eq!(unacked.int("stuck"), 0, "{seen:?}");
        let reason = seen.text("reason");
        assert!(
            reason.contains("3 messages wait in queue celery"),
            "{reason}"
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_no_publish_is_not_taken_for_one() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        // Somebody else's lists, however they look.
        for element in ["", "{}", "buy milk", "\u{fffd}", "[1, 2", "null"] {
            conn.run(cmd!["LPUSH", "todo", element]).await;
            conn.run(cmd!["RPUSH", "todo", element]).await;
        }
        conn.run(cmd!["LPUSH", "todo", vec![b'x'; 2_000_000]]).await;
        conn.run("LPOP todo").await;
        let status = status(&mut conn).await;
        assert_eq!(status.text("verdict"), "unknown", "{status:?}");
        assert!(status.maps("tasks").is_empty(), "{status:?}");
    })
    .await;
}

#[tokio::test]
async fn the_rates_of_a_queue_are_measured() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        for n in 0..20 {
            conn.run(Message::new("work", &format!("id{n}")).push())
                .await;
        }
        for _ in 0..5 {
            conn.run("RPOP celery").await;
        }
        wait_for(
            "the watch to be old enough for a rate",
            Duration::from_secs(90),
            async || {
                let message = Message::new("work", "again");
                publish(&mut conn, &message).await;
                let queue = status(&mut conn).await.one("queues", "name", "celery");
                if queue.int("in_per_min") > 0 && queue.int("out_per_min") > 0 {
                    same(queue.text("consumed"), "yes".to_owned())
                } else {
                    Err(format!("{queue:?}"))
                }
            },
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn how_a_task_ended_is_known_where_its_publish_was_seen() {
    on_every_server(async |binary| {
        for enforce in ["yes", "no"] {
            let server = Setup::on(binary).setting("enforce", enforce).start().await;
            let mut conn = server.connect().await;
            let clock = Clock::of(&mut conn).await;
            publish(&mut conn, &marked("purge", 1)).await;
            // No name in it: the id tells.
            conn.run(cmd![
                "SET",
                result_key("purge-1"),
                r#"{"status": "FAILURE", "result": {"exc_type": "OSError", "exc_message": ["secret"], "exc_module": "builtins"}, "traceback": "secret", "children": [], "date_done": "2026-11-25T03:43:28.737886+00:00", "task_id": "purge-1"}"#
            ])
            .await;
            wait_for("the end to be noticed", Duration::from_secs(5), async || {
                let status = status(&mut conn).await;
                let task = status.one("tasks", "name", "purge");
                same(
                    (task.text("last_status"), status.text("verdict")),
                    ("FAILURE".to_owned(), "tasks_failing".to_owned()),
                )
            })
            .await;
            let told = format!("{:?}", conn.value("HYGIENE.BEATSTATUS VERBOSE").await);
            assert!(told.contains("OSError") && !told.contains("secret"), "{told}");
            // A later run that succeeds is the newer one.
            publish(&mut conn, &marked("purge", 2)).await;
            conn.run(cmd![
                "SETEX",
                result_key("purge-2"),
                100,
                extended("purge-2", "purge", "SUCCESS", clock.ago(0))
            ])
            .await;
            wait_for("the next end", Duration::from_secs(5), async || {
                let task = status(&mut conn).await.one("tasks", "name", "purge");
                same(task.text("last_status"), "SUCCESS".to_owned())
            })
            .await;
            let ttl = conn.ttl(result_key("purge-1")).await;
            assert_eq!(ttl > 0, enforce == "yes", "stamped only if enforced");
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_is_watched_while_observe_is_off() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).setting("observe", "no").start().await;
        let mut conn = server.connect().await;
        publish(&mut conn, &marked("purge", 1)).await;
        assert!(status(&mut conn).await.maps("tasks").is_empty());
        conn.run("HYGIENE.CONFIG SET observe yes").await;
        publish(&mut conn, &marked("purge", 2)).await;
        assert_eq!(status(&mut conn).await.maps("tasks").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn what_was_observed_outlives_a_crash_and_reaches_the_replica() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).append_only().start().await;
        let replica = Setup::on(binary).replica_of(&server).start().await;
        let mut conn = server.connect().await;
        publish(&mut conn, &marked("purge", 1)).await;
        let seen = status(&mut conn).await.map("publisher").int("last_seen_ms");
        wait_for_state(&mut conn).await;
        assert_eq!(conn.ttl(STATE).await, -1);
        wait_until_in_step(&server, &replica).await;
        assert_same_data(&[&server, &replica]).await;

        // The replica reads what its primary saw, every 5 s.
        let mut there = replica.connect().await;
        wait_for(
            "the primary's memory",
            Duration::from_secs(15),
            async || {
                let publisher = status(&mut there).await.map("publisher");
                same(publisher.int("last_seen_ms"), seen)
            },
        )
        .await;

        server.kill_9();
        server.start_again().await;
        let mut conn = server.connect().await;
        wait_for("the memory", Duration::from_secs(10), async || {
            let publisher = status(&mut conn).await.map("publisher");
            same(publisher.int("last_seen_ms"), seen)
        })
        .await;

        // And a replica that takes over goes on with it.
        there.run("REPLICAOF NO ONE").await;
        wait_for("the memory", Duration::from_secs(10), async || {
            let publisher = status(&mut there).await.map("publisher");
            same(publisher.int("last_seen_ms"), seen)
        })
        .await;
        publish(&mut there, &marked("purge", 2)).await;
        assert!(
            status(&mut there)
                .await
                .map("publisher")
                .int("last_seen_ms")
                > seen
        );
    })
    .await;
}

#[tokio::test]
async fn a_replica_writes_nothing_by_itself() {
    let primary = Setup::new().setting("observe", "no").start().await;
    let replica = Setup::new().replica_of(&primary).start().await;
    let mut conn = primary.connect().await;
    let mut there = replica.connect().await;
    for n in 0..20 {
        publish(&mut conn, &marked("purge", n)).await;
    }
    stays(
        "no hash on the replica",
        Duration::from_secs(12),
        async || same(there.int(cmd!["EXISTS", STATE]).await, 0),
    )
    .await;
}

#[tokio::test]
async fn who_deletes_the_hash_has_it_forgotten() {
    on_every_server(async |binary| {
        for words in [
            "DEL hygiene:state",
            "UNLINK hygiene:state",
            "FLUSHALL",
            "FLUSHDB",
        ] {
            if binary.generic_events_do_harm() && words.contains("hygiene") {
                continue;
            }
            let server = Setup::on(binary).start().await;
            let mut conn = server.connect().await;
            publish(&mut conn, &marked("purge", 1)).await;
            wait_for_state(&mut conn).await;
            conn.run(words).await;
            assert!(status(&mut conn).await.maps("tasks").is_empty(), "{words}");
            stays("nothing comes back", Duration::from_secs(1), async || {
                same(conn.int(cmd!["EXISTS", STATE]).await, 0)
            })
            .await;
        }
    })
    .await;
}

#[tokio::test]
async fn something_else_under_the_name_is_left_alone() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run(cmd!["SET", STATE, "mine"]).await;
        publish(&mut conn, &marked("purge", 1)).await;
        wait_for("the log to say so", WRITTEN, async || {
            if server.log().contains("left alone") {
                Ok(())
            } else {
                Err("nothing".to_owned())
            }
        })
        .await;
        assert_eq!(conn.text(cmd!["GET", STATE]).await, "mine");
        assert_eq!(status(&mut conn).await.maps("tasks").len(), 1);
        // Once it is out of the way all that was observed is written.
        conn.run(cmd!["RENAME", STATE, "elsewhere"]).await;
        let fields = wait_for_state(&mut conn).await;
        assert_eq!(fields, 1);
        assert_eq!(status(&mut conn).await.maps("tasks").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn all_that_was_observed_is_written_however_late_its_name_is_free() {
    on_one_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run(cmd!["SET", STATE, "mine"]).await;
        publish(&mut conn, &marked("purge", 1)).await;
        wait_for("the log to say so", WRITTEN, async || {
            let said = server.log().contains("left alone");
            said.then_some(()).ok_or_else(|| "nothing".to_owned())
        })
        .await;
        // Two more times at which it would be written, and nothing new to write.
        tokio::time::sleep(Duration::from_secs(22)).await;
        conn.run(cmd!["RENAME", STATE, "elsewhere"]).await;
        assert_eq!(wait_for_state(&mut conn).await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_foreign_key_that_is_deleted_takes_nothing_along_that_was_observed() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let fields = (0..5_000).flat_map(|n| [format!("field{n}"), "x".to_owned()]);
        let mut foreign = cmd!["HSET", STATE];
        fields.for_each(|word| {
            foreign.arg(word);
        });
        conn.run(foreign).await;
        publish(&mut conn, &marked("purge", 1)).await;
        wait_for("the log to say so", WRITTEN, async || {
            let said = server.log().contains("left alone");
            said.then_some(()).ok_or_else(|| "nothing".to_owned())
        })
        .await;
        assert_eq!(conn.int(cmd!["HLEN", STATE]).await, 5_000);
        conn.run(cmd!["DEL", STATE]).await;
        assert_eq!(status(&mut conn).await.maps("tasks").len(), 1);
        assert_eq!(wait_for_state(&mut conn).await, 1);
    })
    .await;
}

/// What keeps clients from writing, and what lets them again.
const REFUSALS: [(&str, &str, &str); 3] = [
    ("CLIENT PAUSE 60000 WRITE", "CLIENT UNPAUSE", "CLIENT PAUSE"),
    ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "(OOM)"),
    (
        "CONFIG SET min-replicas-to-write 1",
        "CONFIG SET min-replicas-to-write 0",
        "(NOREPLICAS)",
    ),
];

#[tokio::test]
async fn while_the_server_refuses_writes_no_beat_is_told_silent() {
    on_every_server(async |binary| {
        let [paused, full, alone] = REFUSALS.map(|refusal| refused(binary, refusal));
        tokio::join!(paused, full, alone);
    })
    .await;
}

async fn refused(binary: &'static Binary, (refuse, allow, word): (&str, &str, &str)) {
    let server = Setup::on(binary)
        .setting("expected-tasks", "tick=1s")
        .start()
        .await;
    let mut conn = server.connect().await;
    for n in 0..3 {
        publish(&mut conn, &marked("tick", n)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    conn.run(refuse).await;
    // Two intervals and 5 s, and some more.
    stays("no silence", Duration::from_secs(10), async || {
        let told = conn.fields("HYGIENE.BEATSTATUS VERBOSE").await;
        let faults = told.maps("faults");
        let first = faults
            .first()
            .ok_or_else(|| format!("{refuse}: no fault"))?;
        assert_eq!(first.text("code"), "writes_refused", "{told:?}");
        assert!(first.text("detail").contains(word), "{first:?}");
        same(told.text("verdict"), "unknown".to_owned())
    })
    .await;
    let said = conn.text("HYGIENE.DOCTOR").await;
    assert!(said.contains("this server refuses writes"), "{said}");
    conn.run(allow).await;
    // A beat that does not come back now is told as soon as any.
    let began = std::time::Instant::now();
    wait_for("silence", Duration::from_secs(20), async || {
        let told = status(&mut conn).await;
        same(told.text("verdict"), "beat_silent".to_owned())
    })
    .await;
    assert!(began.elapsed() > Duration::from_secs(5), "{refuse}");
}

#[tokio::test]
async fn a_queue_that_is_worked_off_without_a_push_is_seen_to_be_read() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).setting("observe", "no").start().await;
        let mut conn = server.connect().await;
        conn.run(binding("celery", "celery", "celery")).await;
        let messages = (0..500).map(|n| Message::new("app.heavy", &n.to_string()).push());
        conn.pipe(messages).await;
        let client = redis::Client::open(("127.0.0.1", server.port)).expect("an address");
        let mut control = client.get_async_pubsub().await.expect("a connection");
        control
            .psubscribe("/0.celery.pidbox")
            .await
            .expect("a subscription");
        let mut consumer = server.connect().await;
        let working = tokio::spawn(async move {
            while consumer.ask("BRPOP celery 1").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        // Who asks for two seconds is a consumer.
        tokio::time::sleep(Duration::from_secs(3)).await;
        conn.run("HYGIENE.CONFIG SET observe yes").await;
        let mut read = 0;
        stays("no unread queue", Duration::from_secs(12), async || {
            let told = status(&mut conn).await;
            let queue = told.one("queues", "name", "celery");
            assert_ne!(queue.text("consumed"), "no", "{told:?}");
            read += u32::from(queue.text("consumed") == "yes");
            match told.text("verdict").as_str() {
                "queue_not_consumed" | "workers_absent" => Err(format!("{told:?}")),
                _ => Ok(()),
            }
        })
        .await;
        assert!(read > 0, "it was never seen to be read");
        working.abort();
    })
    .await;
}

#[tokio::test]
async fn a_message_that_cannot_be_read_hides_no_queue_that_was_known_before_a_restart() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary)
            .append_only()
            .setting("sweep-on-start", "no")
            .start()
            .await;
        let mut conn = server.connect().await;
        publish(&mut conn, &marked("purge", 1)).await;
        wait_for_state(&mut conn).await;
        server.kill_9();
        server.start_again().await;
        let mut conn = server.connect().await;
        wait_for("the memory", Duration::from_secs(10), async || {
            same(status(&mut conn).await.maps("tasks").len(), 1)
        })
        .await;
        conn.run("LPUSH celery unreadable").await;
        conn.run("RPOP celery").await;
        let before = Clock::of(&mut conn).await.0;
        publish(&mut conn, &marked("purge", 2)).await;
        let task = status(&mut conn).await.one("tasks", "name", "purge");
        assert!(task.int("last_published_ms") >= before, "{task:?}");
    })
    .await;
}

#[tokio::test]
async fn a_result_that_names_its_task_tells_how_it_ended_though_its_publish_was_not_seen() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        publish(&mut conn, &marked("purge", 1)).await;
        let result = extended("before-the-restart", "purge", "SUCCESS", clock.ago(0));
        conn.run(cmd!["SET", result_key("before-the-restart"), result])
            .await;
        let foreign = extended("another", "shop.order", "FAILURE", clock.ago(0));
        conn.run(cmd!["SET", result_key("another"), foreign]).await;
        wait_for("the end", Duration::from_secs(5), async || {
            let tasks = status(&mut conn).await.maps("tasks");
            assert_eq!(tasks.len(), 1, "{tasks:?}");
            same(tasks[0].text("last_status"), "SUCCESS".to_owned())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn an_empty_name_keeps_it_in_memory_only() {
    let server = Setup::new().setting("state-key", "").start().await;
    let mut conn = server.connect().await;
    publish(&mut conn, &marked("purge", 1)).await;
    stays("no key", Duration::from_secs(12), async || {
        same(conn.int("DBSIZE").await, 0)
    })
    .await;
    assert_eq!(status(&mut conn).await.maps("tasks").len(), 1);
    // A name given later is written to.
    conn.run("HYGIENE.CONFIG SET state-key seen").await;
    wait_for("the hash", WRITTEN, async || {
        match conn.int("HLEN seen").await {
            0 => Err("no fields".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
}

#[tokio::test]
async fn broken_and_hostile_fields_are_skipped() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).append_only().start().await;
        let mut conn = server.connect().await;
        publish(&mut conn, &marked("purge", 1)).await;
        wait_for_state(&mut conn).await;
        let Value::Array(fields) = conn.value(cmd!["HKEYS", STATE]).await else {
            panic!("no list")
        };
        for (n, value) in ["", "{", "[]", "{\"v\":99}", "\u{0}\u{1}"]
            .iter()
            .enumerate()
        {
            conn.run(cmd!["HSET", STATE, format!("junk{n}"), *value])
                .await;
        }
        for field in &fields {
            let field = crate::client::text(field);
            conn.run(cmd![
                "HSET",
                STATE,
                format!("{field}x"),
                "[".repeat(100_000)
            ])
            .await;
        }
        let mut server = server;
        server.kill_9();
        server.start_again().await;
        let mut conn = server.connect().await;
        wait_for(
            "the memory",
            Duration::from_secs(10),
            async || match status(&mut conn).await.maps("tasks").len() {
                0 => Err("no task".to_owned()),
                _ => Ok(()),
            },
        )
        .await;
        server.assert_alive();
    })
    .await;
}

/// Case C6: what beat sent before it was wedged, and what others send afterwards.
#[tokio::test]
async fn a_wedged_beat_is_told_silent_though_others_send_on() {
    let mut server = Setup::new().append_only().start().await;
    let mut conn = server.connect().await;
    let told = status(&mut conn).await;
    assert_eq!(told.text("verdict"), "unknown", "without history: {told:?}");

    // Until its rhythm is known: a machine that is busy makes an even pace uneven.
    let mut tick = tokio::time::interval(Duration::from_secs(2));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut beats = 0;
    wait_for("a rhythm", Duration::from_secs(180), async || {
        tick.tick().await;
        let id = format!("beat-{beats}");
        beats += 1;
        publish(&mut conn, &Message::new("project.tick", &id)).await;
        let done = Clock::of(&mut conn).await.ago(0);
        let result = extended(&id, "project.tick", "SUCCESS", done);
        conn.run(cmd!["SET", result_key(&id), result]).await;
        let told = status(&mut conn).await;
        assert_ne!(told.text("verdict"), "beat_silent", "{told:?}");
        // Ten short gaps are wanted before a silence means anything, and one may be
        // none, for the server stood still.
        if beats > 12 && told.map("publisher").text("state") == "alive" {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        }
    })
    .await;
    let last = Clock::of(&mut conn).await;
    let mut sent = 0;
    let told = wait_for("silence", Duration::from_secs(30), async || {
        sent += 1;
        let web = Message::new("shop.order", &format!("web-{sent}")).origin("gen7@web");
        publish(&mut conn, &web).await;
        let told = status(&mut conn).await;
        if told.text("verdict") == "beat_silent" {
            Ok(told)
        } else {
            Err(format!("{told:?}"))
        }
    })
    .await;
    let after = Clock::of(&mut conn).await.0 - last.0;
    // Two intervals and 5 s, and what a busy machine adds.
    assert!(after >= 8_000, "told after {after} ms");
    let reason = told.text("reason");
    assert!(reason.contains("project.tick"), "{reason}");
    assert!(reason.contains(" s ago"), "{reason}");

    wait_for_state(&mut conn).await;
    server.kill_9();
    server.start_again().await;
    let mut conn = server.connect().await;
    stays(
        "no health after a restart",
        Duration::from_secs(3),
        async || match status(&mut conn).await.text("verdict").as_str() {
            "healthy" => Err("healthy".to_owned()),
            _ => Ok(()),
        },
    )
    .await;
}
