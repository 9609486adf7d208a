//! The hook: what has a TTL, and which, once a write can be seen (case C9).

use redis::Cmd;

use crate::client::{Conn, ToCmd, is_left_of};
use crate::cmd;
use crate::server::{Binary, Setup, on_every_server, on_every_server_and_the_faulty};

/// One row: a word, what was there before, what is done, and the TTL after it.
/// `R` stands for `celery-task-meta-` so that the rows can be read.
struct Row {
    what: &'static str,
    before: &'static [&'static str],
    then: &'static [&'static str],
    key: &'static str,
    ttl: i64,
    /// Needs generic events (RENAME and the like).
    generic: bool,
}

const fn row(
    what: &'static str,
    before: &'static [&'static str],
    then: &'static [&'static str],
    key: &'static str,
    ttl: i64,
) -> Row {
    Row {
        what,
        before,
        then,
        key,
        ttl,
        generic: false,
    }
}

const fn generic(
    what: &'static str,
    before: &'static [&'static str],
    then: &'static [&'static str],
    key: &'static str,
    ttl: i64,
) -> Row {
    Row {
        what,
        before,
        then,
        key,
        ttl,
        generic: true,
    }
}

const ROWS: &[Row] = &[
    row(
        "a client's own TTL stays",
        &[],
        &["SETEX Rk 100 v"],
        "Rk",
        100,
    ),
    row("so does SET EX", &[], &["SET Rk v EX 100"], "Rk", 100),
    row(
        "and one longer than ours",
        &[],
        &["SET Rk v EX 100000"],
        "Rk",
        100_000,
    ),
    row("a plain SET is stamped", &[], &["SET Rk v"], "Rk", 3600),
    row(
        "a plain SET after SETEX too",
        &["SETEX Rk 100 v"],
        &["SET Rk v"],
        "Rk",
        3600,
    ),
    row(
        "SETEX after a stamp wins",
        &["SET Rk v"],
        &["SETEX Rk 100 v"],
        "Rk",
        100,
    ),
    row(
        "KEEPTTL keeps",
        &["SETEX Rk 100 v"],
        &["SET Rk w KEEPTTL"],
        "Rk",
        100,
    ),
    row(
        "KEEPTTL of a new key is a write like any",
        &[],
        &["SET Rk w KEEPTTL"],
        "Rk",
        3600,
    ),
    row("SETNX", &[], &["SETNX Rk v"], "Rk", 3600),
    row("SET NX", &[], &["SET Rk v NX"], "Rk", 3600),
    row(
        "GETSET takes the TTL away, and gets one",
        &["SETEX Rk 100 v"],
        &["GETSET Rk w"],
        "Rk",
        3600,
    ),
    row(
        "SET GET",
        &["SETEX Rk 100 v"],
        &["SET Rk w GET"],
        "Rk",
        3600,
    ),
    row(
        "MSET, its first key",
        &[],
        &["MSET Rk v other v Rm v"],
        "Rk",
        3600,
    ),
    row(
        "MSET, its last key",
        &[],
        &["MSET Rk v other v Rm v"],
        "Rm",
        3600,
    ),
    row(
        "MSET, a key between",
        &[],
        &["MSET Rk v other v Rm v"],
        "other",
        -1,
    ),
    row("MSETNX", &[], &["MSETNX Rk v"], "Rk", 3600),
    row("APPEND to nothing", &[], &["APPEND Rk v"], "Rk", 3600),
    row(
        "APPEND keeps a TTL",
        &["SETEX Rk 100 v"],
        &["APPEND Rk w"],
        "Rk",
        100,
    ),
    row("SETRANGE", &[], &["SETRANGE Rk 3 v"], "Rk", 3600),
    row("INCR", &[], &["INCR Rk"], "Rk", 3600),
    row("INCRBYFLOAT", &[], &["INCRBYFLOAT Rk 1.5"], "Rk", 3600),
    row(
        "PERSIST is respected",
        &["SET Rk v"],
        &["PERSIST Rk"],
        "Rk",
        -1,
    ),
    row(
        "until the next write",
        &["SET Rk v", "PERSIST Rk"],
        &["SET Rk w"],
        "Rk",
        3600,
    ),
    row(
        "a chord's counter",
        &[],
        &["INCR celery-taskset-meta-G.t"],
        "celery-taskset-meta-G.t",
        -1,
    ),
    row(
        "a chord's parts",
        &[],
        &["SET celery-taskset-meta-G.s 3"],
        "celery-taskset-meta-G.s",
        -1,
    ),
    row(
        "a saved group",
        &[],
        &["SET celery-taskset-meta-G v"],
        "celery-taskset-meta-G",
        -1,
    ),
    row(
        "another name",
        &[],
        &["SET airflow_variable v"],
        "airflow_variable",
        -1,
    ),
    row(
        "a name that only contains ours",
        &[],
        &["SET xRk v"],
        "xRk",
        -1,
    ),
    row(
        "a name cut short",
        &[],
        &["SET celery-task-meta v"],
        "celery-task-meta",
        -1,
    ),
    row(
        "a lock",
        &[],
        &["SET SINGLETONLOCK_a v"],
        "SINGLETONLOCK_a",
        -1,
    ),
    row(
        "RedBeat's schedule",
        &[],
        &["ZADD redbeat::schedule 1 a"],
        "redbeat::schedule",
        -1,
    ),
    row("a queue", &[], &["LPUSH celery v"], "celery", -1),
    row(
        "MULTI, SET, EXPIRE 50, EXEC",
        &[],
        &["MULTI", "SET Rk v", "EXPIRE Rk 50", "EXEC"],
        "Rk",
        50,
    ),
    row(
        "MULTI, EXPIRE, then SET",
        &["SET Rk v"],
        &["MULTI", "EXPIRE Rk 50", "SET Rk v", "EXEC"],
        "Rk",
        3600,
    ),
    row(
        "as Celery writes",
        &[],
        &["MULTI", "SET Rk v", "PUBLISH Rk v", "EXEC"],
        "Rk",
        3600,
    ),
    row(
        "as Celery writes with an expiry",
        &[],
        &["MULTI", "SETEX Rk 100 v", "PUBLISH Rk v", "EXEC"],
        "Rk",
        100,
    ),
    row(
        "written and deleted",
        &[],
        &["MULTI", "SET Rk v", "DEL Rk", "EXEC"],
        "Rk",
        -2,
    ),
    generic(
        "RENAME onto a result name",
        &["SET a v"],
        &["RENAME a Rk"],
        "Rk",
        3600,
    ),
    generic(
        "RENAME brings its TTL along",
        &["SETEX a 100 v"],
        &["RENAME a Rk"],
        "Rk",
        100,
    ),
    generic("RENAMENX", &["SET a v"], &["RENAMENX a Rk"], "Rk", 3600),
    generic(
        "COPY onto a result name",
        &["SET a v"],
        &["COPY a Rk"],
        "Rk",
        3600,
    ),
    generic(
        "COPY brings its TTL along",
        &["SETEX a 100 v"],
        &["COPY a Rk"],
        "Rk",
        100,
    ),
];

