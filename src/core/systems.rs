//! Other systems that keep their jobs in Redis, told by the names of their keys.
//! Only for the report: nothing is ever written on such a name.

use super::keys::KeyType;

/// A system, and what a key says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct System {
    /// Its name in replies.
    pub name: &'static str,
    /// No other program is likely to call a key so. Where `false`, the system is
    /// told only if another of its keys is certain.
    pub certain: bool,
}

/// Names that begin so are a system's, whatever the type.
const PREFIXES: [(&[u8], &str); 7] = [
    (b"arq:", "arq"),
    (b"bull:", "BullMQ"),
    (b"dramatiq:", "Dramatiq"),
    (b"dramatiq-results:", "Dramatiq"),
    (b"huey.", "Huey"),
    (b"rq:", "RQ"),
    (b"celery:worker:state:", "celery-redis-statedb"),
];

/// The system a key belongs to, by the names these use unless told otherwise.
///
/// Sources: the default names of RQ, BullMQ, Dramatiq (broker and result backend), huey
/// (`huey/storage.py`), arq (`arq/constants.py`) and Sidekiq (queues and statistics).
#[must_use]
pub fn of(name: &[u8], kind: KeyType) -> Option<System> {
    // One look at the first byte: most keys are nobody's.
    if !matches!(
        name.first(),
        Some(b'a' | b'b' | b'c' | b'd' | b'h' | b'p' | b'q' | b'r' | b's')
    ) {
        return None;
    }
    let named = PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
    if let Some((_, system)) = named {
        return Some(System {
            name: system,
            certain: true,
        });
    }
    sidekiq(name, kind).map(|certain| System {
        name: "Sidekiq",
        certain,
    })
}

/// Whether a key of Sidekiq's is certain; `None` if it is none of its.
fn sidekiq(name: &[u8], kind: KeyType) -> Option<bool> {
    match kind {
        KeyType::Set if name == b"queues" => Some(true),
        KeyType::String
            if name.starts_with(b"stat:processed") || name.starts_with(b"stat:failed") =>
        {
            Some(true)
        }
        KeyType::Set if name == b"processes" => Some(false),
        KeyType::List if name.starts_with(b"queue:") => Some(false),
        KeyType::Zset if matches!(name, b"schedule" | b"retry" | b"dead") => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::KeyType::{Hash, List, Set, Stream, String, Zset};
    use super::*;

    #[test]
    fn a_name_tells_the_system_and_a_common_one_only_beside_a_certain_one() {
        for (name, kind, expected) in [
            ("rq:job:1", Hash, Some(("RQ", true))),
            ("rq:queue:default", List, Some(("RQ", true))),
            ("rq:results:1", Stream, Some(("RQ", true))),
            ("bull:mail:wait", List, Some(("BullMQ", true))),
            ("bull:mail:events", Stream, Some(("BullMQ", true))),
            ("dramatiq:default.msgs", Hash, Some(("Dramatiq", true))),
            ("dramatiq-results:1", String, Some(("Dramatiq", true))),
            ("huey.redis.app", List, Some(("Huey", true))),
            ("arq:queue", Zset, Some(("arq", true))),
            ("arq:job:1", String, Some(("arq", true))),
            ("queues", Set, Some(("Sidekiq", true))),
            ("stat:processed", String, Some(("Sidekiq", true))),
            ("stat:failed:2026-11-25", String, Some(("Sidekiq", true))),
            ("queue:default", List, Some(("Sidekiq", false))),
            ("retry", Zset, Some(("Sidekiq", false))),
            (
                "celery:worker:state:w1:zrevoked",
                String,
                Some(("celery-redis-statedb", true)),
            ),
            ("queue:default", Zset, None),
            ("queues", List, None),
            ("stat:processed", Hash, None),
            ("arquebus", String, None),
            ("bullet:1", Hash, None),
            ("celery", List, None),
            ("", String, None),
        ] {
            let found = of(name.as_bytes(), kind).map(|found| (found.name, found.certain));
            assert_eq!(found, expected, "{name:?} {}", kind.name());
        }
    }
}
