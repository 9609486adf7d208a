//! Integration tests: one program, so that the servers are told once and linked once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod celery; // writes keys exactly as Celery, kombu and RedBeat write them
mod client; // a connection, and replies of both protocols made alike
mod data; // what a server holds and what its append-only file says
mod jobs; // sweeps that run on without their client
mod server; // starts and stops real servers with the fresh module

mod acl; // command by right by outcome; what a user learns of keys that are not his
mod beatstatus; // the verdict on periodic work, from what lies in Redis
mod chaos; // random work and random kills, and no difference at the end
mod cluster; // each node its own keys, all together all of them; slots that move
mod docs; // README, redis.conf and contrib name what there is, and all of it
mod enforcement; // which TTL a written result has
mod exporter; // the script for redis_exporter, as each server runs it
mod extremes; // sizes and numbers nobody sane would reach, full disks, failing saves
mod faults; // panics of ours: what they end, and what not
mod findings; // what is wrong, what helps, and that it does
mod fixttl; // what gets a TTL, what is deleted, what is left
mod hostile; // bytes that are no text, odd values, wrong words
mod keys; // SCAN with filters: what each call shows and what a whole round does
mod lessons; // faults that others have had and that could be ours
mod lifecycle; // unloaded, reloaded, saved and rewritten in the middle of work
mod load; // loads, unloads, settings, refused settings
mod looks; // looks at periodic work that take slices, and whoever waits for one
mod observe; // what the traffic of queues shows, and the hash that remembers it
mod orphans; // what Celery left behind: found, purged, put back
mod plus; // celery-redis-plus: what it writes is left alone, what it leaves is purged
mod replication; // what replicas and the append-only file get; restarts, pauses, unloads
mod scan; // what is counted, measured and found
mod sentinel; // a failover by Sentinel
mod stats; // flat numbers for monitors, what is published, how commands are documented
mod sweeps; // sweeps by themselves, several at once, their list, their rights
mod topology; // several replicas, however they were synced; roles that change
mod trigger; // a task published from inside, and what became of it
mod unlucky; // clocks that are set, disks that are slow, forks that fail
mod upgrade; // an older module replaced by the new one, and back
