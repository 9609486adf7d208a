//! Sizes and numbers that nobody sane would reach, disks that are full, children that
//! cannot be started: what a client sees then, and what the server keeps.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use redis::Value;
use tokio::sync::Mutex;

use crate::celery::{self, Clock, Message};
use crate::client::{Conn, Fields, error_text, list};
use crate::cmd;
use crate::data::DataSet;
use crate::jobs;
use crate::server::{Binary, Setup, on_every_server, on_one_server, wait_for};

const HALF_A_GIGABYTE: u64 = 512 * 1024 * 1024;
/// Held by each test that has a server take gigabytes, so that no two do at once.
static GIGABYTES: Mutex<()> = Mutex::const_new(());
const SOON: Duration = Duration::from_secs(20);

/// The longest that a slice of ours may hold the main thread here, in µs. Promised are
/// 2 ms of a release; this is a build for tests, on a machine that may be a slow one. A
/// look at all of what lies in these tests takes ten times as long.
const LONGEST_SLICE_US: i64 = 20_000;

/// The longest that a command that answers in one piece may take here.
const LONGEST_ANSWER: Duration = Duration::from_secs(1);

/// A processor shared with many others now and then takes longer for the same.
const TRIES: usize = 5;

/// Of the longest slice since the last RESET the time that it really worked, in µs: the
/// machine of a test is busy, and gives the processor to others meanwhile.
async fn longest_slice(conn: &mut Conn) -> i64 {
    let told = conn.info("hygiene", "hygiene_longest_slice_cpu_us").await;
    told.expect("INFO hygiene tells it")
        .parse()
        .expect("a number")
}

/// Each of these passes keeps its slices short: what takes long by itself takes long
/// each time.
pub async fn slices_stay_short(conn: &mut Conn, passes: &[&str]) {
    no_slice_is_above(LONGEST_SLICE_US, conn, passes).await;
}

/// The same with another limit, in µs.
pub async fn no_slice_is_above(limit_us: i64, conn: &mut Conn, passes: &[&str]) {
    for pass in passes {
        let mut best = i64::MAX;
        for _ in 0..TRIES {
            conn.run("HYGIENE.STATS RESET").await;
            conn.run(*pass).await;
            best = best.min(longest_slice(conn).await);
            if best <= limit_us {
                break;
            }
        }
        println!("{pass}: longest slice {best} us");
        assert!(best > 0, "{pass}: no slice was timed");
        assert!(best <= limit_us, "{pass}: a slice of {best} us");
    }
}

/// The answer of a command that has nothing to wait for. What takes long by itself takes
/// long each time.
pub async fn answered_soon(conn: &mut Conn, command: &str) -> Value {
    for _ in 0..TRIES {
        let begin = Instant::now();
        let answer = conn.value(command).await;
        let took = begin.elapsed();
        println!("{command}: {took:?}");
        if took < LONGEST_ANSWER {
            return answer;
        }
    }
    panic!("{command} takes more than {LONGEST_ANSWER:?}");
}

async fn memory(conn: &mut Conn) -> i64 {
    let told = conn.info("memory", "used_memory").await;
    told.expect("INFO memory tells it")
        .parse()
        .expect("a number")
}

/// Waits until no more is taken: the server frees what is big in the background.
async fn wait_for_memory_below(limit: i64, conn: &mut Conn) {
    wait_for(
        "the memory to be given back",
        SOON,
        async || match memory(conn).await {
            left if left < limit => Ok(()),
            left => Err(format!("{left} bytes")),
        },
    )
    .await;
}

#[tokio::test]
async fn a_result_of_512_megabytes_is_stamped_counted_and_never_read() {
    let _turn = GIGABYTES.lock().await;
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run(cmd![
            "SETRANGE",
            "celery-task-meta-big",
            HALF_A_GIGABYTE - 1,
            "x"
        ])
        .await;
        wait_for("its TTL", SOON, async || {
            conn.was_given(3600, "celery-task-meta-big").await
        })
        .await;
        let scan = conn.fields("HYGIENE.SCAN MEMORY EXACT").await;
        let results = scan.one("classes", "class", "task_result");
        assert!(results.int("bytes") >= 512 * 1024 * 1024, "{scan:?}");
        scan.one("findings", "code", "big_results");
        let fixed = conn.fields("HYGIENE.FIXTTL MAXAGE 1s").await;
        assert_eq!(
            (fixed.int("unreadable"), fixed.int("deleted")),
            (1, 0),
            "{fixed:?}"
        );
        conn.run("HYGIENE.KEYS 0 CLASS task_result").await;
        conn.run("HYGIENE.BEATSTATUS").await;
        slices_stay_short(
            &mut conn,
            &[
                "HYGIENE.SCAN MEMORY EXACT",
                "HYGIENE.ORPHANS",
                "HYGIENE.FIXTTL MAXAGE 1s DRYRUN",
            ],
        )
        .await;
        server.assert_alive();
    })
    .await;
}

