//! Loading, unloading, settings given at load and later, and what is refused.

use redis::Value;

use crate::celery::Message;
use crate::client::{Conn, Fields, list, text};
use crate::cmd;
use crate::server::{Setup, module_path, on_every_server, on_every_server_and_the_faulty};

/// A duration setting in seconds, however the server writes it back.
fn seconds(value: &str) -> u64 {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &value[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        other => panic!("{value:?} has the unit {other:?}"),
    };
    digits.parse::<u64>().expect("a number") * unit
}

/// `HYGIENE.CONFIG GET name`: named fields with one field.
async fn setting(conn: &mut Conn, name: &str) -> String {
    let fields = conn.fields(cmd!["HYGIENE.CONFIG", "GET", name]).await;
    assert_eq!(fields.names(), [name], "one setting was asked for");
    fields.text(name)
}

/// Before a module has told its name its lines are marked `<module>`.
fn by_the_module(line: &str) -> bool {
    line.contains("<hygiene>") || line.contains("<module>")
}

async fn modules(conn: &mut Conn) -> Vec<String> {
    list(&conn.value("MODULE LIST").await)
        .iter()
        .map(|module| Fields::of(module).text("name"))
        .collect()
}

#[tokio::test]
async fn loads_at_start_and_is_listed() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        assert!(modules(&mut conn).await.contains(&"hygiene".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn tells_in_the_log_what_works_how_on_this_server() {
    on_every_server_and_the_faulty(async |binary| {
        let server = Setup::on(binary).start().await;
        let log = server.log();
        let told: Vec<&str> = log
            .lines()
            .filter(|line| by_the_module(line) && line.contains("loaded on"))
            .collect();
        let [line] = told[..] else {
            panic!("one line, once: {told:#?}")
        };
        let modern = binary.is_7_0_or_newer();
        let words = [
            binary.name.as_str(),
            if binary.stamps_in_the_same_unit() {
                "same unit as the write"
            } else {
                "same event-loop turn"
            },
            if binary.generic_events_do_harm() {
                "RESTORE by the next sweep"
            } else {
                "RESTORE too"
            },
            if modern {
                "settings by CONFIG"
            } else {
                "settings by HYGIENE.CONFIG only"
            },
            if modern {
                "; rights are checked"
            } else {
                "no rights are checked"
            },
            if modern { "maps" } else { "flat lists" },
        ];
        for words in words {
            assert!(line.contains(words), "{words} in {line}");
        }
        // It tells what the server says of its own commands, too.
        let mut conn = server.connect().await;
        let own = conn.ask("ACL CAT hygiene").await.is_ok();
        assert_eq!(line.contains("@hygiene"), own, "{line}");
    })
    .await;
}

#[tokio::test]
async fn is_refused_a_second_time_and_goes_on_working() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.error(cmd!["MODULE", "LOAD", module_path().to_str()])
            .await;
        let log = server.log();
        let ours = |line: &str| by_the_module(line) && line.contains("loaded already");
        assert!(log.lines().any(ours), "no reason in:\n{log}");
        let loaded = modules(&mut conn).await;
        assert_eq!(loaded.iter().filter(|name| *name == "hygiene").count(), 1);
        conn.run("SET celery-task-meta-a 1").await;
        conn.assert_given(3600, "celery-task-meta-a").await;
    })
    .await;
}

#[tokio::test]
async fn can_be_unloaded_when_idle_and_loaded_again() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        for round in 0..3 {
            conn.run(cmd!["SET", format!("celery-task-meta-{round}"), 1])
                .await;
            // A stamp of a moment ago may still hold a timer.
            conn.unload_when_idle().await;
            assert!(!modules(&mut conn).await.contains(&"hygiene".to_owned()));
            conn.run("SET celery-task-meta-without 1").await;
            assert_eq!(conn.ttl("celery-task-meta-without").await, -1);
            conn.run(cmd![
                "MODULE",
                "LOAD",
                module_path().to_str(),
                "default-ttl",
                "77",
                "sweep-on-start",
                "no"
            ])
            .await;
            conn.run("SET celery-task-meta-with 1").await;
            conn.assert_given(77, "celery-task-meta-with").await;
            server.assert_alive();
        }
    })
    .await;
}

