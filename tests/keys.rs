//! HYGIENE.KEYS: SCAN's contract, with filters.

use std::collections::BTreeSet;
use std::process::Command;

use redis::Cmd;

use crate::celery::{HOUR, Message, binding, seed_results};
use crate::client::{Conn, bytes, list, text};
use crate::cmd;
use crate::data::wait_until_in_step;
use crate::server::{Setup, on_every_server};

/// A whole round: the keys, and how many calls it took.
async fn round(conn: &mut Conn, filters: &str) -> (Vec<String>, usize) {
    let (mut found, mut calls) = (Vec::new(), 0);
    let mut cursor = "0".to_owned();
    loop {
        let answer = list(&conn.value(format!("HYGIENE.KEYS {cursor} {filters}")).await);
        assert_eq!(answer.len(), 2, "a cursor and keys, as SCAN answers");
        found.extend(list(&answer[1]).iter().map(text));
        cursor = text(&answer[0]);
        calls += 1;
        if cursor == "0" {
            return (found, calls);
        }
        assert!(calls < 100_000, "a round ends");
    }
}

/// The keys of a whole round, in order, each once.
pub async fn keys(conn: &mut Conn, filters: &str) -> Vec<String> {
    let (found, _) = round(conn, filters).await;
    let found: BTreeSet<String> = found.into_iter().collect();
    found.into_iter().collect()
}

#[tokio::test]
async fn a_round_shows_every_key_that_is_there_throughout_while_others_come_and_go() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 5_000).await;
        let mut found = BTreeSet::new();
        let (mut cursor, mut calls) = ("0".to_owned(), 0);
        loop {
            let answer = list(&conn.value(format!("HYGIENE.KEYS {cursor} COUNT 50")).await);
            found.extend(list(&answer[1]).iter().map(text));
            cursor = text(&answer[0]);
            calls += 1;
            if cursor == "0" {
                break;
            }
            // The table grows and shrinks meanwhile.
            let from = calls * 100;
            let churn: Vec<Cmd> = (0..100)
                .map(|n| match calls % 3 {
                    2 => cmd!["DEL", format!("x{}", from - 100 + n)],
                    _ => cmd!["SET", format!("x{}", from + n), 1],
                })
                .collect();
            conn.pipe(churn).await;
        }
        assert!(calls > 50, "COUNT bounds a call: {calls} of them");
        for n in 0..5_000 {
            let key = format!("celery-task-meta-s{n}");
            assert!(found.contains(&key), "{key} was there throughout");
        }
    })
    .await;
}

#[tokio::test]
async fn a_call_looks_at_about_count_keys_and_keeps_nothing_for_the_next() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 2_000).await;
        let first = list(&conn.value("HYGIENE.KEYS 0 COUNT 10").await);
        assert!(list(&first[1]).len() < 100, "{}", list(&first[1]).len());
        let next = text(&first[0]);
        // The cursor is all there is: any connection may go on with it, twice.
        let mut other = server.connect().await;
        let one = conn.value(format!("HYGIENE.KEYS {next} COUNT 10")).await;
        let same = other.value(format!("HYGIENE.KEYS {next} COUNT 10")).await;
        assert_eq!(one, same);
        let (all, calls) = round(&mut conn, "").await;
        assert!(all.len() >= 2_000 && calls <= 60, "{calls} calls");
    })
    .await;
}

#[tokio::test]
async fn classes_are_those_of_scan_lists_by_what_lies_in_them() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        let reply = "0f5ee1b4-3c1c-3b6e-a1f0-6c5bb9b3c5a1.reply.celery.pidbox";
        conn.run("SET celery-task-meta-1 1").await;
        conn.run("SET celery-taskset-meta-1 1").await;
        conn.run("SET celery-taskset-meta-1.s 1").await;
        conn.run(cmd!["LPUSH", reply, "1"]).await;
        conn.run("LPUSH celeryev.1 1").await;
        conn.run("LPUSH shopping milk").await;
        conn.run("SET airflow_variable 1").await;
        conn.run(binding("celery", "celery", "celery")).await;
        let message = Message::new("a.b", "1");
        conn.pipe(message.unacked(1)).await;
        conn.run(message.queue("mail").push()).await;
        for (class, expected) in [
            ("task_result", vec!["celery-task-meta-1"]),
            ("group_result", vec!["celery-taskset-meta-1"]),
            ("chord", vec!["celery-taskset-meta-1.s"]),
            ("queue", vec!["mail"]),
            ("unacked", vec!["unacked", "unacked_index"]),
            ("binding", vec!["_kombu.binding.celery"]),
            ("reply_queue", vec![reply]),
            ("event_queue", vec!["celeryev.1"]),
            ("other", vec!["airflow_variable", "shopping"]),
            ("lock", vec![]),
        ] {
            let found = keys(&mut conn, &format!("CLASS {class}")).await;
            assert_eq!(found, expected, "{class}");
        }
        assert_eq!(
            keys(&mut conn, "CLASS Task_Result MATCH *-2").await,
            [""; 0]
        );
        assert_eq!(
            keys(&mut conn, "CLASS task_result MATCH *-1").await,
            ["celery-task-meta-1"]
        );
    })
    .await;
}

