//! A cluster of three primaries, each with a replica: a node does its own keys, all
//! nodes together do all, and slots may move meanwhile.

use std::process::Command;
use std::time::Duration;

use redis::Value;

use crate::client::{bytes, int, list, text};
use crate::cmd;
use crate::data::{DataSet, assert_same_data};
use crate::jobs;
use crate::replication::results_without_ttl;
use crate::server::{Binary, Server, Setup, on_every_server, on_one_server, same, wait_for};

/// How long the nodes may take to agree.
const LONG: Duration = Duration::from_secs(60);
/// Slots of a cluster.
const SLOTS: usize = 16_384;
/// The server's own default: on a busy machine a node is silent for a while, and no
/// replica should take over then.
const CALM_MS: u32 = 15_000;
/// Hash tags that results are spread over.
const TAGS: usize = 60;

struct Cluster {
    primaries: Vec<Server>,
    replicas: Vec<Server>,
}

impl Cluster {
    async fn start(binary: &'static Binary, setting: (&str, &str)) -> Self {
        let node = || {
            Setup::on(binary)
                .setting(setting.0, setting.1)
                .cluster_node()
                .start()
        };
        let (mut primaries, mut replicas) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            primaries.push(node().await);
            replicas.push(node().await);
        }
        let cluster = Self {
            primaries,
            replicas,
        };
        cluster.meet().await;
        cluster.gives_up_after(CALM_MS).await;
        cluster
    }

    /// How long a node may be silent before the others give it up.
    async fn gives_up_after(&self, ms: u32) {
        for node in self.nodes() {
            let words = cmd!["CONFIG", "SET", "cluster-node-timeout", ms];
            node.connect().await.run(words).await;
        }
    }

    fn nodes(&self) -> impl Iterator<Item = &Server> {
        self.primaries.iter().chain(&self.replicas)
    }

    async fn meet(&self) {
        for (at, server) in self.primaries.iter().enumerate() {
            let mut conn = server.connect().await;
            let mut slots = redis::cmd("CLUSTER");
            slots.arg("ADDSLOTS");
            for slot in (at * SLOTS / 3)..((at + 1) * SLOTS / 3) {
                slots.arg(slot);
            }
            conn.run(slots).await;
            conn.run(cmd!["CLUSTER", "SET-CONFIG-EPOCH", at + 1]).await;
        }
        let mut first = self.primaries[0].connect().await;
        for node in self.nodes().skip(1) {
            first
                .run(cmd!["CLUSTER", "MEET", "127.0.0.1", node.port])
                .await;
        }
        self.wait_until_up().await;
        for (primary, replica) in self.primaries.iter().zip(&self.replicas) {
            let id = id_of(primary).await;
            let mut conn = replica.connect().await;
            wait_for("the replica to follow", LONG, async || {
                match conn.ask(cmd!["CLUSTER", "REPLICATE", &id]).await {
                    Ok(_) => Ok(()),
                    Err(error) => Err(error.to_string()),
                }
            })
            .await;
            crate::data::wait_until_in_step(primary, replica).await;
        }
    }

    /// Until every node knows the others and serves its slots.
    async fn wait_until_up(&self) {
        for node in self.nodes() {
            let mut conn = node.connect().await;
            wait_for("six nodes to know each other", LONG, async || {
                let info = conn.text("CLUSTER INFO").await;
                let known = info.contains("cluster_known_nodes:6");
                let ok = info.contains("cluster_state:ok");
                (known && ok).then_some(()).ok_or(info)
            })
            .await;
        }
    }

    /// Which primary has the slot of that key.
    async fn home_of(&self, key: &str) -> usize {
        let slot = slot_of(&self.primaries[0], key).await;
        (0..3)
            .find(|at| slot < (at + 1) * SLOTS / 3)
            .expect("a primary for every slot")
    }

    /// Results without TTL behind a hash-tagged prefix each; how many each primary has.
    async fn seed(&self, each: usize) -> [usize; 3] {
        let mut counts = [0; 3];
        for tag in 0..TAGS {
            let home = self.home_of(&format!("{{t{tag}}}")).await;
            counts[home] += each;
            let mut conn = self.primaries[home].connect().await;
            conn.pipe((0..each).map(|n| cmd!["SET", tagged(tag, n), 1]))
                .await;
        }
        counts
    }

    async fn assert_same(&self) {
        for (primary, replica) in self.primaries.iter().zip(&self.replicas) {
            assert_same_data(&[primary, replica]).await;
        }
    }

    async fn bare(&self) -> usize {
        let mut count = 0;
        for primary in &self.primaries {
            let held = DataSet::of(primary).await;
            count += held.rows.iter().filter(|row| row.expires_ms < 0).count();
        }
        count
    }
}

