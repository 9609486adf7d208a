//! Who sends, and whether what else they send speaks for or against a beat.

use std::collections::{BTreeMap, BTreeSet};

use super::super::evidence::Evidence;
use super::super::traffic::{Line, Voice, is_steady};
use super::pace::{keeps, strays};

/// Gaps that one needs of whom something else says that it is no beat.
const ENOUGH_DOUBTED_GAPS: u32 = 12;

/// So many messages more than of any task of beat's are no schedule's that has
/// become longer.
const MORE: u64 = 2;

/// So many intervals of beat's show what it sends.
const KNOWN_INTERVALS: i64 = 10;

/// The part of an origin's publishes that must keep a rhythm: beat sends
/// nothing else, a web process as a rule does.
const RHYTHMIC_PERCENT: u64 = 80;

/// What is known of those who send, from all that they send.
pub struct Senders<'a> {
    /// Most of what they send keeps a rhythm, or is too little to tell.
    pub rhythmic: BTreeSet<&'a str>,
    /// Who keeps one expected interval is beat, whatever little the others show.
    pub keepers: BTreeSet<&'a str>,
    /// Marked, or with a rhythm somewhere.
    beats: BTreeSet<&'a str>,
    /// The lines of each.
    lines: BTreeMap<&'a str, Vec<(&'a Line, &'a Voice)>>,
    /// Tasks that are beat's by somebody's word.
    scheduled: BTreeSet<&'a str>,
    pub since_ms: i64,
    pub now_ms: i64,
}

impl<'a> Senders<'a> {
    pub fn new(
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
    /// before it never did and others do, unless evenly and more seldom (a schedule may have
    /// become longer), nor without a rhythm what they send in one.
    pub fn trusts(&self, voice: &Voice, beats: &[&Voice]) -> bool {
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
        let own = || own.into_iter().flatten();
        let is_beats = |line: &Line| {
            let other = |v: &Voice| v.origin != voice.origin;
            let mut others = line.voices.iter().filter(|v| other(v));
            line.whole.marked || others.any(|v| self.beats.contains(v.origin.as_str()))
        };
        let of_beats = own().filter(|(line, _)| is_beats(line));
        let most = of_beats.map(|(_, v)| v.count).max().unwrap_or(0);
        !own().any(|(line, own)| {
            if is_beats(line) {
                let regular = |v: &Voice| v.rhythm.is_some_and(|r| r.gaps >= 3) && !strays(v);
                let beat = |v: &&Voice| self.beats.contains(v.origin.as_str());
                let mut others = line.voices.iter().filter(|v| v.origin != own.origin);
                return strays(own) && others.any(|v| beat(&v) && regular(v));
            }
            line.whole.first_ms <= known_ms
                && !self.scheduled.contains(line.task.as_str())
                && (is_uneven(own) || own.count >= most.saturating_add(MORE))
        })
    }
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

/// Whether a few messages show already that these are no beat's: of two gaps or
/// more one is half as long again as another.
fn is_uneven(voice: &Voice) -> bool {
    let times = voice.times_ms.iter().zip(voice.times_ms.iter().skip(1));
    let gaps = || times.clone().map(|(a, b)| b.saturating_sub(*a));
    let uneven = |short: i64, long: i64| long > short.saturating_add(short / 2);
    let lengths = gaps().min().zip(gaps().max());
    !voice.rhythm.is_some_and(|r| r.clock) && lengths.is_some_and(|(a, b)| uneven(a, b))
}
