//! What SCAN finds wrong: each finding where its cause is, none where it is not, and
//! gone once its advice was followed.

use std::time::Duration;

use redis::Cmd;

use crate::celery::{
    BOUND, Clock, Form, HOUR, Message, SEP, binding, event, iso, queue_key, redbeat_entry,
    redbeat_lock, result, result_key, seed_big_reply_lists, seed_results,
};
use crate::client::{Conn, Fields, ToCmd, int};
use crate::cmd;
use crate::keys::restore_idle;
use crate::server::{Server, Setup, on_every_server, wait_for};

const DAY: i64 = 24 * HOUR;

/// The finding of that code, if the scan tells it.
pub fn finding(scan: &Fields, code: &str) -> Option<Fields> {
    let findings = scan.maps("findings");
    findings
        .into_iter()
        .find(|found| found.text("code") == code)
}

fn codes(scan: &Fields) -> Vec<String> {
    let findings = scan.maps("findings");
    findings.iter().map(|found| found.text("code")).collect()
}

/// Empties the server, lays out a state, and demands the finding with these words in
/// its detail and advice; then follows the advice, after which it is gone.
struct Case<'a> {
    code: &'a str,
    keys: i64,
    words: &'a [&'a str],
    state: Vec<Cmd>,
    /// Keys of the state that were not used for so many seconds.
    idle: &'a [(&'a str, i64)],
    mend: &'a [&'a str],
}

impl Case<'_> {
    async fn hold(self, conn: &mut Conn) {
        let Self { code, .. } = self;
        conn.run("FLUSHALL").await;
        let before = conn.fields("HYGIENE.SCAN").await;
        if code != "default_ttl_not_above_visibility_timeout" {
            assert!(finding(&before, code).is_none(), "{code}: {before:?}");
        }
        conn.pipe(self.state).await;
        for (key, idle_s) in self.idle {
            restore_idle(conn, key, key, *idle_s).await;
        }
        let scan = conn.fields("HYGIENE.SCAN").await;
        let found = finding(&scan, code).unwrap_or_else(|| panic!("{code}: {:?}", codes(&scan)));
        assert_eq!(found.int("keys"), self.keys, "{found:?}");
        let text = format!("{} | {}", found.text("detail"), found.text("advice"));
        for word in self.words {
            assert!(text.contains(word), "{code}: {word:?} in {text}");
        }
        for words in self.mend {
            conn.run(*words).await;
        }
        let after = conn.fields("HYGIENE.SCAN").await;
        assert!(finding(&after, code).is_none(), "{code}: {after:?}");
    }
}

