//! HYGIENE.BEATSTATUS: what it says from what lies in Redis, without history
//! (cases C5, C7, C8, C15).

use std::time::Duration;

use futures_util::StreamExt;
use redis::{Cmd, Value};

use crate::celery::{
    Clock, HOUR, Message, SEP, binding, extended, redbeat_entry, redbeat_entry_enabled,
    redbeat_lock, result_key,
};
use crate::client::{Conn, Fields};
use crate::cmd;
use crate::keys::restore_idle;
use crate::server::{Server, Setup, on_every_server, wait_for};

async fn status(conn: &mut Conn) -> Fields {
    conn.fields("HYGIENE.BEATSTATUS").await
}

fn queue(status: &Fields, name: &str) -> Fields {
    status.one("queues", "name", name)
}

/// A worker's control channel, as long as it is kept.
async fn live_worker(server: &Server) -> redis::aio::PubSub {
    let client = redis::Client::open(("127.0.0.1", server.port)).expect("an address");
    let mut channel = client.get_async_pubsub().await.expect("a connection");
    channel
        .psubscribe("/0.celery.pidbox")
        .await
        .expect("a subscription");
    channel
}

#[tokio::test]
async fn nothing_at_all_is_unknown() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        for mut conn in [server.connect().await, server.connect_resp3().await] {
            for words in ["HYGIENE.BEATSTATUS", "HYGIENE.BEATSTATUS VERBOSE"] {
                let status = conn.fields(words).await;
                assert_eq!(status.text("verdict"), "unknown", "{status:?}");
                assert!(!status.text("reason").is_empty());
                assert_eq!(status.map("publisher").text("state"), "unknown");
                assert_eq!(status.map("publisher").text("certainty"), "none");
                assert_eq!(status.map("unacked").int("count"), 0);
                assert_eq!(status.map("workers").int("live"), 0);
                assert!(!status.has("redbeat"), "absent if not used: {status:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn answers_the_fields_of_the_contract() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        conn.pipe(redbeat_entry(
            "a",
            "app.a",
            60,
            clock.ago(30),
            clock.ago_s(-30),
        ))
        .await;
        conn.run(redbeat_lock(1_490_000)).await;
        conn.run(binding("celery", "celery", "celery")).await;
        conn.run(Message::new("app.a", "1").by_beat().push()).await;
        let status = status(&mut conn).await;
        let parts: [(&str, &[&str]); 4] = [
            (
                "publisher",
                &["state", "certainty", "last_seen_ms", "origins", "source"],
            ),
            ("workers", &["live", "bound", "blocked_consumers"]),
            ("unacked", &["count", "oldest_s", "stuck", "mutex"]),
            (
                "redbeat",
                &[
                    "lock_ttl_ms",
                    "entries",
                    "overdue_entries",
                    "entries_without_definition",
                ],
            ),
        ];
        for (part, fields) in parts {
            for field in fields {
                assert!(status.map(part).has(field), "{part}.{field} in {status:?}");
            }
        }
        for field in [
            "length",
            "oldest_message_s",
            "in_per_min",
            "out_per_min",
            "consumed",
            "maintenance",
        ] {
            assert!(queue(&status, "celery").has(field), "{field}");
        }
        assert!(status.has("tasks"));
    })
    .await;
}

#[tokio::test]
async fn beat_alive_and_nobody_reads_its_queue() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("maintenance-queues", "default")
            .start()
            .await;
        let mut conn = server.connect().await;
        let tasks = ["cleanup_a", "cleanup_b", "cleanup_c", "cleanup_d"];
        let messages = (0..1128).map(|n| {
            let task = format!("app.{}", tasks[n % 4]);
            Message::new(&task, &n.to_string())
                .queue("default")
                .origin("gen7@beat")
                .by_beat()
                .push()
        });
        conn.pipe(messages).await;
        conn.run(binding("default", "default", "default")).await;
        conn.run(binding("other", "other", "other")).await;

        let alone = status(&mut conn).await;
        let verdict = alone.text("verdict");
        assert!(
            ["queue_not_consumed", "workers_absent"].contains(&verdict.as_str()),
            "{alone:?}"
        );

        // A worker lives and waits at another queue.
        let _worker = live_worker(&server).await;
        let mut consumer = server.connect().await;
        let waiting = tokio::spawn(async move { consumer.ask("BRPOP other 0").await.is_ok() });
        let what = "the verdict queue_not_consumed with a live worker elsewhere";
        wait_for(what, Duration::from_secs(10), async || {
            let seen = status(&mut conn).await;
            let verdict = seen.text("verdict");
            assert_ne!(verdict, "beat_silent", "{seen:?}");
            if verdict == "queue_not_consumed" && seen.text("reason").contains("default") {
                let stuck = queue(&seen, "default");
                assert_eq!(stuck.int("length"), 1128);
                assert!(seen.map("workers").int("live") >= 1, "{seen:?}");
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await;
        waiting.abort();
    })
    .await;
}

