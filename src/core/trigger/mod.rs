//! HYGIENE.TRIGGER's decisions: where a message goes, and what became of it.

mod progress;
mod route;

pub use progress::{Progress, Report};
pub use route::{Asked, Route, route};
