//! Names and members of kombu's tables: a key, then a routing key, then members.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_hygiene::core::celery::binding::{self, PRIORITY_STEPS, SEP};
use redis_hygiene_fuzz::{lines, within};

fuzz_target!(|input: &[u8]| {
    let lines = lines(input);
    let (key, rest) = lines.split_first().expect("there is a first line");
    let exchange = within(input, 4, || binding::binding_key(key)).map_or(*key, |k| k.exchange);
    let routing_key = rest.first().copied().unwrap_or_default();
    for member in rest {
        let Some(found) = binding::parse(member) else {
            continue;
        };
        let again = [found.routing_key, found.pattern, found.queue].join(SEP);
        assert_eq!(again, *member, "the parts make the member");
        let _ = found.owner(exchange);
        let _ = within(input, 8, || found.leads(routing_key));
    }
    if let Some(sep) = within(input, 8, || binding::guess_separator(rest)) {
        assert!(rest.iter().all(|m| binding::parse_with(m, sep).is_some()));
    }
    let _ = binding::worker_of(key);
    let (queue, priority) = binding::split_priority(key, SEP);
    assert!(key.starts_with(queue));
    if let Some(step) = priority.filter(|step| PRIORITY_STEPS.contains(step) && *step > 0) {
        let name = within(input, 4, || {
            binding::list_of(queue, SEP, Some(i64::from(step)))
        });
        assert_eq!(name, *key, "a priority's list is found again");
    }
});
