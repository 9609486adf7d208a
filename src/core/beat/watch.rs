//! What was learnt by watching, for whoever wants to see it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::assessment::{Origin, Pace, Watch};
use super::beats::Beat;
use super::evidence::Evidence;
use super::traffic::{Line, Voice, is_steady};

/// How much is told of each; the reply lists no more.
const TOLD: usize = 100;

/// The watch's part: who sends, and in what rhythm.
pub fn part(evidence: &Evidence, beats: &[Beat<'_>]) -> Watch {
    let kept = beats.iter().flat_map(|beat| &beat.lines);
    let kept: BTreeSet<*const Voice> = kept
        .flat_map(|k| k.voices.iter().map(|v| std::ptr::from_ref(*v)))
        .collect();
    let mut origins: BTreeMap<&str, Origin> = BTreeMap::new();
    let mut voices = Vec::new();
    for line in &evidence.heard.lines {
        for voice in &line.voices {
            let beat = kept.contains(&std::ptr::from_ref(voice));
            let origin = origins.entry(&voice.origin).or_insert_with(|| Origin {
                first_ms: voice.first_ms,
                ..Origin::default()
            });
            origin.first_ms = origin.first_ms.min(voice.first_ms);
            origin.last_ms = origin.last_ms.max(voice.last_ms);
            origin.count = origin.count.saturating_add(voice.count);
            origin.beat |= beat;
            voices.push((line, voice, beat));
        }
    }
    let mut origins: Vec<(&str, Origin)> = origins.into_iter().collect();
    origins.sort_by_key(|(_, origin)| (!origin.beat, Reverse(origin.last_ms)));
    let named = |(name, origin): (&str, Origin)| Origin {
        name: name.to_owned(),
        ..origin
    };
    voices.sort_by_key(|(_, voice, beat)| (!beat, voice.count < 2, Reverse(voice.last_ms)));
    let paces = voices.into_iter().take(TOLD);
    Watch {
        since_ms: evidence.heard.since_ms,
        origins: origins.into_iter().take(TOLD).map(named).collect(),
        rhythms: paces
            .map(|(line, voice, beat)| pace(line, voice, beat))
            .collect(),
    }
}

fn pace(line: &Line, voice: &Voice, beat: bool) -> Pace {
    Pace {
        task: line.task.clone(),
        entry: line.entry.clone().unwrap_or_default(),
        db: line.db,
        queue: line.queue.clone(),
        origin: voice.origin.clone(),
        first_ms: voice.first_ms,
        last_ms: voice.last_ms,
        count: voice.count,
        interval_ms: voice.rhythm.map(|r| r.interval_ms),
        longest_ms: voice.rhythm.map(|r| r.longest_ms),
        rhythm: match voice.rhythm {
            Some(r) if is_steady(&r) && r.clock => "clock",
            Some(r) if is_steady(&r) => "even",
            _ => "none",
        },
        marked: voice.marked,
        beat,
    }
}