#[tokio::test]
async fn findings_about_results_and_groups_name_what_helps_and_go_with_it() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        let group = r#"{"result": [["g", null], [[["a", null], null], [["b", null], null]]]}"#;
        let cases = [
            Case {
                code: "results_without_ttl",
                keys: 1,
                words: &["1 of 1 task results", "HYGIENE.FIXTTL"],
                state: vec!["SET celery-task-meta-a 1".to_cmd()],
                idle: &[],
                mend: &["HYGIENE.FIXTTL"],
            },
            Case {
                code: "results_over_max_ttl",
                keys: 1,
                words: &["max-ttl (2h)", "HYGIENE.FIXTTL"],
                state: vec![
                    "HYGIENE.CONFIG SET max-ttl 2h".to_cmd(),
                    "SETEX celery-task-meta-a 86400 1".to_cmd(),
                ],
                idle: &[],
                mend: &["HYGIENE.FIXTTL"],
            },
            Case {
                code: "default_ttl_not_above_visibility_timeout",
                keys: 0,
                words: &["visibility-timeout 1h", "CONFIG SET default-ttl 1d"],
                state: vec![],
                idle: &[],
                mend: &["HYGIENE.CONFIG SET default-ttl 1d"],
            },
            Case {
                code: "big_results",
                keys: 1,
                words: &["megabyte", "ignore_result"],
                state: vec![cmd!["SET", "celery-task-meta-a", "x".repeat(1 << 20)]],
                idle: &[],
                mend: &["DEL celery-task-meta-a"],
            },
            Case {
                code: "group_results_without_ttl",
                keys: 1,
                words: &["HYGIENE.FIXTTL CLASS group_result TTL 1d"],
                state: vec![cmd!["SET", "celery-taskset-meta-g", group]],
                idle: &[],
                mend: &["HYGIENE.FIXTTL CLASS group_result TTL 1d"],
            },
            Case {
                code: "groups_of_expired_results",
                keys: 1,
                words: &["will never be ready", "CLASS group_result"],
                state: vec![
                    cmd!["SET", "celery-taskset-meta-g", group],
                    cmd!["SET", "celery-taskset-meta-whole", group.replace('b', "a")],
                    // Saved lately: its tasks may not have begun.
                    cmd!["SET", "celery-taskset-meta-young", group],
                    cmd!["SET", "celery-task-meta-a", 1],
                ],
                idle: &[
                    ("celery-taskset-meta-g", 2 * DAY),
                    ("celery-taskset-meta-whole", 2 * DAY),
                ],
                mend: &["DEL celery-taskset-meta-g"],
            },
            Case {
                code: "chord_remains",
                keys: 1,
                words: &["1 chords", "HYGIENE.ORPHANS PURGE chord"],
                state: vec![
                    "ZADD celery-taskset-meta-g.j 0 a".to_cmd(),
                    "SET celery-taskset-meta-g.s 120000".to_cmd(),
                    "ZADD celery-taskset-meta-live.j 0 a".to_cmd(),
                    "SET celery-taskset-meta-live.s 120000".to_cmd(),
                ],
                // A part of the other was counted a moment ago.
                idle: &[
                    ("celery-taskset-meta-g.j", 2 * DAY),
                    ("celery-taskset-meta-g.s", 2 * DAY),
                    ("celery-taskset-meta-live.j", 2 * DAY),
                ],
                mend: &["HYGIENE.ORPHANS PURGE chord"],
            },
            Case {
                code: "prefix_not_in_settings",
                keys: 2,
                words: &["'shop:', 'site'", "CONFIG SET key-prefixes"],
                state: vec![
                    cmd![
                        "SADD",
                        "shop:_kombu.binding.celery",
                        "celery\x06\x16\x06\x16celery"
                    ],
                    cmd!["SET", "site_celery-task-meta-a", 1],
                ],
                idle: &[],
                mend: &["DEL shop:_kombu.binding.celery site_celery-task-meta-a"],
            },
        ];
        for case in cases {
            // A setting that one case mends is set for those after it.
            let _ = conn
                .ask("HYGIENE.CONFIG SET default-ttl 1h max-ttl 0")
                .await;
            case.hold(&mut conn).await;
        }
        let set = cmd!["HYGIENE.CONFIG", "SET", "key-prefixes", "shop: site"];
        conn.run("SET site_celery-task-meta-a 1").await;
        conn.run(set).await;
        let scan = conn.fields("HYGIENE.SCAN").await;
        assert!(
            finding(&scan, "prefix_not_in_settings").is_none(),
            "{scan:?}"
        );
        assert_eq!(class(&scan, "task_result").int("keys"), 1);
    })
    .await;
}

