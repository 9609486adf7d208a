//! Keys, values, events and arguments that nobody sane would send (case C12), and
//! words a command must refuse.

use std::fs;
use std::process::Command;

use redis::Cmd;

use crate::chaos::Dice;
use crate::client::{Conn, ToCmd, bytes, list};
use crate::cmd;
use crate::data::DataSet;
use crate::server::{Setup, on_every_server, on_one_server};

/// Names that are no text, or are a trap for whoever prints them.
const NAMES: &[&[u8]] = &[
    b"celery-task-meta-\xff\x00\x06",
    b"celery-task-meta-%s%n%s",
    b"celery-task-meta-%s%s%s%s%s%s%s%s%n",
    b"celery-task-meta-\xc3\x28",
    b"celery-task-meta-\xc3\x29",
    b"celery-task-meta-\xfe",
    b"celery-task-meta-\xff",
    b"celery-task-meta-",
    b"celery-task-meta-\r\n+OK\r\n",
    b"celery-task-meta-\x06\x163",
    b"celery-task-meta-*[",
    b"celery-task-meta-\xed\xa0\x80",
];

#[tokio::test]
async fn names_that_are_no_text_are_stamped_each_by_itself() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect_db(9).await;
        for name in NAMES {
            conn.run(cmd!["SET", *name, 1]).await;
            conn.assert_given(3600, name).await;
        }
        assert_eq!(conn.int("DBSIZE").await, 12);
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn names_that_are_no_text_are_counted_and_fixed_each_by_itself() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect_db(9).await;
        for name in NAMES {
            conn.run(cmd!["SET", *name, 1]).await;
        }
        let scan = conn.fields("HYGIENE.SCAN DB 9 TOP 100").await;
        let results = scan.one("classes", "class", "task_result");
        assert_eq!((results.int("keys"), results.int("no_ttl")), (12, 12));
        let mut told: Vec<Vec<u8>> = scan
            .maps("top")
            .iter()
            .map(|entry| crate::client::bytes(entry.get("name")))
            .collect();
        let mut expected: Vec<Vec<u8>> = NAMES.iter().map(|name| name.to_vec()).collect();
        told.sort();
        expected.sort();
        assert_eq!(told, expected, "raw bytes in the reply");

        let fixed = conn.fields("HYGIENE.FIXTTL DB 9 JITTER 0%").await;
        assert_eq!(fixed.int("stamped"), 12);
        for name in NAMES {
            conn.assert_given(3600, name).await;
        }
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn a_pattern_may_hold_any_bytes_too() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        for name in NAMES {
            conn.run(cmd!["SET", *name, 1]).await;
        }
        let fixed = conn
            .fields(cmd![
                "HYGIENE.FIXTTL",
                "MATCH",
                b"celery-task-meta-\xff\x00*",
                "JITTER",
                "0%"
            ])
            .await;
        assert_eq!(fixed.int("stamped"), 1);
        conn.assert_given(3600, NAMES[0]).await;
        assert_eq!(
            conn.ttl(NAMES[6]).await,
            -1,
            "differs only behind the \\xff"
        );
        server.assert_alive();
    })
    .await;
}

/// A text of up to so many of what patterns are made of, and of what they are not.
fn a_text(dice: &mut Dice, most: u64) -> Vec<u8> {
    let len = dice.below(most + 1);
    let of = b"aabbcd*?[]^-\\\xff\x00";
    (0..len).map(|_| dice.one_of(of)).collect()
}

