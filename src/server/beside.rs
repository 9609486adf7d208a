//! Work beside the main thread: what needs nothing of the server's and may take longer
//! than a slice.
//!
//! It is values in and a value out. What it allocates comes from the server's allocator,
//! which its own background threads use as well; a child that saves has no such thread
//! and waits for none.

use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};

use super::guard::{Entry, guard};

/// `PRIO_PROCESS` of Linux (include/uapi/linux/resource.h): of 0 it is the calling thread.
const PROCESS: i32 = 0;

/// Where there is one processor the main thread has nine tenths of it meanwhile
/// (sched(7): each step is a quarter more or less), and where all are busy with others
/// somebody still gets an answer.
const NICE: i32 = 10;

unsafe extern "C" {
    fn setpriority(which: i32, who: u32, priority: i32) -> i32;
}

/// Threads that may not have ended.
static THREADS: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// What will be found. Whoever wants it no longer drops it; the work goes on to its end.
pub struct Beside<T>(Receiver<Option<T>>);

/// How far it is.
pub enum Found<T> {
    /// The work goes on.
    NotYet(Beside<T>),
    /// What was found.
    Value(T),
    /// It panicked, which is in the log and counted.
    Failed,
}

impl<T: Send + 'static> Beside<T> {
    /// Begins the work.
    ///
    /// # Errors
    /// The system grants no thread.
    pub fn begin(work: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let (found, finds) = sync_channel(1);
        let thread = thread::Builder::new().name("hygiene".to_owned());
        let thread = thread.spawn(move || {
            give_way();
            // Nobody waits for it any more, perhaps.
            let _ = found.send(guard(Entry::Beside, work));
        })?;
        join(|thread| thread.is_finished(), Some(thread));
        Ok(Self(finds))
    }

    /// Looks whether it is done, and does not wait.
    pub fn found(self) -> Found<T> {
        match self.0.try_recv() {
            Ok(Some(value)) => Found::Value(value),
            Err(TryRecvError::Empty) => Found::NotYet(self),
            Ok(None) | Err(TryRecvError::Disconnected) => Found::Failed,
        }
    }
}

/// Waits for the end of all that goes on, before the library goes: some ms.
pub fn shut() {
    join(|_| true, None);
}

/// Joins those threads, and adds one.
fn join(those: impl FnMut(&mut JoinHandle<()>) -> bool, more: Option<JoinHandle<()>>) {
    let Ok(mut threads) = THREADS.lock() else {
        return;
    };
    for thread in threads.extract_if(.., those) {
        // It has caught its panic.
        let _ = thread.join();
    }
    threads.extend(more);
}

fn give_way() {
    // SAFETY: takes three numbers; that it is refused changes nothing.
    unsafe {
        setpriority(PROCESS, 0, NICE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn wait<T: Send + 'static>(mut work: Beside<T>) -> Option<T> {
        loop {
            work = match work.found() {
                Found::NotYet(rest) => rest,
                Found::Value(value) => return Some(value),
                Found::Failed => return None,
            };
            thread::yield_now();
        }
    }

    #[test]
    fn work_goes_on_while_nobody_waits_and_is_waited_for_at_the_end() {
        let (go, goes) = channel();
        let (done, is_done) = channel();
        let (ended, ends) = channel();
        let work = Beside::begin(move || {
            goes.recv().expect("the test goes on");
            done.send(()).expect("the test goes on");
            7
        });
        let Found::NotYet(work) = work.expect("a thread").found() else {
            panic!("it has nothing to go on with yet");
        };
        go.send(()).expect("it waits");
        assert_eq!(wait(work), Some(7));
        is_done.try_recv().expect("done before it was found");
        let forgotten = Beside::begin(move || {
            thread::sleep(std::time::Duration::from_millis(20));
            ended.send(()).expect("the test goes on");
        });
        drop(forgotten);
        shut();
        // Of other tests there may be threads by now.
        ends.try_recv().expect("it was waited for");
    }

    #[test]
    fn a_panic_is_its_end_and_nobody_elses() {
        let work = Beside::begin(|| panic!("a fault of ours"));
        assert_eq!(wait::<u8>(work.expect("a thread")), None);
    }
}
