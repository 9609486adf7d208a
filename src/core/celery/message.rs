//! A task message as Celery publishes it, so that any worker takes it.
//!
//! Protocol 2, the default since Celery 4.0. Headers: celery 5.7
//! `celery/app/amqp.py` `as_task_v2`; older workers pass over those they do not
//! know. `ignore_result` is false, as of any task sent by name: from 5.6 on workers
//! then store a result that the task itself would ignore, older ones do not
//! (`celery/app/trace.py`). Envelope: kombu 5.7 `kombu/transport/virtual/base.py` `prepare_message`
//! and `_inplace_augment_message`, in the order of `json.dumps`.

use serde_json::Value;

/// Who sent it, in the header `origin`. No process of Celery has such a name
/// (`gen<pid>@<host>`), so nobody takes it for beat or for a web application.
pub const ORIGIN: &str = "hygiene.trigger";

/// The most bytes that arguments may have, positional and named together.
pub const MAX_ARGUMENTS: usize = 64 * 1024;

/// The most bytes of a task's or a queue's name.
pub const MAX_NAME: usize = 1_024;

/// Characters of arguments that the headers repeat for logs and monitors, as
/// `argsrepr_maxsize` has it.
const SHOWN_ARGUMENTS: usize = 1_024;

/// One message, about to be published with priority 0 on the default exchange,
/// whose routing key is the queue.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The task's name.
    pub task: &'a str,
    /// The task's id, a UUID.
    pub id: &'a str,
    /// The delivery's id, the field of the unacknowledged hash; a UUID.
    pub tag: &'a str,
    /// The queue's name, without the broker's key prefix.
    pub queue: &'a str,
    /// Positional arguments, a JSON array.
    pub args: &'a str,
    /// Named arguments, a JSON object.
    pub kwargs: &'a str,
}

impl Message<'_> {
    /// The element of the queue's list.
    #[must_use]
    pub fn to_json(&self) -> String {
        let Self { args, kwargs, .. } = self;
        let embed = r#"{"callbacks": null, "errbacks": null, "chain": null, "chord": null}"#;
        let body = base64(format!("[{args}, {kwargs}, {embed}]").as_bytes());
        let (id, tag) = (quoted(self.id), quoted(self.tag));
        let (task, queue, origin) = (quoted(self.task), quoted(self.queue), quoted(ORIGIN));
        let (argsrepr, kwargsrepr) = (quoted(shown(args)), quoted(shown(kwargs)));
        format!(
            r#"{{"body": "{body}", "content-encoding": "utf-8", "content-type": "application/json", "headers": {{"lang": "py", "task": {task}, "id": {id}, "shadow": null, "eta": null, "expires": null, "group": null, "group_index": null, "retries": 0, "timelimit": [null, null], "root_id": {id}, "parent_id": null, "argsrepr": {argsrepr}, "kwargsrepr": {kwargsrepr}, "origin": {origin}, "ignore_result": false, "replaced_task_nesting": 0, "stamped_headers": null, "stamps": {{}}}}, "properties": {{"correlation_id": {id}, "reply_to": "", "delivery_mode": 2, "delivery_info": {{"exchange": "", "routing_key": {queue}}}, "priority": 0, "body_encoding": "base64", "delivery_tag": {tag}}}}}"#
        )
    }
}

/// Positional arguments as a JSON array, as they were written.
///
/// # Errors
/// What they are instead.
pub fn array(json: &[u8]) -> Result<&str, String> {
    match parsed(json)? {
        (text, Value::Array(_)) => Ok(text),
        (_, other) => Err(format!("it is {}", kind(&other))),
    }
}

/// Named arguments as a JSON object, as they were written.
///
/// # Errors
/// What they are instead.
pub fn object(json: &[u8]) -> Result<&str, String> {
    match parsed(json)? {
        (text, Value::Object(_)) => Ok(text),
        (_, other) => Err(format!("it is {}", kind(&other))),
    }
}

