//! Durations as an operator writes them: `90`, `90s`, `15m`, `2h`, `7d`.

use std::fmt;

/// The longest duration accepted, in ms: a hundred years. Far above any use,
/// and far below where adding it to a clock could overflow.
pub const LONGEST_MS: i64 = 100 * 365 * 86_400_000;

/// More bytes than any duration has.
const LONGEST_TEXT: usize = 64;

/// Why a text is no duration; its `Display` says what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanError {
    /// Not digits with an optional unit.
    Malformed,
    /// More than a hundred years.
    TooLong,
}

impl fmt::Display for SpanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "expected seconds, or a number with s, m, h or d such as 90s or 2h",
            Self::TooLong => "expected at most 36500d",
        })
    }
}

/// Reads a duration into ms. A bare number is seconds; units are `s`, `m`, `h`
/// and `d`, in either case.
///
/// # Errors
/// Signs, fractions, exponents, blanks and unknown units are [`SpanError::Malformed`].
pub fn parse(text: &[u8]) -> Result<i64, SpanError> {
    let (digits, unit_ms) = match text.split_last() {
        Some((b's' | b'S', rest)) => (rest, 1_000),
        Some((b'm' | b'M', rest)) => (rest, 60_000),
        Some((b'h' | b'H', rest)) => (rest, 3_600_000),
        Some((b'd' | b'D', rest)) => (rest, 86_400_000),
        _ => (text, 1_000),
    };
    if digits.is_empty() || text.len() > LONGEST_TEXT || !digits.iter().all(u8::is_ascii_digit) {
        return Err(SpanError::Malformed);
    }
    let number = digits.iter().try_fold(0_i64, |sum, digit| {
        sum.checked_mul(10)?.checked_add(i64::from(digit - b'0'))
    });
    number
        .and_then(|n| n.checked_mul(unit_ms))
        .filter(|ms| *ms <= LONGEST_MS)
        .ok_or(SpanError::TooLong)
}

/// Writes ms the way [`parse`] reads them, in the largest unit that is exact;
/// below a second the text is rounded down.
#[must_use]
pub fn show(ms: i64) -> String {
    let seconds = ms / 1_000;
    for (unit, size) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
        if seconds != 0 && seconds % size == 0 {
            return format!("{}{unit}", seconds / size);
        }
    }
    if seconds == 0 {
        "0".to_owned()
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_an_operator_writes() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("90", Ok(90_000)),
            ("90s", Ok(90_000)),
            ("15m", Ok(900_000)),
            ("2h", Ok(7_200_000)),
            ("2H", Ok(7_200_000)),
            ("7d", Ok(604_800_000)),
            ("36500d", Ok(LONGEST_MS)),
            ("36501d", Err(SpanError::TooLong)),
            ("99999999999999999999", Err(SpanError::TooLong)),
            ("9223372036854775807d", Err(SpanError::TooLong)),
            ("", Err(SpanError::Malformed)),
            ("s", Err(SpanError::Malformed)),
            ("-1", Err(SpanError::Malformed)),
            ("+1", Err(SpanError::Malformed)),
            ("1e3", Err(SpanError::Malformed)),
            ("1.5h", Err(SpanError::Malformed)),
            ("1 h", Err(SpanError::Malformed)),
            ("1w", Err(SpanError::Malformed)),
            ("1ms", Err(SpanError::Malformed)),
            ("1\0", Err(SpanError::Malformed)),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn shows_the_largest_exact_unit() {
        for (ms, expected) in [
            (0, "0"),
            (90_000, "90s"),
            (60_000, "1m"),
            (3_600_000, "1h"),
            (5_400_000, "90m"),
            (86_400_000, "1d"),
        ] {
            assert_eq!(show(ms), expected);
            assert_eq!(parse(expected.as_bytes()), Ok(ms), "reads back {expected}");
        }
    }
}