#[tokio::test]
async fn findings_about_what_processes_left_name_what_helps_and_go_with_it() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        let reply = "0f5ee1b4-3c1c-3b6e-a1f0-6c5bb9b3c5a1.reply.celery.pidbox";
        let bound = "0f5ee1b4-3c1c-3b6e-a1f0-6c5bb9b3c5a2.reply.celery.pidbox";
        let replies = || {
            vec![
                cmd!["LPUSH", reply, 1],
                cmd!["LPUSH", bound, 1],
                binding("reply.celery.pidbox", "a", bound),
            ]
        };
        let events = || {
            vec![
                cmd!["LPUSH", "celeryev.a", event(clock.ago(9))],
                cmd!["LPUSH", "celeryev.b", event(clock.ago(9))],
                binding("celeryev", "#", "celeryev.b"),
            ]
        };
        let late = Message::new("a.b", "late").unacked(clock.ago_s(2 * HOUR));
        let twice = || {
            let message = Message::new("a.b", "same");
            let again = format!(r#"[{}, "", "celery"]"#, message.body());
            let mut state: Vec<Cmd> = message.unacked(clock.ago_s(5)).into();
            state.push(cmd!["HSET", "unacked", "again", again]);
            state
        };
        let cases = [
            Case {
                code: "reply_queues_without_ttl",
                keys: 2,
                words: &["HYGIENE.ORPHANS PURGE reply_queue"],
                state: replies(),
                idle: &[],
                mend: &["HYGIENE.ORPHANS PURGE reply_queue OLDERTHAN 0"],
            },
            Case {
                code: "reply_queues_without_owner",
                keys: 1,
                words: &["no binding", "HYGIENE.ORPHANS PURGE reply_queue"],
                state: replies(),
                idle: &[],
                mend: &["HYGIENE.ORPHANS PURGE reply_queue OLDERTHAN 0"],
            },
            Case {
                code: "event_queues_without_ttl",
                keys: 2,
                words: &["HYGIENE.ORPHANS PURGE event_queue"],
                state: events(),
                idle: &[],
                mend: &["HYGIENE.ORPHANS PURGE event_queue OLDERTHAN 0"],
            },
            Case {
                code: "event_queues_without_owner",
                keys: 1,
                words: &["no binding", "HYGIENE.ORPHANS PURGE event_queue"],
                state: events(),
                idle: &[],
                mend: &["HYGIENE.ORPHANS PURGE event_queue OLDERTHAN 0"],
            },
            Case {
                code: "bindings_without_queue",
                keys: 2,
                words: &["lead to no list", "HYGIENE.ORPHANS PURGE binding"],
                state: vec![
                    // One of a monitor and one of an asker; a worker's never has a list.
                    binding("celeryev", "#", "celeryev.gone"),
                    binding("reply.celery.pidbox", "a", reply),
                    binding("celery.pidbox", "", "w1@lab.celery.pidbox"),
                    binding("celery", "celery", "celery"),
                ],
                idle: &[("_kombu.binding.reply.celery.pidbox", 2 * HOUR)],
                mend: &["HYGIENE.ORPHANS PURGE binding OLDERTHAN 0"],
            },
            Case {
                code: "queues_without_binding",
                keys: 2,
                words: &["'lost', 'shop:lost\\x06\\x163'", "-Q and the queue's name"],
                state: vec![
                    binding("celery", "celery", "celery"),
                    Message::new("a.b", "1").push(),
                    Message::new("a.b", "2").priority(3).push(),
                    Message::new("a.b", "3").queue("lost").push(),
                    cmd!["SADD", "shop:_kombu.binding.mail", "mail::::mail"],
                    cmd!["LPUSH", "shop:mail::9", Message::new("a.b", "4").body()],
                    cmd![
                        "LPUSH",
                        format!("shop:{}", queue_key("lost", 3)),
                        Message::new("a.b", "5").body()
                    ],
                ],
                idle: &[],
                mend: &[
                    "SADD _kombu.binding.lost lost::::lost",
                    "SADD shop:_kombu.binding.lost lost::::lost",
                    "RENAME shop:lost\x06\x163 shop:lost::3",
                ],
            },
            Case {
                code: "locks_without_ttl",
                keys: 1,
                words: &["HYGIENE.FIXTTL CLASS lock"],
                state: vec![cmd!["SET", "SINGLETONLOCK_a", "id"]],
                idle: &[],
                mend: &["HYGIENE.FIXTTL CLASS lock MATCH SINGLETONLOCK_a TTL 1h"],
            },
            Case {
                code: "unacked_mutex_without_ttl",
                keys: 1,
                words: &["EXPIRE unacked_mutex 300"],
                state: vec![cmd!["SET", "unacked_mutex", "t"]],
                idle: &[],
                mend: &["EXPIRE unacked_mutex 300"],
            },
            Case {
                code: "unacked_mutex_without_ttl",
                keys: 1,
                words: &["EXPIRE shop:unacked_mutex 300"],
                state: vec![
                    cmd![
                        "SADD",
                        "shop:_kombu.binding.celery",
                        "celery\x06\x16\x06\x16celery"
                    ],
                    cmd!["SET", "shop:unacked_mutex", "t"],
                ],
                idle: &[],
                mend: &["EXPIRE shop:unacked_mutex 300"],
            },
            Case {
                code: "unacked_older_than_visibility_timeout",
                keys: 2,
                words: &["HYGIENE.ORPHANS REQUEUE"],
                state: late.into(),
                idle: &[],
                mend: &["HYGIENE.ORPHANS REQUEUE"],
            },
            Case {
                code: "unacked_without_index",
                keys: 1,
                words: &["no index"],
                state: Message::new("a.b", "1").unacked(clock.ago_s(5))[1..].to_vec(),
                idle: &[],
                mend: &["DEL unacked"],
            },
            Case {
                code: "duplicate_deliveries",
                keys: 1,
                words: &["visibility_timeout"],
                state: twice(),
                idle: &[],
                mend: &["HDEL unacked again"],
            },
        ];
        for case in cases {
            case.hold(&mut conn).await;
        }
    })
    .await;
}

