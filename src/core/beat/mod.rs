//! Does periodic work happen, and if not, which link is broken?
//!
//! `Evidence` holds what a server can show, `judge` weighs it at a moment,
//! `reply` puts the `Assessment` in the shape of HYGIENE.BEATSTATUS, `doctor` in
//! words. Stock beat
//! leaves no key in Redis, so the rule throughout is: no evidence is `unknown`,
//! and what is inferred is never told as certain.

mod assessment;
mod clients;
mod doctor;
mod evidence;
mod finding;
mod judge;
mod known;
mod publisher;
mod queues;
mod redbeat;
mod reply;
mod tasks;
mod unacked;
mod words;

#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod shape;

pub use assessment::{
    Assessment, Certainty, Publisher, QueuePart, RedBeatPart, Source, State, Task, UnackedPart,
    Verdict, WorkersPart,
};
pub use clients::crowds;
pub use doctor::doctor;
pub use evidence::{
    Crowd, Entry, Evidence, Expected, Finish, Hold, Place, Queue, RedBeat, Sighting, Unacked,
    Workers,
};
pub use finding::{Code, Finding, Severity};
pub use judge::judge;
pub use reply::reply;