#[tokio::test]
async fn a_pattern_matches_what_the_servers_own_keys_matches() {
    const NAMES: usize = 90;
    const PATTERNS: usize = 500;
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        // The same ones each time: a difference is to be found again.
        let mut dice = Dice(20_261_126);
        let mut names: Vec<Vec<u8>> = (0..NAMES).map(|_| a_text(&mut dice, 6)).collect();
        names.push(Vec::new());
        for name in &names {
            conn.run(cmd!["SET", name, 1]).await;
        }
        let mut matched = 0;
        let mut patterns = names.clone();
        patterns.extend((0..PATTERNS).map(|_| a_text(&mut dice, 8)));
        for pattern in patterns {
            let keys = conn.value(cmd!["KEYS", &pattern]).await;
            let mut wanted: Vec<Vec<u8>> = list(&keys).iter().map(bytes).collect();
            let words = cmd![
                "HYGIENE.SCAN",
                "DB",
                0,
                "MATCH",
                &pattern,
                "MEMORY",
                "OFF",
                "TOP",
                100
            ];
            let told = conn.fields(words).await;
            let mut found: Vec<Vec<u8>> = told
                .maps("top")
                .iter()
                .map(|entry| bytes(entry.get("name")))
                .collect();
            wanted.sort();
            found.sort();
            assert_eq!(found, wanted, "{}", pattern.escape_ascii());
            matched += found.len();
        }
        assert!(
            matched > PATTERNS,
            "patterns that match something were tried: {matched}"
        );
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn arguments_that_are_no_text_are_refused_and_nothing_changes() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        conn.run("SET celery-task-meta-a 1").await;
        let before = DataSet::of(&server).await;
        let words: [&[u8]; 6] = [
            b"\xff\xfe",
            b"\0",
            b"TTL\0",
            b"%s%n%s%n",
            b"a\r\n-ERR b\r\n",
            &[b'x'; 100_000],
        ];
        for command in ["HYGIENE.FIXTTL", "HYGIENE.SCAN", "HYGIENE.BEATSTATUS"] {
            for word in words {
                let error = conn.error(cmd![command, word]).await;
                assert!(
                    error.starts_with("ERR"),
                    "{command} {}: {error}",
                    word.escape_ascii()
                );
                assert!(
                    error.len() < 1000,
                    "{command}: {} bytes of error",
                    error.len()
                );
            }
            conn.run("PING").await;
        }
        // What is asked is remembered.
        let long = vec![b'p'; 1_025];
        let error = conn.error(cmd!["HYGIENE.SCAN", "PREFIX", &long]).await;
        assert!(error.contains("at most 1024 bytes"), "{error}");
        conn.run(cmd!["HYGIENE.SCAN", "PREFIX", &long[1..]]).await;
        for word in words {
            conn.error(cmd!["HYGIENE.CONFIG", "SET", "default-ttl", word])
                .await;
            conn.error(cmd!["HYGIENE.CONFIG", "SET", word, "1h"]).await;
        }
        before.assert_same(&DataSet::of(&server).await, "after refused commands");
        server.assert_alive();
    })
    .await;
}

/// Microseconds that the server spent in commands of the module since it was told to
/// count anew.
async fn spent_us(conn: &mut Conn) -> u64 {
    let told = conn.text("INFO commandstats").await;
    let ours = told.lines().filter(|line| line.contains("hygiene"));
    ours.map(|line| {
        let us = line
            .split("usec=")
            .nth(1)
            .and_then(|us| us.split(',').next());
        us.expect("it is told").parse::<u64>().expect("a number")
    })
    .sum()
}

