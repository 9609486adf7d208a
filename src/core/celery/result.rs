//! A stored task result: enough of it to say whether the task is over and when
//! it ended. Pickles and compressed bodies are named, never opened.

use std::borrow::Cow;
use std::fmt;

use chrono::{NaiveDate, NaiveTime};

use super::json::Reader;

/// The largest JSON payload that is read, in bytes: 240 KB of JSON take about
/// 1 ms at worst, and reading happens on the server's main thread.
pub const MAX_PAYLOAD: usize = 240 * 1024;

/// Celery's first release was in 2009. A host whose clock was never set says
/// 1970 or 2000, and a result must not look old enough to delete for that.
const EARLIEST_YEAR: i32 = 2009;

/// The fields of a task result that decide something.
///
/// A field that is absent, null or of an unexpected type is `None`; of a field
/// written twice the last counts, as it does for Python.
///
/// Source: celery 4.4 to 5.7, `celery/backends/base.py` `_get_result_meta`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredResult<'a> {
    /// The state: `SUCCESS`, `STARTED`, or any text a task made up.
    pub status: Option<Cow<'a, str>>,
    /// When the task ended, in Unix ms. Celery leaves it null until then.
    pub date_done_ms: Option<i64>,
    /// The task's id, equal to the tail of the key's name.
    pub task_id: Option<Cow<'a, str>>,
    /// The task's name, written only under `result_extended`.
    pub name: Option<Cow<'a, str>>,
    /// The exception's class, of a `FAILURE`, `RETRY` or `REVOKED`.
    pub exc_type: Option<Cow<'a, str>>,
}

impl StoredResult<'_> {
    /// Whether the task will write no other state: `SUCCESS`, `FAILURE` or
    /// `REVOKED` (celery 5.7 `celery/states.py` `READY_STATES`).
    #[must_use]
    pub fn finished(&self) -> bool {
        matches!(
            self.status.as_deref(),
            Some("SUCCESS" | "FAILURE" | "REVOKED")
        )
    }

    /// Unix ms of completion, only for a final state with a readable date. It
    /// may lie ahead of the server's clock: hosts disagree.
    #[must_use]
    pub fn finished_at_ms(&self) -> Option<i64> {
        self.date_done_ms.filter(|_| self.finished())
    }
}

/// Why a payload was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unreadable {
    /// Text of more than [`MAX_PAYLOAD`] bytes.
    TooLarge,
    /// `result_serializer = "pickle"`. Opening one runs code of its author.
    Pickle,
    /// `result_serializer = "msgpack"`.
    Msgpack,
    /// `result_serializer = "yaml"`.
    Yaml,
    /// `result_compression` of celery 5.7, or a bare compressed stream.
    Compressed,
    /// None of these, or JSON that is broken or is no object.
    NotJson,
}

impl Unreadable {
    /// The word replies use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Pickle => "pickle",
            Self::Msgpack => "msgpack",
            Self::Yaml => "yaml",
            Self::Compressed => "compressed",
            Self::NotJson => "not_json",
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Unreadable {}

/// Reads a stored result.
///
/// # Errors
///
/// [`Unreadable`] when the payload is no JSON object of at most
/// [`MAX_PAYLOAD`] bytes; no other field's content can cause it.
pub fn read(payload: &[u8]) -> Result<StoredResult<'_>, Unreadable> {
    let head = payload.get(..MAX_PAYLOAD).unwrap_or(payload);
    if head.trim_ascii_start().first() != Some(&b'{') {
        return Err(format_of(payload));
    }
    if payload.len() > MAX_PAYLOAD {
        return Err(Unreadable::TooLarge);
    }
    let mut reader = Reader::new(payload);
    let mut found = StoredResult::default();
    reader
        .object(|reader, key| {
            match key {
                b"status" => found.status = reader.text()?,
                b"date_done" => {
                    found.date_done_ms = reader.text()?.as_deref().and_then(parse_date);
                }
                b"task_id" => found.task_id = reader.text()?,
                b"name" => found.name = reader.text()?,
                b"result" => {
                    found.exc_type = None;
                    reader.object(|reader, key| {
                        match key {
                            b"exc_type" => found.exc_type = reader.text()?,
                            _ => reader.skip()?,
                        }
                        Ok(())
                    })?;
                }
                _ => reader.skip()?,
            }
            Ok(())
        })
        .and_then(|_| reader.finish())
        .map_err(|_| Unreadable::NotJson)?;
    // A task may return an object with that key; it is an exception's class
    // only where Celery put an exception.
    if !matches!(
        found.status.as_deref(),
        Some("FAILURE" | "RETRY" | "REVOKED")
    ) {
        found.exc_type = None;
    }
    Ok(found)
}

