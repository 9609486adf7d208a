//! One test for each class of fault that other modules and servers have had and that
//! could be ours: numbers that overflow, sizes taken from data, a thing named twice,
//! rights of the wrong user, clients and users that go while something waits for them.
//! Patterns, line breaks in replies and large answers are in `hostile` and `extremes`.

use std::time::Duration;

use crate::celery::{self, Clock, Message, seed_results};
use crate::chaos::Dice;
use crate::client::{Conn, list};
use crate::cmd;
use crate::data::DataSet;
use crate::extremes::{answered_soon, no_slice_is_above};
use crate::jobs;
use crate::server::{Setup, on_every_server, same, wait_for};

const SOON: Duration = Duration::from_secs(20);

/// RediSearch's LIMIT (CVE-2024-51737), RedisTimeSeries' TS.MGET (CVE-2024-51480),
/// RedisBloom's dimensions (CVE-2024-55656): numbers of a command's own arguments.
#[tokio::test]
async fn the_largest_numbers_are_taken_or_refused_and_overflow_nothing() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 10).await;
        let most = u64::MAX;
        for (command, taken) in [
            (format!("HYGIENE.FIXTTL LIMIT {most} DRYRUN"), true),
            (format!("HYGIENE.FIXTTL LIMIT {most}0 DRYRUN"), false),
            ("HYGIENE.FIXTTL TTL 36500d MAXAGE 36500d DRYRUN".to_owned(), true),
            ("HYGIENE.FIXTTL TTL 36501d".to_owned(), false),
            (format!("HYGIENE.FIXTTL MAXAGE {}", i64::MAX), false),
            (format!("HYGIENE.FIXTTL DB {}", i32::MAX), false),
            (format!("HYGIENE.FIXTTL DB {}", u64::from(u32::MAX) + 1), false),
            (format!("HYGIENE.SCAN TOP {most}"), false),
            (format!("HYGIENE.SCAN DB {}", i32::MAX), false),
            (format!("HYGIENE.ORPHANS LIMIT {most}"), true),
            ("HYGIENE.ORPHANS OLDERTHAN 36500d".to_owned(), true),
            (format!("HYGIENE.KEYS {most}"), true),
            (format!("HYGIENE.KEYS {most}0"), false),
            (format!("HYGIENE.KEYS 0 COUNT {most}"), false),
            ("HYGIENE.KEYS 0 TTLBELOW 36500d OLDERTHAN 36500d".to_owned(), true),
            (format!("HYGIENE.CANCEL {most}"), false),
            (format!("HYGIENE.TRIGGER a.b DB {}", i32::MAX), false),
        ] {
            match conn.ask(command.as_str()).await {
                Ok(_) => assert!(taken, "{command} is taken"),
                Err(error) => assert!(!taken, "{command}: {error}"),
            }
        }
        // And of what is stored: expiries at the end of time, dates, scores.
        let clock = Clock::of(&mut conn).await;
        let body = celery::result("a", "SUCCESS", clock.ago(60), celery::Form::Utc);
        for row in [
            cmd!["SET", "celery-task-meta-far", &body, "PXAT", i64::MAX / 2],
            cmd!["SET", "celery-task-meta-year", body.replace("\"date_done\": \"2", "\"date_done\": \"9")],
            cmd!["ZADD", "unacked_index", "inf", "a", "-inf", "b", "1e308", "c", "-1e308", "d"],
            cmd!["ZADD", "redbeat::schedule", "inf", "redbeat:a", "-inf", "redbeat:b"],
            cmd!["HSET", "redbeat:a", "definition", r#"{"name": "a", "task": "a", "schedule": {"__type__": "interval", "every": 1e308}}"#],
            cmd!["HSET", "unacked", "a", "x", "b", "x", "c", "x", "d", "x"],
        ] {
            conn.run(row).await;
        }
        for command in [
            "HYGIENE.SCAN",
            "HYGIENE.ORPHANS REQUEUE",
            "HYGIENE.BEATSTATUS VERBOSE",
            "HYGIENE.DOCTOR",
            "HYGIENE.FIXTTL TTL 36500d MAXAGE 36500d FROMDONE",
        ] {
            conn.run(command).await;
        }
        assert_eq!(conn.info("hygiene", "hygiene_faults_total").await.as_deref(), Some("0"));
        assert_eq!(conn.int("HLEN unacked").await, 4);
        server.assert_alive();
    })
    .await;
}

