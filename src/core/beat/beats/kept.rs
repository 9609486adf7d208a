//! One task of a beat: whose messages of it are beat's, and how long it may pause.

use std::collections::BTreeSet;

use super::super::assessment::Source;
use super::super::traffic::{Line, Rhythm, Voice, bit, is_steady, minute_of};
use super::once;
use super::pace::{ENOUGH_MARKED_GAPS, Pace, is_crowded, keeps, paced, strays};
use super::senders::Senders;

/// Gaps an unmarked line needs before its silence means anything; of short
/// intervals more, for what people do can look even for a moment.
const ENOUGH_GAPS: u32 = 8;
const ENOUGH_SHORT_GAPS: u32 = 10;
const SHORT_MS: i64 = 5_000;

/// A crontab that was known for this long has shown its weekends.
const WEEK_MS: i64 = 8 * 86_400_000;

/// The minutes of a crontab are known once they came round, and once more.
const MINUTES_KNOWN_MS: i64 = 2 * HOUR_MS;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;

/// RedBeat notes an entry's run just before it sends the message, by its own clock.
const RUN_MS: u64 = 1_000;

/// What was not heard for so long, and for ten intervals, is history.
const HISTORY_MS: i64 = 30 * 86_400_000;

/// One line of a beat.
pub struct Kept<'a> {
    pub line: &'a Line,
    /// Voices that are beat's.
    pub voices: Vec<&'a Voice>,
    pub source: Source,
    pub last_ms: i64,
    pub(super) first_ms: i64,
    pub interval_ms: Option<i64>,
    /// The longest pause that is nothing unusual: twice this and some seconds is
    /// silence. `None`: too little is known.
    pub pause_ms: Option<i64>,
    /// The longest pause ever seen, for what still counts as alive.
    pub(super) longest_ms: Option<i64>,
    /// What beat sends by counting from its own start: no crontab, which is due at
    /// its minute however often beat restarts, and seen within one life.
    pub(super) counted: bool,
    /// Others send the same without a rhythm, so that whoever comes new is more
    /// likely one of them.
    pub(super) crowded: bool,
    /// When another beat began instead of the one that sent this.
    pub(super) succeeded_ms: Option<i64>,
    /// Its beat went on without it.
    pub left: bool,
    /// It should have come by now.
    pub is_due: bool,
}

