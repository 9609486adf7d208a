//! Whether one who sends keeps beat's pace, alone and among many who do not.

use super::super::traffic::{Line, Rhythm, Voice};
use super::senders::Senders;
use super::twice;

/// Gaps a marked line needs.
pub const ENOUGH_MARKED_GAPS: u32 = 3;

/// Gaps that one in a crowd needs to be told from it, all of them alike, and one
/// may be odd for each so many more: what looks even for four gaps by accident is
/// not rare among many processes.
const ENOUGH_CROWDED_GAPS: u32 = 6;
const ODD_ONE_IN_GAPS: u32 = 4;

/// So many of beat's newest 16 publishes that others interrupt are a crowd; a
/// second beat is none once it is known.
const CROWD: u32 = 4;

/// How late one may be who is not known yet, in ms, or a quarter of the interval.
const NEWCOMER_SLACK_MS: i64 = 2_000;

/// What is known of the voices that keep a rhythm.
pub struct Pace {
    interval_ms: i64,
    ended_ms: i64,
    /// This line showed the pace; else another of its beat's tells what is missed.
    shown: bool,
    crowded: bool,
}

impl Pace {
    pub fn of(voices: &[&Voice], expected_ms: Option<i64>, crowded: bool) -> Option<Self> {
        let newest = voices.iter().max_by_key(|v| v.last_ms)?;
        let interval_ms = expected_ms.or(newest.rhythm.map(|r| r.interval_ms))?;
        Some(Self {
            interval_ms,
            shown: voices.iter().any(|v| keeps(v, interval_ms, false)),
            ended_ms: newest.last_ms,
            crowded,
        })
    }

    /// Whether a voice may be the beat that took over: it began when that one
    /// ended, or keeps its pace, and nothing it did so far tells it from a beat.
    pub fn goes_on(&self, voice: &Voice, before: &[&Voice], senders: &Senders<'_>) -> bool {
        let every = self.interval_ms;
        let took_over = voice.known_ms > self.ended_ms.saturating_sub(every);
        if !self.crowded {
            return !strays(voice) && (took_over || paced(voice, every));
        }
        if !senders.trusts(voice, before) {
            return false;
        }
        // A beat that starts again does so before silence is told, and comes
        // again when it should.
        let missed_ms = self.ended_ms.max(senders.since_ms);
        let in_time = voice.first_ms <= missed_ms.saturating_add(twice(every));
        let came_again = senders.now_ms.saturating_sub(voice.last_ms) <= soon(every);
        let punctual = |r: Rhythm| r.longest_ms <= soon(every);
        let unproven = voice
            .rhythm
            .is_none_or(|r| punctual(r) && paced(voice, every));
        keeps(voice, every, true)
            || (self.shown && !strays(voice) && took_over && in_time && unproven && came_again)
    }
}

/// How soon one who is not known yet must come again to pass for beat.
fn soon(interval_ms: i64) -> i64 {
    interval_ms.saturating_add((interval_ms / 4).max(NEWCOMER_SLACK_MS))
}

/// Whether others send this line without a rhythm: one who strays, or who spoke
/// while a beat did, and not in its pace. Of a server with many processes each is
/// heard too seldom to stray.
pub fn is_crowded(line: &Line, beats: &[&Voice], expected_ms: Option<i64>) -> bool {
    let beside = |voice: &Voice| {
        beats.iter().any(|beat| {
            let every = expected_ms.or(beat.rhythm.map(|r| r.interval_ms));
            every.is_some_and(|every| {
                let long_since = beat.last_ms.saturating_sub(soon(every));
                voice.origin != beat.origin
                    && !paced(voice, every)
                    && voice.known_ms < long_since
                    && voice.last_ms > beat.first_ms
            })
        })
    };
    line.crowd >= CROWD || line.voices.iter().any(|v| strays(v) || beside(v))
}

/// Whether a voice comes about this often.
pub fn paced(voice: &Voice, interval_ms: i64) -> bool {
    let near = |r: Rhythm| r.interval_ms.abs_diff(interval_ms) <= interval_ms.unsigned_abs() / 4;
    voice.rhythm.is_some_and(near)
}

/// Whether a voice has shown that it comes this often; in a crowd of others it
/// takes more to show that, for of many somebody does by accident.
pub fn keeps(voice: &Voice, interval_ms: i64, crowded: bool) -> bool {
    let shown = |r: Rhythm| {
        if !crowded {
            return r.gaps >= ENOUGH_MARKED_GAPS;
        }
        let odd = (r.gaps / ODD_ONE_IN_GAPS).saturating_sub(1);
        r.gaps >= ENOUGH_CROWDED_GAPS && r.gaps.saturating_sub(r.alike) <= odd
    };
    voice.rhythm.is_some_and(shown) && paced(voice, interval_ms) && !strays(voice)
}

/// Whether a voice had time to show a rhythm and has none: less than two thirds
/// of its gaps are alike. The first after a start may be odd.
pub fn strays(voice: &Voice) -> bool {
    let odd = |r: Rhythm| r.gaps >= 3 && r.alike.saturating_mul(3) < r.gaps.saturating_mul(2);
    voice.rhythm.is_some_and(|r| odd(r) && !r.clock)
}
