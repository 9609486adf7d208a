//! The two fields of RedBeat's entries.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_hygiene::core::celery::redbeat::{self, MAX_FIELD, Schedule};
use redis_hygiene_fuzz::within;

fuzz_target!(|field: &[u8]| {
    let definition = within(field, 4, || redbeat::read_definition(field));
    if let Some(definition) = definition {
        assert!(field.len() <= MAX_FIELD);
        if let Schedule::Interval { every_ms } = definition.schedule {
            assert!(every_ms >= 0);
        }
    }
    within(field, 4, || redbeat::read_meta(field));
});
