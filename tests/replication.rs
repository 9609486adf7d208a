//! What a replica and the append-only file receive, and what survives a restart,
//! a pause and an unload in the middle of work (cases C10 and C11).

use std::time::Duration;

use crate::celery::seed_results;
use crate::client::{Conn, ToCmd};
use crate::cmd;
use crate::data::{
    DataSet, append_only_commands, append_only_lines, assert_same_data, wait_until_in_step,
};
use crate::jobs;
use crate::lifecycle::forget_module;
use crate::server::{Binary, Server, Setup, on_every_server, same, stays, wait_for};

/// Every way in which a result is written, in whatever database.
const WRITES: &[&[&str]] = &[
    &["SET celery-task-meta-set 1"],
    &["SETNX celery-task-meta-setnx 1"],
    &["GETSET celery-task-meta-getset 1"],
    &["MSET celery-task-meta-m1 1 other 2 celery-task-meta-m2 3"],
    &["APPEND celery-task-meta-append 1"],
    &["SETRANGE celery-task-meta-setrange 3 1"],
    &["INCR celery-task-meta-incr"],
    &[
        "MULTI",
        "SET celery-task-meta-multi 1",
        "PUBLISH celery-task-meta-multi 1",
        "EXEC",
    ],
    &[
        "MULTI",
        "SET celery-task-meta-twice 1",
        "SET celery-task-meta-twice 2",
        "EXEC",
    ],
    &[
        "EVAL redis.call('SET',KEYS[1],1)return(redis.call('SET',KEYS[2],1)) 2 celery-task-meta-l1 celery-task-meta-l2",
    ],
];

/// Writes a result in each of those ways.
pub async fn write_all(conn: &mut Conn) {
    for unit in WRITES {
        for words in *unit {
            conn.run(*words).await;
        }
    }
}

/// Results without TTL, over all databases.
pub async fn results_without_ttl(server: &Server) -> usize {
    let held = DataSet::of(server).await;
    let results = held.with_prefix("celery-task-meta-");
    results.iter().filter(|row| row.expires_ms < 0).count()
}

/// Writes in two databases of the first server, sweeps it, and fails the test unless all
/// hold the same then.
pub async fn assert_written_and_swept_alike(servers: &[&Server]) {
    for db in [0, 9] {
        write_all(&mut servers[0].connect_db(db).await).await;
    }
    servers[0].connect().await.run("HYGIENE.FIXTTL").await;
    wait_until_stamped(servers[0]).await;
    assert_same_data(servers).await;
}

/// Waits until every result has a TTL, over all databases.
pub async fn wait_until_stamped(server: &Server) {
    wait_for(
        "every result to have a TTL",
        Duration::from_secs(20),
        async || same(results_without_ttl(server).await, 0),
    )
    .await;
}

/// The replica's own append-only file is written anew after a full sync.
pub async fn wait_until_synced(primary: &Server, replica: &Server) {
    wait_until_in_step(primary, replica).await;
    let mut conn = replica.connect().await;
    wait_for(
        "the rewrite after the sync to end",
        Duration::from_secs(20),
        async || {
            let running = conn.info("persistence", "aof_rewrite_in_progress").await;
            let scheduled = conn.info("persistence", "aof_rewrite_scheduled").await;
            same(
                (running.as_deref(), scheduled.as_deref()),
                (Some("0"), Some("0")),
            )
        },
    )
    .await;
}

async fn pair(binary: &'static Binary) -> (Server, Server) {
    let primary = Setup::on(binary).append_only().start().await;
    let replica = Setup::on(binary)
        .append_only()
        .replica_of(&primary)
        .start()
        .await;
    wait_until_synced(&primary, &replica).await;
    (primary, replica)
}

