//! Primaries with several replicas, however these came by their data, and roles
//! that change in the middle of work. Each needs several servers, so each runs on
//! one kind of server; `make test-matrix` has every kind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use redis::{ProtocolVersion, Value};
use tokio::task::JoinHandle;

use crate::celery::seed_results;
use crate::client::{Conn, int};
use crate::cmd;
use crate::data::{assert_same_data, wait_until_in_step};
use crate::jobs;
use crate::replication::{
    assert_written_and_swept_alike, results_without_ttl, wait_until_stamped, wait_until_synced,
    write_all,
};
use crate::server::{Server, Setup, oldest, on_every_server, on_one_server, same, stays, wait_for};

/// How long a change that the servers make by themselves may take.
const LONG: Duration = Duration::from_secs(30);

/// Writes results, one after the other, until it is told to stop or a write is
/// refused or lost. Answers the numbers of those that were acknowledged.
pub struct Writer {
    stop: Arc<AtomicBool>,
    written: JoinHandle<Vec<u32>>,
}

impl Writer {
    /// Begins to write `celery-task-meta-PREFIX` and a number to that port.
    pub fn start(port: u16, prefix: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let written = tokio::spawn(async move {
            let mut taken = Vec::new();
            let Ok(mut conn) = Conn::open(port, 0, ProtocolVersion::RESP2).await else {
                return taken;
            };
            for n in 0.. {
                let key = format!("celery-task-meta-{prefix}{n}");
                if told.load(Relaxed) || conn.ask(cmd!["SET", key, n]).await.is_err() {
                    break;
                }
                taken.push(n);
            }
            taken
        });
        Self { stop, written }
    }

    /// Waits until it has ended, after telling it to.
    pub async fn stop(self) -> Vec<u32> {
        self.stop.store(true, Relaxed);
        self.written.await.expect("a writer that ends")
    }
}

/// Starts a sweep that takes seconds, and waits until it has written something.
pub async fn sweep_in_the_middle(conn: &mut Conn) -> i64 {
    let id = jobs::start(conn, "HYGIENE.FIXTTL ASYNC").await;
    wait_for("the sweep to have written", LONG, async || {
        let keyspace = conn.info("keyspace", "db0").await.unwrap_or_default();
        if keyspace.contains("expires=0,") {
            Err(keyspace)
        } else {
            Ok(())
        }
    })
    .await;
    assert_eq!(jobs::job(conn, id).await.text("state"), "running");
    id
}

async fn replicate(server: &Server, primary: &Server) {
    let mut conn = server.connect().await;
    conn.run(cmd!["REPLICAOF", "127.0.0.1", primary.port]).await;
}

