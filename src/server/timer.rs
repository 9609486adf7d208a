//! One-shot timers of the server's event loop.

use std::ffi::c_void;
use std::time::{Duration, Instant};

use redis_module::raw;

use super::guard::{Entry, guard};
use super::{Ctx, MainCell};

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
pub struct Timer(usize);

type Callback = unsafe extern "C" fn(*mut raw::RedisModuleCtx, *mut c_void);

struct Armed {
    /// Ours, which the callback is handed and which stays when it is armed anew.
    id: usize,
    server: raw::RedisModuleTimerID,
    due: Instant,
    call: Callback,
}

struct Timers {
    armed: Vec<Armed>,
    last_id: usize,
}

static TIMERS: MainCell<Timers> = MainCell::new(Timers {
    armed: Vec::new(),
    last_id: 0,
});

/// A timer so late is one that the server has lost, and no longer one that waits for a
/// command to end.
const LATE: Duration = Duration::from_secs(1);

/// Has the server call at that time. The callback is handed a number as its data, so
/// nothing can dangle or leak when the timer is stopped.
fn create(ctx: Ctx<'_>, ms: u64, call: Callback, id: usize) -> Option<raw::RedisModuleTimerID> {
    let create = api!(RedisModule_CreateTimer)?;
    let period = i64::try_from(ms).unwrap_or(i64::MAX);
    let data = std::ptr::without_provenance_mut(id);
    // SAFETY: the context is live, and the callback reads nothing where the data points.
    Some(unsafe { create(ctx.ptr(), period, Some(call), data) })
}

/// Takes it from the server; `false` if it has fired or never was.
fn take_back(ctx: Ctx<'_>, server: raw::RedisModuleTimerID) -> bool {
    let Some(stop) = api!(RedisModule_StopTimer) else {
        return false;
    };
    // SAFETY: the API looks the id up and refuses one it does not know.
    let status = unsafe { stop(ctx.ptr(), server, std::ptr::null_mut()) };
    status == 0
}

fn forget(id: usize) -> Option<Armed> {
    let armed = &mut TIMERS.get_mut().armed;
    let at = armed.iter().position(|timer| timer.id == id)?;
    Some(armed.swap_remove(at))
}

impl Timer {
    /// Arms one. With 0 ms it fires in this turn of the event loop, or, armed
    /// from a timer, in the next millisecond.
    pub fn arm<T: Task>(ctx: Ctx<'_>, ms: u64) -> Option<Self> {
        let id = {
            let mut timers = TIMERS.get_mut();
            timers.last_id = timers.last_id.wrapping_add(1);
            timers.last_id
        };
        let call = fire::<T>;
        let server = create(ctx, ms, call, id)?;
        let now = Instant::now();
        TIMERS.get_mut().armed.push(Armed {
            id,
            server,
            due: now.checked_add(Duration::from_millis(ms)).unwrap_or(now),
            call,
        });
        Some(Self(id))
    }

    /// Stops it; one that has fired already is no fault.
    pub fn stop(self, ctx: Ctx<'_>) {
        if let Some(armed) = forget(self.0) {
            take_back(ctx, armed.server);
        }
    }
}

/// The server's periodic round: arms anew what should have fired long ago. The server
/// keeps a timer by the wall clock (`ustime`, Redis 6.2 to 8.2 and Valkey 9.1,
/// src/module.c, `moduleTimerHandler`), so when that is set back by an hour its timers
/// come an hour late, and with them every pass and every answer.
pub fn round(ctx: Ctx<'_>) {
    let late = |timer: &Armed| timer.due.elapsed() >= LATE;
    if !TIMERS.get().armed.iter().any(late) {
        return;
    }
    let armed = std::mem::take(&mut TIMERS.get_mut().armed);
    for mut timer in armed {
        if late(&timer) {
            if !take_back(ctx, timer.server) {
                continue;
            }
            let Some(server) = create(ctx, 0, timer.call, timer.id) else {
                continue;
            };
            timer.server = server;
            timer.due = Instant::now();
        }
        TIMERS.get_mut().armed.push(timer);
    }
}

/// Stops what is still armed and keeps no memory, before the library goes.
pub fn stop_all(ctx: Ctx<'_>) {
    let armed = std::mem::take(&mut TIMERS.get_mut().armed);
    for timer in armed {
        take_back(ctx, timer.server);
    }
}

unsafe extern "C" fn fire<T: Task>(ctx: *mut raw::RedisModuleCtx, data: *mut c_void) {
    forget(data.addr());
    let ctx = Ctx::new(ctx);
    let done = guard(T::ENTRY, || {
        ctx.select(0);
        T::fire(ctx);
    });
    if done.is_none() {
        guard(Entry::Turn, || T::failed(ctx));
    }
}