/// The server copies what it shows of a hash or a set, so that to look into these would
/// hold it up for as long as GET does.
#[tokio::test]
async fn a_field_or_a_member_of_hundreds_of_megabytes_is_not_looked_into() {
    on_one_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let script = "redis.call('SETRANGE', 'big', ARGV[1], 'x') \
                      local value = redis.call('GET', 'big') \
                      redis.call('HSET', 'session', 'data', value) \
                      redis.call('HSET', 'unacked', 'tag', value) \
                      redis.call('SADD', '_kombu.binding.celery', value) \
                      redis.call('ZADD', 'unacked_index', 1, value) \
                      redis.call('ZADD', 'redbeat::schedule', 1, value) \
                      redis.call('ZADD', 'queue:a.reply.celery.pidbox', 1, value)";
        conn.run(cmd!["EVAL", script, 0, HALF_A_GIGABYTE / 2 - 1])
            .await;
        // What would lead somewhere is not known where a table is not read.
        conn.run(Message::new("a.b", "1").queue("nowhere").push())
            .await;
        let scan = conn.fields("HYGIENE.SCAN").await;
        let unbound = crate::findings::finding(&scan, "queues_without_binding");
        assert!(unbound.is_none(), "{scan:?}");
        let found = conn.fields("HYGIENE.ORPHANS").await;
        assert_eq!(found.text("complete"), "no", "{found:?}");
        let status = conn.fields("HYGIENE.BEATSTATUS VERBOSE").await;
        let evidence = format!("{:?}", status.get("evidence"));
        assert!(
            evidence.contains("of 1 RedBeat entries 0 were looked at"),
            "{status:?}"
        );
        slices_stay_short(
            &mut conn,
            &[
                "HYGIENE.BEATSTATUS",
                "HYGIENE.ORPHANS PURGE reply_queue",
                "HYGIENE.SCAN",
                "HYGIENE.SCAN MEMORY OFF",
                "HYGIENE.ORPHANS",
                "HYGIENE.FIXTTL DRYRUN",
            ],
        )
        .await;
        server.assert_alive();
    })
    .await;
}

/// Processor time that the server has taken since it was started, in seconds.
async fn processor_s(conn: &mut Conn) -> f64 {
    let mut sum = 0.0;
    for field in ["used_cpu_user", "used_cpu_sys"] {
        let told = conn.info("cpu", field).await.expect("INFO cpu tells it");
        sum += told.parse::<f64>().expect("a number");
    }
    sum
}

/// The most memory that the server has held since [`forget_peak`], in bytes.
async fn peak(conn: &mut Conn) -> i64 {
    let status = format!("/proc/{}/status", process_id(conn).await);
    let status = fs::read_to_string(status).expect("the server lives");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    let kib: i64 = kib.expect("a figure").parse().expect("a number");
    kib * 1024
}

async fn forget_peak(conn: &mut Conn) {
    let refs = format!("/proc/{}/clear_refs", process_id(conn).await);
    fs::write(refs, "5").expect("a process of our own");
}

async fn process_id(conn: &mut Conn) -> String {
    let told = conn.info("server", "process_id").await;
    told.expect("INFO server tells it")
}

/// The most memory that is held while half a gigabyte is pushed, which a script makes of
/// a string that is there already, in bytes. When the list is gone nothing is left of it.
async fn push_of_half_a_gigabyte(setup: Setup) -> i64 {
    let mut server = setup.start().await;
    let mut conn = server.connect().await;
    conn.run(cmd!["SETRANGE", "value", HALF_A_GIGABYTE - 100, "x"])
        .await;
    let script = "redis.call('LPUSH', 'celery', redis.call('GET', 'value'))";
    forget_peak(&mut conn).await;
    conn.run(cmd!["EVAL", script, 2, "celery", "value"]).await;
    let most = peak(&mut conn).await;
    conn.run("HYGIENE.BEATSTATUS").await;
    conn.run("HYGIENE.SCAN").await;
    assert_eq!(conn.int("LLEN celery").await, 1);
    conn.run("DEL value celery").await;
    // The script's own copy stays with Lua.
    conn.run("SCRIPT FLUSH").await;
    wait_for_memory_below(64 * 1024 * 1024, &mut conn).await;
    server.assert_alive();
    most
}

/// No server tells the length of an element without a copy of it, so what is watched is
/// copied: once, and on Redis 6.2, where an element is had by a command alone, a few
/// times. None is kept.
#[tokio::test]
async fn an_element_of_512_megabytes_is_watched_at_the_cost_of_a_copy() {
    let _turn = GIGABYTES.lock().await;
    on_every_server(async |binary| {
        let setup = |observe| Setup::on(binary).setting("observe", observe);
        let without = push_of_half_a_gigabyte(setup("no")).await;
        let with = push_of_half_a_gigabyte(setup("yes")).await;
        let copies = (with - without) as f64 / HALF_A_GIGABYTE as f64;
        println!("{copies:.2} copies at the peak");
        let most = if binary.is_7_0_or_newer() { 1.0 } else { 4.0 };
        assert!(copies < most + 0.2, "{with} bytes with, {without} without");
    })
    .await;
}

