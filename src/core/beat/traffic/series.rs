//! One task as it comes to one queue, and who sends it.

use super::heard::End;
use super::rhythm::{Rhythm, Times, on_the_clock};
use super::senders::Senders;

/// Origins kept of one task.
pub const MOST_VOICES: usize = 8;

/// So many even gaps are no accident: of random ones (a web process) one run in
/// ten thousand looks so. Of short gaps more are wanted, for there the jitter
/// allowed is a larger share of them.
const FEWEST_GAPS: u32 = 5;
const FEWEST_SHORT_GAPS: u32 = 8;
const SHORT_MS: i64 = 5_000;

/// Gaps that show how long a pause may be.
const FEWEST_PAUSES: u32 = 3;

/// Beat is not used for less.
const SHORTEST_MS: i64 = 900;

/// What makes messages alike. Projects that share a server have databases or
/// queues of their own, so that the same task in another queue is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    pub db: u32,
    /// The queue's first list.
    pub queue: Box<[u8]>,
    pub task: Box<str>,
    /// `periodic_task_name`.
    pub entry: Option<Box<str>>,
}

/// Publishes alike in all but their origin.
#[derive(Clone, Debug)]
pub struct Series {
    pub id: Id,
    /// The hash of the task's name, as [`super::Traffic`] makes it.
    pub task_hash: u64,
    pub voices: Vec<Voice>,
    /// All voices as one: beat's marked messages, or any while none is marked.
    pub whole: Voice,
    /// Which voice spoke last.
    pub latest: Option<usize>,
    /// Of beat's newest publishes those that another's came before, one who keeps
    /// no rhythm; bit 0 for the newest. Kept here because of many such each is
    /// soon forgotten.
    pub crowd: u16,
    /// The newest end of a run.
    pub end: Option<End>,
    /// The newest publish or end, in the server's time.
    pub last_ms: i64,
    /// Its beat was heard to go on without it. Kept here because origins come and
    /// go, and with them what ties this line to its beat.
    pub left: bool,
    /// Somebody keeps a rhythm or is marked; looked at now and then.
    pub periodic: bool,
    /// Publishes since it was looked at.
    unlooked: u32,
    pub stored: Stored,
}

/// How a series and its field in the stored hash agree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stored {
    /// Something is to be written.
    pub dirty: bool,
    /// A field is there.
    pub there: bool,
    /// When it was written last.
    pub at_ms: i64,
}

impl Series {
    pub fn new(id: Id) -> Self {
        Self {
            id,
            task_hash: 0,
            voices: Vec::new(),
            whole: Voice::new(""),
            latest: None,
            crowd: 0,
            end: None,
            last_ms: i64::MIN,
            left: false,
            periodic: false,
            unlooked: 0,
            stored: Stored {
                dirty: true,
                there: false,
                at_ms: i64::MIN,
            },
        }
    }

    /// Where the voice of this origin is; a new one takes the place of whoever
    /// matters least.
    fn voice(&mut self, origin: &str, at_ms: i64, senders: &mut Senders) -> usize {
        let at = self.voices.iter().position(|v| &*v.origin == origin);
        if let Some(at) = at {
            return at;
        }
        if self.voices.len() >= MOST_VOICES
            && let Some(least) = self.least(senders)
        {
            self.voices.swap_remove(least);
            self.latest = None;
        }
        let mut voice = Voice::new(origin);
        voice.introduce(at_ms, senders);
        self.voices.push(voice);
        self.voices.len() - 1
    }

    /// Who matters least: who is not beat's, in whatever task, nor may have taken
    /// over from a beat that ended here; of these, who was silent for the longest.
    fn least(&self, senders: &Senders) -> Option<usize> {
        let beats: Vec<Option<Rhythm>> = self.voices.iter().map(Voice::beat).collect();
        let ended = self.voices.iter().zip(&beats);
        let ended = ended
            .filter_map(|(v, beat)| Some(v.last_ms.saturating_sub(beat.as_ref()?.interval_ms)));
        let ended_ms = ended.max();
        let rank = |(v, beat): (&Voice, &Option<Rhythm>)| {
            let known_ms = senders.first_ms(v.sender).unwrap_or(v.first_ms);
            let beats = beat.is_some() || senders.is_beat(v.sender);
            (
                beats,
                ended_ms.is_some_and(|ended| known_ms > ended),
                v.last_ms,
            )
        };
        let ranks = self.voices.iter().zip(&beats).map(rank);
        let least = (0..).zip(ranks).min_by_key(|(_, rank)| *rank);
        least.map(|(at, _)| at)
    }

    /// Makes known who speaks here, after it was read back.
    pub fn introduce(&mut self, senders: &mut Senders) {
        for voice in &mut self.voices {
            voice.introduce(voice.first_ms, senders);
            if voice.beats() {
                senders.beats(voice.sender, voice.first_ms);
            }
        }
    }

