//! The wire formats of Celery, kombu and RedBeat, read within bounds and
//! without ever executing what was stored.

pub mod binding;
pub mod body;
pub mod envelope;
mod json;
pub mod redbeat;
pub mod restore;
pub mod result;