impl<'a> Kept<'a> {
    pub(super) fn new(
        line: &'a Line,
        expected_ms: Option<i64>,
        senders: &Senders<'a>,
    ) -> Option<Self> {
        let now_ms = senders.now_ms;
        let steady = |voice: &&Voice| voice.rhythm.as_ref().is_some_and(is_steady);
        let fits = |voice: &&Voice| senders.rhythmic.contains(voice.origin.as_str());
        let is_keeper = |voice: &&Voice| senders.keepers.contains(voice.origin.as_str());
        let mut voices: Vec<&Voice> = line.voices.iter().filter(|v| v.marked).collect();
        let mut source = Source::BeatHeader;
        let mut crowded = false;
        if voices.is_empty() {
            source = Source::LearnedRhythm;
            voices = line.voices.iter().filter(steady).filter(fits).collect();
            if let Some(expected_ms) = expected_ms
                && !voices.iter().any(|v| paced(v, expected_ms))
            {
                voices = line.voices.iter().filter(is_keeper).collect();
            }
            crowded = is_crowded(line, &voices, expected_ms);
            // In a crowd whose beat is known, a few even gaps are no news of it.
            let proven = |v: &Voice| {
                let every = expected_ms.or(v.rhythm.map(|r| r.interval_ms));
                every.is_some_and(|every| keeps(v, every, true))
            };
            if crowded && voices.iter().any(|v| proven(v)) {
                voices.retain(|v| proven(v));
                let before = voices.clone();
                voices.retain(|v| senders.trusts(v, &before));
            }
            if let Some(pace) = Pace::of(&voices, expected_ms, crowded) {
                let known: BTreeSet<&str> = voices.iter().map(|v| v.origin.as_str()).collect();
                let before = voices.clone();
                let more = line
                    .voices
                    .iter()
                    .filter(|v| pace.goes_on(v, &before, senders));
                let more = more.filter(|v| !crowded || fits(v));
                voices.extend(more.filter(|v| !known.contains(v.origin.as_str())));
            } else if line.whole.rhythm.as_ref().is_some_and(is_steady) {
                voices = line.voices.iter().filter(|v| !strays(v)).collect();
                voices.retain(fits);
            }
            if let Some(expected_ms) = expected_ms {
                source = Source::ExpectedTask;
                // Nobody showed it yet, so whoever sends may be beat.
                let known = |v: &&Voice| paced(v, expected_ms) || is_keeper(v);
                if !voices.iter().any(known) {
                    voices = line.voices.iter().collect();
                }
            }
        }
        let last_ms = voices.iter().map(|v| v.last_ms).max()?.min(now_ms);
        let first = voices.iter().map(|v| v.first_ms).min()?;
        let mut kept = Self {
            line,
            first_ms: first.min(line.whole.first_ms),
            source,
            last_ms,
            interval_ms: expected_ms,
            pause_ms: expected_ms,
            longest_ms: expected_ms,
            counted: expected_ms.is_some(),
            succeeded_ms: None,
            left: false,
            is_due: false,
            crowded,
            voices,
        };
        if expected_ms.is_none() {
            kept.learn();
        }
        let life = kept
            .longest_ms
            .unwrap_or(0)
            .saturating_mul(10)
            .max(HISTORY_MS);
        (expected_ms.is_some() || now_ms.saturating_sub(last_ms) <= life).then_some(kept)
    }

    /// The pace, from the newest voice that has one, else from all as one.
    fn learn(&mut self) {
        let own = self
            .voices
            .iter()
            .filter(|v| v.rhythm.as_ref().is_some_and(is_steady));
        let own = own.max_by_key(|v| v.last_ms).and_then(|v| v.rhythm);
        let Some(rhythm) = own.or(self.line.whole.rhythm) else {
            return;
        };
        let longest = self.voices.iter().filter_map(|v| v.rhythm);
        let longest = longest
            .chain(self.line.whole.rhythm)
            .map(|r| r.longest_ms)
            .max();
        self.counted = own.is_some() && !rhythm.clock;
        self.interval_ms = Some(rhythm.interval_ms).filter(|ms| *ms > 0);
        let plain = rhythm.even && !rhythm.clock;
        self.longest_ms = if plain { self.interval_ms } else { longest };
        let enough = match self.source {
            Source::LearnedRhythm if rhythm.interval_ms < SHORT_MS => ENOUGH_SHORT_GAPS,
            Source::LearnedRhythm => ENOUGH_GAPS,
            _ => ENOUGH_MARKED_GAPS,
        };
        if rhythm.gaps >= enough {
            self.pause_ms = match rhythm {
                Rhythm { clock: true, .. } => self.clock_pause(rhythm),
                Rhythm { even: true, .. } => self.interval_ms,
                _ => self.longest_ms,
            };
        }
        if plain && let Some(slower) = self.slowed_down(rhythm.interval_ms) {
            self.interval_ms = Some(slower.interval_ms);
            self.pause_ms = self.pause_ms.map(|_| slower.longest_ms);
            self.longest_ms = Some(slower.longest_ms);
        }
    }

    /// The pace of the newest voice, where that began after the one whose pace is known
    /// and lets its moments pass: beat was started again with a longer interval. What
    /// it does is too little yet to be a rhythm, and no sign of death.
    fn slowed_down(&self, every_ms: i64) -> Option<Rhythm> {
        let newest = self.voices.iter().max_by_key(|v| v.last_ms)?;
        let steady = |v: &&&Voice| v.rhythm.as_ref().is_some_and(is_steady);
        let known = self.voices.iter().filter(steady);
        let known = known.max_by_key(|v| v.last_ms)?;
        let rhythm = newest.rhythm?;
        let slower = rhythm.interval_ms > once(every_ms);
        // Of a crowd somebody is slower by chance.
        let is_beat = newest.marked || (rhythm.even && !self.crowded);
        (is_beat && newest.first_ms > known.last_ms && slower).then_some(rhythm)
    }