/// valkey-bloom #90, RedisBloom PR 1027, valkey-json #111: what is allocated and looped
/// over goes by bounds of ours, not by how much lies there.
#[tokio::test]
async fn tables_indexes_and_schedules_of_300_000_members_are_looked_at_in_part() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let script = "for i = ARGV[1], ARGV[1] + 9999 do local n = string.format('%d', i) \
            redis.call('SADD', '_kombu.binding.celery', 'q' .. n .. '\\6\\22\\6\\22q' .. n) \
            redis.call('ZADD', 'unacked_index', n, n) \
            redis.call('HSET', 'unacked', n, 'x') \
            redis.call('ZADD', 'redbeat::schedule', n, 'redbeat:' .. n) \
            redis.call('HSET', 'hygiene:state', 'task:' .. n, '{}') end";
        for n in 0..30 {
            conn.run(cmd!["EVAL", script, 0, n * 10_000]).await;
        }
        for command in ["HYGIENE.BEATSTATUS VERBOSE", "HYGIENE.DOCTOR"] {
            let told = format!("{:?}", answered_soon(&mut conn, command).await);
            assert!(told.len() < 500_000, "{command}: {} bytes", told.len());
        }
        let allocator = conn.info("memory", "mem_allocator").await;
        // glibc joins all small pieces that were freed when a large one is, in one go
        // (`malloc_consolidate`); with jemalloc a pass is never held up so.
        let limit_us = if allocator.as_deref() == Some("libc") {
            100_000
        } else {
            50_000
        };
        no_slice_is_above(limit_us, &mut conn, &["HYGIENE.ORPHANS", "HYGIENE.SCAN"]).await;
        assert_eq!(conn.int("HLEN unacked").await, 300_000);
        server.assert_alive();
    })
    .await;
}

/// valkey-json #108, #109, #112: the same thing named twice in one command.
#[tokio::test]
async fn what_is_named_twice_counts_once_or_is_refused() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("result-keys", "celery-task-meta-* celery-task-meta-*")
            .setting("key-prefixes", "p: p:")
            .setting("expected-tasks", "a.b=1h a.b=2h")
            .setting("maintenance-queues", "q q")
            .start()
            .await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 10).await;
        conn.run("SET p:celery-task-meta-a 1").await;
        conn.run(Message::new("a.b", "1").queue("q").push()).await;
        conn.run(celery::binding("q", "q", "q")).await;
        conn.run("HYGIENE.SCAN").await;
        let status = conn.fields("HYGIENE.BEATSTATUS").await;
        let once = |field: &str, by: &str, wanted: &str| {
            let named = status.named(field, by);
            named.iter().filter(|(name, _)| name == wanted).count()
        };
        assert_eq!(once("queues", "name", "q"), 1, "{status:?}");
        assert_eq!(once("tasks", "name", "a.b"), 1, "{status:?}");
        for command in [
            "HYGIENE.FIXTTL TTL 1h TTL 2h",
            "HYGIENE.FIXTTL DB 0 ALLDBS",
            "HYGIENE.FIXTTL CLASS lock CLASS lock",
            "HYGIENE.SCAN MATCH a MATCH b",
            "HYGIENE.ORPHANS REQUEUE PURGE chord",
            "HYGIENE.KEYS 0 NOTTL NOTTL",
            "HYGIENE.TRIGGER a.b QUEUE q QUEUE q",
        ] {
            let error = conn.error(command).await;
            assert!(error.contains("given twice"), "{command}: {error}");
        }
        let fixed = conn
            .fields("HYGIENE.FIXTTL CLASS task_result task_result")
            .await;
        assert_eq!(
            (fixed.int("matched"), fixed.int("stamped")),
            (11, 11),
            "{fixed:?}"
        );
        server.assert_alive();
    })
    .await;
}

