//! The values in force, and the ways to change them.

use std::rc::Rc;

use crate::core::keys::Names;
use crate::core::settings::{SETTINGS, Settings};
use crate::server::MainCell;
use crate::server::config::Store;

/// Settings and what is compiled from them. Kept together, so that they agree.
#[derive(Clone)]
pub struct Current {
    /// The values.
    pub settings: Rc<Settings>,
    /// The key names they decide on.
    pub names: Rc<Names>,
}

static CURRENT: MainCell<Option<Current>> = MainCell::new(None);

/// Puts these values in force.
pub fn replace(settings: Settings) {
    *CURRENT.get_mut() = Some(Current {
        names: Rc::new(settings.names()),
        settings: Rc::new(settings),
    });
}

/// Lets go of them, before the library goes.
pub fn forget() {
    *CURRENT.get_mut() = None;
}

/// Runs `look` on the values in force without copying them: the hook does so on
/// every write. `None` before the module is loaded.
pub fn with<R>(look: impl FnOnce(&Current) -> R) -> Option<R> {
    CURRENT.get().as_ref().map(look)
}

/// The same where the server may call at any point, as from its crash report.
pub fn try_with<R>(look: impl FnOnce(&Current) -> R) -> Option<R> {
    CURRENT.try_get()?.as_ref().map(look)
}

/// A snapshot of the values in force.
#[must_use]
pub fn now() -> Current {
    with(Clone::clone).unwrap_or_else(|| {
        let settings = Settings::default();
        Current {
            names: Rc::new(settings.names()),
            settings: Rc::new(settings),
        }
    })
}

/// Changes one setting.
///
/// # Errors
/// A sentence that says what would be right; the old value stays.
pub fn set(name: &[u8], value: &[u8]) -> Result<(), String> {
    let mut settings = Settings::clone(&now().settings);
    settings.set(name, value)?;
    replace(settings);
    Ok(())
}

/// These values behind the server's CONFIG.
pub struct Live;

impl Store for Live {
    fn show(row: usize) -> Vec<u8> {
        let current = now();
        SETTINGS
            .get(row)
            .map(|setting| setting.show(&current.settings))
            .unwrap_or_default()
    }

    fn set(row: usize, value: &[u8]) -> Result<(), String> {
        let name = SETTINGS.get(row).map_or("", |setting| setting.name);
        set(name.as_bytes(), value)
    }
}
