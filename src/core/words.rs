//! Lists of words as a setting's value holds them: separated by blanks, and quoted as
//! in `redis.conf` where a word has blanks of its own.
//!
//! Source: Redis 7.0 `src/sds.c` `sdssplitargs`. Unlike there, quotes count only at a
//! word's beginning, so that a pattern may hold them.

/// Splits a list.
///
/// # Errors
/// A quote is not closed, or something follows one that closes.
pub fn split(text: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_ascii_start();
    while let [first, more @ ..] = rest {
        let word;
        (word, rest) = match first {
            quote @ (b'"' | b'\'') => quoted(*quote, more)?,
            _ => {
                let end = rest.iter().position(u8::is_ascii_whitespace);
                let (word, rest) = rest
                    .split_at_checked(end.unwrap_or(rest.len()))
                    .unwrap_or((rest, &[]));
                (word.to_vec(), rest)
            }
        };
        words.push(word);
        rest = rest.trim_ascii_start();
    }
    Ok(words)
}

/// The list of these words. A word is quoted by single quotes where that will do: Valkey
/// 8.1 writes a module's setting between double quotes as it stands (CONFIG REWRITE), and
/// does not start again where there are others inside.
#[must_use]
pub fn join<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut text = Vec::new();
    for word in words {
        if !text.is_empty() {
            text.push(b' ');
        }
        let odd = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0;
        if word.is_empty()
            || word.starts_with(b"\"")
            || word.starts_with(b"'")
            || word.iter().any(odd)
        {
            let plain = |byte: &u8| !matches!(byte, 0..=0x1f | b'\'' | b'\\');
            if word.iter().all(plain) {
                text.push(b'\'');
                text.extend(word);
                text.push(b'\'');
                continue;
            }
            text.push(b'"');
            for byte in word {
                match byte {
                    b'"' | b'\\' => text.extend([b'\\', *byte]),
                    0..=0x1f => text.extend(format!("\\x{byte:02x}").bytes()),
                    _ => text.push(*byte),
                }
            }
            text.push(b'"');
        } else {
            text.extend(word);
        }
    }
    text
}

/// A word behind its opening quote, and what comes after the closing one.
fn quoted(quote: u8, text: &[u8]) -> Result<(Vec<u8>, &[u8]), String> {
    let mut word = Vec::new();
    let mut rest = text;
    loop {
        rest = match rest {
            [b'\\', b'x', high, low, more @ ..]
                if quote == b'"'
                    && let Some(byte) = hex(*high, *low) =>
            {
                word.push(byte);
                more
            }
            [b'\\', escaped, more @ ..] if quote == b'"' => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                more
            }
            [b'\\', b'\'', more @ ..] if quote == b'\'' => {
                word.push(b'\'');
                more
            }
            [byte, more @ ..] if *byte == quote => {
                return match more.first() {
                    Some(next) if !next.is_ascii_whitespace() => {
                        Err("expected a blank behind a closing quote".to_owned())
                    }
                    _ => Ok((word, more)),
                };
            }
            [byte, more @ ..] => {
                word.push(*byte);
                more
            }
            [] => return Err("expected a closing quote".to_owned()),
        };
    }
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &[u8]) -> Result<Vec<String>, String> {
        let show = |word: &Vec<u8>| word.escape_ascii().to_string();
        split(text).map(|words| words.iter().map(show).collect())
    }

    #[test]
    fn words_are_quoted_as_in_the_servers_file() {
        let blank = Err("expected a blank behind a closing quote".to_owned());
        let open = Err("expected a closing quote".to_owned());
        let words = |words: &[&str]| Ok(words.iter().map(|word| (*word).to_owned()).collect());
        for (text, expected) in [
            (&b""[..], words(&[])),
            (b" \t\n", words(&[])),
            (b"  a   b ", words(&["a", "b"])),
            (br#""a b" c"#, words(&["a b", "c"])),
            (br"'a b' c", words(&["a b", "c"])),
            (br#""""#, words(&[""])),
            (
                br#""a\"b\\c\n\r\t\b\a\x41\q""#,
                words(&[r#"a\"b\\c\n\r\t\x08\x07Aq"#]),
            ),
            (br#""\xZZ\x4""#, words(&["xZZx4"])),
            (br"'a\'b\n'", words(&[r"a\'b\\n"])),
            (br#"a"b 'c"#, open.clone()),
            (
                br#"a"b c'd e\ f"#,
                words(&[r#"a\"b"#, r"c\'d", r"e\\", "f"]),
            ),
            (br#""a b"#, open.clone()),
            (br#""a b\"#, open.clone()),
            (br#""a b\""#, open.clone()),
            (br"'a b", open),
            (br#""a"b"#, blank.clone()),
            (br#""clean up"=1h"#, blank),
            (b"\xff \"\xff \x00\"", words(&[r"\xff", r"\xff \x00"])),
        ] {
            assert_eq!(told(text), expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_list_of_any_words_is_read_as_it_was_shown() {
        let words: Vec<Vec<u8>> = (0..=u8::MAX)
            .flat_map(|byte| {
                let one = vec![byte];
                [
                    one.clone(),
                    [&b"a"[..], &one].concat(),
                    [&one, &b" b"[..]].concat(),
                ]
            })
            .chain([Vec::new()])
            .collect();
        let shown = join(words.iter().map(Vec::as_slice));
        assert_eq!(split(&shown), Ok(words));
        assert!(
            !shown.contains(&0),
            "a setting of the server's holds no NUL"
        );
        assert_eq!(
            join([&b"a.b"[..], b"c*", b"d\"e", b"f\\g"]),
            br#"a.b c* d"e f\g"#
        );
        assert_eq!(
            join([&b"clean up=1h"[..], b"b=10m"]),
            b"'clean up=1h' b=10m"
        );
    }
}
