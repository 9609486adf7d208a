//! HYGIENE.FIXTTL: what gets a TTL, what is deleted, what is left (cases C1, C2, C14).
//!
//! Pickled results are `unreadable` here: stamped, and never deleted, whatever
//! date stands inside.

use std::time::{Duration, Instant};

use redis::Cmd;

use crate::celery::{
    Clock, Form, HOUR, Message, binding, compressed, iso, pickled, redbeat_entry, redbeat_lock,
    result, result_body, result_key, seed_results, started, undated,
};
use crate::client::{Conn, Fields, ToCmd, bytes, list, times_slower};
use crate::cmd;
use crate::data::DataSet;
use crate::jobs;
use crate::server::{Binary, Server, Setup, on_every_server};

/// The figures that DRYRUN must give as the real run does.
const FIGURES: &[&str] = &[
    "scanned",
    "matched",
    "already_had_ttl",
    "stamped",
    "cut",
    "deleted",
    "kept_exempt",
    "skipped_noperm",
    "unreadable",
];

/// A server whose hook leaves seeded results alone.
async fn server_on(binary: &'static Binary) -> Server {
    Setup::on(binary).setting("enforce", "no").start().await
}

async fn seed(conn: &mut Conn, id: &str, body: impl AsRef<[u8]>) {
    conn.run(cmd!["SET", result_key(id), body.as_ref()]).await;
}

#[tokio::test]
async fn a_stamp_fails_the_watch_of_its_key_and_of_no_other() {
    on_every_server(async |binary| {
        let server = server_on(binary).await;
        let mut conn = server.connect().await;
        conn.run("SET celery-task-meta-bare x").await;
        conn.run("SETEX celery-task-meta-has 500 x").await;
        let mut bare = server.connect().await;
        bare.run("WATCH celery-task-meta-bare").await;
        let mut has = server.connect().await;
        has.run("WATCH celery-task-meta-has").await;
        assert_eq!(conn.fields("HYGIENE.FIXTTL").await.int("stamped"), 1);
        let stamped = bare.transaction(&[cmd!["PING"]]).await;
        assert!(!stamped.is_ok_and(|answers| answers.len() == 1));
        let left = has.transaction(&[cmd!["PING"]]).await;
        assert!(left.is_ok_and(|answers| answers.len() == 1));
    })
    .await;
}