#[tokio::test]
async fn the_write_goes_out_before_its_expiry() {
    on_every_server(async |binary| {
        let (primary, replica) = pair(binary).await;
        for db in [0, 9] {
            write_all(&mut primary.connect_db(db).await).await;
        }
        wait_until_stamped(&primary).await;
        assert_same_data(&[&primary, &replica]).await;

        for server in [&primary, &replica] {
            let commands = append_only_commands(server);
            let held = DataSet::of(server).await;
            let results = held.with_prefix("celery-task-meta-");
            assert_eq!(results.len(), 2 * 12, "{results:?}");
            for row in results {
                let about: Vec<_> = commands
                    .iter()
                    .filter(|(db, words)| *db == row.db && words.contains(&row.key))
                    .map(|(_, words)| words)
                    .collect();
                let (last, writes) = about.split_last().expect("the key was written");
                assert_eq!(
                    last[..2],
                    [b"PEXPIREAT".to_vec(), row.key.clone()],
                    "{row:?}"
                );
                let moment: i64 = String::from_utf8_lossy(&last[2]).parse().expect("ms");
                // Redis 6.2 does not tell the moment exactly.
                assert!((moment - row.expires_ms).abs() <= 2, "{moment}: {row:?}");
                let early = writes.iter().any(|words| words[0] == b"PEXPIREAT");
                assert!(!early && !writes.is_empty(), "{row:?}: {about:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn write_and_expiry_are_one_transaction_where_the_server_can() {
    on_every_server(async |binary| {
        if !binary.stamps_in_the_same_unit() {
            return binary.left_out("it stamps a turn later");
        }
        let (primary, replica) = pair(binary).await;
        let mut conn = primary.connect_db(9).await;
        conn.run("SET celery-task-meta-a 1").await;
        conn.run("SETEX celery-task-meta-b 100 1").await;
        for words in ["MULTI", "SET celery-task-meta-c 1", "SET other 1", "EXEC"] {
            conn.run(words).await;
        }
        wait_until_in_step(&primary, &replica).await;
        for server in [&primary, &replica] {
            let held = DataSet::of(server).await;
            let moment = |key: &str| held.with_prefix(key)[0].expires_ms;
            let (a, b, c) = (
                moment("celery-task-meta-a"),
                moment("celery-task-meta-b"),
                moment("celery-task-meta-c"),
            );
            let expected = [
                "MULTI".to_owned(),
                "9 SET celery-task-meta-a 1".to_owned(),
                format!("9 PEXPIREAT celery-task-meta-a {a}"),
                "EXEC".to_owned(),
                format!("9 SET celery-task-meta-b 1 PXAT {b}"),
                "MULTI".to_owned(),
                "9 SET celery-task-meta-c 1".to_owned(),
                "9 SET other 1".to_owned(),
                format!("9 PEXPIREAT celery-task-meta-c {c}"),
                "EXEC".to_owned(),
            ];
            assert_eq!(append_only_lines(server), expected);
        }
    })
    .await;
}

#[tokio::test]
async fn a_replica_adds_nothing_to_what_its_primary_sends() {
    on_every_server(async |binary| {
        let (primary, replica) = pair(binary).await;
        write_all(&mut primary.connect().await).await;
        wait_until_stamped(&primary).await;
        assert_same_data(&[&primary, &replica]).await;
        let about_keys = |server: &Server| -> Vec<String> {
            let mut lines = append_only_lines(server);
            // Where a transaction begins may differ; what is done may not.
            lines.retain(|line| line != "MULTI" && line != "EXEC");
            lines.retain(|line| !line.contains(" PUBLISH "));
            lines
        };
        assert_eq!(about_keys(&replica), about_keys(&primary));
    })
    .await;
}

#[tokio::test]
async fn a_replica_without_the_module_holds_the_same() {
    on_every_server(async |binary| {
        let primary = Setup::on(binary).start().await;
        let replica = Setup::on(binary)
            .without_module()
            .replica_of(&primary)
            .start()
            .await;
        wait_until_in_step(&primary, &replica).await;
        write_all(&mut primary.connect().await).await;
        wait_until_stamped(&primary).await;
        assert_same_data(&[&primary, &replica]).await;
    })
    .await;
}

#[tokio::test]
async fn what_fixttl_does_reaches_the_replica() {
    on_every_server(async |binary| {
        let (primary, replica) = pair(binary).await;
        let mut conn = primary.connect().await;
        conn.run("HYGIENE.CONFIG SET enforce no").await;
        seed_results(&mut conn, "s", 5000).await;
        assert_eq!(results_without_ttl(&primary).await, 5000);
        let reply = conn.fields("HYGIENE.FIXTTL").await;
        assert_eq!(reply.int("stamped"), 5000);
        assert_same_data(&[&primary, &replica]).await;
        let reply = conn.fields("HYGIENE.FIXTTL MAXAGE 1s").await;
        assert_eq!(reply.int("stamped"), 0, "{reply:?}");
        assert_same_data(&[&primary, &replica]).await;
    })
    .await;
}

#[tokio::test]
async fn a_restart_from_the_append_only_file_shifts_nothing() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).append_only().start().await;
        for db in [0, 9] {
            let mut conn = server.connect_db(db).await;
            write_all(&mut conn).await;
            conn.run("SETEX celery-task-meta-own 100 1").await;
            conn.run("SET celery-task-meta-persisted 1").await;
        }
        wait_until_stamped(&server).await;
        server
            .connect()
            .await
            .run("PERSIST celery-task-meta-persisted")
            .await;
        let before = DataSet::of(&server).await;
        for round in ["first", "second"] {
            server.kill_9();
            server.start_again().await;
            before.assert_same(&DataSet::of(&server).await, round);
        }
    })
    .await;
}

#[tokio::test]
async fn a_restart_from_the_dump_shifts_nothing_with_or_without_the_module() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect_db(9).await;
        write_all(&mut conn).await;
        wait_until_stamped(&server).await;
        let before = DataSet::of(&server).await;
        server.shut_down("SAVE");
        server.start_again().await;
        before.assert_same(&DataSet::of(&server).await, "with the module");
        server.shut_down("SAVE");

        forget_module(&server);
        server.start_again().await;
        before.assert_same(&DataSet::of(&server).await, "without the module");
    })
    .await;
}