#[tokio::test]
async fn findings_about_memory_and_schedules_name_what_helps_and_go_with_it() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        let entry = || redbeat_entry("tick", "app.tick", 60, clock.ago(30), clock.ago_s(-30));
        let mut undefined: Vec<Cmd> = entry().into_iter().collect();
        undefined.push(cmd![
            "ZADD",
            "redbeat::schedule",
            clock.ago_s(-60),
            "redbeat:lost"
        ]);
        undefined.push(redbeat_lock(60_000));
        let mut stuck: Vec<Cmd> = entry().into_iter().collect();
        stuck.push(redbeat_lock(60_000));
        stuck.push("PERSIST redbeat::lock".to_cmd());
        let cases = [
            Case {
                code: "eviction_can_drop_work",
                keys: 1,
                words: &["allkeys-lru", "CONFIG SET maxmemory-policy volatile-lru"],
                state: vec![
                    "CONFIG SET maxmemory 500mb".to_cmd(),
                    "CONFIG SET maxmemory-policy allkeys-lru".to_cmd(),
                    Message::new("a.b", "1").push(),
                ],
                idle: &[],
                mend: &["CONFIG SET maxmemory-policy volatile-lru"],
            },
            Case {
                code: "nothing_to_evict",
                keys: 1,
                words: &["volatile-lru", "HYGIENE.FIXTTL"],
                state: vec!["SET celery-task-meta-a 1".to_cmd()],
                idle: &[],
                mend: &["HYGIENE.FIXTTL"],
            },
            Case {
                code: "entry_without_definition",
                keys: 1,
                words: &["redbeat:lost"],
                state: undefined,
                idle: &[],
                mend: &["ZREM redbeat::schedule redbeat:lost"],
            },
            Case {
                code: "lock_without_ttl",
                keys: 1,
                words: &["redbeat::lock"],
                state: stuck,
                idle: &[],
                mend: &["EXPIRE redbeat::lock 60"],
            },
            Case {
                code: "workers_absent",
                keys: 1,
                words: &["queue celery", "start the workers"],
                state: vec![
                    binding("celery", "celery", "celery"),
                    Message::new("a.b", "1").push(),
                ],
                idle: &[],
                mend: &["DEL celery"],
            },
        ];
        for case in cases {
            case.hold(&mut conn).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_queue_that_waiting_workers_leave_is_told_as_unread() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        for queue in ["mail", "other"] {
            conn.run(binding(queue, queue, queue)).await;
        }
        // Of many tasks, so that nothing looks periodic.
        let messages = (0..50).map(|n| {
            let message = Message::new(&format!("app.send{n}"), &n.to_string());
            message.queue("mail").push()
        });
        conn.pipe(messages).await;
        let mut channel = server.connect_resp3().await;
        channel.run("PSUBSCRIBE /0.celery.pidbox").await;
        let mut consumer = server.connect().await;
        let waiting = tokio::spawn(async move { consumer.ask("BRPOP other 0").await.is_ok() });
        let found = wait_for("the finding", Duration::from_secs(20), async || {
            let scan = conn.fields("HYGIENE.SCAN").await;
            finding(&scan, "queue_unread").ok_or_else(|| format!("{:?}", codes(&scan)))
        })
        .await;
        let text = format!("{} | {}", found.text("detail"), found.text("advice"));
        assert!(text.contains("mail") && text.contains("-Q mail"), "{text}");
        assert_eq!(found.text("class"), "queue");
        // A part of the keys says nothing of queues elsewhere.
        let part = conn.fields("HYGIENE.SCAN MATCH celery*").await;
        assert!(finding(&part, "queue_unread").is_none(), "{part:?}");
        waiting.abort();
    })
    .await;
}

