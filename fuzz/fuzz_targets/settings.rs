//! Settings, durations, numbers and shares: the first line names the setting, the
//! rest is its value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_hygiene::core::settings::{Settings, named};
use redis_hygiene::core::{args, span};
use redis_hygiene_fuzz::within;

fuzz_target!(|input: &[u8]| {
    let at = input.iter().position(|byte| *byte == b'\n');
    let (name, value) = input.split_at(at.unwrap_or(input.len()));
    let value = value.strip_prefix(b"\n").unwrap_or(value);
    if let Ok(ms) = span::parse(value) {
        assert!((0..=span::LONGEST_MS).contains(&ms));
        assert_eq!(span::parse(span::show(ms).as_bytes()), Ok(ms));
    }
    if let Some(share) = args::percent(value, 100) {
        assert!(share <= 100);
    }
    let mut settings = Settings::default();
    let untouched = settings.clone();
    // A pattern is kept compiled, with a token of 16 bytes for each of its own, and
    // a set of 32 bytes for each class.
    match within(input, 256, || settings.set(name, value)) {
        Err(why) => {
            assert_eq!(settings, untouched, "a refused value changes nothing");
            assert!(why.len() < 1_000, "{why}");
        }
        Ok(()) => {
            let setting = named(name).expect("it has just been set");
            let shown = setting.show(&settings);
            let mut again = Settings::default();
            again
                .set(name, &shown)
                .expect("a value that is shown is read");
            assert_eq!(again, settings, "and means the same");
        }
    }
});
