//! What the evidence adds up to: one verdict, one part per link of the chain,
//! and every fault that was seen, worst first.

use super::evidence::Hold;
use super::finding::Finding;

/// The one word that answers "does periodic work happen?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Beat is alive and no link is seen broken.
    Healthy,
    /// Beat published before and stopped.
    BeatSilent,
    /// Two beats publish the same tasks.
    BeatDuplicate,
    /// Beats come and go; long intervals never fire.
    BeatFlapping,
    /// Messages lie in a queue that nobody reads.
    QueueNotConsumed,
    /// Work waits and no worker is there.
    WorkersAbsent,
    /// The newest run of a periodic task failed.
    TasksFailing,
    /// Messages were taken long ago and neither finished nor put back.
    UnackedStuck,
    /// The evidence allows no answer.
    Unknown,
}

impl Verdict {
    /// The word in the reply.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::BeatSilent => "beat_silent",
            Self::BeatDuplicate => "beat_duplicate",
            Self::BeatFlapping => "beat_flapping",
            Self::QueueNotConsumed => "queue_not_consumed",
            Self::WorkersAbsent => "workers_absent",
            Self::TasksFailing => "tasks_failing",
            Self::UnackedStuck => "unacked_stuck",
            Self::Unknown => "unknown",
        }
    }

    /// Its number for monitors: 2 and above are faults, the one that is told first
    /// when several hold the highest.
    #[must_use]
    pub const fn code(self) -> i64 {
        match self {
            Self::Healthy => 0,
            Self::Unknown => 1,
            Self::TasksFailing => 2,
            Self::BeatDuplicate => 3,
            Self::BeatFlapping => 4,
            Self::BeatSilent => 5,
            Self::UnackedStuck => 6,
            Self::QueueNotConsumed => 7,
            Self::WorkersAbsent => 8,
        }
    }
}

/// What the publisher (beat) does, as far as it can be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It was there recently enough that nothing is missing.
    Alive,
    /// Something is overdue, but not long enough to call it silent.
    Late,
    /// Something is overdue for so long that it does not publish.
    Silent,
    /// Two publish the same.
    Duplicate,
    /// Publishers keep changing.
    Flapping,
    /// Not known.
    #[default]
    Unknown,
}

impl State {
    /// The word in the reply.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Late => "late",
            Self::Silent => "silent",
            Self::Duplicate => "duplicate",
            Self::Flapping => "flapping",
            Self::Unknown => "unknown",
        }
    }

    /// Its number for monitors: 3 and above are faults.
    #[must_use]
    pub const fn code(self) -> i64 {
        match self {
            Self::Alive => 0,
            Self::Late => 1,
            Self::Unknown => 2,
            Self::Duplicate => 3,
            Self::Flapping => 4,
            Self::Silent => 5,
        }
    }
}

/// How sure the publisher's state is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// The state is unknown.
    #[default]
    None,
    /// Likely; another explanation exists.
    Inferred,
    /// A stored fact shows it.
    Proven,
}

impl Certainty {
    /// The word in the reply.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Inferred => "inferred",
            Self::Proven => "proven",
        }
    }
}

/// What kind of sign the publisher's state rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Headers that only beat sets.
    BeatHeader,
    /// RedBeat's lock and schedule.
    RedBeat,
    /// A task named in `hygiene.expected-tasks`.
    ExpectedTask,
    /// A rhythm seen in the traffic.
    LearnedRhythm,
    /// No sign.
    #[default]
    None,
}

impl Source {
    /// How much it says, as the source of an unknown state.
    #[must_use]
    pub const fn rank(self) -> u8 {
        match self {
            Self::BeatHeader => 4,
            Self::ExpectedTask => 3,
            Self::RedBeat => 2,
            Self::LearnedRhythm => 1,
            Self::None => 0,
        }
    }

    /// The words in the reply.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::BeatHeader => "beat header",
            Self::RedBeat => "RedBeat",
            Self::ExpectedTask => "expected task",
            Self::LearnedRhythm => "learned rhythm",
            Self::None => "none",
        }
    }
}

/// The first link: beat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publisher {
    /// What it does.
    pub state: State,
    /// How sure that is.
    pub certainty: Certainty,
    /// Latest moment (Unix ms) a beat is known to have been there; it may have
    /// been there later.
    pub last_seen_ms: Option<i64>,
    /// Origins (`gen<pid>@<host>`) of messages that are beat's.
    pub origins: Vec<String>,
    /// What the state rests on; for an unknown state, what was seen at all.
    pub source: Source,
}

/// One periodic task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Task name.
    pub name: String,
    /// How often it should come, in ms.
    pub interval_ms: Option<i64>,
    /// Newest known publish (Unix ms).
    pub last_published_ms: Option<i64>,
    /// Newest known end (Unix ms).
    pub last_finished_ms: Option<i64>,
    /// Status of that end.
    pub last_status: Option<String>,
    /// The type of the exception it failed with; never its text.
    pub last_exception: Option<String>,
    /// Whether it should have been published and was not.
    pub overdue: Option<bool>,
}

