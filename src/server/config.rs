//! The server's own CONFIG for our settings, where it has module settings (7.0
//! and later, Valkey).

use std::ffi::{CString, c_char, c_int, c_void};

use redis_module::raw;

use super::guard::{Entry, guard};
use super::string::lent_bytes;
use super::{Ctx, MainCell, Str};
use crate::core::args::quoted;
use crate::core::settings::SETTINGS;

/// Where the values live.
pub trait Store {
    /// The value of the setting in row `row` of the table, as text.
    fn show(row: usize) -> Vec<u8>;
    /// Gives it a value.
    ///
    /// # Errors
    /// A sentence that says what would be right.
    fn set(row: usize, value: &[u8]) -> Result<(), String>;
}

/// The text last shown of each setting: the server reads it after we return and
/// does not free it.
static SHOWN: MainCell<Vec<Option<Str>>> = MainCell::new(Vec::new());

/// Registers every setting with its present value as the default, then takes
/// what stands in the server's configuration file.
///
/// # Errors
/// The server refuses one, or the file holds a value we refuse.
pub fn register<S: Store>(ctx: Ctx<'_>) -> Result<(), String> {
    let (Some(register), Some(load)) = (
        api!(RedisModule_RegisterStringConfig),
        api!(RedisModule_LoadConfigs),
    ) else {
        return Ok(());
    };
    *SHOWN.get_mut() = SETTINGS.iter().map(|_| None).collect();
    for (row, setting) in SETTINGS.iter().enumerate() {
        let refused = || format!("the server refuses the setting {}", setting.name);
        let name = CString::new(setting.name).map_err(|_| refused())?;
        let default = CString::new(S::show(row)).map_err(|_| {
            format!(
                "{} {}: a value with a NUL byte cannot be a setting here",
                setting.name,
                quoted(&S::show(row))
            )
        })?;
        // SAFETY: both texts end in NUL and are copied by the server; the private
        // data is a row number, not a pointer.
        let status = unsafe {
            register(
                ctx.ptr(),
                name.as_ptr(),
                default.as_ptr(),
                0,
                Some(show::<S>),
                Some(set::<S>),
                None,
                std::ptr::without_provenance_mut(row),
            )
        };
        if status != 0 {
            return Err(refused());
        }
    }
    // SAFETY: every setting has been registered, as the API asks.
    if unsafe { load(ctx.ptr()) } == 0 {
        Ok(())
    } else {
        Err("a hygiene.* line of the configuration file was refused".to_owned())
    }
}

/// Lets go of what the server was shown.
pub fn forget() {
    *SHOWN.get_mut() = Vec::new();
}

unsafe extern "C" fn show<S: Store>(
    _name: *const c_char,
    row: *mut c_void,
) -> *mut raw::RedisModuleString {
    guard(Entry::Config, || {
        let row = row.addr();
        let text = Str::new(&S::show(row))?;
        let ptr = text.ptr();
        *SHOWN.get_mut().get_mut(row)? = Some(text);
        Some(ptr)
    })
    .flatten()
    .unwrap_or(std::ptr::null_mut())
}

unsafe extern "C" fn set<S: Store>(
    _name: *const c_char,
    value: *mut raw::RedisModuleString,
    row: *mut c_void,
    why: *mut *mut raw::RedisModuleString,
) -> c_int {
    let result = guard(Entry::Config, || S::set(row.addr(), lent_bytes(value)))
        .unwrap_or_else(|| Err("internal fault of the hygiene module, see the log".to_owned()));
    let Err(text) = result else {
        return 0;
    };
    if let (false, Some(text)) = (why.is_null(), Str::new(text.as_bytes())) {
        // SAFETY: the server gives a place for the reason and frees the string.
        unsafe { *why = text.into_ptr() };
    }
    1
}
