//! The few bodies that must be looked into: of tasks in protocol 1, which are named
//! nowhere else, and of events, which say when they happened.
//!
//! Sources: celery 5.7 `celery/app/amqp.py` `as_task_v1`, `celery/events/dispatcher.py`;
//! kombu 5.7 `kombu/transport/virtual/base.py` `Base64`.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::envelope::{Envelope, Kind, LEADS, MAX_ENVELOPE, date, eta};
use super::json::{Malformed, Reader};

/// The longest encoded body that is decoded, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// Puts what the body of a task of protocol 1 says where it stands in protocol 2.
/// `element` is what the message was read of: of a list, or of the unacknowledged
/// hash. Any other message stays as it is, as does one whose body is longer than
/// [`MAX_BODY`] or no JSON.
///
/// Who sent it stands nowhere. `reply_to` is another for each thread of each process
/// (celery 5.7 `celery/app/base.py` `send_task`, `thread_oid`), so it is that.
pub fn complete(message: &mut Envelope<'_>, element: &[u8]) {
    if message.kind() != Kind::Other || element.len() > MAX_BODY + MAX_ENVELOPE {
        return;
    }
    let body = match plain(element) {
        Some(text) => undone(text.into(), message.body_encoding.as_deref()),
        None => decoded(element),
    };
    let Some(task) = body.and_then(|body| old_task(&body)) else {
        return;
    };
    let origin = message.origin.take();
    *message = Envelope {
        origin: origin.or_else(|| message.reply_to.clone()),
        task: task.task,
        id: task.id,
        eta_ms: task.eta_ms,
        eta_unread: task.eta_unread,
        expires_ms: task.expires_ms,
        retries: task.retries,
        protocol_1: true,
        ..std::mem::take(message)
    };
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
    let body = match body? {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    };
    undone(body, encoding.as_deref())
}

/// The body of a message that begins with it, as written, if it holds no escapes: for
/// kombu's a search for its end.
fn plain(element: &[u8]) -> Option<&[u8]> {
    let element = element.strip_prefix(b"[").unwrap_or(element);
    let text = LEADS.iter().find_map(|lead| element.strip_prefix(*lead))?;
    let end = memchr::memchr2(b'"', b'\\', text)?;
    let (body, rest) = text.split_at_checked(end)?;
    rest.starts_with(b"\"").then_some(body)
}

/// Undoes what made a body text.
fn undone(body: Cow<'_, [u8]>, encoding: Option<&str>) -> Option<Vec<u8>> {
    if body.len() > MAX_BODY {
        return None;
    }
    match encoding {
        Some("base64") => base64(&body),
        Some(_) => None,
        None => Some(body.into_owned()),
    }
}

/// Reads a task of protocol 1; `None` if the body is none.
fn old_task(body: &[u8]) -> Option<Envelope<'static>> {
    let mut found = Envelope::default();
    let mut reader = Reader::new(body);
    let owned = |text: Option<Cow<'_, str>>| text.map(|text| Cow::Owned(text.into_owned()));
    reader
        .object(|reader, key| {
            match key {
                b"task" => found.task = owned(reader.text()?),
                b"id" => found.id = owned(reader.text()?),
                b"eta" => (found.eta_ms, found.eta_unread) = eta(reader)?,
                b"expires" => found.expires_ms = date(reader)?,
                b"retries" => found.retries = reader.integer()?,
                _ => reader.skip()?,
            }
            Ok(())
        })
        .ok()?;
    (found.kind() == Kind::Task).then_some(found)
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
    // All values at once: a digit's is below 64, anything else's above.
    let mut seen = 0;
    let table: &[u8; 256] = &SEXTETS;
    let mut value = |digit: u8| {
        let value = table.get(usize::from(digit)).copied().unwrap_or(64);
        seen |= value;
        u32::from(value)
    };
    let (groups, rest) = digits.as_chunks::<4>();
    for [a, b, c, d] in groups {
        let bits = value(*a) << 18 | value(*b) << 12 | value(*c) << 6 | value(*d);
        let [_, decoded @ ..] = bits.to_be_bytes();
        bytes.extend_from_slice(&decoded);
    }
    let bits = rest.iter().fold(0, |bits, digit| bits << 6 | value(*digit));
    let bits = bits << (6 * (4 - rest.len()));
    let [_, decoded @ ..] = bits.to_be_bytes();
    bytes.extend(decoded.into_iter().take(rest.len().saturating_sub(1)));
    (seen < 64).then_some(bytes)
}

