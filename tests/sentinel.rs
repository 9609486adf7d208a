//! A failover by Sentinel in the middle of load, enforcement and a sweep.

use std::time::{Duration, Instant};

use redis::{ProtocolVersion, Value};

use crate::celery::seed_results;
use crate::client::{Conn, int, list, text};
use crate::cmd;
use crate::data::{assert_same_data, wait_until_in_step};
use crate::jobs;
use crate::replication::{results_without_ttl, wait_until_synced};
use crate::server::{Binary, Server, Setup, on_one_server, same, wait_for};
use crate::topology::Writer;

/// Longer than three sentinels need to agree and to tell everybody.
const FAILOVER: Duration = Duration::from_secs(60);

/// So long a silence of a server is none of the test's: a busy machine may cause it.
const CALM_MS: u32 = 600_000;

/// How long a server may be silent before the sentinels give it up.
async fn give_up_after(sentinels: &[Server], ms: u32) {
    for sentinel in sentinels {
        let words = cmd!["SENTINEL", "SET", "kept", "down-after-milliseconds", ms];
        sentinel.connect().await.run(words).await;
    }
}

async fn sentinels(binary: &'static Binary, primary: &Server) -> Vec<Server> {
    let mut sentinels = Vec::new();
    for _ in 0..3 {
        let sentinel = Setup::on(binary)
            .sentinel()
            .config(&format!(
                "sentinel monitor kept 127.0.0.1 {} 2",
                primary.port
            ))
            .config(&format!("sentinel down-after-milliseconds kept {CALM_MS}"))
            .config("sentinel failover-timeout kept 60000")
            .start()
            .await;
        sentinels.push(sentinel);
    }
    for sentinel in &sentinels {
        let mut conn = sentinel.connect().await;
        wait_for("the sentinels to know all", FAILOVER, async || {
            let replicas = list(&conn.value("SENTINEL REPLICAS kept").await).len();
            let others = list(&conn.value("SENTINEL SENTINELS kept").await).len();
            same((replicas, others), (2, 2))
        })
        .await;
    }
    sentinels
}

/// The port of the primary by what all sentinels say, when it is another than
/// that and has settled: two of them may begin a failover each.
async fn agreed_port(sentinels: &[Server], but: u16) -> u16 {
    let mut since = Instant::now();
    let mut last = but;
    wait_for("another primary, for good", FAILOVER, async || {
        let mut ports = Vec::new();
        for sentinel in sentinels {
            let address = sentinel
                .connect()
                .await
                .value("SENTINEL GET-MASTER-ADDR-BY-NAME kept")
                .await;
            ports.push(text(&list(&address)[1]).parse().expect("a port"));
        }
        if ports.iter().any(|port| *port != last || *port == but) {
            since = Instant::now();
            last = ports[0];
        }
        if since.elapsed() > Duration::from_secs(2) {
            Ok(last)
        } else {
            Err(format!("{ports:?}"))
        }
    })
    .await
}

/// The same, and no other one after it: a machine that is busy for a second would
/// otherwise look like a dead primary again.
async fn agreed_for_good(sentinels: &[Server], but: u16) -> u16 {
    let mut port = agreed_port(sentinels, but).await;
    loop {
        give_up_after(sentinels, CALM_MS).await;
        // One that had begun by then comes to its end.
        match agreed_port(sentinels, but).await {
            same if same == port => return port,
            other => port = other,
        }
    }
}

/// How many sweeps of its own the server has finished.
async fn own_sweeps(server: &Server) -> usize {
    let jobs = jobs::all(&mut server.connect().await).await;
    let own = jobs
        .iter()
        .filter(|job| job.text("what") == "SWEEP" && job.text("state") == "finished");
    own.count()
}