/// What a payload is that does not begin like a JSON object.
///
/// Source: celery 4.4 to 5.7 run with each serializer; the compressed marker
/// is celery 5.7 `celery/backends/base.py`'s. A pickle of protocol 2 or later
/// begins with 0x80 and its number, a msgpack map with 0x80 to 0x8f (the
/// length in the low half), 0xde or 0xdf.
fn format_of(payload: &[u8]) -> Unreadable {
    match payload {
        [0x80, 2..=5, ..] => Unreadable::Pickle,
        [0x80..=0x8f | 0xde | 0xdf, ..] => Unreadable::Msgpack,
        // zlib's four levels, gzip, bzip2, xz and zstd.
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..]
        | [0x1f, 0x8b, ..]
        | [b'B', b'Z', b'h', ..]
        | [0xfd, b'7', b'z', b'X', b'Z', ..]
        | [0x28, 0xb5, 0x2f, 0xfd, ..] => Unreadable::Compressed,
        _ if payload.starts_with(b"\x00celery-compressed\x00") => Unreadable::Compressed,
        _ if opens_a_yaml_map(payload) => Unreadable::Yaml,
        _ if payload.len() > MAX_PAYLOAD => Unreadable::TooLarge,
        _ => Unreadable::NotJson,
    }
}

/// Whether the first line is `word:` or `word: value`, as PyYAML writes a dict.
fn opens_a_yaml_map(payload: &[u8]) -> bool {
    let word = payload
        .iter()
        .take_while(|byte| byte.is_ascii_lowercase() || **byte == b'_')
        .count();
    word > 0
        && payload.get(word) == Some(&b':')
        && matches!(payload.get(word + 1), Some(b' ' | b'\n'))
}

/// Reads an ISO 8601 date and time into Unix ms, the fraction cut to ms.
///
/// Every form that Celery's clients write: `T` or a space between, no fraction
/// or one of 1 to 9 digits, then `Z`, `+05:30`, `-0800`, `+01` or nothing.
/// Without an offset it is UTC: celery 4.4 to 5.3 write `datetime.utcnow()`
/// whatever the app's time zone is (`celery/backends/base.py`), 5.4 writes
/// `+00:00`, 5.5 and later the app's offset, celery.node `Z`.
///
/// `None` for anything else and for years before 2009, when there was no
/// Celery.
#[must_use]
pub fn parse_date(text: &str) -> Option<i64> {
    let mut digits = Digits(text.as_bytes());
    let year = digits.four()?;
    digits.sign(b'-')?;
    let month = digits.two()?;
    digits.sign(b'-')?;
    let day = digits.two()?;
    match digits.take()? {
        b'T' | b't' | b' ' => {}
        _ => return None,
    }
    let hour = digits.two()?;
    digits.sign(b':')?;
    let minute = digits.two()?;
    digits.sign(b':')?;
    let second = digits.two()?;
    let ms = digits.fraction_ms()?;
    let offset_s = digits.offset_s()?;
    let utc = utc_ms(
        i32::try_from(year).ok()?,
        [month, day, hour, minute, second],
    )?;
    Some(utc + i64::from(ms) - i64::from(offset_s) * 1000)
}

/// Unix ms of `[month, day, hour, minute, second]` of a year, in UTC; `None`
/// where the calendar has no such moment or it lies before 2009.
pub(super) fn utc_ms(year: i32, [month, day, hour, minute, second]: [u32; 5]) -> Option<i64> {
    if !(EARLIEST_YEAR..=9999).contains(&year) {
        return None;
    }
    let time = NaiveTime::from_hms_opt(hour, minute, second)?;
    let date = NaiveDate::from_ymd_opt(year, month, day)?;
    Some(date.and_time(time).and_utc().timestamp_millis())
}

