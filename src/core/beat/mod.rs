//! Does periodic work happen, and if not, which link is broken?
//!
//! `Traffic` learns from messages as they pass, `Evidence` holds what a server
//! can show together with what was heard so, `judge` weighs it at a moment,
//! `reply` puts the `Assessment` in the shape of HYGIENE.BEATSTATUS, `doctor` in
//! words. Stock beat
//! leaves no key in Redis, so the rule throughout is: no evidence is `unknown`,
//! and what is inferred is never told as certain.

mod assessment;
mod beats;
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
mod steps;
mod tasks;
mod traffic;
mod unacked;
mod watch;
mod words;

#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod shape;
#[cfg(test)]
mod streams;

pub use assessment::{
    Assessment, Certainty, Origin, Pace, Publisher, QueuePart, RedBeatPart, Source, State, Step,
    Task, UnackedPart, Verdict, Watch, WorkersPart,
};
pub use clients::{client_ids, crowds};
pub use doctor::doctor;
pub use evidence::{
    Crowd, Entry, Evidence, Expected, Finish, Hold, Place, Queue, RedBeat, Refusal, Sighting,
    Unacked, Workers,
};
pub use finding::{Code, Finding, Severity};
pub use judge::judge;
pub use reply::reply;
pub use traffic::{Changes, End, Heard, Hearing, Line, Movement, Rhythm, Tick, Traffic, Voice};