fn tagged(tag: usize, n: usize) -> String {
    format!("{{t{tag}}}celery-task-meta-{n}")
}

fn prefixes() -> String {
    let all: Vec<String> = (0..TAGS).map(|tag| format!("{{t{tag}}}")).collect();
    all.join(" ")
}

async fn id_of(server: &Server) -> String {
    server.connect().await.text("CLUSTER MYID").await
}

async fn slot_of(server: &Server, key: &str) -> usize {
    let slot = server
        .connect()
        .await
        .int(cmd!["CLUSTER", "KEYSLOT", key])
        .await;
    usize::try_from(slot).expect("a slot")
}

/// Moves the slot as `redis-cli --cluster reshard` does, a few keys at a time.
async fn move_slot(slot: usize, from: &Server, to: &Server, others: &Server) -> usize {
    let (source, target) = (id_of(from).await, id_of(to).await);
    let mut giver = from.connect().await;
    let mut taker = to.connect().await;
    taker
        .run(cmd!["CLUSTER", "SETSLOT", slot, "IMPORTING", &source])
        .await;
    giver
        .run(cmd!["CLUSTER", "SETSLOT", slot, "MIGRATING", &target])
        .await;
    let mut moved = 0;
    loop {
        let keys = list(
            &giver
                .value(cmd!["CLUSTER", "GETKEYSINSLOT", slot, 20])
                .await,
        );
        if keys.is_empty() {
            break;
        }
        moved += keys.len();
        let mut migrate = cmd!["MIGRATE", "127.0.0.1", to.port, "", 0, 10_000, "KEYS"];
        for key in &keys {
            migrate.arg(bytes(key));
        }
        giver.run(migrate).await;
    }
    for server in [to, from, others] {
        let mut conn = server.connect().await;
        conn.run(cmd!["CLUSTER", "SETSLOT", slot, "NODE", &target])
            .await;
    }
    moved
}

/// Whether the slot is moving, by the server's own cluster table of each node.
async fn owner_is(server: &Server, slot: usize, owner: &Server) -> Result<(), String> {
    let ranges = list(&server.connect().await.value("CLUSTER SLOTS").await);
    let port = ranges.iter().find_map(|range| {
        let range = list(range);
        let slot = i64::try_from(slot).ok()?;
        let there = (int(&range[0])..=int(&range[1])).contains(&slot);
        there.then(|| int(&list(&range[2])[1]))
    });
    same(port, Some(i64::from(owner.port)))
}

#[tokio::test]
async fn each_node_does_its_own_keys_and_a_fan_out_does_all() {
    on_one_server(async |binary| {
        let mut cluster = Cluster::start(binary, ("key-prefixes", &prefixes())).await;
        // Enforcement, behind hash-tagged prefixes, on whatever node has the slot.
        cluster.seed(5).await;
        wait_for("every result to have a TTL", LONG, async || {
            same(cluster.bare().await, 0)
        })
        .await;
        cluster.assert_same().await;

        for primary in &cluster.primaries {
            let mut conn = primary.connect().await;
            conn.run("HYGIENE.CONFIG SET enforce no").await;
        }
        let counts = cluster.seed(200).await;
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");

        // A node's own, and no other's.
        let mut conn = cluster.primaries[0].connect().await;
        let reply = conn.fields("HYGIENE.FIXTTL").await;
        assert_eq!(
            reply.int("stamped"),
            i64::try_from(counts[0]).expect("a count")
        );
        assert_eq!(cluster.bare().await, counts[1] + counts[2]);
        let mut other = cluster.primaries[1].connect().await;
        let scan = other.fields("HYGIENE.SCAN MEMORY OFF").await;
        assert_eq!(
            scan.int("scanned"),
            i64::try_from(counts[1]).expect("a count")
        );

        // All, by the fan-out that the documentation names.
        let address = format!("127.0.0.1:{}", cluster.primaries[2].port);
        let done = Command::new("redis-cli")
            .args([
                "--cluster",
                "call",
                &address,
                "HYGIENE.FIXTTL",
                "--cluster-only-masters",
            ])
            .output()
            .expect("redis-cli");
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(
            done.status.success() && said.matches("stamped").count() == 3,
            "{said}"
        );
        assert_eq!(cluster.bare().await, 0, "{said}");
        cluster.assert_same().await;
        for server in cluster.primaries.iter_mut().chain(&mut cluster.replicas) {
            server.assert_alive();
        }
    })
    .await;
}

