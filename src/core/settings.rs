//! Every setting: its name, default, meaning and the text it reads and shows.
//!
//! One table serves the module's arguments, the server's own CONFIG and
//! `HYGIENE.CONFIG`, so that a value is refused with the same sentence wherever
//! it is given.

use super::args;
use super::glob::Glob;
use super::keys::{Names, Unacked};
use super::orphans::Kinds;
use super::span;
use super::words;

/// Where a sweep counts a TTL from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The moment the key is stamped.
    Now,
    /// The moment the task finished.
    Done,
}

/// A periodic task that beat is expected to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedTask {
    /// The task's name, as in the message's `task` header.
    pub name: Vec<u8>,
    /// How often it is due, in ms.
    pub interval_ms: i64,
}

/// The values in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether the hook stamps.
    pub enforce: bool,
    /// TTL of a result that has none, in ms; at least 1 s.
    pub default_ttl_ms: i64,
    /// A longer TTL on a result is cut to this, in ms; 0 is off.
    pub max_ttl_ms: i64,
    /// How far below the TTL a sweep draws, in percent, 0 to 50.
    pub ttl_jitter: u64,
    /// Where a sweep counts a TTL from.
    pub ttl_basis: Basis,
    /// Whether the background sweep deletes by `max_age_ms`.
    pub sweep_deletes: bool,
    /// What of Celery's remains the background sweep cleans.
    pub sweep_orphans: Kinds,
    /// Writes a sweep may do in a second.
    pub max_writes_per_sec: u64,
    /// Finished results older than this are deleted, in ms; 0 never.
    pub max_age_ms: i64,
    /// Time between two background sweeps, in ms; 0 is off.
    pub sweep_interval_ms: i64,
    /// Whether a sweep follows the load of the module or of a data set.
    pub sweep_on_start: bool,
    /// The longest the module works at a time, in µs.
    pub slice_us: u64,
    /// Share of the main thread a running sweep may take, in percent.
    pub cpu_percent: u64,
    /// What beat must publish.
    pub expected_tasks: Vec<ExpectedTask>,
    /// Queues that BEATSTATUS names first.
    pub maintenance_queues: Vec<Vec<u8>>,
    /// Celery's `visibility_timeout`, in ms.
    pub visibility_timeout_ms: i64,
    /// Whether the traffic of queues is watched.
    pub observe: bool,
    /// How often the verdict is looked for, in ms; 0 is off.
    pub verdict_interval_ms: i64,
    /// The hash in database 0 that holds what was observed; empty for none.
    pub state_key: Vec<u8>,
    result_keys: Vec<Glob>,
    exempt_keys: Vec<Glob>,
    key_prefixes: Vec<Vec<u8>>,
    unacked: Unacked,
}

impl Default for Settings {
    fn default() -> Self {
        let mut settings = Self {
            enforce: false,
            default_ttl_ms: 0,
            max_ttl_ms: 0,
            ttl_jitter: 0,
            ttl_basis: Basis::Now,
            sweep_deletes: false,
            sweep_orphans: Kinds::default(),
            max_writes_per_sec: 0,
            max_age_ms: 0,
            sweep_interval_ms: 0,
            sweep_on_start: false,
            slice_us: 0,
            cpu_percent: 0,
            expected_tasks: Vec::new(),
            maintenance_queues: Vec::new(),
            visibility_timeout_ms: 0,
            observe: false,
            verdict_interval_ms: 0,
            state_key: Vec::new(),
            result_keys: Vec::new(),
            exempt_keys: Vec::new(),
            key_prefixes: Vec::new(),
            unacked: Unacked::default(),
        };
        for setting in SETTINGS {
            // The table's defaults are texts that its own readers accept; a test
            // holds that.
            let _ = (setting.read)(&mut settings, setting.default.as_bytes());
        }
        settings
    }
}

impl Settings {
    /// The module's arguments over the defaults: `NAME value` pairs; or, of a list, each
    /// of its words by itself. So `CONFIG REWRITE` leaves them in the file, since the
    /// server writes arguments without their quotes (Redis 7.0 and newer, Valkey
    /// `src/config.c` `rewriteConfigLoadmoduleOption`).
    ///
    /// # Errors
    /// A sentence that names the argument.
    pub fn of_arguments(args: &[&[u8]]) -> Result<Self, String> {
        Self::of_pairs(args).or_else(|why| Self::of_words(args).map_err(|_| why))
    }

