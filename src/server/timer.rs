//! One-shot timers of the server's event loop.

use std::ffi::c_void;

use redis_module::raw;

use super::Ctx;
use super::guard::{Entry, guard};

/// What runs when a timer fires.
pub trait Task {
    /// Where its faults belong.
    const ENTRY: Entry = Entry::Timer;
    /// Called on the main thread, in database 0.
    fn fire(ctx: Ctx<'_>);
    /// It panicked, or is switched off: what else would wait for it for ever is told
    /// here, and armed again if need be.
    fn failed(ctx: Ctx<'_>) {
        let _ = ctx;
    }
}

/// A timer that has not fired yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer(raw::RedisModuleTimerID);

impl Timer {
    /// Arms one. With 0 ms it fires in this turn of the event loop, or, armed
    /// from a timer, in the next millisecond.
    pub fn arm<T: Task>(ctx: Ctx<'_>, ms: u64) -> Option<Self> {
        let create = api!(RedisModule_CreateTimer)?;
        let period = i64::try_from(ms).unwrap_or(i64::MAX);
        // SAFETY: the context is live; the callback takes no data, so nothing can
        // dangle or leak when the timer is stopped.
        Some(Self(unsafe {
            create(ctx.ptr(), period, Some(fire::<T>), std::ptr::null_mut())
        }))
    }

    /// Stops it; one that has fired already is no fault.
    pub fn stop(self, ctx: Ctx<'_>) {
        if let Some(stop) = api!(RedisModule_StopTimer) {
            // SAFETY: the API looks the id up and refuses one it does not know.
            unsafe {
                stop(ctx.ptr(), self.0, std::ptr::null_mut());
            }
        }
    }
}

unsafe extern "C" fn fire<T: Task>(ctx: *mut raw::RedisModuleCtx, _data: *mut c_void) {
    let ctx = Ctx::new(ctx);
    let done = guard(T::ENTRY, || {
        ctx.select(0);
        T::fire(ctx);
    });
    if done.is_none() {
        guard(Entry::Turn, || T::failed(ctx));
    }
}