#[tokio::test]
async fn a_slot_that_moves_during_a_sweep_loses_no_key_and_leaves_none_without_ttl() {
    on_one_server(async |binary| {
        let mut cluster = Cluster::start(binary, ("enforce", "no")).await;
        // One tag is one slot, so the whole of it moves.
        let tag = 7;
        let home = cluster.home_of(&format!("{{t{tag}}}")).await;
        let away = (home + 1) % 3;
        let rest = (home + 2) % 3;
        for primary in &cluster.primaries {
            let mut conn = primary.connect().await;
            conn.run(cmd!["HYGIENE.CONFIG", "SET", "key-prefixes", prefixes()])
                .await;
            conn.run("HYGIENE.CONFIG SET max-writes-per-sec 2000").await;
        }
        let mut giver = cluster.primaries[home].connect().await;
        giver
            .pipe((0..6_000).map(|n| cmd!["SET", tagged(tag, n), n]))
            .await;
        let id = jobs::start(&mut giver, "HYGIENE.FIXTTL ASYNC").await;
        let mut taker = cluster.primaries[away].connect().await;
        let there = jobs::start(&mut taker, "HYGIENE.FIXTTL ASYNC").await;
        let slot = slot_of(&cluster.primaries[home], &tagged(tag, 0)).await;
        let moved = move_slot(
            slot,
            &cluster.primaries[home],
            &cluster.primaries[away],
            &cluster.primaries[rest],
        )
        .await;
        assert_eq!(moved, 6_000);
        jobs::wait_until(&mut giver, id, "finished").await;
        jobs::wait_until(&mut taker, there, "finished").await;
        for node in cluster.nodes() {
            wait_for("all to know the owner", LONG, async || {
                owner_is(node, slot, &cluster.primaries[away]).await
            })
            .await;
        }
        assert_eq!(giver.int("DBSIZE").await, 0, "what has moved is gone here");
        taker.run("HYGIENE.FIXTTL").await;
        assert_eq!(cluster.bare().await, 0);
        let held = DataSet::of(&cluster.primaries[away]).await;
        assert_eq!(held.rows.len(), 6_000, "none is lost");
        if binary.is_7_0_or_newer() {
            cluster.assert_same().await;
        }

        // And back, with enforcement on: an expiry moves with its key.
        for primary in &cluster.primaries {
            primary
                .connect()
                .await
                .run("HYGIENE.CONFIG SET enforce yes")
                .await;
        }
        taker
            .run(cmd!["SET", tagged(tag, 0), 1, "EX", 77_777])
            .await;
        let moved = move_slot(
            slot,
            &cluster.primaries[away],
            &cluster.primaries[home],
            &cluster.primaries[rest],
        )
        .await;
        assert_eq!(moved, 6_000);
        let ttl = giver.ttl(tagged(tag, 0)).await;
        assert!((77_000..=77_777).contains(&ttl), "{ttl}");
        assert_eq!(cluster.bare().await, 0);
        if binary.is_7_0_or_newer() {
            cluster.assert_same().await;
        } else {
            binary.left_out("it sends the TTL of a moved key to replicas as a time from now");
        }
        for server in cluster.primaries.iter_mut().chain(&mut cluster.replicas) {
            server.assert_alive();
        }
    })
    .await;
}

#[tokio::test]
async fn a_slot_that_moves_as_a_whole_during_a_sweep_arrives_as_it_was() {
    on_every_server(async |binary| {
        if !binary.moves_slots_whole() {
            return binary.left_out("it moves slots key by key");
        }
        let mut cluster = Cluster::start(binary, ("key-prefixes", &prefixes())).await;
        let home = cluster.home_of("{t7}").await;
        let away = (home + 1) % 3;
        let mut giver = cluster.primaries[home].connect().await;
        let mut taker = cluster.primaries[away].connect().await;
        giver.run("HYGIENE.CONFIG SET enforce no").await;
        for conn in [&mut giver, &mut taker] {
            conn.run("HYGIENE.CONFIG SET max-writes-per-sec 5000").await;
        }
        giver
            .pipe((0..6_000).map(|n| cmd!["SET", tagged(7, n), n]))
            .await;
        let slot = slot_of(&cluster.primaries[home], "{t7}").await;
        let target = id_of(&cluster.primaries[away]).await;
        let id = jobs::start(&mut giver, "HYGIENE.FIXTTL ASYNC").await;
        let there = jobs::start(&mut taker, "HYGIENE.FIXTTL ASYNC").await;
        giver
            .run(cmd![
                "CLUSTER",
                "MIGRATESLOTS",
                "SLOTSRANGE",
                slot,
                slot,
                "NODE",
                &target
            ])
            .await;
        // Enforcement there sees what arrives, and what is written meanwhile here.
        giver.run("HYGIENE.CONFIG SET enforce yes").await;
        for n in 0..500 {
            let _ = giver.ask(cmd!["SET", tagged(7, n), "late"]).await;
        }
        for node in cluster.nodes() {
            wait_for("all to know the owner", LONG, async || {
                owner_is(node, slot, &cluster.primaries[away]).await
            })
            .await;
        }
        jobs::wait_until(&mut giver, id, "finished").await;
        jobs::wait_until(&mut taker, there, "finished").await;
        taker.run("HYGIENE.FIXTTL").await;
        assert_eq!(cluster.bare().await, 0);
        assert_eq!(taker.int("DBSIZE").await, 6_000, "none is lost");
        wait_for("what has moved to be gone", LONG, async || {
            same(giver.int("DBSIZE").await, 0)
        })
        .await;
        cluster.assert_same().await;
        for server in cluster.primaries.iter_mut().chain(&mut cluster.replicas) {
            server.assert_alive();
        }
    })
    .await;
}

