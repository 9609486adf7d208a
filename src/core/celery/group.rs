//! A saved group: which tasks it is of.
//!
//! Source: celery 5.7 `celery/result.py` `GroupResult.as_tuple` and `AsyncResult.as_tuple`,
//! `celery/backends/base.py` `_save_group`.

use std::borrow::Cow;

use super::json::{Malformed, Reader};

/// The ids of the tasks of a group, at most `most` of them; groups within the group
/// are passed over. `None` if it is no group in JSON.
#[must_use]
pub fn tasks(value: &[u8], most: usize) -> Option<Vec<Cow<'_, str>>> {
    let mut reader = Reader::new(value);
    let (mut ids, mut whole) = (Vec::new(), false);
    let object = reader.object(|reader, key| {
        if key != b"result" {
            return reader.skip();
        }
        whole = group(reader, most, &mut ids)?;
        // Whatever follows is of no interest.
        if whole { Ok(()) } else { Err(Malformed) }
    });
    let read = matches!(object, Ok(true)) && whole;
    (read || ids.len() >= most).then_some(ids)
}

/// `[[id, parent], [[[task, parent], null], ...]]`; `false` if there are more than
/// `most`.
fn group<'a>(
    reader: &mut Reader<'a>,
    most: usize,
    ids: &mut Vec<Cow<'a, str>>,
) -> Result<bool, Malformed> {
    reader.expect(b'[')?;
    reader.skip()?;
    reader.expect(b',')?;
    reader.expect(b'[')?;
    if reader.peek()? != b']' {
        loop {
            if ids.len() >= most {
                return Ok(false);
            }
            ids.extend(member(reader)?);
            if reader.peek()? != b',' {
                break;
            }
            reader.expect(b',')?;
        }
    }
    reader.expect(b']')?;
    rest(reader)?;
    Ok(true)
}

/// `[[task, parent], null]`; a group has a list in place of the null.
fn member<'a>(reader: &mut Reader<'a>) -> Result<Option<Cow<'a, str>>, Malformed> {
    reader.expect(b'[')?;
    reader.expect(b'[')?;
    let id = reader.text()?;
    rest(reader)?;
    reader.expect(b',')?;
    let task = reader.peek()? == b'n';
    reader.skip()?;
    rest(reader)?;
    Ok(id.filter(|_| task))
}

/// What is left of an array, its end included.
fn rest(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    while reader.peek()? == b',' {
        reader.expect(b',')?;
        reader.skip()?;
    }
    reader.expect(b']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_names_its_tasks_and_not_the_groups_in_it() {
        for (value, most, expected) in [
            (
                r#"{"result": [["g", null], [[["a", null], null], [["b", ["p", null]], null]]]}"#,
                9,
                Some(vec!["a", "b"]),
            ),
            (
                r#"{"result": [["g", null], [[["a", null], null], [["g2", null], [[["c", null], null]]]]]}"#,
                9,
                Some(vec!["a"]),
            ),
            (
                r#"{"result": [["g", null], [[["a", null], null], [["b", null], null], [["c", null], null]]]}"#,
                2,
                Some(vec!["a", "b"]),
            ),
            (r#"{"result": [["g", null], []]}"#, 9, Some(vec![])),
            (r#"{"result": 3}"#, 9, None),
            (r#"{"result": [["g", null], [["a"]]]}"#, 9, None),
            (r#"{"result": [["g", null]"#, 9, None),
            (r#"{}"#, 9, None),
            ("7", 9, None),
        ] {
            assert_eq!(
                tasks(value.as_bytes(), most)
                    .map(|ids| ids.iter().map(|id| id.to_string()).collect::<Vec<_>>()),
                expected.map(|ids| ids.into_iter().map(str::to_owned).collect()),
                "{value}"
            );
        }
    }
}