#[tokio::test]
async fn an_empty_maintenance_queue_does_not_hide_what_lies_in_the_next() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run(binding("maintenance", "maintenance", "maintenance"))
            .await;
        conn.run(binding("default", "default", "default")).await;
        conn.run(
            Message::new("app.tick", "1")
                .queue("default")
                .by_beat()
                .push(),
        )
        .await;
        let seen = status(&mut conn).await;
        let publisher = seen.map("publisher");
        assert_eq!(publisher.text("source"), "beat header", "{seen:?}");
    })
    .await;
}

#[tokio::test]
async fn a_redbeat_entry_without_definition_is_told() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        conn.pipe(redbeat_entry(
            "a",
            "app.a",
            60,
            clock.ago(30),
            clock.ago_s(-30),
        ))
        .await;
        conn.run(cmd![
            "ZADD",
            "redbeat::schedule",
            clock.ago_s(-30),
            "redbeat:ghost"
        ])
        .await;
        conn.run(redbeat_lock(1_490_000)).await;
        let redbeat = status(&mut conn).await.map("redbeat");
        assert_eq!(redbeat.int("entries"), 2, "{redbeat:?}");
        assert_eq!(redbeat.int("entries_without_definition"), 1);
        assert_eq!(redbeat.int("overdue_entries"), 0);
        let told = format!("{:?}", conn.fields("HYGIENE.BEATSTATUS VERBOSE").await);
        assert!(told.contains("ghost"), "VERBOSE names it: {told}");
    })
    .await;
}

/// What lies in Redis, and what may be said of it.
struct Redbeat {
    what: &'static str,
    load: fn(Clock) -> Vec<Cmd>,
    states: &'static [&'static str],
    overdue: i64,
}

const REDBEAT: &[Redbeat] = &[
    Redbeat {
        what: "a lock that is renewed and a schedule ahead",
        load: |clock| {
            let mut all: Vec<Cmd> =
                redbeat_entry("a", "app.a", 60, clock.ago(30), clock.ago_s(-30)).into();
            all.push(redbeat_lock(1_495_000));
            all
        },
        states: &["alive"],
        overdue: 0,
    },
    Redbeat {
        what: "a lock without TTL proves nothing",
        load: |clock| {
            let mut all: Vec<Cmd> =
                redbeat_entry("a", "app.a", 60, clock.ago(2 * HOUR), clock.ago_s(900)).into();
            all.push(redbeat_lock(1_495_000));
            all.push(cmd!["PERSIST", "redbeat::lock"]);
            all
        },
        states: &["late", "silent"],
        overdue: 1,
    },
    Redbeat {
        what: "a lock is there, and the smallest enabled score is 900 s past",
        load: |clock| {
            let mut all: Vec<Cmd> =
                redbeat_entry("a", "app.a", 60, clock.ago(960), clock.ago_s(900)).into();
            all.extend(redbeat_entry(
                "b",
                "app.b",
                HOUR,
                clock.ago(960),
                clock.ago_s(-2640),
            ));
            all.push(redbeat_lock(600_000));
            all
        },
        states: &["late", "silent"],
        overdue: 1,
    },
    Redbeat {
        what: "entries switched off or finished are no sign",
        load: |clock| {
            let off =
                |name, due| redbeat_entry_enabled(name, "app.x", 60, clock.ago(90_000), due, false);
            let mut all: Vec<Cmd> = off("off", clock.ago_s(90_000)).into();
            all.extend(redbeat_entry("ended", "app.y", 60, clock.ago(90_000), -1));
            all
        },
        states: &["unknown"],
        overdue: 0,
    },
];

