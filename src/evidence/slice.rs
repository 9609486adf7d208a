//! Slices of looks: how long each may take, and when the next may come.

use std::time::{Duration, Instant};

use crate::core::pace::{Next, Pace};
use crate::server::cpu;
use crate::{settings, stats};

/// A slice that runs, counted when it ends.
pub struct Slice {
    started: Instant,
    cpu_us: u64,
    length: Duration,
}

impl Slice {
    /// One inside a command, of the length that is set.
    pub fn begin() -> Self {
        Self::of(settings::now().settings.slice_us)
    }

    fn of(slice_us: u64) -> Self {
        Self {
            started: Instant::now(),
            cpu_us: cpu::thread_us(),
            length: Duration::from_micros(slice_us),
        }
    }

    /// Whether it has taken as long as it may.
    pub fn over(&self) -> bool {
        self.started.elapsed() >= self.length
    }

    /// How long it took, in µs.
    pub fn end(self) -> u64 {
        let spent_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        stats::slice(spent_us, cpu::thread_us().saturating_sub(self.cpu_us));
        spent_us
    }
}

/// What the main thread is owed between the slices of timers.
#[derive(Default)]
pub struct Paced {
    pace: Pace,
    /// When the last slice ended.
    ended: Option<Instant>,
}

impl Paced {
    /// From a slice on that has just ended.
    pub fn new() -> Self {
        Self {
            pace: Pace::default(),
            ended: Some(Instant::now()),
        }
    }

    /// The next slice begins.
    pub fn begin(&mut self) -> Slice {
        let had = self.ended.map_or(Duration::MAX, |ended| ended.elapsed());
        let had_us = u64::try_from(had.as_micros()).unwrap_or(u64::MAX);
        self.pace.begin(had_us, 0);
        Slice::of(self.pace.slice_us(&settings::now().settings))
    }

    /// It has ended and took so many µs; in how many ms the next may come.
    pub fn end(&mut self, spent_us: u64) -> u64 {
        self.ended = Some(Instant::now());
        match self.pace.end(spent_us, 0, &settings::now().settings) {
            Next::Turn => 1,
            Next::Ms(ms) => ms,
        }
    }
}