/// One work queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueuePart {
    /// Base name.
    pub name: Vec<u8>,
    /// How many bytes of `name` are the broker's key prefix.
    pub prefix: usize,
    /// Logical database.
    pub db: u32,
    /// Messages, priorities summed.
    pub length: u64,
    /// Priority and length of each list.
    pub per_priority: Vec<(u8, u64)>,
    /// Age of the oldest message, in ms.
    pub oldest_message_ms: Option<i64>,
    /// Messages that came in per minute.
    pub in_per_min: Option<u64>,
    /// Messages that were taken out per minute.
    pub out_per_min: Option<u64>,
    /// Whether somebody reads it.
    pub consumed: Option<bool>,
    /// Named in `hygiene.maintenance-queues`.
    pub maintenance: bool,
}

impl QueuePart {
    /// Its name to Celery, as in `-Q`.
    #[must_use]
    pub fn celery_name(&self) -> &[u8] {
        self.name.get(self.prefix..).unwrap_or(&self.name)
    }
}

/// The workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkersPart {
    /// Subscribers of the control channel.
    pub live: Option<u64>,
    /// Names in bindings: has been, not is.
    pub bound: Vec<Vec<u8>>,
    /// Consumers waiting for messages.
    pub blocked_consumers: Option<u64>,
}

/// What was taken and not acknowledged, all prefixes together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnackedPart {
    /// Entries.
    pub count: u64,
    /// Age in ms of the oldest delivery whose `eta` is not ahead.
    pub oldest_ms: Option<i64>,
    /// Entries past the visibility timeout that were not put back.
    pub stuck: u64,
    /// The worst state of a mutex.
    pub mutex: Hold,
    /// Entries beyond the first with the same task id.
    pub duplicates: u64,
    /// Entries that wait for their `eta`.
    pub eta_ahead: u64,
    /// Entries marked as delivered again.
    pub redelivered: u64,
}

/// RedBeat, all prefixes together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedBeatPart {
    /// The worst state of a lock; of several TTLs the shortest.
    pub lock: Hold,
    /// Members of the schedules.
    pub entries: u64,
    /// Enabled entries whose due time passed longer ago than beat may sleep.
    pub overdue: u64,
    /// Members without a readable definition.
    pub without_definition: u64,
}

/// What was learnt by watching messages pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Since when without a break (Unix ms); `None`: nobody watches.
    pub since_ms: Option<i64>,
    /// Who sends, the newest first.
    pub origins: Vec<Origin>,
    /// What each sends, periodic lines first.
    pub rhythms: Vec<Pace>,
}

/// One process that sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Header `origin`.
    pub name: String,
    /// First and newest publish (Unix ms).
    pub first_ms: i64,
    /// Newest publish (Unix ms).
    pub last_ms: i64,
    /// Publishes.
    pub count: u64,
    /// Taken for a beat.
    pub beat: bool,
}

/// What one process sends of one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Header `task`.
    pub task: String,
    /// Header `periodic_task_name`; empty if absent.
    pub entry: String,
    /// Logical database.
    pub db: u32,
    /// The queue's first list.
    pub queue: Vec<u8>,
    /// Header `origin`.
    pub origin: String,
    /// First and newest publish (Unix ms).
    pub first_ms: i64,
    /// Newest publish (Unix ms).
    pub last_ms: i64,
    /// Publishes.
    pub count: u64,
    /// The usual gap in ms, and the longest.
    pub interval_ms: Option<i64>,
    /// The longest gap, in ms.
    pub longest_ms: Option<i64>,
    /// `even`, `clock` (a crontab), or `none`.
    pub rhythm: &'static str,
    /// Carries beat's mark.
    pub marked: bool,
    /// Taken for a beat's.
    pub beat: bool,
}

/// Something to type, in `redis-cli` or in a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// As it is typed.
    pub command: String,
    /// What it does or tells, as a clause.
    pub what_for: String,
}

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// One word.
    pub verdict: Verdict,
    /// One sentence.
    pub reason: String,
    /// Beat.
    pub publisher: Publisher,
    /// Periodic tasks, overdue ones first.
    pub tasks: Vec<Task>,
    /// Queues: maintenance first, then unread ones, then by length.
    pub queues: Vec<QueuePart>,
    /// Workers.
    pub workers: WorkersPart,
    /// Taken, not acknowledged.
    pub unacked: UnackedPart,
    /// `None` if RedBeat is not used.
    pub redbeat: Option<RedBeatPart>,
    /// What was learnt by watching.
    pub watch: Watch,
    /// Everything found, worst first.
    pub findings: Vec<Finding>,
    /// What was seen, a sentence each: the ground the answer stands on.
    pub evidence: Vec<String>,
    /// What to type next, what helps against the worst first.
    pub next: Vec<Step>,
}
