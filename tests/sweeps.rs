//! Sweeps that nobody has to start, several at once, and how they are listed.

use std::time::Duration;

use crate::celery::seed_results;
use crate::cmd;
use crate::data::DataSet;
use crate::jobs;
use crate::server::{Server, Setup, on_every_server, wait_for};

const LONG: Duration = Duration::from_secs(30);

/// Results on the server that have no TTL.
async fn bare(server: &Server) -> usize {
    let held = DataSet::of(server).await;
    held.rows.iter().filter(|row| row.expires_ms < 0).count()
}

async fn wait_until_none_is_bare(server: &Server) {
    wait_for("every result to have a TTL", LONG, async || {
        match bare(server).await {
            0 => Ok(()),
            n => Err(format!("{n} have none")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_sweep_comes_by_itself_once_per_interval() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("sweep-interval", "1s")
            .start()
            .await;
        let mut conn = server.connect().await;
        for round in ["a", "b"] {
            seed_results(&mut conn, round, 100).await;
            wait_until_none_is_bare(&server).await;
        }
        let swept = jobs::all(&mut conn).await;
        let by_interval = swept
            .iter()
            .filter(|job| job.text("what") == "SWEEP" && job.text("by") == "sweep-interval");
        assert!(by_interval.count() >= 2, "{swept:?}");
    })
    .await;
}

#[tokio::test]
async fn what_a_person_persisted_is_undone_by_the_next_sweep_unless_exempt() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("sweep-interval", "1s")
            .setting("exempt-keys", "celery-task-meta-keep*")
            .start()
            .await;
        let mut conn = server.connect().await;
        conn.run("SETEX celery-task-meta-a 500 x").await;
        conn.run("SETEX celery-task-meta-keep 500 x").await;
        conn.run("PERSIST celery-task-meta-a").await;
        conn.run("PERSIST celery-task-meta-keep").await;
        wait_for("the sweep to undo it", LONG, async || {
            match conn.ttl("celery-task-meta-a").await {
                -1 => Err("no TTL".to_owned()),
                _ => Ok(()),
            }
        })
        .await;
        assert_eq!(conn.ttl("celery-task-meta-keep").await, -1);
    })
    .await;
}

#[tokio::test]
async fn the_background_sweep_deletes_only_where_it_is_told_to() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("max-age", "1h")
            .setting("sweep-interval", "1s")
            .start()
            .await;
        let mut conn = server.connect().await;
        let old = r#"{"status":"SUCCESS","result":1,"date_done":"2020-01-01T00:00:00+00:00","task_id":"a"}"#;
        conn.run(cmd!["SET", "celery-task-meta-a", old]).await;
        wait_for("a sweep to have passed", LONG, async || {
            let jobs = jobs::all(&mut conn).await;
            jobs.iter().any(|job| job.text("state") == "finished").then_some(()).ok_or(format!("{jobs:?}"))
        })
        .await;
        assert!(conn.ttl("celery-task-meta-a").await > 0);
        conn.run("HYGIENE.CONFIG SET sweep-deletes yes").await;
        wait_for("the old result to be deleted", LONG, async || {
            match conn.ttl("celery-task-meta-a").await {
                -2 => Ok(()),
                ttl => Err(format!("TTL {ttl}")),
            }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_replica_never_sweeps_and_does_once_it_is_promoted() {
    on_every_server(async |binary| {
        let plain = Setup::on(binary).without_module().start().await;
        let mut primary = plain.connect().await;
        seed_results(&mut primary, "s", 1_000).await;
        let replica = Setup::on(binary)
            .setting("sweep-interval", "1s")
            .setting("sweep-on-start", "yes")
            .replica_of(&plain)
            .start()
            .await;
        crate::data::wait_until_in_step(&plain, &replica).await;
        let mut conn = replica.connect().await;
        crate::server::stays(
            "the replica as it is",
            Duration::from_secs(3),
            async || match (bare(&replica).await, jobs::all(&mut conn).await.len()) {
                (1_000, 0) => Ok(()),
                (bare, jobs) => Err(format!("{bare} without TTL, {jobs} jobs")),
            },
        )
        .await;
        conn.run("REPLICAOF NO ONE").await;
        wait_until_none_is_bare(&replica).await;
    })
    .await;
}

#[tokio::test]
async fn one_sweep_writes_at_a_time_and_the_second_waits_its_turn() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("max-writes-per-sec", "20000")
            .start()
            .await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 40_000).await;
        let first = jobs::start(&mut conn, "HYGIENE.FIXTTL TTL 1000 JITTER 0% ASYNC").await;
        let second = jobs::start(&mut conn, "HYGIENE.FIXTTL TTL 2000 JITTER 0% ASYNC").await;
        let waiting = jobs::job(&mut conn, second).await;
        assert_eq!(waiting.text("state"), "waiting", "{waiting:?}");
        let running = jobs::job(&mut conn, first).await;
        assert_eq!(running.text("state"), "running");
        for field in [
            "done_percent",
            "keys_per_s",
            "eta_ms",
            "scanned",
            "server_ms",
        ] {
            running.int(field);
        }
        // A scan does not wait for a sweep.
        let scan = conn.fields("HYGIENE.SCAN MEMORY OFF").await;
        assert_eq!(scan.int("scanned"), 40_000);
        let done = jobs::wait_until(&mut conn, second, "finished").await;
        assert_eq!(done.map("result").int("stamped"), 0, "the first took all");
        let done = jobs::wait_until(&mut conn, first, "finished").await;
        assert_eq!(done.map("result").int("stamped"), 40_000);
        assert_eq!(done.int("done_percent"), 100);
        assert!(
            done.int("duration_ms") >= 1_500,
            "20,000 a second at most: {done:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_scan_whose_client_leaves_is_stopped_and_says_so() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("max-writes-per-sec", "1000")
            .start()
            .await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 50_000).await;
        let mut other = server.connect().await;
        let id = other.int("CLIENT ID").await;
        let waiting = tokio::spawn(async move { other.ask("HYGIENE.FIXTTL").await.is_ok() });
        jobs::wait_until_begun(&mut conn).await;
        conn.run(cmd!["CLIENT", "KILL", "ID", id]).await;
        let _ = waiting.await;
        let job = jobs::wait_until(&mut conn, 1, "cancelled").await;
        assert!(job.text("error").contains("client left"), "{job:?}");
        assert!(bare(&server).await > 25_000, "the rest is untouched");
    })
    .await;
}

