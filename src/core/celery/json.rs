//! A reader for the JSON that Python writes, one value at a time.
//!
//! serde_json refuses four things `json.dumps` produces: `NaN`, `Infinity`,
//! integers of any length and lone surrogates. One such value inside a task's
//! return value would hide the date beside it, and skipping is most of the work
//! here anyway: of a payload with a hundred values three are wanted. So the
//! tokens are told apart here and only escaped strings go to serde_json.
//! Nothing recurses on the payload's depth.

use std::borrow::Cow;

/// The bytes are not JSON, or end too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

type Read<T> = Result<T, Malformed>;

/// A position in a JSON text.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    pub(super) const fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// The first byte of what comes next, past white space.
    pub(super) fn peek(&mut self) -> Read<u8> {
        while let Some(&byte) = self.bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Ok(byte);
            }
            self.at += 1;
        }
        Err(Malformed)
    }

    /// Takes `byte`, past white space.
    pub(super) fn expect(&mut self, byte: u8) -> Read<()> {
        if self.peek()? == byte {
            self.at += 1;
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    /// Demands that nothing but white space is left.
    pub(super) fn finish(&mut self) -> Read<()> {
        match self.peek() {
            Ok(_) => Err(Malformed),
            Err(Malformed) => Ok(()),
        }
    }

    /// Hands each member of an object to `member`, which must take its value.
    /// Any other value is skipped: the answer says whether it was an object.
    pub(super) fn object<F>(&mut self, member: F) -> Read<bool>
    where
        F: FnMut(&mut Self, &[u8]) -> Read<()>,
    {
        if self.peek()? != b'{' {
            self.skip()?;
            return Ok(false);
        }
        self.at += 1;
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(true);
        }
        self.members(member)?;
        Ok(true)
    }

    /// The rest of an object from a key on, its closing brace included.
    pub(super) fn members<F>(&mut self, mut member: F) -> Read<()>
    where
        F: FnMut(&mut Self, &[u8]) -> Read<()>,
    {
        loop {
            let key = self.key()?;
            member(self, key)?;
            if !self.next_member()? {
                return Ok(());
            }
        }
    }

    /// Takes the comma before another member, or the object's closing brace.
    pub(super) fn next_member(&mut self) -> Read<bool> {
        let byte = self.peek()?;
        self.at += 1;
        match byte {
            b',' => Ok(true),
            b'}' => Ok(false),
            _ => Err(Malformed),
        }
    }

    /// A key and the colon after it, escapes as written: no encoder escapes the
    /// letters of a key that is looked for here.
    fn key(&mut self) -> Read<&'a [u8]> {
        if self.peek()? != b'"' {
            return Err(Malformed);
        }
        let start = self.at;
        self.pass_string()?;
        let key = self.inner(start)?;
        self.expect(b':')?;
        Ok(key)
    }

    /// A string; `None` for any other value, which is skipped, and for one that
    /// is not UTF-8 or holds half a surrogate pair.
    pub(super) fn text(&mut self) -> Read<Option<Cow<'a, str>>> {
        if self.peek()? != b'"' {
            self.skip()?;
            return Ok(None);
        }
        let start = self.at;
        Ok(if self.pass_string()? {
            let whole = self.bytes.get(start..self.at).ok_or(Malformed)?;
            serde_json::from_slice(whole).ok().map(Cow::Owned)
        } else {
            let inner = self.inner(start)?;
            std::str::from_utf8(inner).ok().map(Cow::Borrowed)
        })
    }

    /// An integer that fits; `None` for any other value, which is skipped.
    pub(super) fn integer(&mut self) -> Read<Option<i64>> {
        Ok(self.digits()?.and_then(|digits| digits.parse().ok()))
    }

    /// A finite number; `None` for any other value, which is skipped.
    pub(super) fn number(&mut self) -> Read<Option<f64>> {
        Ok(self
            .digits()?
            .and_then(|digits| digits.parse().ok())
            .filter(|number: &f64| number.is_finite()))
    }

    /// The text of a number; `None` for any other value, which is skipped.
    fn digits(&mut self) -> Read<Option<&'a str>> {
        let first = self.peek()?;
        let token = self.raw()?;
        if !matches!(first, b'-' | b'0'..=b'9') {
            return Ok(None);
        }
        Ok(std::str::from_utf8(token).ok())
    }

    /// `true` or `false`; `None` for any other value, which is skipped.
    pub(super) fn flag(&mut self) -> Read<Option<bool>> {
        let first = self.peek()?;
        self.skip()?;
        Ok(match first {
            b't' => Some(true),
            b'f' => Some(false),
            _ => None,
        })
    }

    /// Whether Python counts the value as true. A list or an object counts as
    /// true even when empty: no reader here needs to know.
    pub(super) fn truth(&mut self) -> Read<bool> {
        match self.peek()? {
            b'"' => {
                let start = self.at;
                self.pass_string()?;
                Ok(!self.inner(start)?.is_empty())
            }
            b'-' | b'0'..=b'9' => Ok(self.number()? != Some(0.0)),
            first => {
                self.skip()?;
                Ok(!matches!(first, b'n' | b'f'))
            }
        }
    }

    /// Passes `lead`, which ends in an opening quote, and its string, at the
    /// speed of memory and without a look at what the string holds. Where the
    /// text does not begin so, no quote follows within `most` bytes or a
    /// backslash comes first, nothing is passed.
    pub(super) fn skip_plain(&mut self, lead: &[u8], most: usize) -> bool {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(string) = rest.strip_prefix(lead) else {
            return false;
        };
        let window = string.get(..most).unwrap_or(string);
        match memchr::memchr2(b'"', b'\\', window) {
            Some(end) if window.get(end) == Some(&b'"') => {
                self.at += lead.len() + end + 1;
                true
            }
            _ => false,
        }
    }

    /// Passes `lead` and its string as [`Reader::skip_plain`] does, if no more than
    /// `left` bytes follow the string. Its end is looked for only where it lies then:
    /// what a long string holds before is not even read from memory. Where it ended
    /// sooner, what comes next is not what follows the string.
    pub(super) fn skip_to_end(&mut self, lead: &[u8], most: usize, left: usize) -> bool {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(string) = rest.strip_prefix(lead) else {
            return false;
        };
        let from = string.len().saturating_sub(left + 1);
        let window = string.get(from..string.len().min(most));
        let window = window.unwrap_or_default();
        match memchr::memchr2(b'"', b'\\', window) {
            Some(end) if window.get(end) == Some(&b'"') => {
                self.at += lead.len() + from + end + 1;
                true
            }
            _ => false,
        }
    }

    /// Passes one value of any kind and depth.
    pub(super) fn skip(&mut self) -> Read<()> {
        match self.peek()? {
            b'[' | b'{' => self.skip_nested(),
            first => self.skip_scalar(first),
        }
    }

    fn skip_scalar(&mut self, first: u8) -> Read<()> {
        match first {
            b'"' => self.pass_string().map(drop),
            b'-' | b'0'..=b'9' => self.skip_number(),
            b'n' => self.word(b"null"),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'N' => self.word(b"NaN"),
            b'I' => self.word(b"Infinity"),
            _ => Err(Malformed),
        }
    }

    fn skip_nested(&mut self) -> Read<()> {
        let mut open = Open::default();
        loop {
            match self.peek()? {
                b'[' => {
                    self.at += 1;
                    if self.peek()? != b']' {
                        open.push(false);
                        continue;
                    }
                    self.at += 1;
                }
                b'{' => {
                    self.at += 1;
                    if self.peek()? != b'}' {
                        self.key()?;
                        open.push(true);
                        continue;
                    }
                    self.at += 1;
                }
                first => self.skip_scalar(first)?,
            }
            loop {
                let Some(object) = open.innermost() else {
                    return Ok(());
                };
                let byte = self.peek()?;
                self.at += 1;
                if byte == if object { b'}' } else { b']' } {
                    open.pop();
                } else if byte == b',' {
                    if object {
                        self.key()?;
                    }
                    break;
                } else {
                    return Err(Malformed);
                }
            }
        }
    }

    /// Passes one value and answers it as it was written.
    pub(super) fn raw(&mut self) -> Read<&'a [u8]> {
        self.peek()?;
        let start = self.at;
        self.skip()?;
        self.bytes.get(start..self.at).ok_or(Malformed)
    }

    fn word(&mut self, word: &[u8]) -> Read<()> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    fn skip_number(&mut self) -> Read<()> {
        if self.bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
            if self.bytes.get(self.at) == Some(&b'I') {
                return self.word(b"Infinity");
            }
        }
        if self.bytes.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.skip_digits()?;
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.skip_digits()?;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.skip_digits()?;
        }
        Ok(())
    }

    /// One digit or more.
    fn skip_digits(&mut self) -> Read<()> {
        let start = self.at;
        while matches!(self.bytes.get(self.at), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > start {
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    /// What a string that was passed holds, as written: it began at `start`.
    fn inner(&self, start: usize) -> Read<&'a [u8]> {
        let inner = start + 1..self.at.saturating_sub(1);
        self.bytes.get(inner).ok_or(Malformed)
    }

    /// Passes a string, from its opening quote on, and answers whether it holds
    /// escapes.
    fn pass_string(&mut self) -> Read<bool> {
        self.at += 1;
        let mut escaped = false;
        loop {
            let rest = self.bytes.get(self.at..).ok_or(Malformed)?;
            let run = plain_run(rest);
            self.at += run + 1;
            match rest.get(run) {
                Some(b'"') => return Ok(escaped),
                Some(b'\\') => {
                    escaped = true;
                    self.skip_escape()?;
                }
                // A control character, or no byte at all.
                _ => return Err(Malformed),
            }
        }
    }

    /// What follows a backslash.
    fn skip_escape(&mut self) -> Read<()> {
        let length = match self.bytes.get(self.at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 1,
            Some(b'u') => {
                let hex = self.bytes.get(self.at + 1..self.at + 5).ok_or(Malformed)?;
                if !hex.iter().all(u8::is_ascii_hexdigit) {
                    return Err(Malformed);
                }
                5
            }
            _ => return Err(Malformed),
        };
        self.at += length;
        Ok(())
    }
}

/// How many bytes come before a quote, a backslash or a control character.
///
/// Eight at a time: a byte of `word` that is zero, or below a limit, sets its
/// own highest bit. Borrows make bits above the first hit unreliable, and only
/// the first is used.
fn plain_run(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    const fn below(word: u64, limit: u8) -> u64 {
        word.wrapping_sub(ONES * limit as u64) & !word & HIGH
    }
    let (words, rest) = bytes.as_chunks();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = below(word ^ (ONES * b'"' as u64), 1);
        let backslash = below(word ^ (ONES * b'\\' as u64), 1);
        let hits = quote | backslash | below(word, 0x20);
        if hits != 0 {
            return index * 8 + hits.trailing_zeros() as usize / 8;
        }
    }
    let tail = rest
        .iter()
        .take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f))
        .count();
    words.len() * 8 + tail
}

