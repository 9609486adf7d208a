//! The few bodies that are looked into, and HYGIENE.TRIGGER's own.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_hygiene::core::celery::{body, envelope, message};
use redis_hygiene_fuzz::within;

fuzz_target!(|input: &[u8]| {
    if let Some(decoded) = within(input, 4, || body::decoded(input)) {
        assert!(decoded.len() <= body::MAX_BODY);
        within(&decoded, 4, || body::event_ms(&decoded));
    }
    if let Some(mut message) = envelope::read(input) {
        let before = message.clone();
        within(input, 8, || body::complete(&mut message, input));
        assert!(message.protocol_1 || message == before);
    }
    within(input, 4, || body::event_ms(input));

    // A message of ours, with whatever arguments, is one that is read back.
    let (first, rest) = input.split_at(input.len().min(16));
    let (Ok(args), Ok(task)) = (message::array(rest), message::name(first)) else {
        // A tree of JSON values takes up to a hundred bytes for each byte of text.
        let _ = within(input, 128, || message::object(input).map(str::len));
        return;
    };
    let json = message::Message {
        task,
        id: "5932f627-0000-4000-8000-000000000001",
        tag: "0a9d5b1c-0000-4000-8000-000000000003",
        queue: task,
        args,
        kwargs: "{}",
    }
    .to_json();
    let read = envelope::read(json.as_bytes()).expect("what is published can be read");
    assert_eq!(read.task.as_deref(), Some(task));
    assert_eq!(read.routing_key.as_deref(), Some(task));
    let decoded = body::decoded(json.as_bytes());
    assert!(decoded.is_none_or(|body| body.starts_with(b"[")));
});