#[tokio::test]
async fn users_of_a_file_may_name_its_commands_from_the_start() {
    on_every_server(async |binary| {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("users.acl");
        let users = "user default on nopass ~* &* +@all\n\
                     user monitor on >secret ~* -@all +hygiene.beatstatus +ping\n";
        std::fs::write(&file, users).expect("a file of users");
        let line = format!("aclfile {}", file.display());
        let mut server = Setup::on(binary).config(&line).start().await;
        for _ in 0..2 {
            let mut conn = server.connect().await;
            conn.run("ACL SAVE").await;
            conn.run("ACL LOAD").await;
            conn.run("AUTH monitor secret").await;
            conn.run("HYGIENE.BEATSTATUS").await;
            let refused = conn.error("HYGIENE.FIXTTL").await;
            assert!(refused.starts_with("NOPERM"), "{refused}");
            server.kill_9();
            server.start_again().await;
        }
    })
    .await;
}

#[tokio::test]
async fn is_not_unloaded_while_a_users_rules_name_its_commands() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        for rules in ["+@all -hygiene.fixttl", "-@all +hygiene.beatstatus +ping"] {
            conn.run(format!("ACL SETUSER app on >secret ~* {rules}"))
                .await;
            conn.error("MODULE UNLOAD hygiene").await;
            server.assert_alive();
            // Valkey may see it by itself.
            let log = server.log();
            let told = |line: &str| line.contains("ACL user") || line.contains("ACL rule");
            assert!(log.lines().any(told), "no reason in:\n{log}");
            conn.run("ACL LIST").await;
            assert_eq!(seconds(&setting(&mut conn, "default-ttl").await), 3600);
        }
        conn.run("ACL SETUSER app +@all").await;
        conn.unload_when_idle().await;
        conn.run("ACL LIST").await;
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn takes_settings_behind_loadmodule() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("default-ttl", "15m")
            .setting(
                "exempt-keys",
                "celery-task-meta-keep* celery-task-meta-hold*",
            )
            .start()
            .await;
        let mut conn = server.connect().await;
        assert_eq!(seconds(&setting(&mut conn, "default-ttl").await), 900);
        assert_eq!(
            setting(&mut conn, "exempt-keys").await,
            "celery-task-meta-keep* celery-task-meta-hold*"
        );
        assert_eq!(setting(&mut conn, "enforce").await, "yes", "the default");
        if binary.is_7_0_or_newer() {
            let answer = conn.fields("CONFIG GET hygiene.default-ttl").await;
            assert_eq!(seconds(&answer.text("hygiene.default-ttl")), 900);
        }
        conn.run("SET celery-task-meta-a 1").await;
        conn.assert_given(900, "celery-task-meta-a").await;
    })
    .await;
}