/// A word that is copied, or read to its end, takes longer: one of 512 MB seconds.
#[tokio::test]
async fn a_word_of_16_megabytes_is_refused_at_once_wherever_it_stands() {
    const MOST_US: u64 = 5_000;
    const TRIES: usize = 3;
    let heads = [
        "SCAN",
        "SCAN DB",
        "SCAN PREFIX",
        "SCAN MATCH",
        "SCAN MEMORY",
        "SCAN TOP",
        "FIXTTL",
        "FIXTTL TTL",
        "FIXTTL JITTER",
        "FIXTTL MAXAGE",
        "FIXTTL CLASS",
        "FIXTTL CLASS lock",
        "FIXTTL LIMIT",
        "ORPHANS",
        "ORPHANS PURGE",
        "ORPHANS OLDERTHAN",
        "KEYS",
        "KEYS 0",
        "KEYS 0 CLASS",
        "KEYS 0 COUNT",
        "BEATSTATUS",
        "DOCTOR",
        "STATS",
        "STATS FIELD",
        "JOBS",
        "CANCEL",
        "HELP",
        "TRIGGER",
        "TRIGGER a.b",
        "TRIGGER a.b QUEUE",
        "TRIGGER a.b ARGS",
        "TRIGGER a.b KWARGS",
        "TRIGGER a.b TIMEOUT",
        "CONFIG GET",
    ];
    on_one_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let settings = conn.fields("HYGIENE.CONFIG GET *").await;
        let mut heads: Vec<String> = heads.iter().map(|&head| head.to_owned()).collect();
        heads.extend(
            settings
                .names()
                .iter()
                .map(|name| format!("CONFIG SET {name}")),
        );
        // Blanks part the words of a list, and what is no text grows where it is read as
        // some.
        let words = [b' ', b'1', b'\xff'].map(|byte| vec![byte; 16 * 1024 * 1024]);
        for (head, word) in heads
            .iter()
            .flat_map(|head| words.iter().map(move |w| (head, w)))
        {
            let mut command = format!("HYGIENE.{head}").as_str().to_cmd();
            command.arg(word);
            let mut best = u64::MAX;
            for _ in 0..TRIES {
                conn.run("CONFIG RESETSTAT").await;
                let error = conn.error(command.clone()).await;
                assert!(error.len() < 1_000, "{head}: {} bytes", error.len());
                best = best.min(spent_us(&mut conn).await);
                if best <= MOST_US {
                    break;
                }
            }
            assert!(best <= MOST_US, "{head}: {best} us");
        }
        let after = conn.fields("HYGIENE.CONFIG GET *").await;
        assert_eq!(format!("{after:?}"), format!("{settings:?}"));
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn wrong_words_are_named_and_nothing_changes() {
    let rows: &[(&str, &[&str])] = &[
        ("HYGIENE.FIXTTL NOSUCH", &["NOSUCH"]),
        ("HYGIENE.FIXTTL DRYRUN NOSUCH", &["NOSUCH"]),
        ("HYGIENE.FIXTTL TTL", &["TTL"]),
        ("HYGIENE.FIXTTL TTL 0", &["TTL", "0"]),
        ("HYGIENE.FIXTTL TTL -1", &["TTL", "-1"]),
        ("HYGIENE.FIXTTL TTL 1e3", &["TTL", "1e3"]),
        ("HYGIENE.FIXTTL TTL 5x", &["TTL", "5x"]),
        (
            "HYGIENE.FIXTTL TTL 99999999999999999999",
            &["TTL", "99999999999999999999"],
        ),
        ("HYGIENE.FIXTTL TTL 9223372036854775807d", &["TTL"]),
        ("HYGIENE.FIXTTL DB", &["DB"]),
        ("HYGIENE.FIXTTL DB 99", &["DB", "99"]),
        ("HYGIENE.FIXTTL DB -1", &["DB", "-1"]),
        ("HYGIENE.FIXTTL DB zero", &["DB", "zero"]),
        ("HYGIENE.FIXTTL CLASS", &["CLASS"]),
        ("HYGIENE.FIXTTL CLASS nosuch", &["CLASS", "nosuch"]),
        ("HYGIENE.FIXTTL CLASS queue", &["CLASS", "queue"]),
        ("HYGIENE.FIXTTL CLASS unacked", &["unacked"]),
        ("HYGIENE.FIXTTL CLASS binding", &["binding"]),
        ("HYGIENE.FIXTTL CLASS redbeat", &["redbeat"]),
        ("HYGIENE.FIXTTL CLASS task_result queue", &["queue"]),
        ("HYGIENE.FIXTTL JITTER", &["JITTER"]),
        ("HYGIENE.FIXTTL JITTER 51%", &["JITTER", "51%"]),
        ("HYGIENE.FIXTTL JITTER -1%", &["JITTER", "-1%"]),
        ("HYGIENE.FIXTTL MAXAGE", &["MAXAGE"]),
        ("HYGIENE.FIXTTL MAXAGE -1", &["MAXAGE", "-1"]),
        ("HYGIENE.FIXTTL LIMIT", &["LIMIT"]),
        ("HYGIENE.FIXTTL LIMIT -5", &["LIMIT", "-5"]),
        ("HYGIENE.FIXTTL LIMIT some", &["LIMIT", "some"]),
        ("HYGIENE.FIXTTL MATCH", &["MATCH"]),
        ("HYGIENE.SCAN NOSUCH", &["NOSUCH"]),
        ("HYGIENE.SCAN DB 99", &["DB", "99"]),
        ("HYGIENE.SCAN DB", &["DB"]),
        ("HYGIENE.SCAN TOP", &["TOP"]),
        ("HYGIENE.SCAN TOP -1", &["TOP", "-1"]),
        ("HYGIENE.SCAN TOP 1e3", &["TOP", "1e3"]),
        ("HYGIENE.SCAN MEMORY", &["MEMORY"]),
        ("HYGIENE.SCAN MEMORY MAYBE", &["MEMORY", "MAYBE"]),
        ("HYGIENE.SCAN PREFIX", &["PREFIX"]),
        ("HYGIENE.SCAN MATCH", &["MATCH"]),
        ("HYGIENE.BEATSTATUS NOSUCH", &["NOSUCH"]),
        ("HYGIENE.BEATSTATUS VERBOSE more", &["more"]),
        ("HYGIENE.JOBS NOSUCH", &["NOSUCH"]),
        ("HYGIENE.CANCEL", &["CANCEL"]),
        ("HYGIENE.CANCEL banana", &["banana"]),
        ("HYGIENE.CANCEL 999999", &["999999"]),
        ("HYGIENE.CONFIG", &["CONFIG"]),
        ("HYGIENE.CONFIG GET", &["GET"]),
        ("HYGIENE.CONFIG SET default-ttl", &["SET"]),
        ("HYGIENE.CONFIG NOSUCH a b", &["NOSUCH"]),
    ];
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        for words in [
            "SET celery-task-meta-a 1",
            "LPUSH celery 1",
            "SET celery-taskset-meta-g 1",
        ] {
            conn.run(words).await;
        }
        let before = DataSet::of(&server).await;
        for (words, told) in rows {
            let error = conn.error(*words).await;
            assert!(error.starts_with("ERR"), "{words}: {error}");
            let lower = error.to_lowercase();
            // The server itself answers a wrong count, with the command's name at most.
            let counted = lower.contains("wrong number of arguments");
            for word in *told {
                let named = lower.contains(&word.to_lowercase());
                assert!(named || counted, "{words}: {word} is not told: {error}");
            }
        }
        before.assert_same(&DataSet::of(&server).await, "after refused commands");
        assert_eq!(
            conn.fields("HYGIENE.FIXTTL").await.int("stamped"),
            1,
            "and it still works"
        );
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn a_classes_refusal_says_why() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        for class in ["queue", "unacked", "binding", "redbeat"] {
            let error = conn.error(cmd!["HYGIENE.FIXTTL", "CLASS", class]).await;
            assert!(error.contains("never"), "{class}: {error}");
        }
    })
    .await;
}

