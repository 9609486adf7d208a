//! A delivery that goes back to its queue, changed as kombu changes it and
//! nowhere else.
//!
//! Source: kombu 5.7 `kombu/transport/redis.py` `Channel._do_restore_message`. It
//! decodes the message, sets `redelivered` in the headers and in
//! `properties.delivery_info` and encodes the whole anew. Here only the two marks
//! are put in: every other byte, numbers of any length among them, stays.

use std::ops::Range;

use super::envelope::{LEADS, MAX_BODY};
use super::json::{Malformed, Reader};

/// What is put in.
const MARK: &[u8] = br#""redelivered": true"#;

/// The message of a value of the unacknowledged hash that
/// [`read_unacked`](super::envelope::read_unacked) can read, marked as redelivered:
/// what is to be pushed. `None` for any other value.
#[must_use]
pub fn redelivered(value: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(value);
    reader.expect(b'[').ok()?;
    reader.peek().ok()?;
    let start = reader.at();
    let mut edits = edits(&mut reader).ok()?;
    let end = reader.at();
    edits.sort_by_key(|edit| edit.range.start);
    let mut message = Vec::with_capacity(end - start + 2 * (MARK.len() + 2));
    let mut copied = start;
    for edit in edits {
        message.extend_from_slice(value.get(copied..edit.range.start)?);
        message.extend_from_slice(edit.lead);
        message.extend_from_slice(edit.text);
        copied = edit.range.end;
    }
    message.extend_from_slice(value.get(copied..end)?);
    Some(message)
}

/// Bytes that take the place of others.
struct Edit {
    range: Range<usize>,
    lead: &'static [u8],
    text: &'static [u8],
}

/// The edits of the message that comes next.
fn edits(reader: &mut Reader<'_>) -> Result<Vec<Edit>, Malformed> {
    let mut edits = Vec::new();
    let member = |reader: &mut Reader<'_>, key: &[u8]| match key {
        b"headers" => {
            edits.extend(mark(reader)?);
            Ok(())
        }
        b"properties" => {
            reader.object(|reader, key| {
                if key == b"delivery_info" {
                    edits.extend(mark(reader)?);
                    Ok(())
                } else {
                    reader.skip()
                }
            })?;
            Ok(())
        }
        _ => reader.skip(),
    };
    if LEADS.iter().any(|lead| reader.skip_plain(lead, MAX_BODY)) {
        if reader.next_member()? {
            reader.members(member)?;
        }
    } else if !reader.object(member)? {
        return Err(Malformed);
    }
    Ok(edits)
}

/// Where the mark goes in the object that comes next: in place of one that is
/// there, as Python keeps a key's place, else at its end. `None` if it is no object.
fn mark(reader: &mut Reader<'_>) -> Result<Option<Edit>, Malformed> {
    let (mut there, mut empty) = (None, true);
    let object = reader.object(|reader, key| {
        empty = false;
        reader.peek()?;
        let start = reader.at();
        reader.skip()?;
        if key == b"redelivered" {
            there = Some(start..reader.at());
        }
        Ok(())
    })?;
    if !object {
        return Ok(None);
    }
    let close = reader.at().saturating_sub(1);
    Ok(Some(match there {
        Some(range) => Edit {
            range,
            lead: b"",
            text: b"true",
        },
        None => Edit {
            range: close..close,
            lead: if empty { b"" } else { b", " },
            text: MARK,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_marks_are_put_in_as_python_would_and_nothing_else_changes() {
        let rows = [
            (
                "as Celery writes it",
                r#"[{"body": "W10=", "headers": {"id": "i", "timelimit": [null, null]}, "properties": {"delivery_info": {"exchange": "", "routing_key": "celery"}, "priority": 0, "delivery_tag": "t"}}, "", "celery"]"#,
                r#"{"body": "W10=", "headers": {"id": "i", "timelimit": [null, null], "redelivered": true}, "properties": {"delivery_info": {"exchange": "", "routing_key": "celery", "redelivered": true}, "priority": 0, "delivery_tag": "t"}}"#,
            ),
            (
                "put back before",
                r#"[{"body": "W10=", "headers": {"redelivered": true, "id": "i"}, "properties": {"delivery_info": {"redelivered": false, "exchange": ""}, "delivery_tag": "t"}}, "", "celery"]"#,
                r#"{"body": "W10=", "headers": {"redelivered": true, "id": "i"}, "properties": {"delivery_info": {"redelivered": true, "exchange": ""}, "delivery_tag": "t"}}"#,
            ),
            (
                "protocol 1: no headers",
                r#"[{"body": "W10=", "headers": {}, "properties": {"delivery_info": {}, "delivery_tag": "t"}}, "", "celery"]"#,
                r#"{"body": "W10=", "headers": {"redelivered": true}, "properties": {"delivery_info": {"redelivered": true}, "delivery_tag": "t"}}"#,
            ),
            (
                "null headers",
                r#"[{"body": "", "headers": null, "properties": {"delivery_info": {"a": 1}, "delivery_tag": "t"}}, "", "q"]"#,
                r#"{"body": "", "headers": null, "properties": {"delivery_info": {"a": 1, "redelivered": true}, "delivery_tag": "t"}}"#,
            ),
            (
                "another order, odd numbers, nested objects of the same names",
                r#"[ {"properties":{"delivery_tag":"t","delivery_info":{"a":1e999}},"headers":{"n":123456789012345678901234567890,"headers":{"redelivered":0}},"body":"[[1], {\"headers\": {}}]"} ,"","q"]"#,
                r#"{"properties":{"delivery_tag":"t","delivery_info":{"a":1e999, "redelivered": true}},"headers":{"n":123456789012345678901234567890,"headers":{"redelivered":0}, "redelivered": true},"body":"[[1], {\"headers\": {}}]"}"#,
            ),
        ];
        for (row, value, expected) in rows {
            let found = redelivered(value.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(found).unwrap(), expected, "{row}");
        }
    }

    #[test]
    fn what_is_no_delivery_is_left_alone() {
        for value in ["", "[", "[]", "{}", "[1]", r#"["{}", "", "q"]"#, "[{"] {
            assert_eq!(redelivered(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn marking_twice_is_marking_once() {
        let value = r#"[{"body": "", "headers": {"id": "i"}, "properties": {"delivery_info": {}, "delivery_tag": "t"}}, "", "q"]"#;
        let once = redelivered(value.as_bytes()).unwrap();
        let again = [b"[".as_slice(), &once, br#", "", "q"]"#].concat();
        assert_eq!(redelivered(&again).unwrap(), once);
    }
}
