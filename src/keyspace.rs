//! Changes to keys, the same for the hook and for sweeps.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::server::context::{eviction_policy, now_ms, setting};
use crate::server::{Ctx, Str, key};
use crate::stats;

/// Set while a stamp of ours raises its own `expire` event.
static STAMPING: AtomicBool = AtomicBool::new(false);

/// Whether clients can hear events, and so of our stamps.
static HEARD: AtomicBool = AtomicBool::new(true);

/// Sets the flag, and clears it on drop: after a caught panic too.
struct Stamping;

impl Stamping {
    fn begin() -> Self {
        STAMPING.store(true, Relaxed);
        Self
    }
}

impl Drop for Stamping {
    fn drop(&mut self) {
        STAMPING.store(false, Relaxed);
    }
}

/// Whether the event that is being heard comes from a stamp of ours.
pub fn stamping() -> bool {
    STAMPING.load(Relaxed)
}

/// Looks whether `notify-keyspace-events` lets anybody hear of our stamps. Asked a
/// few times a second, since an event that nobody hears costs as much as a look-up.
pub fn look_for_listeners(ctx: Ctx<'_>) {
    let silent = setting(ctx, b"notify-keyspace-events").is_some_and(|events| events.is_empty());
    HEARD.store(!silent, Relaxed);
}

/// Why something that needs idle times is refused.
pub const NO_IDLE_TIMES: &str = "idle times are not kept under an LFU policy (maxmemory-policy)";

/// Whether the server keeps the time of a key's last use. Under an LFU policy it
/// counts uses in the same place.
pub fn idle_times_are_kept(ctx: Ctx<'_>) -> bool {
    !eviction_policy(ctx).ends_with("-lfu")
}

/// The same for a key that is open for writing.
pub fn give_open_key_ttl(ctx: Ctx<'_>, key: key::Key<'_>, name: &Str, ttl_ms: i64) -> bool {
    let at_ms = now_ms().saturating_add(ttl_ms);
    let _stamping = Stamping::begin();
    counted(key::expire_open(ctx, key, name, at_ms, HEARD.load(Relaxed)))
}

/// Gives the key a TTL in ms from now, on replicas and in the AOF too. In a
/// cluster it goes by the server's own command, which refuses slots that are not
/// ours yet.
pub fn give_ttl(ctx: Ctx<'_>, name: &Str, ttl_ms: i64, cluster: bool) -> bool {
    let at_ms = now_ms().saturating_add(ttl_ms);
    let _stamping = Stamping::begin();
    counted(key::expire_at(
        ctx,
        name,
        at_ms,
        cluster,
        HEARD.load(Relaxed),
    ))
}

/// Counts a TTL that the server refused.
fn counted(given: bool) -> bool {
    stats::REFUSED_TTLS.add(u64::from(!given));
    given
}
