//! The script that redis_exporter runs (contrib/monitoring/hygiene.lua), on each server
//! as the exporter runs it: no keys, one argument, flat pairs of text wanted.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{Cmd, Value};

use crate::celery::{Message, binding, seed_results};
use crate::client::{Conn, text};
use crate::cmd;
use crate::server::{Binary, Setup, on_every_server, wait_for};

const SOON: Duration = Duration::from_secs(20);
const SCRIPT: &str = include_str!("../contrib/monitoring/hygiene.lua");

/// The exporter's commands: EVAL, or when told so EVAL_RO, which 6.2 does not know.
fn evals(binary: &Binary) -> Vec<Cmd> {
    let names: &[&str] = if binary.is_7_0_or_newer() {
        &["EVAL", "EVAL_RO"]
    } else {
        &["EVAL"]
    };
    names.iter().map(|name| cmd![name, SCRIPT, 0, 0]).collect()
}

/// What the script says, read as the exporter reads it: each element a bulk string,
/// each second one a plain number.
async fn told(conn: &mut Conn, eval: &Cmd) -> BTreeMap<String, i64> {
    let Value::Array(words) = conn.value(eval.clone()).await else {
        panic!("no array");
    };
    assert_eq!(words.len() % 2, 0, "{words:?}");
    for word in &words {
        assert!(matches!(word, Value::BulkString(_)), "{word:?}");
    }
    words
        .chunks_exact(2)
        .map(|pair| {
            let (name, number) = (text(&pair[0]), text(&pair[1]));
            let number = number
                .parse()
                .unwrap_or_else(|_| panic!("{name} is {number}"));
            (name, number)
        })
        .collect()
}

#[tokio::test]
async fn the_script_tells_each_known_number_of_stats_as_text() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("verdict-interval", "1s")
            .start()
            .await;
        let mut conn = server.connect().await;
        conn.run(binding("celery", "celery", "celery")).await;
        conn.run(Message::new("a.b", "1").push()).await;
        seed_results(&mut conn, "s", 7).await;
        conn.run("HYGIENE.SCAN").await;
        // The first look comes by itself.
        wait_for("a verdict and a queue", SOON, async || {
            let stats = conn.clone().fields("HYGIENE.STATS").await;
            (stats.int("verdict_code") >= 0 && stats.has("queue_length:0:celery"))
                .then_some(())
                .ok_or(format!("{stats:?}"))
        })
        .await;
        for eval in evals(binary) {
            let told = told(&mut conn, &eval).await;
            let stats = conn.fields("HYGIENE.STATS").await;
            let mut known: Vec<String> = stats
                .0
                .iter()
                .filter(|(_, value)| !matches!(value, Value::Int(-1) | Value::BulkString(_)))
                .map(|(name, _)| format!("hygiene_{name}"))
                .collect();
            known.push("hygiene_up".to_owned());
            known.sort();
            let names: Vec<String> = told.keys().cloned().collect();
            assert_eq!(names, known);
            assert_eq!(told["hygiene_up"], 1);
            assert_eq!(told["hygiene_enforce"], 0);
            assert_eq!(told["hygiene_results_without_ttl"], 7);
            assert_eq!(told["hygiene_queue_length:0:celery"], 1);
            // Thirteen digits, none lost and no exponent.
            for field in ["counters_since_ms", "results_counted_ms"] {
                assert_eq!(told[&format!("hygiene_{field}")], stats.int(field));
            }
            assert!(told.values().all(|number| *number != -1), "{told:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn where_it_may_not_ask_the_script_says_so_and_does_not_fail() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run("ACL SETUSER outsider on nopass ~* +@scripting -hygiene.stats")
            .await;
        conn.run("AUTH outsider x").await;
        let bare = Setup::on(binary).without_module().start().await;
        for eval in evals(binary) {
            for conn in [&mut conn, &mut bare.connect().await] {
                let told = told(conn, &eval).await;
                assert_eq!(told, BTreeMap::from([("hygiene_up".to_owned(), 0)]));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_replica_tells_its_figures_and_no_verdict() {
    on_every_server(async |binary| {
        let primary = Setup::on(binary).start().await;
        let replica = Setup::on(binary).replica_of(&primary).start().await;
        let mut conn = replica.connect().await;
        wait_for("the first sync", SOON, async || {
            let role = conn.clone().info("replication", "master_link_status").await;
            (role.as_deref() == Some("up"))
                .then_some(())
                .ok_or(format!("{role:?}"))
        })
        .await;
        for eval in evals(binary) {
            let told = told(&mut conn, &eval).await;
            assert_eq!(told["hygiene_up"], 1);
            assert!(told.contains_key("hygiene_slices_total"), "{told:?}");
            assert!(!told.contains_key("hygiene_verdict_code"), "{told:?}");
        }
    })
    .await;
}
