//! Patterns: the first line is the pattern, the rest the name. What matches is
//! compared with a slow matcher that has nothing in common with ours; that both do
//! what servers do is held by `tests/hostile.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_hygiene::core::glob::{Glob, LONGEST, MOST_STEPS};
use redis_hygiene_fuzz::within;

enum Part {
    Many,
    One,
    Byte(u8),
    /// Whether it is negated, and its ranges.
    Class(bool, Vec<(u8, u8)>),
}

fn parts(pattern: &[u8]) -> Vec<Part> {
    let (mut parts, mut at) = (Vec::new(), 0);
    while at < pattern.len() {
        match pattern[at] {
            b'*' => parts.push(Part::Many),
            b'?' => parts.push(Part::One),
            b'\\' if at + 1 < pattern.len() => {
                at += 1;
                parts.push(Part::Byte(pattern[at]));
            }
            b'[' => {
                at += 1;
                let not = pattern.get(at) == Some(&b'^');
                at += usize::from(not);
                let mut ranges = Vec::new();
                while at < pattern.len() {
                    if pattern[at] == b'\\' && at + 1 < pattern.len() {
                        at += 1;
                        ranges.push((pattern[at], pattern[at]));
                    } else if pattern[at] == b']' {
                        break;
                    } else if at + 2 < pattern.len() && pattern[at + 1] == b'-' {
                        let (a, b) = (pattern[at], pattern[at + 2]);
                        ranges.push((a.min(b), a.max(b)));
                        at += 2;
                    } else {
                        ranges.push((pattern[at], pattern[at]));
                    }
                    at += 1;
                }
                parts.push(Part::Class(not, ranges));
            }
            byte => parts.push(Part::Byte(byte)),
        }
        at += 1;
    }
    parts
}

/// Which beginnings of the name the parts so far describe, part by part.
fn slow(pattern: &[u8], name: &[u8]) -> bool {
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for part in parts(pattern) {
        let mut next = vec![false; name.len() + 1];
        match part {
            Part::Many => {
                let mut any = false;
                for (from, to) in reached.iter().zip(&mut next) {
                    any |= *from;
                    *to = any;
                }
            }
            one => {
                for (at, byte) in name.iter().enumerate() {
                    let fits = match &one {
                        Part::One | Part::Many => true,
                        Part::Byte(wanted) => wanted == byte,
                        Part::Class(not, ranges) => {
                            ranges.iter().any(|(a, b)| (a..=b).contains(&byte)) != *not
                        }
                    };
                    next[at + 1] = reached[at] && fits;
                }
            }
        }
        reached = next;
    }
    reached[name.len()]
}

fuzz_target!(|input: &[u8]| {
    let at = input.iter().position(|byte| *byte == b'\n');
    let (pattern, name) = input.split_at(at.unwrap_or(input.len()));
    let name = name.strip_prefix(b"\n").unwrap_or(name);
    let Ok(glob) = within(input, 256, || Glob::new(pattern)) else {
        assert!(pattern.len() > LONGEST);
        return;
    };
    assert_eq!(glob.source(), pattern);
    let matches = within(&[], 0, || glob.matches(name));
    if matches != glob.may_match(name) {
        assert!(pattern.len() * name.len() > MOST_STEPS, "not tried");
        return;
    }
    assert_eq!(matches, slow(pattern, name));
});
