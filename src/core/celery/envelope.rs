//! kombu's message envelope: an element of a queue's list, or a value of the
//! hash of deliveries nobody acknowledged yet.
//!
//! The envelope is JSON whatever the task's serializer or compression: only
//! `body` is opaque, and is passed over without being decoded or copied.
//! Source: kombu 5.7 `kombu/transport/virtual/base.py` `prepare_message` and
//! celery 5.7 `celery/app/amqp.py` `as_task_v2`.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::json::{Malformed, Reader};
use super::result::parse_date;

/// The most that is read of a message apart from its body, in bytes: celery
/// cuts `argsrepr` and `kwargsrepr` at 1024 characters each, so a real one
/// stays below 4 KB unless its user adds headers.
pub const MAX_ENVELOPE: usize = 64 * 1024;

/// The longest body that is passed over, in bytes. Looking for its closing
/// quote takes about 1 ms there.
pub const MAX_BODY: usize = 8 * 1024 * 1024;

/// How a message begins, as `json.dumps` puts it with either of its usual
/// separators.
pub(super) const LEADS: [&[u8]; 2] = [br#"{"body": ""#, br#"{"body":""#];

/// More than Celery's properties take, in bytes.
const PROPERTIES: usize = 512;

static PRIORITY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#""priority":"#));

/// Made once: that takes longer than looking through a message's properties.
static PERIODIC_TASK_NAME: LazyLock<Finder<'static>> =
    LazyLock::new(|| Finder::new(b"periodic_task_name"));

/// What a message says of itself outside its body; of a task of protocol 1, once it was
/// [completed](super::body::complete), also what that says.
///
/// Text is as written, `None` where absent, null or of another type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Header `task`: the task's name.
    pub task: Option<Cow<'a, str>>,
    /// Header `id`: the task's id.
    pub id: Option<Cow<'a, str>>,
    /// Header `origin`: `gen<pid>@<host>` of the process that sent it.
    pub origin: Option<Cow<'a, str>>,
    /// Header `parent_id`: the task that sent it.
    pub parent_id: Option<Cow<'a, str>>,
    /// Header `root_id`: the first task of the workflow.
    pub root_id: Option<Cow<'a, str>>,
    /// Header `celery_beat_task`: beat sent it. Celery 5.7 and later
    /// (`celery/beat.py`); `false` proves nothing before that.
    pub beat: bool,
    /// Header `periodic_task_name`, before django-celery-beat 2.8.0 a property:
    /// the schedule's entry, by django-celery-beat 2.3.0 and later
    /// (`schedulers.py`).
    pub periodic_task_name: Option<Cow<'a, str>>,
    /// Header `eta`: not to be run before, in Unix ms.
    pub eta_ms: Option<i64>,
    /// Header `eta` says something that is no moment.
    pub eta_unread: bool,
    /// Header `expires`: not to be run after, in Unix ms.
    pub expires_ms: Option<i64>,
    /// Property `expiration`: how long it was good for when sent, in ms.
    pub expiration_ms: Option<i64>,
    /// Header `retries`: how often it was tried before.
    pub retries: Option<i64>,
    /// It was put back after a delivery that nobody acknowledged.
    pub redelivered: bool,
    /// Header `ignore_result`: no result will be stored.
    pub ignore_result: bool,
    /// Header `ticket`: the question that this control reply answers.
    pub ticket: Option<Cow<'a, str>>,
    /// Property `priority`; 0 is the highest to kombu's Redis transport.
    pub priority: Option<i64>,
    /// `properties.delivery_info.exchange`; empty is the default exchange.
    pub exchange: Option<Cow<'a, str>>,
    /// `properties.delivery_info.routing_key`.
    pub routing_key: Option<Cow<'a, str>>,
    /// Property `delivery_tag`: the field of the unacknowledged hash.
    pub delivery_tag: Option<Cow<'a, str>>,
    /// Property `correlation_id`: the task's id again.
    pub correlation_id: Option<Cow<'a, str>>,
    /// Property `reply_to`: the same for all messages of one process.
    pub reply_to: Option<Cow<'a, str>>,
    /// Property `body_encoding`: how the body was made text.
    pub body_encoding: Option<Cow<'a, str>>,
    /// The task is one of protocol 1, which does not say whether another task sent it.
    pub protocol_1: bool,
}