#[tokio::test]
async fn the_start_sweep_finds_what_was_loaded_without_ttl() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("sweep-on-start", "yes")
            .append_only()
            .start()
            .await;
        let mut conn = server.connect_db(9).await;
        seed_results(&mut conn, "s", 1000).await;
        conn.run("SET airflow_variable 1").await;
        assert_eq!(results_without_ttl(&server).await, 1000);
        server.kill_9();
        server.start_again().await;
        wait_until_stamped(&server).await;
        let mut conn = server.connect_db(9).await;
        assert_eq!(conn.int("DBSIZE").await, 1001, "nothing is deleted");
        assert_eq!(conn.ttl("airflow_variable").await, -1);
    })
    .await;
}

#[tokio::test]
async fn fifty_thousand_results_may_expire_at_once() {
    on_every_server(async |binary| {
        let mut primary = Setup::on(binary).setting("default-ttl", "2s").start().await;
        let replica = Setup::on(binary).replica_of(&primary).start().await;
        wait_until_in_step(&primary, &replica).await;
        let mut conn = primary.connect().await;
        seed_results(&mut conn, "s", 50_000).await;
        wait_for(
            "every result to be gone",
            Duration::from_secs(30),
            async || same(conn.int("DBSIZE").await, 0),
        )
        .await;
        primary.assert_alive();
        let expired = conn.info("stats", "expired_keys").await;
        assert_eq!(expired.as_deref(), Some("50000"));
        assert_same_data(&[&primary, &replica]).await;
    })
    .await;
}

#[tokio::test]
async fn flushall_and_swapdb_may_come_between_a_write_and_its_stamp() {
    on_every_server(async |binary| {
        let mut primary = Setup::on(binary).append_only().start().await;
        let replica = Setup::on(binary).replica_of(&primary).start().await;
        wait_until_in_step(&primary, &replica).await;
        let mut conn = primary.connect().await;
        for round in 0..20 {
            let write = |n: i32| cmd!["SET", format!("celery-task-meta-{round}-{n}"), n];
            let mut commands: Vec<_> = (0..50).map(write).collect();
            commands.push("FLUSHALL".to_cmd());
            commands.extend((50..100).map(write));
            commands.push("SWAPDB 0 9".to_cmd());
            commands.extend((100..150).map(write));
            conn.pipe(commands).await;
        }
        primary.assert_alive();
        // A key that left its database within the turn is the next sweep's.
        conn.run("HYGIENE.FIXTTL").await;
        assert_eq!(results_without_ttl(&primary).await, 0);
        assert_same_data(&[&primary, &replica]).await;
        let held = DataSet::of(&primary)
            .await
            .with_prefix("celery-task-meta-")
            .len();
        assert_eq!(held, 100, "the last FLUSHALL left what came after it");
    })
    .await;
}

#[tokio::test]
async fn flushall_and_swapdb_may_come_in_the_middle_of_a_sweep() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        for disturbance in ["SWAPDB 0 9", "FLUSHALL"] {
            seed_results(&mut conn, "s", 50_000).await;
            let id = jobs::start(&mut conn, "HYGIENE.FIXTTL ASYNC").await;
            conn.run(disturbance).await;
            jobs::wait_until(&mut conn, id, "finished").await;
            server.assert_alive();
        }
        seed_results(&mut conn, "t", 100).await;
        assert_eq!(conn.fields("HYGIENE.FIXTTL").await.int("stamped"), 100);
    })
    .await;
}