#[tokio::test]
async fn redbeats_lock_and_schedule_are_read_for_what_they_prove() {
    on_every_server(async |binary| {
        for row in REDBEAT {
            // A fresh server each: what was seen before must not count.
            let server = Setup::on(binary).start().await;
            let mut conn = server.connect().await;
            let clock = Clock::of(&mut conn).await;
            conn.pipe((row.load)(clock)).await;
            let seen = status(&mut conn).await;
            let state = seen.map("publisher").text("state");
            assert!(
                row.states.contains(&state.as_str()),
                "{}: {state} in {seen:?}",
                row.what
            );
            assert_eq!(
                seen.map("redbeat").int("overdue_entries"),
                row.overdue,
                "{}",
                row.what
            );
            let verdict = seen.text("verdict");
            match state.as_str() {
                "alive" => assert_ne!(verdict, "beat_silent", "{}", row.what),
                "unknown" => assert_eq!(verdict, "unknown", "{}", row.what),
                _ => assert_eq!(verdict, "beat_silent", "{}: {seen:?}", row.what),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn no_schedule_at_all_is_no_evidence() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run(binding("celery", "celery", "celery")).await;
        let member = format!("{SEP}{SEP}w1@lab.celery.pidbox");
        conn.run(cmd!["SADD", "_kombu.binding.celery.pidbox", member])
            .await;
        let seen = status(&mut conn).await;
        assert_eq!(seen.text("verdict"), "unknown", "{seen:?}");
        assert_eq!(seen.map("publisher").text("state"), "unknown");
        assert!(!seen.has("redbeat"));
        let bound = format!("{:?}", seen.map("workers").get("bound"));
        assert!(bound.contains("w1@lab"), "{bound}");
    })
    .await;
}

#[tokio::test]
async fn a_blocked_restore_is_told_with_its_mutex() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        conn.run("SET unacked_mutex 0f5ee1b4").await;
        let entries = (0..500).flat_map(|n| {
            let age = 10 + n * (25 * HOUR - 10) / 499;
            Message::new("app.a", &n.to_string()).unacked(clock.ago_s(age))
        });
        conn.pipe(entries).await;
        let seen = status(&mut conn).await;
        assert_eq!(seen.text("verdict"), "unacked_stuck", "{seen:?}");
        assert!(
            seen.text("reason").contains("unacked_mutex"),
            "{}",
            seen.text("reason")
        );
        let unacked = seen.map("unacked");
        assert_eq!(unacked.int("count"), 500);
        let oldest = unacked.int("oldest_s");
        assert!(
            (25 * HOUR - 5..=25 * HOUR + 60).contains(&oldest),
            "{oldest}"
        );
        // Every one delivered longer ago than the visibility timeout, of an hour.
        let stuck = (0..500)
            .filter(|n| 10 + n * (25 * HOUR - 10) / 499 > HOUR)
            .count();
        let told = unacked.int("stuck");
        let expected = i64::try_from(stuck).unwrap();
        assert!((told - expected).abs() <= 1, "{told} of {expected}");
    })
    .await;
}

#[tokio::test]
async fn a_message_that_waits_for_its_eta_is_not_stuck() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        let message = Message::new("app.a", "1").eta(clock.ago(-6 * HOUR));
        conn.pipe(message.unacked(clock.ago_s(5 * HOUR))).await;
        let seen = status(&mut conn).await;
        let unacked = seen.map("unacked");
        assert_eq!(
            (unacked.int("count"), unacked.int("stuck")),
            (1, 0),
            "{seen:?}"
        );
        assert_ne!(seen.text("verdict"), "unacked_stuck");

        let past = Message::new("app.a", "2").eta(clock.ago(4 * HOUR));
        conn.pipe(past.unacked(clock.ago_s(5 * HOUR))).await;
        let seen = status(&mut conn).await;
        assert_eq!(
            seen.map("unacked").int("stuck"),
            1,
            "one whose eta has passed is"
        );
    })
    .await;
}