/// Values of every type and of great size under a result's name.
fn odd_values() -> Vec<(&'static str, Cmd)> {
    let big = vec![b'x'; 1 << 20];
    let deep = [
        b"{\"status\": \"SUCCESS\", \"result\": ".as_slice(),
        &vec![b'['; 200_000],
    ]
    .concat();
    let huge_number = r#"{"status": "SUCCESS", "result": 1, "date_done": 1e999}"#;
    vec![
        ("list", cmd!["RPUSH", "celery-task-meta-list", 1, 2]),
        ("set", cmd!["SADD", "celery-task-meta-set", 1, 2]),
        ("zset", cmd!["ZADD", "celery-task-meta-zset", 1, "a"]),
        ("hash", cmd!["HSET", "celery-task-meta-hash", "a", 1]),
        (
            "stream",
            cmd!["XADD", "celery-task-meta-stream", "*", "a", 1],
        ),
        ("hyperloglog", cmd!["PFADD", "celery-task-meta-hll", "a"]),
        (
            "bitmap",
            cmd!["SETBIT", "celery-task-meta-bits", 8_000_000, 1],
        ),
        ("1 MB", cmd!["SET", "celery-task-meta-big", &big]),
        ("empty", cmd!["SET", "celery-task-meta-empty", ""]),
        ("integer", cmd!["SET", "celery-task-meta-int", 1]),
        ("deep", cmd!["SET", "celery-task-meta-deep", deep]),
        (
            "number",
            cmd!["SET", "celery-task-meta-number", huge_number],
        ),
        (
            "cut off",
            cmd!["SET", "celery-task-meta-cut", "{\"status\": \"SUCC"],
        ),
        ("null", cmd!["SET", "celery-task-meta-null", "null"]),
        (
            "bytes",
            cmd!["SET", "celery-task-meta-bytes", b"\xff\xfe\0"],
        ),
        ("a queue's name on a string", cmd!["SET", "celery", "v"]),
        ("unacked as a string", cmd!["SET", "unacked", "v"]),
        ("index as a hash", cmd!["HSET", "unacked_index", "a", "b"]),
        (
            "schedule as a list",
            cmd!["RPUSH", "redbeat::schedule", "a"],
        ),
        (
            "bindings as a string",
            cmd!["SET", "_kombu.binding.celery", "v"],
        ),
        (
            "odd binding",
            cmd![
                "SADD",
                "_kombu.binding.other",
                b"\xff",
                "",
                "\x06\x16\x06\x16"
            ],
        ),
        (
            "message that is none",
            cmd!["LPUSH", "maintenance", b"\xff", "{}", "[]", &big],
        ),
    ]
}

