//! Beats, as their messages show them: which publishes are a beat's, whether it
//! still speaks, and whether there is one of it.
//!
//! Stock beat says nothing of itself, so what it sends is told by what is known
//! of it: beat's mark, a name in `hygiene.expected-tasks`, or the rhythm, which
//! is never proof. Lines that share an origin are one beat's; so are a line and
//! its like that began in another queue when it ended.

use std::collections::{BTreeMap, BTreeSet};

use super::assessment::{Certainty, Source, State};
use super::evidence::Evidence;
use super::known::{MAX_SLEEP_MS, SLACK_MS};
use super::traffic::{Line, Rhythm, Voice, is_steady};
use super::words::{self, counted, listed, name, span};

/// Gaps an unmarked line needs before its silence means anything; of short
/// intervals more, for what people do can look even for a moment.
const ENOUGH_GAPS: u32 = 8;
const ENOUGH_SHORT_GAPS: u32 = 10;
const SHORT_MS: i64 = 5_000;

/// Gaps a marked line needs.
const ENOUGH_MARKED_GAPS: u32 = 3;

/// Gaps that one in a crowd needs to be told from it, all of them alike, and one
/// may be odd for each so many more: what looks even for
/// four gaps by accident is not rare among many processes.
const ENOUGH_CROWDED_GAPS: u32 = 6;
const ODD_ONE_IN_GAPS: u32 = 4;

/// So many of beat's newest 16 publishes that others interrupt are a crowd; a
/// second beat is none once it is known.
const CROWD: u32 = 4;

/// Gaps that one needs of whom something else says that it is no beat.
const ENOUGH_DOUBTED_GAPS: u32 = 12;

/// So many messages of tasks that no beat sends are no accident, and so many
/// intervals of beat's show what it sends.
const FOREIGN: u64 = 2;
const KNOWN_INTERVALS: i64 = 10;

/// How late one may be who is not known yet, in ms, or a quarter of the interval.
const NEWCOMER_SLACK_MS: i64 = 2_000;

/// A crontab that was known for this long has shown its weekends.
const WEEK_MS: i64 = 8 * 86_400_000;

/// The part of an origin's publishes that must keep a rhythm: beat sends
/// nothing else, a web process as a rule does.
const RHYTHMIC_PERCENT: u64 = 80;

/// So many origins that begin within this time are a beat that keeps dying.
const FLAPPING: usize = 3;
const FLAPPING_MS: i64 = 900_000;

/// How long a beat must live not to be flapping, where no interval is known.
const SHORT_LIFE_MS: i64 = 300_000;

/// Publishes that each of two origins must have made while the other spoke.
const OVERLAPPING: usize = 2;

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
    first_ms: i64,
    pub interval_ms: Option<i64>,
    /// The longest pause that is nothing unusual: twice this and some seconds is
    /// silence. `None`: too little is known.
    pub pause_ms: Option<i64>,
    /// The longest pause ever seen, for what still counts as alive.
    longest_ms: Option<i64>,
    /// What beat sends by counting from its own start: no crontab, which is due at
    /// its minute however often beat restarts, and seen within one life.
    counted: bool,
    /// Others send the same without a rhythm, so that whoever comes new is more
    /// likely one of them.
    crowded: bool,
    /// Its beat went on without it.
    pub left: bool,
    /// It should have come by now.
    pub is_due: bool,
}

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
    let interval_ms = |line: &Line| {
        let expected = evidence.expected.iter().find(|e| e.task == line.task);
        expected.map(|e| e.interval_ms).filter(|ms| *ms > 0)
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
    let kept = led(kept.collect());
    let ticked = evidence.heard.ticks.iter().map(|tick| tick.last_ms).max();
    groups(kept)
        .into_iter()
        .map(|lines| Beat::new(lines, ticked, since_ms, now_ms))
        .collect()
}

impl<'a> Kept<'a> {
    fn new(line: &'a Line, expected_ms: Option<i64>, senders: &Senders<'a>) -> Option<Self> {
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
    }