#[tokio::test]
async fn broker_state_stays_without_ttl() {
    on_every_server(async |binary| {
        let server = server_on(binary).await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        let message = |id: &str| Message::new("app.add", id).queue("default");
        let mut commands: Vec<Cmd> = Vec::new();
        commands.extend(["1", "2", "3"].map(|id| message(id).push()));
        commands.push(message("4").priority(3).push());
        commands.extend(message("5").unacked(clock.ago_s(10)));
        commands.push(binding("default", "default", "default"));
        commands.push(cmd![
            "SADD",
            "_kombu.binding_permanent.default",
            "default\x06\x16\x06\x16default"
        ]);
        commands.push(cmd![
            "ZADD",
            "_kombu.binding_deadlines",
            clock.ago_s(-60),
            "default"
        ]);
        commands.extend(redbeat_entry(
            "tick",
            "app.tick",
            60,
            clock.ago(30),
            clock.ago_s(-30),
        ));
        commands.push(cmd!["SADD", "redbeat::statics", "tick"]);
        commands.push(redbeat_lock(1_500_000));
        commands.push("PERSIST redbeat::lock".to_cmd());
        commands.push("SET airflow_variable 1".to_cmd());
        conn.pipe(commands).await;
        seed(
            &mut conn,
            "r",
            result("r", "SUCCESS", clock.ago(60), Form::Utc),
        )
        .await;
        let before = DataSet::of(&server).await;
        assert_eq!(before.rows.len(), 13, "{before:?}");

        let dry = conn.fields("HYGIENE.FIXTTL DRYRUN").await;
        before.assert_same(&DataSet::of(&server).await, "DRYRUN changes nothing");

        let real = conn.fields("HYGIENE.FIXTTL").await;
        assert_eq!(dry.ints(FIGURES), real.ints(FIGURES));
        assert_eq!(dry.get("left"), real.get("left"));
        let expected = [
            ("matched", 1),
            ("stamped", 1),
            ("deleted", 0),
            ("already_had_ttl", 0),
        ];
        for (figure, value) in expected {
            assert_eq!(real.int(figure), value, "{figure} in {real:?}");
        }
        let ttl = conn.ttl(result_key("r")).await;
        assert!((3200..=3600).contains(&ttl), "{ttl}");
        let mut after = DataSet::of(&server).await;
        for (row, old) in after.rows.iter_mut().zip(&before.rows) {
            if row.key == result_key("r").into_bytes() {
                row.expires_ms = old.expires_ms;
            }
        }
        before.assert_same(&after, "every other key is as it was");

        let left: Vec<(String, i64)> = real
            .maps("left")
            .iter()
            .map(|entry| {
                assert!(!entry.text("why").is_empty(), "{entry:?}");
                (entry.text("class"), entry.int("keys"))
            })
            .collect();
        for wanted in [
            ("queue", 2),
            ("unacked", 2),
            ("binding", 3),
            ("redbeat", 4),
            ("other", 1),
        ] {
            let wanted = (wanted.0.to_owned(), wanted.1);
            assert!(left.contains(&wanted), "{wanted:?} in {left:?}");
        }

        let again = conn.fields("HYGIENE.FIXTTL").await;
        assert_eq!(again.int("stamped"), 0, "a second run changes nothing");
        assert_eq!(again.int("already_had_ttl"), 1);
        let error = conn.error("HYGIENE.FIXTTL CLASS queue").await;
        assert!(error.contains("queue"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn finished_results_are_deleted_by_their_date() {
    on_every_server(async |binary| {
        let server = server_on(binary).await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        let old = clock.ago(3 * HOUR);
        let rows: Vec<(&str, Vec<u8>, bool)> = vec![
            (
                "naive-utc",
                result("naive-utc", "SUCCESS", old, Form::Naive).into(),
                true,
            ),
            (
                "with-offset",
                result("with-offset", "SUCCESS", old, Form::Utc).into(),
                true,
            ),
            (
                // Read as UTC it would be 0.5 h old, read as it is 1.5 h.
                "local-time",
                result(
                    "local-time",
                    "SUCCESS",
                    clock.ago(3 * HOUR / 2),
                    Form::Offset(60),
                )
                .into(),
                false,
            ),
            ("started", started("started").into(), false),
            ("gocelery", undated("gocelery").into(), false),
            (
                "young",
                result("young", "SUCCESS", clock.ago(300), Form::Utc).into(),
                false,
            ),
            ("pickle", pickled("pickle", old), false),
            ("zlib", compressed(), false),
        ];
        for (id, body, _) in &rows {
            seed(&mut conn, id, body).await;
        }
        let dry = conn.fields("HYGIENE.FIXTTL MAXAGE 2h DRYRUN").await;
        assert_eq!(conn.int("DBSIZE").await, 8);
        let real = conn.fields("HYGIENE.FIXTTL MAXAGE 2h").await;
        assert_eq!(dry.ints(FIGURES), real.ints(FIGURES));
        for (id, _, deleted) in &rows {
            let ttl = conn.ttl(result_key(id)).await;
            if *deleted {
                assert_eq!(ttl, -2, "{id} is deleted");
            } else {
                assert!((3200..=3600).contains(&ttl), "{id} is stamped: {ttl}");
            }
        }
        assert_eq!(real.int("deleted"), 2);
        assert_eq!(real.int("stamped"), 6);
        assert_eq!(real.int("unreadable"), 4, "no date, pickle, zlib: {real:?}");
        assert!(real.int("bytes_freed") > 0);
    })
    .await;
}

#[tokio::test]
async fn every_form_of_a_date_is_read_and_only_finished_results_go() {
    on_every_server(async |binary| {
        let server = server_on(binary).await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        let (old, young) = (clock.ago(3 * HOUR), clock.ago(300));
        let quoted = |ms, form| format!("\"{}\"", iso(ms, form));
        let inner = |ms| format!(r#"{{"date_done": "{}"}}"#, iso(ms, Form::Utc));
        let ancient = r#"{"date_done": "1999-01-01T00:00:00"}"#;
        let rows: Vec<(&str, String, bool)> = vec![
            (
                "no-microseconds",
                result("a", "SUCCESS", old, Form::NaiveWholeSecond),
                true,
            ),
            ("zulu", result("a", "SUCCESS", old, Form::Node), true),
            ("a-space", result("a", "SUCCESS", old, Form::Spaced), true),
            (
                "half-hour-zone",
                result("a", "SUCCESS", old, Form::Offset(330)),
                true,
            ),
            (
                "west",
                result("a", "SUCCESS", old, Form::Offset(-480)),
                true,
            ),
            (
                "west-and-young",
                result("a", "SUCCESS", young, Form::Offset(-480)),
                false,
            ),
            (
                "east-and-young",
                result("a", "SUCCESS", young, Form::Offset(840)),
                false,
            ),
            ("failure", result("a", "FAILURE", old, Form::Utc), true),
            ("revoked", result("a", "REVOKED", old, Form::Utc), true),
            ("retry", result("a", "RETRY", old, Form::Utc), false),
            ("progress", result("a", "PROGRESS", old, Form::Utc), false),
            (
                "the-future",
                result("a", "SUCCESS", clock.ago(-HOUR), Form::Utc),
                false,
            ),
            (
                "young-that-speaks-of-1999",
                result_body("a", "SUCCESS", ancient, &quoted(young, Form::Utc)),
                false,
            ),
            (
                "undated-that-speaks-of-1999",
                result_body("a", "SUCCESS", ancient, "null"),
                false,
            ),
            (
                "old-that-speaks-of-now",
                result_body("a", "SUCCESS", &inner(young), &quoted(old, Form::Utc)),
                true,
            ),
            (
                "text-that-speaks-of-1999",
                result_body(
                    "a",
                    "SUCCESS",
                    r#""\"date_done\": \"1999\"""#,
                    &quoted(young, Form::Utc),
                ),
                false,
            ),
            (
                "a-date-that-is-none",
                result_body("a", "SUCCESS", "3", "\"yesterday\""),
                false,
            ),
            (
                "the-31st-of-june",
                result_body("a", "SUCCESS", "3", "\"2020-06-31T00:00:00\""),
                false,
            ),
            (
                "too-large",
                result_body(
                    "a",
                    "SUCCESS",
                    &format!("\"{}\"", "x".repeat(1 << 20)),
                    &quoted(young, Form::Utc),
                ),
                false,
            ),
        ];
        for (id, body, _) in &rows {
            seed(&mut conn, id, body).await;
        }
        let reply = conn.fields("HYGIENE.FIXTTL MAXAGE 2h").await;
        for (id, body, deleted) in &rows {
            let ttl = conn.ttl(result_key(id)).await;
            let body = body.get(..200).unwrap_or(body);
            assert_eq!(ttl == -2, *deleted, "{id}: TTL {ttl}, {body}");
        }
        let deleted = rows.iter().filter(|row| row.2).count();
        assert_eq!(reply.int("deleted"), i64::try_from(deleted).unwrap());
    })
    .await;
}

#[tokio::test]
async fn maxage_zero_never_deletes() {
    on_every_server(async |binary| {
        let server = server_on(binary).await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        seed(
            &mut conn,
            "old",
            result("old", "SUCCESS", clock.ago(1000 * HOUR), Form::Utc),
        )
        .await;
        let reply = conn.fields("HYGIENE.FIXTTL MAXAGE 0").await;
        assert_eq!((reply.int("deleted"), reply.int("stamped")), (0, 1));
        assert!(conn.ttl(result_key("old")).await > 0);
    })
    .await;
}

#[tokio::test]
async fn a_ttl_that_is_there_is_kept() {
    on_every_server(async |binary| {
        let server = server_on(binary).await;
        let mut conn = server.connect().await;
        conn.run("SETEX celery-task-meta-short 5 1").await;
        conn.run("SETEX celery-task-meta-long 500000 1").await;
        let before = DataSet::of(&server).await;
        let reply = conn.fields("HYGIENE.FIXTTL TTL 100s").await;
        before.assert_same(&DataSet::of(&server).await, "nothing was without TTL");
        assert_eq!((reply.int("already_had_ttl"), reply.int("stamped")), (2, 0));
    })
    .await;
}

#[tokio::test]
async fn jitter_draws_from_below_the_ttl_and_never_above() {
    on_every_server(async |binary| {
        let server = server_on(binary).await;
        let mut conn = server.connect().await;
        let rows = [
            ("JITTER 0%", 1000, 1000),
            ("", 900, 1000),
            ("JITTER 10%", 900, 1000),
            ("JITTER 50%", 500, 1000),
        ];
        for (option, least, most) in rows {
            conn.run("FLUSHALL").await;
            seed_results(&mut conn, "s", 400).await;
            conn.run(format!("HYGIENE.FIXTTL TTL 1000s {option}")).await;
            let keys = (0..400).map(|n| cmd!["TTL", result_key(&format!("s{n}"))]);
            let ttls: Vec<i64> = conn
                .pipe(keys)
                .await
                .iter()
                .map(crate::client::int)
                .collect();
            let seen = (*ttls.iter().min().unwrap(), *ttls.iter().max().unwrap());
            assert!(seen.0 >= least - 30 && seen.1 <= most, "{option}: {seen:?}");
            let spread = (most - least) / 2;
            assert!(
                seen.1 - seen.0 >= spread,
                "{option} spreads over its span: {seen:?}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn fromdone_counts_from_the_date_of_the_result() {
    on_every_server(async |binary| {
        let server = server_on(binary).await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        seed(
            &mut conn,
            "ten-minutes",
            result("a", "SUCCESS", clock.ago(600), Form::Utc),
        )
        .await;
        seed(
            &mut conn,
            "old",
            result("a", "SUCCESS", clock.ago(3 * HOUR), Form::Utc),
        )
        .await;
        seed(&mut conn, "undated", undated("a")).await;
        seed(&mut conn, "started", started("a")).await;
        seed(
            &mut conn,
            "future",
            result("a", "SUCCESS", clock.ago(-2 * HOUR), Form::Utc),
        )
        .await;
        conn.run("HYGIENE.FIXTTL FROMDONE TTL 1h JITTER 0% MAXAGE 0")
            .await;
        let rest = conn.ttl(result_key("ten-minutes")).await;
        assert!(
            (2900..=3000).contains(&rest),
            "an hour from its date: {rest}"
        );
        assert_eq!(conn.ttl(result_key("old")).await, -2, "its hour is over");
        assert_eq!(
            conn.was_given(3600, result_key("undated")).await,
            Ok(()),
            "from now without a date"
        );
        conn.assert_given(3600, result_key("started")).await;
        let future = conn.ttl(result_key("future")).await;
        assert!(
            future <= 3600,
            "a clock that runs ahead does not buy time: {future}"
        );
    })
    .await;
}

#[tokio::test]
async fn limit_match_and_db_bound_what_is_touched() {
    on_every_server(async |binary| {
        let server = server_on(binary).await;
        let mut zero = server.connect().await;
        let mut nine = server.connect_db(9).await;
        for conn in [&mut zero, &mut nine] {
            seed_results(conn, "a-", 10).await;
            seed_results(conn, "b-", 10).await;
        }
        let without = async |conn: &mut Conn, prefix: &str| {
            let keys = (0..10).map(|n| cmd!["TTL", result_key(&format!("{prefix}{n}"))]);
            let ttls = conn.pipe(keys).await;
            ttls.iter()
                .filter(|ttl| crate::client::int(ttl) == -1)
                .count()
        };

        let reply = zero
            .fields("HYGIENE.FIXTTL DB 9 LIMIT 3 MATCH celery-task-meta-a-*")
            .await;
        assert_eq!(reply.int("stamped"), 3);
        assert_eq!(without(&mut nine, "a-").await, 7, "LIMIT");

        let reply = zero
            .fields("HYGIENE.FIXTTL DB 9 MATCH celery-task-meta-a-*")
            .await;
        assert_eq!((reply.int("stamped"), reply.int("already_had_ttl")), (7, 3));
        assert_eq!(without(&mut nine, "a-").await, 0);
        assert_eq!(without(&mut nine, "b-").await, 10, "MATCH");
        assert_eq!(without(&mut zero, "a-").await, 10, "DB");

        let reply = nine.fields("HYGIENE.FIXTTL ALLDBS").await;
        assert_eq!(
            (reply.int("stamped"), reply.int("already_had_ttl")),
            (30, 10)
        );
        assert_eq!(without(&mut zero, "b-").await, 0);
    })
    .await;
}

#[tokio::test]
async fn exempt_keys_are_counted_and_kept() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("exempt-keys", "celery-task-meta-keep*")
            .start()
            .await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        for id in ["keep-1", "keep-2", "gone"] {
            seed(
                &mut conn,
                id,
                result(id, "SUCCESS", clock.ago(5 * HOUR), Form::Utc),
            )
            .await;
        }
        let reply = conn.fields("HYGIENE.FIXTTL MAXAGE 2h").await;
        assert_eq!((reply.int("kept_exempt"), reply.int("deleted")), (2, 1));
        assert_eq!(conn.ttl(result_key("keep-1")).await, -1);
        assert_eq!(conn.ttl(result_key("keep-2")).await, -1);
    })
    .await;
}

#[tokio::test]
async fn max_ttl_cuts_longer_ones() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("max-ttl", "2h")
            .start()
            .await;
        let mut conn = server.connect().await;
        conn.run("SETEX celery-task-meta-long 86400 1").await;
        conn.run("SETEX celery-task-meta-short 100 1").await;
        conn.run("SETEX other 86400 1").await;
        let reply = conn.fields("HYGIENE.FIXTTL JITTER 0%").await;
        assert_eq!(reply.int("cut"), 1, "{reply:?}");
        conn.assert_given(7200, "celery-task-meta-long").await;
        conn.assert_given(100, "celery-task-meta-short").await;
        conn.assert_given(86400, "other").await;
    })
    .await;
}

#[tokio::test]
async fn other_classes_only_when_named() {
    on_every_server(async |binary| {
        let server = server_on(binary).await;
        let mut conn = server.connect().await;
        let group = r#"{"result": [["g", null], [[["t", null], null]]]}"#;
        let reply_list = "0f5ee1b4-3c1c-3b6e-a1f0-6c5bb9b3c5a1.reply.celery.pidbox";
        let event_list = "celeryev.0f5ee1b4-3c1c-3b6e-a1f0-6c5bb9b3c5a1";
        conn.pipe([
            cmd!["SET", "celery-taskset-meta-G", group],
            "INCR celery-taskset-meta-G.t".to_cmd(),
            "SET celery-taskset-meta-G.s 3".to_cmd(),
            "RPUSH celery-taskset-meta-G.j 1".to_cmd(),
            cmd!["LPUSH", reply_list, "{}"],
            cmd!["LPUSH", event_list, "{}"],
        ])
        .await;
        let reply = conn.fields("HYGIENE.FIXTTL").await;
        assert_eq!(reply.int("stamped"), 0, "not by default: {reply:?}");
        let rows = [
            ("group_result", "celery-taskset-meta-G"),
            ("reply_queue", reply_list),
            ("event_queue", event_list),
        ];
        for (class, key) in rows {
            assert_eq!(conn.ttl(key).await, -1, "{class} before");
            let words = format!("HYGIENE.FIXTTL CLASS {class} TTL 100s JITTER 0% MAXAGE 0");
            let reply = conn.fields(words).await;
            assert_eq!(reply.int("stamped"), 1, "{class}: {reply:?}");
            conn.assert_given(100, key).await;
        }
        for helper in [".t", ".s", ".j"] {
            let ttl = conn.ttl(format!("celery-taskset-meta-G{helper}")).await;
            assert_eq!(ttl, -1, "a chord's helper {helper}");
        }
    })
    .await;
}

#[tokio::test]
async fn answers_maps_to_resp3_and_flat_arrays_to_resp2() {
    on_every_server(async |binary| {
        let server = server_on(binary).await;
        let mut old = server.connect().await;
        let mut new = server.connect_resp3().await;
        seed_results(&mut old, "s", 3).await;
        let flat = old.value("HYGIENE.FIXTTL DRYRUN").await;
        let map = new.value("HYGIENE.FIXTTL DRYRUN").await;
        assert!(matches!(flat, redis::Value::Array(_)), "{flat:?}");
        // Redis 6.2 gives modules no way to answer a map.
        let mapped = matches!(map, redis::Value::Map(_));
        assert_eq!(mapped, binary.is_7_0_or_newer(), "{map:?}");
        let (flat, map) = (Fields::of(&flat), Fields::of(&map));
        assert_eq!(flat.names(), map.names());
        assert_eq!(flat.ints(FIGURES), map.ints(FIGURES));
        for name in [
            "bytes_freed",
            "used_memory_before",
            "used_memory_after",
            "duration_ms",
            "server_ms",
        ] {
            assert!(map.int(name) >= 0, "{name}");
        }
        assert!(map.int("used_memory_before") > 0);
    })
    .await;
}

#[tokio::test]
async fn async_gives_a_job_that_is_seen_to_finish() {
    on_every_server(async |binary| {
        let server = server_on(binary).await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 1000).await;
        let first = jobs::start(&mut conn, "HYGIENE.FIXTTL ASYNC").await;
        let seen = jobs::wait_until(&mut conn, first, "finished").await;
        assert_eq!(seen.int("done_percent"), 100);
        assert!(conn.ttl(result_key("s999")).await > 0);
        let second = jobs::start(&mut conn, "HYGIENE.FIXTTL DRYRUN ASYNC").await;
        assert_ne!(first, second);
        jobs::wait_until(&mut conn, second, "finished").await;
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_job_stops() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("cpu-percent", "1")
            .start()
            .await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 100_000).await;
        let id = jobs::start(&mut conn, "HYGIENE.FIXTTL ASYNC").await;
        conn.run(cmd!["HYGIENE.CANCEL", id]).await;
        jobs::wait_until(&mut conn, id, "cancelled").await;
        let held = DataSet::of(&server).await;
        let without = held.rows.iter().filter(|row| row.expires_ms < 0).count();
        assert!(without > 50_000, "{without} are left for the next run");
    })
    .await;
}

#[tokio::test]
async fn where_a_client_may_not_wait_it_is_refused_unless_async() {
    on_every_server(async |binary| {
        let server = server_on(binary).await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 10).await;
        let before = DataSet::of(&server).await;

        for words in ["HYGIENE.FIXTTL", "HYGIENE.SCAN"] {
            for command in ["MULTI", words] {
                conn.run(command).await;
            }
            let told = match conn.ask("EXEC").await {
                Ok(answer) => format!("{answer:?}"),
                Err(error) => error.to_string(),
            };
            assert!(
                told.contains("ASYNC"),
                "in MULTI {words} names the way out: {told}"
            );
            let script = format!("return redis.call('{words}')");
            let error = conn.error(cmd!["EVAL", script, 0]).await;
            assert!(
                error.contains("ASYNC"),
                "in EVAL {words} names the way out: {error}"
            );
        }
        before.assert_same(&DataSet::of(&server).await, "after refused commands");

        for command in ["MULTI", "HYGIENE.FIXTTL DRYRUN ASYNC"] {
            conn.run(command).await;
        }
        let answers = list(&conn.value("EXEC").await);
        let id = jobs::job_id(&answers[0]);
        jobs::wait_until(&mut conn, id, "finished").await;

        let script = "return redis.call('HYGIENE.FIXTTL', 'ASYNC')";
        let id = jobs::start(&mut conn, cmd!["EVAL", script, 0]).await;
        jobs::wait_until(&mut conn, id, "finished").await;
        assert!(conn.ttl(result_key("s1")).await > 0);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_does_no_harm() {
    on_every_server(async |binary| {
        let mut server = server_on(binary).await;
        let mut conn = server.connect().await;
        seed_results(&mut conn, "s", 50_000).await;
        for _ in 0..3 {
            let mut other = server.connect().await;
            let id = other.int("CLIENT ID").await;
            let waiting = tokio::spawn(async move { other.ask("HYGIENE.FIXTTL").await.is_ok() });
            crate::server::wait_for("the client to wait", Duration::from_secs(5), async || {
                let clients = conn.text("CLIENT LIST").await;
                let waits =
                    |line: &str| line.starts_with(&format!("id={id} ")) && line.contains("fixttl");
                let done = waiting.is_finished();
                if done || clients.lines().any(waits) {
                    Ok(())
                } else {
                    Err(clients)
                }
            })
            .await;
            let _ = conn.ask(cmd!["CLIENT", "KILL", "ID", id]).await;
            let _ = waiting.await;
            server.assert_alive();
        }
        let reply = conn.fields("HYGIENE.FIXTTL").await;
        assert_eq!(reply.int("stamped") + reply.int("already_had_ttl"), 50_000);
    })
    .await;
}

#[tokio::test]
async fn a_full_server_is_still_fixed() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("enforce", "no")
            .config("maxmemory-policy noeviction")
            .start()
            .await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        seed(
            &mut conn,
            "old",
            result("old", "SUCCESS", clock.ago(5 * HOUR), Form::Utc),
        )
        .await;
        seed(
            &mut conn,
            "new",
            result("new", "SUCCESS", clock.ago(60), Form::Utc),
        )
        .await;
        conn.run("CONFIG SET maxmemory 1").await;
        assert!(conn.error("SET a 1").await.starts_with("OOM"));
        conn.run("HYGIENE.SCAN").await;
        conn.run("HYGIENE.BEATSTATUS").await;
        let reply = conn.fields("HYGIENE.FIXTTL").await;
        assert_eq!((reply.int("stamped"), reply.int("deleted")), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_replica_shows_what_would_be_done_and_is_asked_for_no_more() {
    on_every_server(async |binary| {
        let primary = server_on(binary).await;
        let replica = Setup::on(binary).replica_of(&primary).start().await;
        let mut conn = primary.connect().await;
        seed_results(&mut conn, "s", 300).await;
        conn.run("SETEX celery-task-meta-kept 500 1").await;
        conn.run("LPUSH celery 1").await;
        crate::data::wait_until_in_step(&primary, &replica).await;
        let before = DataSet::of(&replica).await;
        let mut lower = replica.connect().await;
        for words in ["", " ASYNC", " MAXAGE 0 TTL 9d", " CLASS lock"] {
            let error = lower.error(format!("HYGIENE.FIXTTL{words}")).await;
            let whole = "READONLY You can't write against a read only replica.";
            assert!(error.contains(whole), "{words}: {error}");
        }
        let there = lower.fields("HYGIENE.FIXTTL DRYRUN").await;
        let here = conn.fields("HYGIENE.FIXTTL DRYRUN").await;
        assert_eq!(there.ints(FIGURES), here.ints(FIGURES));
        assert_eq!((there.int("stamped"), there.int("matched")), (300, 301));
        let id = jobs::start(&mut lower, "HYGIENE.FIXTTL DRYRUN ASYNC").await;
        let job = jobs::wait_until(&mut lower, id, "finished").await;
        assert_eq!(job.map("result").int("stamped"), 300);
        before.assert_same(&DataSet::of(&replica).await, "after a dry run");
    })
    .await;
}

/// How many requests of a client that only says PING were answered until `over` answers
/// true, and its longest wait.
async fn served(conn: &mut Conn, mut over: impl FnMut() -> bool) -> (u32, Duration) {
    let (mut served, mut worst) = (0, Duration::ZERO);
    while !over() {
        let start = Instant::now();
        conn.run("PING").await;
        worst = worst.max(start.elapsed());
        served += 1;
    }
    (served, worst)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_results_are_fixed_while_others_go_on() {
    // As much work wherever it runs.
    let results = 1_000_000 / times_slower();
    let server = Setup::new().setting("enforce", "no").start().await;
    let mut conn = server.connect().await;
    seed_results(&mut conn, "s", results as usize).await;

    let mut pinger = server.connect().await;
    let mut fixer = server.connect().await;
    let fixing = tokio::spawn(async move { fixer.fields("HYGIENE.FIXTTL").await });
    let (pings, worst) = served(&mut pinger, || fixing.is_finished()).await;
    let reply = fixing.await.expect("the sweep ends");
    println!("{pings} pings, worst wait {worst:?}, {reply:?}");

    assert_eq!(reply.int("scanned"), i64::from(results));
    assert_eq!(reply.int("stamped"), i64::from(results));
    // A machine that serves others lets anybody wait for seconds, and the sweep with him.
    // A sweep in one piece would take a second and more, and answer one of them.
    assert!(pings >= 100, "{pings} pings, worst wait {worst:?}");
    let longest = conn.info("hygiene", "hygiene_longest_slice_cpu_us").await;
    let longest: u64 = longest.expect("INFO hygiene tells it").parse().unwrap();
    let most = 100_000 * u64::from(times_slower());
    assert!(longest <= most, "a slice of {longest} us");
    let moments = conn
        .pipe(
            (0..results)
                .step_by(results as usize / 1_000)
                .map(|n| cmd!["PTTL", result_key(&format!("s{n}"))]),
        )
        .await;
    assert!(
        moments.iter().all(|ms| bytes(ms) != b"-1"),
        "each has a TTL"
    );
}
