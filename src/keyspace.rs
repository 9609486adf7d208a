//! Changes to keys, the same for the hook and for sweeps.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::server::context::now_ms;
use crate::server::{Ctx, Str, key};

/// Set while a stamp of ours raises its own `expire` event.
static STAMPING: AtomicBool = AtomicBool::new(false);

/// Whether the event that is being heard comes from a stamp of ours.
pub fn stamping() -> bool {
    STAMPING.load(Relaxed)
}

/// Gives the key a TTL in ms from now, on replicas and in the AOF too. In a
/// cluster it goes by the server's own command, which refuses slots that are not
/// ours yet.
pub fn give_ttl(ctx: Ctx<'_>, name: &Str, ttl_ms: i64, cluster: bool) -> bool {
    STAMPING.store(true, Relaxed);
    let done = key::expire_at(ctx, name, now_ms().saturating_add(ttl_ms), cluster);
    STAMPING.store(false, Relaxed);
    done
}