/// What is broken, how it is loaded, and a command that must be told for it.
type Broken = (&'static str, fn(Clock) -> Vec<Cmd>, &'static [&'static str]);

const BROKEN: &[Broken] = &[
    (
        "nothing",
        |_| Vec::new(),
        &["HYGIENE.CONFIG SET expected-tasks"],
    ),
    (
        "a queue without a worker",
        |_| {
            vec![
                binding("reports", "reports", "reports"),
                Message::new("app.report", "1")
                    .queue("reports")
                    .by_beat()
                    .push(),
            ]
        },
        &[
            "celery -A PROJECT worker -Q reports",
            "HYGIENE.TRIGGER app.report",
        ],
    ),
    (
        "a queue that no table names",
        |_| {
            vec![
                binding("celery", "celery", "celery"),
                Message::new("app.report", "1")
                    .queue("reports")
                    .by_beat()
                    .push(),
            ]
        },
        &["HYGIENE.TRIGGER app.report QUEUE reports DB 2"],
    ),
    (
        "a mutex that never expires",
        |clock| {
            let mut all = vec![cmd!["SET", "unacked_mutex", "0f5ee1b4"]];
            all.extend(Message::new("app.a", "1").unacked(clock.ago_s(9 * HOUR)));
            all
        },
        &["SELECT 2", "EXPIRE unacked_mutex 300", "HYGIENE.ORPHANS"],
    ),
    (
        "an old delivery",
        |clock| {
            Message::new("app.a", "1")
                .unacked(clock.ago_s(9 * HOUR))
                .into()
        },
        &["HYGIENE.CONFIG GET visibility-timeout", "HYGIENE.ORPHANS"],
    ),
    (
        "RedBeat's lock that never expires, and an entry long overdue",
        |clock| {
            let mut all: Vec<Cmd> =
                redbeat_entry("a", "app.a", 60, clock.ago(2 * HOUR), clock.ago_s(2 * HOUR)).into();
            all.push(binding("celery", "celery", "celery"));
            all.push(redbeat_lock(1_495_000));
            all.push(cmd!["PERSIST", "redbeat::lock"]);
            all
        },
        &[
            "celery -A PROJECT beat -S redbeat.RedBeatScheduler",
            "EXPIRE redbeat::lock 1500",
            "HYGIENE.TRIGGER app.a",
        ],
    ),
];

/// The commands of the text, of the list at its end.
fn commands(said: &str) -> Vec<String> {
    let (_, list) = said.split_once("TYPE NEXT\n").expect("a list");
    let lines = list.lines().filter_map(|line| line.strip_prefix("  "));
    let commands = lines.filter(|line| !line.starts_with(' '));
    commands.map(str::to_owned).collect()
}

#[tokio::test]
async fn the_commands_to_type_next_are_right_and_run_as_they_are_printed() {
    on_every_server(async |binary| {
        for (what, load, wanted) in BROKEN {
            let server = Setup::on(binary).start().await;
            let mut broker = server.connect_db(2).await;
            let clock = Clock::of(&mut broker).await;
            broker.pipe(load(clock)).await;
            let mut conn = server.connect().await;
            let said = conn.text("HYGIENE.DOCTOR").await;
            let commands = commands(&said);
            for command in *wanted {
                let told = commands.iter().any(|told| told.starts_with(command));
                assert!(told, "{what}: no {command} in {said}");
            }
            let verbose = conn.fields("HYGIENE.BEATSTATUS VERBOSE").await;
            let next = verbose.maps("next");
            let as_data: Vec<String> = next.iter().map(|step| step.text("command")).collect();
            assert_eq!(as_data, commands, "{what}: the same as data");
            assert!(next.iter().all(|step| !step.text("what_for").is_empty()));
            for command in commands {
                if command.starts_with("celery ") || command.starts_with("ps ") {
                    continue;
                }
                let waits = command.starts_with("HYGIENE.TRIGGER");
                let typed = format!("{command}{}", if waits { " TIMEOUT 1" } else { "" });
                if let Err(error) = conn.ask(typed.as_str()).await {
                    panic!("{what}: {typed}: {error}");
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_priorities_of_a_queue_are_one_length() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run(binding("celery", "celery", "celery")).await;
        for (priority, count) in [(0, 1), (3, 2), (6, 3), (9, 4)] {
            for n in 0..count {
                let id = format!("{priority}-{n}");
                conn.run(Message::new("a.b", &id).priority(priority).push())
                    .await;
            }
        }
        let seen = status(&mut conn).await;
        assert_eq!(queue(&seen, "celery").int("length"), 10);
        let names: Vec<String> = seen
            .named("queues", "name")
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert!(!names.iter().any(|name| name.contains(SEP)), "{names:?}");
    })
    .await;
}

#[tokio::test]
async fn an_expected_task_is_found_by_its_message_and_its_result() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("expected-tasks", "app.cleanup=1h app.never=10m")
            .start()
            .await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        conn.run(binding("maintenance", "maintenance", "maintenance"))
            .await;
        conn.run(
            Message::new("app.cleanup", "1")
                .queue("maintenance")
                .by_beat()
                .push(),
        )
        .await;
        let done = extended("2", "app.cleanup", "SUCCESS", clock.ago(1200));
        conn.run(cmd!["SET", result_key("2"), done]).await;
        // Names of results are known from the last scan.
        conn.run("HYGIENE.SCAN").await;
        let seen = status(&mut conn).await;
        let task = seen.one("tasks", "name", "app.cleanup");
        assert_eq!(task.int("interval_s"), 3600);
        assert_eq!(task.text("last_status"), "SUCCESS");
        assert_eq!(task.int("last_finished_ms"), clock.ago(1200));
        assert_eq!(
            seen.one("tasks", "name", "app.never").int("interval_s"),
            600
        );
        assert!(queue(&seen, "maintenance").has("maintenance"));
        assert_ne!(seen.text("verdict"), "healthy", "{seen:?}");
    })
    .await;
}

#[tokio::test]
async fn works_in_scripts_and_transactions() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let script = "return redis.call('HYGIENE.BEATSTATUS')";
        let mut forms = vec!["EVAL"];
        if binary.is_7_0_or_newer() {
            forms.push("EVAL_RO");
        }
        for form in forms {
            let status = conn.fields(cmd![form, script, 0]).await;
            assert_eq!(status.text("verdict"), "unknown", "{form}");
        }
        let answers = conn.transaction(&[cmd!["HYGIENE.BEATSTATUS"]]).await;
        let answers = answers.expect("the transaction runs");
        assert_eq!(Fields::of(&answers[0]).text("verdict"), "unknown");
    })
    .await;
}

