//! Random work, random kills and random changes of roles: whatever happened, a
//! primary and its replica hold the same keys, values and expiries at the end.
//!
//! A seed decides the servers' settings and every step, not when exactly a step
//! meets the server. It is printed; `HYGIENE_CHAOS_SEED` runs it again.

use std::io::Write;
use std::time::{Duration, SystemTime};

use redis::Cmd;

use crate::celery::{self, Clock};
use crate::client::{Conn, ToCmd};
use crate::cmd;
use crate::data::assert_same_data;
use crate::replication::results_without_ttl;
use crate::server::{Binary, Server, Setup, every, module_path, same, wait_for};
use crate::topology::Writer;

/// Steps of one run.
const STEPS: u64 = 10;
/// How long a server may take to be of use again.
const LONG: Duration = Duration::from_secs(60);

/// Random numbers that a seed decides (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One below the bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        let len = u64::try_from(of.len()).expect("a length");
        of[usize::try_from(self.below(len)).expect("an index")]
    }
}

/// What happens between two looks.
#[derive(Debug, Clone, Copy)]
enum Step {
    Write,
    Fix,
    FixOld,
    Scan,
    KillPrimary,
    KillReplica,
    CutLink,
    Promote,
    KillAndPromote,
    Rewrite,
    Save,
    Reload,
    Flush,
    Swap,
    Pause,
    LoadAgain,
}

const EVERY_STEP: &[Step] = &[
    Step::Write,
    Step::Write,
    Step::Write,
    Step::Fix,
    Step::Fix,
    Step::FixOld,
    Step::Scan,
    Step::KillPrimary,
    Step::KillReplica,
    Step::CutLink,
    Step::Promote,
    Step::KillAndPromote,
    Step::Rewrite,
    Step::Save,
    Step::Reload,
    Step::Flush,
    Step::Swap,
    Step::Pause,
    Step::LoadAgain,
];

struct Run {
    dice: Dice,
    binary: &'static Binary,
    primary: Server,
    replica: Server,
    /// What the module is loaded with.
    settings: Vec<(&'static str, &'static str)>,
}

impl Run {
    async fn begin(binary: &'static Binary, seed: u64) -> Self {
        let mut dice = Dice(seed);
        let settings = vec![
            ("enforce", dice.one_of(&["yes", "yes", "no"])),
            ("default-ttl", dice.one_of(&["3s", "1h", "1h"])),
            ("sweep-interval", dice.one_of(&["0", "1s"])),
            ("sweep-deletes", dice.one_of(&["no", "yes"])),
            ("ttl-basis", dice.one_of(&["now", "done"])),
            ("max-writes-per-sec", dice.one_of(&["2000", "100000"])),
        ];
        let lines = [
            format!("appendonly {}", dice.one_of(&["yes", "no"])),
            format!("appendfsync {}", dice.one_of(&["always", "everysec"])),
            format!("repl-diskless-sync {}", dice.one_of(&["yes", "no"])),
            format!(
                "repl-diskless-load {}",
                dice.one_of(&["disabled", "on-empty-db", "swapdb"])
            ),
            format!("repl-backlog-size {}", dice.one_of(&["16kb", "1mb"])),
        ];
        println!("{settings:?} {lines:?}");
        let start = || {
            let mut setup = Setup::on(binary);
            for (name, value) in &settings {
                setup = setup.setting(name, value);
            }
            for line in &lines {
                setup = setup.config(line);
            }
            setup.start()
        };
        let (primary, replica) = (start().await, start().await);
        let run = Self {
            dice,
            binary,
            primary,
            replica,
            settings,
        };
        run.follow().await;
        run
    }

    /// Makes the replica follow the primary, whatever both were.
    async fn follow(&self) {
        self.primary.connect().await.run("REPLICAOF NO ONE").await;
        let words = cmd!["REPLICAOF", "127.0.0.1", self.primary.port];
        self.replica.connect().await.run(words).await;
    }

    async fn in_step(&self) {
        crate::data::wait_until_in_step(&self.primary, &self.replica).await;
    }

    fn swap(&mut self) {
        std::mem::swap(&mut self.primary, &mut self.replica);
    }

    /// Asks, whatever the answer: what is refused is a part of life here.
    async fn say(&self, to_replica: bool, command: impl ToCmd) {
        let server = if to_replica {
            &self.replica
        } else {
            &self.primary
        };
        let _ = server.connect().await.ask(command).await;
    }

    async fn write_some(&mut self) {
        let db = self.dice.one_of(&[0, 9]);
        let mut conn = self.primary.connect_db(db).await;
        let clock = Clock::of(&mut conn).await;
        let count = 50 + self.dice.below(500);
        for _ in 0..count {
            let command = self.a_write(&clock);
            let _ = conn.ask(command).await;
        }
    }

