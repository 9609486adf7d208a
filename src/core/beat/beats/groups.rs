//! Which lines are of one beat, and who of a slow one is not.

use std::collections::{BTreeMap, BTreeSet};

use super::super::traffic::{Line, Voice, is_steady};
use super::pace::keeps;
use super::{Kept, twice};

/// Leaves out newcomers to a slow line that its beat's fastest line does not know.
///
/// Whoever sends a task now and then looks for a while like a beat that starts
/// again, in a slow line for long. A beat that does so is soon heard in the
/// fastest line as well.
pub fn led(mut lines: Vec<Kept<'_>>) -> Vec<Kept<'_>> {
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

/// Puts lines together that are of one beat.
pub fn groups(lines: Vec<Kept<'_>>) -> Vec<Vec<Kept<'_>>> {
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

/// Puts a beat that ended together with the one that began instead of it, with
/// another schedule or in another database: no line and no origin ties them.
///
/// One that began wholly after the other's end took its place, if as much is known
/// of it: it is marked where that was. In another database it must send all that
/// the other did, for a broker that moved takes its tasks along, and of two brokers
/// on one server each has a beat of its own.
pub fn succeeded(groups: Vec<Vec<Kept<'_>>>) -> Vec<Vec<Kept<'_>>> {
    let mut lives: Vec<Life<'_>> = groups.into_iter().map(Life::new).collect();
    lives.sort_by_key(|life| life.last_ms);
    let starts = (0..).zip(&lives).map(|(at, life)| (life.first_ms, at));
    let mut starts: Vec<(i64, usize)> = starts.collect();
    starts.sort_unstable();
    let mut beats = Vec::new();
    // Who began after this one's end ended later, too, and so comes later here.
    for at in 0..lives.len() {
        let Some(life) = lives.get_mut(at) else {
            break;
        };
        let mut ended = life.taken();
        let later = starts.partition_point(|(first_ms, _)| *first_ms <= ended.last_ms);
        let mut later = starts.iter().skip(later).map(|(_, at)| *at);
        let heir = later.find(|at| lives.get(*at).is_some_and(|life| life.took_over(&ended)));
        match heir.and_then(|at| lives.get_mut(at)) {
            Some(heir) => {
                for kept in &mut ended.lines {
                    kept.succeeded_ms.get_or_insert(heir.first_ms);
                }
                heir.lines.append(&mut ended.lines);
            }
            None => beats.push(ended.lines),
        }
    }
    beats
}

/// The lines of one beat, when it began, and when it was heard last.
struct Life<'a> {
    lines: Vec<Kept<'a>>,
    first_ms: i64,
    last_ms: i64,
}

impl<'a> Life<'a> {
    fn new(lines: Vec<Kept<'a>>) -> Self {
        Self {
            first_ms: lines.iter().map(|k| k.first_ms).min().unwrap_or(0),
            last_ms: lines.iter().map(|k| k.last_ms).max().unwrap_or(0),
            lines,
        }
    }

    /// Itself, without its lines from now on.
    fn taken(&mut self) -> Self {
        Self {
            lines: std::mem::take(&mut self.lines),
            ..*self
        }
    }

    /// Whether this one, which began after that one's end, began instead of it.
    fn took_over(&self, ended: &Self) -> bool {
        // Not what it took over itself.
        let own = || self.lines.iter().filter(|k| k.succeeded_ms.is_none());
        let is_marked = |kept: &Kept<'_>| kept.voices.iter().any(|v| v.marked);
        let is_steady = |kept: &Kept<'_>| {
            let mut voices = kept.voices.iter();
            voices.any(|v| v.rhythm.as_ref().is_some_and(is_steady))
        };
        let mark = ended.lines.iter().any(is_marked);
        let known = own().any(|k| is_marked(k) || (!mark && is_steady(k)));
        let here = |kept: &Kept<'_>| own().any(|k| k.line.db == kept.line.db);
        let goes_on = |kept: &Kept<'_>| {
            let like = |line: &Line| line.task == kept.line.task && line.entry == kept.line.entry;
            own().any(|k| like(k.line))
        };
        known && (ended.lines.iter().all(here) || ended.lines.iter().all(goes_on))
    }
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
