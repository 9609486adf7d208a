//! How a task ended, for the person who waits for it: what a stored result says
//! in its first bytes. Pickles and compressed bodies are named, never opened.

use memchr::memmem;

use super::json::{Malformed, Reader};
use super::result::{self, MAX_PAYLOAD, Unreadable};

/// The most of a task's return value or of an exception's message that is shown,
/// in bytes.
pub const MAX_SHOWN: usize = 1_000;

/// What a stored result says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The state, such as `SUCCESS` or `STARTED`; `None` where it cannot be read.
    pub status: Option<String>,
    /// No other state will follow.
    pub finished: bool,
    /// The exception's class, of a `FAILURE`, `RETRY` or `REVOKED`.
    pub exc_type: Option<String>,
    /// Of a task that has finished its return value as JSON, of one that failed or
    /// will be tried again its exception as `ValueError: no such order`; cut to
    /// [`MAX_SHOWN`] bytes.
    pub shown: Vec<u8>,
    /// Why no more than the state was read.
    pub unreadable: Option<Unreadable>,
}

/// Reads a stored result.
#[must_use]
pub fn read(payload: &[u8]) -> Outcome {
    match result::read(payload) {
        Ok(stored) => {
            let finished = stored.finished();
            let exc_type = stored.exc_type.map(|text| text.into_owned());
            let value = if finished || exc_type.is_some() {
                value(payload)
            } else {
                &[]
            };
            Outcome {
                status: stored.status.map(|text| text.into_owned()),
                finished,
                shown: match &exc_type {
                    Some(exc_type) => exception(exc_type, value),
                    None => cut(value),
                },
                exc_type,
                unreadable: None,
            }
        }
        Err(why) => {
            let status = match why {
                Unreadable::Compressed | Unreadable::NotJson => None,
                _ => status_in(payload),
            };
            Outcome {
                finished: matches!(status, Some("SUCCESS" | "FAILURE" | "REVOKED")),
                status: status.map(str::to_owned),
                unreadable: Some(why),
                ..Outcome::default()
            }
        }
    }
}

/// The field `result` as it was written.
fn value(payload: &[u8]) -> &[u8] {
    let mut value: &[u8] = &[];
    let read = Reader::new(payload).object(|reader, key| {
        match key {
            b"result" => value = reader.raw()?,
            _ => reader.skip()?,
        }
        Ok(())
    });
    if read.is_ok() { value } else { &[] }
}

/// An exception as Python's last line of a traceback shows it.
fn exception(exc_type: &str, value: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    let read = Reader::new(value).object(|reader, key| {
        match key {
            b"exc_message" => message = arguments(reader.raw()?),
            _ => reader.skip()?,
        }
        Ok(())
    });
    let mut shown = exc_type.as_bytes().to_vec();
    if read.is_ok() && !message.is_empty() {
        shown.extend(b": ");
        shown.extend(message);
    }
    cut(&shown)
}

/// The exception's arguments: a single text without its quotes, anything else as
/// JSON. Celery writes a list, older versions the text alone.
fn arguments(raw: &[u8]) -> Vec<u8> {
    let single = || -> Result<Option<Vec<u8>>, Malformed> {
        let mut reader = Reader::new(raw);
        let list = reader.peek()? == b'[';
        if list {
            reader.expect(b'[')?;
        }
        let text = reader.text()?.map(|text| text.into_owned().into_bytes());
        if list {
            reader.expect(b']')?;
        }
        reader.finish()?;
        Ok(text)
    };
    match single() {
        Ok(Some(text)) => text,
        _ if matches!(raw, b"[]" | b"null") => Vec::new(),
        _ => raw.to_vec(),
    }
}

fn cut(bytes: &[u8]) -> Vec<u8> {
    bytes.get(..MAX_SHOWN).unwrap_or(bytes).to_vec()
}

/// The states that Celery itself stores.
const STATES: [&str; 5] = ["SUCCESS", "FAILURE", "REVOKED", "RETRY", "STARTED"];

/// How far behind its field's name the state may begin: what a serializer puts
/// between the two is a few bytes.
const STATE_WITHIN: usize = 16;

