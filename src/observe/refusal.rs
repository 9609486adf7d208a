//! Whether the server refuses its clients' writes: beat's, too.

use crate::core::beat::Refusal;
use crate::server::Ctx;
use crate::server::context::{disk_forbids, memory_refuses, replicas, writes_paused};

/// Why the server refuses writes at this moment, if it does. Costs what two sections
/// of INFO cost.
#[must_use]
pub fn refusal(ctx: Ctx<'_>) -> Option<Refusal> {
    if !ctx.flags().primary() {
        return None;
    }
    if writes_paused() {
        return Some(Refusal::Paused);
    }
    if memory_refuses(ctx) {
        return Some(Refusal::Memory);
    }
    if let Some(why) = disk_forbids(ctx) {
        return Some(Refusal::Disk(why));
    }
    replicas(ctx).too_few.then_some(Refusal::Replicas)
}
