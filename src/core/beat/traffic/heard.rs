//! What was learnt by watching, as plain values for `judge`.

use super::rhythm::Rhythm;

/// Everything that was heard, up to one moment. The default: nobody watches.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Since when there was no break in the watch (Unix ms); `None`: nobody
    /// watches.
    pub since_ms: Option<i64>,
    /// Tasks, each as it comes to one queue under one periodic name.
    pub lines: Vec<Line>,
    /// What moved in queues.
    pub flows: Vec<Movement>,
    /// RedBeat's locks that were renewed.
    pub ticks: Vec<Tick>,
}

/// One task as it comes to one queue.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// Header `task`.
    pub task: String,
    /// Header `periodic_task_name`.
    pub entry: Option<String>,
    /// Logical database.
    pub db: u32,
    /// The queue's first list.
    pub queue: Vec<u8>,
    /// Who sends it.
    pub voices: Vec<Voice>,
    /// All of them as one, without a name: beat's marked messages, or any while
    /// none is marked. Of the others a gap counts only between two publishes of
    /// one origin.
    pub whole: Voice,
    /// Before so many of beat's newest 16 somebody else's came, who keeps no rhythm.
    pub crowd: u32,
    /// Its beat was heard to go on without it.
    pub left: bool,
    /// Its newest end.
    pub end: Option<End>,
}

/// What one origin sends of one task.
#[derive(Clone, Debug, Default)]
pub struct Voice {
    /// Header `origin`; empty if absent.
    pub origin: String,
    /// First publish, of any task, that is still known (Unix ms).
    pub known_ms: i64,
    /// First publish of this one (Unix ms).
    pub first_ms: i64,
    /// Newest publish (Unix ms).
    pub last_ms: i64,
    /// Publishes in all.
    pub count: u64,
    /// It carries beat's mark.
    pub marked: bool,
    /// The newest publishes (Unix ms), oldest first.
    pub times_ms: Vec<i64>,
    /// What they show; `None` before there is a gap.
    pub rhythm: Option<Rhythm>,
    /// Minutes of the hour (UTC) at which it came lately, bit 0 for the full hour;
    /// only moments at which a minute began count.
    pub minutes: u64,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// When its result was stored (Unix ms).
    pub at_ms: i64,
    /// `SUCCESS`, `FAILURE` or `REVOKED`.
    pub status: String,
    /// The exception's type, never its text.
    pub exc_type: Option<String>,
    /// The name of its result, unless that is very long or no text: who may not read it
    /// is not told how it ended.
    pub key: Option<String>,
}

/// What moved in one queue.
#[derive(Clone, Debug, Default)]
pub struct Movement {
    /// Logical database.
    pub db: u32,
    /// The queue's first list.
    pub queue: Vec<u8>,
    /// Since when pops of it are told, too (Unix ms).
    pub since_ms: i64,
    /// Messages in and out per minute; `None` while the watch is young.
    pub per_minute: Option<(u64, u64)>,
    /// The newest push (Unix ms) since watching began.
    pub last_in_ms: Option<i64>,
    /// The newest pop (Unix ms) since watching began.
    pub last_out_ms: Option<i64>,
    /// The first push that no pop followed (Unix ms).
    pub waiting_since_ms: Option<i64>,
    /// The step behind which messages of priority 0 lie, if it is another than 0:
    /// where `priority_steps` has no 0, kombu takes its last (`Channel.priority`,
    /// kombu 4.6 to 5.7, transport/redis.py).
    pub lowest: Option<u8>,
}

/// A lock of RedBeat's that was renewed.
#[derive(Clone, Debug, Default)]
pub struct Tick {
    /// Logical database.
    pub db: u32,
    /// Name of the lock.
    pub lock_key: Vec<u8>,
    /// `redbeat_lock_timeout` as far as it showed, in ms: the longest TTL seen.
    pub timeout_ms: i64,
    /// The newest renewal (Unix ms).
    pub last_ms: i64,
}
