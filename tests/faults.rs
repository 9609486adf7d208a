//! The crash path: a panic of ours ends what was being done and nothing else. The
//! module under test has a command that provokes them; a release has none.

use std::time::Duration;

use redis::Value;

use crate::client::{Conn, text};
use crate::cmd;
use crate::jobs;
use crate::server::{Server, Setup, module_path, on_every_server, same, wait_for};

const SOON: Duration = Duration::from_secs(10);
const TOLD: &str = "ERR internal fault";

async fn arm(conn: &mut Conn, place: &str, count: u64) {
    conn.run(cmd!["HYGIENE.FAULT", place, count]).await;
}

async fn faults(conn: &mut Conn) -> u64 {
    number(conn, "hygiene_faults_total").await
}

async fn number(conn: &mut Conn, name: &str) -> u64 {
    let told = conn.info("hygiene", name).await;
    let told = told.unwrap_or_else(|| panic!("INFO hygiene tells no {name}"));
    told.parse().expect("a number")
}

fn logged(server: &Server, what: &str) -> bool {
    server.log().lines().any(|line| line.contains(what))
}

async fn until(what: &str, mut look: impl AsyncFnMut() -> Result<(), String>) {
    wait_for(what, SOON, async || look().await).await;
}

#[tokio::test]
async fn a_panic_in_a_command_is_answered_logged_with_its_place_and_counted() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run("SET celery-task-meta-a {}").await;
        assert_eq!(faults(&mut conn).await, 0);
        for (nth, command) in (1..).zip([
            "HYGIENE.SCAN",
            "HYGIENE.FIXTTL",
            "HYGIENE.BEATSTATUS",
            "HYGIENE.DOCTOR",
            "HYGIENE.KEYS 0",
            "HYGIENE.ORPHANS",
            "HYGIENE.JOBS",
            "HYGIENE.CONFIG GET *",
            "HYGIENE.HELP",
            "HYGIENE.TRIGGER a.b",
        ]) {
            arm(&mut conn, "command", 1).await;
            let error = conn.error(command).await;
            assert!(error.starts_with(TOLD), "{command}: {error}");
            assert_eq!(faults(&mut conn).await, nth, "{command}");
            let place = format!("internal fault {nth}, caught: panicked at src/server/guard.rs:");
            assert!(logged(&server, &place), "{command}: {}", server.log());
        }
        assert_eq!(conn.fields("HYGIENE.SCAN").await.int("scanned"), 1);
        assert_eq!(number(&mut conn, "hygiene_hook_off").await, 0);
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn a_panic_while_an_answer_is_sent_leaves_nobody_waiting() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        // At once, and after a wait.
        for command in ["HYGIENE.BEATSTATUS", "HYGIENE.SCAN"] {
            let mut other = server.connect().await;
            // The answer to the command that arms is the first.
            let error = conn.error(cmd!["HYGIENE.FAULT", "client", 2]).await;
            assert!(error.starts_with(TOLD), "{error}");
            let error = other.error(command).await;
            assert!(error.starts_with(TOLD), "{command}: {error}");
            assert_eq!(other.text("PING").await, "PONG");
        }
        assert_eq!(faults(&mut conn).await, 4);
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn a_panic_in_a_write_is_nothing_to_the_one_who_writes() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        for (nth, place) in (1..).zip(["event", "after"]) {
            arm(&mut conn, place, 1).await;
            conn.run("SET celery-task-meta-a {}").await;
            until("the fault", async || same(faults(&mut conn).await, nth)).await;
            conn.run("SET celery-task-meta-b {}").await;
            until("a TTL on the next one", async || {
                conn.was_given(3600, "celery-task-meta-b").await
            })
            .await;
            conn.run("LPUSH celery x").await;
            conn.run("DEL celery-task-meta-a celery-task-meta-b celery")
                .await;
        }
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn a_pass_that_panics_fails_and_the_next_one_runs() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        for n in 0..100 {
            conn.run(cmd!["SET", format!("celery-task-meta-{n}"), "{}"])
                .await;
        }
        for place in ["slice", "scan"] {
            for command in ["HYGIENE.SCAN", "HYGIENE.FIXTTL DRYRUN", "HYGIENE.ORPHANS"] {
                arm(&mut conn, place, 1).await;
                let error = conn.error(command).await;
                assert!(error.starts_with(TOLD), "{place} {command}: {error}");
                let last = &jobs::all(&mut conn).await[0];
                assert_eq!(last.text("state"), "failed", "{place} {command}");
                let told = text(last.get("error"));
                assert!(told.contains("internal fault"), "{place} {command}: {told}");
            }
        }
        assert_eq!(conn.int("DBSIZE").await, 100);
        assert_eq!(conn.fields("HYGIENE.FIXTTL").await.int("stamped"), 100);
        assert_eq!(faults(&mut conn).await, 6);
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn a_timer_that_panics_is_armed_again() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        conn.run("SET celery-task-meta-a {}").await;
        arm(&mut conn, "timer", 3).await;
        assert_eq!(conn.fields("HYGIENE.SCAN").await.int("scanned"), 1);
        arm(&mut conn, "timer", 3).await;
        assert_eq!(conn.fields("HYGIENE.FIXTTL").await.int("stamped"), 1);
        conn.run(crate::celery::binding("celery", "celery", "celery"))
            .await;
        arm(&mut conn, "timer", 3).await;
        let told = conn.fields("HYGIENE.TRIGGER a.b TIMEOUT 1s").await;
        assert!(told.int("waited_ms") >= 1_000, "{told:?}");
        assert_eq!(faults(&mut conn).await, 9);
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn panics_in_the_servers_rounds_info_and_settings_are_survived() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        arm(&mut conn, "turn", 3).await;
        conn.run("FLUSHALL").await;
        until("the rounds' faults", async || {
            same(faults(&mut conn).await, 3)
        })
        .await;
        arm(&mut conn, "info", 1).await;
        assert!(conn.info("hygiene", "hygiene_faults_total").await.is_none());
        let mut told = 4;
        assert_eq!(faults(&mut conn).await, told);
        if binary.is_7_0_or_newer() {
            arm(&mut conn, "config", 1).await;
            conn.value("CONFIG GET hygiene.enforce").await;
            told += 1;
            assert_eq!(faults(&mut conn).await, told);
            // CONFIG SET asks for the old value first, and puts it back.
            arm(&mut conn, "config", 10).await;
            let error = conn.error("CONFIG SET hygiene.default-ttl 2h").await;
            assert!(error.starts_with("ERR"), "{error}");
            arm(&mut conn, "config", 0).await;
            let left = conn.fields("CONFIG GET hygiene.default-ttl").await;
            assert_eq!(left.text("hygiene.default-ttl"), "1h");
            told = faults(&mut conn).await;
        }
        arm(&mut conn, "load", 1).await;
        let error = conn.error("MODULE UNLOAD hygiene").await;
        assert!(error.starts_with("ERR"), "{error}");
        assert_eq!(faults(&mut conn).await, told + 1);
        conn.run("MODULE UNLOAD hygiene").await;
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn after_ten_faults_writes_are_left_alone_and_everybody_is_told() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let hook = async |conn: &mut Conn| conn.fields("HYGIENE.BEATSTATUS").await.text("hook");
        arm(&mut conn, "event", 9).await;
        for n in 0..9 {
            conn.run(cmd!["SET", format!("celery-task-meta-{n}"), "{}"])
                .await;
        }
        assert_eq!(number(&mut conn, "hygiene_hook_off").await, 0);
        assert_eq!(hook(&mut conn).await, "on");
        arm(&mut conn, "event", 1).await;
        conn.run("SET celery-task-meta-9 {}").await;

        assert_eq!(number(&mut conn, "hygiene_hook_off").await, 1);
        assert_eq!(faults(&mut conn).await, 10);
        assert_eq!(hook(&mut conn).await, "off");
        assert!(logged(
            &server,
            "this is switched off until the module is loaded anew"
        ));
        let page = conn.text("HYGIENE.DOCTOR").await;
        let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            page.contains("after 10 internal faults writes are looked at no longer"),
            "{page}"
        );

        // Nothing of ours runs in a write; a sweep still does its work.
        arm(&mut conn, "event", 5).await;
        conn.run("SET celery-task-meta-a {}").await;
        assert_eq!(conn.ttl("celery-task-meta-a").await, -1);
        assert_eq!(faults(&mut conn).await, 10);
        assert_eq!(conn.fields("HYGIENE.FIXTTL").await.int("stamped"), 11);

        conn.run("MODULE UNLOAD hygiene").await;
        let load: Value = conn
            .value(cmd!["MODULE", "LOAD", module_path().to_str()])
            .await;
        assert_eq!(text(&load), "OK");
        assert_eq!(number(&mut conn, "hygiene_hook_off").await, 0);
        conn.run("SET celery-task-meta-a {}").await;
        until("a TTL", async || {
            conn.was_given(3600, "celery-task-meta-a").await
        })
        .await;
        server.assert_alive();
    })
    .await;
}
