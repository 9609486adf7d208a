//! celery-redis-plus, the transport whose queues are zsets: what it writes is classed and
//! left as it is, and what killed askers leave goes as a whole.
//!
//! The shapes are those that version 0.4.1 with Celery 5.7.0 wrote to Redis 7.0.15: tasks
//! that wait, that a killed worker had taken, that are due later, and the answer to an
//! inspector that was killed.

use redis::Cmd;

use crate::celery::{
    Clock, HOUR, Message, SEP, event, pidbox_reply, plus_message, result, result_key,
};
use crate::client::{Conn, Fields, list, text};
use crate::cmd;
use crate::data::DataSet;
use crate::keys::restore_idle;
use crate::server::{Server, Setup, on_every_server};

const PREFIX: &str = "shop:";

fn uuid(n: usize) -> String {
    format!("38d03ff8-1c73-4f3b-8d1f-{n:012}")
}

fn asker(n: usize) -> String {
    format!("8820169c-1c4e-3c62-beaf-{n:012}")
}

fn reply_queue(n: usize) -> String {
    format!("{}.reply.celery.pidbox", asker(n))
}

/// A binding: scored with when it goes stale, `inf` for a queue that stays.
fn bound(prefix: &str, exchange: &str, key: &str, queue: &str, stale: &str) -> Cmd {
    let table = format!("{prefix}_kombu.binding.{exchange}");
    cmd!["ZADD", table, stale, format!("{key}{SEP}{SEP}{queue}")]
}

/// Two tasks that wait, two that a killed worker had taken, one that is due later.
fn broker(prefix: &str, clock: Clock) -> Vec<Cmd> {
    let mut all = Vec::new();
    for n in 0..5 {
        let tag = uuid(n + 10 * prefix.len());
        let payload = Message::new("plus.slow", &uuid(n)).body();
        let mut message = plus_message(prefix, "celery", &tag, &payload, clock.ago_s(-300));
        if n == 4 {
            message[0].arg(&["native_delayed", "1", "eta"]);
            message[0].arg(clock.ago_s(-900));
        }
        all.extend(message.into_iter().take(if n < 2 { 3 } else { 2 }));
    }
    let fanout = |exchange: &str| {
        let stream = format!("{prefix}/0.{exchange}");
        cmd!["XADD", stream, "*", "payload", event(clock.ago(9))]
    };
    all.extend([
        bound(prefix, "celery", "celery", "celery", "inf"),
        bound(prefix, "mail", "mail", "mail", "inf"),
        fanout("celeryev"),
        fanout("celery.pidbox"),
    ]);
    all
}

async fn start(binary: &'static crate::server::Binary) -> (Server, Conn) {
    let server = Setup::on(binary)
        .setting("enforce", "no")
        .setting("key-prefixes", PREFIX)
        .start()
        .await;
    let conn = server.connect().await;
    (server, conn)
}

/// Lays every key of the broker to rest for two hours.
async fn rest_all(conn: &mut Conn) {
    let keys = list(&conn.value("KEYS *").await);
    let names = keys.iter().map(text);
    for key in names.filter(|name| !name.starts_with("celery-task-meta-")) {
        restore_idle(conn, &key, &key, 2 * HOUR).await;
    }
}

#[tokio::test]
async fn what_the_other_transport_writes_is_classed_and_left_as_it_is() {
    on_every_server(async |binary| {
        let (server, mut conn) = start(binary).await;
        let clock = Clock::of(&mut conn).await;
        for prefix in ["", PREFIX] {
            conn.pipe(broker(prefix, clock)).await;
        }
        let done = result("a", "SUCCESS", clock.ago(60), crate::celery::Form::Utc);
        conn.run(cmd!["SET", result_key("a"), done]).await;

        let scan = conn.fields("HYGIENE.SCAN").await;
        let classes = scan.map("classes");
        for (class, keys) in [
            // A zset and five hashes behind each prefix.
            ("queue", 12),
            ("unacked", 2),
            ("binding", 4),
            ("event_queue", 4),
            ("task_result", 1),
        ] {
            assert_eq!(classes.map(class).int("keys"), keys, "{class}");
        }
        assert_eq!(classes.names().len(), 5, "{:?}", classes.names());
        assert_eq!(classes.map("queue").int("length"), 4);
        let codes: Vec<String> = scan
            .maps("findings")
            .iter()
            .map(|found| found.text("code"))
            .collect();
        let expected = [
            "results_without_ttl",
            "default_ttl_not_above_visibility_timeout",
        ];
        assert_eq!(codes, expected);

        let fixed = conn.fields("HYGIENE.FIXTTL").await;
        assert_eq!((fixed.int("stamped"), fixed.int("matched")), (1, 1));
        rest_all(&mut conn).await;
        let before = DataSet::of(&server).await;
        rest_all(&mut conn).await;
        for words in [
            "FIXTTL CLASS task_result group_result chord reply_queue event_queue rpc_reply lock",
            "ORPHANS",
            "ORPHANS REQUEUE",
            "ORPHANS PURGE reply_queue OLDERTHAN 0",
            "ORPHANS PURGE event_queue OLDERTHAN 0",
            "ORPHANS PURGE binding OLDERTHAN 0",
            "ORPHANS PURGE chord",
            "BEATSTATUS",
        ] {
            conn.run(format!("HYGIENE.{words}")).await;
            before.assert_same(&DataSet::of(&server).await, words);
            rest_all(&mut conn).await;
        }
    })
    .await;
}

