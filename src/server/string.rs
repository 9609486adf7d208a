//! The server's strings: bytes with a reference count.

use redis_module::raw;

/// A string we hold a reference to, given back on drop.
#[derive(Debug)]
pub struct Str(*mut raw::RedisModuleString);

impl Str {
    /// A new string of these bytes.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let create = api!(RedisModule_CreateString)?;
        // SAFETY: pointer and length are those of a live slice, which the server
        // copies; without a context nothing else will free the result.
        let ptr = unsafe { create(std::ptr::null_mut(), bytes.as_ptr().cast(), bytes.len()) };
        (!ptr.is_null()).then(|| Self(ptr))
    }

    /// Holds on to a string that the server lent for the length of a call. A
    /// string on the server's stack is copied by the server.
    pub(super) fn hold(lent: *mut raw::RedisModuleString) -> Option<Self> {
        let hold = api!(RedisModule_HoldString)?;
        // SAFETY: the server handed us the pointer for this very callback.
        let ptr = unsafe { hold(std::ptr::null_mut(), lent) };
        (!ptr.is_null()).then(|| Self(ptr))
    }

    /// Takes over a string that the API made for us.
    pub(super) fn own(ptr: *mut raw::RedisModuleString) -> Option<Self> {
        (!ptr.is_null()).then(|| Self(ptr))
    }

    pub(super) const fn ptr(&self) -> *mut raw::RedisModuleString {
        self.0
    }

    /// Gives the reference away, to an API that frees it.
    pub(super) const fn into_ptr(self) -> *mut raw::RedisModuleString {
        let ptr = self.0;
        std::mem::forget(self);
        ptr
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        lent_bytes(self.0)
    }
}

impl Drop for Str {
    fn drop(&mut self) {
        if let Some(free) = api!(RedisModule_FreeString) {
            // SAFETY: the reference is ours and is given back once; the API allows
            // no context.
            unsafe { free(std::ptr::null_mut(), self.0) }
        }
    }
}

/// The bytes of a string that the server lent. The caller picks a lifetime no
/// longer than the loan.
pub(super) fn lent_bytes<'a>(lent: *const raw::RedisModuleString) -> &'a [u8] {
    let Some(look) = api!(RedisModule_StringPtrLen) else {
        return &[];
    };
    if lent.is_null() {
        return &[];
    }
    let mut len = 0;
    // SAFETY: `lent` is a live string of the server, `len` a place for its length.
    let ptr = unsafe { look(lent, &raw mut len) };
    if ptr.is_null() {
        return &[];
    }
    // SAFETY: the server says that `len` bytes stand at `ptr`, and a string shared
    // with a module is not changed in place.
    unsafe { std::slice::from_raw_parts(ptr.cast(), len) }
}