/// The state in a payload of another format. All of them write text as it is,
/// and all but yaml the state first.
fn status_in(payload: &[u8]) -> Option<&'static str> {
    let head = payload.get(..MAX_PAYLOAD).unwrap_or(payload);
    let at = memmem::find(head, b"status")?;
    let behind = head.get(at..)?;
    STATES.into_iter().find(|state| {
        let window = behind.get(..STATE_WITHIN + state.len()).unwrap_or(behind);
        memmem::find(window, state.as_bytes()).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(status: &str, result: &str) -> Vec<u8> {
        format!(
            r#"{{"status": "{status}", "result": {result}, "traceback": null, "children": [], "date_done": "2026-11-25T03:43:28+00:00", "task_id": "a"}}"#
        )
        .into_bytes()
    }

    #[test]
    fn a_return_value_is_shown_as_it_was_stored() {
        for value in ["3", "null", r#"{"a": [1, "two"]}"#, "NaN", r#""t\u00fc""#] {
            let found = read(&stored("SUCCESS", value));
            assert_eq!(found.status.as_deref(), Some("SUCCESS"));
            assert!(found.finished);
            assert_eq!(found.shown, value.as_bytes(), "{value}");
        }
    }

    #[test]
    fn an_exception_is_shown_as_python_shows_it() {
        for (value, expected) in [
            (
                r#"{"exc_type": "ValueError", "exc_message": ["no such order: 1"], "exc_module": "builtins"}"#,
                "ValueError: no such order: 1",
            ),
            (
                r#"{"exc_type": "NotRegistered", "exc_message": "'a.b'"}"#,
                "NotRegistered: 'a.b'",
            ),
            (
                r#"{"exc_type": "OSError", "exc_message": [2, "gone"]}"#,
                r#"OSError: [2, "gone"]"#,
            ),
            (r#"{"exc_type": "E", "exc_message": []}"#, "E"),
            (r#"{"exc_type": "E"}"#, "E"),
        ] {
            let found = read(&stored("FAILURE", value));
            assert_eq!(String::from_utf8_lossy(&found.shown), expected);
            assert!(found.finished && found.exc_type.is_some());
        }
    }

    #[test]
    fn no_more_than_the_bound_is_shown() {
        let long = format!("\"{}\"", "x".repeat(5_000));
        assert_eq!(read(&stored("SUCCESS", &long)).shown.len(), MAX_SHOWN);
        let value = format!(r#"{{"exc_type": "E", "exc_message": [{long}]}}"#);
        assert_eq!(read(&stored("FAILURE", &value)).shown.len(), MAX_SHOWN);
    }

    #[test]
    fn a_state_on_the_way_shows_nothing_and_is_no_end() {
        let value = r#"{"exc_type": "ValueError", "exc_message": ["later"]}"#;
        let found = read(&stored("RETRY", value));
        assert_eq!(
            (found.finished, &found.shown[..]),
            (false, &b"ValueError: later"[..])
        );
        for status in ["STARTED", "PROGRESS", "PENDING"] {
            let found = read(&stored(status, r#"{"pid": 1, "secret": 2}"#));
            assert_eq!(found.status.as_deref(), Some(status));
            assert!(!found.finished && found.shown.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn the_state_is_known_of_formats_that_are_not_opened() {
        let large = stored("SUCCESS", &format!("\"{}\"", "x".repeat(MAX_PAYLOAD)));
        let rows: [(&[u8], Option<&str>, bool, Unreadable); 8] = [
            (
                b"\x80\x04\x95\x10\0\0\0\0\0\0\0}\x94(\x8c\x06status\x94\x8c\x07SUCCESS\x94",
                Some("SUCCESS"),
                true,
                Unreadable::Pickle,
            ),
            (
                b"\x80\x02}q\x00(X\x06\0\0\0statusq\x01X\x07\0\0\0FAILUREq\x02",
                Some("FAILURE"),
                true,
                Unreadable::Pickle,
            ),
            (
                b"\x86\xa6status\xa7STARTED\xa6result",
                Some("STARTED"),
                false,
                Unreadable::Msgpack,
            ),
            (
                b"date_done: null\nstatus: RETRY\n",
                Some("RETRY"),
                false,
                Unreadable::Yaml,
            ),
            (&large, Some("SUCCESS"), true, Unreadable::TooLarge),
            (
                b"\x00celery-compressed\x00application/x-gzip\x00x",
                None,
                false,
                Unreadable::Compressed,
            ),
            (b"", None, false, Unreadable::NotJson),
            (
                b"{\"status\": \"SUCCESS\"",
                None,
                false,
                Unreadable::NotJson,
            ),
        ];
        for (payload, status, finished, why) in rows {
            let found = read(payload);
            assert_eq!(found.status.as_deref(), status, "{why}");
            assert_eq!((found.finished, found.unreadable), (finished, Some(why)));
            assert_eq!(found.shown, b"");
        }
    }
}
