//! What a client is about to push to a list, as the argument of its command.
//!
//! The API gives an element of a list only as a copy, which for a message of 1 MB
//! costs more than all else that is done with it. The argument holds the same bytes,
//! and a command filter is the API's only way to arguments. Our filter changes
//! nothing. It holds on to the last argument of LPUSH and RPUSH until the event of
//! that push, or until the next command if there is none; in a transaction, whose
//! commands pass the filter as they are queued, the element is copied.

use redis_module::raw;

use super::guard::{Entry, guard};
use super::string::lent_bytes;
use super::{Ctx, MainCell, Str};

/// An argument, and the key it goes to: compared by its address only, never read.
struct Pushed {
    key: *mut raw::RedisModuleString,
    head: bool,
    element: Str,
}

static PUSHED: MainCell<Option<Pushed>> = MainCell::new(None);

/// The filter, while there is one.
static FILTER: MainCell<Option<Filter>> = MainCell::new(None);

struct Filter(*mut raw::RedisModuleCommandFilter);

/// Begins to look at the arguments of pushes, or stops. Each command of any client is
/// some ns slower meanwhile.
pub fn watch_pushes(ctx: Ctx<'_>, on: bool) {
    let mut filter = FILTER.get_mut();
    if on == filter.is_some() {
        return;
    }
    if let Some(Filter(old)) = filter.take() {
        if let Some(unregister) = api!(RedisModule_UnregisterCommandFilter) {
            // SAFETY: the filter is ours, registered once and ended once; no command
            // passes it now, since the server runs a callback of ours that is none.
            unsafe {
                unregister(ctx.ptr(), old);
            }
        }
        let_go();
    } else if let Some(register) = api!(RedisModule_RegisterCommandFilter) {
        // SAFETY: the context is that of a callback of this module's.
        let new = unsafe { register(ctx.ptr(), Some(filtered), 0) };
        *filter = (!new.is_null()).then_some(Filter(new));
    }
}

unsafe extern "C" fn filtered(command: *mut raw::RedisModuleCommandFilterCtx) {
    guard(Entry::Filter, || {
        let pushed = last_argument(command);
        let before = std::mem::replace(&mut *PUSHED.get_mut(), pushed);
        drop(before);
    });
}

/// The last argument of a push, if the command is one.
fn last_argument(command: *mut raw::RedisModuleCommandFilterCtx) -> Option<Pushed> {
    let get = api!(RedisModule_CommandFilterArgGet)?;
    let count = api!(RedisModule_CommandFilterArgsCount)?;
    // SAFETY: the server lends the command for this very callback.
    let word = lent_bytes(unsafe { get(command, 0) });
    let head = match word.first()? {
        b'l' | b'L' => true,
        b'r' | b'R' => false,
        _ => return None,
    };
    let rest = word.get(1..)?;
    if !rest.eq_ignore_ascii_case(b"push") && !rest.eq_ignore_ascii_case(b"pushx") {
        return None;
    }
    // SAFETY: as above.
    let count = unsafe { count(command) };
    if count < 3 {
        return None;
    }
    // SAFETY: as above; there are at least three.
    let key = unsafe { get(command, 1) };
    // SAFETY: as above.
    let element = Str::hold(unsafe { get(command, count - 1) })?;
    Some(Pushed { key, head, element })
}

/// Holds nothing any longer.
pub(super) fn let_go() {
    let held = PUSHED.get_mut().take();
    drop(held);
}

/// What the command that raised an event of this key pushed, if it is known; after
/// that it is not held any longer.
pub(super) fn take(key: *mut raw::RedisModuleString, head: bool) -> Option<Str> {
    let pushed = PUSHED.get_mut().take()?;
    // The server hands the very argument to the event.
    (pushed.key == key && pushed.head == head).then_some(pushed.element)
}