#[tokio::test]
async fn lives_are_told_by_their_side_of_a_limit() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run("SET never 1").await;
        conn.run("SETEX minute 60 1").await;
        conn.run("SETEX day 86400 1").await;
        for (filter, expected) in [
            ("NOTTL", vec!["never"]),
            ("TTLBELOW 1h", vec!["minute"]),
            ("TTLABOVE 1h", vec!["day"]),
            ("TTLBELOW 7d", vec!["day", "minute"]),
            ("TTLABOVE 7d", vec![]),
            ("", vec!["day", "minute", "never"]),
        ] {
            assert_eq!(keys(&mut conn, filter).await, expected, "{filter}");
        }
    })
    .await;
}

/// Puts a string key with that idle time in seconds there.
pub async fn put_idle(conn: &mut Conn, key: &str, idle_s: i64) {
    // Small numbers are one object for all keys, and have one idle time.
    conn.run(cmd!["SET", "idle:source", format!("value of {key}")])
        .await;
    restore_idle(conn, "idle:source", key, idle_s).await;
    conn.run("DEL idle:source").await;
}

/// Puts a copy of a key under another name, or the same, with that idle time.
pub async fn restore_idle(conn: &mut Conn, from: &str, to: &str, idle_s: i64) {
    let dump = bytes(&conn.value(cmd!["DUMP", from]).await);
    conn.run(cmd!["RESTORE", to, 0, dump, "REPLACE", "IDLETIME", idle_s])
        .await;
}

#[tokio::test]
async fn older_than_is_idle_time_and_looking_is_no_use() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        put_idle(&mut conn, "old", 2 * HOUR).await;
        put_idle(&mut conn, "young", 60).await;
        conn.run(Message::new("a.b", "1").queue("mail").push())
            .await;
        restore_idle(&mut conn, "mail", "mail", 3 * HOUR).await;
        for _ in 0..2 {
            // A list is looked into to know its class.
            assert_eq!(keys(&mut conn, "CLASS queue OLDERTHAN 2h").await, ["mail"]);
            assert_eq!(keys(&mut conn, "OLDERTHAN 1h").await, ["mail", "old"]);
        }
        conn.run("HYGIENE.SCAN").await;
        // What BEATSTATUS looks at is asked of the server; Valkey 9.1 takes an idle time
        // back in thousands of seconds only.
        let idle_s = conn.int("OBJECT IDLETIME mail").await;
        assert!(idle_s >= 3 * HOUR / 1000 * 1000, "{idle_s}");
        assert_eq!(
            keys(&mut conn, "OLDERTHAN 10s").await,
            ["mail", "old", "young"]
        );
    })
    .await;
}

#[tokio::test]
async fn older_than_is_refused_where_idle_times_are_not_kept() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .config("maxmemory-policy allkeys-lfu")
            .start()
            .await;
        let mut conn = server.connect().await;
        let why = conn.error("HYGIENE.KEYS 0 OLDERTHAN 1h").await;
        assert!(why.contains("LFU"), "{why}");
        conn.run("HYGIENE.KEYS 0 NOTTL").await;
    })
    .await;
}

