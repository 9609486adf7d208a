//! The text of CLIENT LIST, in which clients choose their names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_hygiene::core::beat;
use redis_hygiene_fuzz::within;

fuzz_target!(|list: &[u8]| {
    let crowds = within(list, 8, || beat::crowds(list));
    let lines = list.split(|byte| *byte == b'\n').count() as u64;
    for crowd in crowds.values() {
        assert!(crowd.consumers <= lines && crowd.blocked <= crowd.consumers);
        assert!(crowd.asking <= crowd.consumers && crowd.subscribers <= lines);
    }
});
