//! Beats, as their messages show them: which publishes are a beat's, whether it
//! still speaks, and whether there is one of it.
//!
//! Stock beat says nothing of itself, so what it sends is told by what is known
//! of it: beat's mark, a name in `hygiene.expected-tasks`, or the rhythm, which
//! is never proof. Lines that share an origin are one beat's; so are a line and
//! its like that began in another queue when it ended, and all of a beat and all of
//! the one that began instead of it.

mod groups;
mod kept;
mod pace;
mod senders;
mod turns;

use std::collections::{BTreeMap, HashMap};

use super::assessment::{Certainty, Source, State};
use super::evidence::Evidence;
use super::known::{MAX_SLEEP_MS, SLACK_MS};
use super::traffic::Line;
use super::words::{self, name, span};
pub use kept::Kept;
use senders::Senders;

/// One beat, and those before it.
pub struct Beat<'a> {
    pub lines: Vec<Kept<'a>>,
    pub state: State,
    pub certainty: Certainty,
    pub source: Source,
    pub last_ms: i64,
    /// Those who speak, newest first; the last to speak if nobody does.
    pub origins: Vec<&'a str>,
    /// What shows the state, as a clause.
    pub text: String,
}

/// All beats that were heard.
pub fn beats<'a>(evidence: &'a Evidence, now_ms: i64) -> Vec<Beat<'a>> {
    let Some(since_ms) = evidence.heard.since_ms else {
        return Vec::new();
    };
    let since_ms = since_ms.min(now_ms);
    let mut expected: HashMap<&str, i64> = HashMap::new();
    for task in &evidence.expected {
        expected.entry(&task.task).or_insert(task.interval_ms);
    }
    let interval_ms = |line: &Line| {
        let interval_ms = expected.get(line.task.as_str()).copied();
        interval_ms.filter(|ms| *ms > 0)
    };
    let senders = Senders::new(evidence, interval_ms, since_ms, now_ms);
    let mut ran: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for entry in evidence.redbeat.iter().flat_map(|r| &r.entries) {
        let runs = ran.entry(&entry.task).or_default();
        runs.extend(entry.last_run_at_ms);
    }
    let kept = evidence.heard.lines.iter().filter_map(|line| {
        let mut kept = Kept::new(line, interval_ms(line), &senders)?;
        let sent = || ran.get(line.task.as_str()).is_some_and(|at| kept.sent(at));
        if !kept.is_proof() && sent() {
            kept.source = Source::RedBeat;
        }
        Some(kept)
    });
    let kept = groups::led(kept.collect());
    let ticked = evidence.heard.ticks.iter().map(|tick| tick.last_ms).max();
    groups::succeeded(groups::groups(kept))
        .into_iter()
        .map(|lines| Beat::new(lines, ticked, since_ms, now_ms))
        .collect()
}

impl<'a> Beat<'a> {
    fn new(mut lines: Vec<Kept<'a>>, ticked: Option<i64>, since_ms: i64, now_ms: i64) -> Self {
        let last_ms = lines.iter().map(|k| k.last_ms).max().unwrap_or(0);
        // RedBeat may go on without one of its lines, too.
        let alive_ms = last_ms.max(ticked.unwrap_or(0).min(now_ms));
        // What went on before the watch began counts for that time alone.
        let times = lines.iter().flat_map(|k| &k.voices);
        let times = times.flat_map(|v| v.times_ms.iter().chain([&v.last_ms]));
        let before_ms = times.copied().filter(|at| *at <= since_ms).max();
        for kept in &mut lines {
            let quiet = alive_ms.saturating_sub(kept.last_ms.max(since_ms));
            let quiet = quiet.max(before_ms.unwrap_or(0).saturating_sub(kept.last_ms));
            let since_last = now_ms.saturating_sub(kept.last_ms);
            let usual = kept.pause_ms.or(kept.longest_ms);
            kept.is_due = usual.is_some_and(|usual| since_last > once(usual));
            let quiet = quiet.max(kept.succeeded_ms.map_or(0, |at| now_ms.saturating_sub(at)));
            kept.left = kept.line.left || kept.pause_ms.is_some_and(|pause| quiet > twice(pause));
        }
        lines.sort_by(|a, b| {
            let rank = |k: &Kept<'_>| (k.left, k.pause_ms.unwrap_or(i64::MAX));
            rank(a)
                .cmp(&rank(b))
                .then_with(|| a.line.task.cmp(&b.line.task))
        });
        let certainty = if lines.iter().any(Kept::is_proof) {
            Certainty::Proven
        } else {
            Certainty::Inferred
        };
        let source = [Source::BeatHeader, Source::ExpectedTask, Source::RedBeat]
            .into_iter()
            .find(|source| lines.iter().any(|k| k.source == *source));
        let mut beat = Self {
            lines,
            state: State::Unknown,
            certainty,
            source: source.unwrap_or(Source::LearnedRhythm),
            last_ms,
            origins: Vec::new(),
            text: String::new(),
        };
        beat.listen(since_ms, now_ms);
        if beat.state != State::Silent {
            if let Some(text) = beat.duplicate(now_ms) {
                (beat.state, beat.text) = (State::Duplicate, text);
            } else if let Some(text) = beat.flapping(now_ms) {
                (beat.state, beat.text) = (State::Flapping, text);
            }
        }
        if beat.state == State::Unknown {
            beat.certainty = Certainty::None;
        }
        beat.origins = beat.speaking(now_ms);
        beat
    }

