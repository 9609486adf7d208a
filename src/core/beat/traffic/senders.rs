//! Who was heard, in whatever task, and since when.
//!
//! Of each task only a few origins are kept, fewer than a web server has
//! processes. Whoever was there before beat stopped is no beat that starts
//! again, so that is remembered for longer.

use std::hash::{BuildHasher, RandomState};

use super::recent::Recent;

/// Sets of four: the newest 4,096 or so origins, in 96 KB.
const SETS: usize = 1_024;

/// What is known of an origin.
#[derive(Clone, Copy, Debug, Default)]
struct Sender {
    first_ms: i64,
    /// It was marked or kept a rhythm, in some task.
    beats: bool,
}

/// Origins that were heard, by their hashes.
#[derive(Clone, Debug, Default)]
pub struct Senders {
    hasher: RandomState,
    known: Recent<Sender, SETS>,
}

impl Senders {
    /// By what an origin is known here.
    pub fn id(&self, origin: &str) -> u64 {
        self.hasher.hash_one(origin)
    }

    /// Notes that this one spoke, or had spoken.
    pub fn heard(&mut self, id: u64, at_ms: i64) {
        let known = self.known.get(id).unwrap_or(Sender {
            first_ms: at_ms,
            beats: false,
        });
        let first_ms = known.first_ms.min(at_ms);
        self.known.put(id, Sender { first_ms, ..known });
    }

    /// Notes that it is, or looks like, a beat.
    pub fn beats(&mut self, id: u64, at_ms: i64) {
        if !self.is_beat(id) {
            let first_ms = self.first_ms(id).unwrap_or(at_ms);
            let beats = true;
            self.known.put(id, Sender { first_ms, beats });
        }
    }

    /// When it was heard first, if it is still known.
    pub fn first_ms(&self, id: u64) -> Option<i64> {
        self.known.get(id).map(|sender| sender.first_ms)
    }

    /// Whether it is, or looked like, a beat.
    pub fn is_beat(&self, id: u64) -> bool {
        self.known.get(id).is_some_and(|sender| sender.beats)
    }

    /// The clock went back by so much.
    pub fn step_back(&mut self, by_ms: i64) {
        for sender in self.known.values_mut() {
            sender.first_ms = sender.first_ms.saturating_sub(by_ms);
        }
    }
}
