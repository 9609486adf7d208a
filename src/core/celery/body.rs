//! The few bodies that must be looked into: of tasks in protocol 1, whose `eta`
//! stands nowhere else, and of events, which say when they happened.
//!
//! Sources: celery 5.7 `celery/app/amqp.py` `as_task_v1`, `celery/events/dispatcher.py`;
//! kombu 5.7 `kombu/transport/virtual/base.py` `Base64`.

use super::json::{Malformed, Reader};
use super::result::parse_date;

/// The longest encoded body that is decoded, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// A task of protocol 1, as far as its body tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldTask {
    /// Not to be run before, in Unix ms.
    pub eta_ms: Option<i64>,
}

/// The decoded body of a message: of an element of a list, or of a value of the
/// unacknowledged hash. `None` unless it is JSON in base64 of at most [`MAX_BODY`].
#[must_use]
pub fn decoded(element: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(element.strip_prefix(b"[").unwrap_or(element));
    let (mut body, mut encoding) = (None, None);
    reader
        .object(|reader, key| match key {
            b"body" => {
                body = reader.text()?;
                Ok(())
            }
            b"properties" => {
                reader.object(|reader, key| {
                    if key == b"body_encoding" {
                        encoding = reader.text()?;
                        Ok(())
                    } else {
                        reader.skip()
                    }
                })?;
                Ok(())
            }
            _ => reader.skip(),
        })
        .ok()?;
    let body = body.filter(|body| body.len() <= MAX_BODY)?;
    match encoding.as_deref() {
        Some("base64") => base64(body.as_bytes()),
        Some(_) => None,
        None => Some(body.into_owned().into_bytes()),
    }
}

/// Reads a task of protocol 1. `None` if the body is none, or its `eta` is no
/// moment: then nobody can say when it is due.
#[must_use]
pub fn old_task(body: &[u8]) -> Option<OldTask> {
    let mut reader = Reader::new(body);
    let (mut task, mut id, mut eta_ms, mut unread) = (false, false, None, false);
    let object = reader
        .object(|reader, key| {
            match key {
                b"task" => task = reader.text()?.is_some(),
                b"id" => id = reader.text()?.is_some(),
                b"eta" => {
                    let null = reader.peek()? == b'n';
                    eta_ms = reader.text()?.as_deref().and_then(parse_date);
                    unread = !null && eta_ms.is_none();
                }
                _ => reader.skip()?,
            }
            Ok(())
        })
        .ok()?;
    (object && task && id && !unread).then_some(OldTask { eta_ms })
}

/// When the event of a body happened, or the first of several, in Unix ms.
#[must_use]
pub fn event_ms(body: &[u8]) -> Option<i64> {
    let mut reader = Reader::new(body.strip_prefix(b"[").unwrap_or(body));
    let mut seconds = None;
    let read: Result<bool, Malformed> = reader.object(|reader, key| {
        if key == b"timestamp" {
            seconds = reader.number()?;
            Ok(())
        } else {
            reader.skip()
        }
    });
    read.ok()?;
    // Beyond this no clock goes, and the conversion would not be exact.
    let seconds = seconds.filter(|seconds| (0.0..1e12).contains(seconds))?;
    #[allow(clippy::cast_possible_truncation, reason = "bounded above")]
    Some((seconds * 1_000.0) as i64)
}

/// Decodes base64 as Python's `b64encode` writes it: the standard alphabet, padded.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text
        .strip_suffix(b"==")
        .or_else(|| text.strip_suffix(b"="))
        .unwrap_or(text);
    if !text.len().is_multiple_of(4) || digits.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for digit in group {
            bits = (bits << 6) | u32::from(sextet(*digit)?);
        }
        bits <<= 6 * (4 - group.len());
        let [_, decoded @ ..] = bits.to_be_bytes();
        bytes.extend(decoded.into_iter().take(group.len() - 1));
    }
    Some(bytes)
}

const fn sextet(digit: u8) -> Option<u8> {
    Some(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_python() {
        for (text, expected) in [
            ("", Some("")),
            ("YQ==", Some("a")),
            ("YWI=", Some("ab")),
            ("YWJj", Some("abc")),
            ("YWJjZA==", Some("abcd")),
            ("W1sxLCAyXSwge30sIHt9XQ==", Some("[[1, 2], {}, {}]")),
            ("YQ=", None),
            ("Y", None),
            ("Y===", None),
            ("YW_j", None),
            ("YW\nj", None),
        ] {
            let found = base64(text.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{text:?}");
        }
    }

    #[test]
    fn the_body_of_a_message_is_found_in_a_list_and_in_unacked() {
        let message = r#"{"body": "e30=", "headers": {}, "properties": {"delivery_info": {}, "body_encoding": "base64", "delivery_tag": "t"}}"#;
        assert_eq!(decoded(message.as_bytes()).unwrap(), b"{}");
        let unacked = format!(r#"[{message}, "", "celery"]"#);
        assert_eq!(decoded(unacked.as_bytes()).unwrap(), b"{}");
        let plain = r#"{"body": "{\"a\": 1}", "properties": {}}"#;
        assert_eq!(decoded(plain.as_bytes()).unwrap(), br#"{"a": 1}"#);
        let other = r#"{"body": "e30=", "properties": {"body_encoding": "rot13"}}"#;
        assert_eq!(decoded(other.as_bytes()), None);
    }

    #[test]
    fn a_task_of_protocol_1_tells_its_eta_or_nothing() {
        let due = Some(OldTask { eta_ms: None });
        for (body, expected) in [
            (r#"{"task": "a.b", "id": "i", "eta": null}"#, due),
            (r#"{"task": "a.b", "id": "i"}"#, due),
            (
                r#"{"task": "a.b", "id": "i", "eta": "2026-11-25T03:50:02+00:00"}"#,
                Some(OldTask {
                    eta_ms: Some(1_795_578_602_000),
                }),
            ),
            (r#"{"task": "a.b", "id": "i", "eta": "soon"}"#, None),
            (r#"{"task": "a.b", "id": "i", "eta": 5}"#, None),
            (r#"{"status": "SUCCESS", "task_id": "i"}"#, None),
            ("[]", None),
            ("\u{80}\u{2}}q", None),
        ] {
            assert_eq!(old_task(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn an_event_tells_its_moment_one_or_several() {
        for (body, expected) in [
            (
                r#"{"hostname": "w", "timestamp": 1795578841.5, "type": "x"}"#,
                Some(1_795_578_841_500),
            ),
            (
                r#"[{"timestamp": 1795578841}, {"timestamp": 1}]"#,
                Some(1_795_578_841_000),
            ),
            (r#"{"timestamp": "now"}"#, None),
            (r#"{"timestamp": 1e300}"#, None),
            (r#"{"timestamp": -1}"#, None),
            ("{}", None),
            ("", None),
        ] {
            assert_eq!(event_ms(body.as_bytes()), expected, "{body}");
        }
    }
}
