//! A cursor over a command's arguments, and the one wording of every refusal.

use super::glob::Glob;
use super::span;

/// How much of a refused argument an error repeats, in bytes.
const QUOTED: usize = 64;

/// More bytes than the name of any option has.
const LONGEST_OPTION: usize = 32;

/// An argument as an error shows it: printable, cut, never raw.
#[must_use]
pub fn quoted(word: &[u8]) -> String {
    let cut = word.get(..QUOTED).unwrap_or(word);
    let mut text = cut.escape_ascii().to_string();
    if cut.len() < word.len() {
        text.push_str("...");
    }
    format!("'{text}'")
}

/// Reads arguments one after the other. Every method's error is a whole
/// sentence that names the argument, without the `ERR` in front.
pub struct Args<'a> {
    words: std::slice::Iter<'a, &'a [u8]>,
}

impl<'a> Args<'a> {
    /// A cursor over the arguments behind the command's name.
    #[must_use]
    pub fn new(words: &'a [&'a [u8]]) -> Self {
        Self {
            words: words.iter(),
        }
    }

    /// The next word, if there is one, and in upper case as much of it as an option's
    /// name can have: a word may have 512 MB.
    pub fn option(&mut self) -> Option<(&'a [u8], String)> {
        let word = *self.words.next()?;
        let name = word.get(..LONGEST_OPTION).unwrap_or(word);
        Some((word, String::from_utf8_lossy(name).to_ascii_uppercase()))
    }

    /// The next word without taking it.
    #[must_use]
    pub fn peek(&self) -> Option<&'a [u8]> {
        self.words.as_slice().first().copied()
    }

    /// The value of `option`.
    ///
    /// # Errors
    /// None is left.
    pub fn value(&mut self, option: &str) -> Result<&'a [u8], String> {
        self.words
            .next()
            .copied()
            .ok_or_else(|| format!("{option} needs a value"))
    }

    /// A duration in ms.
    ///
    /// # Errors
    /// None is left, or it is no duration.
    pub fn span(&mut self, option: &str) -> Result<i64, String> {
        let word = self.value(option)?;
        span::parse(word).map_err(|why| format!("{option} {}: {why}", quoted(word)))
    }

    /// A whole number from `least` to `most`.
    ///
    /// # Errors
    /// None is left, it is no number, or it lies outside.
    pub fn number(&mut self, option: &str, least: u64, most: u64) -> Result<u64, String> {
        let word = self.value(option)?;
        number(word)
            .filter(|n| (least..=most).contains(n))
            .ok_or_else(|| {
                format!(
                    "{option} {}: expected a whole number from {least} to {most}",
                    quoted(word)
                )
            })
    }

    /// A glob pattern.
    ///
    /// # Errors
    /// None is left, or it is too long.
    pub fn glob(&mut self, option: &str) -> Result<Glob, String> {
        let word = self.value(option)?;
        Glob::new(word).map_err(|why| format!("{option} {}: {why}", quoted(word)))
    }
}

/// More digits than any number has.
const LONGEST_NUMBER: usize = 64;

/// Digits only, nothing else.
#[must_use]
pub fn number(word: &[u8]) -> Option<u64> {
    if word.is_empty() || word.len() > LONGEST_NUMBER || !word.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// A share in percent, `10%` or `10`, at most `most`.
#[must_use]
pub fn percent(word: &[u8], most: u64) -> Option<u64> {
    number(word.strip_suffix(b"%").unwrap_or(word)).filter(|n| *n <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_argument_and_what_would_be_right() {
        let words: [&[u8]; 1] = [b"1e3"];
        assert_eq!(
            Args::new(&words).span("TTL").unwrap_err(),
            "TTL '1e3': expected seconds, or a number with s, m, h or d such as 90s or 2h"
        );
        assert_eq!(
            Args::new(&words).number("DB", 0, 15).unwrap_err(),
            "DB '1e3': expected a whole number from 0 to 15"
        );
        assert_eq!(Args::new(&[]).span("TTL").unwrap_err(), "TTL needs a value");
    }

    #[test]
    fn bytes_are_shown_printable_and_cut() {
        assert_eq!(quoted(b"a\r\nb\x00\xff"), "'a\\r\\nb\\x00\\xff'");
        assert!(quoted(&[b'x'; 1_000]).ends_with("...'"));
    }

    #[test]
    fn of_a_long_word_no_more_is_read_than_an_option_has() {
        let words = [b"match".repeat(1_000)];
        let words = [words[0].as_slice()];
        let (word, name) = Args::new(&words).option().unwrap();
        assert_eq!((word, name.len()), (words[0], LONGEST_OPTION));
        assert!(name.starts_with("MATCHMATCH"));
    }

    #[test]
    fn numbers_are_digits_only() {
        for (word, expected) in [
            ("0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("-1", None),
            ("+1", None),
            ("", None),
            (" 1", None),
        ] {
            assert_eq!(number(word.as_bytes()), expected, "{word:?}");
        }
        assert_eq!(percent(b"10%", 50), Some(10));
        assert_eq!(percent(b"51%", 50), None);
        assert_eq!(percent(b"%", 50), None);
    }
}