fn named(words: &str) -> String {
    let named: Vec<String> = words
        .split(' ')
        .map(|word| match word.strip_prefix('R') {
            Some(tail) if tail.len() == 1 => format!("celery-task-meta-{tail}"),
            _ => match word.strip_prefix("xR") {
                Some(tail) => format!("xcelery-task-meta-{tail}"),
                None => word.to_owned(),
            },
        })
        .collect();
    named.join(" ")
}

#[tokio::test]
async fn the_last_write_decides_in_every_database() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        for db in [0, 9] {
            let mut conn = server.connect_db(db).await;
            for row in ROWS {
                if row.generic && binary.generic_events_do_harm() {
                    binary.left_out(&format!("generic events do harm there: {}", row.what));
                    continue;
                }
                conn.run("FLUSHDB").await;
                for words in row.before.iter().chain(row.then) {
                    conn.run(named(words)).await;
                }
                let seen = conn.was_given(row.ttl, named(row.key)).await;
                assert_eq!(seen, Ok(()), "{}: {:?} in db {db}", row.what, row.then);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_script_decides_as_a_transaction_does() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let rows = [
            ("redis.call('SET', KEYS[1], 1)", 3600),
            (
                "redis.call('SET', KEYS[1], 1) redis.call('EXPIRE', KEYS[1], 50)",
                50,
            ),
            ("redis.call('SETEX', KEYS[1], 100, 1)", 100),
            (
                "redis.call('SET', KEYS[1], 1) redis.call('DEL', KEYS[1])",
                -2,
            ),
            (
                "redis.call('SET', KEYS[1], 1) redis.pcall('LPUSH', KEYS[1], 1)",
                3600,
            ),
            (
                "redis.call('SET', KEYS[1], 1) error('and then it failed')",
                3600,
            ),
        ];
        for db in [0, 9] {
            let mut conn = server.connect_db(db).await;
            for (script, expected) in rows {
                conn.run("FLUSHDB").await;
                let _ = conn
                    .ask(cmd!["EVAL", script, 1, "celery-task-meta-k"])
                    .await;
                assert_eq!(
                    conn.was_given(expected, "celery-task-meta-k").await,
                    Ok(()),
                    "{script} in db {db}"
                );
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_function_decides_as_a_script_does() {
    on_every_server(async |binary| {
        if !binary.is_7_0_or_newer() {
            return binary.left_out("it has no functions");
        }
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect_db(9).await;
        let library = "#!lua name=lib\nredis.register_function('put', \
                       function(keys) return redis.call('SET', keys[1], 1) end)";
        conn.run(cmd!["FUNCTION", "LOAD", library]).await;
        conn.run("FCALL put 1 celery-task-meta-k").await;
        conn.assert_given(3600, "celery-task-meta-k").await;
    })
    .await;
}

#[tokio::test]
async fn a_transaction_that_selects_a_database_stamps_where_it_wrote() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let commands: Vec<Cmd> = [
            "SET celery-task-meta-a 1",
            "SELECT 9",
            "SET celery-task-meta-b 1",
            "SELECT 0",
        ]
        .map(|words| words.to_cmd())
        .into();
        conn.transaction(&commands)
            .await
            .expect("the transaction runs");
        let mut other = server.connect_db(9).await;
        conn.assert_given(3600, "celery-task-meta-a").await;
        assert_eq!(conn.ttl("celery-task-meta-b").await, -2);
        other.assert_given(3600, "celery-task-meta-b").await;
        assert_eq!(other.ttl("celery-task-meta-a").await, -2);
    })
    .await;
}

#[tokio::test]
async fn restored_moved_and_copied_results_are_stamped() {
    on_every_server(async |binary| {
        if binary.generic_events_do_harm() {
            return binary.left_out("generic events do harm there and are not listened to");
        }
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let mut other = server.connect_db(9).await;

        conn.run("SET a v").await;
        let dump = conn.value("DUMP a").await;
        let dump = crate::client::bytes(&dump);
        conn.run(cmd!["RESTORE", "celery-task-meta-r", 0, &dump])
            .await;
        assert_eq!(
            conn.was_given(3600, "celery-task-meta-r").await,
            Ok(()),
            "RESTORE without TTL"
        );
        conn.run(cmd![
            "RESTORE",
            "celery-task-meta-r",
            100_000,
            &dump,
            "REPLACE"
        ])
        .await;
        assert_eq!(
            conn.was_given(100, "celery-task-meta-r").await,
            Ok(()),
            "RESTORE with its own"
        );

        conn.run("COPY a celery-task-meta-c DB 9").await;
        assert_eq!(
            other.was_given(3600, "celery-task-meta-c").await,
            Ok(()),
            "COPY to another db"
        );

        conn.run("SET celery-task-meta-m v").await;
        conn.run("PERSIST celery-task-meta-m").await;
        conn.run("MOVE celery-task-meta-m 9").await;
        assert_eq!(
            other.was_given(3600, "celery-task-meta-m").await,
            Ok(()),
            "MOVE to another db"
        );
    })
    .await;
}

#[tokio::test]
async fn copy_and_move_leave_the_client_in_its_database() {
    on_every_server_and_the_faulty(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run("SET celery-task-meta-a v").await;
        conn.run("COPY celery-task-meta-a celery-task-meta-b DB 9")
            .await;
        conn.run("SET here 1").await;
        conn.run("MOVE celery-task-meta-a 9").await;
        conn.run("SET still-here 1").await;
        let mut fresh = server.connect().await;
        assert_eq!(fresh.int("EXISTS here still-here").await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_ttl_read_in_the_same_pipeline_is_there_where_the_unit_is_one() {
    on_every_server(async |binary| {
        if !binary.stamps_in_the_same_unit() {
            return binary.left_out("it stamps a turn later");
        }
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let commands = (0..500).flat_map(|n| {
            let key = format!("celery-task-meta-{n}");
            [cmd!["SET", &key, 1], cmd!["TTL", &key]]
        });
        let answers = conn.pipe(commands).await;
        let wrong: Vec<_> = answers
            .iter()
            .skip(1)
            .step_by(2)
            .filter(|ttl| !is_left_of(3600, crate::client::int(ttl)))
            .collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    })
    .await;
}

#[tokio::test]
async fn results_behind_a_key_prefix_are_results() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("key-prefixes", "myapp_ other:")
            .start()
            .await;
        let mut conn = server.connect().await;
        let rows = [
            ("myapp_celery-task-meta-X", 3600),
            ("other:celery-task-meta-X", 3600),
            ("celery-task-meta-X", 3600),
            ("third_celery-task-meta-X", -1),
            ("myapp_celery-taskset-meta-X.t", -1),
            ("myapp_airflow", -1),
        ];
        expect(&mut conn, &rows).await;
    })
    .await;
}

#[tokio::test]
async fn exempt_keys_are_left_alone() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("exempt-keys", "celery-task-meta-keep* *-audit")
            .setting("max-ttl", "1h")
            .start()
            .await;
        let mut conn = server.connect().await;
        let rows = [
            ("celery-task-meta-keep1", -1),
            ("celery-task-meta-1-audit", -1),
            ("celery-task-meta-1", 3600),
        ];
        expect(&mut conn, &rows).await;
        conn.run("SET celery-task-meta-keep1 1 EX 100000").await;
        assert_eq!(
            conn.was_given(100_000, "celery-task-meta-keep1").await,
            Ok(()),
            "nor is it cut"
        );
    })
    .await;
}