/// What each digit of base64 is worth; 64 what is none.
static SEXTETS: LazyLock<[u8; 256]> = LazyLock::new(|| {
    let mut byte = 0..=u8::MAX;
    std::array::from_fn(|_| byte.next().and_then(sextet).unwrap_or(64))
});

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
    use super::super::envelope;
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

    /// As celery 5.7 with `task_protocol = 1` and kombu 5.7 wrote it.
    const OLD: &str = r#"{"body": "eyJ0YXNrIjogImFwcC5jbGVhbnVwIiwgImlkIjogIjBjNjY3YzdlLTAwZjUtNDllZC04NjU0LWE2YTBjMzgyZjlhZCIsICJhcmdzIjogWzEsIDJdLCAia3dhcmdzIjoge30sICJncm91cCI6IG51bGwsICJncm91cF9pbmRleCI6IG51bGwsICJyZXRyaWVzIjogMCwgImV0YSI6IG51bGwsICJleHBpcmVzIjogIjIwMjYtMTEtMjdUMDA6MzI6MzguNTkzMjAxKzAwOjAwIiwgInV0YyI6IHRydWUsICJjYWxsYmFja3MiOiBudWxsLCAiZXJyYmFja3MiOiBudWxsLCAidGltZWxpbWl0IjogW251bGwsIG51bGxdLCAidGFza3NldCI6IG51bGwsICJjaG9yZCI6IG51bGx9", "content-encoding": "utf-8", "content-type": "application/json", "headers": {"x": 1}, "properties": {"correlation_id": "0c667c7e-00f5-49ed-8654-a6a0c382f9ad", "reply_to": "f4aca169-03ec-3932-b40e-4793bcc54793", "delivery_mode": 2, "expiration": "60000", "delivery_info": {"exchange": "", "routing_key": "celery"}, "priority": 0, "body_encoding": "base64", "delivery_tag": "f03f6f11-25dd-4966-894f-00dd6307a096"}}"#;

    fn completed(element: &str) -> Envelope<'_> {
        let mut message = envelope::read(element.as_bytes()).unwrap();
        complete(&mut message, element.as_bytes());
        message
    }

    #[test]
    fn a_task_of_protocol_1_is_read_as_one_of_protocol_2() {
        let before = envelope::read(OLD.as_bytes()).unwrap();
        assert_eq!(before.kind(), Kind::Other);
        let expires_ms = Some(1_795_739_558_593);
        let expected = Envelope {
            task: Some("app.cleanup".into()),
            id: Some("0c667c7e-00f5-49ed-8654-a6a0c382f9ad".into()),
            origin: Some("f4aca169-03ec-3932-b40e-4793bcc54793".into()),
            expires_ms,
            retries: Some(0),
            protocol_1: true,
            ..before
        };
        let found = completed(OLD);
        assert_eq!(found, expected);
        assert_eq!(found.kind(), Kind::Task);
        assert_eq!(
            found.published_at_ms(),
            expires_ms.map(|ms| ms - 60_000),
            "sent with expires"
        );
        let value = format!(r#"[{OLD}, "", "celery"]"#);
        let mut taken = envelope::read_unacked(value.as_bytes()).unwrap();
        complete(&mut taken.envelope, value.as_bytes());
        assert_eq!(taken.envelope, found);
    }

    #[test]
    fn a_body_that_is_no_task_of_protocol_1_changes_nothing() {
        let encoded = |body: &str| {
            let from = OLD.find("eyJ").unwrap();
            let end = OLD.find("\", \"content-encoding").unwrap();
            OLD.replace(&OLD[from..end], body)
        };
        let long = encoded(&"eyJ0".repeat(MAX_BODY / 4 + 1));
        let huge = encoded(&"eyJ0".repeat(MAX_BODY / 2));
        for (row, element) in [
            (
                "protocol 2",
                &*OLD.replace(r#""x": 1"#, r#""task": "t", "id": "i""#),
            ),
            ("an answer", &*OLD.replace(r#""x": 1"#, r#""ticket": "t""#)),
            (
                "a result",
                &*encoded("eyJ0YXNrX2lkIjogImkiLCAic3RhdHVzIjogIlNVQ0NFU1MifQ=="),
            ),
            ("no id", &*encoded("eyJ0YXNrIjogInQifQ==")),
            (
                "an id that is no text",
                &*encoded("eyJ0YXNrIjogInQiLCAiaWQiOiAxfQ=="),
            ),
            ("a list", &*encoded("W10=")),
            ("pickle", &*encoded("gASVAgAAAAAAAAB9lC4=")),
            ("no base64", &*encoded("eyJ0YXNr*")),
            ("nothing", &*encoded("")),
            ("another encoding", &*OLD.replace("\"base64\"", "\"rot13\"")),
            ("too long a body", &*long),
            ("far too long a body", &*huge),
        ] {
            let before = envelope::read(element.as_bytes()).unwrap();
            assert_eq!(completed(element), before, "{row}");
        }
    }

    #[test]
    fn a_task_of_protocol_1_tells_its_eta_or_that_it_cannot_be_read() {
        for (body, eta_ms, unread) in [
            (r#"{"task": "a.b", "id": "i", "eta": null}"#, None, false),
            (r#"{"task": "a.b", "id": "i"}"#, None, false),
            (
                r#"{"task": "a.b", "id": "i", "eta": "2026-11-25T03:50:02+00:00"}"#,
                Some(1_795_578_602_000),
                false,
            ),
            (r#"{"task": "a.b", "id": "i", "eta": "soon"}"#, None, true),
            (r#"{"task": "a.b", "id": "i", "eta": 5}"#, None, true),
        ] {
            let found = old_task(body.as_bytes()).unwrap();
            assert_eq!((found.eta_ms, found.eta_unread), (eta_ms, unread), "{body}");
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
