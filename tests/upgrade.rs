//! MODULE UNLOAD of an older build, MODULE LOAD of the new one, and the way back.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::celery::{Clock, seed_results};
use crate::client::Conn;
use crate::cmd;
use crate::data::{DataSet, assert_same_data, wait_until_in_step};
use crate::lifecycle::replace_by;
use crate::observe::{marked, publish, status, wait_for_state};
use crate::replication::{
    assert_written_and_swept_alike, results_without_ttl, wait_until_stamped, wait_until_synced,
    write_all,
};
use crate::server::{
    Binary, Server, Setup, module_path, older_module, on_every_server, same, wait_for,
};
use crate::topology::Writer;

/// How long a loaded module may take to read what lies in the data set.
const SOON: Duration = Duration::from_secs(10);

/// The file of the older build. Where there is none, another file of the same build,
/// which the dynamic linker takes for another library all the same.
fn older(binary: &Binary, dir: &TempDir) -> PathBuf {
    older_module().unwrap_or_else(|| {
        binary.left_out("no older build (tests/older.sh): a copy of the new one instead");
        let copy = dir.path().join("libredis_hygiene.so");
        fs::copy(module_path(), &copy).expect("the folder can be written");
        copy
    })
}

async fn wait_until_known(conn: &mut Conn, last_seen_ms: i64) {
    wait_for("what was observed", SOON, async || {
        let publisher = status(conn).await.map("publisher");
        same(publisher.int("last_seen_ms"), last_seen_ms)
    })
    .await;
}

/// Publishes and says when the module saw it.
async fn seen(conn: &mut Conn, n: usize) -> i64 {
    let now = Clock::of(conn).await.0;
    publish(conn, &marked("purge", n)).await;
    let seen = status(conn).await.map("publisher").int("last_seen_ms");
    assert!(seen >= now, "{seen} is before {now}");
    seen
}

#[tokio::test]
async fn an_upgrade_under_traffic_keeps_data_observations_and_replica() {
    on_every_server(async |binary| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let older = older(binary, &dir);
        let setup = || Setup::on(binary).module_file(&older).append_only();
        let mut primary = setup().start().await;
        // Upgraded last, as an operator would not; it must not matter.
        let replica = setup().replica_of(&primary).start().await;
        wait_until_synced(&primary, &replica).await;
        let mut conn = primary.connect().await;
        let before = seen(&mut conn, 1).await;
        wait_for_state(&mut conn).await;

        let writer = Writer::start(primary.port, "w");
        replace_by(&mut conn, &module_path()).await;
        wait_until_known(&mut conn, before).await;
        let after = seen(&mut conn, 2).await;
        conn.run("SET celery-task-meta-new x").await;
        wait_for("a TTL by the new one", SOON, async || {
            match conn.ttl("celery-task-meta-new").await {
                1.. => Ok(()),
                none => Err(none.to_string()),
            }
        })
        .await;
        assert!(!writer.stop().await.is_empty(), "there was traffic");
        // What was written without the module is for the sweep.
        conn.run("HYGIENE.FIXTTL").await;
        assert_eq!(results_without_ttl(&primary).await, 0);
        wait_for("the new observation to be kept", SOON * 3, async || {
            let mut there = replica.connect().await;
            let told = status(&mut there).await.map("publisher");
            same(told.int("last_seen_ms"), after)
        })
        .await;
        assert_same_data(&[&primary, &replica]).await;

        // The configuration still names the older one: it reads what the new left.
        let held = DataSet::of(&primary).await;
        primary.kill_9();
        primary.start_again().await;
        held.assert_same(&DataSet::of(&primary).await, "by the older one");
        wait_until_known(&mut primary.connect().await, after).await;
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_is_upgraded_first_holds_the_same_and_takes_over() {
    on_every_server(async |binary| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let older = older(binary, &dir);
        let old = Setup::on(binary)
            .module_file(&older)
            .append_only()
            .start()
            .await;
        let new = Setup::on(binary)
            .append_only()
            .replica_of(&old)
            .start()
            .await;
        wait_until_synced(&old, &new).await;
        let mut conn = old.connect().await;
        let before = seen(&mut conn, 1).await;
        wait_for_state(&mut conn).await;
        conn.run("HYGIENE.CONFIG SET enforce no").await;
        seed_results(&mut conn, "s", 2_000).await;
        conn.run("HYGIENE.CONFIG SET enforce yes").await;
        assert_written_and_swept_alike(&[&old, &new]).await;

        let writer = Writer::start(old.port, "w");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut conn = new.connect().await;
        conn.run("REPLICAOF NO ONE").await;
        let follow = cmd!["REPLICAOF", "127.0.0.1", new.port];
        old.connect().await.run(follow).await;
        assert!(!writer.stop().await.is_empty(), "there was traffic");
        wait_until_in_step(&new, &old).await;
        wait_until_known(&mut conn, before).await;
        write_all(&mut new.connect_db(3).await).await;
        conn.run("HYGIENE.FIXTTL").await;
        wait_until_stamped(&new).await;
        assert_same_data(&[&new, &old]).await;
    })
    .await;
}

/// Bytes the server holds without what its clients and their buffers take, and its
/// mappings of the module's files.
async fn held(server: &Server) -> (i64, usize) {
    let mut conn = server.connect().await;
    let mut bytes = Vec::new();
    // The lowest: a timer may hold something for a moment.
    for _ in 0..5 {
        let used = conn.info("memory", "used_memory").await;
        bytes.push(used.and_then(|n| n.parse().ok()).expect("a number"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let pid = conn.info("server", "process_id").await.expect("its id");
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mapped = maps.lines().filter(|line| line.contains("redis_hygiene"));
    (bytes.into_iter().min().unwrap_or(0), mapped.count())
}

#[tokio::test]
async fn replacing_it_again_and_again_leaks_nothing() {
    // A few pages of the allocator; one module's own tables are more.
    const SLACK: i64 = 64 * 1024;
    on_every_server(async |binary| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let older = older(binary, &dir);
        let mut server = Setup::on(binary).module_file(&older).start().await;
        let mut conn = server.connect().await;
        let mut settled = None;
        for round in 0..12 {
            for file in [&module_path(), &older] {
                for n in 0..20 {
                    publish(&mut conn, &marked("purge", n)).await;
                    let key = format!("celery-task-meta-{n}");
                    conn.run(cmd!["SET", key, "x"]).await;
                }
                conn.run("HYGIENE.FIXTTL").await;
                replace_by(&mut conn, file).await;
            }
            if round == 1 {
                settled = Some(held(&server).await);
            }
        }
        let (bytes, mappings) = settled.expect("rounds");
        let (bytes_now, mappings_now) = held(&server).await;
        assert_eq!(mappings_now, mappings, "mappings of the module's files");
        assert!(
            bytes_now < bytes + SLACK,
            "{bytes} bytes after 2 rounds, {bytes_now} after 12"
        );
        server.assert_alive();
    })
    .await;
}