#[tokio::test]
async fn unloading_with_work_pending_does_no_harm() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let mut other = server.connect().await;
        for n in 0..500 {
            other
                .pipe([cmd!["SET", format!("celery-task-meta-{n}"), n]])
                .await;
            let mut commands: Vec<_> = (0..50)
                .map(|m| cmd!["SET", format!("celery-task-meta-{n}-{m}"), m])
                .collect();
            commands.push("PING".to_cmd());
            conn.pipe(commands).await;
            if conn.ask("MODULE UNLOAD hygiene").await.is_ok() {
                break;
            }
        }
        stays("a server", Duration::from_millis(100), async || {
            same(
                conn.text("SET celery-task-meta-after 1").await.as_str(),
                "OK",
            )
        })
        .await;
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn unloading_during_a_sweep_is_refused_until_it_is_cancelled() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("cpu-percent", "1")
            .start()
            .await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 100_000).await;
        let id = jobs::start(&mut conn, "HYGIENE.FIXTTL ASYNC").await;
        let refused = conn.ask("MODULE UNLOAD hygiene").await;
        if binary.is_7_0_or_newer() {
            assert!(refused.is_err(), "the server refuses while a timer stands");
        }
        if refused.is_err() {
            conn.run(cmd!["HYGIENE.CANCEL", id]).await;
            conn.unload_when_idle().await;
        }
        // A timer that was left behind would fire now.
        stays("100000 keys", Duration::from_millis(300), async || {
            same(conn.int("DBSIZE").await, 100_000)
        })
        .await;
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn a_paused_server_is_not_written_to_and_the_work_is_done_afterwards() {
    on_every_server(async |binary| {
        let mut primary = Setup::on(binary).append_only().start().await;
        let replica = Setup::on(binary).replica_of(&primary).start().await;
        wait_until_in_step(&primary, &replica).await;
        let mut conn = primary.connect().await;
        conn.run("HYGIENE.CONFIG SET enforce no").await;
        seed_results(&mut conn, "s", 100_000).await;
        conn.run("HYGIENE.CONFIG SET enforce yes").await;
        wait_until_in_step(&primary, &replica).await;

        let id = jobs::start(&mut conn, "HYGIENE.FIXTTL ASYNC").await;
        conn.pipe([
            "SET celery-task-meta-late 1".to_cmd(),
            "CLIENT PAUSE 3000 WRITE".to_cmd(),
        ])
        .await;
        let mut watcher = primary.connect().await;
        let offset = watcher.info("replication", "master_repl_offset").await;
        let stamped = watcher.info("keyspace", "db0").await;
        let expires =
            |line: Option<String>| line.and_then(|l| Some(l.split(',').nth(1)?.to_owned()));
        let stamped = expires(stamped);
        stays("no write", Duration::from_secs(2), async || {
            same(
                watcher.info("replication", "master_repl_offset").await,
                offset.clone(),
            )?;
            same(
                expires(watcher.info("keyspace", "db0").await),
                stamped.clone(),
            )
        })
        .await;
        primary.assert_alive();
        assert_eq!(jobs::job(&mut watcher, id).await.text("state"), "running");

        jobs::wait_until(&mut watcher, id, "finished").await;
        wait_until_stamped(&primary).await;
        assert_same_data(&[&primary, &replica]).await;
        assert_eq!(watcher.int("DBSIZE").await, 100_001);
    })
    .await;
}

#[tokio::test]
async fn a_demoted_primary_stops_its_sweep() {
    on_every_server(async |binary| {
        let other = Setup::on(binary).without_module().start().await;
        let mut server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("cpu-percent", "1")
            .start()
            .await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 50_000).await;
        let id = jobs::start(&mut conn, "HYGIENE.FIXTTL ASYNC").await;
        conn.run(cmd!["REPLICAOF", "127.0.0.1", other.port]).await;
        wait_until_in_step(&other, &server).await;
        assert_same_data(&[&other, &server]).await;
        let job = jobs::wait_until(&mut conn, id, "failed").await;
        assert!(job.text("error").contains("no longer a primary"), "{job:?}");
        server.assert_alive();
    })
    .await;
}
