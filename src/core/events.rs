//! What is published on `hygiene:events`: one line of JSON for each event.

use std::fmt::Write;

use super::beat::Verdict;

/// The verdict on periodic work is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The verdict that holds now.
    pub verdict: Verdict,
    /// The one that held before.
    pub before: Verdict,
    /// A sentence that says why.
    pub reason: String,
    /// When, Unix ms.
    pub at_ms: i64,
}

impl Change {
    /// The message. `node` is the id of the cluster's node, empty outside of one.
    #[must_use]
    pub fn message(&self, node: &str) -> String {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        format!(
            r#"{{"event":"verdict","verdict":"{}","verdict_code":{},"before":"{}","before_code":{},"reason":{},"at_ms":{},"node":{}}}"#,
            self.verdict.word(),
            self.verdict.code(),
            self.before.word(),
            self.before.code(),
            text(&self.reason),
            self.at_ms,
            text(node)
        )
    }
}

/// A key's name as a monitor can take it: text without control characters, with any
/// other byte as `\xHH` and a backslash doubled.
#[must_use]
pub fn label(name: &[u8]) -> String {
    let mut label = String::with_capacity(name.len());
    let escape = |label: &mut String, bytes: &[u8]| {
        for byte in bytes {
            let _ = write!(label, "\\x{byte:02x}");
        }
    };
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => label.push_str("\\\\"),
                c if c.is_control() => escape(&mut label, c.to_string().as_bytes()),
                c => label.push(c),
            }
        }
        escape(&mut label, chunk.invalid());
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_of_json_whatever_the_reason_says() {
        let change = Change {
            verdict: Verdict::BeatSilent,
            before: Verdict::Healthy,
            reason: "task \"a\\b\"\nis\u{7f}\u{2028} gone".to_owned(),
            at_ms: 1_795_578_841_670,
        };
        let message = change.message("f00d");
        assert!(!message.contains('\n'));
        assert!(message.starts_with(
            r#"{"event":"verdict","verdict":"beat_silent","verdict_code":5,"before":"healthy","before_code":0,"reason":"#
        ));
        let read: serde_json::Value = serde_json::from_str(&message).unwrap();
        assert_eq!(read["reason"], change.reason.as_str());
        assert_eq!(read["at_ms"], change.at_ms);
        assert_eq!(read["node"], "f00d");
    }

    #[test]
    fn a_label_is_text_and_different_for_each_name() {
        for (name, expected) in [
            (&b"celery"[..], "celery"),
            ("pr\u{e9}fixe:q".as_bytes(), "pr\u{e9}fixe:q"),
            (b"a\x06\x163", "a\\x06\\x163"),
            (b"a\xffb\n", "a\\xffb\\x0a"),
            (b"a\\xff", "a\\\\xff"),
            ("\u{85}".as_bytes(), "\\xc2\\x85"),
            (b"", ""),
        ] {
            assert_eq!(label(name), expected);
        }
    }
}
