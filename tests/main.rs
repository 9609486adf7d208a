//! Integration tests: one program, so that the servers are told once and linked once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod client; // a connection, and replies of both protocols made alike
mod data; // what a server holds and what its append-only file says
mod server; // starts and stops real servers with the fresh module
