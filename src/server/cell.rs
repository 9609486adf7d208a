//! State of the module, which only the server's main thread touches.

use std::cell::{Ref, RefCell, RefMut};

/// A place for state. Everything of ours runs in callbacks of the server, which
/// calls modules on its main thread, or holding its lock, only.
pub struct MainCell<T>(RefCell<T>);

// SAFETY: no thread of ours exists, and the server runs a module's callbacks one
// at a time, so no two threads are ever inside at once.
unsafe impl<T> Sync for MainCell<T> {}

impl<T> MainCell<T> {
    /// A place with its first value.
    pub const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    /// To look at. A callback can come while another of ours is on the stack
    /// (a command we call raises an event), so nobody holds one across a call.
    pub fn get(&self) -> Ref<'_, T> {
        self.0.borrow()
    }

    /// To look at, where the server may call at any point, as from its crash report.
    pub fn try_get(&self) -> Option<Ref<'_, T>> {
        self.0.try_borrow().ok()
    }

    /// To change.
    pub fn get_mut(&self) -> RefMut<'_, T> {
        self.0.borrow_mut()
    }
}
