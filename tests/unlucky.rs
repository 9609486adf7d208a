//! A clock that is set, a disk that is slow, children that cannot be started: what a
//! client sees then, and what the server keeps. A library that is loaded before all
//! others lies to the server's own calls of the system, as the test tells it to.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

use crate::celery::{self, Clock, Form, Message};
use crate::client::Conn;
use crate::cmd;
use crate::data::{DataSet, assert_same_data, wait_until_in_step};
use crate::extremes::{behind_a_script, own_sweep_that_rests};
use crate::jobs;
use crate::replication::results_without_ttl;
use crate::server::{Binary, Setup, on_every_server, wait_for};

const SOON: Duration = Duration::from_secs(20);
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// Three numbers in a file are what it goes by, at once: the file is mapped. Only calls
/// from outside the C library come here, so the log, written with stdio, is not slow.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static struct luck { int64_t clock_s, disk_ms, no_fork; } none;
static volatile struct luck *luck = &none;

__attribute__((constructor)) static void begin(void) {
    int fd = open(getenv("LUCK"), O_RDONLY);
    void *at = mmap(NULL, sizeof *luck, PROT_READ, MAP_SHARED, fd, 0);
    if (fd < 0 || at == MAP_FAILED) abort();
    luck = at;
    close(fd);
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, id, now);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += luck->clock_s;
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec at;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &at)) return -1;
    now->tv_sec = at.tv_sec;
    now->tv_usec = at.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec at;
    if (clock_gettime(CLOCK_REALTIME, &at)) return -1;
    if (out) *out = at.tv_sec;
    return at.tv_sec;
}

static void wait_for_the_disk(void) {
    struct timespec wait = { luck->disk_ms / 1000, luck->disk_ms % 1000 * 1000000 };
    if (luck->disk_ms) nanosleep(&wait, NULL);
}

int fsync(int fd) { wait_for_the_disk(); return syscall(SYS_fsync, fd); }
int fdatasync(int fd) { wait_for_the_disk(); return syscall(SYS_fdatasync, fd); }

ssize_t write(int fd, const void *bytes, size_t count) {
    struct stat what;
    if (luck->disk_ms && !fstat(fd, &what) && S_ISREG(what.st_mode)) wait_for_the_disk();
    return syscall(SYS_write, fd, bytes, count);
}

pid_t fork(void) {
    if (luck->no_fork) { errno = ENOMEM; return -1; }
    return ((pid_t (*)(void))dlsym(RTLD_NEXT, "fork"))();
}
"#;

/// What the server is told, until something else is said.
struct Luck(fs::File, [i64; 3]);

impl Luck {
    fn say(&mut self, which: usize, value: i64) {
        self.1[which] = value;
        let bytes: Vec<u8> = self.1.iter().flat_map(|n| n.to_ne_bytes()).collect();
        self.0.seek(SeekFrom::Start(0)).expect("the file is there");
        self.0.write_all(&bytes).expect("and can be written");
    }

    /// Sets the wall clock so many seconds ahead of the right time.
    fn clock_ahead(&mut self, seconds: i64) {
        self.say(0, seconds);
    }

    /// Lets each write to a file, and each sync, take so long.
    fn disk_takes_ms(&mut self, ms: i64) {
        self.say(1, ms);
    }

    fn forks_fail(&mut self, fail: bool) {
        self.say(2, i64::from(fail));
    }
}

