//! Starts and stops real servers with the fresh module loaded.
//!
//! A server owns its port, its folder and its deadlines. It is shut down when
//! dropped; when the test has failed the tail of its log is printed, and a server
//! that died without being told to fails the test.

use std::fmt::Debug;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use redis::ProtocolVersion;
use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::client::Conn;

/// How long a server may take to start or to stop.
const LIFE_DEADLINE: Duration = Duration::from_secs(60);
/// What any wait has at least: a deadline is there to end a test that hangs, and says
/// nothing of how fast things are to happen, for the machine may be a busy one.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks of a wait.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Lines of the server's log shown when a test fails.
const LOG_TAIL: usize = 60;
/// What `tests/servers.sh` fetches, and which of it every run of the tests needs.
const LIST: &str = include_str!("servers.list");

/// Waits until `look` answers `Ok`; until then it answers what it saw instead.
pub async fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = deadline.max(PATIENCE);
    let start = Instant::now();
    loop {
        match look().await {
            Ok(value) => return value,
            Err(seen) if start.elapsed() >= deadline => {
                panic!("expected {what} within {deadline:?}, last saw: {seen}")
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Looks again and again for that long; the first `Err` fails the test. For what
/// must not happen.
pub async fn stays(what: &str, long: Duration, mut look: impl AsyncFnMut() -> Result<(), String>) {
    let start = Instant::now();
    while start.elapsed() < long {
        if let Err(seen) = look().await {
            panic!(
                "expected {what} for {long:?}, saw after {:?}: {seen}",
                start.elapsed()
            );
        }
        tokio::time::sleep(LOOK_EVERY * 5).await;
    }
}

/// `Ok` when equal, what was seen otherwise: the usual end of a look.
pub fn same<T: PartialEq + Debug>(seen: T, wanted: T) -> Result<(), String> {
    if seen == wanted {
        Ok(())
    } else {
        Err(format!("{seen:?}"))
    }
}

/// A server program and what it can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    /// Where it lies.
    pub path: PathBuf,
    /// As a person names it: `Redis 7.0.15`.
    pub name: String,
    valkey: bool,
    version: (u32, u32),
}

impl Binary {
    fn at(path: &Path) -> Result<Self, String> {
        let output = Command::new(path)
            .arg("--version")
            .output()
            .map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = said
            .split_whitespace()
            .find_map(|word| word.strip_prefix("v="))
            .ok_or_else(|| format!("--version says {said:?}"))?;
        let mut parts = number.split('.').map(|part| part.parse().unwrap_or(0));
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        let valkey = said.starts_with("Valkey");
        Ok(Self {
            path: path.to_owned(),
            name: format!("{} {number}", if valkey { "Valkey" } else { "Redis" }),
            valkey,
            version,
        })
    }

    /// Whether the expiry goes out in one transaction with the write: the server
    /// runs jobs after a notification (Redis 7.2, every Valkey).
    pub fn stamps_in_the_same_unit(&self) -> bool {
        self.valkey || self.version >= (7, 2)
    }

    /// Whether modules have settings of their own in CONFIG, and commands can be
    /// refused by the `enable-*-command` settings (Redis 7.0, every Valkey).
    pub fn is_7_0_or_newer(&self) -> bool {
        self.valkey || self.version >= (7, 0)
    }

    /// Whether listening to generic events makes this server leave clients in the
    /// wrong database (Valkey 8.1.0 to 9.1.0): RENAME, COPY, RESTORE and MOVE are
    /// then left to the sweep.
    pub fn generic_events_do_harm(&self) -> bool {
        self.valkey
            && self.version >= (8, 1)
            && (self.version < (9, 1) || self.name.ends_with("9.1.0"))
    }

    /// Whether ACL CAT names the commands of modules that are in a category, too: the
    /// first servers with such categories left them out (redis PR #13489, valkey PR #1140).
    pub fn acl_cat_names_modules_commands(&self) -> bool {
        let first = ["Redis 7.4.0", "Redis 7.4.1", "Valkey 8.0.0", "Valkey 8.0.1"];
        !first.contains(&self.name.as_str())
    }

    /// Whether a slot of a cluster can move as a whole (Valkey 9.0).
    pub fn moves_slots_whole(&self) -> bool {
        self.valkey && self.version >= (9, 0)
    }

    /// Says why a test has nothing to try on this server, or not all of it;
    /// tests/matrix.py tells it on.
    pub fn left_out(&self, why: &str) {
        println!("left out on {}: {why}", self.name);
    }
}

/// The server every test runs on: `redis-server` on PATH, or the first of
/// `HYGIENE_TEST_SERVERS`.
pub fn primary() -> &'static Binary {
    &every()[0]
}

/// The oldest Redis at hand, whose data set every other server can read.
pub fn oldest() -> &'static Binary {
    let redis = every().iter().filter(|binary| !binary.valkey);
    redis
        .min_by_key(|binary| binary.version)
        .unwrap_or(primary())
}