/// A message that is good until then.
fn expiring(id: &str, queue: &str, ms: i64) -> Cmd {
    let body = Message::new("a.b", id).queue(queue).body();
    let expires = format!(r#""expires": "{}""#, iso(ms, Form::Utc));
    let marked = body.replace(r#""expires": null"#, &expires);
    assert_ne!(marked, body);
    cmd!["LPUSH", queue, marked]
}

#[tokio::test]
async fn expired_messages_are_found_along_a_list_and_not_only_at_its_ends() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        // The oldest and the newest are good for ever, as a beat leaves it that sends
        // an expiring task between others.
        let mut messages = vec![Message::new("a.b", "first").queue("mixed").push()];
        messages.extend((0..300).map(|n| expiring(&n.to_string(), "mixed", clock.ago(60))));
        messages.push(Message::new("a.b", "last").queue("mixed").push());
        messages.extend((0..300).map(|n| expiring(&n.to_string(), "good", clock.ago(-HOUR))));
        conn.pipe(messages).await;
        let scan = conn.fields("HYGIENE.SCAN").await;
        let expired = finding(&scan, "expired_messages").expect("a finding");
        assert_eq!(expired.int("keys"), 1, "{expired:?}");
        assert!(
            expired
                .text("detail")
                .contains("in 1 lists 16 of 18 messages"),
            "{expired:?}"
        );
        assert!(
            expired.text("advice").contains("start a worker"),
            "{expired:?}"
        );
        conn.run("DEL mixed").await;
        let scan = conn.fields("HYGIENE.SCAN").await;
        assert!(finding(&scan, "expired_messages").is_none(), "{scan:?}");
    })
    .await;
}

fn class(scan: &Fields, name: &str) -> Fields {
    scan.one("classes", "class", name)
}