fn parsed(json: &[u8]) -> Result<(&str, Value), String> {
    if json.len() > MAX_ARGUMENTS {
        return Err(format!("it is longer than {MAX_ARGUMENTS} bytes"));
    }
    let text = std::str::from_utf8(json).map_err(|_| "it is no UTF-8".to_owned())?;
    let value = serde_json::from_str(text).map_err(|why| format!("it is no JSON ({why})"))?;
    Ok((text.trim(), value))
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A name that can stand in a message: text, not empty, no control characters.
///
/// # Errors
/// What is wrong with it.
pub fn name(bytes: &[u8]) -> Result<&str, String> {
    if bytes.is_empty() {
        return Err("it is empty".to_owned());
    }
    if bytes.len() > MAX_NAME {
        return Err(format!("it is longer than {MAX_NAME} bytes"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "it is no UTF-8".to_owned())?;
    if text.chars().any(char::is_control) {
        return Err("it holds a control character".to_owned());
    }
    Ok(text)
}

/// A UUID of version 4 made of 16 random bytes.
#[must_use]
pub fn uuid(mut random: [u8; 16]) -> String {
    let [.., version, _, variant, _, _, _, _, _, _, _] = &mut random;
    *version = (*version & 0x0f) | 0x40;
    *variant = (*variant & 0x3f) | 0x80;
    let mut text = String::with_capacity(36);
    for (at, byte) in random.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 0x0f] {
            text.extend(char::from_digit(digit.into(), 16));
        }
    }
    text
}

/// A JSON string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The beginning of arguments, as logs and monitors show it.
fn shown(json: &str) -> &str {
    let end = json.char_indices().nth(SHOWN_ARGUMENTS);
    end.and_then(|(at, _)| json.get(..at)).unwrap_or(json)
}

/// Base64 of RFC 4648 with padding, as kombu writes a body.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let three = chunk
            .iter()
            .chain([&0, &0])
            .take(3)
            .fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        for place in 0..4 {
            let digit = (three >> (18 - 6 * place)) & 0x3f;
            match DIGITS.get(digit as usize) {
                Some(digit) if place <= chunk.len() => text.push(char::from(*digit)),
                _ => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::envelope::{self, Kind};
    use super::*;

    const ID: &str = "5932f627-0000-4000-8000-000000000001";
    const TAG: &str = "0a9d5b1c-0000-4000-8000-000000000003";

    fn message() -> Message<'static> {
        Message {
            task: "app.cleanup",
            id: ID,
            tag: TAG,
            queue: "maintenance",
            args: "[1, \"two\"]",
            kwargs: r#"{"three": 3}"#,
        }
    }

    #[test]
    fn is_read_back_as_the_task_it_names() {
        let json = message().to_json();
        let found = envelope::read(json.as_bytes()).unwrap();
        assert_eq!(found.kind(), Kind::Task);
        let expected = envelope::Envelope {
            task: Some("app.cleanup".into()),
            id: Some(ID.into()),
            origin: Some(ORIGIN.into()),
            root_id: Some(ID.into()),
            retries: Some(0),
            priority: Some(0),
            exchange: Some("".into()),
            routing_key: Some("maintenance".into()),
            delivery_tag: Some(TAG.into()),
            correlation_id: Some(ID.into()),
            reply_to: Some("".into()),
            body_encoding: Some("base64".into()),
            ..envelope::Envelope::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn has_the_members_of_a_message_that_celery_sent() {
        // Members and their order are those of celery 5.7.0 and kombu 5.7.0, as
        // captured in the tests of the envelope; the values are this message's.
        let body = "W1sxLCAidHdvIl0sIHsidGhyZWUiOiAzfSwgeyJjYWxsYmFja3MiOiBudWxsLCAiZXJyYmFja3MiOiBudWxsLCAiY2hhaW4iOiBudWxsLCAiY2hvcmQiOiBudWxsfV0=";
        let celerys = format!(
            r#"{{"body": "{body}", "content-encoding": "utf-8", "content-type": "application/json", "headers": {{"lang": "py", "task": "app.cleanup", "id": "{ID}", "shadow": null, "eta": null, "expires": null, "group": null, "group_index": null, "retries": 0, "timelimit": [null, null], "root_id": "{ID}", "parent_id": null, "argsrepr": "[1, \"two\"]", "kwargsrepr": "{{\"three\": 3}}", "origin": "hygiene.trigger", "ignore_result": false, "replaced_task_nesting": 0, "stamped_headers": null, "stamps": {{}}}}, "properties": {{"correlation_id": "{ID}", "reply_to": "", "delivery_mode": 2, "delivery_info": {{"exchange": "", "routing_key": "maintenance"}}, "priority": 0, "body_encoding": "base64", "delivery_tag": "{TAG}"}}}}"#
        );
        assert_eq!(message().to_json(), celerys);
    }

    #[test]
    fn names_and_arguments_cannot_break_out_of_their_place() {
        let json = Message {
            task: r#"a", "id": "forged"#,
            queue: "q\\",
            kwargs: r#"{"\"}": "]"}"#,
            ..message()
        }
        .to_json();
        let found = envelope::read(json.as_bytes()).unwrap();
        assert_eq!(found.task.as_deref(), Some(r#"a", "id": "forged"#));
        assert_eq!(found.id.as_deref(), Some(ID));
        assert_eq!(found.routing_key.as_deref(), Some("q\\"));
    }

    #[test]
    fn what_the_headers_repeat_of_long_arguments_is_cut_between_characters() {
        let args = format!("[\"{}\"]", "ü".repeat(5_000));
        let json = Message {
            args: &args,
            ..message()
        }
        .to_json();
        let whole: Value = serde_json::from_str(&json).unwrap();
        let repr = whole.pointer("/headers/argsrepr").unwrap();
        assert_eq!(repr.as_str().unwrap().chars().count(), SHOWN_ARGUMENTS);
    }

    #[test]
    fn arguments_are_json_of_the_right_kind_or_refused() {
        for (json, expected) in [
            ("[]", Ok("[]")),
            (" [1, {\"a\": null}] ", Ok("[1, {\"a\": null}]")),
            ("{}", Err("it is an object")),
            ("\"x\"", Err("it is a string")),
            ("1", Err("it is a number")),
            ("null", Err("it is null")),
        ] {
            assert_eq!(
                array(json.as_bytes()),
                expected.map_err(str::to_owned),
                "{json}"
            );
        }
        assert_eq!(object(b"{\"a\": []}"), Ok("{\"a\": []}"));
        assert_eq!(object(b"[]"), Err("it is an array".to_owned()));
        for json in ["", "[", "[1,]", "(1,)", "[NaN]", "[1] [2]", "{'a': 1}"] {
            let why = array(json.as_bytes()).unwrap_err();
            assert!(why.starts_with("it is no JSON"), "{json}: {why}");
        }
        assert_eq!(array(b"[\"\xff\"]"), Err("it is no UTF-8".to_owned()));
        let deep = [b"[".repeat(10_000), b"]".repeat(10_000)].concat();
        assert!(array(&deep).is_err());
        let long = format!("[\"{}\"]", "x".repeat(MAX_ARGUMENTS));
        assert!(array(long.as_bytes()).unwrap_err().contains("longer"));
    }

    #[test]
    fn names_are_text_without_control_characters() {
        assert_eq!(name("app.größe".as_bytes()), Ok("app.größe"));
        for (bytes, expected) in [
            (&b""[..], "it is empty"),
            (b"a\nb", "it holds a control character"),
            (b"celery\x06\x163", "it holds a control character"),
            (b"\xff", "it is no UTF-8"),
            (&[b'x'; MAX_NAME + 1], "it is longer than 1024 bytes"),
        ] {
            assert_eq!(name(bytes), Err(expected.to_owned()));
        }
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        // RFC 4648, section 10, and the digits it has no example for.
        for (bytes, expected) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (b"fooba", "Zm9vYmE="),
            (b"foobar", "Zm9vYmFy"),
            (b"\xfb\xff\xbe", "+/++"),
        ] {
            assert_eq!(base64(bytes), expected);
        }
    }

    #[test]
    fn a_uuid_is_one_of_version_4() {
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid([0; 16]), "00000000-0000-4000-8000-000000000000");
    }
}
