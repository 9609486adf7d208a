//! A wall clock that somebody sets.
//!
//! How long a message has been taken or a list has not been read is told by the wall
//! clock alone. When that is set forward by a day, all of it is a day older at once.

/// A difference up to this is a clock that is brought into step slowly, in ms.
const SLEW_MS: i64 = 1_000;

/// How far the clock was set forward, as far as that is not lived down yet: after as
/// much time has really passed, ages are what they seem again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    wall_ms: Option<i64>,
    ahead_ms: i64,
}

impl Steps {
    /// Nothing was seen yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            wall_ms: None,
            ahead_ms: 0,
        }
    }

    /// It is `wall_ms` (Unix ms) now, and `passed_ms` have passed since the last call by
    /// a clock that nobody can set. By how much the wall clock was set meanwhile, in ms.
    pub fn seen(&mut self, wall_ms: i64, passed_ms: i64) -> i64 {
        let before = self.wall_ms.replace(wall_ms);
        self.ahead_ms = self.ahead_ms.saturating_sub(passed_ms).max(0);
        let Some(before) = before else {
            return 0;
        };
        let step = wall_ms.saturating_sub(before).saturating_sub(passed_ms);
        if (-SLEW_MS..=SLEW_MS).contains(&step) {
            return 0;
        }
        self.ahead_ms = self.ahead_ms.saturating_add(step).max(0);
        step
    }

    /// By how much ages may seem longer than they are, in ms.
    #[must_use]
    pub const fn ahead_ms(&self) -> i64 {
        self.ahead_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: i64 = 1_790_000_000_000;
    const DAY: i64 = 86_400_000;

    #[test]
    fn a_clock_set_forward_is_trusted_again_after_as_much_time() {
        let mut steps = Steps::new();
        assert_eq!(steps.seen(T0, 0), 0);
        assert_eq!(steps.seen(T0 + 100, 100), 0);
        assert_eq!(steps.seen(T0 + 200 + DAY, 100), DAY);
        assert_eq!(steps.ahead_ms(), DAY);
        assert_eq!(steps.seen(T0 + 200 + 2 * DAY - 1, DAY - 1), 0);
        assert_eq!(steps.ahead_ms(), 1);
        assert_eq!(steps.seen(T0 + 300 + 2 * DAY, 101), 0);
        assert_eq!(steps.ahead_ms(), 0);
    }

    #[test]
    fn a_clock_set_forward_and_back_is_as_if_nothing_was() {
        let mut steps = Steps::new();
        steps.seen(T0, 0);
        steps.seen(T0 + DAY, 0);
        assert_eq!(steps.seen(T0 + 10, 10), -DAY);
        assert_eq!(steps.ahead_ms(), 0);
        // One that is set back makes nothing older.
        assert_eq!(steps.seen(T0 - DAY, 0), -DAY - 10);
        assert_eq!(steps.ahead_ms(), 0);
    }

    #[test]
    fn a_server_that_stood_still_and_a_clock_that_is_slewed_are_no_steps() {
        let mut steps = Steps::new();
        steps.seen(T0, 0);
        assert_eq!(steps.seen(T0 + DAY, DAY), 0);
        for n in 1..=100 {
            assert_eq!(steps.seen(T0 + DAY + n * 150, 100), 0);
        }
        assert_eq!(steps.ahead_ms(), 0);
    }

    #[test]
    fn no_time_overflows() {
        let mut steps = Steps::new();
        for (wall, passed) in [
            (i64::MIN, 0),
            (i64::MAX, i64::MAX),
            (i64::MAX, i64::MIN),
            (0, 0),
        ] {
            steps.seen(wall, passed);
            assert!(steps.ahead_ms() >= 0);
        }
    }
}
