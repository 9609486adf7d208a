//! The time that the main thread has really worked. The difference to the time that has
//! passed is what the machine gave to others.

/// As `struct timespec` of a machine of 64 bits.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// `CLOCK_THREAD_CPUTIME_ID` of Linux (include/uapi/linux/time.h).
const THREAD: i32 = 3;

unsafe extern "C" {
    fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
}

/// Processor time of the calling thread so far, in µs; 0 where the machine does not say.
#[must_use]
pub fn thread_us() -> u64 {
    let mut time = Timespec {
        seconds: 0,
        nanoseconds: 0,
    };
    // SAFETY: the place is ours, and large enough for what is written there.
    let failed = unsafe { clock_gettime(THREAD, &raw mut time) } != 0;
    if failed {
        return 0;
    }
    let us = time.seconds.saturating_mul(1_000_000) + time.nanoseconds / 1_000;
    u64::try_from(us).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    #[test]
    fn work_takes_processor_time_and_sleep_takes_none() {
        let before = thread_us();
        std::thread::sleep(Duration::from_millis(30));
        let slept = thread_us() - before;
        assert!(slept < 20_000, "{slept} us");
        let started = Instant::now();
        let mut n = 0_u64;
        while started.elapsed() < Duration::from_secs(20) && thread_us() - before < slept + 20_000 {
            n = black_box(n.wrapping_add(1));
        }
        assert!(thread_us() - before >= slept + 20_000, "{n} rounds");
    }
}