    fn a_write(&mut self, clock: &Clock) -> Cmd {
        let mut key = || format!("celery-task-meta-{}", self.dice.below(1_000));
        let (key, other) = (key(), key());
        let age_s = self.dice.one_of(&[10, 4_000, 20_000]);
        let body = celery::result("x", "SUCCESS", clock.ago(age_s), celery::Form::Utc);
        match self.dice.below(14) {
            0..=4 => cmd!["SET", key, body],
            5 => cmd!["MSET", key, &body, other, &body],
            6 => cmd!["APPEND", key, "x"],
            7 => cmd!["RENAME", key, other],
            8 => cmd!["COPY", key, other, "REPLACE"],
            9 => cmd!["DEL", key],
            10 => cmd!["PERSIST", key],
            11 => cmd!["LPUSH", "celery", body],
            // Redis 6.2 sends a time from now to replicas as it stands.
            12 if self.binary.is_7_0_or_newer() => cmd!["SET", key, body, "EX", 5_000],
            13 if self.binary.is_7_0_or_newer() => cmd!["EXPIRE", key, 4_000],
            _ => cmd!["SETNX", key, body],
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Write => self.write_some().await,
            Step::Fix => self.say(false, "HYGIENE.FIXTTL ASYNC").await,
            Step::FixOld => self.say(false, "HYGIENE.FIXTTL MAXAGE 1h ASYNC").await,
            Step::Scan => {
                let to_replica = self.dice.below(2) == 0;
                self.say(to_replica, "HYGIENE.SCAN ASYNC").await;
            }
            Step::KillPrimary => {
                self.primary.kill_9();
                self.primary.start_again().await;
            }
            Step::KillReplica => {
                self.replica.kill_9();
                self.replica.start_again().await;
                self.follow().await;
            }
            Step::CutLink => self.say(false, "CLIENT KILL TYPE replica").await,
            Step::Promote => {
                self.swap();
                self.follow().await;
            }
            Step::KillAndPromote => {
                self.primary.kill_9();
                self.swap();
                self.primary.connect().await.run("REPLICAOF NO ONE").await;
                self.write_some().await;
                self.replica.start_again().await;
                self.follow().await;
            }
            Step::Rewrite => self.say(false, "BGREWRITEAOF").await,
            Step::Save => self.say(false, "BGSAVE").await,
            Step::Reload => {
                self.no_dump_under_way().await;
                self.say(false, "DEBUG RELOAD").await;
            }
            Step::Flush => self.say(false, "FLUSHALL").await,
            Step::Swap => self.say(false, "SWAPDB 0 9").await,
            Step::Pause => self.say(false, "CLIENT PAUSE 150 WRITE").await,
            Step::LoadAgain => {
                let mut conn = self.primary.connect().await;
                if conn.ask("MODULE UNLOAD hygiene").await.is_ok() {
                    self.load(&mut conn).await;
                }
            }
        }
    }

    /// Waits until no dump is being written or on its way to the replica: DEBUG RELOAD
    /// saves to the same file, so the replica would be sent what has been written since
    /// its copy began, and then once more as commands (Redis 7.0, debug.c).
    async fn no_dump_under_way(&self) {
        let mut conn = self.primary.connect().await;
        wait_for("the replica to have its copy", LONG, async || {
            let saving = conn.info("persistence", "rdb_bgsave_in_progress").await;
            same(saving.as_deref(), Some("0"))?;
            match conn.info("replication", "slave0").await {
                Some(line) if line.contains("state=online") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    async fn load(&self, conn: &mut Conn) {
        let mut load = cmd!["MODULE", "LOAD", module_path().to_str()];
        load.arg(&["sweep-on-start", "no"]);
        for (name, value) in &self.settings {
            load.arg(name).arg(value);
        }
        conn.run(load).await;
    }

    /// Lets everything come to rest, and compares.
    async fn end(mut self) {
        let mut conn = self.primary.connect().await;
        for name in ["sweep-interval", "max-writes-per-sec"] {
            let value = if name == "sweep-interval" {
                0
            } else {
                1_000_000
            };
            conn.run(cmd!["HYGIENE.CONFIG", "SET", name, value]).await;
        }
        wait_for("a sweep that may run to its end", LONG, async || match conn
            .ask("HYGIENE.FIXTTL")
            .await
        {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        })
        .await;
        assert_eq!(results_without_ttl(&self.primary).await, 0);
        self.in_step().await;
        assert_same_data(&[&self.primary, &self.replica]).await;
        self.primary.assert_alive();
        self.replica.assert_alive();
    }
}

/// One run from its seed.
async fn run(binary: &'static Binary, seed: u64) {
    let line = format!("chaos: HYGIENE_CHAOS_SEED={seed} on {}\n", binary.name);
    let _ = std::io::stderr().write_all(line.as_bytes());
    let mut run = Run::begin(binary, seed).await;
    for n in 0..STEPS {
        // Writers are at work during most steps, and lose their server in some.
        let writer = (run.dice.below(4) > 0).then(|| Writer::start(run.primary.port, "w"));
        let step = if n == 0 {
            Step::Write
        } else {
            run.dice.one_of(EVERY_STEP)
        };
        println!("{step:?}");
        run.step(step).await;
        let rest = Duration::from_millis(run.dice.below(100));
        tokio::time::sleep(rest).await;
        if let Some(writer) = writer {
            writer.stop().await;
        }
    }
    run.end().await;
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {value}")),
    )
}

#[tokio::test]
async fn whatever_happens_a_replica_ends_up_like_its_primary() {
    let runs = number("HYGIENE_CHAOS_RUNS").unwrap_or(4);
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let first = number("HYGIENE_CHAOS_SEED")
        .unwrap_or_else(|| u64::from(clock.expect("a clock").subsec_nanos()));
    let servers = u64::try_from(every().len()).expect("a count");
    for seed in first..first.saturating_add(runs) {
        // Which server is the seed's choice too, among those at hand.
        let at = usize::try_from(seed % servers).expect("an index");
        run(&every()[at], seed).await;
    }
}

mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_what_is_rolled() {
        let rolls = |seed| {
            let mut dice = Dice(seed);
            (0..100).map(|_| dice.below(6)).collect::<Vec<_>>()
        };
        assert_eq!(rolls(7), rolls(7));
        assert_ne!(rolls(7), rolls(8));
        let all: std::collections::BTreeSet<u64> = rolls(7).into_iter().collect();
        assert_eq!(all.len(), 6);
    }
}
