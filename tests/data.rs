//! What a server holds, and what it wrote to its append-only file: the two sides
//! that must agree whatever happens.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::fs;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use redis::{Cmd, Value};

use crate::client::{Conn, bytes, int, list, text};
use crate::cmd;
use crate::server::{Server, same, wait_for};

/// The hash where the module itself keeps what it observed; it changes on its own.
pub const STATE_KEY: &[u8] = b"hygiene:state";
/// Redis 6.2 tells no absolute expiry; remaining time plus the clock may be off
/// by the tick between the two.
const TICK_MS: i64 = 2;

/// One key as the server holds it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// Its database.
    pub db: i64,
    /// Its name.
    pub key: Vec<u8>,
    /// Its type.
    pub kind: String,
    /// A digest of its value, the same on every server version.
    pub value: u64,
    /// Its absolute expiry in Unix ms, -1 without.
    pub expires_ms: i64,
}

impl Row {
    /// The same key, type and value, with the same expiry as far as it is known.
    fn matches(&self, other: &Self, tolerance_ms: i64) -> bool {
        let close = if self.expires_ms < 0 || other.expires_ms < 0 {
            self.expires_ms == other.expires_ms
        } else {
            (self.expires_ms - other.expires_ms).abs() <= tolerance_ms
        };
        close
            && (self.db, &self.key, &self.kind, self.value)
                == (other.db, &other.key, &other.kind, other.value)
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            db,
            key,
            kind,
            value,
            expires_ms,
        } = self;
        let key = key.escape_ascii();
        write!(
            f,
            "db{db} {kind} {key} value {value:016x} expires {expires_ms}"
        )
    }
}

/// Everything a server holds, in order.
#[derive(Debug, Clone)]
pub struct DataSet {
    /// Sorted by database and name.
    pub rows: Vec<Row>,
    exact: bool,
}

impl DataSet {
    /// Reads every key of every database but the module's own state.
    pub async fn of(server: &Server) -> Self {
        let mut all = Self::with_state(server).await;
        all.rows.retain(|row| row.key != STATE_KEY);
        all
    }

    async fn with_state(server: &Server) -> Self {
        let exact = server.binary.is_7_0_or_newer();
        let mut rows = Vec::new();
        let mut conn = server.connect().await;
        let keyspace = conn.text("INFO keyspace").await;
        let dbs = keyspace
            .lines()
            .filter_map(|line| line.strip_prefix("db")?.split_once(':')?.0.parse().ok());
        for db in dbs {
            let mut conn = server.connect_db(db).await;
            // A replica in a cluster sends readers away; elsewhere there is no such word.
            let _ = conn.ask("READONLY").await;
            rows.extend(rows_of(&mut conn, db, exact).await);
        }
        rows.sort();
        Self { rows, exact }
    }

    /// The first differences, or none.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let tolerance_ms = if self.exact && other.exact {
            0
        } else {
            TICK_MS
        };
        let mut found = Vec::new();
        let mut left = self.rows.iter().peekable();
        let mut right = other.rows.iter().peekable();
        while found.len() < 5 {
            match (left.peek(), right.peek()) {
                (None, None) => break,
                (Some(a), Some(b)) if (a.db, &a.key) == (b.db, &b.key) => {
                    if !a.matches(b, tolerance_ms) {
                        found.push(format!("{a:?}  !=  {b:?}"));
                    }
                    left.next();
                    right.next();
                }
                (Some(a), Some(b)) if (a.db, &a.key) > (b.db, &b.key) => {
                    found.push(format!("only second: {b:?}"));
                    right.next();
                }
                (None, Some(b)) => {
                    found.push(format!("only second: {b:?}"));
                    right.next();
                }
                (Some(a), _) => {
                    found.push(format!("only first: {a:?}"));
                    left.next();
                }
            }
        }
        found
    }

    /// Fails with the first differences.
    pub fn assert_same(&self, other: &Self, what: &str) {
        let found = self.differences(other);
        assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
    }

    /// The keys with that beginning.
    pub fn with_prefix(&self, prefix: &str) -> Vec<&Row> {
        self.rows
            .iter()
            .filter(|row| row.key.starts_with(prefix.as_bytes()))
            .collect()
    }
}

async fn rows_of(conn: &mut Conn, db: i64, exact: bool) -> Vec<Row> {
    let mut keys = Vec::new();
    let mut cursor = b"0".to_vec();
    loop {
        let answer = list(&conn.value(cmd!["SCAN", &cursor, "COUNT", 1000]).await);
        keys.extend(list(&answer[1]).iter().map(bytes));
        cursor = bytes(&answer[0]);
        if cursor == b"0" {
            break;
        }
    }
    keys.sort();
    keys.dedup();
    let kinds = conn.pipe(keys.iter().map(|key| cmd!["TYPE", key])).await;
    let expiries = conn
        .pipe(keys.iter().map(|key| expiry_of(key, exact)))
        .await;
    let reads: Vec<Cmd> = keys
        .iter()
        .zip(&kinds)
        .map(|(key, kind)| read_of(key, &text(kind)))
        .collect();
    let values = conn.pipe(reads).await;
    keys.into_iter()
        .zip(kinds)
        .zip(expiries)
        .zip(values)
        // Expired before it was read, or while it was.
        .filter(|(((_, kind), expiry), _)| text(kind) != "none" && int(expiry) != -2)
        .map(|(((key, kind), expiry), value)| Row {
            db,
            key,
            value: digest(&value, &text(&kind)),
            kind: text(&kind),
            expires_ms: int(&expiry),
        })
        .collect()
}