#[tokio::test]
async fn ten_million_elements_are_counted_without_a_look_at_each() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let message = Message::new("a.b", "1").queue("celery").body();
        conn.run(cmd!["RPUSH", "celery", &message]).await;
        let script = "local some = {} for n = 1, 5000 do some[n] = 'x' end \
                      for n = 1, 2000 do redis.call('RPUSH', KEYS[1], unpack(some)) end";
        conn.run(cmd!["EVAL", script, 1, "celery"]).await;
        conn.run(cmd!["EVAL", script, 1, "celery-task-meta-list"])
            .await;
        let scan = conn.fields("HYGIENE.SCAN").await;
        assert_eq!(
            scan.one("classes", "class", "queue").int("length"),
            10_000_001
        );
        conn.run("HYGIENE.ORPHANS").await;
        conn.run("HYGIENE.FIXTTL").await;
        conn.run("HYGIENE.KEYS 0 CLASS queue").await;
        let status = Fields::of(&answered_soon(&mut conn, "HYGIENE.BEATSTATUS VERBOSE").await);
        assert_eq!(
            status.one("queues", "name", "celery").int("length"),
            10_000_001
        );
        slices_stay_short(
            &mut conn,
            &["HYGIENE.SCAN", "HYGIENE.ORPHANS", "HYGIENE.FIXTTL DRYRUN"],
        )
        .await;
        assert_eq!(
            conn.int("LLEN celery").await,
            10_000_001,
            "and none is lost"
        );
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn json_100_000_deep_is_passed_over_wherever_it_lies() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let deep = |open: &str, close: &str| open.repeat(100_000) + &close.repeat(100_000);
        let list = deep("[", "]");
        let message = Message::new("a.b", "1").queue("celery").body();
        let hidden = message.replace(
            "\"argsrepr\": ",
            &format!("\"deep\": {list}, \"argsrepr\": "),
        );
        let rows = [
            cmd![
                "SET",
                "celery-task-meta-a",
                format!("{{\"status\": \"SUCCESS\", \"result\": {list}}}")
            ],
            cmd![
                "LPUSH",
                "celery",
                &list,
                &hidden,
                deep("{\"headers\": ", "}")
            ],
            cmd![
                "HSET",
                "unacked",
                "tag",
                format!("[{hidden}, \"\", \"celery\"]")
            ],
            cmd!["ZADD", "unacked_index", 1, "tag"],
            cmd![
                "HSET",
                "redbeat:deep",
                "definition",
                deep("{\"schedule\": ", "}"),
                "meta",
                &list
            ],
            cmd!["ZADD", "redbeat::schedule", 1, "redbeat:deep"],
            cmd![
                "HSET",
                "hygiene:state",
                "task:a queue:0:celery",
                deep("{\"all\": ", "}")
            ],
            cmd!["RPUSH", "1.reply.celery.pidbox", &list],
        ];
        for row in rows {
            conn.run(row).await;
        }
        for command in [
            "HYGIENE.BEATSTATUS VERBOSE",
            "HYGIENE.DOCTOR",
            "HYGIENE.SCAN",
            "HYGIENE.ORPHANS",
            "HYGIENE.ORPHANS REQUEUE",
            "HYGIENE.FIXTTL MAXAGE 1s",
            "DEBUG RELOAD",
            "HYGIENE.BEATSTATUS",
        ] {
            conn.run(command).await;
        }
        assert_eq!(
            conn.int("HLEN unacked").await,
            1,
            "what cannot be read is left"
        );
        assert_eq!(conn.int("LLEN celery").await, 3);
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn a_hundred_thousand_queues_are_summed_and_answers_stay_small() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let message = Message::new("a.b", "1").queue("celery").body();
        let script = "for n = ARGV[2], ARGV[2] + 9999 do \
                      redis.call('LPUSH', 'queue' .. string.format('%d', n), ARGV[1]) end";
        for n in 0..10 {
            conn.run(cmd!["EVAL", script, 0, &message, n * 10_000])
                .await;
        }
        let scan = conn.fields("HYGIENE.SCAN MEMORY OFF").await;
        let queues = scan.one("classes", "class", "queue");
        assert_eq!(
            (queues.int("keys"), queues.int("length")),
            (100_000, 100_000)
        );
        assert_eq!(list(queues.get("queues")).len(), 100);
        let status = Fields::of(&answered_soon(&mut conn, "HYGIENE.BEATSTATUS VERBOSE").await);
        assert!(list(status.get("queues")).len() <= 500, "{status:?}");
        let page = conn.text("HYGIENE.DOCTOR").await;
        assert!(page.len() < 20_000, "{} bytes", page.len());
        conn.run("HYGIENE.ORPHANS").await;
        slices_stay_short(&mut conn, &["HYGIENE.ORPHANS", "HYGIENE.FIXTTL DRYRUN"]).await;
        // What BEATSTATUS says is judged in one step.
        no_slice_is_above(60_000, &mut conn, &["HYGIENE.SCAN"]).await;
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn a_thousand_databases_are_all_looked_at() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary)
            .config("databases 1000")
            .setting("enforce", "no")
            .start()
            .await;
        for db in [0, 500, 999] {
            let mut conn = server.connect_db(db).await;
            conn.run("SET celery-task-meta-a {}").await;
            conn.run(Message::new("a.b", "1").queue("celery").push())
                .await;
        }
        let mut conn = server.connect().await;
        let scan = conn.fields("HYGIENE.SCAN ALLDBS").await;
        assert_eq!(
            scan.int("scanned"),
            6 + i64::from(conn.int("EXISTS hygiene:state").await == 1)
        );
        assert_eq!(conn.fields("HYGIENE.FIXTTL").await.int("stamped"), 3);
        conn.run("HYGIENE.ORPHANS").await;
        let status = Fields::of(&answered_soon(&mut conn, "HYGIENE.BEATSTATUS").await);
        assert_eq!(list(status.get("queues")).len(), 3, "{status:?}");
        slices_stay_short(
            &mut conn,
            &["HYGIENE.SCAN", "HYGIENE.ORPHANS", "HYGIENE.FIXTTL DRYRUN"],
        )
        .await;
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn huge_names_are_neither_remembered_nor_told_in_full() {
    const HUGE: usize = 4 * 1024 * 1024;
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let before = memory(&mut conn).await;
        let message = Message::new("a.b", "1").queue("celery").body();
        let named =
            |head: &str, tail: &str| [head.to_owned(), "n".repeat(HUGE), tail.to_owned()].concat();
        for n in 0..8 {
            let rows = [
                cmd!["SET", named(&format!("celery-task-meta-{n}"), ""), "{}"],
                cmd!["LPUSH", named(&format!("queue{n}"), ""), &message],
                cmd![
                    "SADD",
                    named(&format!("_kombu.binding.{n}"), ""),
                    "a\x06\x16\x06\x16a"
                ],
                cmd!["LPUSH", named(&n.to_string(), ".reply.celery.pidbox"), "x"],
                cmd!["ZADD", named("redbeat:", ":schedule"), 1, "x"],
                cmd!["HSET", named(&n.to_string(), "unacked"), "x", "y"],
            ];
            for row in rows {
                conn.run(row).await;
            }
        }
        let key = named("celery-task-meta-0", "");
        wait_for("a TTL, as any result's", SOON, async || {
            let ttl = conn.ttl(&key).await;
            if ttl > 0 {
                Ok(())
            } else {
                Err(ttl.to_string())
            }
        })
        .await;
        for command in [
            "HYGIENE.SCAN TOP 100",
            "HYGIENE.ORPHANS",
            "HYGIENE.BEATSTATUS VERBOSE",
            "HYGIENE.JOBS",
        ] {
            let told = format!("{:?}", conn.value(command).await);
            assert!(told.len() < 1_000_000, "{command}: {} bytes", told.len());
        }
        let found = conn.fields("HYGIENE.ORPHANS").await;
        assert_eq!(found.text("complete"), "no", "not looked into: {found:?}");
        conn.run("FLUSHALL").await;
        // Of 48 names not one is left.
        wait_for_memory_below(before + HUGE as i64, &mut conn).await;
        server.assert_alive();
    })
    .await;
}