/// What is left of a date's text.
struct Digits<'a>(&'a [u8]);

impl Digits<'_> {
    fn take(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn sign(&mut self, sign: u8) -> Option<()> {
        (self.take()? == sign).then_some(())
    }

    fn one(&mut self) -> Option<u32> {
        let byte = self.take()?;
        byte.is_ascii_digit().then(|| u32::from(byte - b'0'))
    }

    fn two(&mut self) -> Option<u32> {
        Some(self.one()? * 10 + self.one()?)
    }

    fn four(&mut self) -> Option<u32> {
        Some(self.two()? * 100 + self.two()?)
    }

    fn fraction_ms(&mut self) -> Option<u32> {
        if self.0.first() != Some(&b'.') {
            return Some(0);
        }
        self.take()?;
        let mut ms = self.one()? * 100;
        for scale in [10, 1, 0, 0, 0, 0, 0, 0] {
            if !self.0.first().is_some_and(u8::is_ascii_digit) {
                break;
            }
            ms += self.one()? * scale;
        }
        Some(ms)
    }

    /// The offset from UTC in seconds, which must be all that is left.
    fn offset_s(&mut self) -> Option<i32> {
        let sign = match self.take() {
            None => return Some(0),
            Some(b'Z' | b'z') => return self.0.is_empty().then_some(0),
            Some(b'+') => 1,
            Some(b'-') => -1,
            Some(_) => return None,
        };
        let hours = self.two()?;
        if self.0.first() == Some(&b':') {
            self.take()?;
            if self.0.is_empty() {
                return None;
            }
        }
        let minutes = if self.0.is_empty() { 0 } else { self.two()? };
        if !self.0.is_empty() || hours > 23 || minutes > 59 {
            return None;
        }
        let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
        Some(sign * seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-25T03:46:21Z.
    const ENDED: i64 = 1_795_578_381_000;

    #[test]
    fn reads_every_form_of_date_that_clients_write() {
        let rows: &[(&str, &str, i64)] = &[
            (
                "naive, celery 4.4",
                "2026-11-25T03:46:21.279329",
                ENDED + 279,
            ),
            ("no microseconds", "2026-11-25T03:46:21", ENDED),
            (
                "utc offset, celery 5.4",
                "2026-11-25T03:46:21.279329+00:00",
                ENDED + 279,
            ),
            (
                "app offset, celery 5.5",
                "2026-11-25T04:46:21.279329+01:00",
                ENDED + 279,
            ),
            (
                "half an hour in the offset",
                "2026-11-25T09:16:21+05:30",
                ENDED,
            ),
            ("west, no colon", "2026-11-24T19:46:21-0800", ENDED),
            ("hours alone", "2026-11-25T04:46:21+01", ENDED),
            ("javascript", "2026-11-25T03:46:21.279Z", ENDED + 279),
            ("small letters", "2026-11-25t03:46:21z", ENDED),
            ("a space between", "2026-11-25 03:46:21.5", ENDED + 500),
            ("one fraction digit", "2026-11-25T03:46:21.2", ENDED + 200),
            (
                "nine fraction digits",
                "2026-11-25T03:46:21.279999999Z",
                ENDED + 279,
            ),
            ("leap day", "2028-02-29T00:00:00", 1_835_395_200_000),
            (
                "a date ahead is the caller's to judge",
                "9999-12-31T23:59:59Z",
                253_402_300_799_000,
            ),
            ("the first year", "2009-01-01T00:00:00Z", 1_230_768_000_000),
        ];
        for (row, text, expected) in rows {
            assert_eq!(parse_date(text), Some(*expected), "{row}");
        }
    }

    #[test]
    fn agrees_with_chrono_on_rfc_3339() {
        for day in 1..=28 {
            for offset in ["+00:00", "-11:59", "+14:00", "Z"] {
                let text = format!(
                    "2031-{:02}-{day:02}T{:02}:59:{day:02}.123456{offset}",
                    day % 12 + 1,
                    day % 24
                );
                let chrono = chrono::DateTime::parse_from_rfc3339(&text).unwrap();
                assert_eq!(parse_date(&text), Some(chrono.timestamp_millis()), "{text}");
            }
        }
    }

    #[test]
    fn refuses_what_is_no_date() {
        let rows = [
            "",
            "2026",
            "2026-11-25",
            "2026-11-25T03:46",
            "2026-11-25T03:46:21.",
            "2026-11-25T03:46:21.2793291234",
            "2026-11-25T03:46:21,5",
            "2026-11-25T03:46:21 +01:00",
            "2026-11-25T03:46:21+",
            "2026-11-25T03:46:21+1",
            "2026-11-25T03:46:21+01:",
            "2026-11-25T03:46:21+01:0",
            "2026-11-25T03:46:21+01:000",
            "2026-11-25T03:46:21+24:00",
            "2026-11-25T03:46:21+01:60",
            "2026-11-25T03:46:21ZZ",
            "2026-11-25T03:46:21Z ",
            " 2026-11-25T03:46:21",
            "2026-11-25_03:46:21",
            "2026-13-25T03:46:21",
            "2026-02-29T03:46:21",
            "2026-00-00T00:00:00",
            "2026-11-25T24:00:00",
            "2026-11-25T03:60:21",
            "2026-11-25T03:46:60",
            "+2026-11-25T03:46:21",
            "-026-11-25T03:46:21",
            "12026-11-25T03:46:21",
            "0001-01-01T00:00:00",
            "1970-01-01T00:00:00Z",
            "2008-12-31T23:59:59Z",
            "2026-11-25T03:4\u{0}:21",
            "２０２６-11-25T03:46:21",
            "1795578381",
            "yesterday",
        ];
        for text in rows {
            assert_eq!(parse_date(text), None, "{text:?}");
        }
    }

    #[test]
    fn says_when_a_task_ended() {
        let rows: &[(&str, &str, Option<i64>)] = &[
            (
                "success, celery 5.7",
                r#"{"status": "SUCCESS", "result": 3, "traceback": null, "children": [], "date_done": "2026-11-25T03:46:21.279329+00:00", "task_id": "t"}"#,
                Some(ENDED + 279),
            ),
            (
                "no spaces",
                r#"{"status":"SUCCESS","result":3,"date_done":"2026-11-25T03:46:21","task_id":"t"}"#,
                Some(ENDED),
            ),
            (
                "failure",
                r#"{"status": "FAILURE", "result": {"exc_type": "ValueError", "exc_message": ["boom"], "exc_module": "builtins"}, "traceback": "Traceback\n  \"x\"", "children": [[["c", null], null]], "date_done": "2026-11-25T03:46:21"}"#,
                Some(ENDED),
            ),
            (
                "revoked",
                r#"{"status": "REVOKED", "result": {"exc_type": "TaskRevokedError", "exc_message": ["revoked"], "exc_module": "celery.exceptions"}, "date_done": "2026-11-25T03:46:21"}"#,
                Some(ENDED),
            ),
            (
                "the date comes first",
                r#"{"date_done": "2026-11-25T03:46:21", "status": "SUCCESS"}"#,
                Some(ENDED),
            ),
            (
                "started",
                r#"{"status": "STARTED", "result": {"pid": 20668, "hostname": "w1@lab"}, "date_done": null}"#,
                None,
            ),
            (
                "a custom state with a date",
                r#"{"status": "PROGRESS", "result": {"done": 1}, "date_done": "2026-11-25T03:46:21"}"#,
                None,
            ),
            (
                "retry",
                r#"{"status": "RETRY", "date_done": "2026-11-25T03:46:21"}"#,
                None,
            ),
            (
                "no date, celery 3.1 and gocelery",
                r#"{"status": "SUCCESS", "result": 3}"#,
                None,
            ),
            (
                "a date of another type",
                r#"{"status": "SUCCESS", "date_done": 1795578381}"#,
                None,
            ),
            (
                "a date object",
                r#"{"status": "SUCCESS", "date_done": {"date_done": "2026-11-25T03:46:21"}}"#,
                None,
            ),
            (
                "an unreadable date",
                r#"{"status": "SUCCESS", "date_done": "soon"}"#,
                None,
            ),
            (
                "status null",
                r#"{"status": null, "date_done": "2026-11-25T03:46:21"}"#,
                None,
            ),
            (
                "status a number",
                r#"{"status": 1, "date_done": "2026-11-25T03:46:21"}"#,
                None,
            ),
            (
                "status in small letters",
                r#"{"status": "success", "date_done": "2026-11-25T03:46:21"}"#,
                None,
            ),
            ("no fields", "{}", None),
            (
                "a saved group",
                r#"{"result": [["g", null], [[["t", null], null]]]}"#,
                None,
            ),
            (
                "a date inside the returned text",
                r#"{"status": "SUCCESS", "result": "\"date_done\": \"2019-01-01T00:00:00\"", "date_done": "2026-11-25T03:46:21"}"#,
                Some(ENDED),
            ),
            (
                "a date inside the returned object, and none of its own",
                r#"{"status": "SUCCESS", "result": {"date_done": "2019-01-01T00:00:00", "status": "SUCCESS"}}"#,
                None,
            ),
            (
                "a date inside the keyword arguments",
                r#"{"status": "SUCCESS", "date_done": "2026-11-25T03:46:21", "kwargs": {"date_done": "2019-01-01T00:00:00"}}"#,
                Some(ENDED),
            ),
            (
                "returned what is not a number",
                r#"{"status": "SUCCESS", "result": [NaN, -Infinity], "date_done": "2026-11-25T03:46:21"}"#,
                Some(ENDED),
            ),
            (
                "a date written twice: the last counts",
                r#"{"status": "SUCCESS", "date_done": "2019-01-01T00:00:00", "date_done": "2026-11-25T03:46:21"}"#,
                Some(ENDED),
            ),
            (
                "a date taken back",
                r#"{"status": "SUCCESS", "date_done": "2019-01-01T00:00:00", "date_done": null}"#,
                None,
            ),
        ];
        for (row, payload, expected) in rows {
            let found = read(payload.as_bytes()).expect(row);
            assert_eq!(found.finished_at_ms(), *expected, "{row}");
        }
    }

    #[test]
    fn takes_the_other_fields_only_where_they_are_text() {
        let found = read(
            br#"{"status": "SUCCESS", "task_id": "a-1", "name": "app.add", "queue": "celery"}"#,
        )
        .unwrap();
        assert!(matches!(found.status, Some(Cow::Borrowed("SUCCESS"))));
        assert!(matches!(found.task_id, Some(Cow::Borrowed("a-1"))));
        assert!(matches!(found.name, Some(Cow::Borrowed("app.add"))));

        let odd = read(
            br#"{"status": true, "task_id": 7, "name": null, "date_done": [], "result": 1e999}"#,
        )
        .unwrap();
        assert_eq!(odd, StoredResult::default());

        let escaped =
            read(r#"{"name": "app.\u00e9t\u00e9", "task_id": "\ud800"}"#.as_bytes()).unwrap();
        assert_eq!(escaped.name.as_deref(), Some("app.été"));
        assert_eq!(escaped.task_id, None);
    }

    #[test]
    fn names_the_exception_only_where_celery_put_one() {
        let rows: &[(&str, &str, Option<&str>)] = &[
            (
                "failure",
                r#"{"status": "FAILURE", "result": {"exc_type": "ValueError"}}"#,
                Some("ValueError"),
            ),
            (
                "retry",
                r#"{"result": {"exc_message": [], "exc_type": "Retry"}, "status": "RETRY"}"#,
                Some("Retry"),
            ),
            (
                "revoked",
                r#"{"status": "REVOKED", "result": {"exc_type": "TaskRevokedError"}}"#,
                Some("TaskRevokedError"),
            ),
            (
                "a task returned that key",
                r#"{"status": "SUCCESS", "result": {"exc_type": "mine"}}"#,
                None,
            ),
            (
                "no object",
                r#"{"status": "FAILURE", "result": "boom"}"#,
                None,
            ),
            (
                "not text",
                r#"{"status": "FAILURE", "result": {"exc_type": ["a"]}}"#,
                None,
            ),
            (
                "deeper",
                r#"{"status": "FAILURE", "result": {"a": {"exc_type": "x"}}}"#,
                None,
            ),
            (
                "the last result counts",
                r#"{"status": "FAILURE", "result": {"exc_type": "x"}, "result": 1}"#,
                None,
            ),
        ];
        for (row, payload, expected) in rows {
            let found = read(payload.as_bytes()).expect(row);
            assert_eq!(found.exc_type.as_deref(), *expected, "{row}");
        }
    }

    #[test]
    fn names_what_it_does_not_read() {
        let large = format!(r#"{{"result": "{}"}}"#, "x".repeat(MAX_PAYLOAD));
        let rows: &[(&str, &[u8], Unreadable)] = &[
            (
                "pickle 2, celery 4.4",
                b"\x80\x02}q\x00(X\x06\x00\x00\x00status",
                Unreadable::Pickle,
            ),
            (
                "pickle 4, celery 5",
                b"\x80\x04\x95\x00\x00",
                Unreadable::Pickle,
            ),
            (
                "msgpack map of six",
                b"\x86\xa6status\xa7SUCCESS",
                Unreadable::Msgpack,
            ),
            (
                "msgpack map of sixteen",
                b"\xde\x00\x10\xa6status",
                Unreadable::Msgpack,
            ),
            (
                "yaml",
                b"children: []\ndate_done: '2026-11-25T03:46:21'\n",
                Unreadable::Yaml,
            ),
            (
                "yaml, a list first",
                b"children:\n- - a\n",
                Unreadable::Yaml,
            ),
            (
                "celery 5.7's marker",
                b"\x00celery-compressed\x00application/x-gzip\x00\x78\x9c",
                Unreadable::Compressed,
            ),
            ("bare zlib", b"\x78\x9c\xab\x56", Unreadable::Compressed),
            ("bare gzip", b"\x1f\x8b\x08", Unreadable::Compressed),
            ("too large", large.as_bytes(), Unreadable::TooLarge),
            ("empty", b"", Unreadable::NotJson),
            (
                "a list",
                br#"["SUCCESS", "2026-11-25T03:46:21"]"#,
                Unreadable::NotJson,
            ),
            ("a text", br#""SUCCESS""#, Unreadable::NotJson),
            ("a number", b"1", Unreadable::NotJson),
            ("null", b"null", Unreadable::NotJson),
            ("a word", b"SUCCESS", Unreadable::NotJson),
            (
                "something after it",
                br#"{"status": "SUCCESS"} x"#,
                Unreadable::NotJson,
            ),
            (
                "two objects",
                br#"{"status": "SUCCESS"}{}"#,
                Unreadable::NotJson,
            ),
            ("a byte order mark", b"\xef\xbb\xbf{}", Unreadable::NotJson),
            ("a NUL", b"\x00", Unreadable::NotJson),
            ("a NUL after it", b"{}\x00", Unreadable::NotJson),
            (
                "single quotes",
                b"{'status': 'SUCCESS'}",
                Unreadable::NotJson,
            ),
        ];
        for (row, payload, expected) in rows {
            assert_eq!(read(payload), Err(*expected), "{row}");
        }
    }

    #[test]
    fn a_payload_cut_anywhere_is_not_json() {
        let whole = br#"{"status": "FAILURE", "result": {"exc_type": "V\u00e9", "exc_message": [1.5e3, true]}, "date_done": "2026-11-25T03:46:21Z", "task_id": null}"#;
        assert!(read(whole).is_ok());
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), Err(Unreadable::NotJson), "{length}");
        }
    }

    #[test]
    fn hostile_values_beside_the_date_do_not_hide_it() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let objects = format!("{}1{}", "{\"a\":".repeat(30_000), "}".repeat(30_000));
        let long = "9".repeat(100_000);
        let rows: &[(&str, &str)] = &[
            ("a hundred thousand lists", &deep),
            ("thirty thousand objects", &objects),
            ("a hundred thousand digits", &long),
            ("out of a float's range", "-1e999999999"),
        ];
        for (row, value) in rows {
            let payload = format!(
                r#"{{"status": "SUCCESS", "result": {value}, "date_done": "2026-11-25T03:46:21"}}"#
            );
            let found = read(payload.as_bytes()).expect(row);
            assert_eq!(found.finished_at_ms(), Some(ENDED), "{row}");
        }
        let bytes = b"{\"result\": \"\xff\xfe\", \"\xff\": 1, \"status\": \"\xff\", \"date_done\": \"2026-11-25T03:46:21\"}";
        let found = read(bytes).unwrap();
        assert_eq!((found.status, found.date_done_ms), (None, Some(ENDED)));
    }
}
