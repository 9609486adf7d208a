//! The server's log. The only place that writes to it.

use std::ffi::{CStr, CString};

use redis_module::raw;

/// The longest line handed over, in bytes. The server cuts at 1,024 by itself.
const LONGEST: usize = 1_000;

/// What an operator should know.
pub fn notice(text: &str) {
    line(c"notice", text);
}

/// What an operator should act on.
pub fn warning(text: &str) {
    line(c"warning", text);
}

/// Detail.
pub fn verbose(text: &str) {
    line(c"verbose", text);
}

fn line(level: &CStr, text: &str) {
    let Some(write) = api!(RedisModule_Log) else {
        return;
    };
    let printable: String = text
        .chars()
        .take(LONGEST)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    let Ok(printable) = CString::new(format!("hygiene: {printable}")) else {
        return;
    };
    // SAFETY: level, format and text end in NUL and outlive the call; the text is
    // an argument of "%s", never a format itself; the API allows no context.
    unsafe {
        write(
            std::ptr::null_mut::<raw::RedisModuleCtx>(),
            level.as_ptr(),
            c"%s".as_ptr(),
            printable.as_ptr(),
        );
    }
}