/// Messages that were taken, in a hash that only they tell, with an index that only
/// they tell.
#[tokio::test]
async fn an_index_of_a_huge_name_is_not_remembered_and_a_hash_of_one_told_in_part() {
    const HUGE: usize = 4 * 1024 * 1024;
    // Long in the mean are names too, where few messages lie under them.
    const MESSAGES: usize = 40;
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        let named = |tail: &str| "n".repeat(HUGE) + tail;
        let (hash, index) = (named("taken"), named("when"));
        for n in 0..MESSAGES {
            let taken = Message::new("a.b", &n.to_string()).unacked(1);
            conn.pipe(taken).await;
        }
        conn.run(cmd!["COPY", "unacked", "renamed"]).await;
        conn.run(cmd!["RENAME", "unacked", &hash]).await;
        conn.run(cmd!["RENAME", "unacked_index", &index]).await;
        let scan = conn.fields("HYGIENE.SCAN").await;
        let told = crate::findings::finding(&scan, "unacked_under_other_names");
        let told = told.expect("both hashes are told");
        assert_eq!(told.int("keys"), 2, "{told:?}");
        assert!(told.text("detail").len() < 10_000, "{told:?}");
        conn.run("HYGIENE.ORPHANS").await;
        conn.run("HYGIENE.BEATSTATUS VERBOSE").await;
        conn.run(cmd!["DEL", &hash, &index]).await;
        wait_for_memory_below(HUGE as i64 * 2, &mut conn).await;
        server.assert_alive();
    })
    .await;
}

