//! RedBeat's entries: the hash fields `definition` and `meta`.
//!
//! Source: celery-redbeat 2.4.2, `redbeat/schedulers.py`
//! `RedBeatSchedulerEntry` and `redbeat/decoder.py`.

use super::json::{Malformed, Reader};
use super::result::utc_ms;

/// The largest field that is read, in bytes. Real ones hold a few hundred;
/// the arguments of the task are what can grow.
pub const MAX_FIELD: usize = 64 * 1024;

/// What an entry is to run, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The entry's name: the key's without RedBeat's prefix.
    pub name: String,
    /// The task it sends.
    pub task: String,
    /// A disabled entry keeps its place in the schedule and is never sent.
    pub enabled: bool,
    /// When it is due.
    pub schedule: Schedule,
    /// The queue it is sent to, where the entry names one.
    pub queue: Option<String>,
}

/// When an entry is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At an even pace.
    Interval {
        /// The pace, in ms.
        every_ms: i64,
    },
    /// At times of the clock.
    Crontab,
    /// By an iCalendar rule; it may end.
    Rrule,
    /// A kind RedBeat 2.4.2 does not write, or a broken one.
    Other,
}

/// What an entry did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// When it was last sent, in Unix ms. `None` before the first time, and
    /// where the time was written in a named zone other than UTC: that takes a
    /// zone database to convert, and an hour's error would be worse than none.
    pub last_run_at_ms: Option<i64>,
    /// How often it was sent; absent before the first time and after
    /// RedBeat's `reschedule`.
    pub total_run_count: Option<u64>,
}