#[tokio::test]
async fn values_of_any_type_and_size_are_survived() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        for (what, command) in odd_values() {
            conn.run(command).await;
            server.assert_alive();
            assert_eq!(conn.text("PING").await, "PONG", "{what}");
        }
        let scan = conn.fields("HYGIENE.SCAN MEMORY EXACT TOP 50").await;
        assert_eq!(scan.int("scanned"), conn.int("DBSIZE").await);
        let status = conn.fields("HYGIENE.BEATSTATUS VERBOSE").await;
        let verdict = status.text("verdict");
        assert!(
            verdict != "healthy" && verdict != "beat_silent",
            "{status:?}"
        );
        let keys = conn.int("DBSIZE").await;
        let fixed = conn.fields("HYGIENE.FIXTTL MAXAGE 1s").await;
        assert_eq!(
            fixed.int("deleted"),
            0,
            "nothing of this says it is finished: {fixed:?}"
        );
        assert_eq!(conn.int("DBSIZE").await, keys);
        for name in [
            "celery",
            "unacked",
            "unacked_index",
            "redbeat::schedule",
            "_kombu.binding.celery",
        ] {
            assert_eq!(conn.ttl(name).await, -1, "{name}");
        }
        for name in ["big", "empty", "int", "deep", "cut", "bytes"] {
            let ttl = conn.ttl(format!("celery-task-meta-{name}")).await;
            assert!((1..=3600).contains(&ttl), "{name}: {ttl}");
        }
        server.assert_alive();
    })
    .await;
}

/// A module of a few lines that raises an event whose name is no text. It needs
/// no header: every function is asked for by name.
const RAISER: &str = r#"
#include <stddef.h>
typedef int (*getapi)(const char *, void *);
static void (*attribs)(void *, const char *, int, int);
static int (*create)(void *, const char *, int (*)(void *, void **, int), const char *, int, int, int);
static int (*notify)(void *, int, const char *, void *);
static int (*reply)(void *, const char *);
static int raise_event(void *ctx, void **argv, int argc) {
    if (argc != 2) return 1;
    notify(ctx, 1 << 3, "\xff\xfe", argv[1]);
    return reply(ctx, "OK");
}
int RedisModule_OnLoad(void *ctx, void **argv, int argc) {
    getapi api = ((getapi *)ctx)[0];
    (void)argv; (void)argc;
    if (api("RedisModule_SetModuleAttribs", &attribs) || api("RedisModule_CreateCommand", &create) ||
        api("RedisModule_NotifyKeyspaceEvent", &notify) || api("RedisModule_ReplyWithSimpleString", &reply))
        return 1;
    attribs(ctx, "raiser", 1, 1);
    return create(ctx, "raiser.raise", raise_event, "write", 1, 1, 1);
}
"#;

#[tokio::test]
async fn another_modules_event_that_is_no_text_does_no_harm() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let source = dir.path().join("raiser.c");
    let library = dir.path().join("raiser.so");
    fs::write(&source, RAISER).expect("the folder can be written");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .output();
    match built {
        Err(error) => {
            // Told past cargo's capture, as the servers left out are.
            use std::io::Write as _;
            let line = format!("hostile: left out the event that is no text: cc: {error}\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
            return;
        }
        Ok(output) => assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        ),
    }
    on_every_server(async |binary| {
        let mut server = Setup::on(binary)
            .config(&format!("loadmodule {}", library.display()))
            .start()
            .await;
        let mut conn = server.connect().await;
        raise(&mut conn, b"celery-task-meta-a").await;
        raise(&mut conn, b"\xff\xfe").await;
        conn.run("SET celery-task-meta-b 1").await;
        raise(&mut conn, b"celery-task-meta-b").await;
        conn.assert_given(3600, "celery-task-meta-b").await;
        assert_eq!(conn.int("DBSIZE").await, 1);
        server.assert_alive();
    })
    .await;
}

async fn raise(conn: &mut Conn, key: &[u8]) {
    conn.run(cmd!["RAISER.RAISE", key].to_cmd()).await;
}