#[tokio::test]
async fn result_keys_name_what_a_result_is() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("result-keys", "celery-task-meta-* job-*-result")
            .start()
            .await;
        let mut conn = server.connect().await;
        let rows = [
            ("job-5-result", 3600),
            ("job-5-input", -1),
            ("celery-task-meta-1", 3600),
        ];
        expect(&mut conn, &rows).await;
    })
    .await;
}

async fn expect(conn: &mut Conn, rows: &[(&str, i64)]) {
    for (key, expected) in rows {
        conn.run(cmd!["SET", *key, 1]).await;
        assert_eq!(conn.was_given(*expected, key).await, Ok(()), "{key}");
    }
}

#[tokio::test]
async fn a_longer_ttl_than_max_ttl_is_cut() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).setting("max-ttl", "2h").start().await;
        let mut conn = server.connect().await;
        let rows = [
            ("SET celery-task-meta-k 1 EX 86400", 7200),
            ("SETEX celery-task-meta-k 86400 1", 7200),
            ("SET celery-task-meta-k 1 EX 7200", 7200),
            ("SET celery-task-meta-k 1 EX 100", 100),
            ("SET celery-task-meta-k 1", 3600),
        ];
        for (words, expected) in rows {
            conn.run(words).await;
            assert_eq!(
                conn.was_given(expected, "celery-task-meta-k").await,
                Ok(()),
                "{words}"
            );
        }
        conn.run("SET airflow_variable 1 EX 86400").await;
        conn.assert_given(86_400, "airflow_variable").await; // nobody else's
    })
    .await;
}

