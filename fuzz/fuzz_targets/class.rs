//! What a key is, by its name and type, with patterns and prefixes of an operator:
//! lines are `result-keys`, `exempt-keys`, `key-prefixes`, and the name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_hygiene::core::keys::{Class, KeyType};
use redis_hygiene::core::settings::Settings;
use redis_hygiene::core::{orphans, systems};
use redis_hygiene_fuzz::within;

const TYPES: [KeyType; 7] = [
    KeyType::String,
    KeyType::List,
    KeyType::Hash,
    KeyType::Set,
    KeyType::Zset,
    KeyType::Stream,
    KeyType::Module,
];

fuzz_target!(|input: &[u8]| {
    let mut lines = input.splitn(4, |byte| *byte == b'\n');
    let mut settings = Settings::default();
    for setting in ["result-keys", "exempt-keys", "key-prefixes"] {
        let value = lines.next().unwrap_or_default();
        if !value.is_empty() {
            let _ = settings.set(setting.as_bytes(), value);
        }
    }
    let name = lines.next().unwrap_or_default();
    let names = settings.names();
    within(&[], 0, || {
        let _ = names.exempt(name);
        let _ = names.may_be_zset_queue(name);
        let _ = orphans::chord_of(name);
        assert!(orphans::same_slot(name, name));
        let result = names.task_result(name);
        for kind in TYPES {
            let class = names.class(name, kind);
            let _ = systems::of(name, kind);
            if class == Class::TaskResult {
                assert!(result && kind == KeyType::String, "{class:?} {kind:?}");
            }
            // What a pattern of the operator's may never reach.
            if kind == KeyType::String && result {
                assert!(class == Class::TaskResult, "the hook stamps a {class:?}");
            }
        }
    });
});
