//! The rules, without a server: what a key is, what a payload says, what may be
//! done to it, and what the evidence adds up to.
//!
//! Nothing below this folder may import `redis_module` or call a server; time
//! is an argument, keys are byte slices, and every decision is a value. The
//! test command checks that rule.

pub mod args;
pub mod beat;
pub mod celery;
pub mod clock;
pub mod events;
pub mod figures;
pub mod glob;
pub mod keys;
pub mod orphans;
pub mod pace;
pub mod policy;
pub mod reply;
pub mod settings;
pub mod span;
pub mod syntax;
pub mod systems;
pub mod tally;
pub mod trigger;
pub mod words;