/// Reads the field `definition`; `None` where it is no JSON object of at most
/// [`MAX_FIELD`] bytes that names an entry and its task.
#[must_use]
pub fn read_definition(field: &[u8]) -> Option<Definition> {
    let mut name = None;
    let mut task = None;
    let mut queue = None;
    let mut enabled = true;
    let mut schedule = Schedule::Other;
    whole_object(field, |reader, key| {
        match key {
            b"name" => name = reader.text()?,
            b"task" => task = reader.text()?,
            // RedBeat asks `if not self.enabled`.
            b"enabled" => enabled = reader.truth()?,
            b"schedule" => schedule = read_schedule(reader)?,
            b"options" => {
                queue = None;
                reader.object(|reader, key| {
                    match key {
                        b"queue" => queue = reader.text()?,
                        _ => reader.skip()?,
                    }
                    Ok(())
                })?;
            }
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Some(Definition {
        name: name?.into_owned(),
        task: task?.into_owned(),
        enabled,
        schedule,
        queue: queue.map(|queue| queue.into_owned()),
    })
}

/// Reads the field `meta`; `None` where it is no JSON object of at most
/// [`MAX_FIELD`] bytes.
#[must_use]
pub fn read_meta(field: &[u8]) -> Option<Meta> {
    let mut meta = Meta::default();
    whole_object(field, |reader, key| {
        match key {
            b"last_run_at" => meta.last_run_at_ms = read_datetime(reader)?,
            b"total_run_count" => {
                meta.total_run_count = reader.integer()?.and_then(|count| count.try_into().ok());
            }
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Some(meta)
}

fn whole_object<'a, F>(field: &'a [u8], member: F) -> Option<()>
where
    F: FnMut(&mut Reader<'a>, &[u8]) -> Result<(), Malformed>,
{
    if field.len() > MAX_FIELD {
        return None;
    }
    let mut reader = Reader::new(field);
    let object = reader.object(member).ok()?;
    reader.finish().ok()?;
    object.then_some(())
}

fn read_schedule(reader: &mut Reader<'_>) -> Result<Schedule, Malformed> {
    let mut tag = None;
    let mut every_s = None;
    reader.object(|reader, key| {
        match key {
            b"__type__" => tag = reader.text()?,
            b"every" => every_s = reader.number()?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(match (tag.as_deref(), every_s) {
        (Some("interval"), Some(every_s)) if every_s >= 0.0 => Schedule::Interval {
            every_ms: whole_ms(every_s),
        },
        (Some("crontab"), _) => Schedule::Crontab,
        (Some("rrule"), _) => Schedule::Rrule,
        _ => Schedule::Other,
    })
}

/// Seconds to ms; what does not fit becomes the nearest that does.
#[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
fn whole_ms(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}

/// A `datetime` as RedBeat encodes it. `timezone` is a zone's name or its
/// offset in seconds; RedBeat reads a missing one as UTC.
fn read_datetime(reader: &mut Reader<'_>) -> Result<Option<i64>, Malformed> {
    let mut tag = None;
    let mut year = None;
    // Month, day, hour, minute, second.
    let [mut month, mut day] = [None; 2];
    let [mut hour, mut minute, mut second, mut microsecond] = [Some(0_u32); 4];
    let mut offset_ms = Some(0);
    reader.object(|reader, key| {
        match key {
            b"__type__" => tag = reader.text()?,
            b"year" => year = reader.integer()?.and_then(|year| i32::try_from(year).ok()),
            b"month" => month = field(reader)?,
            b"day" => day = field(reader)?,
            b"hour" => hour = field(reader)?,
            b"minute" => minute = field(reader)?,
            b"second" => second = field(reader)?,
            b"microsecond" => microsecond = field(reader)?.filter(|us| *us < 1_000_000),
            b"timezone" => offset_ms = read_offset_ms(reader)?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    let moment = || {
        let fields = [month?, day?, hour?, minute?, second?];
        let ms = i64::from(microsecond? / 1000);
        Some(utc_ms(year?, fields)? + ms - offset_ms?)
    };
    Ok(if tag.as_deref() == Some("datetime") {
        moment()
    } else {
        None
    })
}

fn field(reader: &mut Reader<'_>) -> Result<Option<u32>, Malformed> {
    Ok(reader.integer()?.and_then(|value| value.try_into().ok()))
}

/// The offset of UTC under its names, or of less than a day.
fn read_offset_ms(reader: &mut Reader<'_>) -> Result<Option<i64>, Malformed> {
    if reader.peek()? == b'"' {
        let utc = reader.text()?.is_some_and(|name| {
            matches!(
                &*name,
                "UTC" | "Etc/UTC" | "Etc/UCT" | "UCT" | "Zulu" | "Etc/Zulu" | "GMT" | "Etc/GMT"
            )
        });
        return Ok(utc.then_some(0));
    }
    Ok(reader
        .number()?
        .filter(|seconds| seconds.abs() < 86_400.0)
        .map(whole_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As celery-redbeat 2.4.2 wrote it.
    const CLEANUP: &str = r#"{"name": "cleanup-celery-results", "task": "labapp.cleanup_celery_results", "args": null, "kwargs": {}, "options": {"queue": "maintenance", "expires": 60}, "schedule": {"__type__": "interval", "every": 3.0, "relative": false}, "enabled": true}"#;

    /// As celery-redbeat 2.4.2 wrote it, in the years of these tests.
    const RAN: &str = r#"{"last_run_at": {"__type__": "datetime", "year": 2026, "month": 11, "day": 25, "hour": 3, "minute": 46, "second": 21, "microsecond": 798537, "timezone": "UTC"}, "total_run_count": 3}"#;

    /// 2026-11-25T03:46:21.798Z.
    const RAN_AT: i64 = 1_795_578_381_798;

    #[test]
    fn reads_a_definition_as_redbeat_writes_it() {
        let found = read_definition(CLEANUP.as_bytes()).unwrap();
        let expected = Definition {
            name: "cleanup-celery-results".to_owned(),
            task: "labapp.cleanup_celery_results".to_owned(),
            enabled: true,
            schedule: Schedule::Interval { every_ms: 3000 },
            queue: Some("maintenance".to_owned()),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn tells_the_kinds_of_schedule_apart() {
        let rows = [
            (
                "a crontab",
                r#"{"__type__": "crontab", "minute": "*/10", "hour": "*"}"#,
                Schedule::Crontab,
            ),
            (
                "a rule",
                r#"{"__type__": "rrule", "freq": 5, "byweekday": [{"__type__": "weekday", "wkday": 1}]}"#,
                Schedule::Rrule,
            ),
            (
                "half a second",
                r#"{"every": 0.5, "__type__": "interval"}"#,
                Schedule::Interval { every_ms: 500 },
            ),
            (
                "whole seconds",
                r#"{"__type__": "interval", "every": 86400}"#,
                Schedule::Interval {
                    every_ms: 86_400_000,
                },
            ),
            (
                "a pace beyond all numbers",
                r#"{"__type__": "interval", "every": 1e300}"#,
                Schedule::Interval { every_ms: i64::MAX },
            ),
            (
                "a negative pace",
                r#"{"__type__": "interval", "every": -1}"#,
                Schedule::Other,
            ),
            (
                "no pace",
                r#"{"__type__": "interval", "every": null}"#,
                Schedule::Other,
            ),
            (
                "an endless pace",
                r#"{"__type__": "interval", "every": Infinity}"#,
                Schedule::Other,
            ),
            (
                "another kind",
                r#"{"__type__": "solar", "event": "dawn"}"#,
                Schedule::Other,
            ),
            ("no kind", r#"{"every": 3.0}"#, Schedule::Other),
            ("null", "null", Schedule::Other),
            ("a number", "30", Schedule::Other),
        ];
        for (row, schedule, expected) in rows {
            let field = format!(r#"{{"name": "n", "task": "t", "schedule": {schedule}}}"#);
            let found = read_definition(field.as_bytes()).expect(row);
            assert_eq!(found.schedule, expected, "{row}");
        }
    }

    #[test]
    fn an_entry_is_enabled_unless_python_would_say_no() {
        let rows = [
            ("absent", "", true),
            ("true", r#", "enabled": true"#, true),
            ("one", r#", "enabled": 1"#, true),
            ("false", r#", "enabled": false"#, false),
            ("null", r#", "enabled": null"#, false),
            ("zero", r#", "enabled": 0"#, false),
        ];
        for (row, enabled, expected) in rows {
            let field = format!(r#"{{"name": "n", "task": "t"{enabled}}}"#);
            let found = read_definition(field.as_bytes()).expect(row);
            assert_eq!(found.enabled, expected, "{row}");
        }
    }

    #[test]
    fn a_definition_names_its_entry_and_task() {
        let large = format!(
            r#"{{"name": "n", "task": "t", "args": "{}"}}"#,
            "x".repeat(MAX_FIELD)
        );
        let rows: &[(&str, &str, bool)] = &[
            ("least", r#"{"name": "n", "task": "t"}"#, true),
            (
                "null options",
                r#"{"name": "n", "task": "t", "options": null}"#,
                true,
            ),
            (
                "a queue that is no text",
                r#"{"name": "n", "task": "t", "options": {"queue": 1}}"#,
                true,
            ),
            (
                "spaces and accents",
                r#"{"name": "every \u00e9vening at 8", "task": "t"}"#,
                true,
            ),
            ("no name", r#"{"task": "t"}"#, false),
            ("no task", r#"{"name": "n", "task": null}"#, false),
            ("a list", "[]", false),
            ("too large", &large, false),
            ("empty", "", false),
            (
                "something after it",
                r#"{"name": "n", "task": "t"}}"#,
                false,
            ),
        ];
        for (row, field, expected) in rows {
            assert_eq!(
                read_definition(field.as_bytes()).is_some(),
                *expected,
                "{row}"
            );
        }
    }

    #[test]
    fn reads_what_an_entry_did() {
        let ran = |timezone: &str| RAN.replace(r#", "timezone": "UTC""#, timezone);
        let rows: &[(&str, String, Option<i64>, Option<u64>)] = &[
            ("in utc", RAN.to_owned(), Some(RAN_AT), Some(3)),
            ("an older redbeat: no zone", ran(""), Some(RAN_AT), Some(3)),
            ("an offset of one hour", ran(r#", "timezone": 3600.0"#), Some(RAN_AT - 3_600_000), Some(3)),
            ("a western offset", ran(r#", "timezone": -28800"#), Some(RAN_AT + 28_800_000), Some(3)),
            ("a named zone", ran(r#", "timezone": "Europe/Berlin""#), None, Some(3)),
            ("a null zone", ran(r#", "timezone": null"#), None, Some(3)),
            ("an offset of years", ran(r#", "timezone": 1e9"#), None, Some(3)),
            ("never", r#"{"last_run_at": null}"#.to_owned(), None, None),
            ("nothing", "{}".to_owned(), None, None),
            ("rescheduled", RAN.replace(r#", "total_run_count": 3"#, ""), Some(RAN_AT), None),
            ("a date alone", r#"{"last_run_at": {"__type__": "datetime", "year": 2026, "month": 11, "day": 25}}"#.to_owned(), Some(1_795_564_800_000), None),
            ("no day", r#"{"last_run_at": {"__type__": "datetime", "year": 2026, "month": 11}}"#.to_owned(), None, None),
            ("no such day", RAN.replace("25", "31"), None, Some(3)),
            ("a negative hour", RAN.replace(r#""hour": 3"#, r#""hour": -3"#), None, Some(3)),
            ("too many microseconds", RAN.replace("798537", "1798537"), None, Some(3)),
            ("python's first year", RAN.replace("2026", "1"), None, Some(3)),
            ("a year beyond all numbers", RAN.replace("2026", "99999999999"), None, Some(3)),
            ("another object", RAN.replace("\"datetime\"", "\"date\""), None, Some(3)),
            ("text", r#"{"last_run_at": "2026-11-25", "total_run_count": -1}"#.to_owned(), None, None),
        ];
        for (row, field, last_run_at_ms, total_run_count) in rows {
            let expected = Meta {
                last_run_at_ms: *last_run_at_ms,
                total_run_count: *total_run_count,
            };
            assert_eq!(read_meta(field.as_bytes()), Some(expected), "{row}");
        }
    }

    #[test]
    fn a_field_cut_anywhere_is_none() {
        for length in 0..CLEANUP.len() {
            assert_eq!(
                read_definition(&CLEANUP.as_bytes()[..length]),
                None,
                "{length}"
            );
        }
        for length in 0..RAN.len() {
            assert_eq!(read_meta(&RAN.as_bytes()[..length]), None, "{length}");
        }
    }

    #[test]
    fn hostile_fields_are_none() {
        let deep = "[".repeat(60_000);
        let rows: &[(&str, &[u8])] = &[
            ("open brackets", deep.as_bytes()),
            ("a NUL", b"\x00"),
            ("no utf-8", b"\xff\xfe{}"),
            ("a pickle", b"\x80\x04}"),
            ("null", b"null"),
            ("too large", &[b' '; MAX_FIELD + 1]),
        ];
        for (row, field) in rows {
            assert_eq!(read_definition(field), None, "{row}");
            assert_eq!(read_meta(field), None, "{row}");
        }
    }
}
