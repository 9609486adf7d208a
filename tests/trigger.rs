//! HYGIENE.TRIGGER: a message published from inside, and what became of it, with a
//! worker played by the test.

use std::time::Duration;

use redis::Value;
use tokio::task::JoinHandle;

use crate::celery::{
    Clock, Form, Message, binding, iso, queue_key, redbeat_entry, result_body, result_key,
};
use crate::client::{Conn, Fields, list, text};
use crate::cmd;
use crate::data::{append_only_lines, assert_same_data, wait_until_in_step};
use crate::server::{Server, Setup, on_every_server, same, stays, wait_for};

const LONG: Duration = Duration::from_secs(20);

/// A message as a worker takes it.
struct Taken {
    id: String,
    tag: String,
    element: String,
    parsed: serde_json::Value,
}

impl Taken {
    fn of(element: String) -> Self {
        let parsed: serde_json::Value = serde_json::from_str(&element).expect("JSON");
        let at = |path: &str| {
            let value = parsed.pointer(path).and_then(serde_json::Value::as_str);
            value
                .unwrap_or_else(|| panic!("{path} in {element}"))
                .to_owned()
        };
        Self {
            id: at("/headers/id"),
            tag: at("/properties/delivery_tag"),
            parsed,
            element,
        }
    }
}

/// A worker's connection.
struct Worker(Conn);