    /// The longest usual pause of a crontab. Its hours and days can only begin
    /// where an hour does, which is on the half hour in all zones but three of
    /// few people; so a minute missed elsewhere is missed whatever the hours
    /// are. One missed there says nothing until a week was seen.
    fn clock_pause(&self, rhythm: Rhythm) -> Option<i64> {
        const MINUTE_MS: i64 = 60_000;
        const HOUR_MS: i64 = 3_600_000;
        let known_for = self.last_ms.saturating_sub(self.first_ms);
        let within_hour = self
            .voices
            .iter()
            .flat_map(|v| v.times_ms.iter().zip(v.times_ms.iter().skip(1)))
            .map(|(a, b)| b.saturating_sub(*a))
            .filter(|gap| *gap < HOUR_MS - MINUTE_MS)
            .max();
        let usual = within_hour.unwrap_or(0).max(rhythm.interval_ms);
        // Minutes are known once they came round; "every minute" is plain.
        let minutes_known = known_for >= 2 * HOUR_MS || usual < 2 * MINUTE_MS - MINUTE_MS / 4;
        let missed = self.last_ms.saturating_add(rhythm.interval_ms);
        let missed = missed.saturating_add(MINUTE_MS / 2) / MINUTE_MS * MINUTE_MS;
        if minutes_known && usual < HOUR_MS && missed % (HOUR_MS / 2) != 0 {
            return Some(usual);
        }
        self.longest_ms.filter(|_| known_for >= WEEK_MS)
    }

    /// Whether the newest message of one of its voices is what RedBeat noted as
    /// an entry's run.
    fn sent(&self, runs_ms: &[i64]) -> bool {
        let of_run = |v: &&Voice| runs_ms.iter().any(|at| at.abs_diff(v.last_ms) <= RUN_MS);
        self.voices.iter().any(of_run)
    }

    /// Whether a voice has shown that this is its line.
    fn is_kept_by(&self, voice: &Voice) -> bool {
        self.interval_ms
            .is_some_and(|every| keeps(voice, every, self.crowded))
    }

    fn is_proof(&self) -> bool {
        self.source != Source::LearnedRhythm
    }
}

/// What is known of the voices that keep a rhythm.
struct Pace {
    interval_ms: i64,
    ended_ms: i64,
    /// This line showed the pace; else another of its beat's tells what is missed.
    shown: bool,
    crowded: bool,
}