/// Every server at hand, the primary one first. Told once, past cargo's capture,
/// with the names of those that had to be left out.
pub fn every() -> &'static [Binary] {
    static FOUND: OnceLock<Vec<Binary>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let (found, left_out) = discover();
        let mut lines = String::new();
        for binary in &found {
            lines += &format!(
                "servers: using {} ({})\n",
                binary.name,
                binary.path.display()
            );
        }
        for reason in &left_out {
            lines += &format!("servers: left out {reason}\n");
        }
        let _ = std::io::stderr().write_all(lines.as_bytes());
        assert!(
            !found.is_empty(),
            "no server to test on: install redis-server, or name one in HYGIENE_TEST_SERVERS"
        );
        found
    })
}

fn discover() -> (Vec<Binary>, Vec<String>) {
    let mut found = Vec::new();
    let mut left_out = Vec::new();
    if let Some(named) = std::env::var_os("HYGIENE_TEST_SERVERS") {
        for path in std::env::split_paths(&named) {
            // A server starts in a folder of its own.
            match std::path::absolute(&path)
                .map_err(|error| error.to_string())
                .and_then(|path| Binary::at(&path))
            {
                Ok(binary) => found.push(binary),
                Err(why) => panic!("HYGIENE_TEST_SERVERS: {}: {why}", path.display()),
            }
        }
        return (found, left_out);
    }
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&on_path)
        .map(|dir| dir.join("redis-server"))
        .find(|path| path.is_file())
    {
        Some(path) => match Binary::at(&path) {
            Ok(binary) => found.push(binary),
            Err(why) => left_out.push(format!("{}: {why}", path.display())),
        },
        None => left_out.push("redis-server: not on PATH".to_owned()),
    }
    for name in listed("test") {
        match fetched(name) {
            Ok(binary) => found.push(binary),
            Err(why) => left_out.push(format!("{name}: {why}")),
        }
    }
    (found, left_out)
}

/// The servers of the list that run then: `test`, `matrix` or `fault`.
fn listed(runs: &str) -> impl Iterator<Item = &'static str> {
    LIST.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(move |line| {
            let mut words = line.split_whitespace();
            let name = words.next()?;
            (words.next()? == runs).then_some(name)
        })
}

/// What `tests/servers.sh` has fetched under that name.
fn fetched(name: &str) -> Result<Binary, String> {
    let servers = std::env::var_os("HYGIENE_SERVERS_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers"),
        PathBuf::from,
    );
    let bin = servers.join(name).join("bin");
    let program = ["redis-server", "valkey-server"]
        .map(|program| bin.join(program))
        .into_iter()
        .find(|path| path.is_file());
    match program {
        Some(path) => Binary::at(&path),
        None => Err("not fetched, run tests/servers.sh".to_owned()),
    }
}