    fn of_pairs(args: &[&[u8]]) -> Result<Self, String> {
        let mut settings = Self::default();
        for pair in args.chunks(2) {
            match pair {
                [name, value] => settings.set(name, value)?,
                [name] => return Err(format!("{} needs a value", named(name)?.name)),
                _ => {}
            }
        }
        Ok(settings)
    }

    /// Each setting has all words up to the name of another.
    fn of_words(args: &[&[u8]]) -> Result<Self, String> {
        let mut settings = Self::default();
        let mut rest = args;
        while let [name, more @ ..] = rest {
            let next = more.iter().position(|word| named(word).is_ok());
            let (words, others) = more
                .split_at_checked(next.unwrap_or(more.len()))
                .unwrap_or((more, &[]));
            // The word may be the list, as it was, or one with blanks whose quotes are gone.
            settings
                .set(name, &words.join(&b' '))
                .or_else(|_| settings.set(name, &words::join(words.iter().copied())))?;
            rest = others;
        }
        Ok(settings)
    }

    /// The key names these settings decide on.
    #[must_use]
    pub fn names(&self) -> Names {
        Names::new(
            self.result_keys.clone(),
            self.exempt_keys.clone(),
            self.key_prefixes.clone(),
        )
        .with_unacked(self.unacked.clone())
    }

    /// Whether beat must publish the task of that name.
    #[must_use]
    pub fn expects(&self, task: &[u8]) -> bool {
        self.expected_tasks.iter().any(|known| known.name == task)
    }

    /// Gives the setting of that name a value.
    ///
    /// # Errors
    /// A sentence that names the setting and says what would be right; nothing
    /// has changed then.
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> Result<(), String> {
        let setting = named(name)?;
        let read = if value.len() > LONGEST_VALUE {
            Err(format!("expected at most {LONGEST_VALUE} bytes"))
        } else {
            (setting.read)(self, value)
        };
        read.map_err(|why| format!("{} {}: {why}", setting.name, args::quoted(value)))
    }
}

/// One row of the table.
pub struct Setting {
    /// Its name, without the module's in front.
    pub name: &'static str,
    /// Its default, as text.
    pub default: &'static str,
    /// What it means, in a line.
    pub meaning: &'static str,
    read: fn(&mut Settings, &[u8]) -> Result<(), String>,
    show: fn(&Settings) -> Vec<u8>,
}

impl Setting {
    /// The value in force, as text that the setting reads back.
    #[must_use]
    pub fn show(&self, settings: &Settings) -> Vec<u8> {
        (self.show)(settings)
    }
}

/// The row of that name, with or without `hygiene.` in front, in either case.
///
/// # Errors
/// There is none of that name.
pub fn named(name: &[u8]) -> Result<&'static Setting, String> {
    const MODULE: &[u8] = b"hygiene.";
    let bare = match name.split_at_checked(MODULE.len()) {
        Some((module, bare)) if module.eq_ignore_ascii_case(MODULE) => bare,
        _ => name,
    };
    SETTINGS
        .iter()
        .find(|setting| setting.name.as_bytes().eq_ignore_ascii_case(bare))
        .ok_or_else(|| {
            format!(
                "unknown setting {}: HYGIENE.CONFIG GET * lists them",
                args::quoted(name)
            )
        })
}

/// The longest value of a setting, in bytes: room for a thousand names of tasks. All are
/// copied when one changes, and names and prefixes are tried on keys.
const LONGEST_VALUE: usize = 64 * 1024;

/// The longest name of a key that a setting gives, in bytes.
const LONGEST_KEY: usize = 512;

/// The name of one key.
fn key_name(value: &[u8]) -> Result<Vec<u8>, String> {
    if value.is_empty() || value.len() > LONGEST_KEY {
        return Err(format!(
            "expected the name of a key, at most {LONGEST_KEY} bytes"
        ));
    }
    Ok(value.to_vec())
}

