//! A cursor over the keys of the selected database.

use std::ffi::c_void;

use redis_module::raw;

use super::acl::{Right, User};
use super::guard::{Carried, Entry};
use super::key::Key;
use super::string::lent_bytes;
use super::{Ctx, Str};

/// A key as the scan shows it, for the length of one callback. It is looked at
/// here and changed after [`Cursor::step`] has returned: the server holds on to
/// the value meanwhile.
pub struct Found<'a> {
    name: *mut raw::RedisModuleString,
    bytes: &'a [u8],
    key: Key<'a>,
}

impl Found<'_> {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &[u8] {
        self.bytes
    }

    /// The key, to look at.
    #[must_use]
    pub const fn key(&self) -> &Key<'_> {
        &self.key
    }

    /// Whether the user may do that to it.
    #[must_use]
    pub fn permits(&self, user: &User, right: Right) -> bool {
        user.may_lent(right, self.name)
    }

    /// Its name, to keep beyond the callback.
    #[must_use]
    pub fn keep(&self) -> Option<Str> {
        Str::hold(self.name)
    }
}

/// A scan's place. Freed on drop.
pub struct Cursor(*mut raw::RedisModuleScanCursor);

impl Cursor {
    /// A cursor at the beginning.
    pub fn new() -> Option<Self> {
        let create = api!(RedisModule_ScanCursorCreate)?;
        // SAFETY: takes nothing; the result is freed by drop.
        let ptr = unsafe { create() };
        (!ptr.is_null()).then(|| Self(ptr))
    }

    /// Shows the keys of one bucket, 1 to about 10. `false` at the end. Keys that
    /// are there from start to end are shown at least once, as with SCAN.
    pub fn step<F: FnMut(Found<'_>)>(&mut self, ctx: Ctx<'_>, visit: F) -> bool {
        let Some(scan) = api!(RedisModule_Scan) else {
            return false;
        };
        let mut carried = Carried::new(visit);
        // SAFETY: context and cursor are live; `found::<F>` gets back the very
        // closure that is passed, which outlives the call.
        let more = unsafe {
            scan(
                ctx.ptr(),
                self.0,
                Some(found::<F>),
                (&raw mut carried).cast::<c_void>(),
            ) != 0
        };
        carried.end();
        more
    }
}

/// A place within a set or a hash. Freed on drop.
pub struct MembersCursor(Cursor);

impl MembersCursor {
    /// A cursor at the beginning.
    pub fn new() -> Option<Self> {
        Cursor::new().map(Self)
    }

    /// Shows some members: those of one bucket, or all of a small set, with the
    /// guarantees of SSCAN; that is no use of the set. `false` at the end. The key
    /// may be opened anew between two calls.
    pub fn step(&mut self, set: &Key<'_>, mut visit: impl FnMut(&[u8])) -> bool {
        self.step_fields(set, |member, _| visit(member))
    }

    /// The same for the fields of a hash and their values.
    pub fn step_fields<F: FnMut(&[u8], &[u8])>(&mut self, key: &Key<'_>, visit: F) -> bool {
        let Some(scan) = api!(RedisModule_ScanKey) else {
            return false;
        };
        let mut carried = Carried::new(visit);
        // SAFETY: key and cursor are live; `member::<F>` gets back the very closure
        // that is passed, which outlives the call. Another type than a hash, set or
        // zset is refused.
        let more = unsafe {
            scan(
                key.ptr(),
                self.0.0,
                Some(member::<F>),
                (&raw mut carried).cast::<c_void>(),
            ) != 0
        };
        carried.end();
        more
    }
}

unsafe extern "C" fn member<F: FnMut(&[u8], &[u8])>(
    _key: *mut raw::RedisModuleKey,
    field: *mut raw::RedisModuleString,
    value: *mut raw::RedisModuleString,
    visit: *mut c_void,
) {
    // SAFETY: `step_fields` passes its closure, alive and not used by anyone else
    // until the scan returns.
    let carried = unsafe { &mut *visit.cast::<Carried<F>>() };
    // A set's members have no value.
    carried.run(Entry::Scan, |visit| {
        visit(lent_bytes(field), lent_bytes(value));
    });
}

impl Drop for Cursor {
    fn drop(&mut self) {
        if let Some(destroy) = api!(RedisModule_ScanCursorDestroy) {
            // SAFETY: made by us and freed once.
            unsafe { destroy(self.0) }
        }
    }
}

unsafe extern "C" fn found<F: FnMut(Found<'_>)>(
    ctx: *mut raw::RedisModuleCtx,
    name: *mut raw::RedisModuleString,
    key: *mut raw::RedisModuleKey,
    visit: *mut c_void,
) {
    // SAFETY: `step` passes its closure, alive and not used by anyone else
    // until the scan returns.
    let carried = unsafe { &mut *visit.cast::<Carried<F>>() };
    carried.run(Entry::Scan, |visit| {
        let (handle, opened);
        if let Some(lent) = Key::lent(key) {
            handle = lent;
        } else {
            // The server shows some keys without a handle; then it is on us.
            opened = Str::hold(name);
            let Some(key) = opened
                .as_ref()
                .and_then(|name| Key::read(Ctx::new(ctx), name))
            else {
                return;
            };
            handle = key;
        }
        visit(Found {
            name,
            bytes: lent_bytes(name),
            key: handle,
        });
    });
}