#[tokio::test]
async fn is_read_only_and_works_on_a_replica() {
    on_every_server(async |binary| {
        let primary = Setup::on(binary).start().await;
        let replica = Setup::on(binary).replica_of(&primary).start().await;
        let mut conn = primary.connect().await;
        let clock = Clock::of(&mut conn).await;
        conn.pipe(Message::new("app.a", "1").unacked(clock.ago_s(5 * HOUR)))
            .await;
        crate::data::wait_until_in_step(&primary, &replica).await;
        let seen = status(&mut replica.connect().await).await;
        assert_eq!(seen.map("unacked").int("stuck"), 1);
    })
    .await;
}

#[tokio::test]
async fn looking_is_no_use_of_what_is_looked_at() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        let host = "w1@lab.celery.pidbox";
        conn.run(binding("celery.pidbox", "", host)).await;
        for n in 0..700 {
            let queue = format!("queue-{n}");
            conn.run(binding("celery", &queue, &queue)).await;
        }
        conn.run(Message::new("a.b", "1").push()).await;
        conn.pipe(Message::new("a.b", "2").unacked(clock.ago_s(60)))
            .await;
        let due_s = clock.ago_s(-60);
        conn.pipe(redbeat_entry(
            "nightly",
            "app.nightly",
            60,
            clock.ago(0),
            due_s,
        ))
        .await;
        let keys = [
            "_kombu.binding.celery.pidbox",
            "_kombu.binding.celery",
            "celery",
            "unacked",
            "unacked_index",
            "redbeat::schedule",
            "redbeat:nightly",
        ];
        for key in keys {
            restore_idle(&mut conn, key, key, 3 * HOUR).await;
        }
        for question in ["HYGIENE.BEATSTATUS VERBOSE", "HYGIENE.DOCTOR"] {
            conn.value(question).await;
        }
        let seen = status(&mut conn).await;
        let bound = format!("{:?}", seen.map("workers").get("bound"));
        assert!(bound.contains("w1@lab"), "{bound}");
        assert_eq!(seen.map("unacked").int("count"), 1, "{seen:?}");
        conn.run("HYGIENE.SCAN").await;
        for key in keys {
            let idle = conn.int(cmd!["OBJECT", "IDLETIME", key]).await;
            assert!(idle >= 2 * HOUR, "{key}: {idle} s after {}", binary.name);
        }
    })
    .await;
}

