//! The rights of the client that asked, checked key by key.
//!
//! From Redis 7.0 on. 6.2 gives modules no ACL API: there nothing is checked, and
//! the commands say so.

use redis_module::raw;

use super::{Ctx, Str};

/// What is to be done to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Look at it.
    Access,
    /// Change or delete it.
    Change,
}

const ACCESS: i32 = 1 << 4;
const UPDATE: i32 = 1 << 5;
const DELETE: i32 = 1 << 7;

/// The name of the user that called; `None` where the server does not tell.
#[must_use]
pub fn current_user(ctx: Ctx<'_>) -> Option<Vec<u8>> {
    let name = api!(RedisModule_GetCurrentUserName)?;
    // SAFETY: the context is that of a running command; the string is ours to free.
    let name = Str::own(unsafe { name(ctx.ptr()) })?;
    Some(name.bytes().to_vec())
}

/// A user whose rights are asked for. Given back on drop.
pub struct User(*mut raw::RedisModuleUser);

impl User {
    /// The user of that name; `None` if it is there no longer.
    pub fn named(name: &[u8]) -> Option<Self> {
        let look = api!(RedisModule_GetModuleUserFromUserName)?;
        let name = Str::new(name)?;
        // SAFETY: the name is a live string; the handle is freed by drop.
        let ptr = unsafe { look(name.ptr()) };
        (!ptr.is_null()).then(|| Self(ptr))
    }

    /// Whether it may do that to the key.
    #[must_use]
    pub fn may(&self, right: Right, name: &Str) -> bool {
        self.may_lent(right, name.ptr())
    }

    pub(super) fn may_lent(&self, right: Right, name: *mut raw::RedisModuleString) -> bool {
        let Some(check) = api!(RedisModule_ACLCheckKeyPermissions) else {
            return true;
        };
        let flags = match right {
            Right::Access => ACCESS,
            Right::Change => UPDATE | DELETE,
        };
        // SAFETY: user and name are live.
        unsafe { check(self.0, name, flags) == 0 }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if let Some(free) = api!(RedisModule_FreeModuleUser) {
            // SAFETY: made for us and freed once.
            unsafe { free(self.0) }
        }
    }
}
