//! Glob patterns with the meaning Redis gives them in `SCAN MATCH`
//! (Redis 7.0, src/util.c, `stringmatchlen`), compiled once.
//!
//! Globs of other crates give `{}`, `**` and `/` a meaning that Redis does not,
//! so this is our own. Matching keeps one place to come back to instead of
//! recursing, so a pattern costs at most its length times the name's, and where that is
//! too much, nothing.

use memchr::memmem;

/// The longest pattern accepted, in bytes.
pub const LONGEST: usize = 1_024;

/// Steps that one name may cost: its length times the pattern's parts. That is about a
/// millisecond, and a pattern of 20 parts on a name of 50 KB; names can have 512 MB.
pub const MOST_STEPS: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// `*`
    Many,
    /// `?`
    One,
    /// A byte that stands for itself.
    Byte(u8),
    /// `[...]`: a bit for each byte.
    Set(Box<[u64; 4]>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    /// `name`
    Exact(Box<[u8]>),
    /// `name*`: what nearly every pattern is, and what the hook runs on each write.
    Prefix(Box<[u8]>),
    /// `*name*`
    Contains(Box<[u8]>),
    Tokens(Box<[Token]>),
}

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    source: Box<[u8]>,
    shape: Shape,
}

impl Glob {
    /// Compiles a pattern. Any bytes are a pattern; only its length is bounded.
    ///
    /// # Errors
    /// A pattern longer than [`LONGEST`].
    pub fn new(pattern: &[u8]) -> Result<Self, &'static str> {
        if pattern.len() > LONGEST {
            return Err("expected a pattern of at most 1024 bytes");
        }
        Ok(Self {
            source: pattern.into(),
            shape: shape(tokens(pattern)),
        })
    }

    /// The text it was made from.
    #[must_use]
    pub fn source(&self) -> &[u8] {
        &self.source
    }

    /// Whether the whole name matches. One that is too long to find out does not.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        self.tried(name).unwrap_or(false)
    }

    /// Whether the whole name matches, or is too long to find out.
    #[must_use]
    pub fn may_match(&self, name: &[u8]) -> bool {
        self.tried(name).unwrap_or(true)
    }

    /// `None` beyond [`MOST_STEPS`].
    fn tried(&self, name: &[u8]) -> Option<bool> {
        Some(match &self.shape {
            Shape::Exact(text) => name == &**text,
            Shape::Prefix(text) => name.starts_with(text),
            Shape::Contains(text) => memmem::find(name, text).is_some(),
            Shape::Tokens(tokens) if name.len().saturating_mul(tokens.len()) > MOST_STEPS => {
                return None;
            }
            Shape::Tokens(tokens) => run(tokens, name),
        })
    }
}

fn tokens(mut pattern: &[u8]) -> Vec<Token> {
    let mut out = Vec::with_capacity(pattern.len());
    while let Some((&first, rest)) = pattern.split_first() {
        pattern = rest;
        match first {
            b'*' => {
                if out.last() != Some(&Token::Many) {
                    out.push(Token::Many);
                }
            }
            b'?' => out.push(Token::One),
            b'[' => {
                let (set, rest) = class(pattern);
                out.push(Token::Set(set));
                pattern = rest;
            }
            b'\\' => match pattern.split_first() {
                Some((&escaped, rest)) => {
                    out.push(Token::Byte(escaped));
                    pattern = rest;
                }
                None => out.push(Token::Byte(b'\\')),
            },
            byte => out.push(Token::Byte(byte)),
        }
    }
    out
}

/// Reads a class from behind its `[`. An unclosed one ends with the pattern, as
/// in Redis.
fn class(mut pattern: &[u8]) -> (Box<[u64; 4]>, &[u8]) {
    let mut set = Box::new([0_u64; 4]);
    let mut add = |byte: u8| {
        if let Some(word) = set.get_mut(usize::from(byte >> 6)) {
            *word |= 1 << (byte & 63);
        }
    };
    let negated = pattern.first() == Some(&b'^');
    if negated {
        pattern = pattern.get(1..).unwrap_or_default();
    }
    loop {
        pattern = match pattern {
            [] => break,
            [b'\\', escaped, rest @ ..] => {
                add(*escaped);
                rest
            }
            [b']', rest @ ..] => {
                pattern = rest;
                break;
            }
            [from, b'-', to, rest @ ..] => {
                for byte in (*from.min(to))..=(*from.max(to)) {
                    add(byte);
                }
                rest
            }
            [byte, rest @ ..] => {
                add(*byte);
                rest
            }
        };
    }
    if negated {
        for word in set.iter_mut() {
            *word = !*word;
        }
    }
    (set, pattern)
}

