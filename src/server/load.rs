//! Loading and unloading: the two names the server looks up in the library.

use std::ffi::{CStr, c_int};

use redis_module::raw;

use super::guard::{self, Entry, guard};
use super::{Ctx, acl, command, config, context, events, log};

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
        return 1;
    }
    let loaded = guard(Entry::Load, || {
        guard::begin();
        let ctx = Ctx::new(ctx);
        set_options(ctx);
        crate::load(ctx, &command::arguments(argv, argc))
    });
    match loaded {
        Some(Ok(())) => 0,
        Some(Err(why)) => {
            log::warning(&format!("not loaded: {why}"));
            1
        }
        None => 1,
    }
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

/// What this server can do that others cannot. Asked once, when the module is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    name: String,
    version: (u32, u32, u32),
}

impl Server {
    /// The server that is loading us.
    #[must_use]
    pub fn at(ctx: Ctx<'_>) -> Self {
        let of = |field| context::server_info(ctx, c"server", field);
        // Valkey says redis_version 7.2.4 for clients' sake and has its own beside it.
        let valkey = of(c"valkey_version");
        let name = if valkey.is_some() { "Valkey" } else { "Redis" };
        let version = valkey.or_else(|| of(c"redis_version")).unwrap_or_default();
        let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
        let mut part = || parts.next().unwrap_or(0);
        Self {
            name: name.to_owned(),
            version: (part(), part(), part()),
        }
    }

    /// Whether a module may hear of COPY, RENAME, MOVE and RESTORE without harm.
    /// From Valkey 8.1.0 to 9.1.0 a subscriber makes `COPY ... DB n` and `MOVE`
    /// leave the client in the wrong database (valkey PR #1819, mended by #4024).
    #[must_use]
    pub fn generic_events_are_safe(&self) -> bool {
        self.name != "Valkey" || self.version < (8, 1, 0) || self.version > (9, 1, 0)
    }

    /// One line: what works how here.
    #[must_use]
    pub fn differences(&self) -> String {
        let (major, minor, patch) = self.version;
        let stamps = if events::jobs_after_writes() {
            "results are stamped in the same unit as the write"
        } else {
            "results are stamped within the same event-loop turn"
        };
        let generic = if self.generic_events_are_safe() {
            "RENAME, COPY, MOVE and RESTORE too"
        } else {
            "those that come by RENAME, COPY, MOVE or RESTORE by the next sweep"
        };
        let settings = if config::available() {
            "settings by CONFIG and HYGIENE.CONFIG"
        } else {
            "settings by HYGIENE.CONFIG only"
        };
        let rights = if acl::available() {
            "rights are checked key by key"
        } else {
            "no rights are checked key by key: withhold hygiene.fixttl and hygiene.orphans by ACL"
        };
        format!(
            "loaded on {} {major}.{minor}.{patch}: {stamps}, {generic}; {settings}; {rights}",
            self.name
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generic_events_are_left_alone_on_the_valkeys_they_harm() {
        for (name, version, safe) in [
            ("Redis", (6, 2, 14), true),
            ("Redis", (8, 2, 3), true),
            ("Valkey", (8, 0, 1), true),
            ("Valkey", (8, 1, 0), false),
            ("Valkey", (8, 1, 1), false),
            ("Valkey", (9, 0, 3), false),
            ("Valkey", (9, 1, 0), false),
            ("Valkey", (9, 1, 1), true),
            ("Valkey", (9, 2, 0), true),
        ] {
            let server = Server {
                name: name.to_owned(),
                version,
            };
            assert_eq!(server.generic_events_are_safe(), safe, "{server:?}");
        }
    }

    #[test]
    fn the_version_number_is_that_of_the_package() {
        assert_eq!(part("12"), 12);
        assert_eq!(VERSION / 10_000, part(env!("CARGO_PKG_VERSION_MAJOR")));
    }
}
