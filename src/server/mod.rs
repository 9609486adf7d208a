//! The server's module API, wrapped once: the only place with `unsafe`.
//!
//! What leaves this folder is safe Rust: byte slices, plain values, handles that
//! free themselves. Each entry point from C goes through [`guard`], so that a
//! panic ends in the log and not in the server. The pointers of the API are
//! looked at when used, so that one build serves every server; what differs from one
//! to the next is found out and named in [`differences`] alone.
//!
//! The crate `redis-module` gives the bindings and the allocator. Its safe layer
//! is not used: its logger takes the message for a printf format, its scan
//! cursor leaks each key's name, its event handler expects UTF-8, and its
//! command handler lets a panic through (redis-module 2.0.8).

#![allow(unsafe_code)]

macro_rules! api {
    ($name:ident) => {{
        // SAFETY: the pointers are written by RedisModule_Init before anything of
        // ours runs and never again; a thread of ours begins after that.
        unsafe { redis_module::raw::$name }
    }};
}

pub mod acl;
pub mod beside;
pub mod call;
pub mod cell;
pub mod command;
pub mod config;
pub mod context;
pub mod cpu;
pub mod differences;
pub mod events;
pub mod guard;
pub mod info;
pub mod key;
pub mod load;
pub mod log;
pub mod pushed;
pub mod scan;
pub mod string;
pub mod timer;

pub use cell::MainCell;
pub use context::Ctx;
pub use string::Str;