impl Worker {
    /// Takes one message and notes it, as kombu does.
    async fn take(&mut self, list_key: &str) -> Taken {
        let reply = self.0.value(cmd!["BRPOP", list_key, 20]).await;
        let taken = Taken::of(text(&list(&reply)[1]));
        let noted = format!(r#"[{}, "", "{list_key}"]"#, taken.element);
        self.0
            .transaction(&[
                cmd!["ZADD", "unacked_index", 1, &taken.tag],
                cmd!["HSET", "unacked", &taken.tag, noted],
            ])
            .await
            .expect("a note");
        taken
    }

    async fn acknowledge(&mut self, taken: &Taken) {
        self.0
            .transaction(&[
                cmd!["ZREM", "unacked_index", &taken.tag],
                cmd!["HDEL", "unacked", &taken.tag],
            ])
            .await
            .expect("an acknowledgement");
    }

    /// Writes a state as the result backend does under `result_expires=None`.
    async fn store(&mut self, taken: &Taken, status: &str, result: &str) {
        let clock = Clock::of(&mut self.0).await;
        let date = match status {
            "SUCCESS" | "FAILURE" | "REVOKED" => format!("\"{}\"", iso(clock.0, Form::Utc)),
            _ => "null".to_owned(),
        };
        let body = result_body(&taken.id, status, result, &date);
        self.0.run(cmd!["SET", result_key(&taken.id), body]).await;
    }
}

/// Lets a worker do its part beside the test.
async fn beside<F>(server: &Server, part: impl FnOnce(Worker) -> F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(part(Worker(server.connect().await)))
}

/// A server with the queue `celery` bound.
async fn bound(setup: Setup) -> (Server, Conn) {
    let server = setup.start().await;
    let mut conn = server.connect().await;
    conn.run(binding("celery", "celery", "celery")).await;
    (server, conn)
}

/// A worker that waits at another queue, as long as it is kept, and is counted as
/// one already.
async fn consumer_elsewhere(server: &Server, conn: &mut Conn) -> JoinHandle<()> {
    let consumer = beside(server, async |mut worker| {
        let _ = worker.0.ask("BRPOP other 100").await;
    })
    .await;
    wait_for("a worker to be counted", LONG, async || {
        let seen = conn.fields("HYGIENE.BEATSTATUS").await;
        same(seen.map("workers").int("blocked_consumers"), 1)
    })
    .await;
    consumer
}

async fn wait_until_blocked(conn: &mut Conn) {
    wait_for("a client that waits", LONG, async || {
        let blocked = conn.info("clients", "blocked_clients").await;
        same(blocked.as_deref(), Some("1"))
    })
    .await;
}

/// A client may wait for its queue to be found first, where the machine is busy.
async fn wait_until_published(conn: &mut Conn, messages: i64) {
    wait_for("messages in the queue", LONG, async || {
        same(conn.int("LLEN celery").await, messages)
    })
    .await;
}

#[tokio::test]
async fn a_task_that_ends_well_is_followed_to_its_result() {
    on_every_server(async |binary| {
        let (server, mut conn) = bound(Setup::on(binary)).await;
        let worker = beside(&server, async |mut worker| {
            let taken = worker.take("celery").await;
            worker.acknowledge(&taken).await;
            worker.store(&taken, "STARTED", r#"{"pid": 1}"#).await;
            worker.store(&taken, "SUCCESS", "3").await;
        })
        .await;
        let told = conn
            .fields(cmd!["HYGIENE.TRIGGER", "shop.add", "ARGS", "[1, 2]"])
            .await;
        worker.await.expect("the worker's end");
        for (field, expected) in [
            ("queue", "celery"),
            ("key", "celery"),
            ("bound", "yes"),
            ("state", "finished"),
            ("status", "SUCCESS"),
            ("result", "3"),
            ("stuck_at", ""),
        ] {
            assert_eq!(told.text(field), expected, "{told:?}");
        }
        let times = ["published_ms", "taken_ms", "finished_ms"].map(|field| told.int(field));
        assert!(times.is_sorted() && times[0] > 0, "{told:?}");
        assert!(told.int("waited_ms") < 10_000, "{told:?}");
        assert!(told.text("reason").contains("every link works"), "{told:?}");
        let ttl = conn.ttl(result_key(&told.text("task_id"))).await;
        assert!((1..=3600).contains(&ttl), "stamped as any other: {ttl}");
    })
    .await;
}

#[tokio::test]
async fn the_message_is_one_that_kombu_reads() {
    on_every_server(async |binary| {
        let (server, mut conn) = bound(Setup::on(binary)).await;
        let waiting = {
            let mut other = server.connect().await;
            tokio::spawn(async move {
                other
                    .ask(cmd![
                        "HYGIENE.TRIGGER",
                        "shop.größe",
                        "ARGS",
                        r#" [1, "two"] "#,
                        "kwargs",
                        r#"{"three": null}"#
                    ])
                    .await
            })
        };
        wait_until_published(&mut conn, 1).await;
        let taken = Taken::of(text(&list(&conn.value("LRANGE celery 0 -1").await)[0]));
        let headers = &taken.parsed["headers"];
        assert_eq!(headers["task"], "shop.größe");
        assert_eq!(headers["argsrepr"], r#"[1, "two"]"#);
        assert_eq!(headers["ignore_result"], false);
        let properties = &taken.parsed["properties"];
        assert_eq!(properties["correlation_id"], taken.id.as_str());
        assert_eq!(properties["delivery_info"]["routing_key"], "celery");
        assert_eq!(properties["priority"], 0);
        assert_ne!(taken.id, taken.tag);
        assert_eq!(taken.id.len(), 36);
        // `[[1, "two"], {"three": null}, {"callbacks": null, ...}]`
        let body = "W1sxLCAidHdvIl0sIHsidGhyZWUiOiBudWxsfSwgeyJjYWxsYmFja3MiOiBudWxsLCAiZXJyYmFja3MiOiBudWxsLCAiY2hhaW4iOiBudWxsLCAiY2hvcmQiOiBudWxsfV0=";
        assert_eq!(taken.parsed["body"], body);
        waiting.abort();
    })
    .await;
}

/// What the worker does, and what must be told.
struct End {
    what: &'static str,
    /// A state and a result, one after the other.
    stores: &'static [(&'static str, &'static str)],
    acknowledges: bool,
    told: [(&'static str, &'static str); 4],
    reason: &'static str,
}

const ENDS: &[End] = &[
    End {
        what: "a failing task",
        stores: &[(
            "FAILURE",
            r#"{"exc_type": "ValueError", "exc_message": ["no such order: 1"], "exc_module": "builtins"}"#,
        )],
        acknowledges: true,
        told: [
            ("state", "finished"),
            ("status", "FAILURE"),
            ("result", "ValueError: no such order: 1"),
            ("stuck_at", ""),
        ],
        reason: "the task itself failed with ValueError",
    },
    End {
        what: "a task that no worker knows",
        stores: &[(
            "FAILURE",
            r#"{"exc_type": "NotRegistered", "exc_message": ["shop.add"], "exc_module": "celery.exceptions"}"#,
        )],
        acknowledges: true,
        told: [
            ("state", "finished"),
            ("status", "FAILURE"),
            ("result", "NotRegistered: shop.add"),
            ("stuck_at", ""),
        ],
        reason: "does not know the task shop.add",
    },
    End {
        what: "taken and not acknowledged",
        stores: &[],
        acknowledges: false,
        told: [
            ("state", "taken"),
            ("status", ""),
            ("result", ""),
            ("stuck_at", "task"),
        ],
        reason: "has not acknowledged it",
    },
    End {
        what: "begun and not finished",
        stores: &[("STARTED", "{}"), ("PROGRESS", r#"{"secret": 1}"#)],
        acknowledges: true,
        told: [
            ("state", "taken"),
            ("status", "PROGRESS"),
            ("result", ""),
            ("stuck_at", "task"),
        ],
        reason: "began the task (PROGRESS)",
    },
    End {
        what: "waiting for its retry",
        stores: &[("RETRY", r#"{"exc_type": "ValueError", "exc_message": []}"#)],
        acknowledges: true,
        told: [
            ("state", "taken"),
            ("status", "RETRY"),
            ("result", "ValueError"),
            ("stuck_at", "task"),
        ],
        reason: "waits for its retry",
    },
    End {
        what: "its result is ignored",
        stores: &[],
        acknowledges: true,
        told: [
            ("state", "taken"),
            ("status", ""),
            ("result", ""),
            ("stuck_at", "result"),
        ],
        reason: "ignore_result",
    },
];

#[tokio::test]
async fn what_becomes_of_a_taken_message_is_told_apart() {
    on_every_server(async |binary| {
        let (server, mut conn) = bound(Setup::on(binary)).await;
        let consumer = consumer_elsewhere(&server, &mut conn).await;
        for end in ENDS {
            let worker = beside(&server, async |mut worker| {
                let taken = worker.take("celery").await;
                if end.acknowledges {
                    worker.acknowledge(&taken).await;
                }
                for (status, result) in end.stores {
                    worker.store(&taken, status, result).await;
                }
            })
            .await;
            let told = conn.fields("HYGIENE.TRIGGER shop.add TIMEOUT 1").await;
            worker.await.expect("the worker's end");
            for (field, expected) in end.told {
                assert_eq!(told.text(field), expected, "{}: {told:?}", end.what);
            }
            let reason = told.text("reason");
            assert!(reason.contains(end.reason), "{}: {reason}", end.what);
            assert!(told.int("taken_ms") >= told.int("published_ms"), "{told:?}");
        }
        // And the same where the worker is gone when the wait ends.
        consumer.abort();
        let worker = beside(&server, async |mut worker| {
            worker.take("celery").await;
        })
        .await;
        let told = conn.fields("HYGIENE.TRIGGER shop.add TIMEOUT 1").await;
        worker.await.expect("the worker's end");
        assert_eq!(told.text("state"), "taken", "{told:?}");
        assert_eq!(told.text("stuck_at"), "worker", "{told:?}");
        assert!(told.text("reason").contains("puts it back"), "{told:?}");
    })
    .await;
}

#[tokio::test]
async fn a_queue_that_nobody_reads_is_told_and_its_message_stays() {
    on_every_server(async |binary| {
        let (server, mut conn) = bound(Setup::on(binary)).await;
        conn.run(Message::new("app.other", "1").push()).await;
        conn.run(Message::new("app.other", "2").push()).await;
        let told = conn.fields("HYGIENE.TRIGGER shop.add TIMEOUT 1").await;
        assert_eq!(told.text("state"), "published");
        assert_eq!(told.text("stuck_at"), "worker", "{told:?}");
        let reason = told.text("reason");
        assert!(reason.contains("no worker is connected"), "{reason}");
        assert!(reason.contains("2 messages are ahead"), "{reason}");
        assert_eq!((told.int("taken_ms"), told.int("finished_ms")), (-1, -1));
        assert!(told.int("waited_ms") >= 1_000, "{told:?}");

        let elsewhere = consumer_elsewhere(&server, &mut conn).await;
        let told = conn.fields("HYGIENE.TRIGGER shop.add TIMEOUT 1").await;
        assert_eq!(told.text("stuck_at"), "queue", "{told:?}");
        let reason = told.text("reason");
        assert!(reason.contains("not for those of this queue"), "{reason}");
        assert_eq!(conn.int("LLEN celery").await, 4, "nothing is taken back");
        assert_eq!(conn.ttl("celery").await, -1);
        elsewhere.abort();
    })
    .await;
}

#[tokio::test]
async fn a_queue_that_moves_too_slowly_is_told_with_the_messages_ahead() {
    on_every_server(async |binary| {
        let (server, mut conn) = bound(Setup::on(binary)).await;
        let messages = (0..5_000).map(|n| Message::new("app.other", &n.to_string()).push());
        conn.pipe(messages).await;
        let worker = beside(&server, async |mut worker| {
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                worker.0.run("RPOP celery").await;
            }
        })
        .await;
        let told = conn.fields("HYGIENE.TRIGGER shop.add TIMEOUT 1").await;
        worker.await.expect("the worker's end");
        let reason = told.text("reason");
        assert!(reason.contains("its turn has not come: 49"), "{reason}");
        // And where others keep publishing, its place is lost from sight, no more.
        let messages = (0..2_000).map(|n| Message::new("app.other", &n.to_string()).push());
        let before = conn.int("LLEN celery").await;
        let mut other = server.connect().await;
        let waiting =
            tokio::spawn(async move { other.fields("HYGIENE.TRIGGER shop.add TIMEOUT 1").await });
        wait_until_published(&mut conn, before + 1).await;
        conn.pipe(messages).await;
        let told = waiting.await.expect("an answer");
        assert_eq!(told.text("state"), "published", "{told:?}");
        assert!(told.text("reason").contains("too long to tell"), "{told:?}");
    })
    .await;
}

#[tokio::test]
async fn a_message_that_is_purged_or_flushed_is_told_at_once() {
    on_every_server(async |binary| {
        for (how, words) in [
            ("DEL celery", "removed from its queue"),
            ("FLUSHALL", "flushed"),
            ("FLUSHDB", "flushed"),
        ] {
            let (server, mut conn) = bound(Setup::on(binary)).await;
            let mut other = server.connect().await;
            let waiting =
                tokio::spawn(
                    async move { other.fields("HYGIENE.TRIGGER shop.add TIMEOUT 10m").await },
                );
            wait_until_published(&mut conn, 1).await;
            conn.run(how).await;
            let told = waiting.await.expect("an answer");
            assert_eq!(told.text("state"), "published", "{how}: {told:?}");
            assert_eq!(told.text("stuck_at"), "queue");
            assert!(told.text("reason").contains(words), "{how}: {told:?}");
        }
    })
    .await;
}

/// All is emptied and loaded anew, and the message is where it was.
#[tokio::test]
async fn a_message_that_a_reload_brings_back_is_waited_for() {
    on_every_server(async |binary| {
        let (server, mut conn) = bound(Setup::on(binary)).await;
        let mut other = server.connect().await;
        let waiting =
            tokio::spawn(async move { other.fields("HYGIENE.TRIGGER shop.add TIMEOUT 2s").await });
        wait_until_published(&mut conn, 1).await;
        conn.run("DEBUG RELOAD").await;
        let told = waiting.await.expect("an answer");
        assert_eq!(told.text("stuck_at"), "worker", "{told:?}");
        assert_eq!(conn.int("LLEN celery").await, 1);
    })
    .await;
}

#[tokio::test]
async fn the_queue_is_found_by_tables_schedules_and_messages() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("key-prefixes", "app1:")
            .start()
            .await;
        let mut broker = server.connect_db(2).await;
        for (exchange, queue) in [
            ("celery", "celery"),
            ("maintenance", "maintenance"),
            ("heavy", "heavy"),
        ] {
            broker.run(binding(exchange, queue, queue)).await;
        }
        let clock = Clock::of(&mut broker).await;
        broker
            .pipe(redbeat_entry(
                "a",
                "app.tick",
                60,
                clock.ago(30),
                clock.ago_s(-30),
            ))
            .await;
        broker
            .run(Message::new("app.crunch", "1").queue("heavy").push())
            .await;
        let mut conn = server.connect_db(1).await;
        for (words, key) in [
            ("app.any TIMEOUT 1", "celery"),
            ("app.tick TIMEOUT 1", "maintenance"),
            ("app.crunch TIMEOUT 1", "heavy"),
            ("app.crunch TIMEOUT 1 QUEUE celery", "celery"),
        ] {
            let before = broker.int(cmd!["LLEN", key]).await;
            let told = conn.fields(format!("HYGIENE.TRIGGER {words}")).await;
            assert_eq!(
                (told.text("queue").as_str(), told.int("db")),
                (key, 2),
                "{told:?}"
            );
            assert_eq!(told.text("bound"), "yes");
            assert_eq!(broker.int(cmd!["LLEN", key]).await, before + 1, "{words}");
        }
        // The client's own database is what it was.
        conn.run("SET here 1").await;
        assert_eq!(conn.int("DBSIZE").await, 1);

        // A queue that nobody declared, only by its name.
        let told = conn
            .fields("HYGIENE.TRIGGER app.any QUEUE adhoc TIMEOUT 1")
            .await;
        assert_eq!((told.text("bound").as_str(), told.int("db")), ("no", 2));
        assert!(
            told.text("reason").contains("no routing table names"),
            "{told:?}"
        );
        assert_eq!(broker.int("LLEN adhoc").await, 1);

        // A second broker behind a key prefix.
        let mut prefixed = server.connect_db(3).await;
        let member = "q1\x06\x16\x06\x16q1";
        prefixed
            .run(cmd!["SADD", "app1:_kombu.binding.q1", member])
            .await;
        let told = conn
            .fields("HYGIENE.TRIGGER app.any QUEUE q1 TIMEOUT 1")
            .await;
        assert_eq!((told.text("key").as_str(), told.int("db")), ("app1:q1", 3));
        assert_eq!(told.text("queue"), "q1");
        assert_eq!(prefixed.int("LLEN app1:q1").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_result_is_found_in_another_database_behind_another_prefix() {
    on_every_server(async |binary| {
        let (server, mut conn) = bound(Setup::on(binary)).await;
        for key in ["app1_celery-task-meta-", ":1:celery-task-meta-"] {
            let mut backend = server.connect_db(5).await;
            let worker = beside(&server, async move |mut worker| {
                let taken = worker.take("celery").await;
                worker.acknowledge(&taken).await;
                let body = result_body(&taken.id, "SUCCESS", "\"elsewhere\"", "null");
                backend
                    .run(cmd!["SETEX", format!("{key}{}", taken.id), 60, body])
                    .await;
            })
            .await;
            let told = conn.fields("HYGIENE.TRIGGER shop.add").await;
            worker.await.expect("the worker's end");
            assert_eq!(told.text("state"), "finished", "{told:?}");
            assert_eq!(told.text("result"), "\"elsewhere\"");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_is_refused_by_name_and_nothing_is_published() {
    on_every_server(async |binary| {
        let (server, mut conn) = bound(Setup::on(binary)).await;
        conn.run("SET nolist x").await;
        conn.run("ZADD queue:redisplus 1 x").await;
        let long = format!("[\"{}\"]", "x".repeat(64 * 1024));
        let half = format!("[\"{}\"]", "x".repeat(40 * 1024));
        let half_map = format!("{{\"a\": \"{}\"}}", "x".repeat(40 * 1024));
        let cases: Vec<(Vec<&[u8]>, &str)> = vec![
            (
                vec![b"t", b"QUEUES", b"a"],
                "ERR unknown option 'QUEUES': expected QUEUE q",
            ),
            (vec![b"t", b"QUEUE"], "ERR QUEUE needs a value"),
            (
                vec![b"t", b"DB", b"0", b"DB", b"0"],
                "ERR DB is given twice",
            ),
            (
                vec![b"t", b"DB", b"99"],
                "ERR DB '99': this server has no such database",
            ),
            (
                vec![b"t", b"DB", b"x"],
                "ERR DB 'x': expected a whole number",
            ),
            (vec![b""], "ERR task '': it is empty"),
            (
                vec![b"a\nb"],
                "ERR task 'a\\nb': it holds a control character",
            ),
            (vec![b"\xff"], "ERR task '\\xff': it is no UTF-8"),
            (vec![b"t", b"QUEUE", b""], "ERR QUEUE '': it is empty"),
            (
                vec![b"t", b"QUEUE", b"celery\x06\x163"],
                "it holds a control character",
            ),
            (
                vec![b"t", b"QUEUE", b"nolist"],
                "ERR the key 'nolist' holds a string, no queue",
            ),
            (
                vec![b"t", b"QUEUE", b"redisplus"],
                "sorted sets (celery-redis-plus)",
            ),
            (
                vec![b"t", b"ARGS", b"{}"],
                "ERR ARGS '{}': expected a JSON array, it is an object",
            ),
            (
                vec![b"t", b"ARGS", b"1, 2"],
                "ERR ARGS '1, 2': expected a JSON array, it is no JSON",
            ),
            (
                vec![b"t", b"ARGS", long.as_bytes()],
                "it is longer than 65536 bytes",
            ),
            (
                vec![
                    b"t",
                    b"ARGS",
                    half.as_bytes(),
                    b"KWARGS",
                    half_map.as_bytes(),
                ],
                "ERR ARGS and KWARGS: expected at most 65536 bytes together",
            ),
            (
                vec![b"t", b"KWARGS", b"[]"],
                "ERR KWARGS '[]': expected a JSON object, it is an array",
            ),
            (
                vec![b"t", b"TIMEOUT", b"0"],
                "ERR TIMEOUT '0': expected 1s to 10m",
            ),
            (
                vec![b"t", b"TIMEOUT", b"601"],
                "ERR TIMEOUT '601': expected 1s to 10m",
            ),
            (
                vec![b"t", b"TIMEOUT", b"soon"],
                "ERR TIMEOUT 'soon': expected seconds",
            ),
        ];
        for (words, expected) in cases {
            let mut command = redis::cmd("HYGIENE.TRIGGER");
            for word in words {
                command.arg(word);
            }
            let told = conn.error(command).await;
            assert!(told.contains(expected), "{told}, not {expected}");
        }
        assert!(conn.error("HYGIENE.TRIGGER").await.contains("wrong number"));
        assert_eq!(
            conn.int("DBSIZE").await,
            3,
            "the table and what the test wrote"
        );

        // No table names the default queue.
        let empty = Setup::on(binary).start().await;
        let mut conn = empty.connect().await;
        let told = conn.error("HYGIENE.TRIGGER t").await;
        assert!(told.contains("name it by QUEUE"), "{told}");
        assert_eq!(conn.int("DBSIZE").await, 0);
        drop(server);
    })
    .await;
}

#[tokio::test]
async fn who_cannot_wait_or_write_is_refused() {
    on_every_server(async |binary| {
        let (server, mut conn) = bound(Setup::on(binary)).await;
        let told = conn.transaction(&[cmd!["HYGIENE.TRIGGER", "t"]]).await;
        let told = format!("{told:?}");
        assert!(told.contains("cannot in a transaction"), "{told}");
        let told = conn
            .error(cmd!["EVAL", "return redis.call('HYGIENE.TRIGGER', 't')", 0])
            .await;
        assert!(told.contains("cannot in a transaction"), "{told}");

        let replica = Setup::on(binary).replica_of(&server).start().await;
        wait_until_in_step(&server, &replica).await;
        let mut there = replica.connect().await;
        assert!(there.error("HYGIENE.TRIGGER t").await.contains("READONLY"));
        there.run("CONFIG SET replica-read-only no").await;
        let told = there.error("HYGIENE.TRIGGER t").await;
        assert!(told.contains("ask its primary"), "{told}");
        assert_eq!(conn.int("EXISTS celery").await, 0);
        assert_eq!(there.int("EXISTS celery").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_user_publishes_only_where_it_may_write_and_sees_only_what_it_may_read() {
    on_every_server(async |binary| {
        let (server, mut conn) = bound(Setup::on(binary)).await;
        if !binary.is_7_0_or_newer() {
            let told = conn.fields("HYGIENE.TRIGGER t TIMEOUT 1").await;
            assert_eq!(told.text("acl_checked"), "no");
            return;
        }
        conn.run("ACL SETUSER reader on nopass %R~* +@all").await;
        conn.run("ACL SETUSER writer on nopass %R~_kombu* ~celery +@all")
            .await;
        let mut other = server.connect().await;
        other.run("AUTH reader any").await;
        let told = other.error("HYGIENE.TRIGGER t").await;
        assert!(
            told.contains("no right to write the queue's key 'celery'"),
            "{told}"
        );
        assert_eq!(conn.int("EXISTS celery").await, 0);

        other.run("AUTH writer any").await;
        let worker = beside(&server, async |mut worker| {
            let taken = worker.take("celery").await;
            worker.acknowledge(&taken).await;
            worker.store(&taken, "SUCCESS", "\"secret\"").await;
        })
        .await;
        let told = other.fields("HYGIENE.TRIGGER t TIMEOUT 1").await;
        worker.await.expect("the worker's end");
        assert_eq!(told.text("acl_checked"), "yes");
        assert_eq!(told.text("state"), "taken", "{told:?}");
        assert_eq!(told.text("stuck_at"), "result");
        assert!(told.text("reason").contains("may not read"), "{told:?}");
        assert!(!format!("{told:?}").contains("secret"), "{told:?}");
    })
    .await;
}

#[tokio::test]
async fn the_message_reaches_replicas_and_the_append_only_file() {
    on_every_server(async |binary| {
        let (mut server, mut conn) = bound(Setup::on(binary).append_only()).await;
        let replica = Setup::on(binary).replica_of(&server).start().await;
        wait_until_in_step(&server, &replica).await;
        for n in 0..3 {
            let words = format!("HYGIENE.TRIGGER shop.add QUEUE q{n} DB {n} TIMEOUT 1");
            conn.run(words).await;
        }
        // And one that a worker waits for: the pop follows the push.
        let worker = beside(&server, async |mut worker| {
            let taken = worker.take("celery").await;
            worker.store(&taken, "SUCCESS", "1").await;
        })
        .await;
        wait_until_blocked(&mut conn).await;
        let told = conn.fields("HYGIENE.TRIGGER shop.add").await;
        worker.await.expect("the worker's end");
        assert_eq!(told.text("state"), "finished", "{told:?}");
        assert_same_data(&[&server, &replica]).await;
        let lines = append_only_lines(&server);
        let pushes = lines.iter().filter(|line| line.contains(" LPUSH "));
        assert_eq!(pushes.count(), 4, "{lines:?}");
        server.start_again().await;
        assert_same_data(&[&server, &replica]).await;
    })
    .await;
}

/// A client that waits for a long TRIGGER, its id, and its answer.
async fn long_wait(server: &Server) -> (i64, JoinHandle<Result<Value, String>>) {
    let mut other = server.connect().await;
    let id = other.int("CLIENT ID").await;
    let waiting = tokio::spawn(async move {
        let answer = other.ask("HYGIENE.TRIGGER shop.add TIMEOUT 10m").await;
        answer.map_err(|error| crate::client::error_text(&error))
    });
    (id, waiting)
}

#[tokio::test]
async fn a_client_that_leaves_or_is_let_go_frees_its_place() {
    on_every_server(async |binary| {
        let (mut server, mut conn) = bound(Setup::on(binary)).await;
        let mut waits = Vec::new();
        for n in 0..16 {
            waits.push(long_wait(&server).await);
            wait_until_published(&mut conn, n + 1).await;
        }
        let told = conn.error("HYGIENE.TRIGGER shop.add").await;
        assert!(told.contains("16 clients wait"), "{told}");
        assert_eq!(
            conn.int("LLEN celery").await,
            16,
            "and nothing is published"
        );
        let (id, waiting) = waits.remove(0);
        assert_eq!(conn.int(cmd!["CLIENT", "UNBLOCK", id]).await, 1);
        let told = waiting.await.expect("an end").expect_err("let go");
        assert!(told.contains("once published the message stays"), "{told}");
        for (id, waiting) in waits {
            conn.run(cmd!["CLIENT", "KILL", "ID", id]).await;
            assert!(waiting.await.expect("an end").is_err());
        }
        // All places are free again, and the module may go.
        wait_for("a free place", LONG, async || {
            match conn.ask("HYGIENE.TRIGGER shop.add TIMEOUT 1").await {
                Ok(_) => Ok(()),
                Err(error) => Err(crate::client::error_text(&error)),
            }
        })
        .await;
        conn.unload_when_idle().await;
        stays("a server", Duration::from_millis(300), async || {
            same(conn.int("LLEN celery").await, 17)
        })
        .await;
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn unloading_is_refused_while_a_client_waits_and_events_are_heard_after_a_reload() {
    on_every_server(async |binary| {
        let (mut server, mut conn) = bound(Setup::on(binary)).await;
        let (id, waiting) = long_wait(&server).await;
        wait_until_published(&mut conn, 1).await;
        conn.error("MODULE UNLOAD hygiene").await;
        conn.run(cmd!["CLIENT", "UNBLOCK", id]).await;
        assert!(waiting.await.expect("an end").is_err());
        conn.unload_when_idle().await;
        let path = crate::server::module_path();
        conn.run(cmd!["MODULE", "LOAD", path.to_str().expect("a path")])
            .await;
        conn.run("DEL celery").await;
        let worker = beside(&server, async |mut worker| {
            let taken = worker.take("celery").await;
            worker.acknowledge(&taken).await;
            worker.store(&taken, "SUCCESS", "4").await;
        })
        .await;
        let told = conn.fields("HYGIENE.TRIGGER shop.add").await;
        worker.await.expect("the worker's end");
        assert_eq!(told.text("result"), "4", "{told:?}");
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn a_client_is_answered_when_its_server_becomes_a_replica_or_ends() {
    on_every_server(async |binary| {
        let other = Setup::on(binary).without_module().start().await;
        let (mut server, mut conn) = bound(Setup::on(binary)).await;
        let (_, waiting) = long_wait(&server).await;
        wait_until_published(&mut conn, 1).await;
        conn.run(cmd!["REPLICAOF", "127.0.0.1", other.port]).await;
        let told = waiting.await.expect("an end").expect_err("no result");
        assert!(
            told.contains("UNBLOCKED") || told.contains("no longer a primary"),
            "{told}"
        );
        wait_until_in_step(&other, &server).await;
        assert_same_data(&[&other, &server]).await;
        conn.run("REPLICAOF NO ONE").await;
        conn.run(binding("celery", "celery", "celery")).await;
        let (_, waiting) = long_wait(&server).await;
        wait_until_published(&mut conn, 1).await;
        server.shut_down("NOSAVE");
        assert!(
            waiting.await.expect("an end").is_err(),
            "no reply is made up"
        );
    })
    .await;
}

#[tokio::test]
async fn both_protocols_tell_the_same() {
    on_every_server(async |binary| {
        let (server, mut conn) = bound(Setup::on(binary)).await;
        let mut resp3 = server.connect_resp3().await;
        let names = |told: &Fields| {
            told.names()
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let two = conn.fields("HYGIENE.TRIGGER t TIMEOUT 1").await;
        let three = resp3.fields("HYGIENE.TRIGGER t TIMEOUT 1").await;
        assert_eq!(names(&two), names(&three));
        if binary.is_7_0_or_newer() {
            let raw = resp3.value("HYGIENE.TRIGGER t TIMEOUT 1").await;
            assert!(matches!(raw, Value::Map(_)), "{raw:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_node_of_a_cluster_publishes_to_its_own_slots_only() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .config("cluster-enabled yes")
            .config("cluster-require-full-coverage no")
            .start()
            .await;
        let mut conn = server.connect().await;
        let foreign = conn.int("CLUSTER KEYSLOT foreign").await;
        let mut slots = cmd!["CLUSTER", "ADDSLOTS"];
        for slot in (0..16_384).filter(|slot| *slot != foreign) {
            slots.arg(slot);
        }
        conn.run(slots).await;
        wait_for("the cluster to be up", LONG, async || {
            let state = conn.text("CLUSTER INFO").await;
            let up = state.contains("cluster_state:ok");
            up.then_some(()).ok_or(state)
        })
        .await;
        conn.run(binding("celery", "celery", "celery")).await;
        let worker = beside(&server, async |mut worker| {
            let reply = worker.0.value("BRPOP celery 20").await;
            let taken = Taken::of(text(&list(&reply)[1]));
            worker.store(&taken, "SUCCESS", "5").await;
        })
        .await;
        let told = conn.fields("HYGIENE.TRIGGER shop.add").await;
        worker.await.expect("the worker's end");
        assert_eq!(told.text("result"), "5", "{told:?}");
        let told = conn
            .error("HYGIENE.TRIGGER shop.add QUEUE foreign TIMEOUT 1")
            .await;
        assert!(
            told.contains("the node that holds the queue's slot"),
            "{told}"
        );
    })
    .await;
}

/// Without a step 0 kombu puts what has no priority behind the last step, and no worker
/// reads the queue's first list.
#[tokio::test]
async fn without_a_priority_step_0_a_message_goes_to_the_list_that_is_read() {
    on_every_server(async |binary| {
        let (server, mut conn) = bound(Setup::on(binary)).await;
        let lowest = queue_key("celery", 9);
        let follow = async |what: &str, list_key: &str| {
            let key = list_key.to_owned();
            let worker = beside(&server, async move |mut worker| {
                let taken = worker.take(&key).await;
                worker.acknowledge(&taken).await;
                worker.store(&taken, "SUCCESS", "3").await;
            })
            .await;
            let mut other = server.connect().await;
            let told = other.fields("HYGIENE.TRIGGER shop.add").await;
            worker.await.expect("the worker's end");
            assert_eq!(told.text("state"), "finished", "{what}: {told:?}");
            assert_eq!(told.text("queue"), "celery", "{what}");
            assert_eq!(told.text("key"), list_key, "{what}");
        };
        follow("nothing is known", "celery").await;
        let high = Message::new("shop.add", "high").priority(9);
        conn.run(high.push()).await;
        conn.run(cmd!["RPOP", &lowest]).await;
        follow("one of priority 9 went to that list", "celery").await;
        let plain = Message::new("shop.add", "plain");
        conn.run(cmd!["LPUSH", &lowest, plain.body()]).await;
        conn.run(cmd!["RPOP", &lowest]).await;
        follow("one of priority 0 went there", &lowest).await;
        follow("nor does this command change that", &lowest).await;

        // What nobody puts back goes there, too.
        let now_s = Clock::of(&mut conn).await.ago_s(0);
        let stuck = Message::new("shop.add", "stuck");
        conn.transaction(&stuck.unacked(now_s - 7_200))
            .await
            .unwrap();
        let put = conn.fields("HYGIENE.ORPHANS REQUEUE").await;
        assert_eq!(conn.int(cmd!["LLEN", &lowest]).await, 1, "{put:?}");
        assert_eq!(conn.int("LLEN celery").await, 0);

        let seen = conn.fields("HYGIENE.BEATSTATUS").await;
        let queue = seen.one("queues", "name", "celery");
        assert_eq!(queue.int("length"), 1, "{seen:?}");
    })
    .await;
}
