//! Fields of `INFO hygiene`.

use std::ffi::{CString, c_int};

use redis_module::raw;

use super::Ctx;
use super::guard::{Entry, guard};
use crate::core::figures::Figure;

/// Who tells the fields.
pub trait Tells {
    /// Figures with their names, without the module's in front. It can be
    /// called from the server's crash report: it must neither wait nor fail.
    fn fields() -> Vec<(&'static str, Figure)>;
}

/// Registers the section.
pub fn register<T: Tells>(ctx: Ctx<'_>) {
    if let Some(register) = api!(RedisModule_RegisterInfoFunc) {
        // SAFETY: called while the module is being loaded.
        unsafe {
            register(ctx.ptr(), Some(tell::<T>));
        }
    }
}

unsafe extern "C" fn tell<T: Tells>(ctx: *mut raw::RedisModuleInfoCtx, _crash: c_int) {
    guard(Entry::Info, || {
        let (Some(section), Some(number), Some(text)) = (
            api!(RedisModule_InfoAddSection),
            api!(RedisModule_InfoAddFieldLongLong),
            api!(RedisModule_InfoAddFieldCString),
        ) else {
            return;
        };
        // SAFETY: the context is that of the callback; no name makes the section
        // that carries the module's own.
        if unsafe { section(ctx, std::ptr::null()) } != 0 {
            return;
        }
        for (name, value) in T::fields() {
            let Ok(name) = CString::new(name) else {
                continue;
            };
            match value {
                Figure::Number(value) => {
                    // SAFETY: the name ends in NUL and is copied.
                    unsafe {
                        number(ctx, name.as_ptr(), value);
                    }
                }
                Figure::Word(word) => {
                    let Ok(word) = CString::new(word) else {
                        continue;
                    };
                    // SAFETY: both texts end in NUL and are copied.
                    unsafe {
                        text(ctx, name.as_ptr(), word.as_ptr());
                    }
                }
            }
        }
    });
}