/// The server hashes a name each time it looks a key up, so whatever is done to a key of
/// such a name takes as long as a few of these looks, and no longer. A match of a pattern
/// byte by byte from each of its bytes would take minutes.
#[tokio::test]
async fn names_of_512_megabytes_cost_a_few_looks_at_their_key() {
    const MOST_LOOKS: f64 = 40.0;
    let _turn = GIGABYTES.lock().await;
    let message = Message::new("a.b", "1").queue("celery").body();
    on_one_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let before = memory(&mut conn).await;
        let head = "celery-task-meta-";
        for (head, write) in [
            (head, "SET"),
            ("_kombu.binding.", "SADD"),
            ("queue", "LPUSH"),
        ] {
            let length = usize::try_from(HALF_A_GIGABYTE).expect("a size");
            let mut key = head.as_bytes().to_vec();
            key.resize(length, b'n');
            conn.run(cmd![write, &key, &message]).await;
            if write == "SET" {
                let ttl = conn.ttl(&key).await;
                assert!((1..=3_600).contains(&ttl), "as any result's: {ttl}");
            }
            let begun = processor_s(&mut conn).await;
            for _ in 0..3 {
                conn.run(cmd!["PERSIST", &key]).await;
            }
            let look = (processor_s(&mut conn).await - begun) / 3.0;
            for pass in [
                &format!("HYGIENE.SCAN MATCH *{}?x", "n".repeat(1_000)),
                "HYGIENE.KEYS 0 MATCH *n?n*x",
                "HYGIENE.SCAN MEMORY EXACT",
                "HYGIENE.FIXTTL DRYRUN",
                "HYGIENE.ORPHANS",
                "HYGIENE.BEATSTATUS",
            ] {
                let begun = processor_s(&mut conn).await;
                let told = format!("{:?}", conn.value(pass).await);
                let took = processor_s(&mut conn).await - begun;
                println!("{write} {pass}: {took:.2} s, a look {look:.2} s");
                assert!(
                    took <= MOST_LOOKS * look + 2.0,
                    "{pass}: {took} s, a look takes {look} s"
                );
                assert!(told.len() < 100_000, "{pass}: {} bytes", told.len());
            }
            conn.run("FLUSHALL").await;
        }
        wait_for_memory_below(before + 64 * 1024 * 1024, &mut conn).await;
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn a_thousand_clients_that_scan_at_once_are_served_or_told_to_wait() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).config("maxclients 2000").start().await;
        let mut conn = server.connect().await;
        celery::seed_results(&mut conn, "s", 50_000).await;
        const CLIENTS: usize = 1_000;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(server.connect().await);
        }
        let asked: Vec<_> = clients
            .into_iter()
            .map(|mut client| tokio::spawn(async move { client.ask("HYGIENE.SCAN").await }))
            .collect();
        let mut worst = Duration::ZERO;
        while asked.iter().any(|asked| !asked.is_finished()) {
            let begin = Instant::now();
            conn.run("PING").await;
            worst = worst.max(begin.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (mut served, mut refused) = (0, 0);
        for answer in asked {
            match answer.await.expect("nobody panics") {
                Ok(_) => served += 1,
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains("are running already"), "{text}");
                    refused += 1;
                }
            }
        }
        assert_eq!(served + refused, CLIENTS);
        assert!(
            served >= 16 && refused > 0,
            "{served} served, {refused} refused"
        );
        // All of the thousand in a row would take minutes.
        assert!(worst < Duration::from_secs(5), "others waited {worst:?}");
        let finished = jobs::all(&mut conn).await;
        assert!(finished.len() <= 116, "{} remembered", finished.len());
        server.assert_alive();
    })
    .await;
}