/// Redis' CVE-2025-46818 and its like: code that runs in a script runs with the rights
/// of who called it, and what it leaves running too.
#[tokio::test]
async fn a_script_or_a_function_lends_nobody_rights() {
    on_every_server(async |binary| {
        if !binary.is_7_0_or_newer() {
            return binary.left_out("a module cannot ask what a user may do");
        }
        let mut server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        conn.run("SET a:celery-task-meta-1 x").await;
        conn.run("SET celery-task-meta-zebra x").await;
        conn.run(Message::new("zebra.task", "1").queue("zebra").push())
            .await;
        let code = "#!lua name=ours\nredis.register_function('ours', function(keys, args) \
                    return redis.call(unpack(args)) end)";
        conn.run(cmd!["FUNCTION", "LOAD", code]).await;
        conn.run("ACL SETUSER a on nopass ~a:* &* +@all").await;
        let before = DataSet::of(&server).await;
        let mut theirs = server.connect().await;
        theirs.run("AUTH a any").await;
        for words in [
            &["HYGIENE.KEYS", "0", "COUNT", "1000"][..],
            &["HYGIENE.BEATSTATUS", "VERBOSE"],
            &["HYGIENE.DOCTOR"],
            &["HYGIENE.SCAN", "ASYNC"],
            &["HYGIENE.FIXTTL", "ASYNC"],
            &["HYGIENE.JOBS"],
        ] {
            for mut call in [
                cmd!["EVAL", "return redis.call(unpack(ARGV))", 0],
                cmd!["FCALL", "ours", 0],
            ] {
                let told = theirs.ask(call.arg(words).clone()).await;
                let told = crate::acl::said(&told);
                assert!(!told.contains("zebra"), "{words:?}: {told}");
            }
        }
        wait_for("their passes to end", SOON, async || {
            let jobs = jobs::all(&mut theirs).await;
            let running = jobs.iter().filter(|job| job.text("state") == "running");
            same(running.count(), 0)
        })
        .await;
        let told = jobs::all(&mut theirs).await;
        assert_eq!(told.len(), 4, "{told:?}");
        for job in told {
            let result = job.map("result");
            assert_eq!(
                result.int("skipped_noperm"),
                1 + i64::from(result.has("classes")),
                "{job:?}"
            );
        }
        before.assert_same(&DataSet::of(&server).await, "without a right to it");
        server.assert_alive();
    })
    .await;
}

/// CVE-2024-31227, CVE-2024-51741: users that change or go while a pass is theirs.
#[tokio::test]
async fn a_pass_whose_user_is_deleted_ends_and_changes_no_more() {
    on_every_server(async |binary| {
        if !binary.is_7_0_or_newer() {
            return binary.left_out("a module cannot ask what a user may do");
        }
        let mut server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("max-writes-per-sec", "2000")
            .start()
            .await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 20_000).await;
        conn.run("ACL SETUSER a on nopass ~* &* +@all").await;
        let mut theirs = server.connect().await;
        theirs.run("AUTH a any").await;
        let id = jobs::start(&mut theirs, "HYGIENE.FIXTTL ASYNC").await;
        jobs::wait_until_begun(&mut conn).await;
        conn.run("ACL DELUSER a").await;
        let ended = jobs::wait_until(&mut conn, id, "failed").await;
        assert!(
            ended.text("error").contains("its user is gone"),
            "{ended:?}"
        );
        let left = crate::replication::results_without_ttl(&server).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(crate::replication::results_without_ttl(&server).await, left);
        assert!(left > 0, "it was in the middle");
        server.assert_alive();
    })
    .await;
}

