//! Who may do what: each command against each kind of right, and what a user learns of
//! keys that are not his.

use redis::Value;

use crate::celery::{self, Clock, Message};
use crate::client::Conn;
use crate::cmd;
use crate::data::DataSet;
use crate::server::{Binary, Server, Setup, on_every_server};

/// What a command does for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It answers.
    Yes,
    /// The server refuses the command itself.
    No,
    /// It answers on 6.2 and 7.0, where commands of modules are in no category.
    IfOld,
}

use Outcome::{IfOld, No, Yes};

/// Users: all but what is dangerous; who may read; who may do everything; one command.
const USERS: [(&str, &str); 5] = [
    ("app", "~* &* +@all -@dangerous"),
    ("reports", "~* &* -@all +@read"),
    ("operator", "~* &* +@all"),
    ("monitor", "~* &* -@all +hygiene.beatstatus"),
    ("nobody", "~* &* -@all +ping"),
];

/// Each command and what it does for each of [`USERS`].
const TABLE: &[(&str, [Outcome; 5])] = &[
    ("HYGIENE.BEATSTATUS", [IfOld, Yes, Yes, Yes, No]),
    ("HYGIENE.DOCTOR", [IfOld, Yes, Yes, No, No]),
    ("HYGIENE.SCAN", [IfOld, Yes, Yes, No, No]),
    ("HYGIENE.KEYS 0", [Yes, Yes, Yes, No, No]),
    ("HYGIENE.JOBS", [Yes, Yes, Yes, No, No]),
    ("HYGIENE.HELP", [Yes, No, Yes, No, No]),
    ("HYGIENE.FIXTTL DRYRUN", [IfOld, No, Yes, No, No]),
    ("HYGIENE.ORPHANS", [IfOld, No, Yes, No, No]),
    ("HYGIENE.TRIGGER a.b TIMEOUT 1s", [IfOld, No, Yes, No, No]),
    ("HYGIENE.CONFIG GET *", [IfOld, No, Yes, No, No]),
    ("HYGIENE.CONFIG SET slice-us 500", [IfOld, No, Yes, No, No]),
];

/// Whether commands of modules are in categories: from Redis 7.2 on, and on Valkey.
fn has_categories(binary: &Binary) -> bool {
    binary.stamps_in_the_same_unit()
}

async fn signed_in(server: &Server, user: &str) -> Conn {
    let mut conn = server.connect().await;
    conn.run(cmd!["AUTH", user, "any"]).await;
    conn
}

#[tokio::test]
async fn each_command_is_let_to_those_whose_rights_cover_it() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run(celery::binding("celery", "celery", "celery"))
            .await;
        for (at, (user, rules)) in USERS.iter().enumerate() {
            let mut words = cmd!["ACL", "SETUSER", *user, "on", "nopass"];
            words.arg(rules.split(' ').collect::<Vec<_>>());
            conn.run(words).await;
            let mut theirs = signed_in(&server, user).await;
            for (command, outcomes) in TABLE {
                let wanted = match outcomes[at] {
                    IfOld => !has_categories(binary),
                    // What is in no category is in none that can be given.
                    Yes => *user != "reports" || has_categories(binary),
                    No => false,
                };
                match theirs.ask(*command).await {
                    Ok(_) => assert!(wanted, "{user}: {command} is let"),
                    Err(error) => {
                        assert!(!wanted, "{user}: {command} is refused: {error}");
                        assert_eq!(error.code(), Some("NOPERM"), "{user}: {command}: {error}");
                    }
                }
            }
        }
        server.assert_alive();
    })
    .await;
}

/// All that is another's bears this word, in every kind of key that is looked into.
const SECRET: &str = "zebra";

/// A tenant's keys behind its prefix: results, a queue with messages, taken ones,
/// tables, a schedule, locks and what a killed inspect left.
async fn tenant(conn: &mut Conn, prefix: &str, word: &str) {
    let clock = Clock::of(conn).await;
    let old = celery::result(word, "FAILURE", clock.ago(9_000), celery::Form::Utc);
    let task = format!("{word}.task");
    let message = Message::new(&task, &format!("{word}-id"))
        .queue(word)
        .origin(&format!("gen1@{word}"))
        .by_beat()
        .by_entry(word);
    let body = message.body();
    let taken = format!("[{body}, \"\", \"{word}\"]");
    let key = |name: &str| format!("{prefix}{name}");
    let rows = [
        cmd!["SET", key(&format!("celery-task-meta-{word}")), old],
        cmd!["LPUSH", key(word), &body, &body],
        cmd!["HSET", key("unacked"), word, taken],
        cmd!["ZADD", key("unacked_index"), clock.ago_s(90_000), word],
        cmd!["SET", key("unacked_mutex"), word],
        cmd![
            "SADD",
            key("_kombu.binding.celery"),
            format!("{word}\x06\x16\x06\x16{word}")
        ],
        cmd![
            "SADD",
            key("_kombu.binding.celery.pidbox"),
            format!("\x06\x16\x06\x16w1@{word}.celery.pidbox")
        ],
        cmd![
            "ZADD",
            key("redbeat::schedule"),
            1,
            key(&format!("redbeat:{word}"))
        ],
        cmd![
            "HSET",
            key(&format!("redbeat:{word}")),
            "definition",
            format!(
                "{{\"name\": \"{word}\", \"task\": \"{task}\", \"enabled\": true, \"schedule\": {{\"__type__\": \"interval\", \"every\": 5}}}}"
            )
        ],
        cmd!["SET", key("redbeat::lock"), word],
        cmd!["LPUSH", key(&format!("{word}.reply.celery.pidbox")), "x"],
        cmd![
            "ZADD",
            key(&format!("celery-taskset-meta-{word}.j")),
            1,
            "x"
        ],
        cmd!["SET", key(&format!("other-{word}")), "x".repeat(5_000)],
    ];
    for row in rows {
        conn.run(row).await;
    }
}