#[tokio::test]
async fn a_killed_primary_leaves_no_result_without_ttl_longer_than_the_next_sweep() {
    on_one_server(async |binary| {
        let setup = || {
            Setup::on(binary)
                .setting("sweep-on-start", "yes")
                .setting("sweep-interval", "2s")
                .setting("max-writes-per-sec", "10000")
                .append_only()
        };
        let mut killed = setup().start().await;
        let mut replicas = Vec::new();
        for _ in 0..2 {
            replicas.push(setup().replica_of(&killed).start().await);
        }
        for replica in &replicas {
            wait_until_synced(&killed, replica).await;
        }
        let sentinels = sentinels(binary, &killed).await;

        // What a leak left behind, and enforcement for what the writers do.
        let mut conn = killed.connect().await;
        conn.run("HYGIENE.CONFIG SET sweep-interval 0").await;
        conn.run("HYGIENE.CONFIG SET enforce no").await;
        seed_results(&mut conn, "s", 40_000).await;
        // What a replica has not got is lost with its primary, with or without us.
        for replica in &replicas {
            wait_until_in_step(&killed, replica).await;
        }
        conn.run("HYGIENE.CONFIG SET enforce yes").await;
        let writers: Vec<Writer> = ["a", "b", "c", "d"]
            .map(|prefix| Writer::start(killed.port, prefix))
            .into();
        let mut fixer = Conn::open(killed.port, 0, ProtocolVersion::RESP2)
            .await
            .expect("a connection");
        let fixing = tokio::spawn(async move { fixer.ask("HYGIENE.FIXTTL").await });
        wait_for("the sweep to be in the middle", FAILOVER, async || {
            let jobs = jobs::all(&mut conn).await;
            let begun = jobs
                .iter()
                .any(|job| job.text("what") == "HYGIENE.FIXTTL" && job.int("scanned") > 5_000);
            begun.then_some(()).ok_or(format!("{jobs:?}"))
        })
        .await;
        give_up_after(&sentinels, 1_000).await;
        killed.kill_9();
        let answer: Result<Value, _> = fixing.await.expect("an end, not silence");
        assert!(answer.is_err(), "no reply is made up: {answer:?}");
        for writer in writers {
            assert!(!writer.stop().await.is_empty(), "there was traffic");
        }

        let port = agreed_for_good(&sentinels, killed.port).await;
        replicas.sort_by_key(|replica| replica.port != port);
        let [new, other] = &replicas[..] else {
            panic!("two replicas")
        };
        assert_eq!(new.port, port, "a replica was promoted");
        let mut conn = new.connect().await;
        wait_for("its role", FAILOVER, async || {
            let role = conn.info("replication", "role").await;
            same(role.as_deref(), Some("master"))
        })
        .await;

        // It sweeps by itself, and goes on to.
        let writer = Writer::start(port, "after");
        wait_for("its own sweep", FAILOVER, async || {
            match own_sweeps(new).await {
                0 => Err("none yet".to_owned()),
                _ => Ok(()),
            }
        })
        .await;
        assert!(
            !writer.stop().await.is_empty(),
            "the new primary takes writes"
        );
        assert_eq!(results_without_ttl(new).await, 0);
        let before = own_sweeps(new).await;
        wait_for("the next sweep", FAILOVER, async || {
            let now = own_sweeps(new).await;
            if now > before {
                Ok(())
            } else {
                Err(format!("{now}"))
            }
        })
        .await;

        // The killed one comes back as a primary that sweeps, until it is told.
        killed.start_again().await;
        wait_for(
            "the old primary to follow the new one",
            FAILOVER,
            async || {
                // Sentinel cuts its clients off when it turns it into a replica.
                let mut conn = killed.connect().await;
                let says = conn.ask("ROLE").await.map_err(|error| error.to_string())?;
                let role = list(&says);
                same(text(&role[0]).as_str(), "slave")?;
                same(int(&role[2]), i64::from(port))
            },
        )
        .await;
        for replica in [other, &killed] {
            wait_until_in_step(new, replica).await;
        }
        assert_same_data(&[new, other, &killed]).await;
        let held = conn.int("DBSIZE").await;
        assert!(held > 40_000, "nothing was deleted: {held}");
    })
    .await;
}
