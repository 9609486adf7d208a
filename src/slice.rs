//! Slices of work on the main thread: how long each may take, and when the next may
//! come.

use std::time::{Duration, Instant};

use crate::core::pace::{Next, Pace};
use crate::server::cpu;
use crate::{settings, stats};

/// A slice that runs, counted if its end is told.
#[derive(Debug)]
pub struct Slice {
    started: Instant,
    cpu_us: u64,
    length: Duration,
}

impl Slice {
    /// One inside a command, of the length that is set.
    #[must_use]
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
    #[must_use]
    pub fn over(&self) -> bool {
        self.started.elapsed() >= self.length
    }

    /// How long it has taken so far, in µs.
    #[must_use]
    pub fn spent_us(&self) -> u64 {
        micros(self.started.elapsed())
    }

    /// How long it took, in µs.
    pub fn end(self) -> u64 {
        let spent_us = self.spent_us();
        stats::slice(spent_us, cpu::thread_us().saturating_sub(self.cpu_us));
        spent_us
    }
}

/// What the main thread is owed between the slices of timers.
#[derive(Debug, Default)]
pub struct Paced {
    pace: Pace,
    /// When the last slice ended.
    ended: Option<Instant>,
}

impl Paced {
    /// With nothing owed for what was before.
    #[must_use]
    pub const fn new(pace: Pace) -> Self {
        Self { pace, ended: None }
    }

    /// From a slice on that has just ended.
    #[must_use]
    pub fn after_a_slice() -> Self {
        Self {
            pace: Pace::default(),
            ended: Some(Instant::now()),
        }
    }

    /// The next slice begins; the event loop has gone round `turns` times since the
    /// last, where that is counted.
    pub fn begin(&mut self, turns: u64) -> Slice {
        let had_us = self.ended.map_or(u64::MAX, |ended| micros(ended.elapsed()));
        self.pace.begin(had_us, turns);
        Slice::of(self.pace.slice_us(&settings::now().settings))
    }

    /// It took so many µs and wrote so many keys; when the next may come.
    pub fn end(&mut self, spent_us: u64, writes: u64) -> Next {
        self.ended = Some(Instant::now());
        self.pace.end(spent_us, writes, &settings::now().settings)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