/// What a message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A task of protocol 2, celery 4 and later; or of protocol 1 once it was
    /// [completed](super::body::complete).
    Task,
    /// A worker's answer to a control command (kombu `kombu/pidbox.py`).
    PidboxReply,
    /// A task of protocol 1 or a result of the rpc backend: what tells them
    /// apart is in the body.
    Other,
}

impl Envelope<'_> {
    /// What the message carries.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        if self.ticket.is_some() {
            Kind::PidboxReply
        } else if self.task.is_some() && self.id.is_some() {
            Kind::Task
        } else {
            Kind::Other
        }
    }

    /// Whether it was tried before, or delivered and put back.
    #[must_use]
    pub fn is_again(&self) -> bool {
        self.retries.is_some_and(|n| n > 0) || self.redelivered
    }

    /// Whether kombu takes its priority for 0, of a message that was read in full.
    #[must_use]
    pub fn is_of_lowest_priority(&self) -> bool {
        self.priority.unwrap_or(0) <= 0
    }

    /// Unix ms of publishing, known only for a task sent with `expires`.
    ///
    /// Celery 5.2.7 and later write both the moment and the span
    /// (`celery/app/base.py` `send_task`). A span of 0 is what they write for
    /// a moment that had passed already, and says nothing.
    #[must_use]
    pub fn published_at_ms(&self) -> Option<i64> {
        let span = self.expiration_ms.filter(|ms| *ms > 0)?;
        self.expires_ms?.checked_sub(span)
    }
}

/// A delivery that nobody acknowledged yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unacked<'a> {
    /// The message, as it lay in the queue.
    pub envelope: Envelope<'a>,
    /// Where it goes if it is restored; empty is the default exchange.
    pub exchange: Cow<'a, str>,
    /// The routing key it goes there with.
    pub routing_key: Cow<'a, str>,
}

/// Reads a list element. `Some` only for an object with `body`, `headers`,
/// `properties.delivery_tag` and `properties.delivery_info`: it is kombu's for
/// certain then.
///
/// `None` also for a message larger than [`MAX_ENVELOPE`] beside its body, for
/// a body larger than [`MAX_BODY`], and for one of more than [`MAX_ENVELOPE`]
/// that does not come first or holds a backslash; kombu's body is base64 and
/// comes first.
#[must_use]
pub fn read(element: &[u8]) -> Option<Envelope<'_>> {
    let mut reader = Reader::new(element);
    let envelope = message(&mut reader).ok()?;
    reader.finish().ok()?;
    Some(envelope)
}

/// Reads what tells a publish of an element of a list that is known to be a queue:
/// the headers, and of the properties only django-celery-beat's name where it
/// stands there. Within the bounds of [`read`], in half its time; what follows the
/// headers is not checked, and of a longer body only the last [`MAX_ENVELOPE`] bytes
/// are looked at.
#[must_use]
pub fn read_publish(element: &[u8]) -> Option<Envelope<'_>> {
    let mut reader = Reader::new(element);
    let mut found = Envelope::default();
    let body = LEADS
        .iter()
        .any(|lead| reader.skip_to_end(lead, MAX_BODY, MAX_ENVELOPE));
    within_bound(&reader).ok()?;
    if body {
        reader.next_member().ok().filter(|more| *more)?;
    } else {
        reader.expect(b'{').ok()?;
    }
    let mut seen = false;
    // Ends at the headers: what comes before them is passed over.
    let _ = reader.members(|reader, key| {
        if key == b"headers" {
            headers(reader, &mut found)?;
            seen = true;
            return Err(Malformed);
        }
        reader.skip()
    });
    if !seen {
        return None;
    }
    let rest = element.get(reader.at()..)?;
    if found.periodic_task_name.is_none() && PERIODIC_TASK_NAME.find(rest).is_some() {
        return read(element);
    }
    Some(found)
}

/// Whether an element is a message of priority 0, within the bounds of [`read`]. What
/// shows at its end that it is none is not read.
#[must_use]
pub fn is_of_lowest_priority(element: &[u8]) -> bool {
    let tail = element.len().saturating_sub(PROPERTIES);
    let tail = element.get(tail..).unwrap_or(element);
    let no_other = PRIORITY.find(tail).is_none_or(|at| {
        let value = tail.get(at + PRIORITY.needle().len()..).unwrap_or_default();
        let first = value.iter().find(|byte| !byte.is_ascii_whitespace());
        first.is_none_or(|byte| !matches!(byte, b'1'..=b'9'))
    });
    no_other && read(element).is_some_and(|message| message.is_of_lowest_priority())
}

