//! The wire formats of Celery, kombu and RedBeat, read within bounds and
//! without ever executing what was stored; and the one message written.

pub mod binding;
pub mod body;
pub mod envelope;
pub mod group;
mod json;
pub mod message;
pub mod outcome;
pub mod redbeat;
pub mod restore;
pub mod result;