#[tokio::test]
async fn two_replicas_and_one_behind_them_hold_the_same_however_they_were_synced() {
    on_one_server(async |binary| {
        for (append_only, diskless_sync, diskless_load) in [
            (true, "no", "disabled"),
            (false, "yes", "on-empty-db"),
            (true, "yes", "swapdb"),
        ] {
            let setup = || {
                let setup = Setup::on(binary)
                    .config(&format!("repl-diskless-sync {diskless_sync}"))
                    .config(&format!("repl-diskless-load {diskless_load}"))
                    .config("min-replicas-to-write 0");
                if append_only {
                    setup.append_only()
                } else {
                    setup
                }
            };
            let primary = setup()
                .setting("enforce", "no")
                .setting("max-writes-per-sec", "20000")
                .start()
                .await;
            let mut conn = primary.connect().await;
            seed_results(&mut conn, "s", 30_000).await;
            // The replicas copy a data set that is being swept.
            let id = sweep_in_the_middle(&mut conn).await;
            let first = setup().replica_of(&primary).start().await;
            let second = setup().replica_of(&primary).start().await;
            let behind = setup().replica_of(&first).start().await;
            conn.run("HYGIENE.CONFIG SET enforce yes").await;
            for db in [0, 9] {
                write_all(&mut primary.connect_db(db).await).await;
            }
            jobs::wait_until(&mut conn, id, "finished").await;
            wait_until_stamped(&primary).await;
            assert_same_data(&[&primary, &first, &second, &behind]).await;

            // A copy that replaces another data set, while that one is being read.
            let mut reader = behind.connect().await;
            let scan = jobs::start(&mut reader, "HYGIENE.SCAN ASYNC").await;
            behind.connect().await.run("REPLICAOF NO ONE").await;
            write_all(&mut behind.connect_db(3).await).await;
            replicate(&behind, &second).await;
            wait_until_in_step(&primary, &behind).await;
            jobs::wait_until(&mut reader, scan, "finished").await;
            assert_same_data(&[&primary, &first, &second, &behind]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_gets_its_copy_over_a_channel_of_its_own_holds_the_same() {
    on_every_server(async |binary| {
        let setup = || {
            Setup::on(binary)
                .setting("enforce", "no")
                .setting("max-writes-per-sec", "5000")
                .config("repl-diskless-sync yes")
                // Slow enough a copy for writes to come meanwhile.
                .config("rdb-key-save-delay 50")
        };
        let primary = setup().start().await;
        let mut conn = primary.connect().await;
        let mut channel = None;
        // Redis 8.0 and Valkey 8.0, each by its own name.
        for name in ["repl-rdb-channel", "dual-channel-replication-enabled"] {
            if conn.ask(cmd!["CONFIG", "SET", name, "yes"]).await.is_ok() {
                channel = Some(format!("{name} yes"));
            }
        }
        let Some(channel) = channel else {
            return binary.left_out("copy and commands come over one channel");
        };
        seed_results(&mut conn, "s", 20_000).await;
        let id = sweep_in_the_middle(&mut conn).await;
        let replica = setup().config(&channel).replica_of(&primary).start().await;
        conn.run("HYGIENE.CONFIG SET enforce yes").await;
        let writer = Writer::start(primary.port, "w");
        let mut lower = replica.connect().await;
        wait_for("the copy", LONG, async || {
            let link = lower.info("replication", "master_link_status").await;
            same(link.as_deref(), Some("up"))
        })
        .await;
        assert!(!writer.stop().await.is_empty(), "there was traffic");
        let log = replica.log().to_lowercase();
        assert!(log.contains("channel"), "one channel alone:\n{log}");
        jobs::wait_until(&mut conn, id, "finished").await;
        wait_until_stamped(&primary).await;
        assert_same_data(&[&primary, &replica]).await;
    })
    .await;
}

#[tokio::test]
async fn a_replica_on_a_newer_server_holds_the_same_and_goes_on_alone() {
    on_every_server(async |binary| {
        let mut old = Setup::on(oldest()).setting("enforce", "no").start().await;
        let mut conn = old.connect().await;
        seed_results(&mut conn, "s", 5_000).await;
        let mut new = Setup::on(binary).replica_of(&old).start().await;
        wait_until_in_step(&old, &new).await;
        conn.run("HYGIENE.CONFIG SET enforce yes").await;
        assert_written_and_swept_alike(&[&old, &new]).await;

        new.connect().await.run("REPLICAOF NO ONE").await;
        write_all(&mut new.connect_db(3).await).await;
        wait_until_stamped(&new).await;
        old.assert_alive();
        new.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn what_wait_has_waited_for_has_its_ttl_on_both_replicas() {
    on_one_server(async |binary| {
        let primary = Setup::on(binary)
            .config("min-replicas-to-write 2")
            .start()
            .await;
        let mut replicas = Vec::new();
        for _ in 0..2 {
            replicas.push(Setup::on(binary).replica_of(&primary).start().await);
        }
        for replica in &replicas {
            wait_until_synced(&primary, replica).await;
        }
        let mut conn = primary.connect().await;
        wait_for("the replicas to count", LONG, async || {
            let good = conn.info("replication", "min_slaves_good_slaves").await;
            same(good.as_deref(), Some("2"))
        })
        .await;
        for round in 0..20 {
            let key = format!("celery-task-meta-{round}");
            let answers = conn
                .pipe([cmd!["SET", &key, 1], cmd!["WAIT", 2, 10_000]])
                .await;
            assert_eq!(int(&answers[1]), 2);
            if binary.stamps_in_the_same_unit() {
                for replica in &replicas {
                    assert!(replica.connect().await.ttl(&key).await > 0, "{key}");
                }
            }
        }
        if !binary.stamps_in_the_same_unit() {
            binary.left_out("it stamps a turn after what WAIT waits for");
        }
        assert_same_data(&[&primary, &replicas[0], &replicas[1]]).await;
    })
    .await;
}

#[tokio::test]
async fn without_enough_replicas_nothing_is_written_and_the_work_is_done_when_they_are_back() {
    on_one_server(async |binary| {
        let mut primary = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = primary.connect().await;
        seed_results(&mut conn, "s", 1_000).await;
        conn.run("CONFIG SET min-replicas-to-write 1").await;
        conn.run("HYGIENE.CONFIG SET sweep-interval 1s").await;
        let refused = conn.error("SET celery-task-meta-a 1").await;
        assert!(refused.starts_with("NOREPLICAS"), "{refused}");
        for words in ["HYGIENE.FIXTTL ASYNC", "HYGIENE.ORPHANS REQUEUE"] {
            let refused = conn.error(words).await;
            assert!(refused.starts_with("NOREPLICAS"), "{words}: {refused}");
        }
        conn.run("HYGIENE.FIXTTL DRYRUN").await;
        wait_for("the sweep to say why it rests", LONG, async || {
            let jobs = jobs::all(&mut conn).await;
            let says = jobs.iter().any(|job| {
                job.text("state") == "running" && job.text("rests").contains("min-replicas")
            });
            says.then_some(()).ok_or(format!("{jobs:?}"))
        })
        .await;
        stays(
            "the results as they are",
            Duration::from_secs(1),
            async || same(results_without_ttl(&primary).await, 1_000),
        )
        .await;
        primary.assert_alive();
        let replica = Setup::on(binary).replica_of(&primary).start().await;
        wait_until_synced(&primary, &replica).await;
        wait_until_stamped(&primary).await;
        assert_same_data(&[&primary, &replica]).await;
    })
    .await;
}

#[tokio::test]
async fn a_replica_promoted_in_the_middle_of_a_sweep_can_finish_it() {
    on_one_server(async |binary| {
        let setup = || {
            Setup::on(binary)
                .setting("enforce", "no")
                .setting("max-writes-per-sec", "10000")
                .append_only()
        };
        let mut old = setup().start().await;
        let mut new = setup().replica_of(&old).start().await;
        wait_until_synced(&old, &new).await;
        seed_results(&mut old.connect().await, "s", 60_000).await;
        wait_until_in_step(&old, &new).await;
        for by_failover in [false, true] {
            let mut conn = old.connect().await;
            conn.run("HYGIENE.CONFIG SET max-writes-per-sec 10000")
                .await;
            let id = sweep_in_the_middle(&mut conn).await;
            if by_failover {
                conn.run("FAILOVER").await;
                let mut promoted = new.connect().await;
                wait_for("the failover", LONG, async || {
                    let role = promoted.info("replication", "role").await;
                    same(role.as_deref(), Some("master"))
                })
                .await;
            } else {
                new.connect().await.run("REPLICAOF NO ONE").await;
                replicate(&old, &new).await;
            }
            let job = jobs::wait_until(&mut conn, id, "failed").await;
            assert!(job.text("error").contains("no longer a primary"), "{job:?}");
            wait_until_in_step(&new, &old).await;
            assert_same_data(&[&new, &old]).await;
            assert!(results_without_ttl(&new).await > 0, "it was in the middle");
            std::mem::swap(&mut old, &mut new);
        }
        let mut conn = old.connect().await;
        conn.run("HYGIENE.CONFIG SET max-writes-per-sec 1000000")
            .await;
        conn.run("HYGIENE.FIXTTL").await;
        assert_eq!(results_without_ttl(&old).await, 0);
        assert_eq!(conn.int("DBSIZE").await, 60_000);
        assert_same_data(&[&old, &new]).await;
        old.assert_alive();
        new.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn a_replica_promoted_between_a_write_and_its_stamp_leaves_nothing_for_long() {
    on_one_server(async |binary| {
        let setup = || Setup::on(binary).append_only();
        let mut old = setup().start().await;
        let mut new = setup().replica_of(&old).start().await;
        wait_until_synced(&old, &new).await;
        for round in 0..4 {
            let prefix = ["a", "b", "c", "d"][round];
            let writers: Vec<Writer> = (0..4).map(|_| Writer::start(old.port, prefix)).collect();
            tokio::time::sleep(Duration::from_millis(100)).await;
            if round % 2 == 0 {
                old.connect().await.run("FAILOVER").await;
                let mut promoted = new.connect().await;
                wait_for("the failover", LONG, async || {
                    let role = promoted.info("replication", "role").await;
                    same(role.as_deref(), Some("master"))
                })
                .await;
            } else {
                new.connect().await.run("REPLICAOF NO ONE").await;
                replicate(&old, &new).await;
            }
            for writer in writers {
                assert!(!writer.stop().await.is_empty(), "there was traffic");
            }
            wait_until_in_step(&new, &old).await;
            if binary.stamps_in_the_same_unit() {
                assert_eq!(results_without_ttl(&new).await, 0, "round {round}");
            }
            new.connect().await.run("HYGIENE.FIXTTL").await;
            assert_eq!(results_without_ttl(&new).await, 0);
            assert_same_data(&[&new, &old]).await;
            std::mem::swap(&mut old, &mut new);
        }
        old.assert_alive();
        new.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn an_old_primary_that_returns_takes_what_the_new_one_has() {
    on_one_server(async |binary| {
        let setup = || {
            Setup::on(binary)
                .setting("sweep-on-start", "yes")
                .append_only()
        };
        let mut old = setup().start().await;
        let new = setup().replica_of(&old).start().await;
        wait_until_synced(&old, &new).await;
        let writers: Vec<Writer> = (0..4).map(|_| Writer::start(old.port, "w")).collect();
        tokio::time::sleep(Duration::from_millis(200)).await;
        old.kill_9();
        for writer in writers {
            assert!(!writer.stop().await.is_empty(), "there was traffic");
        }
        let mut conn = new.connect().await;
        conn.run("REPLICAOF NO ONE").await;
        write_all(&mut conn).await;
        conn.run("HYGIENE.FIXTTL").await;
        wait_until_stamped(&new).await;
        // It comes back as the primary it was, and sweeps, before it is told.
        old.start_again().await;
        wait_until_stamped(&old).await;
        replicate(&old, &new).await;
        wait_until_in_step(&new, &old).await;
        assert_same_data(&[&new, &old]).await;
        let mut conn = old.connect().await;
        assert_eq!(conn.int("EXISTS celery-task-meta-setrange").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_replica_whose_link_breaks_again_and_again_holds_the_same() {
    on_one_server(async |binary| {
        let setup = || {
            Setup::on(binary)
                .setting("enforce", "no")
                .config("repl-backlog-size 16kb")
        };
        let primary = setup().start().await;
        let replica = setup().replica_of(&primary).start().await;
        wait_until_in_step(&primary, &replica).await;
        let mut conn = primary.connect().await;
        seed_results(&mut conn, "s", 30_000).await;
        conn.run("HYGIENE.CONFIG SET max-writes-per-sec 10000")
            .await;
        let id = sweep_in_the_middle(&mut conn).await;
        // The backlog is too small for what is missed: parts and whole copies mix.
        for _ in 0..5 {
            for kind in ["replica", "normal"] {
                let words = cmd!["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"];
                assert!(matches!(conn.value(words).await, Value::Int(_)));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        jobs::wait_until(&mut conn, id, "finished").await;
        wait_until_in_step(&primary, &replica).await;
        assert_eq!(results_without_ttl(&primary).await, 0);
        assert_same_data(&[&primary, &replica]).await;
    })
    .await;
}