/// Case C1: what a broker and a scheduler keep, beside one result.
async fn broker_state(conn: &mut Conn, clock: Clock) {
    let message = |id: &str| Message::new("app.add", id).queue("default");
    let mut state: Vec<Cmd> = ["1", "2", "3"].map(|id| message(id).push()).into();
    state.push(message("4").priority(3).push());
    state.extend(message("5").unacked(clock.ago_s(10)));
    state.push(binding("default", "default", "default"));
    let member = format!("default{SEP}{SEP}default");
    state.push(cmd!["SADD", "_kombu.binding_permanent.default", member]);
    let deadline = clock.ago(-HOUR);
    state.push(cmd![
        "ZADD",
        "_kombu.binding_deadlines",
        deadline,
        "default"
    ]);
    state.extend(redbeat_entry(
        "tick",
        "app.tick",
        60,
        clock.ago(30),
        clock.ago_s(-30),
    ));
    state.push(cmd!["SADD", "redbeat::statics", "tick"]);
    state.push(redbeat_lock(1_500_000));
    state.push("SET airflow_variable 1".to_cmd());
    let done = result("r", "SUCCESS", clock.ago(60), Form::Utc);
    state.push(cmd!["SET", result_key("r"), done]);
    conn.pipe(state).await;
}

#[tokio::test]
async fn the_state_of_a_broker_is_counted_class_by_class_and_nothing_of_it_is_an_orphan() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        broker_state(&mut conn, clock).await;
        let scan = conn.fields("HYGIENE.SCAN").await;
        for (name, keys, no_ttl) in [
            ("queue", 2, 2),
            ("unacked", 2, 2),
            ("binding", 3, 3),
            ("redbeat", 4, 3),
            ("task_result", 1, 1),
            ("other", 1, 1),
        ] {
            let seen = class(&scan, name);
            assert_eq!(
                (seen.int("keys"), seen.int("no_ttl")),
                (keys, no_ttl),
                "{name}"
            );
        }
        assert_eq!(class(&scan, "queue").int("length"), 4);
        assert!((10..60).contains(&class(&scan, "unacked").int("oldest_s")));
        for class in ["queue", "unacked", "binding", "redbeat", "other"] {
            let why = conn.error(format!("HYGIENE.FIXTTL CLASS {class}")).await;
            assert!(why.contains("is never touched"), "{class}: {why}");
        }
        let report = conn.fields("HYGIENE.ORPHANS").await;
        for kind in report.maps("orphans") {
            assert_eq!(kind.int("orphans"), 0, "{kind:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn reply_lists_that_hold_all_the_memory_are_told_with_those_that_nobody_owns() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let lists = seed_big_reply_lists(&mut conn).await;
        seed_results(&mut conn, "s", 5000).await;
        let scan = conn.fields("HYGIENE.SCAN").await;
        let all = finding(&scan, "reply_queues_without_ttl").expect("22 without TTL");
        assert_eq!(all.int("keys"), 22);
        let unowned = finding(&scan, "reply_queues_without_owner").expect("10 without binding");
        assert_eq!(unowned.int("keys"), 10);
        let usage = lists[BOUND..]
            .iter()
            .map(|list| cmd!["MEMORY", "USAGE", list, "SAMPLES", 0]);
        let real: i64 = conn.pipe(usage).await.iter().map(int).sum();
        assert!(
            (unowned.int("bytes") - real).abs() * 20 <= real,
            "{unowned:?} for {real}"
        );
        // Where not all keys were asked for, a binding may be among the others.
        let part = conn.fields("HYGIENE.SCAN MATCH *reply.celery.pidbox").await;
        assert!(
            finding(&part, "reply_queues_without_owner").is_none(),
            "{part:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn members_of_a_table_without_a_list_are_counted_less_those_that_live_monitors_may_own() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        let name = |n: usize| format!("celeryev.0f5ee1b4-3c1c-3b6e-a1f0-{n:012}");
        for n in 0..200 {
            let mut push = cmd!["RPUSH", name(n)];
            push.arg((0..50).map(|n| event(clock.ago(n * 2))).collect::<Vec<_>>());
            conn.run(push).await;
        }
        conn.pipe((0..240).map(|n| binding("celeryev", "#", &name(n))))
            .await;
        let scan = conn.fields("HYGIENE.SCAN").await;
        assert_eq!(class(&scan, "event_queue").int("keys"), 200);
        let lost = finding(&scan, "bindings_without_queue").expect("40 members");
        assert_eq!(lost.int("keys"), 40);
        assert!(
            finding(&scan, "event_queues_without_owner").is_none(),
            "all are bound"
        );

        // Three monitors are there: as many members may be theirs.
        let mut monitors = Vec::new();
        for _ in 0..3 {
            let mut monitor = server.connect_resp3().await;
            monitor.run("PSUBSCRIBE /0.celeryev/*").await;
            monitors.push(monitor);
        }
        let scan = conn.fields("HYGIENE.SCAN").await;
        let lost = finding(&scan, "bindings_without_queue").expect("37 members");
        assert_eq!(lost.int("keys"), 37);
        drop(monitors);
        alone(&server).await;

        conn.run("HYGIENE.ORPHANS PURGE event_queue OLDERTHAN 0")
            .await;
        conn.run("HYGIENE.ORPHANS PURGE binding OLDERTHAN 0").await;
        assert_eq!(conn.int("DBSIZE").await, 0);
        let scan = conn.fields("HYGIENE.SCAN").await;
        assert!(
            finding(&scan, "bindings_without_queue").is_none(),
            "{scan:?}"
        );
    })
    .await;
}