#[tokio::test]
async fn a_server_that_shuts_down_in_the_middle_of_a_sweep_lets_its_client_go() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("max-writes-per-sec", "1000")
            .append_only()
            .start()
            .await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 20_000).await;
        let mut other = server.connect().await;
        let waiting = tokio::spawn(async move { other.ask("HYGIENE.FIXTTL").await });
        jobs::wait_until_begun(&mut conn).await;
        server.shut_down("NOSAVE");
        assert!(
            waiting.await.expect("an end").is_err(),
            "no reply is made up"
        );
        server.start_again().await;
        let mut conn = server.connect().await;
        assert_eq!(conn.int("DBSIZE").await, 20_000);
        conn.run("HYGIENE.CONFIG SET max-writes-per-sec 100000")
            .await;
        let reply = conn.fields("HYGIENE.FIXTTL").await;
        assert!(
            reply.int("already_had_ttl") > 0,
            "what was done stays: {reply:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_client_told_to_stop_waiting_gets_an_answer_and_ends_its_sweep() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("max-writes-per-sec", "1000")
            .start()
            .await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 50_000).await;
        let mut other = server.connect().await;
        let id = other.int("CLIENT ID").await;
        let waiting = tokio::spawn(async move { other.error("HYGIENE.FIXTTL").await });
        wait_for("the client to be let go", LONG, async || {
            match conn.int(cmd!["CLIENT", "UNBLOCK", id]).await {
                1 => Ok(()),
                _ => Err("it does not wait yet".to_owned()),
            }
        })
        .await;
        let told = waiting.await.expect("an answer");
        assert!(told.contains("stop waiting"), "{told}");
        jobs::wait_until(&mut conn, 1, "cancelled").await;
    })
    .await;
}

#[tokio::test]
async fn more_scans_than_fit_are_refused_with_the_way_out() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("max-writes-per-sec", "1000")
            .start()
            .await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 20_000).await;
        for _ in 0..16 {
            jobs::start(&mut conn, "HYGIENE.FIXTTL ASYNC").await;
        }
        let told = conn.error("HYGIENE.FIXTTL ASYNC").await;
        assert!(told.contains("HYGIENE.CANCEL"), "{told}");
        for id in 1..=16 {
            conn.run(cmd!["HYGIENE.CANCEL", id]).await;
        }
        for id in 1..=16 {
            jobs::wait_until(&mut conn, id, "cancelled").await;
        }
        let told = conn.error("HYGIENE.CANCEL 1").await;
        assert!(told.contains("no job 1"), "{told}");
    })
    .await;
}