/// What is open around a position, the innermost last: a bit each, set for an object,
/// so that nothing is allocated up to a depth of 64.
#[derive(Default)]
struct Open {
    depth: usize,
    inner: u64,
    outer: Vec<u64>,
}

impl Open {
    fn push(&mut self, object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.inner);
        }
        self.inner = self.inner << 1 | u64::from(object);
        self.depth += 1;
    }

    /// Whether it is an object.
    const fn innermost(&self) -> Option<bool> {
        if self.depth == 0 {
            return None;
        }
        Some(self.inner & 1 == 1)
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.inner >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.inner = self.outer.pop().unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(text: &[u8]) -> bool {
        let mut reader = Reader::new(text);
        reader.skip().is_ok() && reader.finish().is_ok()
    }

    #[test]
    fn agrees_with_serde_json_on_what_is_json() {
        let rows: &[&str] = &[
            "0",
            "-0",
            "-",
            "01",
            "1.",
            ".5",
            "1.5",
            "1e5",
            "1e",
            "1E+5",
            "1e-",
            "+1",
            "0x1",
            "--1",
            "true",
            "tru",
            "truex",
            "null",
            "nul",
            "false",
            "[]",
            "[1]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1,2]",
            "[",
            "]",
            "[]]",
            "[1}",
            "{}",
            "{\"a\":1}",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{\"a\"}",
            "{a:1}",
            "{1:1}",
            "{,}",
            "{\"a\":1]",
            "{\"a\":{\"b\":[{}]}}",
            " [ 1 , { \"a\" : null } ] ",
            "\"\"",
            "\"a",
            "\"a\\\"",
            "\"a\\\\\"",
            "\"\\u00e9\"",
            "\"\\u00g9\"",
            "\"\\u00\"",
            "\"\\x\"",
            "\"a\nb\"",
            "\"a\tb\"",
            "\"a\u{7f}b\"",
            "",
            " ",
            "1 1",
            "{}{}",
            "\u{feff}{}",
            "\u{0}",
            "[1\u{0}]",
        ];
        for text in rows {
            let reference = serde_json::from_str::<serde_json::Value>(text).is_ok();
            assert_eq!(accepts(text.as_bytes()), reference, "{text:?}");
        }
    }

    #[test]
    fn reads_what_only_python_writes() {
        let thousand = "9".repeat(1000);
        let rows: &[(&str, &str)] = &[
            ("not a number", "[NaN, 1]"),
            ("infinity", "Infinity"),
            ("negative infinity", "[-Infinity]"),
            ("an integer of a thousand digits", &thousand),
            ("a float out of range", "1e999"),
            ("half a surrogate pair", r#""\ud800""#),
        ];
        for (row, text) in rows {
            assert!(accepts(text.as_bytes()), "{row}");
        }
        for text in ["Nan", "-NaN", "Infinit", "-Inf", "nan", "1NaN"] {
            assert!(!accepts(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn takes_scalars_and_skips_what_is_something_else() {
        let text = |json: &'static str| Reader::new(json.as_bytes()).text();
        let integer = |json: &'static str| Reader::new(json.as_bytes()).integer();
        let number = |json: &'static str| Reader::new(json.as_bytes()).number();
        assert!(matches!(
            text(r#""plain""#),
            Ok(Some(Cow::Borrowed("plain")))
        ));
        assert_eq!(text(r#""\u00e9\n""#), Ok(Some("é\n".into())));
        assert_eq!(text(r#""\ud800""#), Ok(None));
        assert_eq!(text("[\"a\"]"), Ok(None));
        assert_eq!(text("12"), Ok(None));
        assert_eq!(text("\"open"), Err(Malformed));
        assert_eq!(Reader::new(b"\"\xff\"").text(), Ok(None));
        assert_eq!(integer("-12"), Ok(Some(-12)));
        assert_eq!(integer("1.0"), Ok(None));
        assert_eq!(integer("99999999999999999999"), Ok(None));
        assert_eq!(integer("\"1\""), Ok(None));
        assert_eq!(number("-1.5e3"), Ok(Some(-1500.0)));
        assert_eq!(number("1e999"), Ok(None));
        assert_eq!(number("-Infinity"), Ok(None));
        assert_eq!(number("NaN"), Ok(None));
    }

    #[test]
    fn counts_values_as_true_the_way_python_does() {
        let rows = [
            ("true", true),
            ("1", true),
            ("\"no\"", true),
            ("false", false),
            ("null", false),
            ("0", false),
            ("0.0", false),
            ("\"\"", false),
        ];
        for (json, expected) in rows {
            assert_eq!(Reader::new(json.as_bytes()).truth(), Ok(expected), "{json}");
        }
    }

    #[test]
    fn a_plain_string_is_passed_only_within_its_bound_and_without_escapes() {
        let rows: &[(&str, &str, bool)] = &[
            ("ends in time", r#"["abc""#, true),
            ("empty", r#"["""#, true),
            ("too long", r#"["abcd""#, false),
            ("an escape first", r#"["a\"""#, false),
            ("never closed", r#"["abc"#, false),
            ("another lead", r#"{"abc""#, false),
            ("nothing", "", false),
        ];
        for (row, json, passed) in rows {
            let mut reader = Reader::new(json.as_bytes());
            assert_eq!(reader.skip_plain(b"[\"", 4), *passed, "{row}");
            let left = if *passed { 0 } else { json.len() };
            assert_eq!(reader.left(), left, "{row}");
        }
    }

    #[test]
    fn the_end_of_a_string_is_looked_for_only_where_little_enough_is_left() {
        let rows: &[(&str, &str, Option<usize>)] = &[
            ("ends in time", r#"["abc"12345"#, Some(5)),
            ("at the very end", r#"["abc""#, Some(0)),
            ("too much is left", r#"["abc"123456"#, None),
            ("an escape where its end could be", r#"["abc\"1234"#, None),
            (
                "a quote before that is passed over",
                r#"["a"c"12345"#,
                Some(5),
            ),
            ("too long", r#"["abcdefghijk"1"#, None),
            ("never closed", r#"["abc"#, None),
            ("another lead", r#"{"abc""#, None),
            ("nothing", "", None),
        ];
        for (row, json, left) in rows {
            let mut reader = Reader::new(json.as_bytes());
            let passed = reader.skip_to_end(b"[\"", 10, 5);
            assert_eq!(passed.then(|| reader.left()), *left, "{row}");
        }
    }

    #[test]
    fn a_run_of_plain_bytes_ends_where_a_byte_by_byte_search_ends() {
        let naive = |bytes: &[u8]| {
            bytes
                .iter()
                .position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\')
                .unwrap_or(bytes.len())
        };
        for byte in 0..=u8::MAX {
            for at in 0..20 {
                for around in [b'a', 0x80, 0xff, b'!', b'#', b' ', byte] {
                    let mut bytes = [around; 20];
                    bytes[at] = byte;
                    assert_eq!(plain_run(&bytes), naive(&bytes), "{bytes:?}");
                }
            }
        }
        assert_eq!(plain_run(b""), 0);
    }

    #[test]
    fn two_million_open_brackets_end_in_an_error_and_not_in_a_crash() {
        assert!(!accepts(&b"[".repeat(2_000_000)));
        let mut balanced = b"[".repeat(2_000_000);
        balanced.extend(b"]".repeat(2_000_000));
        assert!(accepts(&balanced));
        assert!(!accepts(&b"{\"a\":".repeat(500_000)));
    }
}