/// Runs a test on each server, as one whose luck the test decides.
async fn on_every_unlucky_server(test: impl AsyncFn(&'static Binary, &mut Luck)) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (source, library) = (dir.path().join("luck.c"), dir.path().join("luck.so"));
    fs::write(&source, LIBRARY).expect("the folder can be written");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .output()
        .expect("cc is there: Rust links with it");
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
    on_every_server(async |binary| {
        let place = tempfile::tempdir().expect("a temporary folder");
        let file = place.path().join("luck");
        let mut luck = Luck(fs::File::create(&file).expect("a file"), [0; 3]);
        luck.clock_ahead(0);
        test(under(binary, &library, &file, &place), &mut luck).await;
    })
    .await;
}

/// The same server with that library before all others.
fn under(binary: &'static Binary, library: &Path, file: &Path, dir: &TempDir) -> &'static Binary {
    let (file, library) = (file.display(), library.display());
    let before = format!("LUCK='{file}' LD_PRELOAD='{library}' exec");
    behind_a_script(binary, dir.path(), &before)
}

/// Sets the server's wall clock so many seconds ahead of the right time, and waits until
/// it says so: Valkey 9 looks at it once in a millisecond.
async fn set_clock(conn: &mut Conn, luck: &mut Luck, ahead_s: i64) {
    luck.clock_ahead(ahead_s);
    wait_for("the clock to be set", SOON, async || {
        let right = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
        let ahead = Clock::of(conn).await.0 / 1_000 - right.as_secs() as i64;
        if (ahead - ahead_s).abs() <= 1 {
            Ok(())
        } else {
            Err(format!("{ahead} s ahead"))
        }
    })
    .await;
}

/// Where a wall clock that was set back by a day would be waited for, each of these
/// would take that day: the server's own timers do.
#[tokio::test]
async fn a_clock_that_is_set_back_keeps_no_pass_no_answer_and_no_sweep_waiting() {
    on_every_unlucky_server(async |binary, luck| {
        let mut server = Setup::on(binary)
            .setting("enforce", "no")
            .setting("max-writes-per-sec", "2000")
            .setting("max-ttl", "1d")
            .start()
            .await;
        let mut conn = server.connect().await;
        celery::seed_results(&mut conn, "s", 6_000).await;
        let id = jobs::start(&mut conn, "HYGIENE.FIXTTL ASYNC").await;
        jobs::wait_until_begun(&mut conn).await;
        set_clock(&mut conn, luck, -DAY).await;
        let done = jobs::wait_until(&mut conn, id, "finished").await;
        assert_eq!(done.map("result").int("stamped"), 6_000, "{done:?}");
        assert_eq!(results_without_ttl(&server).await, 0);
        // A server keeps the moment of an expiry: what had a TTL has a day more. With
        // max-ttl that is cut.
        let fixed = conn.fields("HYGIENE.FIXTTL").await;
        assert_eq!(fixed.int("stamped"), 0, "{fixed:?}");
        assert!(fixed.int("cut") > 0, "{fixed:?}");
        assert!(conn.ttl("celery-task-meta-s0").await <= DAY);

        conn.run(celery::binding("celery", "celery", "celery"))
            .await;
        let mut waiting = server.connect().await;
        let begin = Instant::now();
        let told =
            tokio::spawn(async move { waiting.fields("HYGIENE.TRIGGER a.b TIMEOUT 1s").await });
        tokio::time::sleep(Duration::from_millis(300)).await;
        set_clock(&mut conn, luck, -2 * DAY).await;
        let told = told.await.expect("no panic");
        assert_eq!(told.text("state"), "published", "{told:?}");
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());

        // One write is under way while the clock goes back, and one comes after.
        conn.run("HYGIENE.CONFIG SET enforce yes sweep-interval 1s")
            .await;
        conn.run("SET celery-task-meta-new {}").await;
        wait_for("a TTL", SOON, async || {
            conn.was_given(HOUR, "celery-task-meta-new").await
        })
        .await;
        conn.run("HYGIENE.CONFIG SET enforce no").await;
        conn.run("SET celery-task-meta-bare {}").await;
        wait_for("the sweep's TTL", SOON, async || {
            let ttl = conn.ttl("celery-task-meta-bare").await;
            if ttl > 0 {
                Ok(())
            } else {
                Err(ttl.to_string())
            }
        })
        .await;
        let status = conn.fields("HYGIENE.BEATSTATUS VERBOSE").await;
        assert_ne!(status.text("verdict"), "beat_silent", "{status:?}");
        assert_eq!(conn.int("LLEN celery").await, 1, "the message is kept");
        server.assert_alive();
    })
    .await;
}

/// What the server expires it expires. Beyond that nothing goes by the module's hand:
/// not what seems to have been taken, or left unread, for two days.
#[tokio::test]
async fn a_clock_that_is_set_forward_makes_nothing_an_orphan() {
    on_every_unlucky_server(async |binary, luck| {
        let mut server = Setup::on(binary)
            .setting("sweep-interval", "1s")
            .setting(
                "sweep-orphans",
                "requeue reply_queue event_queue binding chord",
            )
            .setting("visibility-timeout", "1h")
            .start()
            .await;
        let mut conn = server.connect().await;
        let clock = Clock::of(&mut conn).await;
        conn.run(celery::binding("celery", "celery", "celery"))
            .await;
        conn.run(Message::new("a.b", "1").queue("celery").push())
            .await;
        for command in Message::new("a.b", "2").unacked(clock.ago_s(0)) {
            conn.run(command).await;
        }
        let group = "celery-taskset-meta-6f1e0b9a-0000-3000-8000-000000000002";
        conn.run(cmd!["INCR", format!("{group}.t")]).await;
        conn.run(cmd![
            "RPUSH",
            format!("{group}.j"),
            "[1, 1, \"SUCCESS\", 1]"
        ])
        .await;
        let asker = "6f1e0b9a-0000-3000-8000-000000000003.reply.celery.pidbox";
        conn.run(cmd!["RPUSH", asker, "{}"]).await;
        conn.run(cmd!["SET", "celery-task-meta-a", celery::started("a")])
            .await;
        let passes = async |conn: &mut Conn| {
            let all = jobs::all(conn).await;
            let done = all.iter().filter(|job| job.text("state") == "finished");
            done.filter_map(|job| (job.text("by") == "sweep-interval").then_some(job.int("id")))
                .max()
                .unwrap_or(0)
        };
        wait_for("a TTL", SOON, async || {
            conn.was_given(HOUR, "celery-task-meta-a").await
        })
        .await;
        let kept = DataSet::of(&server).await;

        set_clock(&mut conn, luck, 2 * DAY).await;
        let before = passes(&mut conn).await;
        wait_for("two sweeps more", SOON, async || {
            let now = passes(&mut conn).await;
            if now >= before + 2 {
                Ok(())
            } else {
                Err(now.to_string())
            }
        })
        .await;
        assert_eq!(
            conn.int("EXISTS celery-task-meta-a").await,
            0,
            "the server's own expiry"
        );
        let log = server.log();
        assert!(log.contains("the clock was set forward by 1728"), "{log}");

        // Back again: the same data, but for what the server expired.
        set_clock(&mut conn, luck, 0).await;
        let mut left = DataSet::of(&server).await;
        let mut kept = kept;
        for data in [&mut kept, &mut left] {
            data.rows.retain(|row| row.key != b"celery-task-meta-a");
        }
        kept.assert_same(&left, "after a clock that went forward and back");
        assert_eq!(conn.int("HLEN unacked").await, 1);
        server.assert_alive();
    })
    .await;
}

/// The oldest and the newest way to say when a task was done.
#[tokio::test]
async fn results_of_a_clock_that_was_ahead_are_stamped_and_none_is_deleted() {
    on_every_unlucky_server(async |binary, luck| {
        luck.clock_ahead(30 * DAY);
        let mut server = Setup::on(binary).setting("enforce", "no").start().await;
        let mut conn = server.connect().await;
        let ahead = Clock::of(&mut conn).await;
        for (n, form) in (1..).zip([Form::Naive, Form::Utc]) {
            let body = celery::result("a", "SUCCESS", ahead.ago(60), form);
            conn.run(cmd!["SET", celery::result_key(&format!("{n}")), body])
                .await;
        }
        set_clock(&mut conn, luck, 0).await;
        let fixed = conn.fields("HYGIENE.FIXTTL MAXAGE 1s").await;
        assert_eq!(
            (fixed.int("stamped"), fixed.int("deleted")),
            (2, 0),
            "{fixed:?}"
        );
        let scan = conn.fields("HYGIENE.SCAN").await;
        assert_eq!(scan.int("scanned"), 2, "{scan:?}");
        server.assert_alive();
    })
    .await;
}

/// With `appendfsync always` each turn of the event loop waits for the disk, whoever
/// wrote in it. A sweep writes in slices with pauses, so others wait for a few turns.
#[tokio::test]
async fn on_a_slow_disk_a_sweep_lets_others_in_and_loses_nothing_that_was_told() {
    const DISK_MS: i64 = 30;
    on_every_unlucky_server(async |binary, luck| {
        let mut server = Setup::on(binary)
            .setting("enforce", "no")
            .append_only()
            .start()
            .await;
        let mut conn = server.connect().await;
        celery::seed_results(&mut conn, "s", 3_000).await;
        luck.disk_takes_ms(DISK_MS);
        let begin = Instant::now();
        conn.run("SET slow 1").await;
        let one = begin.elapsed();
        assert!(one >= Duration::from_millis(2 * DISK_MS as u64), "{one:?}");

        let mut other = server.connect().await;
        let fixes = tokio::spawn(async move { other.fields("HYGIENE.FIXTTL").await });
        let mut waits = Vec::new();
        while !fixes.is_finished() {
            let begin = Instant::now();
            conn.run("PING").await;
            waits.push(begin.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let fixed = fixes.await.expect("no panic");
        assert_eq!(fixed.int("stamped"), 3_000, "{fixed:?}");
        waits.sort();
        let (half, worst) = (waits[waits.len() / 2], waits[waits.len() - 1]);
        println!(
            "{} others served, half within {half:?}, all within {worst:?}",
            waits.len()
        );
        assert!(waits.len() >= 10, "{} were served meanwhile", waits.len());
        assert!(worst < 30 * one, "{worst:?}, one write takes {one:?}");
        let longest = conn.info("hygiene", "hygiene_longest_slice_cpu_us").await;
        let longest: i64 = longest.expect("it is told").parse().expect("a number");
        assert!(longest < 50_000, "{longest} us");

        // Told means written: all of it is there after a crash.
        let told = DataSet::of(&server).await;
        server.kill_9();
        luck.disk_takes_ms(0);
        server.start_again().await;
        told.assert_same(&DataSet::of(&server).await, "after a crash");
        assert_eq!(results_without_ttl(&server).await, 0);
        server.assert_alive();
    })
    .await;
}

/// What forks is refused or fails, and the server goes on; where it refuses writes for
/// that, a sweep rests.
#[tokio::test]
async fn while_the_server_cannot_fork_sweeps_go_on_or_rest_as_its_writes_do() {
    on_every_unlucky_server(async |binary, luck| {
        let mut server = Setup::on(binary)
            .setting("enforce", "no")
            .config("appendonly yes")
            // Without a disk between them a second fork that fails ends Valkey 9.1.2,
            // with or without the module: rdb.c:3776, `rdb_pipe_read == -1`.
            .config("repl-diskless-sync no")
            .start()
            .await;
        let mut conn = server.connect().await;
        celery::seed_results(&mut conn, "s", 5_000).await;
        luck.forks_fail(true);
        for command in ["BGSAVE", "BGREWRITEAOF"] {
            let refused = conn.ask(command).await;
            assert!(refused.is_err(), "{command}: {refused:?}");
        }
        let log = server.log();
        assert!(log.contains("Cannot allocate memory"), "{log}");
        let mut replica = Setup::on(binary).replica_of(&server).start().await;
        let fixed = conn.fields("HYGIENE.FIXTTL LIMIT 1000").await;
        assert_eq!(fixed.int("stamped"), 1_000, "{fixed:?}");

        // With save points the server takes no write until it could save.
        conn.run(cmd!["CONFIG", "SET", "save", "3600 1"]).await;
        let _ = conn.ask("BGSAVE").await;
        let refused = conn.error("HYGIENE.FIXTTL").await;
        assert!(refused.contains("MISCONF"), "{refused}");
        let (id, rests) = own_sweep_that_rests(&mut conn).await;
        assert!(rests.starts_with("the last save failed"), "{rests}");
        assert_eq!(results_without_ttl(&server).await, 4_000);
        let scan = conn.fields("HYGIENE.SCAN").await;
        assert_eq!(
            scan.int("scanned"),
            5_000,
            "to look needs no child: {scan:?}"
        );

        luck.forks_fail(false);
        conn.run("BGSAVE").await;
        jobs::wait_until(&mut conn, id, "finished").await;
        assert_eq!(results_without_ttl(&server).await, 0);
        wait_until_in_step(&server, &replica).await;
        assert_same_data(&[&server, &replica]).await;
        server.assert_alive();
        replica.assert_alive();
    })
    .await;
}