#[tokio::test]
async fn only_the_current_database_is_shown_and_only_what_may_be_read() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut zero = server.connect().await;
        let mut nine = server.connect_db(9).await;
        zero.run("SET mine:1 1").await;
        zero.run("SET theirs:1 1").await;
        nine.run("SET mine:9 1").await;
        assert_eq!(keys(&mut zero, "").await, ["mine:1", "theirs:1"]);
        assert_eq!(keys(&mut nine, "").await, ["mine:9"]);
        if !binary.is_7_0_or_newer() {
            return;
        }
        zero.run("ACL SETUSER reader on nopass ~mine:* +hygiene.keys +select")
            .await;
        let mut reader = server.connect().await;
        reader.run("AUTH reader x").await;
        assert_eq!(keys(&mut reader, "").await, ["mine:1"]);
    })
    .await;
}

#[tokio::test]
async fn works_on_replicas_in_transactions_and_in_scripts() {
    on_every_server(async |binary| {
        let primary = Setup::on(binary).setting("enforce", "no").start().await;
        let replica = Setup::on(binary).replica_of(&primary).start().await;
        let mut conn = primary.connect().await;
        seed_results(&mut conn, "s", 100).await;
        wait_until_in_step(&primary, &replica).await;
        let mut there = replica.connect().await;
        assert_eq!(keys(&mut there, "CLASS task_result NOTTL").await.len(), 100);
        let answers = conn
            .transaction(&[cmd!["HYGIENE.KEYS", 0, "COUNT", 1000]])
            .await
            .unwrap();
        assert!(!list(&list(&answers[0])[1]).is_empty());
        let script = "return redis.call('HYGIENE.KEYS', '0', 'COUNT', '1000')";
        let answer = list(&conn.value(cmd!["EVAL", script, 0]).await);
        assert!(!list(&answer[1]).is_empty());
    })
    .await;
}

#[tokio::test]
async fn works_in_a_cluster() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("enforce", "no")
            .config("cluster-enabled yes")
            .start()
            .await;
        let mut conn = server.connect().await;
        let slots: Vec<String> = (0..16_384).map(|slot| slot.to_string()).collect();
        let mut add = cmd!["CLUSTER", "ADDSLOTS"];
        add.arg(slots);
        conn.run(add).await;
        crate::server::wait_for(
            "the cluster to be there",
            std::time::Duration::from_secs(20),
            async || {
                let info = conn.text("CLUSTER INFO").await;
                if info.contains("cluster_state:ok") {
                    Ok(())
                } else {
                    Err(info)
                }
            },
        )
        .await;
        let names: Vec<String> = (0..200).map(|n| format!("celery-task-meta-{n}")).collect();
        conn.pipe(names.iter().map(|name| cmd!["SET", name, 1]))
            .await;
        let expected: BTreeSet<String> = names.into_iter().collect();
        let found = keys(&mut conn, "CLASS task_result").await;
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn a_shell_loop_can_use_it() {
    let server = Setup::new().setting("enforce", "no").start().await;
    let mut conn = server.connect().await;
    seed_results(&mut conn, "s", 1_000).await;
    conn.run("SET other 1").await;
    let cli = server.binary.path.with_file_name("redis-cli");
    if !cli.is_file() {
        println!("no redis-cli beside {}", server.binary.path.display());
        return;
    }
    let script = format!(
        "c=0; while :; do \
           set -- $({cli} -p {port} HYGIENE.KEYS $c CLASS task_result COUNT 500); \
           c=$1; shift; for key; do echo \"$key\"; done; \
           [ \"$c\" = 0 ] && break; \
         done | sort -u | wc -l",
        cli = cli.display(),
        port = server.port
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "1000");
}

#[tokio::test]
async fn wrong_words_are_refused_by_name() {
    let server = Setup::new().start().await;
    let mut conn = server.connect().await;
    for (words, expected) in [
        ("x", "ERR cursor 'x'"),
        ("0 CLASS nothing", "ERR CLASS 'nothing'"),
        ("0 COUNT 0", "ERR COUNT '0'"),
        ("0 NOTTL TTLABOVE 1h", "given twice"),
        ("0 OLDERTHAN soon", "ERR OLDERTHAN 'soon'"),
        ("0 LIMIT 1", "ERR unknown option 'LIMIT'"),
    ] {
        let why = conn.error(format!("HYGIENE.KEYS {words}")).await;
        assert!(why.contains(expected), "{words}: {why}");
    }
    assert!(
        conn.error("HYGIENE.KEYS")
            .await
            .contains("wrong number of arguments")
    );
}
