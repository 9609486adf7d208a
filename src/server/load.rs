//! Loading and unloading: the two names the server looks up in the library.

use std::ffi::{CStr, c_int};

use redis_module::raw;

use super::guard::{self, Entry, guard};
use super::{Ctx, command, log};

const NAME: &CStr = c"hygiene";

/// The version as the server shows it, MMmmpp, from Cargo.toml.
const VERSION: c_int = part(env!("CARGO_PKG_VERSION_MAJOR")) * 10_000
    + part(env!("CARGO_PKG_VERSION_MINOR")) * 100
    + part(env!("CARGO_PKG_VERSION_PATCH"));

const fn part(digits: &str) -> c_int {
    let mut rest = digits.as_bytes();
    let mut number = 0;
    while let [digit, tail @ ..] = rest {
        number = number * 10 + (*digit - b'0') as c_int;
        rest = tail;
    }
    number
}

/// Input and output errors are no business of a module without data types; a key
/// that was opened for writing and left as it was is not called modified; and the
/// module stands by while a replica loads beside the old data set.
const OPTIONS: c_int = (1 << 0) | (1 << 1) | (1 << 2);

/// Valkey 9 and later move slots of a cluster only if every module agrees.
const ATOMIC_SLOT_MIGRATION: c_int = 1 << 5;

/// Called by the server when it loads the library.
///
/// # Safety
/// Only the server calls it, on its main thread, with a live context and `argc`
/// strings at `argv`.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub unsafe extern "C" fn RedisModule_OnLoad(
    ctx: *mut raw::RedisModuleCtx,
    argv: *mut *mut raw::RedisModuleString,
    argc: c_int,
) -> c_int {
    // SAFETY: the context is live; nothing allocates before this, since the
    // allocator is the server's own.
    let status = unsafe {
        raw::Export_RedisModule_Init(
            ctx,
            NAME.as_ptr(),
            VERSION,
            raw::REDISMODULE_APIVER_1 as c_int,
        )
    };
    if status != 0 {
        log::warning("not loaded: a module of that name is loaded already");
        return 1;
    }
    let loaded = guard(Entry::Load, || {
        guard::begin();
        let ctx = Ctx::new(ctx);
        set_options(ctx);
        crate::load(ctx, &command::arguments(argv, argc))
    });
    match loaded {
        Some(Ok(())) => return 0,
        Some(Err(why)) => log::warning(&format!("not loaded: {why}")),
        None => {}
    }
    // The library goes at once, and its memory is the server's.
    guard(Entry::Load, crate::forget_settings);
    1
}

fn set_options(ctx: Ctx<'_>) {
    let Some(set) = api!(RedisModule_SetModuleOptions) else {
        return;
    };
    let known = api!(RedisModule_GetModuleOptionsAll).map_or(OPTIONS, |all| {
        // SAFETY: takes nothing and returns a constant.
        unsafe { all() }
    });
    // SAFETY: the context is that of the load.
    unsafe { set(ctx.ptr(), OPTIONS | (known & ATOMIC_SLOT_MIGRATION)) }
}

/// Called by the server before it lets go of the library; 1 keeps it loaded.
///
/// # Safety
/// Only the server calls it, on its main thread, with a live context.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub unsafe extern "C" fn RedisModule_OnUnload(ctx: *mut raw::RedisModuleCtx) -> c_int {
    match guard(Entry::Load, || crate::unload(Ctx::new(ctx))) {
        Some(Ok(())) => {
            // The hook lives in the library, which is about to go.
            drop(std::panic::take_hook());
            0
        }
        Some(Err(why)) => {
            log::warning(&format!("not unloaded: {why}"));
            1
        }
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_number_is_that_of_the_package() {
        assert_eq!(part("12"), 12);
        assert_eq!(VERSION / 10_000, part(env!("CARGO_PKG_VERSION_MAJOR")));
    }
}