fn yes_no(value: &[u8]) -> Result<bool, String> {
    if value.eq_ignore_ascii_case(b"yes") {
        Ok(true)
    } else if value.eq_ignore_ascii_case(b"no") {
        Ok(false)
    } else {
        Err("expected yes or no".to_owned())
    }
}

fn show_yes_no(on: bool) -> Vec<u8> {
    if on { b"yes".to_vec() } else { b"no".to_vec() }
}

fn span_of(value: &[u8], least_ms: i64) -> Result<i64, String> {
    let ms = span::parse(value).map_err(|why| why.to_string())?;
    if ms < least_ms {
        return Err(format!("expected at least {}", span::show(least_ms)));
    }
    Ok(ms)
}

fn show_span(ms: i64) -> Vec<u8> {
    span::show(ms).into_bytes()
}

fn number_of(value: &[u8], least: u64, most: u64) -> Result<u64, String> {
    args::number(value)
        .filter(|n| (least..=most).contains(n))
        .ok_or_else(|| format!("expected a whole number from {least} to {most}"))
}

fn globs(value: &[u8]) -> Result<Vec<Glob>, String> {
    words::split(value)?
        .iter()
        .map(|word| Glob::new(word).map_err(str::to_owned))
        .collect()
}

fn show_globs(globs: &[Glob]) -> Vec<u8> {
    words::join(globs.iter().map(Glob::source))
}

fn expected(value: &[u8]) -> Result<Vec<ExpectedTask>, String> {
    const FORM: &str = "expected name=interval pairs such as cleanup_celery_results=1h, or \"clean up=1h\" where a name has blanks";
    words::split(value)?
        .iter()
        .map(|word| {
            let at = memchr::memrchr(b'=', word).ok_or(FORM)?;
            let (name, interval) = word.split_at_checked(at).ok_or(FORM)?;
            let interval = interval.strip_prefix(b"=").ok_or(FORM)?;
            let interval_ms = span::parse(interval).map_err(|_| FORM)?;
            if name.is_empty() || interval_ms < 1_000 {
                return Err(FORM.to_owned());
            }
            Ok(ExpectedTask {
                name: name.to_vec(),
                interval_ms,
            })
        })
        .collect()
}