/// The classes of an answer of ORPHANS.
fn replies(answer: &Fields) -> Fields {
    answer.one("orphans", "class", "reply_queue")
}

#[tokio::test]
async fn answers_that_nobody_fetches_go_with_their_index_and_their_messages() {
    on_every_server(async |binary| {
        let (server, mut conn) = start(binary).await;
        let clock = Clock::of(&mut conn).await;
        conn.pipe(broker("", clock)).await;
        // One unread, behind a prefix; one with an answer in hand; one with many; one
        // that is being waited for; one of that name whose members are no tags.
        let mut messages = 0;
        for (n, prefix, count, parts) in [
            (1, PREFIX, 1, 3),
            (2, "", 2, 2),
            (3, "", 180, 3),
            (4, "", 1, 3),
        ] {
            for _ in 0..count {
                messages += 1;
                let tag = uuid(1_000 + messages);
                let payload = pidbox_reply(&asker(n), &tag);
                let due_s = clock.ago_s(-300);
                let all = plus_message(prefix, &reply_queue(n), &tag, &payload, due_s);
                conn.pipe(all.into_iter().take(parts)).await;
            }
            let stale = clock.ago_s(9).to_string();
            conn.run(bound(
                prefix,
                "reply.celery.pidbox",
                &asker(n),
                &reply_queue(n),
                &stale,
            ))
            .await;
        }
        // A message that another queue owns by now, under a tag of the first.
        conn.run(cmd![
            "HSET",
            format!("{PREFIX}message:{}", uuid(1_001)),
            "routing_key",
            "celery"
        ])
        .await;
        conn.run(cmd![
            "ZADD",
            format!("queue:{}", reply_queue(5)),
            1,
            "member"
        ])
        .await;
        rest_all(&mut conn).await;
        let live = format!("queue:{}", reply_queue(4));
        conn.run(cmd!["ZRANGE", &live, 0, -1]).await;

        let fixed = conn.fields("HYGIENE.FIXTTL CLASS reply_queue").await;
        assert_eq!(fixed.int("stamped"), 0);
        let left = fixed.one("left", "class", "reply_queue");
        assert!(left.text("why").contains("ORPHANS PURGE"), "{left:?}");
        let report = replies(&conn.fields("HYGIENE.ORPHANS").await);
        assert_eq!(
            (report.int("total"), report.int("orphans")),
            (5, 3),
            "{report:?}"
        );
        assert!(report.int("bytes") > 180 * 500, "{report:?}");

        let before = DataSet::of(&server).await;
        rest_all(&mut conn).await;
        conn.run(cmd!["ZRANGE", &live, 0, -1]).await;
        let dry = conn
            .fields("HYGIENE.ORPHANS PURGE reply_queue DRYRUN")
            .await;
        assert_eq!(dry.int("purged"), 3);
        before.assert_same(&DataSet::of(&server).await, "after a dry run");
        rest_all(&mut conn).await;
        conn.run(cmd!["ZRANGE", &live, 0, -1]).await;
        let done = conn.fields("HYGIENE.ORPHANS PURGE reply_queue").await;
        assert_eq!(done.int("purged"), 3);
        assert!(done.int("bytes_freed") > 180 * 500, "{done:?}");

        let keys = |pattern: String| {
            let mut conn = conn.clone();
            async move { list(&conn.value(cmd!["KEYS", pattern]).await).len() }
        };
        for n in 1..4 {
            assert_eq!(keys(format!("*{}", reply_queue(n))).await, 0, "{n}");
        }
        // Queue and index of the one in use; the strange one.
        assert_eq!(keys(format!("*{}", reply_queue(4))).await, 2);
        assert_eq!(keys(format!("*{}", reply_queue(5))).await, 1);
        // Five tasks, the answer that is waited for, and the other queue's message.
        assert_eq!(keys("*message:*".to_owned()).await, 7);
        assert_eq!(keys("messages_index:celery".to_owned()).await, 1);
        let again = conn.fields("HYGIENE.ORPHANS PURGE reply_queue").await;
        assert_eq!(again.int("purged"), 0);
        assert!(server.log().contains("ORPHANS PURGE reply_queue by client"));
    })
    .await;
}