#[tokio::test]
async fn a_reply_that_names_keys_is_shown_to_its_own_user_only() {
    on_every_server(async |binary| {
        if !binary.is_7_0_or_newer() {
            return binary.left_out("a module cannot ask what a user may do");
        }
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run("SET secret x").await;
        let id = jobs::start(&mut conn, "HYGIENE.SCAN ASYNC").await;
        jobs::wait_until(&mut conn, id, "finished").await;
        conn.run("ACL SETUSER other on nopass ~other:* +@all").await;
        conn.run("AUTH other any").await;
        let shown = format!("{:?}", conn.value("HYGIENE.JOBS").await);
        assert!(!shown.contains("secret"), "{shown}");
        let scan = conn.fields("HYGIENE.SCAN").await;
        assert_eq!(scan.int("skipped_noperm"), 1);
        assert!(!format!("{scan:?}").contains("secret"), "{scan:?}");
    })
    .await;
}

#[tokio::test]
async fn a_user_changes_only_the_keys_it_may_change() {
    on_every_server(async |binary| {
        if !binary.is_7_0_or_newer() {
            return binary.left_out("a module cannot ask what a user may do");
        }
        let server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        conn.run("SET celery-task-meta-a x").await;
        conn.run("SET celery-task-meta-b x").await;
        conn.run("ACL SETUSER half on nopass ~celery-task-meta-a %R~* +@all")
            .await;
        conn.run("AUTH half any").await;
        let reply = conn.fields("HYGIENE.FIXTTL").await;
        assert_eq!((reply.int("stamped"), reply.int("skipped_noperm")), (1, 1));
        assert!(conn.ttl("celery-task-meta-a").await > 0);
        assert_eq!(conn.ttl("celery-task-meta-b").await, -1);
    })
    .await;
}

#[tokio::test]
async fn a_sweep_goes_on_over_changes_of_its_settings() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("max-writes-per-sec", "2000")
            .start()
            .await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 20_000).await;
        let id = jobs::start(&mut conn, "HYGIENE.FIXTTL ASYNC").await;
        for (name, value) in [
            ("slice-us", "200"),
            ("cpu-percent", "50"),
            ("result-keys", "nothing-*"),
            ("max-writes-per-sec", "1000000"),
        ] {
            conn.run(cmd!["HYGIENE.CONFIG", "SET", name, value]).await;
        }
        let done = jobs::wait_until(&mut conn, id, "finished").await;
        assert_eq!(done.map("result").int("stamped"), 20_000, "as ordered");
    })
    .await;
}

#[tokio::test]
async fn a_sweep_holds_back_while_the_server_saves_and_says_so() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("enforce", "no")
            // Slow enough a child to be met: it waits after each key.
            .config("rdb-key-save-delay 100")
            .start()
            .await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 20_000).await;
        conn.run("BGSAVE").await;
        let id = jobs::start(&mut conn, "HYGIENE.FIXTTL ASYNC").await;
        wait_for("the sweep to say that it holds back", LONG, async || {
            let job = jobs::job(&mut conn, id).await;
            let says = job.text("state") == "running" && job.text("rests").contains("saves");
            says.then_some(()).ok_or(format!("{job:?}"))
        })
        .await;
        conn.run("CONFIG SET rdb-key-save-delay 0").await;
        jobs::wait_until(&mut conn, id, "finished").await;
        assert_eq!(bare(&server).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_sweep_notes_when_expected_tasks_finished_and_a_flush_forgets_it() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("sweep-interval", "1s")
            .setting("expected-tasks", "app.cleanup=1h")
            .start()
            .await;
        let mut conn = server.connect().await;
        let clock = crate::celery::Clock::of(&mut conn).await;
        let body = crate::celery::extended("a", "app.cleanup", "FAILURE", clock.ago(30));
        conn.run(cmd!["SET", "celery-task-meta-a", body]).await;
        wait_for("the failure to be told", LONG, async || {
            let seen = conn.fields("HYGIENE.BEATSTATUS").await;
            match seen.text("verdict").as_str() {
                "tasks_failing" => Ok(()),
                _ => Err(format!("{seen:?}")),
            }
        })
        .await;
        conn.run("FLUSHALL").await;
        let seen = conn.fields("HYGIENE.BEATSTATUS").await;
        assert_eq!(seen.text("verdict"), "unknown", "{seen:?}");
    })
    .await;
}
