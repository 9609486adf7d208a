//! Modules to compare with: the least that any module pays for what ours does.
//!
//! `loadmodule baseline.so events` hears of every write to a string and does nothing.
//! `loadmodule baseline.so stamp` does the least that gives a result a TTL in the unit
//! that wrote it: a job, one open key, one expiry, one replicated command. It needs a
//! server with jobs after notifications (Redis 7.2 and later, Valkey).
//!
//! What is left between these and a server without a module is the server's own.

// It stands for what C would do, beside the module and not in it.
#![allow(unsafe_code, clippy::multiple_unsafe_ops_per_block)]

use std::ffi::{CStr, c_char, c_int, c_longlong, c_void};
use std::mem::transmute_copy;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

type Ptr = *mut c_void;
type GetApi = unsafe extern "C" fn(*const c_char, *mut Ptr) -> c_int;
type Event = unsafe extern "C" fn(Ptr, c_int, *const c_char, Ptr) -> c_int;
type Job = unsafe extern "C" fn(Ptr, Ptr);

const STRING: c_int = 1 << 3;
const READ_WRITE_QUIETLY: c_int = 1 | 2 | (1 << 16) | (1 << 18);
const RESULT: &[u8] = b"celery-task-meta-";
const TTL_MS: c_longlong = 3_600_000;

/// A function of the server's, looked up once.
struct Api(&'static CStr, AtomicPtr<c_void>);

impl Api {
    const fn named(name: &'static CStr) -> Self {
        Self(name, AtomicPtr::new(null_mut()))
    }

    /// The function. `F` must be its type.
    fn get<F: Copy>(&self) -> F {
        let ptr = self.1.load(Relaxed);
        assert_eq!(size_of::<F>(), size_of::<Ptr>());
        // SAFETY: the caller names the function's own type, and it was looked up.
        unsafe { transmute_copy(&ptr) }
    }
}

static ATTRIBS: Api = Api::named(c"RedisModule_SetModuleAttribs");
static SUBSCRIBE: Api = Api::named(c"RedisModule_SubscribeToKeyspaceEvents");
static BYTES: Api = Api::named(c"RedisModule_StringPtrLen");
static ADD_JOB: Api = Api::named(c"RedisModule_AddPostNotificationJob");
static HOLD: Api = Api::named(c"RedisModule_HoldString");
static FREE: Api = Api::named(c"RedisModule_FreeString");
static OPEN: Api = Api::named(c"RedisModule_OpenKey");
static CLOSE: Api = Api::named(c"RedisModule_CloseKey");
static TTL: Api = Api::named(c"RedisModule_GetExpire");
static EXPIRE: Api = Api::named(c"RedisModule_SetAbsExpire");
static NOW: Api = Api::named(c"RedisModule_Milliseconds");
static REPLICATE: Api = Api::named(c"RedisModule_Replicate");
static ALL: [&Api; 12] = [
    &ATTRIBS, &SUBSCRIBE, &BYTES, &ADD_JOB, &HOLD, &FREE, &OPEN, &CLOSE, &TTL, &EXPIRE, &NOW,
    &REPLICATE,
];

/// The key that waits for its job: one command writes one here.
static NOTED: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

fn bytes<'a>(string: Ptr) -> &'a [u8] {
    let look: unsafe extern "C" fn(Ptr, *mut usize) -> *const u8 = BYTES.get();
    let mut len = 0;
    // SAFETY: a live string of the server's.
    unsafe { std::slice::from_raw_parts(look(string, &raw mut len), len) }
}

unsafe extern "C" fn heard(_: Ptr, _: c_int, _: *const c_char, _: Ptr) -> c_int {
    0
}

unsafe extern "C" fn written(ctx: Ptr, _: c_int, _: *const c_char, key: Ptr) -> c_int {
    if !bytes(key).starts_with(RESULT) || !NOTED.load(Relaxed).is_null() {
        return 0;
    }
    let add: unsafe extern "C" fn(Ptr, Job, Ptr, Ptr) -> c_int = ADD_JOB.get();
    let hold: unsafe extern "C" fn(Ptr, Ptr) -> Ptr = HOLD.get();
    // SAFETY: context and key are those of the callback.
    unsafe {
        if add(ctx, stamp, null_mut(), null_mut()) == 0 {
            NOTED.store(hold(null_mut(), key), Relaxed);
        }
    }
    0
}

unsafe extern "C" fn stamp(ctx: Ptr, _: Ptr) {
    let open: unsafe extern "C" fn(Ptr, Ptr, c_int) -> Ptr = OPEN.get();
    let close: unsafe extern "C" fn(Ptr) = CLOSE.get();
    let free: unsafe extern "C" fn(Ptr, Ptr) = FREE.get();
    let ttl: unsafe extern "C" fn(Ptr) -> c_longlong = TTL.get();
    let expire: unsafe extern "C" fn(Ptr, c_longlong) -> c_int = EXPIRE.get();
    let now: unsafe extern "C" fn() -> c_longlong = NOW.get();
    let replicate: unsafe extern "C" fn(Ptr, *const c_char, *const c_char, ...) -> c_int =
        REPLICATE.get();
    let name = NOTED.swap(null_mut(), Relaxed);
    // SAFETY: context and name are live, and the key was written in this unit.
    unsafe {
        let key = open(ctx, name, READ_WRITE_QUIETLY);
        if ttl(key) < 0 {
            let at = now() + TTL_MS;
            expire(key, at);
            close(key);
            replicate(ctx, c"PEXPIREAT".as_ptr(), c"sl".as_ptr(), name, at);
        } else {
            close(key);
        }
        free(null_mut(), name);
    }
}

/// Called by the server; 1 refuses.
///
/// # Safety
/// Only a server calls it.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub unsafe extern "C" fn RedisModule_OnLoad(ctx: Ptr, argv: *mut Ptr, argc: c_int) -> c_int {
    // SAFETY: the context begins with the function that looks up the others.
    let look_up: GetApi = unsafe { *ctx.cast::<GetApi>() };
    for api in ALL {
        let mut found = null_mut();
        // SAFETY: the name ends in NUL; what the server does not have stays null.
        unsafe { look_up(api.0.as_ptr(), &raw mut found) };
        api.1.store(found, Relaxed);
    }
    let attribs: unsafe extern "C" fn(Ptr, *const c_char, c_int, c_int) = ATTRIBS.get();
    let subscribe: unsafe extern "C" fn(Ptr, c_int, Event) -> c_int = SUBSCRIBE.get();
    // SAFETY: the context is that of the load, the arguments are its strings.
    unsafe {
        attribs(ctx, c"baseline".as_ptr(), 1, 1);
        let word = if argc == 1 { bytes(*argv) } else { b"" };
        match word {
            b"events" => subscribe(ctx, STRING, heard),
            b"stamp" if !ADD_JOB.1.load(Relaxed).is_null() => subscribe(ctx, STRING, written),
            _ => 1,
        }
    }
}
