//! One thing that is wrong or worth knowing, and how much it weighs.

use super::assessment::Verdict;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Will hurt, or hurts one task.
    Warning,
    /// Periodic work does not happen.
    Critical,
}

impl Severity {
    /// The word in the reply.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What was found, in the order of what to mend first.
///
/// A dead worker or an unread queue comes before a silent beat: while nobody
/// works, whether beat publishes changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The server itself takes no writes.
    WritesRefused,
    /// Work waits and no worker is connected.
    WorkersAbsent,
    /// A queue that holds periodic work is not read.
    QueueNotConsumed,
    /// Taken messages are past the visibility timeout and not put back.
    UnackedStuck,
    /// Beat does not publish any more.
    BeatSilent,
    /// Beats come and go; what has a long interval is never sent.
    BeatFlapping,
    /// Two beats publish the same.
    BeatDuplicate,
    /// The newest run of a periodic task failed.
    TasksFailing,
    /// Something is overdue, not yet for long.
    BeatLate,
    /// Nobody publishes a task that the operator expects.
    ExpectedTaskMissing,
    /// A scheduled entry is long overdue though beat is alive.
    EntryOverdue,
    /// Periodic messages pile up; whether somebody reads them is not known.
    QueueBacklog,
    /// No worker is connected, though nothing waits yet.
    NoWorkerSeen,
    /// The restore mutex never expires.
    MutexWithoutTtl,
    /// A scheduled RedBeat entry has no definition.
    EntryWithoutDefinition,
    /// RedBeat's lock never expires.
    LockWithoutTtl,
    /// Taken messages have no index, so they cannot be put back.
    UnackedWithoutIndex,
    /// Messages lie in a queue nobody reads; nothing periodic is among them.
    QueueUnread,
    /// Beat goes on without a task that it used to publish.
    TaskOverdue,
    /// The same task id was delivered more than once.
    DuplicateDeliveries,
    /// Stored times lie in the future.
    ClockSkew,
}

impl Code {
    /// The word in the reply.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::WritesRefused => "writes_refused",
            Self::WorkersAbsent => "workers_absent",
            Self::QueueNotConsumed => "queue_not_consumed",
            Self::UnackedStuck => "unacked_stuck",
            Self::BeatSilent => "beat_silent",
            Self::BeatFlapping => "beat_flapping",
            Self::BeatDuplicate => "beat_duplicate",
            Self::TasksFailing => "tasks_failing",
            Self::BeatLate => "beat_late",
            Self::ExpectedTaskMissing => "expected_task_missing",
            Self::EntryOverdue => "entry_overdue",
            Self::QueueBacklog => "queue_backlog",
            Self::NoWorkerSeen => "no_worker_seen",
            Self::MutexWithoutTtl => "mutex_without_ttl",
            Self::EntryWithoutDefinition => "entry_without_definition",
            Self::LockWithoutTtl => "lock_without_ttl",
            Self::UnackedWithoutIndex => "unacked_without_index",
            Self::QueueUnread => "queue_unread",
            Self::TaskOverdue => "task_overdue",
            Self::DuplicateDeliveries => "duplicate_deliveries",
            Self::ClockSkew => "clock_skew",
        }
    }

    /// The verdict this leads to when nothing worse was found; `None` where the
    /// contract has no word for it.
    #[must_use]
    pub const fn verdict(self) -> Option<Verdict> {
        match self {
            Self::WorkersAbsent => Some(Verdict::WorkersAbsent),
            Self::QueueNotConsumed => Some(Verdict::QueueNotConsumed),
            Self::UnackedStuck => Some(Verdict::UnackedStuck),
            Self::BeatSilent => Some(Verdict::BeatSilent),
            Self::BeatFlapping => Some(Verdict::BeatFlapping),
            Self::BeatDuplicate => Some(Verdict::BeatDuplicate),
            Self::TasksFailing => Some(Verdict::TasksFailing),
            _ => None,
        }
    }

    /// How bad it is.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::WritesRefused
            | Self::WorkersAbsent
            | Self::QueueNotConsumed
            | Self::UnackedStuck
            | Self::BeatSilent
            | Self::BeatFlapping => Severity::Critical,
            Self::TaskOverdue | Self::DuplicateDeliveries | Self::ClockSkew => Severity::Info,
            _ => Severity::Warning,
        }
    }

    /// Whether it leaves open if periodic work happens, so that nobody may say
    /// `healthy` even though no verdict follows from it.
    #[must_use]
    pub const fn is_doubt(self) -> bool {
        matches!(
            self,
            Self::WritesRefused
                | Self::ExpectedTaskMissing
                | Self::EntryOverdue
                | Self::QueueBacklog
                | Self::NoWorkerSeen
        )
    }
}

/// One thing that is wrong or worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub code: Code,
    /// One sentence with names and times, and what shows it.
    pub detail: String,
    /// What to do, in one sentence.
    pub advice: String,
}
