//! An element of a list that may be a queue, as it is pushed and as it lies there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_hygiene::core::celery::envelope;
use redis_hygiene_fuzz::within;

fuzz_target!(|element: &[u8]| {
    let whole = within(element, 4, || envelope::read(element));
    let publish = within(element, 4, || envelope::read_publish(element));
    // What its end shows first may only speak against it.
    let lowest = within(element, 4, || envelope::is_of_lowest_priority(element));
    let is_lowest = whole
        .as_ref()
        .is_some_and(|message| message.is_of_lowest_priority());
    assert!(is_lowest || !lowest);
    let Some(whole) = whole else {
        return;
    };
    let _ = whole.published_at_ms();
    // What is read of a push alone must be what the whole message says.
    let publish = publish.expect("a message's headers can be read by themselves");
    assert_eq!(publish.kind(), whole.kind());
    assert_eq!(publish.task, whole.task);
    assert_eq!(publish.id, whole.id);
    assert_eq!(publish.origin, whole.origin);
    assert_eq!(publish.beat, whole.beat);
    assert_eq!(publish.retries, whole.retries);
    assert_eq!(publish.eta_ms, whole.eta_ms);
    assert_eq!(publish.eta_unread, whole.eta_unread);
    assert_eq!(publish.expires_ms, whole.expires_ms);
    assert_eq!(publish.parent_id, whole.parent_id);
    assert_eq!(publish.root_id, whole.root_id);
    assert_eq!(publish.ticket, whole.ticket);
    assert_eq!(publish.ignore_result, whole.ignore_result);
    assert_eq!(publish.periodic_task_name, whole.periodic_task_name);
});