    /// Notes a publish.
    pub fn spoke(
        &mut self,
        at_ms: i64,
        origin: &str,
        marked: bool,
        unwatched_ms: i64,
        senders: &mut Senders,
    ) {
        self.last_ms = at_ms;
        self.left = false;
        let at = self.voice(origin, at_ms, senders);
        let before = self.latest.replace(at);
        let changed = before != Some(at);
        let Some(voice) = self.voices.get_mut(at) else {
            return;
        };
        let news = voice.spoke(at_ms, marked, unwatched_ms, false);
        self.unlooked = self.unlooked.saturating_add(1);
        // Within a tick no rhythm changes.
        let look_again = news && (voice.count <= 16 || self.unlooked >= 8);
        // From one process to the next an even pace breaks, and who is not
        // marked may be anybody. A mark and a crontab outlive restarts, so that
        // these hide no week.
        let cut = changed && !marked && !on_the_clock(at_ms);
        if marked && !self.whole.marked {
            // What came before may be anybody's.
            self.whole = Voice::new("");
        }
        if marked || !self.whole.marked {
            self.whole.spoke(at_ms, marked, unwatched_ms, cut);
        }
        if look_again && voice.beats() {
            senders.beats(voice.sender, at_ms);
        }
        if news && senders.is_beat(voice.sender) {
            let other = before.filter(|_| changed).and_then(|b| self.voices.get(b));
            let crowded = other.is_some_and(|other| !senders.is_beat(other.sender));
            self.crowd = self.crowd << 1 | u16::from(crowded);
        }
        if look_again {
            self.look_again();
        }
    }

    /// The longest pause that is nothing unusual, in ms.
    pub fn pause_ms(&self) -> Option<i64> {
        let voices = self.voices.iter().chain([&self.whole]);
        let rhythms = voices.filter_map(Voice::rhythm);
        let pause = |r: Rhythm| {
            if r.even && !r.clock {
                r.interval_ms
            } else {
                r.longest_ms
            }
        };
        rhythms.filter(|r| r.gaps >= FEWEST_PAUSES).map(pause).max()
    }

    pub fn look_again(&mut self) {
        self.unlooked = 0;
        self.periodic = self.whole.beats() || self.voices.iter().any(Voice::beats);
    }
}

/// What one origin sent.
#[derive(Clone, Debug)]
pub struct Voice {
    pub origin: Box<str>,
    /// By what [`Senders`] know it.
    pub sender: u64,
    pub first_ms: i64,
    pub last_ms: i64,
    pub count: u64,
    /// The newest carried beat's mark.
    pub marked: bool,
    pub times: Times,
    /// What nobody had watched, in all, when it was heard last.
    pub unwatched_ms: i64,
}

impl Voice {
    pub fn new(origin: &str) -> Self {
        Self {
            origin: origin.into(),
            sender: 0,
            first_ms: i64::MAX,
            last_ms: i64::MIN,
            count: 0,
            marked: false,
            times: Times::default(),
            unwatched_ms: 0,
        }
    }

    fn introduce(&mut self, at_ms: i64, senders: &mut Senders) {
        self.sender = senders.id(&self.origin);
        senders.heard(self.sender, at_ms);
    }

    /// Notes a publish; `unwatched_ms`: what nobody watched so far, in all. `cut`:
    /// the gap before it is none. Answers whether a tick, or a mark, began with it.
    fn spoke(&mut self, at_ms: i64, marked: bool, unwatched_ms: i64, cut: bool) -> bool {
        let gap = at_ms.saturating_sub(self.last_ms);
        let unwatched = unwatched_ms.saturating_sub(self.unwatched_ms);
        // A restart of some seconds hides no week.
        let cut = cut || unwatched.saturating_mul(50) > gap;
        let news = self.times.push(at_ms, cut) || marked != self.marked;
        self.first_ms = self.first_ms.min(at_ms);
        self.last_ms = at_ms;
        self.count = self.count.saturating_add(1);
        self.marked = marked;
        self.unwatched_ms = unwatched_ms;
        news
    }

    pub fn rhythm(&self) -> Option<Rhythm> {
        self.times.rhythm()
    }

    /// Whether this is beat's, by its mark or by its rhythm.
    pub fn beats(&self) -> bool {
        self.beat().is_some()
    }

    /// What is known of its rhythm if it is beat's.
    fn beat(&self) -> Option<Rhythm> {
        let rhythm = self.rhythm();
        let marked = || self.marked.then(|| rhythm.unwrap_or_default());
        rhythm.filter(is_steady).or_else(marked)
    }

    pub fn step_back(&mut self, by_ms: i64) {
        self.first_ms = self.first_ms.saturating_sub(by_ms);
        self.last_ms = self.last_ms.saturating_sub(by_ms);
        self.times.step_back(by_ms);
    }
}

/// Whether a rhythm is no accident.
pub const fn is_steady(rhythm: &Rhythm) -> bool {
    let fewest = match rhythm.interval_ms {
        SHORT_MS.. => FEWEST_GAPS,
        SHORTEST_MS.. => FEWEST_SHORT_GAPS,
        _ => return false,
    };
    (rhythm.even || rhythm.clock) && rhythm.gaps >= fewest
}