    /// The longest usual pause of a crontab. Its hours and days end where an hour
    /// does, which is on the half hour in all zones but three of few people; so a
    /// minute missed before the next half hour is missed whatever the hours are. Of
    /// one that lies behind it nothing is known until a week was seen.
    fn clock_pause(&self, rhythm: Rhythm) -> Option<i64> {
        let known_for = self.last_ms.saturating_sub(self.first_ms);
        let within_hour = self
            .voices
            .iter()
            .flat_map(|v| v.times_ms.iter().zip(v.times_ms.iter().skip(1)))
            .map(|(a, b)| b.saturating_sub(*a))
            .filter(|gap| *gap < HOUR_MS - MINUTE_MS)
            .max();
        let usual = within_hour.unwrap_or(0).max(rhythm.interval_ms);
        let last = minute_of(self.last_ms);
        let missed = if known_for >= MINUTES_KNOWN_MS {
            let minutes = self.minutes();
            (last + 1..=last + 60).find(|minute| minutes & bit(*minute) != 0)
        } else {
            // Before they came round, only "every minute" is plain.
            let each = usual < 2 * MINUTE_MS - MINUTE_MS / 4 && !self.lets_pass(last + 1);
            each.then_some(last + 1)
        };
        let same_half_hour = |minute: i64| minute.div_euclid(30) == last.div_euclid(30);
        if usual < HOUR_MS && missed.is_some_and(same_half_hour) {
            return Some(usual);
        }
        self.longest_ms.filter(|_| known_for >= WEEK_MS)
    }

    /// The minutes of the hour at which it is due: those of the newest voice, and
    /// of one that is young also those before it, unless it let them pass.
    fn minutes(&self) -> u64 {
        let Some(newest) = self.voices.iter().max_by_key(|v| v.last_ms) else {
            return 0;
        };
        if newest.last_ms.saturating_sub(newest.first_ms) >= MINUTES_KNOWN_MS {
            return newest.minutes;
        }
        let before = self.voices.iter().fold(0, |all, v| all | v.minutes);
        let lived = minute_of(newest.first_ms)..=minute_of(newest.last_ms);
        let passed = lived.fold(0, |all, minute| all | bit(minute));
        newest.minutes | (before & !passed)
    }

    /// Whether a line that came each minute for a while was seen not to, so that its
    /// minutes may be some of each hour's: its beat was there for minutes before it, or
    /// this minute went by without it an hour ago.
    fn lets_pass(&self, minute: i64) -> bool {
        let began_later = |v: &&Voice| minute_of(v.first_ms) > minute_of(v.known_ms) + 1;
        let came_round = minute - 60 >= minute_of(self.first_ms);
        let minutes = self.voices.iter().fold(0, |all, v| all | v.minutes);
        self.voices.iter().any(began_later) || (came_round && minutes & bit(minute) == 0)
    }

    /// Whether the newest message of one of its voices is what RedBeat noted as
    /// an entry's run.
    pub(super) fn sent(&self, runs_ms: &[i64]) -> bool {
        let of_run = |v: &&Voice| runs_ms.iter().any(|at| at.abs_diff(v.last_ms) <= RUN_MS);
        self.voices.iter().any(of_run)
    }

    /// Whether a voice has shown that this is its line.
    pub(super) fn is_kept_by(&self, voice: &Voice) -> bool {
        self.interval_ms
            .is_some_and(|every| keeps(voice, every, self.crowded))
    }

    pub(super) fn is_proof(&self) -> bool {
        self.source != Source::LearnedRhythm
    }
}
