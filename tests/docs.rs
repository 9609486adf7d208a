//! README, redis.conf, docs and contrib against the server and each other: what they name
//! is there, and what is there they name.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::Value;

use crate::celery::{Message, binding, seed_results};
use crate::client::{Conn, Fields, list, text};
use crate::cmd;
use crate::server::{Setup, on_every_server, wait_for};

const README: &str = include_str!("../README.md");
const CONF: &str = include_str!("../redis.conf");
const MONITORING: &str = include_str!("../docs/monitoring.md");
const RULES: &str = include_str!("../contrib/monitoring/rules.yml");
const TELEGRAF: &str = include_str!("../contrib/monitoring/telegraf.conf");

/// From the heading that begins so to the next one.
fn section(heading: &str) -> &'static str {
    let (_, after) = README
        .split_once(&format!("\n{heading}"))
        .unwrap_or_else(|| panic!("no {heading:?}"));
    let end = after.find("\n##").unwrap_or(after.len());
    &after[..end]
}

/// The cells of the rows of all tables.
fn rows(section: &str) -> Vec<Vec<&str>> {
    section
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

/// What stands between backticks.
fn code(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The words by which options are told: those in capitals.
fn capitals(syntax: &str) -> BTreeSet<String> {
    syntax
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| word.len() > 1 && word.bytes().all(|b| b.is_ascii_uppercase()))
        .map(str::to_owned)
        .collect()
}

/// The tokens of arguments as COMMAND DOCS tells them.
fn tokens(arguments: &Value, into: &mut BTreeSet<String>) {
    for argument in list(arguments) {
        let argument = Fields::of(&argument);
        if argument.has("token") {
            into.insert(argument.text("token"));
        }
        if argument.has("arguments") {
            tokens(argument.get("arguments"), into);
        }
    }
}

#[tokio::test]
async fn headings_help_and_command_docs_know_the_same_options() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let lines: Vec<String> = list(&conn.value("HYGIENE.HELP").await)
            .iter()
            .map(text)
            .collect();
        // A syntax goes on where a line is indented as far as its command's name.
        let mut syntaxes: Vec<String> = Vec::new();
        for line in &lines {
            if line.starts_with("HYGIENE.") {
                syntaxes.push(line.clone());
            } else if line.starts_with("             ")
                && let Some(last) = syntaxes.last_mut()
            {
                *last += " ";
                *last += line.trim();
            }
        }
        assert_eq!(syntaxes.len(), 12, "{lines:?}");
        for syntax in &syntaxes {
            let name = syntax.split(' ').next().unwrap_or_default();
            if !["HYGIENE.CANCEL", "HYGIENE.CONFIG", "HYGIENE.HELP"].contains(&name) {
                let heading = format!("\n### {syntax}\n");
                assert!(README.contains(&heading), "no {heading:?}");
            }
            if binary.is_7_0_or_newer() {
                let docs = conn.fields(cmd!["COMMAND", "DOCS", name]).await;
                let docs = Fields::of(&docs.0[0].1);
                let mut told = BTreeSet::new();
                if docs.has("arguments") {
                    tokens(docs.get("arguments"), &mut told);
                }
                let (_, options) = syntax.split_once(' ').unwrap_or_default();
                assert_eq!(told, capitals(options), "{syntax}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn every_setting_stands_in_the_readme_and_in_redis_conf_with_its_default() {
    on_every_server(async |binary| {
        // As a server has them that was told nothing.
        let server = Setup::on(binary).without_module().start().await;
        let mut conn = server.connect().await;
        let path = crate::server::module_path();
        conn.run(cmd!["MODULE", "LOAD", path.to_str()]).await;
        let settings: BTreeSet<(String, String)> = conn
            .fields("HYGIENE.CONFIG GET *")
            .await
            .0
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect();

        let mut told = BTreeSet::new();
        for row in rows(section("## Settings\n")) {
            let (names, defaults) = (code(row[0]), code(row[1]));
            for (at, name) in names.iter().enumerate() {
                let default = defaults.get(at).copied().unwrap_or_default();
                told.insert(((*name).to_owned(), default.to_owned()));
            }
        }
        assert_eq!(told, settings, "README");

        let written: BTreeSet<(String, String)> = CONF
            .lines()
            .filter_map(|line| line.strip_prefix("hygiene.")?.split_once(' '))
            .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
            .collect();
        assert_eq!(written, settings, "redis.conf");
    })
    .await;
}

#[tokio::test]
async fn every_figure_of_stats_stands_in_the_readme_and_no_other() {
    on_every_server(async |binary| {
        let server = Setup::on(binary)
            .setting("verdict-interval", "1s")
            .start()
            .await;
        let mut conn = server.connect().await;
        conn.run(binding("celery", "celery", "celery")).await;
        conn.run(Message::new("a.b", "1").push()).await;
        let stats = wait_for("a queue", Duration::from_secs(20), async || {
            let stats = conn.fields("HYGIENE.STATS").await;
            let there = stats.has("queue_length:0:celery");
            there.then_some(stats).ok_or_else(|| "none".to_owned())
        })
        .await;
        let names: BTreeSet<String> = stats
            .names()
            .iter()
            .map(|name| name.split(':').next().unwrap_or_default().to_owned())
            .collect();

        let mut told = BTreeSet::new();
        for row in rows(section("### HYGIENE.STATS")) {
            for name in code(row[0]) {
                let name = name.split(':').next().unwrap_or_default();
                match name.strip_prefix("CLASS_") {
                    None => _ = told.insert(name.to_owned()),
                    Some(of_class) => {
                        let verb = of_class.trim_end_matches("_total");
                        let (_, listed) = row[1].split_once(verb).unwrap_or_default();
                        let listed = listed.split(';').next().unwrap_or_default();
                        told.extend(
                            code(listed)
                                .iter()
                                .map(|class| format!("{class}_{of_class}")),
                        );
                    }
                }
            }
        }
        told.remove("field");
        assert_eq!(told, names);
    })
    .await;
}

/// Every name of a field in a reply, inside others too, but for what lies under those
/// whose names are data, or another command's.
fn fields(value: &Value, skip: &[&str], into: &mut BTreeSet<String>) {
    match value {
        Value::Map(pairs) => {
            for (name, inner) in pairs {
                let name = text(name);
                if !skip.contains(&name.as_str()) {
                    fields(inner, skip, into);
                }
                into.insert(name);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields(item, skip, into)),
        _ => {}
    }
}

async fn reply_is_explained(conn: &mut Conn, words: &str, skip: &[&str]) {
    let reply = conn.value(words).await;
    let mut names = BTreeSet::new();
    fields(&reply, skip, &mut names);
    assert!(names.len() > 5, "{words}: {reply:?}");
    let command = words.split(' ').next().unwrap_or_default();
    let told: BTreeSet<&str> = code(section(&format!("### {command}")))
        .into_iter()
        .collect();
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !told.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "{command} does not explain {missing:?}");
}

#[tokio::test]
async fn every_field_of_a_reply_is_explained_where_its_command_is() {
    on_every_server(async |binary| {
        if !binary.is_7_0_or_newer() {
            return binary.left_out("it has no maps, and so no names that can be told apart");
        }
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect_resp3().await;
        conn.run(binding("maintenance", "maintenance", "maintenance"))
            .await;
        let message = Message::new("app.clean", "1").queue("maintenance");
        conn.run(message.by_beat().push()).await;
        conn.run("HSET unacked tag []").await;
        conn.run("HYGIENE.CONFIG SET enforce no").await;
        seed_results(&mut conn, "s", 5).await;
        for (words, skip) in [
            ("HYGIENE.SCAN", &["classes", "systems"][..]),
            ("HYGIENE.FIXTTL DRYRUN", &[]),
            ("HYGIENE.ORPHANS", &["orphans"]),
            ("HYGIENE.BEATSTATUS", &[]),
            ("HYGIENE.BEATSTATUS VERBOSE", &["watch"]),
            ("HYGIENE.TRIGGER app.clean TIMEOUT 1s", &[]),
            ("HYGIENE.JOBS", &["result"]),
        ] {
            reply_is_explained(&mut conn, words, skip).await;
        }
    })
    .await;
}

#[tokio::test]
async fn telegraf_asks_for_figures_that_there_are_and_calls_them_by_their_names() {
    on_every_server(async |binary| {
        let server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        let mut asked = 0;
        for table in TELEGRAF.split("[[inputs.redis.commands]]").skip(1) {
            let words: Vec<&str> = table.split('"').skip(1).step_by(2).collect();
            let [command, option, name, field, kind] = words[..] else {
                panic!("{words:?}");
            };
            assert_eq!(field, format!("hygiene_{name}"));
            assert_eq!(kind, "integer");
            conn.int(cmd![command, option, name]).await;
            asked += 1;
        }
        assert!(asked > 10);
    })
    .await;
}

/// The alerts of rules.yml: name and what stands below it.
fn alerts() -> Vec<(&'static str, &'static str)> {
    let alerts: Vec<_> = RULES
        .split("- alert: ")
        .skip(1)
        .filter_map(|alert| alert.split_once('\n'))
        .collect();
    assert!(alerts.len() > 10);
    alerts
}

/// The value behind a key of YAML, wherever it stands.
fn value(yaml: &'static str, key: &str) -> Option<&'static str> {
    let lines = yaml.lines().map(str::trim);
    lines
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
        .next()
}

#[test]
fn every_alert_says_in_a_line_what_to_do_and_stands_in_the_page_as_it_is() {
    let table = rows(MONITORING);
    for (name, alert) in alerts() {
        for annotation in ["summary", "description", "runbook"] {
            let said = value(alert, annotation);
            assert!(
                said.is_some_and(|said| said.len() > 20),
                "{name} {annotation}"
            );
        }
        let severity = value(alert, "severity").expect("a severity");
        let after = match value(alert, "for") {
            None => "at once".to_owned(),
            Some("1m") => "1 minute".to_owned(),
            Some("150m") => "2.5 hours".to_owned(),
            Some(minutes) => format!("{} minutes", minutes.trim_end_matches('m')),
        };
        let row = table.iter().find(|row| code(row[0]).contains(&name));
        let row = row.unwrap_or_else(|| panic!("no row of {name}"));
        assert_eq!((row[1], row[2]), (severity, after.as_str()), "{name}");
    }
    let named = table
        .iter()
        .filter(|row| row.len() == 3)
        .flat_map(|row| code(row[0]));
    for name in named.filter(|name| name.chars().next().is_some_and(char::is_uppercase)) {
        assert!(alerts().iter().any(|(alert, _)| *alert == name), "{name}");
    }
}

/// What makes metrics of the exporter's one: from where, by what, to what, whatever the
/// collector calls and how it quotes it.
fn relabelling(yaml: &str) -> Vec<String> {
    let keys = ["source_labels", "regex", "target_label", "replacement"];
    yaml.lines()
        .map(|line| line.trim().trim_start_matches("- "))
        .map(|line| line.replace("sourceLabels", "source_labels"))
        .map(|line| line.replace("targetLabel", "target_label"))
        .filter(|line| keys.iter().any(|key| line.starts_with(&format!("{key}:"))))
        .map(|line| line.replace("$$", "$"))
        .collect()
}

#[test]
fn every_collector_makes_the_same_metrics() {
    let prometheus = relabelling(include_str!("../contrib/monitoring/prometheus.yml"));
    assert_eq!(prometheus.len(), 20, "{prometheus:?}");
    for other in [
        include_str!("../contrib/monitoring/otel-collector.yaml"),
        include_str!("../contrib/helm/valkey.yaml"),
    ] {
        assert_eq!(relabelling(other), prometheus);
    }
}