/// What the wire said, as bytes that can be searched.
pub fn said(answer: &redis::RedisResult<Value>) -> String {
    match answer {
        Ok(value) => flat(value),
        Err(error) => error.to_string(),
    }
}

fn flat(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Array(items) => items.iter().map(flat).collect::<Vec<_>>().join("\n"),
        Value::Map(pairs) => pairs
            .iter()
            .map(|(name, value)| format!("{}\n{}", flat(name), flat(value)))
            .collect::<Vec<_>>()
            .join("\n"),
        Value::VerbatimString { text, .. } => text.clone(),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn nothing_of_another_tenants_keys_is_told_or_touched() {
    const COMMANDS: &[&str] = &[
        "HYGIENE.SCAN TOP 100 MEMORY EXACT",
        "HYGIENE.SCAN PREFIX b: TOP 100",
        "HYGIENE.SCAN MATCH *zebr* TOP 100",
        "HYGIENE.ORPHANS LIMIT 1000",
        "HYGIENE.ORPHANS OLDERTHAN 0 LIMIT 1000",
        "HYGIENE.ORPHANS REQUEUE",
        "HYGIENE.ORPHANS PURGE reply_queue OLDERTHAN 0",
        "HYGIENE.ORPHANS PURGE binding OLDERTHAN 0",
        "HYGIENE.FIXTTL MAXAGE 1s",
        "HYGIENE.FIXTTL CLASS lock reply_queue group_result TTL 1h",
        "HYGIENE.BEATSTATUS VERBOSE",
        "HYGIENE.DOCTOR",
        "HYGIENE.JOBS",
        "HYGIENE.KEYS 0 COUNT 10000",
        "HYGIENE.KEYS 0 CLASS task_result COUNT 10000",
        "HYGIENE.TRIGGER a.task TIMEOUT 1s",
        "HYGIENE.TRIGGER a.task QUEUE b: TIMEOUT 1s",
        "INFO hygiene",
    ];
    on_every_server(async |binary| {
        if !binary.is_7_0_or_newer() {
            return binary.left_out("a module cannot ask what a user may do");
        }
        let mut server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("key-prefixes", "a: b:")
            .start()
            .await;
        let mut conn = server.connect().await;
        tenant(&mut conn, "b:", SECRET).await;
        tenant(&mut conn, "a:", "lion").await;
        // The owner has looked: what was learnt and what was answered lie there.
        for command in [
            "HYGIENE.SCAN TOP 100",
            "HYGIENE.ORPHANS LIMIT 100",
            "HYGIENE.BEATSTATUS",
        ] {
            conn.run(command).await;
        }
        let theirs = |data: &DataSet| format!("{:?}", data.with_prefix("b:"));
        let before = theirs(&DataSet::of(&server).await);
        conn.run("ACL SETUSER a on nopass ~a:* &* +@all").await;
        let mut other = signed_in(&server, "a").await;
        let mut resp3 = server.connect_resp3().await;
        resp3.run("AUTH a any").await;
        let mut of_ones_own = String::new();
        for command in COMMANDS {
            for conn in [&mut other, &mut resp3] {
                let told = said(&conn.ask(*command).await);
                assert!(!told.contains(SECRET), "{command}: {told}");
                of_ones_own += &told;
            }
        }
        assert!(of_ones_own.contains("lion"), "what is one's own is told");
        assert_eq!(
            theirs(&DataSet::of(&server).await),
            before,
            "and nothing is touched"
        );
        server.assert_alive();
    })
    .await;
}

/// Tenants may call their tasks alike, and a result that names its task lies where only
/// one of them may look.
#[tokio::test]
async fn how_another_tenants_task_of_the_same_name_ended_is_not_told() {
    on_every_server(async |binary| {
        if !binary.is_7_0_or_newer() {
            return binary.left_out("a module cannot ask what a user may do");
        }
        let mut server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("key-prefixes", "a: b:")
            .start()
            .await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        for prefix in ["a:", "b:"] {
            let body = Message::new("clean", prefix)
                .queue("celery")
                .by_beat()
                .body();
            conn.run(cmd!["LPUSH", format!("{prefix}celery"), body])
                .await;
        }
        let result = |id: &str, status: &str, ago_s: i64| {
            let body = celery::extended(id, "clean", status, clock.ago(ago_s));
            let zebra = format!(r#""result": {{"exc_type": "{SECRET}"}}"#);
            body.replace(r#""result": 3"#, &zebra)
        };
        // One that a sweep comes across, and one that is seen as it is written.
        conn.run(cmd![
            "SET",
            "b:celery-task-meta-1",
            result("1", "FAILURE", 60)
        ])
        .await;
        conn.run("HYGIENE.SCAN").await;
        conn.run(cmd![
            "SET",
            "b:celery-task-meta-2",
            result("2", "FAILURE", 0)
        ])
        .await;
        conn.run("ACL SETUSER a on nopass ~a:* &* +@all").await;
        let mut theirs = signed_in(&server, "a").await;
        let last = async |conn: &mut Conn| {
            let status = conn.fields("HYGIENE.BEATSTATUS VERBOSE").await;
            let task = status.one("tasks", "name", "clean");
            (
                status.text("verdict"),
                task.text("last_status"),
                task.text("last_exception"),
            )
        };
        let whole = last(&mut conn).await;
        assert_eq!((&*whole.1, &*whole.2), ("FAILURE", SECRET));
        let (verdict, status, exception) = last(&mut theirs).await;
        assert_ne!(verdict, "tasks_failing");
        assert_eq!((&*status, &*exception), ("", ""));
        // One's own is told, though it is not the newest of all.
        conn.run(cmd![
            "SET",
            "a:celery-task-meta-1",
            result("1", "SUCCESS", 90)
        ])
        .await;
        conn.run("HYGIENE.SCAN").await;
        assert_eq!(last(&mut theirs).await.1, "SUCCESS");
        assert_eq!(last(&mut conn).await.1, "FAILURE");
        server.assert_alive();
    })
    .await;
}

/// `%W~` lets write and not read; a selector gives rights of its own.
#[tokio::test]
async fn who_may_only_write_sees_nothing_and_a_selector_shows_what_it_lets_read() {
    on_every_server(async |binary| {
        if !binary.is_7_0_or_newer() {
            return binary.left_out("a module cannot ask what a user may do");
        }
        let mut server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("key-prefixes", "a: b:")
            .start()
            .await;
        let mut conn = server.connect().await;
        tenant(&mut conn, "b:", SECRET).await;
        tenant(&mut conn, "a:", "lion").await;
        let before = DataSet::of(&server).await;
        let rows = [
            ("writer", vec!["%W~*", "+@all"], false),
            ("reader", vec!["%R~a:*", "+@all"], true),
            ("by-selector", vec!["+ping", "(~a:* +@all)"], true),
            (
                "by-two",
                vec!["+ping", "(%R~a:* +@all)", "(%W~b:* +@all)"],
                true,
            ),
        ];
        for (user, rules, sees) in rows {
            let mut words = cmd!["ACL", "SETUSER", user, "on", "nopass", "&*"];
            words.arg(rules);
            conn.run(words).await;
            let mut theirs = signed_in(&server, user).await;
            let mut told = String::new();
            for command in [
                "HYGIENE.SCAN TOP 100",
                "HYGIENE.KEYS 0 COUNT 10000",
                "HYGIENE.ORPHANS OLDERTHAN 0 LIMIT 1000",
                "HYGIENE.BEATSTATUS VERBOSE",
                "HYGIENE.DOCTOR",
                "HYGIENE.STATS",
                "HYGIENE.JOBS",
            ] {
                let one = said(&theirs.ask(command).await);
                assert!(!one.contains(SECRET), "{user} {command}: {one}");
                told += &one;
            }
            assert_eq!(told.contains("lion"), sees, "{user}: {told}");
            // And to delete by their content takes the right to read that.
            if user != "by-selector" {
                let fixed = theirs.fields("HYGIENE.FIXTTL MAXAGE 1s").await;
                assert_eq!(
                    (fixed.int("stamped"), fixed.int("deleted")),
                    (0, 0),
                    "{user}: {fixed:?}"
                );
                for words in ["REQUEUE", "PURGE reply_queue OLDERTHAN 0"] {
                    conn.run("DEL a:unacked_mutex b:unacked_mutex").await;
                    let told = theirs.fields(format!("HYGIENE.ORPHANS {words}")).await;
                    assert_eq!(
                        (told.int("requeued"), told.int("purged")),
                        (0, 0),
                        "{user} {words}: {told:?}"
                    );
                    for prefix in ["a:", "b:"] {
                        let word = if prefix == "a:" { "lion" } else { SECRET };
                        conn.run(cmd!["SET", format!("{prefix}unacked_mutex"), word])
                            .await;
                    }
                }
            }
            before.assert_same(&DataSet::of(&server).await, user);
        }
        server.assert_alive();
    })
    .await;
}