fn expiry_of(key: &[u8], exact: bool) -> Cmd {
    if exact {
        return cmd!["PEXPIRETIME", key];
    }
    // The clock is read before and after, and once more if it has gone on between:
    // on a busy machine anything may come in the middle.
    let script = "local function now() \
                    local t = redis.call('TIME') \
                    return t[1] * 1000 + math.floor(t[2] / 1000) \
                  end \
                  local left, before \
                  for _ = 1, 100 do \
                    before = now() \
                    left = redis.call('PTTL', KEYS[1]) \
                    if left < 0 then return left end \
                    if now() == before then break end \
                  end \
                  return left + before";
    cmd!["EVAL", script, 1, key]
}

fn read_of(key: &[u8], kind: &str) -> Cmd {
    match kind {
        "string" => cmd!["GET", key],
        "list" => cmd!["LRANGE", key, 0, -1],
        "set" => cmd!["SMEMBERS", key],
        "hash" => cmd!["HGETALL", key],
        "zset" => cmd!["ZRANGE", key, 0, -1, "WITHSCORES"],
        "stream" => cmd!["XRANGE", key, "-", "+"],
        _ => cmd!["ECHO", "expired while read"],
    }
}

/// Order counts where the type has one.
fn digest(value: &Value, kind: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut parts: Vec<String> = match (kind, value) {
        ("hash", Value::Array(items)) => items.chunks(2).map(|pair| format!("{pair:?}")).collect(),
        (_, Value::Array(items) | Value::Set(items)) => {
            items.iter().map(|item| format!("{item:?}")).collect()
        }
        (_, other) => vec![format!("{other:?}")],
    };
    if matches!(kind, "set" | "hash") {
        parts.sort();
    }
    parts.hash(&mut hasher);
    hasher.finish()
}

/// Waits until every replica has all that the first server wrote, then compares
/// keys, values and expiries, the module's own state included.
///
/// Redis 6.2 sends a client's own `SET EX` and `EXPIRE` to replicas as a time from
/// now, so there the data may hold no such key: its expiries differ without us.
pub async fn assert_same_data(servers: &[&Server]) {
    let (primary, replicas) = servers.split_first().expect("a primary");
    assert!(!replicas.is_empty(), "a comparison needs two servers");
    for replica in replicas {
        let what = format!(
            "{} to agree with {}",
            replica.binary.name, primary.binary.name
        );
        wait_for(&what, Duration::from_secs(60), async || {
            in_step(primary, replica).await?;
            let first = DataSet::with_state(primary).await;
            let second = DataSet::with_state(replica).await;
            let found = first.differences(&second);
            if found.is_empty() {
                Ok(())
            } else {
                Err(found.join("\n"))
            }
        })
        .await;
    }
}

/// Waits until the replica has taken all that the primary has sent.
pub async fn wait_until_in_step(primary: &Server, replica: &Server) {
    let what = "the replica to be in step with its primary";
    wait_for(what, Duration::from_secs(60), async || {
        in_step(primary, replica).await
    })
    .await;
}

async fn in_step(primary: &Server, replica: &Server) -> Result<(), String> {
    let mut upper = primary.connect().await;
    let mut lower = replica.connect().await;
    let link = lower.info("replication", "master_link_status").await;
    same(link.as_deref(), Some("up"))?;
    let sent = upper.info("replication", "master_repl_offset").await;
    let taken = lower.info("replication", "slave_repl_offset").await;
    if sent == taken {
        Ok(())
    } else {
        Err(format!("primary at {sent:?}, replica at {taken:?}"))
    }
}