impl Pace {
    fn of(voices: &[&Voice], expected_ms: Option<i64>, crowded: bool) -> Option<Self> {
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
    fn goes_on(&self, voice: &Voice, before: &[&Voice], senders: &Senders<'_>) -> bool {
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
fn is_crowded(line: &Line, beats: &[&Voice], expected_ms: Option<i64>) -> bool {
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

/// What is known of those who send, from all that they send.
struct Senders<'a> {
    /// Most of what they send keeps a rhythm, or is too little to tell.
    rhythmic: BTreeSet<&'a str>,
    /// Who keeps one expected interval is beat, whatever little the others show.
    keepers: BTreeSet<&'a str>,
    /// Marked, or with a rhythm somewhere.
    beats: BTreeSet<&'a str>,
    /// The lines of each.
    lines: BTreeMap<&'a str, Vec<(&'a Line, &'a Voice)>>,
    /// Tasks that are beat's by somebody's word.
    scheduled: BTreeSet<&'a str>,
    since_ms: i64,
    now_ms: i64,
}

impl<'a> Senders<'a> {
    fn new(
        evidence: &'a Evidence,
        interval_ms: impl Fn(&Line) -> Option<i64>,
        since_ms: i64,
        now_ms: i64,
    ) -> Self {
        let heard = &evidence.heard.lines;
        let rhythmic = rhythmic_origins(heard);
        let mut keepers: BTreeSet<&str> = BTreeSet::new();
        let mut beats: BTreeSet<&str> = BTreeSet::new();
        let mut lines: BTreeMap<&str, Vec<(&Line, &Voice)>> = BTreeMap::new();
        for line in heard {
            if let Some(every) = interval_ms(line) {
                let crowded = line.voices.iter().any(strays);
                let own = line.voices.iter().filter(|v| keeps(v, every, crowded));
                keepers.extend(own.map(|v| v.origin.as_str()));
            }
            for voice in &line.voices {
                if voice.marked || voice.rhythm.as_ref().is_some_and(is_steady) {
                    beats.insert(&voice.origin);
                }
                lines.entry(&voice.origin).or_default().push((line, voice));
            }
        }
        keepers.retain(|origin| rhythmic.contains(origin));
        beats.extend(&keepers);
        let entries = evidence.redbeat.iter().flat_map(|r| &r.entries);
        let scheduled = entries.map(|e| e.task.as_str());
        let scheduled = scheduled.chain(evidence.expected.iter().map(|e| e.task.as_str()));
        Self {
            rhythmic,
            keepers,
            beats,
            lines,
            scheduled: scheduled.collect(),
            since_ms,
            now_ms,
        }
    }

    /// Whether nothing that this one sends speaks against its being beat, or it
    /// kept the pace for so long that nothing can: it does not send what beats
    /// before it never did and others do, nor without a rhythm what they send in one.
    fn trusts(&self, voice: &Voice, beats: &[&Voice]) -> bool {
        let earlier = beats.iter().filter(|beat| beat.known_ms < voice.known_ms);
        let Some(before) = earlier.max_by_key(|beat| beat.last_ms) else {
            return true;
        };
        if voice.rhythm.is_some_and(|r| r.gaps >= ENOUGH_DOUBTED_GAPS) {
            return true;
        }
        let Some(rhythm) = before.rhythm else {
            return true;
        };
        // What it sends more seldom may not be known of it.
        let long = rhythm.interval_ms.saturating_mul(KNOWN_INTERVALS);
        let known_ms = before.last_ms.saturating_sub(long);
        if self.since_ms.max(before.first_ms) > known_ms {
            return true;
        }
        let own = self.lines.get(voice.origin.as_str());
        let mut foreign = 0_u64;
        for (line, voice) in own.into_iter().flatten() {
            let mut of_beats = line
                .voices
                .iter()
                .filter(|v| v.origin != voice.origin && self.beats.contains(v.origin.as_str()));
            let known = of_beats.clone().next().is_some() || line.whole.marked;
            if known {
                let regular = |v: &Voice| v.rhythm.is_some_and(|r| r.gaps >= 3) && !strays(v);
                if strays(voice) && of_beats.any(regular) {
                    return false;
                }
            } else if !self.scheduled.contains(line.task.as_str())
                && line.whole.first_ms <= known_ms
            {
                foreign = foreign.saturating_add(voice.count);
            }
        }
        foreign < FOREIGN
    }
}

/// Whether a voice comes about this often.
fn paced(voice: &Voice, interval_ms: i64) -> bool {
    let near = |r: Rhythm| r.interval_ms.abs_diff(interval_ms) <= interval_ms.unsigned_abs() / 4;
    voice.rhythm.is_some_and(near)
}

/// Whether a voice has shown that it comes this often; in a crowd of others it
/// takes more to show that, for of many somebody does by accident.
fn keeps(voice: &Voice, interval_ms: i64, crowded: bool) -> bool {
    let shown = |r: Rhythm| {
        if !crowded {
            return r.gaps >= ENOUGH_MARKED_GAPS;
        }
        let odd = (r.gaps / ODD_ONE_IN_GAPS).saturating_sub(1);
        r.gaps >= ENOUGH_CROWDED_GAPS && r.gaps.saturating_sub(r.alike) <= odd
    };
    voice.rhythm.is_some_and(shown) && paced(voice, interval_ms) && !strays(voice)
}

/// Leaves out newcomers to a slow line that its beat's fastest line does not know.
///
/// Whoever sends a task now and then looks for a while like a beat that starts
/// again, in a slow line for long. A beat that does so is soon heard in the
/// fastest line as well.
fn led(mut lines: Vec<Kept<'_>>) -> Vec<Kept<'_>> {
    // The fastest line that each origin keeps, and who speaks there.
    let mut leads: BTreeMap<(u32, &str), (i64, usize)> = BTreeMap::new();
    for (at, kept) in lines.iter().enumerate() {
        let Some(every) = kept.interval_ms.filter(|_| kept.pause_ms.is_some()) else {
            continue;
        };
        for voice in kept
            .voices
            .iter()
            .filter(|v| v.marked || kept.is_kept_by(v))
        {
            let lead = leads
                .entry((kept.line.db, voice.origin.as_str()))
                .or_insert((every, at));
            *lead = (every, at).min(*lead);
        }
    }
    let fastest: Vec<(i64, Vec<&Voice>)> = lines
        .iter()
        .map(|k| (k.interval_ms.unwrap_or(i64::MAX), k.voices.clone()))
        .collect();
    for (at, kept) in lines.iter_mut().enumerate() {
        let db = kept.line.db;
        let Some(every) = kept.interval_ms.filter(|_| kept.crowded) else {
            continue;
        };
        let own = kept
            .voices
            .iter()
            .filter_map(|v| leads.get(&(db, v.origin.as_str())));
        let mut leading: BTreeSet<usize> = own.map(|lead| lead.1).collect();
        if leading.is_empty() {
            // Nobody is known here, but elsewhere.
            leading = leads
                .iter()
                .filter(|((of, _), _)| *of == db)
                .map(|(_, lead)| lead.1)
                .collect();
        }
        let leading = leading
            .into_iter()
            .filter(|lead| *lead != at)
            .filter_map(|lead| fastest.get(lead));
        let leading: Vec<_> = leading.filter(|(interval, _)| *interval < every).collect();
        if leading.is_empty() {
            continue;
        }
        let led = |voice: &Voice| {
            leading.iter().any(|(interval, voices)| {
                let mut there = voices.iter().filter(|v| v.origin == voice.origin);
                there.any(|v| voice.last_ms <= v.last_ms.saturating_add(twice(*interval)))
            })
        };
        kept.voices.retain(|v| {
            keeps(v, every, true) || leads.contains_key(&(db, v.origin.as_str())) || led(v)
        });
        if let Some(last_ms) = kept.voices.iter().map(|v| v.last_ms).max() {
            kept.last_ms = last_ms.min(kept.last_ms);
        }
    }
    lines.retain(|kept| !kept.voices.is_empty());
    lines
}

/// Whether a voice had time to show a rhythm and has none: less than two thirds
/// of its gaps are alike. The first after a start may be odd.
fn strays(voice: &Voice) -> bool {
    let odd = |r: Rhythm| r.gaps >= 3 && r.alike.saturating_mul(3) < r.gaps.saturating_mul(2);
    voice.rhythm.is_some_and(|r| odd(r) && !r.clock)
}

/// Origins most of whose publishes keep a rhythm, or are too few to tell.
fn rhythmic_origins(lines: &[Line]) -> BTreeSet<&str> {
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for voice in lines.iter().flat_map(|line| &line.voices) {
        let (fits, all) = counts.entry(&voice.origin).or_default();
        *all = all.saturating_add(voice.count);
        let stays = !strays(voice);
        *fits = fits.saturating_add(if stays { voice.count } else { 0 });
    }
    let most = |(fits, all): (u64, u64)| {
        u128::from(fits) * 100 >= u128::from(all) * u128::from(RHYTHMIC_PERCENT)
    };
    counts
        .into_iter()
        .filter(|(_, c)| most(*c))
        .map(|(origin, _)| origin)
        .collect()
}

/// Puts lines together that are of one beat.
fn groups(lines: Vec<Kept<'_>>) -> Vec<Vec<Kept<'_>>> {
    // The group of each line is found by way of the lines before it.
    let mut of: Vec<usize> = (0..lines.len()).collect();
    let mut origins: BTreeMap<&str, usize> = BTreeMap::new();
    let mut alike: BTreeMap<(u32, &str, Option<&str>), Vec<usize>> = BTreeMap::new();
    for (at, kept) in lines.iter().enumerate() {
        for voice in kept.voices.iter().filter(|v| !v.origin.is_empty()) {
            let first = *origins.entry(&voice.origin).or_insert(at);
            join(&mut of, first, at);
        }
        let line = kept.line;
        let key = (line.db, line.task.as_str(), line.entry.as_deref());
        let others = alike.entry(key).or_default();
        for other in others.iter() {
            let moved = lines.get(*other).is_some_and(|other| {
                other.first_ms > kept.last_ms || kept.first_ms > other.last_ms
            });
            if moved {
                join(&mut of, *other, at);
            }
        }
        others.push(at);
    }
    let mut groups: BTreeMap<usize, Vec<Kept<'_>>> = BTreeMap::new();
    for (at, kept) in lines.into_iter().enumerate() {
        groups.entry(root(&of, at)).or_default().push(kept);
    }
    groups.into_values().collect()
}

fn root(of: &[usize], mut at: usize) -> usize {
    while let Some(up) = of.get(at).filter(|up| **up != at) {
        at = *up;
    }
    at
}

fn join(of: &mut [usize], a: usize, b: usize) {
    let (a, b) = (root(of, a), root(of, b));
    if let Some(up) = of.get_mut(a.max(b)) {
        *up = a.min(b);
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

    /// Two origins that publish the same, in turns and not once.
    fn duplicate(&self, now_ms: i64) -> Option<String> {
        self.lines.iter().filter(|k| !k.left).find_map(|kept| {
            let pause = kept.pause_ms.or(kept.longest_ms)?;
            let speaks = |v: &&&Voice| {
                now_ms.saturating_sub(v.last_ms) <= twice(pause)
                    && (v.marked || v.rhythm.as_ref().is_some_and(is_steady))
            };
            let speaking: Vec<&Voice> = kept.voices.iter().filter(speaks).copied().collect();
            let pairs = (1..)
                .zip(&speaking)
                .flat_map(|(next, a)| speaking.iter().skip(next).map(move |b| (*a, *b)));
            let overlap = |a: &Voice, b: &Voice| {
                let from = a.first_ms.max(b.first_ms);
                let while_both = |v: &Voice| {
                    let spoke = v.times_ms.iter().filter(|at| **at >= from);
                    spoke.count() >= OVERLAPPING
                };
                // An even pace of one and of the other, not half of it each.
                let alike = match (a.rhythm, b.rhythm) {
                    (Some(a), Some(b)) => {
                        a.interval_ms.abs_diff(b.interval_ms)
                            <= a.interval_ms.max(b.interval_ms).unsigned_abs() / 4
                    }
                    _ => false,
                };
                while_both(a) && while_both(b) && alike
            };
            let (a, b) = { pairs }.find(|(a, b)| overlap(a, b))?;
            Some(format!(
                "{} is published by {} and by {}, in turns for {}",
                name(kept.line.task.as_bytes()),
                name(a.origin.as_bytes()),
                name(b.origin.as_bytes()),
                span(now_ms.saturating_sub(a.first_ms.max(b.first_ms)))
            ))
        })
    }

    /// When each origin began and when it was heard last, in order.
    fn lives(&self) -> Vec<(i64, i64, &'a str)> {
        let mut lives: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
        for voice in self.lines.iter().flat_map(|k| &k.voices) {
            let life = lives
                .entry(&voice.origin)
                .or_insert((voice.first_ms, voice.last_ms));
            life.0 = life.0.min(voice.first_ms);
            life.1 = life.1.max(voice.last_ms);
        }
        let lives = lives.into_iter().map(|(origin, (a, b))| (a, b, origin));
        let mut lives: Vec<_> = lives.collect();
        lives.sort_unstable();
        lives
    }

    /// Beats that come and go before the longest interval is over.
    fn flapping(&self, now_ms: i64) -> Option<String> {
        let lives = self.lives();
        let timed = self.lines.iter().filter(|k| k.counted && !k.left);
        let longest = timed.filter_map(|k| k.interval_ms).max();
        let bound = longest.unwrap_or(0).max(SHORT_LIFE_MS);
        // Whoever sends once or twice may be anybody; beat is marked, or it keeps
        // the line's pace for a while.
        let is_beat = |origin: &str| {
            self.lines.iter().any(|kept| {
                let crowded = kept.crowded;
                let mut own = kept.voices.iter().filter(|v| v.origin == origin);
                own.any(|v| {
                    let pace = kept.interval_ms.filter(|_| v.count > 2);
                    let shows = |every| {
                        if crowded {
                            keeps(v, every, true)
                        } else {
                            paced(v, every)
                        }
                    };
                    v.marked || pace.is_some_and(shows)
                })
            })
        };
        let young =
            lives
                .iter()
                .rev()
                .filter(|(.., o)| is_beat(o))
                .take_while(|(first, last, _)| {
                    now_ms.saturating_sub(*first) <= FLAPPING_MS
                        && last.saturating_sub(*first) < bound
                });
        let young: Vec<_> = young.collect();
        let in_turn = young
            .iter()
            .zip(young.iter().skip(1))
            .all(|(later, earlier)| later.0 >= earlier.1);
        if young.len() < FLAPPING || !in_turn {
            return None;
        }
        let life = young.iter().map(|(a, b, _)| b.saturating_sub(*a)).max()?;
        let first = young.iter().map(|(a, ..)| *a).min()?;
        Some(format!(
            "{} ({}) came one after the other in {} and none published for longer than {}: tasks with a longer interval may never be sent",
            counted(young.len() as u64, "beat"),
            listed(young.iter().map(|(.., origin)| *origin)),
            span(now_ms.saturating_sub(first)),
            span(life)
        ))
    }

    fn speaking(&self, now_ms: i64) -> Vec<&'a str> {
        let mut lives = self.lives();
        lives.sort_by_key(|(_, last, _)| std::cmp::Reverse(*last));
        let usual = self
            .fastest()
            .and_then(|k| k.pause_ms)
            .unwrap_or(MAX_SLEEP_MS);
        let speaks = |last: i64| now_ms.saturating_sub(last) <= twice(usual);
        let all = (0..)
            .zip(lives)
            .filter(|(at, (_, last, _))| *at == 0 || speaks(*last));
        all.map(|(_, (.., origin))| origin)
            .filter(|o| !o.is_empty())
            .collect()
    }
}