    /// The line whose silence shows first.
    fn fastest(&self) -> Option<&Kept<'a>> {
        self.lines.iter().find(|k| !k.left && k.pause_ms.is_some())
    }

    fn listen(&mut self, since_ms: i64, now_ms: i64) {
        let quiet = now_ms.saturating_sub(self.last_ms).max(0);
        let watched = now_ms.saturating_sub(self.last_ms.max(since_ms)).max(0);
        // What still passes for alive: one pause of the fastest line; without
        // one the longest it ever made, or the longest sleep of beat.
        let pause = self.fastest().and_then(|k| k.pause_ms);
        let goes_on = || self.lines.iter().filter(|k| !k.left);
        let usual = pause.or_else(|| goes_on().filter_map(|k| k.longest_ms).min());
        let lively = usual.map_or(MAX_SLEEP_MS, once);
        let patience = usual.map_or(MAX_SLEEP_MS, twice);
        self.state = if pause.is_some() && watched > patience {
            State::Silent
        } else if quiet <= lively || (quiet <= patience && watched < quiet) {
            State::Alive
        } else if watched > lively
            && quiet <= patience
            && goes_on().any(|k| k.interval_ms.is_some())
        {
            State::Late
        } else {
            State::Unknown
        };
        self.text = self.sentence(quiet, watched, now_ms);
    }

    fn sentence(&self, quiet: i64, watched: i64, now_ms: i64) -> String {
        let Some(kept) = self.fastest().or(self.lines.first()) else {
            return String::new();
        };
        let every = match (kept.interval_ms, kept.pause_ms) {
            (Some(every), Some(pause)) if pause > every.saturating_add(every / 4) => {
                format!(
                    " every {} with pauses of up to {}",
                    words::every(every),
                    words::every(pause)
                )
            }
            (Some(every), _) => format!(" every {}", words::every(every)),
            (None, _) => String::new(),
        };
        let newest = self.lines.iter().max_by_key(|k| k.last_ms);
        let what = match kept.source {
            Source::BeatHeader => "marked by beat",
            Source::ExpectedTask => "expected",
            Source::RedBeat => "run by RedBeat",
            _ => "by its rhythm beat's",
        };
        let mut text = format!("{} ({what}) was published", name(kept.line.task.as_bytes()));
        if kept.source == Source::ExpectedTask {
            text = format!(
                "{} is expected{every} and was published",
                name(kept.line.task.as_bytes())
            );
        } else {
            text += &every;
        }
        let own = now_ms.saturating_sub(kept.last_ms).max(0);
        match newest {
            Some(newest) if newest.last_ms > kept.last_ms => {
                text += &format!(
                    ", last {} ago, and the newest of its beat's, {}, {} ago",
                    span(own),
                    name(newest.line.task.as_bytes()),
                    span(quiet)
                );
            }
            _ => text += &format!(", last {} ago", span(own)),
        }
        if watched < quiet {
            text += &format!("; the watch began {} ago", span(watched));
        }
        text
    }
}

/// Two of what is usual and some seconds.
fn twice(pause_ms: i64) -> i64 {
    pause_ms.saturating_mul(2).saturating_add(SLACK_MS)
}

/// One of it and some more, for jitter is no lateness.
fn once(pause_ms: i64) -> i64 {
    pause_ms.saturating_add(SLACK_MS.max(pause_ms / 4))
}