/// Runs a test on each server in turn and says which one it failed on.
pub async fn on_every_server(test: impl AsyncFn(&'static Binary)) {
    for binary in every() {
        println!("--- on {}", binary.name);
        test(binary).await;
    }
}

/// The same, and on the servers that have a fault the test is about: one of them
/// would not be worth the whole suite's time.
pub async fn on_every_server_and_the_faulty(test: impl AsyncFn(&'static Binary)) {
    static FAULTY: OnceLock<Vec<Binary>> = OnceLock::new();
    on_every_server(&test).await;
    if std::env::var_os("HYGIENE_TEST_SERVERS").is_some() {
        return;
    }
    let faulty = FAULTY.get_or_init(|| {
        let found = listed("fault").map(|name| fetched(name).map_err(|why| (name, why)));
        found
            .filter_map(|found| match found {
                Ok(binary) => Some(binary),
                Err((name, why)) => {
                    let line = format!("servers: left out {name}: {why}\n");
                    let _ = std::io::stderr().write_all(line.as_bytes());
                    None
                }
            })
            .collect()
    });
    for binary in faulty {
        println!("--- on {}", binary.name);
        test(binary).await;
    }
}

/// Runs a test on one server: for what takes many at once. `make test-matrix` has
/// each server be that one.
pub async fn on_one_server(test: impl AsyncFn(&'static Binary)) {
    test(primary()).await;
}

/// The module that `cargo test` has just built: it lies beside the test program.
pub fn module_path() -> PathBuf {
    let program = std::env::current_exe().expect("the test program has a path");
    let name = format!("libredis_hygiene{}", std::env::consts::DLL_SUFFIX);
    program.parent().expect("and lies in a folder").join(name)
}

/// An older build of the module, which `tests/older.sh` makes.
pub fn older_module() -> Option<PathBuf> {
    let older = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/older/libredis_hygiene.so");
    older.is_file().then_some(older)
}

/// A server about to be started.
#[derive(Debug, Clone)]
pub struct Setup {
    binary: &'static Binary,
    module: bool,
    file: PathBuf,
    shipped: bool,
    sentinel: bool,
    arguments: Vec<String>,
    config: Vec<String>,
}

impl Setup {
    /// A server of this kind with the module loaded, its default settings, no
    /// sweep of its own and no persistence.
    pub fn on(binary: &'static Binary) -> Self {
        Self {
            binary,
            module: true,
            file: module_path(),
            shipped: false,
            sentinel: false,
            arguments: Vec::new(),
            config: Vec::new(),
        }
    }

    /// The same on the primary server.
    pub fn new() -> Self {
        Self::on(primary())
    }

    /// A server that has never heard of the module.
    pub fn without_module(mut self) -> Self {
        self.module = false;
        self
    }

    /// The module from another file than the fresh one.
    pub fn module_file(mut self, file: &Path) -> Self {
        file.clone_into(&mut self.file);
        self
    }

    /// A sentinel, which holds no data and loads no module.
    pub fn sentinel(mut self) -> Self {
        self.sentinel = true;
        self.without_module()
    }

    /// A node of a cluster that gives a node up after two seconds.
    pub fn cluster_node(self) -> Self {
        self.config("cluster-enabled yes")
            .config("cluster-node-timeout 2000")
    }

    /// The repository's `redis.conf` as it is: only places, the port and the
    /// path of the module are the test's own.
    pub fn shipped_conf(mut self) -> Self {
        self.shipped = true;
        self
    }

    /// An argument behind `loadmodule`.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend([name.to_owned(), quoted(value)]);
        self
    }

    /// Words behind `loadmodule`, as they are: for arguments that must be refused.
    pub fn arguments(mut self, words: &str) -> Self {
        self.arguments.push(words.to_owned());
        self
    }

    /// A line of the server's own configuration.
    pub fn config(mut self, line: &str) -> Self {
        self.config.push(line.to_owned());
        self
    }

    /// Every write goes to the append-only file at once, which can be read as a
    /// list of commands.
    pub fn append_only(self) -> Self {
        self.config("appendonly yes")
            .config("appendfsync always")
            .config("aof-use-rdb-preamble no")
    }

    /// A replica of that server.
    pub fn replica_of(self, primary: &Server) -> Self {
        let line = format!("replicaof 127.0.0.1 {}", primary.port);
        self.config(&line)
    }

    /// Starts the server; its log is the failure's text when it does not come up.
    pub async fn start(self) -> Server {
        let name = self.binary.name.clone();
        match self.try_start().await {
            Ok(server) => server,
            Err(log) => panic!("{name} did not start; its log:\n{log}"),
        }
    }

    /// Starts the server, or answers the log of one that gave up.
    pub async fn try_start(self) -> Result<Server, String> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut last = String::new();
        for _ in 0..5 {
            let port = free_port();
            let conf = dir.path().join("redis.conf");
            fs::write(&conf, self.conf(port, dir.path())).expect("the folder can be written");
            match launch(self.binary, &conf, self.sentinel, port).await {
                Ok(child) => {
                    return Ok(Server {
                        binary: self.binary,
                        port,
                        dir,
                        sentinel: self.sentinel,
                        child: Some(child),
                        kept: None,
                    });
                }
                Err(log) if log.contains("in use") || log.contains("not our server") => last = log,
                Err(log) => return Err(log),
            }
        }
        Err(last)
    }

    fn conf(&self, port: u16, dir: &Path) -> String {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("redis.conf");
        let shipped = fs::read_to_string(&repository).unwrap_or_default();
        let mut lines = Vec::new();
        for line in shipped.lines().map(str::trim) {
            if let Some(line) = self.own_line(line) {
                lines.push(line);
            }
        }
        if self.shipped {
            assert!(!shipped.is_empty(), "{} is missing", repository.display());
        } else {
            lines.extend(
                [
                    "save \"\"",
                    "appendonly no",
                    "maxmemory 0",
                    "repl-diskless-sync-delay 0",
                ]
                .map(str::to_owned),
            );
            if self.binary.is_7_0_or_newer() {
                lines.extend(
                    ["enable-debug-command yes", "enable-module-command yes"].map(str::to_owned),
                );
            }
            if self.module {
                let mut line = format!("loadmodule {}", self.file.display());
                // A sweep at start would race with what a test looks at.
                for (name, value) in [("sweep-on-start", "no"), ("sweep-interval", "0")] {
                    if !self.arguments.iter().any(|known| known == name) {
                        line += &format!(" {name} {value}");
                    }
                }
                for word in &self.arguments {
                    line += &format!(" {word}");
                }
                lines.push(line);
            }
        }
        lines.extend([
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", dir.display()),
            "daemonize no".to_owned(),
            "logfile \"\"".to_owned(),
            "pidfile \"\"".to_owned(),
        ]);
        lines.extend(self.config.iter().cloned());
        lines.join("\n") + "\n"
    }

    /// A line of the shipped `redis.conf` as this server gets it, if it does.
    fn own_line(&self, line: &str) -> Option<String> {
        let (word, rest) = line.split_once(char::is_whitespace)?;
        let word = word.to_ascii_lowercase();
        // Redis 6.2 would stop at a name it does not know.
        let modern = self.binary.is_7_0_or_newer();
        match word.as_str() {
            _ if word.starts_with('#') => None,
            "port" | "bind" | "dir" | "logfile" | "daemonize" | "pidfile" | "unixsocket" => None,
            "loadmodule" if self.shipped => {
                let arguments = rest
                    .trim()
                    .split_once(char::is_whitespace)
                    .map_or("", |s| s.1);
                Some(format!("loadmodule {} {arguments}", self.file.display()))
            }
            "loadmodule" => None,
            "save" | "appendonly" | "appendfsync" if !self.shipped => None,
            _ if word.starts_with("hygiene.") && !(self.shipped && modern) => None,
            _ if word.starts_with("enable-") && !modern => None,
            _ => Some(line.to_owned()),
        }
    }
}

/// As redis.conf wants a value that may be empty or hold spaces.
fn quoted(value: &str) -> String {
    if value.is_empty() || value.contains(' ') {
        format!("\"{value}\"")
    } else {
        value.to_owned()
    }
}

/// A node of a cluster listens 10,000 above it, too.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("and its number").port();
        if port <= 55_535 {
            return port;
        }
    }
}