#[tokio::test]
async fn every_database_of_a_node_is_looked_at_where_a_cluster_has_more_than_one() {
    on_every_server(async |binary| {
        if !binary.moves_slots_whole() {
            return binary.left_out("its cluster has one database");
        }
        let server = Setup::on(binary)
            .cluster_node()
            .config("cluster-databases 16")
            .start()
            .await;
        let mut conn = server.connect().await;
        conn.run(cmd!["CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1])
            .await;
        wait_for("the cluster to be up", LONG, async || {
            let info = conn.text("CLUSTER INFO").await;
            info.contains("cluster_state:ok").then_some(()).ok_or(info)
        })
        .await;
        for db in [0, 3, 9] {
            let mut conn = server.connect_db(db).await;
            conn.run("SET celery-task-meta-a 1").await;
            conn.assert_given(3600, "celery-task-meta-a").await;
            conn.run("PERSIST celery-task-meta-a").await;
        }
        let scan = conn.fields("HYGIENE.SCAN MEMORY OFF").await;
        assert_eq!(scan.int("scanned"), 3, "{scan:?}");
        let reply = conn.fields("HYGIENE.FIXTTL DB 3").await;
        assert_eq!(reply.int("stamped"), 1, "{reply:?}");
        let reply = conn.fields("HYGIENE.FIXTTL").await;
        assert_eq!(reply.int("stamped"), 2, "{reply:?}");
        assert_eq!(results_without_ttl(&server).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_failover_in_a_cluster_leaves_no_result_without_ttl() {
    on_one_server(async |binary| {
        let mut cluster = Cluster::start(binary, ("sweep-interval", "2s")).await;
        for node in cluster.nodes() {
            let mut conn = node.connect().await;
            conn.run(cmd!["HYGIENE.CONFIG", "SET", "key-prefixes", prefixes()])
                .await;
            conn.run("HYGIENE.CONFIG SET enforce no").await;
        }
        cluster.seed(100).await;
        cluster.gives_up_after(2_000).await;
        cluster.primaries[0].kill_9();
        let mut conn = cluster.replicas[0].connect().await;
        wait_for("the replica to take over", LONG, async || {
            let role = conn.info("replication", "role").await;
            same(role.as_deref(), Some("master"))
        })
        .await;
        cluster.primaries[0].start_again().await;
        cluster.gives_up_after(CALM_MS).await;
        let back = cluster.primaries.remove(0);
        let new = cluster.replicas.remove(0);
        cluster.primaries.insert(0, new);
        cluster.replicas.insert(0, back);
        cluster.wait_until_up().await;
        wait_for("every result to have a TTL", LONG, async || {
            same(cluster.bare().await, 0)
        })
        .await;
        cluster.assert_same().await;
    })
    .await;
}

#[tokio::test]
async fn a_server_whose_tips_a_module_may_set_tells_how_to_ask_all_nodes() {
    on_one_server(async |binary| {
        if !binary.is_7_0_or_newer() {
            return binary.left_out("its COMMAND INFO has no tips");
        }
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        for (name, request) in [
            ("HYGIENE.SCAN", "request_policy:all_shards"),
            ("HYGIENE.FIXTTL", "request_policy:all_shards"),
            ("HYGIENE.ORPHANS", "request_policy:all_shards"),
            ("HYGIENE.BEATSTATUS", "request_policy:all_shards"),
            ("HYGIENE.DOCTOR", "request_policy:all_shards"),
            ("HYGIENE.STATS", "request_policy:all_shards"),
            ("HYGIENE.KEYS", "request_policy:special"),
            ("HYGIENE.JOBS", "request_policy:all_nodes"),
            ("HYGIENE.CONFIG", "request_policy:all_nodes"),
        ] {
            let info = list(&conn.value(cmd!["COMMAND", "INFO", name]).await);
            let info = list(&info[0]);
            let tips: Vec<String> = match &info[7] {
                Value::Array(tips) => tips.iter().map(text).collect(),
                other => panic!("{name}: {other:?}"),
            };
            assert!(tips.iter().any(|tip| tip == request), "{name}: {tips:?}");
            assert!(
                tips.iter().any(|tip| tip == "response_policy:special"),
                "{name}: {tips:?}"
            );
        }
    })
    .await;
}