#[tokio::test]
async fn a_bad_argument_stops_the_load_with_the_reason_in_the_log() {
    on_every_server(async |binary| {
        let rows = [
            ("an unknown name", "no-such-setting 5", "no-such-setting"),
            ("a missing value", "default-ttl", "default-ttl"),
            ("a TTL of nothing", "default-ttl 0", "default-ttl"),
            ("a TTL that is no duration", "default-ttl banana", "banana"),
            ("a float", "default-ttl 1e3", "1e3"),
            ("a negative duration", "max-age -1", "max-age"),
            ("a jitter above its bound", "ttl-jitter 51%", "ttl-jitter"),
            (
                "a word that is neither yes nor no",
                "enforce maybe",
                "maybe",
            ),
            ("a basis that is none", "ttl-basis then", "then"),
            (
                "an interval without a name",
                "expected-tasks =1h",
                "expected-tasks",
            ),
            ("a share above the whole", "cpu-percent 101", "cpu-percent"),
            (
                "a class that holds work",
                "sweep-orphans queue",
                "expected some of requeue",
            ),
        ];
        for (what, arguments, told) in rows {
            match Setup::on(binary).arguments(arguments).try_start().await {
                Ok(_) => panic!("{what}: {} started with {arguments}", binary.name),
                Err(log) => {
                    let ours = |line: &str| by_the_module(line) && line.contains(told);
                    assert!(
                        log.lines().any(ours),
                        "{what}: no reason with {told} in:\n{log}"
                    );
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_bad_argument_of_module_load_leaves_the_server_as_it_was() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).without_module().start().await;
        let mut conn = server.connect().await;
        let file = module_path();
        for (words, told) in [
            (["default-ttl", "banana"], "banana"),
            (["no-such-setting", "5"], "no-such-setting"),
            (["sweep-orphans", "queue"], "expected some of requeue"),
        ] {
            let load = cmd!["MODULE", "LOAD", file.to_str(), words[0], words[1]];
            let error = conn.error(load).await;
            assert!(error.starts_with("ERR "), "{error}");
            let log = server.log();
            let ours = |line: &str| by_the_module(line) && line.contains(told);
            assert!(log.lines().any(ours), "no reason with {told} in:\n{log}");
            assert!(!modules(&mut conn).await.contains(&"hygiene".to_owned()));
            conn.run("SET celery-task-meta-without 1").await;
            assert_eq!(conn.ttl("celery-task-meta-without").await, -1);
        }
        // And the next load, without it, is one as any other.
        let load = cmd!["MODULE", "LOAD", file.to_str(), "sweep-on-start", "no"];
        conn.run(load).await;
        conn.run("SET celery-task-meta-with 1").await;
        assert_eq!(conn.ttl("celery-task-meta-with").await, 3600);
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn where_replicas_could_not_be_told_of_a_ttl_it_is_not_loaded() {
    on_every_server(async |binary| {
        let hidden = Setup::on(binary).config("rename-command PEXPIREAT \"\"");
        match hidden.clone().try_start().await {
            Ok(_) => panic!("{} started", binary.name),
            Err(log) => {
                let ours = |line: &str| by_the_module(line) && line.contains("hides PEXPIREAT");
                assert!(log.lines().any(ours), "no reason in:\n{log}");
            }
        }
        let mut server = hidden.without_module().start().await;
        let mut conn = server.connect().await;
        conn.error(cmd!["MODULE", "LOAD", module_path().to_str()])
            .await;
        assert!(!modules(&mut conn).await.contains(&"hygiene".to_owned()));
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn loadex_takes_settings_and_arguments_and_the_settings_win() {
    on_every_server(async |binary| {
        if !binary.is_7_0_or_newer() {
            return binary.left_out("it has no MODULE LOADEX");
        }
        let mut server = Setup::on(binary).without_module().start().await;
        let mut conn = server.connect().await;
        let file = module_path();
        let loadex = |words: &str| {
            let mut load = cmd!["MODULE", "LOADEX", file.to_str()];
            load.arg(words.split_whitespace().collect::<Vec<_>>());
            load
        };
        for (words, told) in [
            ("CONFIG hygiene.default-ttl banana", "banana"),
            ("ARGS default-ttl banana", "banana"),
            ("CONFIG hygiene.default-ttl 5m ARGS enforce", "enforce"),
        ] {
            conn.error(loadex(words)).await;
            let log = server.log();
            assert!(
                log.lines().any(|line| line.contains(told)),
                "{words}: {log}"
            );
            assert!(!modules(&mut conn).await.contains(&"hygiene".to_owned()));
        }
        let words = "CONFIG hygiene.default-ttl 5m CONFIG hygiene.sweep-on-start no \
                     ARGS default-ttl 7m max-age 3h sweep-on-start yes";
        conn.run(loadex(words)).await;
        for (name, expected) in [("default-ttl", 300), ("max-age", 3 * 3600)] {
            assert_eq!(seconds(&setting(&mut conn, name).await), expected, "{name}");
        }
        assert_eq!(setting(&mut conn, "sweep-on-start").await, "no");
        conn.run("SET celery-task-meta-a 1").await;
        conn.assert_given(300, "celery-task-meta-a").await;

        // What was loaded so is there again after a restart.
        conn.run("CONFIG REWRITE").await;
        server.shut_down("NOSAVE");
        server.start_again().await;
        let mut conn = server.connect().await;
        for (name, expected) in [("default-ttl", 300), ("max-age", 3 * 3600)] {
            assert_eq!(seconds(&setting(&mut conn, name).await), expected, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn hygiene_config_sets_and_gets_on_every_server() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let done = conn.value("HYGIENE.CONFIG SET default-ttl 2h").await;
        assert_eq!(done, redis::Value::Okay, "as CONFIG SET answers");
        assert_eq!(seconds(&setting(&mut conn, "default-ttl").await), 7200);
        conn.run("SET celery-task-meta-a 1").await;
        conn.assert_given(7200, "celery-task-meta-a").await;

        let before = setting(&mut conn, "default-ttl").await;
        for (words, told) in [
            ("HYGIENE.CONFIG SET default-ttl banana", "banana"),
            ("HYGIENE.CONFIG SET default-ttl 0", "default-ttl"),
            ("HYGIENE.CONFIG SET no-such-setting 5", "no-such-setting"),
            ("HYGIENE.CONFIG FORGET default-ttl", "FORGET"),
        ] {
            let error = conn.error(words).await;
            assert!(
                error.starts_with("ERR ") && error.contains(told),
                "{words}: {error}"
            );
        }
        assert_eq!(setting(&mut conn, "default-ttl").await, before);
    })
    .await;
}

#[tokio::test]
async fn config_set_refuses_a_bad_value_and_keeps_the_old_one() {
    on_every_server(async |binary| {
        if !binary.is_7_0_or_newer() {
            return binary.left_out("modules have no settings in CONFIG");
        }
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run("CONFIG SET hygiene.default-ttl 90s").await;
        let durations = &["90s", "15m", "2h", "7d"][..];
        let rows = [
            ("hygiene.default-ttl", "banana", durations),
            ("hygiene.default-ttl", "0", &["at least"]),
            ("hygiene.ttl-jitter", "60%", &["50%"]),
            ("hygiene.ttl-basis", "then", &["done"]),
            ("hygiene.expected-tasks", "cleanup", &["="]),
        ];
        for (name, value, any_of) in rows {
            let before = conn.value(cmd!["CONFIG", "GET", name]).await;
            let error = conn.error(cmd!["CONFIG", "SET", name, value]).await;
            let told = any_of.iter().any(|part| error.contains(part));
            assert!(told, "{name} {value} says what would be right: {error}");
            assert_eq!(
                conn.value(cmd!["CONFIG", "GET", name]).await,
                before,
                "{name}"
            );
        }
        conn.run("SET celery-task-meta-a 1").await;
        conn.assert_given(90, "celery-task-meta-a").await;
    })
    .await;
}

#[tokio::test]
async fn config_rewrite_keeps_settings_over_a_restart() {
    on_every_server(async |binary| {
        if !binary.is_7_0_or_newer() {
            return binary.left_out("modules have no settings in CONFIG");
        }
        let mut server = Setup::on(binary).setting("max-age", "3h").start().await;
        let mut conn = server.connect().await;
        conn.run("CONFIG SET hygiene.default-ttl 90s").await;
        conn.run("CONFIG REWRITE").await;
        server.shut_down("NOSAVE");
        server.start_again().await;
        let mut conn = server.connect().await;
        assert_eq!(seconds(&setting(&mut conn, "default-ttl").await), 90);
        assert_eq!(seconds(&setting(&mut conn, "max-age").await), 3 * 3600);
    })
    .await;
}

#[tokio::test]
async fn arguments_that_are_lists_outlive_config_rewrite() {
    on_every_server(async |binary| {
        let words = [
            (
                r#"expected-tasks "a=1h b=10m""#,
                "expected-tasks",
                "a=1h b=10m",
            ),
            (
                r#"maintenance-queues 'x y "z"'"#,
                "maintenance-queues",
                "x y z",
            ),
            (r#"state-key """#, "state-key", ""),
            (r#"key-prefixes "p: q:""#, "key-prefixes", "p: q:"),
            ("default-ttl 2h", "default-ttl", "2h"),
        ];
        let setup = Setup::on(binary);
        let mut server = words
            .iter()
            .fold(setup, |setup, (argument, ..)| setup.arguments(argument))
            .start()
            .await;
        // Of an argument the server writes no quotes. A failover under Sentinel ends so,
        // too. Written twice, it is the same.
        for round in 0..3 {
            let mut conn = server.connect().await;
            for (argument, name, value) in words {
                assert_eq!(setting(&mut conn, name).await, value, "{round}: {argument}");
            }
            conn.run("CONFIG REWRITE").await;
            server.shut_down("NOSAVE");
            server.start_again().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_name_with_blanks_is_quoted_wherever_a_setting_is_given() {
    on_every_server(async |binary| {
        let value = "'clean up=1h' b=10m";
        let mut server = Setup::on(binary)
            .arguments(&format!("expected-tasks \"{value}\""))
            .start()
            .await;
        let mut conn = server.connect().await;
        assert_eq!(setting(&mut conn, "expected-tasks").await, value);
        let other = "b=10m 'each quarter=15m'";
        conn.run(cmd!["HYGIENE.CONFIG", "SET", "expected-tasks", other])
            .await;
        assert_eq!(setting(&mut conn, "expected-tasks").await, other);
        conn.run(Message::new("each quarter", "1").push()).await;
        let seen = conn.fields("HYGIENE.BEATSTATUS").await;
        assert_eq!(seen.map("publisher").text("source"), "expected task");
        let task = seen.one("tasks", "name", "each quarter");
        assert_eq!(task.int("interval_s"), 900, "{seen:?}");
        if binary.is_7_0_or_newer() {
            conn.run("CONFIG REWRITE").await;
            server.shut_down("NOSAVE");
            server.start_again().await;
            let mut conn = server.connect().await;
            assert_eq!(setting(&mut conn, "expected-tasks").await, other);
        }
    })
    .await;
}

#[tokio::test]
async fn every_setting_has_the_default_of_the_contract() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let durations = [
            ("default-ttl", 3600),
            ("max-ttl", 0),
            ("max-age", 7200),
            ("visibility-timeout", 3600),
        ];
        for (name, expected) in durations {
            assert_eq!(seconds(&setting(&mut conn, name).await), expected, "{name}");
        }
        let words = [
            ("enforce", "yes"),
            ("ttl-jitter", "10%"),
            ("ttl-basis", "now"),
            ("sweep-deletes", "no"),
            ("max-writes-per-sec", "100000"),
            ("result-keys", "celery-task-meta-*"),
            ("exempt-keys", ""),
            ("key-prefixes", ""),
            ("slice-us", "500"),
            ("cpu-percent", "25"),
            ("expected-tasks", ""),
            ("maintenance-queues", "maintenance"),
            ("verdict-interval", "10s"),
        ];
        for (name, expected) in words {
            assert_eq!(setting(&mut conn, name).await, expected, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_shipped_redis_conf_starts_a_server_that_enforces() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).shipped_conf().start().await;
        let mut conn = server.connect().await;
        conn.run("SET celery-task-meta-a 1").await;
        let ttl = conn.ttl("celery-task-meta-a").await;
        assert!(ttl > 0, "{ttl}");
    })
    .await;
}

#[tokio::test]
async fn help_lists_every_command_and_the_server_documents_them() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let help = format!("{:?}", conn.value("HYGIENE.HELP").await);
        for name in [
            "HYGIENE.SCAN",
            "HYGIENE.FIXTTL",
            "HYGIENE.BEATSTATUS",
            "HYGIENE.CONFIG",
            "HYGIENE.JOBS",
            "HYGIENE.KEYS",
            "HYGIENE.ORPHANS",
            "HYGIENE.STATS",
        ] {
            let word = name.trim_start_matches("HYGIENE.");
            assert!(help.contains(word), "{word} in {help}");
            let info = conn.value(cmd!["COMMAND", "INFO", name]).await;
            assert!(
                !matches!(list(&info)[0], Value::Nil),
                "{name} is registered"
            );
            if binary.is_7_0_or_newer() {
                let docs = conn.fields(cmd!["COMMAND", "DOCS", name]).await;
                let docs = Fields::of(&docs.0[0].1);
                for field in ["summary", "since", "complexity"] {
                    assert!(!text(docs.get(field)).is_empty(), "{name} {field}");
                }
            }
        }
    })
    .await;
}