/// Reads a value of the unacknowledged hash: `[message, exchange, routing_key]`
/// (kombu `kombu/transport/redis.py` `QoS.append`), within the bounds of
/// [`read`].
#[must_use]
pub fn read_unacked(value: &[u8]) -> Option<Unacked<'_>> {
    let mut reader = Reader::new(value.strip_prefix(b"[")?);
    let envelope = message(&mut reader).ok()?;
    reader.expect(b',').ok()?;
    let exchange = reader.text().ok()??;
    reader.expect(b',').ok()?;
    let routing_key = reader.text().ok()??;
    reader.expect(b']').ok()?;
    reader.finish().ok()?;
    Some(Unacked {
        envelope,
        exchange,
        routing_key,
    })
}

/// The parts that make a message kombu's.
#[derive(Default)]
struct Parts {
    body: bool,
    headers: bool,
    properties: bool,
    delivery_info: bool,
}

fn message<'a>(reader: &mut Reader<'a>) -> Result<Envelope<'a>, Malformed> {
    let mut found = Envelope::default();
    let mut parts = Parts {
        body: LEADS.iter().any(|lead| reader.skip_plain(lead, MAX_BODY)),
        ..Parts::default()
    };
    within_bound(reader)?;
    if !parts.body {
        reader.expect(b'{')?;
    } else if !reader.next_member()? {
        return Err(Malformed);
    }
    reader.members(|reader, key| match key {
        b"body" => {
            once(&mut parts.body)?;
            reader.skip()
        }
        b"headers" => {
            once(&mut parts.headers)?;
            headers(reader, &mut found)
        }
        b"properties" => {
            once(&mut parts.properties)?;
            parts.delivery_info = properties(reader, &mut found)?;
            Ok(())
        }
        _ => reader.skip(),
    })?;
    if parts.body && parts.headers && parts.delivery_info && found.delivery_tag.is_some() {
        Ok(found)
    } else {
        Err(Malformed)
    }
}

/// Fails where more is left than may be read value by value.
const fn within_bound(reader: &Reader<'_>) -> Result<(), Malformed> {
    if reader.left() <= MAX_ENVELOPE {
        Ok(())
    } else {
        Err(Malformed)
    }
}

/// Marks a part as seen. A second one would leave a mixture of both, and kombu
/// writes none.
const fn once(seen: &mut bool) -> Result<(), Malformed> {
    if *seen {
        return Err(Malformed);
    }
    *seen = true;
    Ok(())
}

