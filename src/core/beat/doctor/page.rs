//! Text of at most [`WIDTH`] columns, except for commands, which are whole so that
//! they can be copied.

use std::fmt::Write as _;

/// Columns of a line.
pub const WIDTH: usize = 80;

/// Findings, queues, tasks and sentences of evidence shown; HYGIENE.BEATSTATUS
/// VERBOSE has the rest.
pub const SHOWN: usize = 10;

/// Text under way.
#[derive(Default)]
pub struct Page(pub String);

impl Page {
    /// An empty line.
    pub fn blank(&mut self) {
        self.0.push('\n');
    }

    /// The beginning of a part.
    pub fn heading(&mut self, text: &str) {
        self.blank();
        self.line(0, text);
    }

    /// One line as it is.
    pub fn line(&mut self, indent: usize, text: &str) {
        let _ = writeln!(self.0, "{:indent$}{}", "", printable(text));
    }

    /// Words broken into lines.
    pub fn paragraph(&mut self, indent: usize, text: &str) {
        self.hanging("", indent, text);
    }

    /// The same behind a label that stands in front of the first line.
    pub fn hanging(&mut self, label: &str, indent: usize, text: &str) {
        let mut line = format!("{label:indent$}");
        let mut at = line.chars().count();
        let mut fresh = true;
        for word in text.split_whitespace() {
            let word = printable(word);
            let long = word.chars().count();
            if !fresh && at + 1 + long > WIDTH {
                let _ = writeln!(self.0, "{line}");
                line = " ".repeat(indent);
                at = indent;
                fresh = true;
            }
            if !fresh {
                line.push(' ');
                at += 1;
            }
            line.push_str(&word);
            at += long;
            fresh = false;
        }
        let _ = writeln!(self.0, "{}", line.trim_end());
    }

    /// The end of a list that was cut.
    pub fn more(&mut self, indent: usize, all: usize) {
        if let Some(more) = all.checked_sub(SHOWN).filter(|more| *more > 0) {
            self.line(
                indent,
                &format!("and {more} more: HYGIENE.BEATSTATUS VERBOSE"),
            );
        }
    }
}

/// Control characters as escapes, so that no name can move somebody's cursor.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}