/// What each command does where it cannot wait or may not write.
#[tokio::test]
async fn each_command_has_its_answer_in_transactions_scripts_functions_and_on_replicas() {
    const ROWS: &[(&str, &str, &str)] = &[
        // The command, its error where it cannot wait, its error on a replica.
        ("HYGIENE.SCAN", "add ASYNC", ""),
        ("HYGIENE.SCAN ASYNC", "", ""),
        ("HYGIENE.FIXTTL", "add ASYNC", "READONLY"),
        ("HYGIENE.FIXTTL ASYNC", "", "READONLY"),
        ("HYGIENE.FIXTTL DRYRUN ASYNC", "", ""),
        ("HYGIENE.ORPHANS", "add ASYNC", ""),
        ("HYGIENE.ORPHANS ASYNC", "", ""),
        ("HYGIENE.ORPHANS REQUEUE ASYNC", "", "READONLY"),
        ("HYGIENE.ORPHANS PURGE chord ASYNC", "", "READONLY"),
        ("HYGIENE.STATS", "", ""),
        ("HYGIENE.TRIGGER a.b", "cannot in a transaction", "READONLY"),
        ("HYGIENE.BEATSTATUS", "", ""),
        ("HYGIENE.DOCTOR", "", ""),
        ("HYGIENE.KEYS 0", "", ""),
        ("HYGIENE.JOBS", "", ""),
        ("HYGIENE.HELP", "", ""),
        ("HYGIENE.CONFIG GET *", "", ""),
        ("HYGIENE.CANCEL 999", "no job 999", "no job 999"),
    ];
    fn check(where_: &str, command: &str, answer: Result<String, String>, wanted: &str) {
        match answer {
            Ok(_) => assert!(
                wanted.is_empty(),
                "{where_}: {command} should be refused: {wanted}"
            ),
            Err(why) => assert!(
                !wanted.is_empty() && why.contains(wanted),
                "{where_}: {command}: {why}, expected {wanted:?}"
            ),
        }
    }
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut replica = Setup::on(binary).replica_of(&server).start().await;
        let mut conn = server.connect().await;
        conn.run(celery::binding("celery", "celery", "celery"))
            .await;
        let code = "#!lua name=ours\nredis.register_function('ours', function(keys, args) \
                    return redis.call(unpack(args)) end)";
        if binary.is_7_0_or_newer() {
            conn.run(cmd!["FUNCTION", "LOAD", code]).await;
        }
        crate::data::wait_until_in_step(&server, &replica).await;
        let mut there = replica.connect().await;
        for (command, cannot_wait, on_replica) in ROWS {
            let words: Vec<&str> = command.split(' ').collect();
            let mut one = redis::cmd(words[0]);
            one.arg(&words[1..]);
            let answer = conn.transaction(&[one.clone()]).await;
            let answer = answer
                .map(|all| format!("{all:?}"))
                .map_err(|e| e.to_string());
            check("MULTI", command, answer, cannot_wait);
            let mut script = cmd!["EVAL", "return redis.call(unpack(ARGV))", 0];
            let mut ways = vec![("EVAL", script.arg(&words).clone())];
            if binary.is_7_0_or_newer() {
                ways.push(("FCALL", cmd!["FCALL", "ours", 0].arg(&words).clone()));
            }
            for (way, call) in ways {
                let answer = conn.ask(call).await;
                let answer = answer
                    .map(|value| format!("{value:?}"))
                    .map_err(|e| error_text(&e));
                check(way, command, answer, cannot_wait);
            }
            let answer = there.ask(one).await;
            let answer = answer
                .map(|value| format!("{value:?}"))
                .map_err(|e| error_text(&e));
            check("a replica", command, answer, on_replica);
            for running in jobs::all(&mut conn).await {
                if running.text("state") == "running" {
                    jobs::wait_until(&mut conn, running.int("id"), "finished").await;
                }
            }
        }
        server.assert_alive();
        replica.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn a_script_that_does_not_end_keeps_the_module_waiting_and_no_more() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary)
            .config("lua-time-limit 100")
            .setting("enforce", "no")
            .start()
            .await;
        let mut conn = server.connect().await;
        celery::seed_results(&mut conn, "s", 5_000).await;
        let id = jobs::start(&mut conn, "HYGIENE.FIXTTL ASYNC").await;
        let mut busy = server.connect().await;
        let endless =
            tokio::spawn(async move { busy.ask(cmd!["EVAL", "while true do end", 0]).await });
        // A look that had begun would wait for the script as well.
        wait_for("a busy server", SOON, async || {
            match conn.ask("PING").await {
                Err(error) if error.to_string().contains("BUSY") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        for command in ["HYGIENE.BEATSTATUS", "HYGIENE.SCAN"] {
            let refused = conn.error(command).await;
            assert!(refused.contains("BUSY"), "{command}: {refused}");
        }
        conn.run("SCRIPT KILL").await;
        assert!(endless.await.expect("no panic").is_err());
        jobs::wait_until(&mut conn, id, "finished").await;
        assert_eq!(crate::replication::results_without_ttl(&server).await, 0);
        server.assert_alive();
    })
    .await;
}