/// Null headers count as none: other clients of the protocol write them.
fn headers<'a>(reader: &mut Reader<'a>, found: &mut Envelope<'a>) -> Result<(), Malformed> {
    let null = reader.peek()? == b'n';
    let object = reader.object(|reader, key| {
        match key {
            b"task" => found.task = reader.text()?,
            b"id" => found.id = reader.text()?,
            b"origin" => found.origin = reader.text()?,
            b"parent_id" => found.parent_id = reader.text()?,
            b"root_id" => found.root_id = reader.text()?,
            b"celery_beat_task" => found.beat = reader.flag()? == Some(true),
            b"periodic_task_name" => periodic_task_name(reader, found)?,
            b"eta" => (found.eta_ms, found.eta_unread) = eta(reader)?,
            b"expires" => found.expires_ms = date(reader)?,
            b"retries" => found.retries = reader.integer()?,
            b"redelivered" => found.redelivered |= reader.flag()? == Some(true),
            b"ignore_result" => found.ignore_result = reader.flag()? == Some(true),
            b"ticket" => found.ticket = reader.text()?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    if object || null {
        Ok(())
    } else {
        Err(Malformed)
    }
}

/// Answers whether the properties hold an object `delivery_info`.
fn properties<'a>(reader: &mut Reader<'a>, found: &mut Envelope<'a>) -> Result<bool, Malformed> {
    let mut delivery_info = false;
    // kombu 3 kept the priority in delivery_info; where both stand, the
    // property is what the queue was chosen by.
    let mut older_priority = None;
    reader.object(|reader, key| {
        match key {
            b"delivery_tag" => found.delivery_tag = reader.text()?,
            b"correlation_id" => found.correlation_id = reader.text()?,
            b"reply_to" => found.reply_to = reader.text()?,
            b"body_encoding" => found.body_encoding = reader.text()?,
            b"periodic_task_name" => periodic_task_name(reader, found)?,
            b"priority" => found.priority = reader.integer()?,
            b"expiration" => found.expiration_ms = span_ms(reader)?,
            b"delivery_info" => {
                delivery_info = reader.object(|reader, key| {
                    match key {
                        b"exchange" => found.exchange = reader.text()?,
                        b"routing_key" => found.routing_key = reader.text()?,
                        b"priority" => older_priority = reader.integer()?,
                        b"redelivered" => found.redelivered |= reader.flag()? == Some(true),
                        _ => reader.skip()?,
                    }
                    Ok(())
                })?;
            }
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    found.priority = found.priority.or(older_priority);
    Ok(delivery_info)
}

/// Of a name here and one there neither is a reason to forget the other.
fn periodic_task_name<'a>(
    reader: &mut Reader<'a>,
    found: &mut Envelope<'a>,
) -> Result<(), Malformed> {
    let name = reader.text()?;
    found.periodic_task_name = name.or_else(|| found.periodic_task_name.take());
    Ok(())
}

/// When not to be run before, Unix ms, and whether it says something that is no moment.
pub(super) fn eta(reader: &mut Reader<'_>) -> Result<(Option<i64>, bool), Malformed> {
    let null = reader.peek()? == b'n';
    let eta_ms = date(reader)?;
    Ok((eta_ms, !null && eta_ms.is_none()))
}

pub(super) fn date(reader: &mut Reader<'_>) -> Result<Option<i64>, Malformed> {
    Ok(reader.text()?.as_deref().and_then(parse_date))
}

/// AMQP wants `expiration` as text, and kombu writes it so
/// (`kombu/messaging.py`); others write the number.
fn span_ms(reader: &mut Reader<'_>) -> Result<Option<i64>, Malformed> {
    if reader.peek()? == b'"' {
        Ok(reader.text()?.and_then(|text| text.parse().ok()))
    } else {
        reader.integer()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As celery 5.7 and kombu 5.7 wrote it into `unacked`.
    const LATE: &str = r#"{"body": "W1s2MF0sIHt9LCB7ImNhbGxiYWNrcyI6IG51bGx9XQ==", "content-encoding": "utf-8", "content-type": "application/json", "headers": {"lang": "py", "task": "labapp.late", "id": "5932f627-0000-4000-8000-000000000001", "shadow": null, "eta": null, "expires": null, "group": null, "group_index": null, "retries": 0, "timelimit": [null, null], "root_id": "5932f627-0000-4000-8000-000000000001", "parent_id": null, "argsrepr": "(60,)", "kwargsrepr": "{}", "origin": "gen20669@vm", "ignore_result": false, "replaced_task_nesting": 0, "stamped_headers": null, "stamps": {}}, "properties": {"correlation_id": "5932f627-0000-4000-8000-000000000001", "reply_to": "6f1e0b9a-0000-3000-8000-000000000002", "delivery_mode": 2, "delivery_info": {"exchange": "", "routing_key": "celery"}, "priority": 0, "body_encoding": "base64", "delivery_tag": "0a9d5b1c-0000-4000-8000-000000000003"}}"#;

    /// A message with these headers, properties beside the needed ones, and
    /// members of `delivery_info`.
    fn with(headers: &str, properties: &str, delivery_info: &str) -> String {
        format!(
            r#"{{"body":"e30=","content-type":"application/json","headers":{{{headers}}},"properties":{{{properties}"delivery_tag":"tag","delivery_info":{{{delivery_info}}}}}}}"#
        )
    }

    fn read_text(text: &str) -> Envelope<'_> {
        read(text.as_bytes()).unwrap()
    }

    #[test]
    fn reads_a_task_as_celery_sends_it() {
        let found = read(LATE.as_bytes()).unwrap();
        let id = "5932f627-0000-4000-8000-000000000001";
        let expected = Envelope {
            task: Some("labapp.late".into()),
            id: Some(id.into()),
            origin: Some("gen20669@vm".into()),
            root_id: Some(id.into()),
            retries: Some(0),
            priority: Some(0),
            exchange: Some("".into()),
            routing_key: Some("celery".into()),
            delivery_tag: Some("0a9d5b1c-0000-4000-8000-000000000003".into()),
            correlation_id: Some(id.into()),
            reply_to: Some("6f1e0b9a-0000-3000-8000-000000000002".into()),
            body_encoding: Some("base64".into()),
            ..Envelope::default()
        };
        assert_eq!(found, expected);
        assert_eq!(found.kind(), Kind::Task);
        assert!(matches!(found.task, Some(Cow::Borrowed(_))));
        assert_eq!(found.published_at_ms(), None);

        let unspaced = LATE.replace(": ", ":").replace(", ", ",");
        assert_eq!(read(unspaced.as_bytes()), Some(expected));
    }

    #[test]
    fn a_publish_is_told_by_its_headers_alone() {
        let whole = read(LATE.as_bytes()).unwrap();
        let told = read_publish(LATE.as_bytes()).unwrap();
        assert_eq!(told.kind(), Kind::Task);
        assert_eq!(
            (told.task, told.id, told.origin, told.retries),
            (whole.task, whole.id, whole.origin, whole.retries)
        );
        assert_eq!(told.correlation_id, None, "what follows is not read");
        for (row, element) in [
            ("cut in the headers", &LATE[..LATE.find("origin").unwrap()]),
            ("no headers", r#"{"body": "W10=", "properties": {}}"#),
            ("not an object", "[1, 2]"),
            ("empty", ""),
        ] {
            assert_eq!(read_publish(element.as_bytes()), None, "{row}");
        }
        let unspaced = LATE.replace(": ", ":").replace(", ", ",");
        assert!(read_publish(unspaced.as_bytes()).is_some());
        let huge = LATE.replace("W1s2MF0sIHt9LCB7", &"W".repeat(MAX_BODY + 1));
        assert_eq!(read_publish(huge.as_bytes()), None, "a body too large");
    }

    #[test]
    fn a_publish_is_read_whatever_the_length_of_its_body_as_the_whole_is() {
        for length in [0, 1_000, MAX_ENVELOPE - 900, MAX_ENVELOPE, 1_000_000] {
            let long = LATE.replace("W1s2MF0sIHt9LCB7", &"W".repeat(length));
            let told = read_publish(long.as_bytes()).unwrap();
            let whole = read(long.as_bytes()).unwrap();
            assert_eq!((told.task, told.id), (whole.task, whole.id), "{length}");
        }
        let long = "W".repeat(MAX_ENVELOPE);
        for (row, element) in [
            (
                "in the headers",
                LATE.replace("\"(60,)\"", &format!("\"{long}\"")),
            ),
            (
                "behind them",
                LATE.replace("\"priority\"", &format!("\"x\": \"{long}\", \"priority\"")),
            ),
            (
                "before them",
                LATE.replace("\"utf-8\"", &format!("[\"{long}\"]")),
            ),
        ] {
            assert_eq!(read_publish(element.as_bytes()), None, "much {row}");
        }
    }

    #[test]
    fn reads_an_unacknowledged_delivery() {
        let value = format!(r#"[{LATE}, "", "celery"]"#);
        let found = read_unacked(value.as_bytes()).unwrap();
        assert_eq!(Some(found.envelope), read(LATE.as_bytes()));
        assert_eq!((&*found.exchange, &*found.routing_key), ("", "celery"));

        let rows = [
            ("two parts", format!(r#"[{LATE}, ""]"#)),
            ("four parts", format!(r#"[{LATE}, "", "celery", 1]"#)),
            ("a null exchange", format!(r#"[{LATE}, null, "celery"]"#)),
            ("a number for a key", format!(r#"[{LATE}, "", 1]"#)),
            ("something after it", format!(r#"[{LATE}, "", "celery"]]"#)),
            ("the message alone", LATE.to_owned()),
            ("the message is text", r#"["{}", "", "celery"]"#.to_owned()),
            ("empty", "[]".to_owned()),
        ];
        for (row, value) in rows {
            assert_eq!(read_unacked(value.as_bytes()), None, "{row}");
        }
    }

    #[test]
    fn tells_the_kinds_of_message_apart() {
        let rows = [
            ("protocol 2", r#""task":"a.b","id":"i""#, Kind::Task),
            (
                "a control reply",
                r#""ticket":"t","clock":7"#,
                Kind::PidboxReply,
            ),
            ("protocol 1 or rpc", "", Kind::Other),
            ("a task without an id", r#""task":"a.b""#, Kind::Other),
            ("a null task", r#""task":null,"id":null"#, Kind::Other),
        ];
        for (row, headers, expected) in rows {
            let text = with(headers, "", "");
            let found = read_text(&text).kind();
            assert_eq!(found, expected, "{row}");
        }
    }

    #[test]
    fn knows_the_moment_of_publishing_from_the_expiry() {
        // 2026-11-25T03:49:02.790Z, from a captured message.
        let published = Some(1_795_578_542_790);
        let rows = [
            (
                "text",
                r#""expires":"2026-11-25T03:50:02.790000+00:00""#,
                r#""expiration":"60000","#,
                published,
            ),
            (
                "a number",
                r#""expires":"2026-11-25T03:50:02.790000+00:00""#,
                r#""expiration":60000,"#,
                published,
            ),
            (
                "already past when sent",
                r#""expires":"2026-11-25T03:50:02.79""#,
                r#""expiration":"0","#,
                None,
            ),
            (
                "celery 4.4: no span",
                r#""expires":"2026-11-25T03:50:02.79""#,
                "",
                None,
            ),
            (
                "no moment",
                r#""expires":null"#,
                r#""expiration":"60000","#,
                None,
            ),
            (
                "a span of text",
                r#""expires":"2026-11-25T03:50:02.79""#,
                r#""expiration":"soon","#,
                None,
            ),
            (
                "a null span",
                r#""expires":"2026-11-25T03:50:02.79""#,
                r#""expiration":null,"#,
                None,
            ),
            (
                "a span beyond all numbers",
                r#""expires":"2026-11-25T03:50:02.79""#,
                r#""expiration":"99999999999999999999","#,
                None,
            ),
            (
                "the longest span",
                r#""expires":"2026-11-25T03:50:02.79""#,
                r#""expiration":9223372036854775807,"#,
                Some(1_795_578_602_790 - i64::MAX),
            ),
        ];
        for (row, headers, properties, expected) in rows {
            let text = with(headers, properties, "");
            let found = read_text(&text);
            assert_eq!(found.published_at_ms(), expected, "{row}");
        }
    }

    #[test]
    fn reads_what_only_some_messages_have() {
        let text = with(
            r#""celery_beat_task":true,"periodic_task_name":"nightly clean""#,
            "",
            "",
        );
        let beat = read_text(&text);
        assert!(beat.beat);
        assert_eq!(beat.periodic_task_name.as_deref(), Some("nightly clean"));

        for (row, headers, properties) in [
            ("a property alone", "", r#""periodic_task_name":"nightly","#),
            (
                "null in the headers",
                r#""periodic_task_name":null"#,
                r#""periodic_task_name":"nightly","#,
            ),
            (
                "null in the properties",
                r#""periodic_task_name":"nightly""#,
                r#""periodic_task_name":null,"#,
            ),
        ] {
            let text = with(headers, properties, "");
            let found = read_text(&text).periodic_task_name;
            assert_eq!(found.as_deref(), Some("nightly"), "{row}");
        }

        let text = with(
            r#""eta":"2026-11-25T04:50:02+01:00","retries":3,"parent_id":"p","ignore_result":true"#,
            "",
            "",
        );
        let child = read_text(&text);
        assert_eq!(child.eta_ms, Some(1_795_578_602_000));
        assert_eq!(child.retries, Some(3));
        assert_eq!(child.parent_id.as_deref(), Some("p"));
        assert!(child.ignore_result && !child.beat && !child.redelivered);

        let text = with(r#""redelivered":true"#, "", "");
        let restored = read_text(&text);
        assert!(restored.redelivered);
        let text = with("", "", r#""redelivered":true"#);
        let restored = read_text(&text);
        assert!(restored.redelivered);
    }

    #[test]
    fn a_message_of_priority_0_is_told_from_others_and_from_what_is_none() {
        let of = |priority: &str| LATE.replace("\"priority\": 0", priority);
        for (row, element, expected) in [
            ("0", LATE.to_owned(), true),
            ("without a blank", of("\"priority\":0"), true),
            ("none", of("\"x\": 0"), true),
            ("null", of("\"priority\": null"), true),
            ("below", of("\"priority\": -1"), true),
            ("above", of("\"priority\": 9"), false),
            ("of two digits", of("\"priority\":  10"), false),
            ("no message", "{\"priority\": 0}".to_owned(), false),
        ] {
            assert_eq!(is_of_lowest_priority(element.as_bytes()), expected, "{row}");
        }
    }

    #[test]
    fn reads_the_priority_where_either_kombu_put_it() {
        let rows = [
            ("a property", r#""priority":6,"#, "", Some(6)),
            ("kombu 3", "", r#""priority":3"#, Some(3)),
            ("both", r#""priority":6,"#, r#""priority":3"#, Some(6)),
            ("null", r#""priority":null,"#, "", None),
            ("text", r#""priority":"6","#, "", None),
        ];
        for (row, properties, delivery_info, expected) in rows {
            let text = with("", properties, delivery_info);
            let found = read_text(&text);
            assert_eq!(found.priority, expected, "{row}");
        }
    }

    #[test]
    fn a_field_of_another_type_is_none_and_hides_nothing() {
        let headers = r#""task":7,"id":["i"],"origin":{"task":"x"},"eta":1795578381,"expires":"soon","retries":"3","celery_beat_task":"true","redelivered":1,"ticket":null,"root_id":1e999"#;
        let text = with(
            headers,
            r#""reply_to":false,"correlation_id":null,"#,
            r#""exchange":null"#,
        );
        let found = read_text(&text);
        let expected = Envelope {
            delivery_tag: Some("tag".into()),
            // Nobody may take it for a task without one.
            eta_unread: true,
            ..Envelope::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn only_a_whole_envelope_is_certain_to_be_kombus() {
        let rows: &[(&str, &str, bool)] = &[
            (
                "least",
                r#"{"body":"","headers":{},"properties":{"delivery_tag":"t","delivery_info":{}}}"#,
                true,
            ),
            (
                "another order",
                r#"{"properties":{"delivery_info":{},"delivery_tag":"t"},"body":"","headers":{}}"#,
                true,
            ),
            (
                "white space",
                " {\n\"body\" : \"\" , \"headers\":{},\"properties\":{\"delivery_tag\":\"t\",\"delivery_info\":{}}} ",
                true,
            ),
            (
                "an escaped body",
                r#"{"body":"[[1], {\"a\": 2}]","headers":{},"properties":{"delivery_tag":"t","delivery_info":{}}}"#,
                true,
            ),
            (
                "null headers",
                r#"{"body":"","headers":null,"properties":{"delivery_tag":"t","delivery_info":{}}}"#,
                true,
            ),
            (
                "no body",
                r#"{"headers":{},"properties":{"delivery_tag":"t","delivery_info":{}}}"#,
                false,
            ),
            (
                "no headers",
                r#"{"body":"","properties":{"delivery_tag":"t","delivery_info":{}}}"#,
                false,
            ),
            (
                "headers a list",
                r#"{"body":"","headers":[],"properties":{"delivery_tag":"t","delivery_info":{}}}"#,
                false,
            ),
            ("no properties", r#"{"body":"","headers":{}}"#, false),
            (
                "no tag",
                r#"{"body":"","headers":{},"properties":{"delivery_info":{}}}"#,
                false,
            ),
            (
                "a null tag",
                r#"{"body":"","headers":{},"properties":{"delivery_tag":null,"delivery_info":{}}}"#,
                false,
            ),
            (
                "no delivery_info",
                r#"{"body":"","headers":{},"properties":{"delivery_tag":"t"}}"#,
                false,
            ),
            (
                "a null delivery_info",
                r#"{"body":"","headers":{},"properties":{"delivery_tag":"t","delivery_info":null}}"#,
                false,
            ),
            (
                "headers twice",
                r#"{"body":"","headers":{},"headers":{},"properties":{"delivery_tag":"t","delivery_info":{}}}"#,
                false,
            ),
            ("a body alone", r#"{"body":""}"#, false),
            (
                "something after it",
                r#"{"body":"","headers":{},"properties":{"delivery_tag":"t","delivery_info":{}}}x"#,
                false,
            ),
            (
                "sidekiq",
                r#"{"class":"Hard","args":[1],"jid":"b4a5","queue":"default"}"#,
                false,
            ),
            ("an object without members", "{}", false),
            ("a list", "[]", false),
            ("a text", "\"body\"", false),
            ("a pickle", "\u{80}\u{4}", false),
            ("nothing", "", false),
        ];
        for (row, element, expected) in rows {
            assert_eq!(read(element.as_bytes()).is_some(), *expected, "{row}");
        }
    }

    #[test]
    fn the_bound_counts_everything_but_a_body_that_comes_first() {
        let body = "A".repeat(1 << 20);
        let escaped = format!("\\n{body}");
        let argsrepr = format!(r#""argsrepr":"{}""#, "x".repeat(MAX_ENVELOPE));
        let first = LATE.replacen("W1s2", &body, 1);
        let rows = [
            ("a megabyte of body", first.clone(), true),
            (
                "the same with a backslash",
                LATE.replacen("W1s2", &escaped, 1),
                false,
            ),
            (
                "the same behind",
                format!(
                    r#"{{"headers":{{}},"body":"{body}","properties":{{"delivery_tag":"t","delivery_info":{{}}}}}}"#
                ),
                false,
            ),
            ("large headers", with(&argsrepr, "", ""), false),
            (
                "a body beyond its bound",
                LATE.replacen("W1s2", &"A".repeat(MAX_BODY), 1),
                false,
            ),
            (
                "white space before it",
                format!("{}{LATE}", " ".repeat(MAX_ENVELOPE)),
                false,
            ),
            (
                "white space behind it",
                format!("{LATE}{}", " ".repeat(MAX_ENVELOPE)),
                false,
            ),
            (
                "an object for a body",
                LATE.replacen("\"W1s2", &format!("{{\"a\":\"{body}\"}}, \"x\": \""), 1),
                false,
            ),
        ];
        for (row, element, expected) in rows {
            assert_eq!(read(element.as_bytes()).is_some(), expected, "{row}");
        }
        let value = format!(r#"[{first}, "", "celery"]"#);
        assert!(read_unacked(value.as_bytes()).is_some());
    }

    #[test]
    fn a_message_cut_anywhere_is_none() {
        let unacked = format!(r#"[{LATE}, "", "celery"]"#);
        for length in 0..LATE.len() {
            assert_eq!(read(&LATE.as_bytes()[..length]), None, "{length}");
        }
        for length in 0..unacked.len() {
            assert_eq!(
                read_unacked(&unacked.as_bytes()[..length]),
                None,
                "{length}"
            );
        }
    }

    #[test]
    fn any_byte_may_be_any_other() {
        for at in 0..LATE.len() {
            for byte in [0, b'"', b'\\', b'{', b']', b',', b'9', 0x80, 0xff] {
                let mut element = LATE.as_bytes().to_vec();
                element[at] = byte;
                let _ = read(&element);
                let _ = read_unacked(&element);
            }
        }
    }

    #[test]
    fn hostile_values_are_passed_or_refused() {
        let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
        let open = "[".repeat(100_000);
        let long = "9".repeat(60_000);
        let rows: &[(&str, String, bool)] = &[
            ("deep", with(&format!(r#""stamps":{deep}"#), "", ""), true),
            (
                "deep where text belongs",
                with(&format!(r#""task":{deep}"#), "", ""),
                true,
            ),
            (
                "a long number",
                with(&format!(r#""retries":{long}"#), "", ""),
                true,
            ),
            (
                "a huge exponent",
                with(r#""retries":1e999999999"#, "", ""),
                true,
            ),
            (
                "open brackets",
                format!(r#"{{"body":"","headers":{open}"#),
                false,
            ),
            ("only open brackets", open.clone(), false),
            (
                "a NUL within text",
                with("\"task\":\"a\u{0}b\"", "", ""),
                false,
            ),
        ];
        for (row, element, expected) in rows {
            assert_eq!(read(element.as_bytes()).is_some(), *expected, "{row}");
        }
        let mut bytes = with(r#""task":"~""#, "", "").into_bytes();
        let tilde = bytes.iter().position(|byte| *byte == b'~').unwrap();
        bytes[tilde] = 0xff;
        assert_eq!(read(&bytes).unwrap().task, None);
    }
}