fn shape(tokens: Vec<Token>) -> Shape {
    let bytes = |tokens: &[Token]| -> Option<Box<[u8]>> {
        tokens
            .iter()
            .map(|token| match token {
                Token::Byte(byte) => Some(*byte),
                _ => None,
            })
            .collect()
    };
    if let Some(text) = bytes(&tokens) {
        return Shape::Exact(text);
    }
    let simple = match tokens.as_slice() {
        [Token::Many, middle @ .., Token::Many] => bytes(middle).map(Shape::Contains),
        [start @ .., Token::Many] => bytes(start).map(Shape::Prefix),
        _ => None,
    };
    simple.unwrap_or_else(|| Shape::Tokens(tokens.into()))
}

fn run(tokens: &[Token], name: &[u8]) -> bool {
    let (mut at_token, mut at_byte) = (0, 0);
    // Where the last `*` stands and how much of the name it has taken.
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = name.get(at_byte) {
        let fits = match tokens.get(at_token) {
            Some(Token::Many) => {
                star = Some((at_token, at_byte));
                at_token += 1;
                continue;
            }
            Some(Token::One) => true,
            Some(Token::Byte(wanted)) => *wanted == byte,
            Some(Token::Set(set)) => set
                .get(usize::from(byte >> 6))
                .is_some_and(|word| word & (1 << (byte & 63)) != 0),
            None => false,
        };
        if fits {
            at_token += 1;
            at_byte += 1;
            continue;
        }
        let Some((token, taken)) = star else {
            return false;
        };
        star = Some((token, taken + 1));
        at_token = token + 1;
        at_byte = taken + 1;
    }
    tokens
        .get(at_token..)
        .is_none_or(|rest| rest.iter().all(|token| *token == Token::Many))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_what_redis_matches() {
        for (pattern, name, expected) in [
            ("celery-task-meta-*", "celery-task-meta-1", true),
            ("celery-task-meta-*", "celery-task-meta-", true),
            ("celery-task-meta-*", "celery-taskset-meta-1", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a", "a", true),
            ("a", "A", false),
            ("*meta*", "celery-task-meta-1", true),
            ("*a*b*c*", "xxaxxbxxcxx", true),
            ("*a*b*c*", "xxaxxcxxbxx", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a[bc]d", "abd", true),
            ("a[bc]d", "aed", false),
            ("a[^bc]d", "aed", true),
            ("a[^bc]d", "abd", false),
            ("a[b-d]e", "ace", true),
            ("a[d-b]e", "ace", true),
            ("a[b-d]e", "afe", false),
            ("a[\\]]e", "a]e", true),
            ("a[bc", "ab", true),
            ("a[", "a", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("a\\", "a\\", true),
            ("*\\?", "what?", true),
            ("{a,b}", "a", false),
            ("a/*", "a/b/c", true),
        ] {
            let glob = Glob::new(pattern.as_bytes()).unwrap();
            assert_eq!(
                glob.matches(name.as_bytes()),
                expected,
                "{pattern:?} on {name:?}"
            );
        }
    }

    #[test]
    fn bytes_need_not_be_text() {
        assert!(Glob::new(b"\xff\x00*").unwrap().matches(b"\xff\x00\x06"));
        assert!(Glob::new(b"[\x80-\xff]?").unwrap().matches(b"\xfe\x00"));
    }

    #[test]
    fn a_name_too_long_for_its_pattern_is_not_tried() {
        let both = |pattern: &str, name: &str| {
            let glob = Glob::new(pattern.as_bytes()).unwrap();
            (
                glob.matches(name.as_bytes()),
                glob.may_match(name.as_bytes()),
            )
        };
        let (stars, long) = ("*a".repeat(512), "a".repeat(1_024));
        assert_eq!(both(&stars, &long), (true, true));
        assert_eq!(both(&stars, &(long.clone() + "b")), (false, true));
        assert_eq!(both("*a?b", &(long.clone() + "b")), (true, true));
        assert_eq!(both("*a?c", &(long + "b")), (false, false));
        // What is found at once is found in any name.
        let huge = "a".repeat(4 * MOST_STEPS) + "b";
        for (pattern, matches) in [("a*", true), ("*ab*", true), ("b*", false), ("a", false)] {
            assert_eq!(both(pattern, &huge), (matches, matches), "{pattern}");
        }
        assert_eq!(both("*a?b", &huge), (false, true));
    }

    #[test]
    fn a_pattern_of_more_than_a_kilobyte_is_refused() {
        assert!(Glob::new(&[b'a'; 1_025]).is_err());
    }
}