/// The append-only file as the commands in it, in order, each with its database.
pub fn append_only_commands(server: &Server) -> Vec<(i64, Vec<Vec<u8>>)> {
    let dir = server.dir().join("appendonlydir");
    let mut bytes = Vec::new();
    if dir.is_dir() {
        let manifest = fs::read_to_string(dir.join("appendonly.aof.manifest"))
            .expect("a manifest of the append-only file");
        for line in manifest.lines() {
            let mut words = line.split_whitespace().skip_while(|word| *word != "file");
            let name = words.nth(1).expect("a file name in the manifest");
            let part = fs::read(dir.join(name)).expect("a part of the append-only file");
            assert!(!part.starts_with(b"REDIS"), "{name} is no list of commands");
            bytes.extend(part);
        }
    } else {
        let whole = server.dir().join("appendonly.aof");
        bytes = fs::read(whole).expect("the append-only file");
    }
    let mut db = 0;
    let mut commands: Vec<(i64, Vec<Vec<u8>>)> = Vec::new();
    for command in parse_commands(&bytes) {
        if command[0].eq_ignore_ascii_case(b"SELECT") {
            db = String::from_utf8_lossy(&command[1])
                .parse()
                .expect("a db number");
            // Where the database changes, Redis 8 says so inside the transaction.
            if let Some((multi, words)) = commands.last_mut()
                && words == &[b"MULTI".to_vec()]
            {
                *multi = db;
            }
        } else {
            commands.push((db, command));
        }
    }
    commands
}

/// The same as lines a person reads: `9 SET key value`; a transaction's edges
/// belong to no database.
pub fn append_only_lines(server: &Server) -> Vec<String> {
    append_only_commands(server)
        .iter()
        .map(|(db, words)| {
            let words: Vec<String> = words
                .iter()
                .map(|word| word.escape_ascii().to_string())
                .collect();
            match words.join(" ") {
                edge if edge == "MULTI" || edge == "EXEC" => edge,
                words => format!("{db} {words}"),
            }
        })
        .collect()
}

fn parse_commands(mut rest: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let mut commands = Vec::new();
    while !rest.is_empty() {
        let head = line(&mut rest);
        if head.starts_with(b"#") {
            continue;
        }
        let words = number(head, b'*');
        let mut command = Vec::new();
        for _ in 0..words {
            let length = number(line(&mut rest), b'$');
            command.push(rest[..length].to_vec());
            rest = &rest[length + 2..];
        }
        commands.push(command);
    }
    commands
}

fn line<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest
        .windows(2)
        .position(|pair| pair == b"\r\n")
        .expect("a whole line in the append-only file");
    let (line, tail) = rest.split_at(end);
    *rest = &tail[2..];
    line
}

fn number(line: &[u8], mark: u8) -> usize {
    assert_eq!(line.first(), Some(&mark), "in {}", line.escape_ascii());
    String::from_utf8_lossy(&line[1..])
        .parse()
        .expect("a number")
}

mod tests {
    use super::*;
    use crate::server::{Setup, on_every_server};

    #[test]
    fn reads_commands_with_any_bytes_in_them() {
        let file = b"#TS:1\r\n*2\r\n$3\r\nGET\r\n$4\r\n\xff\r\n\0\r\n*1\r\n$4\r\nEXEC\r\n";
        let expected: Vec<Vec<Vec<u8>>> = vec![
            vec![b"GET".to_vec(), b"\xff\r\n\0".to_vec()],
            vec![b"EXEC".to_vec()],
        ];
        assert_eq!(parse_commands(file), expected);
    }

    #[tokio::test]
    async fn a_data_set_tells_values_and_expiries_apart_on_every_server() {
        on_every_server(async |binary| {
            let server = Setup::on(binary)
                .without_module()
                .append_only()
                .start()
                .await;
            let mut conn = server.connect_db(9).await;
            conn.run("SET a 1 EX 100").await;
            conn.run("HSET h f 1 g 2").await;
            let first = DataSet::of(&server).await;
            assert_eq!(first.rows.len(), 2, "{first:?}");
            first.assert_same(&DataSet::of(&server).await, "nothing has changed");
            conn.run("PEXPIRE a 101000").await;
            assert_eq!(first.differences(&DataSet::of(&server).await).len(), 1);
            conn.run("PERSIST a").await;
            assert_eq!(first.differences(&DataSet::of(&server).await).len(), 1);
            conn.run("HSET h f 2").await;
            assert_eq!(first.differences(&DataSet::of(&server).await).len(), 2);
            conn.run("DEL a h").await;
            assert_eq!(first.differences(&DataSet::of(&server).await).len(), 2);
            let lines = append_only_lines(&server);
            assert_eq!(
                lines.last().map(String::as_str),
                Some("9 DEL a h"),
                "{lines:?}"
            );
        })
        .await;
    }

    #[tokio::test]
    async fn a_replica_is_compared_with_its_primary() {
        on_every_server(async |binary| {
            let mut primary = Setup::on(binary)
                .without_module()
                .append_only()
                .start()
                .await;
            let replica = Setup::on(binary)
                .without_module()
                .replica_of(&primary)
                .start()
                .await;
            let mut conn = primary.connect().await;
            conn.run("SET a 1").await;
            conn.run("PEXPIREAT a 4102444800123").await;
            assert_same_data(&[&primary, &replica]).await;
            let before = DataSet::of(&primary).await;
            primary.kill_9();
            primary.start_again().await;
            before.assert_same(&DataSet::of(&primary).await, "after a restart");
        })
        .await;
    }
}