/// All settings, in the order the documentation lists them.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "enforce",
        default: "yes",
        meaning: "give each new task_result a TTL when it is written",
        read: |s, v| yes_no(v).map(|on| s.enforce = on),
        show: |s| show_yes_no(s.enforce),
    },
    Setting {
        name: "default-ttl",
        default: "1h",
        meaning: "the TTL of a task_result that has none; at least 1s",
        read: |s, v| span_of(v, 1_000).map(|ms| s.default_ttl_ms = ms),
        show: |s| show_span(s.default_ttl_ms),
    },
    Setting {
        name: "max-ttl",
        default: "0",
        meaning: "a longer TTL on a task_result is cut to this; 0 is off",
        read: |s, v| span_of(v, 0).map(|ms| s.max_ttl_ms = ms),
        show: |s| show_span(s.max_ttl_ms),
    },
    Setting {
        name: "ttl-jitter",
        default: "10%",
        meaning: "sweeps draw the TTL from this share below it; 0% to 50%",
        read: |s, v| {
            args::percent(v, 50)
                .map(|share| s.ttl_jitter = share)
                .ok_or_else(|| "expected 0% to 50%".to_owned())
        },
        show: |s| format!("{}%", s.ttl_jitter).into_bytes(),
    },
    Setting {
        name: "ttl-basis",
        default: "now",
        meaning: "sweeps count the TTL from now or from date_done",
        read: |s, v| {
            s.ttl_basis = if v.eq_ignore_ascii_case(b"now") {
                Basis::Now
            } else if v.eq_ignore_ascii_case(b"done") {
                Basis::Done
            } else {
                return Err("expected now or done".to_owned());
            };
            Ok(())
        },
        show: |s| match s.ttl_basis {
            Basis::Now => b"now".to_vec(),
            Basis::Done => b"done".to_vec(),
        },
    },
    Setting {
        name: "sweep-deletes",
        default: "no",
        meaning: "the background sweep also deletes by max-age",
        read: |s, v| yes_no(v).map(|on| s.sweep_deletes = on),
        show: |s| show_yes_no(s.sweep_deletes),
    },
    Setting {
        name: "sweep-orphans",
        default: "",
        meaning: "what the background sweep does of ORPHANS' work: requeue, and classes it purges",
        read: |s, v| {
            let words = words::split(v)?;
            Kinds::parse(words.iter().map(Vec::as_slice)).map(|kinds| s.sweep_orphans = kinds)
        },
        show: |s| s.sweep_orphans.show().into_bytes(),
    },
    Setting {
        name: "max-writes-per-sec",
        default: "100000",
        meaning: "the most a sweep writes in a second; about 100 bytes each for replicas and AOF",
        read: |s, v| number_of(v, 1, 10_000_000).map(|n| s.max_writes_per_sec = n),
        show: |s| s.max_writes_per_sec.to_string().into_bytes(),
    },
    Setting {
        name: "max-age",
        default: "2h",
        meaning: "finished results older than this are deleted by FIXTTL; 0 never",
        read: |s, v| span_of(v, 0).map(|ms| s.max_age_ms = ms),
        show: |s| show_span(s.max_age_ms),
    },
    Setting {
        name: "result-keys",
        default: "celery-task-meta-*",
        meaning: "glob patterns of task_result, separated by spaces",
        read: |s, v| globs(v).map(|list| s.result_keys = list),
        show: |s| show_globs(&s.result_keys),
    },
    Setting {
        name: "exempt-keys",
        default: "",
        meaning: "glob patterns of keys that nothing touches, separated by spaces",
        read: |s, v| globs(v).map(|list| s.exempt_keys = list),
        show: |s| show_globs(&s.exempt_keys),
    },
    Setting {
        name: "key-prefixes",
        default: "",
        meaning: "global_keyprefix values in use, separated by spaces",
        read: |s, v| {
            s.key_prefixes = words::split(v)?;
            Ok(())
        },
        show: |s| words::join(s.key_prefixes.iter().map(Vec::as_slice)),
    },
    Setting {
        name: "unacked-key",
        default: "unacked",
        meaning: "kombu's unacked_key, without a prefix",
        read: |s, v| key_name(v).map(|name| s.unacked.hash = name),
        show: |s| s.unacked.hash.clone(),
    },
    Setting {
        name: "unacked-index-key",
        default: "unacked_index",
        meaning: "kombu's unacked_index_key, without a prefix",
        read: |s, v| key_name(v).map(|name| s.unacked.index = name),
        show: |s| s.unacked.index.clone(),
    },
    Setting {
        name: "unacked-mutex-key",
        default: "unacked_mutex",
        meaning: "kombu's unacked_mutex_key, without a prefix",
        read: |s, v| key_name(v).map(|name| s.unacked.mutex = name),
        show: |s| s.unacked.mutex.clone(),
    },
    Setting {
        name: "sweep-interval",
        default: "1h",
        meaning: "time between two background sweeps; 0 is off",
        read: |s, v| span_of(v, 0).map(|ms| s.sweep_interval_ms = ms),
        show: |s| show_span(s.sweep_interval_ms),
    },
    Setting {
        name: "sweep-on-start",
        default: "yes",
        meaning: "sweep once after the module or a data set has been loaded",
        read: |s, v| yes_no(v).map(|on| s.sweep_on_start = on),
        show: |s| show_yes_no(s.sweep_on_start),
    },
    Setting {
        name: "slice-us",
        default: "500",
        meaning: "the longest the module works on the main thread at a time, in microseconds",
        read: |s, v| number_of(v, 50, 100_000).map(|n| s.slice_us = n),
        show: |s| s.slice_us.to_string().into_bytes(),
    },
    Setting {
        name: "cpu-percent",
        default: "25",
        meaning: "the share of the main thread a running sweep may take",
        read: |s, v| number_of(v, 1, 90).map(|n| s.cpu_percent = n),
        show: |s| s.cpu_percent.to_string().into_bytes(),
    },
    Setting {
        name: "expected-tasks",
        default: "",
        meaning: "name=interval of tasks that beat must publish, separated by spaces",
        read: |s, v| expected(v).map(|list| s.expected_tasks = list),
        show: |s| {
            let pairs: Vec<Vec<u8>> = s
                .expected_tasks
                .iter()
                .map(|task| {
                    let mut pair = task.name.clone();
                    pair.push(b'=');
                    pair.extend(show_span(task.interval_ms));
                    pair
                })
                .collect();
            words::join(pairs.iter().map(Vec::as_slice))
        },
    },
    Setting {
        name: "maintenance-queues",
        default: "maintenance",
        meaning: "queues that BEATSTATUS names first, separated by spaces",
        read: |s, v| {
            s.maintenance_queues = words::split(v)?;
            Ok(())
        },
        show: |s| words::join(s.maintenance_queues.iter().map(Vec::as_slice)),
    },
    Setting {
        name: "visibility-timeout",
        default: "1h",
        meaning: "Celery's visibility_timeout; older unacked messages are stuck",
        read: |s, v| span_of(v, 1_000).map(|ms| s.visibility_timeout_ms = ms),
        show: |s| show_span(s.visibility_timeout_ms),
    },
    Setting {
        name: "observe",
        default: "yes",
        meaning: "watch the traffic of queues for BEATSTATUS",
        read: |s, v| yes_no(v).map(|on| s.observe = on),
        show: |s| show_yes_no(s.observe),
    },
    Setting {
        name: "verdict-interval",
        default: "10s",
        meaning: "how often the verdict is looked for, for STATS and hygiene:events; 0 is off",
        read: |s, v| span_of(v, 0).map(|ms| s.verdict_interval_ms = ms),
        show: |s| show_span(s.verdict_interval_ms),
    },
    Setting {
        name: "state-key",
        default: "hygiene:state",
        meaning: "the hash in database 0 that holds what was observed; empty for memory only",
        read: |s, v| {
            if v.len() > LONGEST_KEY {
                return Err(format!("expected at most {LONGEST_KEY} bytes"));
            }
            s.state_key = v.to_vec();
            Ok(())
        },
        show: |s| s.state_key.clone(),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_its_own_reader_accepts_and_shows_again() {
        for setting in SETTINGS {
            let mut settings = Settings::default();
            assert_eq!(
                settings.set(setting.name.as_bytes(), setting.default.as_bytes()),
                Ok(()),
                "{}",
                setting.name
            );
            assert_eq!(
                setting.show(&settings),
                setting.default.as_bytes(),
                "{}",
                setting.name
            );
        }
        assert_eq!(Settings::default().default_ttl_ms, 3_600_000);
    }

    #[test]
    fn a_refused_value_says_what_would_be_right_and_changes_nothing() {
        for (name, value, expected) in [
            ("enforce", "maybe", "enforce 'maybe': expected yes or no"),
            ("default-ttl", "0", "default-ttl '0': expected at least 1s"),
            (
                "default-ttl",
                "banana",
                "default-ttl 'banana': expected seconds, or a number with s, m, h or d such as 90s or 2h",
            ),
            ("ttl-jitter", "51%", "ttl-jitter '51%': expected 0% to 50%"),
            (
                "ttl-basis",
                "then",
                "ttl-basis 'then': expected now or done",
            ),
            (
                "cpu-percent",
                "0",
                "cpu-percent '0': expected a whole number from 1 to 90",
            ),
            (
                "expected-tasks",
                "cleanup",
                "expected-tasks 'cleanup': expected name=interval pairs such as cleanup_celery_results=1h, or \"clean up=1h\" where a name has blanks",
            ),
            (
                "nonsense",
                "1",
                "unknown setting 'nonsense': HYGIENE.CONFIG GET * lists them",
            ),
        ] {
            let mut settings = Settings::default();
            assert_eq!(
                settings.set(name.as_bytes(), value.as_bytes()),
                Err(expected.to_owned())
            );
            assert_eq!(settings, Settings::default(), "{name} {value}");
        }
    }

    #[test]
    fn a_value_of_more_than_64_kilobytes_is_refused_whatever_the_setting() {
        let (long, most) = ([b' '; LONGEST_VALUE + 1], [b'q'; LONGEST_VALUE]);
        for setting in SETTINGS {
            let mut settings = Settings::default();
            let refused = settings.set(setting.name.as_bytes(), &long).unwrap_err();
            assert!(
                refused.ends_with("expected at most 65536 bytes"),
                "{refused}"
            );
            assert_eq!(settings, Settings::default(), "{}", setting.name);
        }
        let mut settings = Settings::default();
        assert_eq!(settings.set(b"maintenance-queues", &most), Ok(()));
    }

    #[test]
    fn lists_are_separated_by_any_blanks() {
        let mut settings = Settings::default();
        settings
            .set(b"expected-tasks", b"  a.b=1h   c=10m ")
            .unwrap();
        assert_eq!(settings.expected_tasks.len(), 2);
        assert_eq!(settings.expected_tasks[1].name, b"c");
        assert_eq!(settings.expected_tasks[1].interval_ms, 600_000);
        assert_eq!(
            named(b"expected-tasks").unwrap().show(&settings),
            b"a.b=1h c=10m"
        );
    }

    #[test]
    fn names_with_blanks_are_quoted_and_every_list_is_read_as_it_was_shown() {
        let mut settings = Settings::default();
        for (name, value) in [
            ("expected-tasks", "'clean up=1h' a=b=2m"),
            ("result-keys", "'a b*' c"),
            ("exempt-keys", "'x y'"),
            ("key-prefixes", "'my app:' p:"),
            ("maintenance-queues", r#"'low prio' "it's odd""#),
        ] {
            settings.set(name.as_bytes(), value.as_bytes()).unwrap();
            let shown = named(name.as_bytes()).unwrap().show(&settings);
            assert_eq!(shown, value.as_bytes(), "{name}");
        }
        assert_eq!(settings.expected_tasks[0].name, b"clean up");
        assert_eq!(settings.expected_tasks[1].name, b"a=b");
        assert!(settings.expects(b"clean up") && !settings.expects(b"clean"));
        assert_eq!(settings.maintenance_queues[0], b"low prio");
        let refused = settings.set(b"expected-tasks", br#""clean up"=1h"#);
        let why = refused.unwrap_err();
        assert!(
            why.ends_with("expected a blank behind a closing quote"),
            "{why}"
        );
    }

    #[test]
    fn arguments_are_the_same_once_the_server_has_left_out_their_quotes() {
        let read = |args: &[&str]| {
            let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
            Settings::of_arguments(&args)
        };
        let same = |quoted: &[&str], left: &[&str]| {
            let wanted = read(quoted).unwrap();
            assert_eq!(read(left), Ok(wanted), "{left:?}");
        };
        same(
            &[
                "expected-tasks",
                "a=1h b=10m",
                "state-key",
                "",
                "enforce",
                "no",
            ],
            &[
                "expected-tasks",
                "a=1h",
                "b=10m",
                "state-key",
                "enforce",
                "no",
            ],
        );
        same(&["state-key", ""], &["state-key"]);
        same(
            &["maintenance-queues", "a b c", "default-ttl", "1d"],
            &["maintenance-queues", "a", "b", "c", "default-ttl", "1d"],
        );
        same(
            &["expected-tasks", r#""clean up=1h" b=10m"#],
            &["expected-tasks", "clean up=1h", "b=10m"],
        );
        // A queue may be called like a setting.
        same(
            &["maintenance-queues", "\"observe\"", "enforce", "no"],
            &["maintenance-queues", "observe", "enforce", "no"],
        );
        for (args, why) in [
            (
                &["nonsense", "1"][..],
                "unknown setting 'nonsense': HYGIENE.CONFIG GET * lists them",
            ),
            (&["default-ttl"], "default-ttl needs a value"),
            (&["default-ttl", "1h", "2h"], "unknown setting '2h'"),
            (
                &["default-ttl", "soon", "enforce", "no"],
                "default-ttl 'soon': expected seconds",
            ),
            (
                &["expected-tasks", "a", "b=1h"],
                "expected-tasks 'a': expected name=interval",
            ),
        ] {
            let refused = read(args).unwrap_err();
            assert!(refused.starts_with(why), "{refused}");
        }
    }

    #[test]
    fn names_are_found_with_the_modules_name_in_front_and_in_either_case() {
        assert_eq!(named(b"HYGIENE.Default-TTL").unwrap().name, "default-ttl");
        assert_eq!(named(b"default-ttl").unwrap().name, "default-ttl");
    }
}
