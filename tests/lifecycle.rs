//! A module that comes, goes and stays while the server saves, reloads and serves.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::celery::seed_results;
use crate::client::Conn;
use crate::cmd;
use crate::data::{DataSet, assert_same_data};
use crate::jobs;
use crate::replication::{results_without_ttl, wait_until_stamped, wait_until_synced, write_all};
use crate::server::{Server, Setup, module_path, on_every_server, same, wait_for};
use crate::topology::{Writer, sweep_in_the_middle};

const LONG: Duration = Duration::from_secs(20);

/// Takes the module out of a server's configuration.
pub fn forget_module(server: &Server) {
    let conf = server.dir().join("redis.conf");
    let lines = fs::read_to_string(&conf).expect("the configuration");
    let kept: Vec<&str> = lines
        .lines()
        .filter(|line| !line.starts_with("loadmodule"))
        .collect();
    fs::write(&conf, kept.join("\n") + "\n").expect("the configuration can be written");
}

/// Unloads as soon as the server lets it, and loads that file.
pub async fn replace_by(conn: &mut Conn, file: &Path) {
    conn.unload_when_idle().await;
    conn.run(cmd![
        "MODULE",
        "LOAD",
        file.to_str(),
        "sweep-on-start",
        "no"
    ])
    .await;
}

#[tokio::test]
async fn is_unloaded_and_loaded_again_under_traffic() {
    on_every_server(async |binary| {
        let mut primary = Setup::on(binary).append_only().start().await;
        let replica = Setup::on(binary).replica_of(&primary).start().await;
        wait_until_synced(&primary, &replica).await;
        let mut conn = primary.connect().await;
        for prefix in ["a", "b", "c"] {
            let writer = Writer::start(primary.port, prefix);
            for _ in 0..3 {
                replace_by(&mut conn, &module_path()).await;
            }
            assert!(!writer.stop().await.is_empty(), "there was traffic");
        }
        primary.assert_alive();
        // What was written without the module is for the sweep.
        conn.run("HYGIENE.FIXTTL").await;
        assert_eq!(results_without_ttl(&primary).await, 0);
        assert_same_data(&[&primary, &replica]).await;
    })
    .await;
}

#[tokio::test]
async fn an_append_only_file_rewritten_during_a_sweep_brings_all_of_it_back() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary)
            .setting("enforce", "no")
            .append_only()
            // Slow enough a child to be met: it waits after each key.
            .config("rdb-key-save-delay 20")
            .start()
            .await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 10_000).await;
        conn.run("CONFIG SET aof-use-rdb-preamble yes").await;
        conn.run("BGREWRITEAOF").await;
        let id = jobs::start(&mut conn, "HYGIENE.FIXTTL ASYNC").await;
        jobs::wait_until(&mut conn, id, "finished").await;
        conn.run("CONFIG SET rdb-key-save-delay 0").await;
        wait_for("the rewrite to end", LONG, async || {
            let running = conn.info("persistence", "aof_rewrite_in_progress").await;
            same(running.as_deref(), Some("0"))
        })
        .await;
        let before = DataSet::of(&server).await;
        assert_eq!(results_without_ttl(&server).await, 0);
        server.kill_9();
        server.start_again().await;
        before.assert_same(&DataSet::of(&server).await, "from the rewritten file");
    })
    .await;
}

#[tokio::test]
async fn a_dump_taken_in_the_middle_of_a_sweep_is_read_without_the_module_and_swept_by_it() {
    const RESULTS: usize = 20_000;
    on_every_server(async |binary| {
        let mut server = Setup::on(binary)
            .setting("enforce", "no")
            // Slow enough a sweep to be met in the middle: it takes 20 s.
            .setting("max-writes-per-sec", "1000")
            .start()
            .await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", RESULTS).await;
        sweep_in_the_middle(&mut conn).await;
        conn.run("BGSAVE").await;
        wait_for("the dump", LONG, async || {
            let mut seen = Vec::new();
            for field in ["rdb_bgsave_in_progress", "rdb_last_bgsave_status"] {
                seen.push(conn.info("persistence", field).await.unwrap_or_default());
            }
            same(seen, vec!["0".to_owned(), "ok".to_owned()])
        })
        .await;
        server.kill_9();
        forget_module(&server);
        server.start_again().await;
        let mut conn = server.connect().await;
        assert_eq!(DataSet::of(&server).await.rows.len(), RESULTS);
        let bare = results_without_ttl(&server).await;
        assert!(bare > 0 && bare < RESULTS, "{bare} were still without");
        conn.run(cmd!["MODULE", "LOAD", module_path().to_str()])
            .await;
        wait_until_stamped(&server).await;
        let held = usize::try_from(conn.int("DBSIZE").await).expect("a count");
        assert_eq!(held, RESULTS, "nothing is deleted");
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn an_append_only_file_is_read_by_a_server_without_the_module() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).append_only().start().await;
        for db in [0, 9] {
            write_all(&mut server.connect_db(db).await).await;
        }
        wait_until_stamped(&server).await;
        server.connect().await.run("HYGIENE.FIXTTL MAXAGE 1s").await;
        let before = DataSet::of(&server).await;
        server.kill_9();
        forget_module(&server);
        server.start_again().await;
        before.assert_same(&DataSet::of(&server).await, "without the module");
    })
    .await;
}

#[tokio::test]
async fn a_sweep_begins_anew_when_the_data_set_is_reloaded() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("max-writes-per-sec", "5000")
            .append_only()
            .start()
            .await;
        let mut conn = server.connect().await;
        for reload in ["DEBUG RELOAD", "DEBUG LOADAOF"] {
            conn.run("FLUSHALL").await;
            seed_results(&mut conn, "s", 20_000).await;
            let limit = "HYGIENE.CONFIG SET max-writes-per-sec";
            conn.run(format!("{limit} 5000")).await;
            let id = jobs::start(&mut conn, "HYGIENE.FIXTTL ASYNC").await;
            conn.run(reload).await;
            conn.run(format!("{limit} 1000000")).await;
            jobs::wait_until(&mut conn, id, "finished").await;
            assert_eq!(results_without_ttl(&server).await, 0, "{reload}");
            assert_eq!(conn.int("DBSIZE").await, 20_000, "{reload}");
            server.assert_alive();
        }
    })
    .await;
}