/// The same server, but one that a limit on the size of its files does not end: the
/// limit is a full disk to it then.
fn with_a_disk_that_can_be_full(binary: &'static Binary, dir: &Path) -> &'static Binary {
    behind_a_script(binary, dir, "trap '' XFSZ\nexec")
}

/// The server behind a shell script in that folder: the words before its path.
pub fn behind_a_script(binary: &'static Binary, dir: &Path, before: &str) -> &'static Binary {
    let script = dir.join("server");
    let text = format!("#!/bin/sh\n{before} '{}' \"$@\"\n", binary.path.display());
    fs::write(&script, text).expect("the folder can be written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it can be run");
    let mut binary = binary.clone();
    binary.path = script;
    Box::leak(Box::new(binary))
}

/// The background sweep, which nobody can be refused, and why it rests.
pub async fn own_sweep_that_rests(conn: &mut Conn) -> (i64, String) {
    conn.run("HYGIENE.CONFIG SET sweep-interval 1s").await;
    let found = wait_for("a sweep that rests for it", SOON, async || {
        let jobs = jobs::all(conn).await;
        let resting = jobs
            .iter()
            .find(|job| job.text("state") == "running" && !job.text("rests").is_empty());
        resting
            .map(|job| (job.int("id"), job.text("rests")))
            .ok_or_else(|| format!("{jobs:?}"))
    })
    .await;
    conn.run("HYGIENE.CONFIG SET sweep-interval 0").await;
    found
}

fn limit_files(pid: &str, most: &str) -> bool {
    let limit = format!("--fsize={most}");
    let done = Command::new("prlimit")
        .args(["--pid", pid, &limit])
        .status();
    done.is_ok_and(|status| status.success())
}

#[tokio::test]
async fn while_the_disk_is_full_a_sweep_writes_nothing_and_goes_on_when_it_is_not() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    on_every_server(async |binary| {
        let mut server = Setup::on(with_a_disk_that_can_be_full(binary, dir.path()))
            .setting("enforce", "no")
            .config("appendonly yes")
            .config("appendfsync everysec")
            .start()
            .await;
        let mut conn = server.connect().await;
        celery::seed_results(&mut conn, "s", 5_000).await;
        let pid = conn.info("server", "process_id").await.expect("a process");
        if !limit_files(&pid, "1000:unlimited") {
            binary.left_out("prlimit is not here, which makes a full disk");
            return;
        }
        wait_for("writes that are refused", SOON, async || {
            match conn.ask("SET a 1").await {
                Err(error) if error.to_string().contains("MISCONF") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let before = DataSet::of(&server).await;
        for words in ["HYGIENE.FIXTTL", "HYGIENE.ORPHANS REQUEUE ASYNC"] {
            let refused = conn.error(words).await;
            assert!(refused.starts_with("MISCONF"), "{words}: {refused}");
        }
        conn.run("HYGIENE.FIXTTL DRYRUN").await;
        let (id, rests) = own_sweep_that_rests(&mut conn).await;
        assert_eq!(rests, "the append-only file cannot be written");
        before.assert_same(&DataSet::of(&server).await, "on a full disk");

        assert!(limit_files(&pid, "unlimited:unlimited"));
        jobs::wait_until(&mut conn, id, "finished").await;
        assert_eq!(crate::replication::results_without_ttl(&server).await, 0);
        let after = DataSet::of(&server).await;
        server.kill_9();
        server.start_again().await;
        after.assert_same(&DataSet::of(&server).await, "after a crash");
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn after_a_save_that_failed_a_sweep_waits_for_one_that_does_not() {
    after_a_save_that_failed("").await;
}

#[tokio::test]
async fn the_same_where_config_is_hidden() {
    after_a_save_that_failed("rename-command CONFIG \"\"").await;
}

async fn after_a_save_that_failed(line: &str) {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary)
            .setting("enforce", "no")
            .config("save 3600 1")
            .config(line)
            .start()
            .await;
        let hidden = server.log().contains("rename-command hides CONFIG");
        assert_eq!(hidden, !line.is_empty(), "the log says so at load");
        let mut conn = server.connect().await;
        celery::seed_results(&mut conn, "s", 5_000).await;
        // A folder of the dump's name is nothing that a dump can take the place of.
        let dump = server.dir().join("dump.rdb");
        fs::create_dir(&dump).expect("the folder can be made");
        let _ = conn.ask("BGSAVE").await;
        wait_for("writes that are refused", SOON, async || {
            match conn.ask("SET a 1").await {
                Err(error) if error.to_string().contains("MISCONF") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let (id, rests) = own_sweep_that_rests(&mut conn).await;
        assert!(rests.starts_with("the last save failed"), "{rests}");
        assert_eq!(
            crate::replication::results_without_ttl(&server).await,
            5_000
        );

        fs::remove_dir(&dump).expect("the folder can be removed");
        conn.run("BGSAVE").await;
        jobs::wait_until(&mut conn, id, "finished").await;
        assert_eq!(crate::replication::results_without_ttl(&server).await, 0);
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn where_config_is_hidden_replicas_and_eviction_are_minded_all_the_same() {
    on_every_server(async |binary| {
        let hidden = Setup::on(binary).config("rename-command CONFIG \"\"");
        let alone = hidden
            .clone()
            .config("min-replicas-to-write 1")
            .start()
            .await;
        let mut conn = alone.connect().await;
        let refused = conn.error("HYGIENE.FIXTTL").await;
        assert!(refused.starts_with("NOREPLICAS"), "{refused}");
        let seen = conn.fields("HYGIENE.BEATSTATUS VERBOSE").await;
        let fault = seen.one("faults", "code", "writes_refused");
        assert!(fault.text("detail").contains("NOREPLICAS"), "{seen:?}");

        let full = hidden
            .config("maxmemory 100mb")
            .config("maxmemory-policy allkeys-lru")
            .start()
            .await;
        let mut conn = full.connect().await;
        conn.run(Message::new("a.b", "1").push()).await;
        conn.value("HYGIENE.KEYS 0 OLDERTHAN 1h").await;
        conn.fields("HYGIENE.ORPHANS PURGE reply_queue").await;
        let scan = conn.fields("HYGIENE.SCAN").await;
        scan.one("findings", "code", "eviction_can_drop_work");
    })
    .await;
}

/// Times that lie ahead, as after a clock that was set back.
#[tokio::test]
async fn dates_ahead_of_the_clock_delete_and_requeue_nothing() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        let day = -86_400;
        let body = celery::result("a", "SUCCESS", clock.ago(day), celery::Form::Utc);
        conn.run(cmd!["SET", "celery-task-meta-a", body]).await;
        for command in Message::new("a.b", "1").unacked(clock.ago_s(day)) {
            conn.run(command).await;
        }
        let fixed = conn.fields("HYGIENE.FIXTTL MAXAGE 1s FROMDONE").await;
        assert_eq!(fixed.int("deleted"), 0, "{fixed:?}");
        let ttl = conn.ttl("celery-task-meta-a").await;
        assert!((1..=86_400 + 3_600).contains(&ttl), "{ttl}");
        conn.run("HYGIENE.ORPHANS REQUEUE").await;
        assert_eq!(conn.int("HLEN unacked").await, 1);
        let status = conn.fields("HYGIENE.BEATSTATUS").await;
        assert_eq!(status.map("unacked").int("stuck"), 0, "{status:?}");
        server.assert_alive();
    })
    .await;
}

/// At the limit, whatever the server may do to keep to it: it drops keys of any kind
/// under a pass, or refuses writes that take memory.
#[tokio::test]
async fn at_maxmemory_passes_end_under_every_policy_and_no_queue_is_lost_by_ours() {
    const POLICIES: [&str; 8] = [
        "noeviction",
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
    ];
    on_every_server(async |binary| {
        for policy in POLICIES {
            let mut server = Setup::on(binary)
                .config(&format!("maxmemory-policy {policy}"))
                .setting("enforce", "no")
                .start()
                .await;
            let mut conn = server.connect().await;
            conn.run(celery::binding("celery", "celery", "celery"))
                .await;
            for n in 0..20 {
                conn.run(Message::new("a.b", &n.to_string()).push()).await;
                for command in Message::new("a.b", &format!("t{n}")).unacked(1) {
                    conn.run(command).await;
                }
            }
            celery::seed_results(&mut conn, "s", 5_000).await;
            // A little below what is held: the server is over its limit from here on.
            let held = memory(&mut conn).await;
            conn.run(cmd!["CONFIG", "SET", "maxmemory", held * 9 / 10])
                .await;
            let id = jobs::start(&mut conn, "HYGIENE.FIXTTL MAXAGE 0 ASYNC").await;
            for n in 0..300 {
                // Room is made, or it is refused.
                let _ = conn
                    .ask(cmd!["SET", format!("w{n}"), "x".repeat(100)])
                    .await;
            }
            jobs::wait_until(&mut conn, id, "finished").await;
            for command in [
                "HYGIENE.SCAN",
                "HYGIENE.ORPHANS REQUEUE",
                "HYGIENE.ORPHANS",
                "HYGIENE.BEATSTATUS VERBOSE",
                "HYGIENE.FIXTTL MAXAGE 1s",
            ] {
                let answer = conn.ask(command).await;
                assert!(answer.is_ok(), "{policy}: {command}: {answer:?}");
            }
            // What the server drops under allkeys-* is its own choice, and told.
            conn.run("CONFIG SET maxmemory 1gb").await;
            if !policy.starts_with("allkeys") {
                let queued = conn.int("LLEN celery").await;
                let taken = conn.int("HLEN unacked").await;
                assert_eq!(queued + taken, 40, "{policy}: {queued} and {taken}");
            } else if conn.int("EXISTS celery").await == 1 {
                let scan = conn.fields("HYGIENE.SCAN").await;
                let told = crate::findings::finding(&scan, "eviction_can_drop_work");
                assert!(told.is_some(), "{policy}: {scan:?}");
            }
            let faults = conn.info("hygiene", "hygiene_faults_total").await;
            assert_eq!(faults.as_deref(), Some("0"), "{policy}");
            server.assert_alive();
        }
    })
    .await;
}

/// What is put back is copied by the server several times, in one piece.
#[tokio::test]
async fn a_taken_message_of_more_than_a_megabyte_is_left_to_the_next_worker() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run(celery::binding("celery", "celery", "celery"))
            .await;
        for (tag, bytes) in [("long", 1_000_000), ("too-long", 1_100_000)] {
            let body = Message::new("a.b", tag).queue("celery").body();
            let body = body.replacen(
                "\"body\": \"",
                &format!("\"body\": \"{}", "A".repeat(bytes)),
                1,
            );
            assert!(body.len() > bytes, "{tag}");
            let taken = format!("[{body}, \"\", \"celery\"]");
            conn.run(cmd!["HSET", "unacked", tag, taken]).await;
            conn.run(cmd!["ZADD", "unacked_index", 1, tag]).await;
        }
        slices_stay_short(&mut conn, &["HYGIENE.ORPHANS"]).await;
        let told = conn.fields("HYGIENE.ORPHANS REQUEUE").await;
        assert_eq!(told.int("requeued"), 1, "{told:?}");
        let kept = told.one("orphans", "class", "unacked").maps("kept");
        let why = |kept: &Fields| kept.text("why").contains("longer than 1 MiB");
        assert!(
            kept.iter().any(|kept| why(kept) && kept.int("count") == 1),
            "{told:?}"
        );
        assert_eq!(conn.int("LLEN celery").await, 1);
        assert_eq!(conn.int("HEXISTS unacked too-long").await, 1);
        server.assert_alive();
    })
    .await;
}