#[tokio::test]
async fn enforce_no_leaves_every_write_as_it_is() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("max-ttl", "1h")
            .start()
            .await;
        let mut conn = server.connect().await;
        conn.run("SET celery-task-meta-a 1").await;
        conn.run("SET celery-task-meta-b 1 EX 86400").await;
        assert_eq!(conn.ttl("celery-task-meta-a").await, -1);
        conn.assert_given(86_400, "celery-task-meta-b").await;
        conn.run("HYGIENE.CONFIG SET enforce yes").await;
        conn.run("SET celery-task-meta-a 1").await;
        assert_eq!(
            conn.was_given(3600, "celery-task-meta-a").await,
            Ok(()),
            "switched on while running"
        );
    })
    .await;
}

#[tokio::test]
async fn a_server_out_of_memory_still_stamps() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .config("maxmemory-policy noeviction")
            .start()
            .await;
        let mut conn = server.connect().await;
        conn.run("SET a v").await;
        // Two writes that a full server lets through.
        let script = "#!lua flags=allow-oom\nredis.call('SET', KEYS[1], 1)";
        conn.run("CONFIG SET maxmemory 1").await;
        let refused = conn.error("SET celery-task-meta-refused 1").await;
        assert!(refused.starts_with("OOM"), "{refused}");
        if binary.is_7_0_or_newer() {
            conn.run(cmd!["EVAL", script, 1, "celery-task-meta-k"])
                .await;
            conn.assert_given(3600, "celery-task-meta-k").await;
        }
        if !binary.generic_events_do_harm() {
            // RENAME is not refused when memory is full, on any server.
            conn.run("RENAME a celery-task-meta-r").await;
            conn.assert_given(3600, "celery-task-meta-r").await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_replica_stamps_nothing_itself() {
    on_every_server(async |binary: &'static Binary| {
        let primary = Setup::on(binary).without_module().start().await;
        let replica = Setup::on(binary)
            .replica_of(&primary)
            .config("replica-read-only no")
            .start()
            .await;
        let mut upper = primary.connect().await;
        let mut lower = replica.connect().await;
        upper.run("SET celery-task-meta-a 1").await;
        crate::data::wait_until_in_step(&primary, &replica).await;
        assert_eq!(
            lower.ttl("celery-task-meta-a").await,
            -1,
            "what its primary sent"
        );
        lower.run("SET celery-task-meta-b 1").await;
        assert_eq!(
            lower.ttl("celery-task-meta-b").await,
            -1,
            "what was written to itself"
        );
        lower.run("REPLICAOF NO ONE").await;
        lower.run("SET celery-task-meta-c 1").await;
        lower.assert_given(3600, "celery-task-meta-c").await; // once promoted
    })
    .await;
}
