//! A stored result, as sweeps, the hook and HYGIENE.TRIGGER read it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_hygiene::core::celery::outcome::{self, MAX_SHOWN};
use redis_hygiene::core::celery::result::{self, MAX_PAYLOAD};
use redis_hygiene_fuzz::within;

fuzz_target!(|payload: &[u8]| {
    let stored = within(payload, 4, || result::read(payload));
    if let Ok(stored) = &stored {
        assert!(payload.len() <= MAX_PAYLOAD);
        // Whoever deletes by age goes by this.
        assert!(stored.finished_at_ms().is_none() || stored.finished());
        if let Some(ms) = stored.date_done_ms {
            let years = 2008..=10_000;
            assert!(years.contains(&(1970 + ms / 31_556_952_000)), "{ms}");
        }
    }
    let shown = within(payload, 8, || outcome::read(payload));
    assert!(shown.shown.len() <= MAX_SHOWN);
    assert_eq!(shown.unreadable, stored.as_ref().err().copied());
    if let Ok(stored) = stored {
        assert_eq!(shown.finished, stored.finished());
    }
    if let Ok(text) = std::str::from_utf8(payload) {
        within(payload, 1, || result::parse_date(text));
    }
});