/// CVE-2026-23479, unblocking a client that is gone or going.
#[tokio::test]
async fn clients_killed_while_they_wait_leave_nothing_behind() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 3_000).await;
        conn.run(celery::binding("celery", "celery", "celery"))
            .await;
        let mut dice = Dice(7);
        for round in 0..100 {
            let mut client = server.connect().await;
            let id = client.int("CLIENT ID").await;
            let command = dice.one_of(&[
                "HYGIENE.SCAN",
                "HYGIENE.FIXTTL DRYRUN",
                "HYGIENE.ORPHANS",
                "HYGIENE.BEATSTATUS",
                "HYGIENE.DOCTOR",
                "HYGIENE.TRIGGER a.b TIMEOUT 1s",
            ]);
            let waiting = tokio::spawn(async move { client.ask(command).await });
            tokio::time::sleep(Duration::from_micros(dice.below(8_000))).await;
            let way = match dice.below(3) {
                0 => cmd!["CLIENT", "KILL", "ID", id],
                1 => cmd!["CLIENT", "UNBLOCK", id, "TIMEOUT"],
                _ => cmd!["CLIENT", "UNBLOCK", id, "ERROR"],
            };
            conn.run(way).await;
            match dice.below(10) {
                0 => conn.run("FLUSHALL ASYNC").await,
                1 => seed_results(&mut conn, "s", 3_000).await,
                _ => {}
            }
            // Not every UNBLOCK finds somebody who waits: then the answer comes.
            let answered = tokio::time::timeout(SOON, waiting).await;
            assert!(
                answered.is_ok(),
                "round {round}: {command} was never answered"
            );
        }
        let none = |conn: &mut Conn| {
            let mut conn = conn.clone();
            async move {
                let jobs = jobs::all(&mut conn).await;
                jobs.iter()
                    .filter(|job| job.text("state") == "running")
                    .count()
            }
        };
        wait_for("nothing to run on", SOON, async || {
            same(none(&mut conn).await, 0)
        })
        .await;
        conn.unload_when_idle().await;
        server.assert_alive();
    })
    .await;
}

/// RESP3 sends pushes whenever it likes, also to a client that waits for its answer.
#[tokio::test]
async fn pushes_to_a_client_that_waits_leave_its_answer_whole() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 3_000).await;
        let mut waits = server.connect_resp3().await;
        if binary.is_7_0_or_newer() {
            waits.run("CLIENT NO-EVICT ON").await;
        }
        waits
            .run("CLIENT TRACKING ON BCAST PREFIX celery-task-meta-")
            .await;
        let pushed = waits.int("CLIENT ID").await;
        let answers = tokio::spawn(async move {
            let mut stamped = 0;
            for _ in 0..3 {
                stamped += waits.fields("HYGIENE.FIXTTL").await.int("stamped");
                waits
                    .fields("HYGIENE.SCAN")
                    .await
                    .one("classes", "class", "task_result");
            }
            stamped
        });
        // Each of these is pushed, while the passes wait for their slices.
        while !answers.is_finished() {
            conn.run("SET celery-task-meta-other {}").await;
        }
        assert!(
            answers.await.expect("no panic") >= 3_000,
            "of client {pushed}"
        );
        server.assert_alive();
    })
    .await;
}

/// CVE-2026-21864, valkey-bloom: a broken RESTORE. There is no data type of ours, and
/// what a server refuses of its own raises nothing here.
#[tokio::test]
async fn a_broken_restore_under_a_name_of_ours_is_refused_and_heard_by_nobody() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run("SET value x").await;
        conn.run(Message::new("a.b", "1").queue("celery").push())
            .await;
        let mut dice = Dice(11);
        for source in ["value", "celery"] {
            let dump = crate::client::bytes(&conn.value(cmd!["DUMP", source]).await);
            for _ in 0..50 {
                let mut broken = dump.clone();
                let at = usize::try_from(dice.below(dump.len() as u64)).expect("an index");
                broken[at] ^= 1 << dice.below(8);
                for name in ["celery-task-meta-a", "hygiene:state", "unacked"] {
                    let refused = conn.error(cmd!["RESTORE", name, 0, &broken]).await;
                    assert!(refused.starts_with("ERR"), "{refused}");
                }
            }
        }
        let keys = conn.value("KEYS *").await;
        assert_eq!(list(&keys).len(), 2);
        assert_eq!(
            conn.info("hygiene", "hygiene_faults_total")
                .await
                .as_deref(),
            Some("0")
        );
        server.assert_alive();
    })
    .await;
}