/// Waits until nobody is subscribed to a pattern.
async fn alone(server: &Server) {
    let mut conn = server.connect().await;
    wait_for(
        "the monitors to be gone",
        Duration::from_secs(10),
        async || crate::server::same(conn.int("PUBSUB NUMPAT").await, 0),
    )
    .await;
}

#[tokio::test]
async fn a_blocked_restore_is_told_with_its_age_and_its_mutex() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        for n in 0..500 {
            let age_s = 10 + n * (25 * HOUR - 10) / 499;
            let message = Message::new("a.b", &format!("m{n}"));
            conn.pipe(message.unacked(clock.ago_s(age_s))).await;
        }
        conn.run("SET unacked_mutex token").await;
        let scan = conn.fields("HYGIENE.SCAN").await;
        let found: Vec<String> = codes(&scan);
        assert_eq!(
            found[0], "unacked_mutex_without_ttl",
            "the worst first: {found:?}"
        );
        assert!(class(&scan, "unacked").int("oldest_s") >= 25 * HOUR);
        let old = finding(&scan, "unacked_older_than_visibility_timeout").expect("a finding");
        let age_s: i64 = old
            .text("detail")
            .split_whitespace()
            .find_map(|word| word.parse().ok())
            .expect("an age");
        assert!((25 * HOUR..26 * HOUR).contains(&age_s), "{old:?}");
        conn.run("EXPIRE unacked_mutex 300").await;
        let scan = conn.fields("HYGIENE.SCAN").await;
        assert!(
            finding(&scan, "unacked_mutex_without_ttl").is_none(),
            "{scan:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn priorities_behind_another_separator_are_one_queue() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run(cmd!["SADD", "_kombu.binding.mail", "mail::::mail"])
            .await;
        let body = Message::new("a.b", "1").body();
        for (list, count) in [("mail", 1), ("mail::3", 2), ("mail::9", 3), ("post::3", 4)] {
            for _ in 0..count {
                conn.run(cmd!["LPUSH", list, &body]).await;
            }
        }
        conn.run(cmd!["LPUSH", queue_key("celery", 6), &body]).await;
        let scan = conn.fields("HYGIENE.SCAN").await;
        let queues = class(&scan, "queue");
        assert_eq!((queues.int("keys"), queues.int("length")), (5, 11));
        let mut told: Vec<(String, i64)> = queues
            .maps("queues")
            .iter()
            .map(|queue| (queue.text("name"), queue.int("length")))
            .collect();
        told.sort();
        // A name that no table explains stays as it is.
        let expected = [("celery", 1), ("mail", 6), ("post::3", 4)];
        assert_eq!(
            told,
            expected.map(|(name, length)| (name.to_owned(), length))
        );
    })
    .await;
}