/// Takes a port without listening there, so that who connects is refused, as by a dead
/// server, and nobody else is given it: no server of another test, whose sentinels or
/// replicas would then be talked to, and no connection, which would find itself.
fn keep_port(port: u16) -> Option<TcpSocket> {
    let socket = TcpSocket::new_v4().ok()?;
    // Connections that the server has just lost are still in the kernel's tables.
    socket.set_reuseaddr(true).ok()?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into()).ok()?;
    Some(socket)
}

/// Starts the program and waits until it answers; the log when it gives up.
async fn launch(binary: &Binary, conf: &Path, sentinel: bool, port: u16) -> Result<Child, String> {
    let dir = conf.parent().expect("the configuration lies in a folder");
    let log = dir.join("server.log");
    let out = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .expect("the folder can be written");
    let from = out.metadata().map_or(0, |meta| meta.len());
    let errors = out.try_clone().expect("a second handle on the log");
    let mut child = Command::new(&binary.path)
        .arg(conf)
        .args(sentinel.then_some("--sentinel"))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(errors)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", binary.path.display()));
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("the child can be asked") {
            return Err(format!("{}\n({status})", log_from(&log, from)));
        }
        if let Ok(mut conn) = Conn::open(port, 0, ProtocolVersion::RESP2).await
            && conn.ask("PING").await.is_ok()
        {
            if conn.info("server", "process_id").await == Some(child.id().to_string()) {
                return Ok(child);
            }
            let _ = child.kill();
            let _ = child.wait();
            return Err("not our server".to_owned());
        }
        if start.elapsed() > LIFE_DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            let log = log_from(&log, from);
            return Err(format!("{log}\n(no answer within {LIFE_DEADLINE:?})"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn log_from(path: &Path, from: u64) -> String {
    let log = fs::read(path).unwrap_or_default();
    let from = usize::try_from(from).unwrap_or(0);
    String::from_utf8_lossy(log.get(from..).unwrap_or_default()).into_owned()
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// The program it is.
    pub binary: &'static Binary,
    /// Where it listens.
    pub port: u16,
    dir: TempDir,
    sentinel: bool,
    child: Option<Child>,
    /// Keeps the port for it while it does not run.
    kept: Option<TcpSocket>,
}

impl Server {
    /// A connection to db 0.
    pub async fn connect(&self) -> Conn {
        self.connect_to(0, ProtocolVersion::RESP2).await
    }

    /// A connection to another db.
    pub async fn connect_db(&self, db: i64) -> Conn {
        self.connect_to(db, ProtocolVersion::RESP2).await
    }

    /// A connection that speaks RESP3.
    pub async fn connect_resp3(&self) -> Conn {
        self.connect_to(0, ProtocolVersion::RESP3).await
    }

    async fn connect_to(&self, db: i64, protocol: ProtocolVersion) -> Conn {
        match Conn::open(self.port, db, protocol).await {
            Ok(conn) => conn,
            Err(error) => panic!("{} takes no connection: {error}", self.binary.name),
        }
    }

    /// The folder with its configuration, log and data.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its whole log, restarts included.
    pub fn log(&self) -> String {
        log_from(&self.dir.path().join("server.log"), 0)
    }

    /// Fails the test, with the log, when the server has ended.
    pub fn assert_alive(&mut self) {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().ok()?);
        assert!(ended.is_none(), "{} ended: {ended:?}", self.binary.name);
    }

    /// Ends it at once, as a crash would.
    pub fn kill_9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the server can be killed");
            child.wait().expect("and has ended");
            self.kept = keep_port(self.port);
        }
    }

    /// Ends it the orderly way; `how` is SAVE or NOSAVE.
    pub fn shut_down(&mut self, how: &str) {
        if let Some(child) = self.child.take() {
            end(child, self.port, how);
            self.kept = keep_port(self.port);
        }
    }

    /// Starts it again in the same folder, on the same port, with the
    /// configuration as it lies there now (CONFIG REWRITE included).
    pub async fn start_again(&mut self) {
        self.kill_9();
        self.kept = None;
        let conf = self.dir.path().join("redis.conf");
        match launch(self.binary, &conf, self.sentinel, self.port).await {
            Ok(child) => self.child = Some(child),
            Err(log) => panic!("{} did not start again; its log:\n{log}", self.binary.name),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let died = match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(status)) => status,
            _ => None,
        };
        if std::thread::panicking() || died.is_some() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_TAIL)..];
            eprintln!("--- log of {} on port {}", self.binary.name, self.port);
            eprintln!("{}\n---", tail.join("\n"));
        }
        if died.is_none()
            && let Some(child) = self.child.take()
        {
            end(child, self.port, "NOSAVE");
        }
        if let Some(status) = died
            && !std::thread::panicking()
        {
            panic!("{} died during the test: {status}", self.binary.name);
        }
    }
}

/// SHUTDOWN first, the axe only after a deadline.
fn end(mut child: Child, port: u16, how: &str) {
    let deadline = if std::thread::panicking() {
        Duration::from_secs(2)
    } else {
        LIFE_DEADLINE
    };
    if let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
        let _ = stream.set_read_timeout(Some(deadline));
        let _ = stream.write_all(format!("SHUTDOWN {how}\r\n").as_bytes());
        let _ = stream.read(&mut [0; 256]);
    }
    let start = Instant::now();
    while start.elapsed() < deadline {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let _ = child.kill();
    let _ = child.wait();
}
