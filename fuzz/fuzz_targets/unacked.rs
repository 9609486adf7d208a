//! A value of the unacknowledged hash, and the message that is put back of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_hygiene::core::celery::{envelope, restore};
use redis_hygiene_fuzz::within;

fuzz_target!(|value: &[u8]| {
    let read = within(value, 4, || envelope::read_unacked(value));
    let again = within(value, 4, || restore::redelivered(value));
    let Some(read) = read else {
        return;
    };
    let again = again.expect("what can be read can be put back");
    let Some(after) = envelope::read(&again) else {
        // Two marks more, and it may lie above the bound.
        assert!(again.len() > envelope::MAX_ENVELOPE);
        return;
    };
    assert!(after.redelivered);
    let mut before = read.envelope;
    before.redelivered = true;
    assert_eq!(after, before, "nothing else has changed");
    let value = [b"[", again.as_slice(), b", \"\", \"q\"]"].concat();
    if envelope::read_unacked(&value).is_some() {
        let twice = restore::redelivered(&value);
        assert_eq!(twice.as_deref(), Some(again.as_slice()), "once is enough");
    }
});