#[tokio::test]
async fn looking_for_what_is_not_there_is_no_keymiss_for_anybody() {
    on_every_server(async |binary| {
        // With it the server lets a module look at keys without telling.
        if !binary.stamps_in_the_same_unit() {
            return binary.left_out("it tells of each key that a module looks for in vain");
        }
        let server = Setup::on(binary)
            .setting("verdict-interval", "1s")
            .config("notify-keyspace-events KEm")
            .start()
            .await;
        let client = redis::Client::open(("127.0.0.1", server.port)).expect("an address");
        let mut channel = client.get_async_pubsub().await.expect("a connection");
        channel
            .psubscribe("__keyevent@*__:keymiss")
            .await
            .expect("a subscription");
        let mut conn = server.connect().await;
        conn.run("HYGIENE.BEATSTATUS").await;
        wait_for(
            "a look by itself",
            Duration::from_secs(30),
            async || match conn.info("hygiene", "hygiene_looks_total").await.as_deref() {
                None | Some("0") => Err("none".to_owned()),
                _ => Ok(()),
            },
        )
        .await;
        // What is heard first is what the client itself asks for now.
        conn.run("GET mine").await;
        let mut told = channel.on_message();
        let first = tokio::time::timeout(Duration::from_secs(30), told.next()).await;
        let key: String = first
            .expect("in time")
            .expect("a message")
            .get_payload()
            .expect("text");
        assert_eq!(key, "mine");
    })
    .await;
}

#[tokio::test]
async fn the_doctor_says_in_words_what_beatstatus_says_as_data() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run(binding("celery", "celery", "celery")).await;
        conn.run(binding("maintenance", "maintenance", "maintenance"))
            .await;
        let message = Message::new("app.tick", "1").queue("maintenance").by_beat();
        conn.run(message.push()).await;
        let status = status(&mut conn).await;
        let said = conn.text("HYGIENE.DOCTOR").await;
        let verdict = format!("{}: ", status.text("verdict"));
        assert!(said.starts_with(&verdict), "{verdict} and {said}");
        for part in [
            "WHAT IS WRONG, worst first",
            "maintenance: 1 message",
            "celery -A PROJECT worker -Q maintenance",
            "HYGIENE.BEATSTATUS VERBOSE",
        ] {
            assert!(said.contains(part), "no {part} in {said}");
        }
        assert!(
            said.lines().all(|line| line.chars().count() <= 80),
            "{said}"
        );

        let mut resp3 = server.connect_resp3().await;
        let raw = resp3.value("HYGIENE.DOCTOR").await;
        assert!(
            matches!(&raw, Value::VerbatimString { text, .. } if text.starts_with(&verdict)),
            "{raw:?}"
        );
        let told = conn.error("HYGIENE.DOCTOR now").await;
        assert!(told.contains("wrong number of arguments"), "{told}");
        // It only looks, so a script may ask.
        let said = conn
            .text(cmd!["EVAL", "return redis.call('HYGIENE.DOCTOR')", 0])
            .await;
        assert!(said.starts_with(&verdict), "{said}");

        if binary.is_7_0_or_newer() {
            conn.run("ACL SETUSER half on nopass %R~_kombu* +@all")
                .await;
            conn.run("AUTH half any").await;
            let said = conn.text("HYGIENE.DOCTOR").await;
            assert!(said.contains("not looked at: 1"), "{said}");
            assert!(!said.contains("app.tick"), "{said}");
        }
    })
    .await;
}
