//! Times and names as a person reads them in a sentence.

use std::fmt::Write as _;

/// Longest name shown in a sentence, in bytes; the reply carries it whole.
const SHOWN_BYTES: usize = 64;

/// How long `ms` milliseconds are, in one unit: `40 s`, `15 min`, `25 h`, `3 days`.
pub fn span(ms: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let s = ms.max(0) / 1000;
    if s < 2 * MINUTE {
        format!("{s} s")
    } else if s < 2 * HOUR {
        format!("{} min", s / MINUTE)
    } else if s < 3 * DAY {
        format!("{} h", s / HOUR)
    } else {
        format!("{} days", s / DAY)
    }
}

/// How long an interval is that was learnt, which is some ms more or less.
pub fn every(ms: i64) -> String {
    span(ms.saturating_add(500))
}

/// A name that may hold any byte, cut and with control characters escaped, so
/// that a queue's name cannot forge a line on somebody's terminal.
pub fn name(bytes: &[u8]) -> String {
    let shown = bytes.get(..SHOWN_BYTES).unwrap_or(bytes);
    let mut text = String::with_capacity(shown.len());
    for c in String::from_utf8_lossy(shown).chars() {
        if c.is_control() {
            let _ = write!(text, "{}", c.escape_default());
        } else {
            text.push(c);
        }
    }
    if shown.len() < bytes.len() {
        text.push_str("...");
    }
    text
}

/// `1 message`, `3 messages`.
pub fn counted(n: u64, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

/// Up to three names and how many more there are.
pub fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let mut text = names
        .iter()
        .take(3)
        .map(|n| name(n.as_bytes()))
        .collect::<Vec<_>>()
        .join(", ");
    if let Some(more) = names.len().checked_sub(3).filter(|more| *more > 0) {
        let _ = write!(text, " and {more} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_the_unit_a_person_would_use() {
        for (ms, text) in [
            (i64::MIN, "0 s"),
            (-1, "0 s"),
            (40_000, "40 s"),
            (119_999, "119 s"),
            (900_000, "15 min"),
            (25 * 3_600_000, "25 h"),
            (3 * 86_400_000, "3 days"),
            (i64::MAX, "106751991167 days"),
        ] {
            assert_eq!(span(ms), text, "{ms}");
        }
        for (ms, text) in [
            (1_996, "2 s"),
            (2_004, "2 s"),
            (899_700, "15 min"),
            (i64::MAX, "106751991167 days"),
        ] {
            assert_eq!(every(ms), text, "{ms}");
        }
    }

    #[test]
    fn a_name_cannot_break_the_line_or_grow_without_bound() {
        assert_eq!(name(b"default"), "default");
        assert_eq!(name(b"a\r\n\x1b[1m\x06"), "a\\r\\n\\u{1b}[1m\\u{6}");
        assert_eq!(name(b"\xff"), "\u{fffd}");
        assert_eq!(name(&[b'q'; 65]), format!("{}...", "q".repeat(64)));
    }

    #[test]
    fn lists_name_three_and_count_the_rest() {
        assert_eq!(listed([]), "");
        assert_eq!(listed(["a", "b", "c"]), "a, b, c");
        assert_eq!(listed(["a", "b", "c", "d"]), "a, b, c and 1 more");
        assert_eq!(counted(1, "message"), "1 message");
        assert_eq!(counted(0, "message"), "0 messages");
    }
}
