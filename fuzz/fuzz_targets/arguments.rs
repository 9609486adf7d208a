//! The words of every command: the first line names it, each line is a word. Without
//! a server no database is there, so DB is read and refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_hygiene::commands;
use redis_hygiene_fuzz::{lines, within};

/// What an error may repeat of the words, and says besides.
const LONGEST_ERROR: usize = 1_000;

fuzz_target!(|input: &[u8]| {
    let lines = lines(input);
    let (command, words) = lines.split_first().expect("there is a first line");
    // A tree of JSON values takes up to a hundred bytes for each byte of text.
    let read = within(input, 160, || commands::read_words(command, words));
    if let Some(Err(why)) = read {
        assert!(!why.is_empty() && why.len() <= LONGEST_ERROR, "{why}");
        assert!(!why.chars().any(char::is_control), "{why:?}");
    }
});
