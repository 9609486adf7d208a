//! A connection whose answers a test can read in one line, and the reply shapes
//! of RESP2 and RESP3 made alike.

use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, ProtocolVersion, RedisError, RedisResult, Value};

use crate::server::wait_for;

/// Longer than any command of a healthy test takes, a full FIXTTL included.
const ANSWER_DEADLINE: Duration = Duration::from_secs(120);

/// How many times slower than by itself the server is, with whatever watches it:
/// tests/memcheck.sh says so.
pub fn times_slower() -> u32 {
    let told = std::env::var("HYGIENE_TEST_TIMES_SLOWER");
    told.map_or(1, |told| told.parse().expect("a whole number"))
}
/// What a busy machine may need between a write and a look at its TTL, in seconds.
const A_WHILE: i64 = 30;

/// Builds a command from words and values: `cmd!["SET", key, 5]`.
#[macro_export]
macro_rules! cmd {
    ($name:expr $(, $arg:expr)* $(,)?) => {{
        #[allow(unused_mut)]
        let mut command = redis::cmd($name);
        $( command.arg($arg); )*
        command
    }};
}

/// What can be sent: a command, or a line of words as typed into redis-cli.
pub trait ToCmd {
    /// The command to send.
    fn to_cmd(&self) -> Cmd;
}

impl ToCmd for Cmd {
    fn to_cmd(&self) -> Cmd {
        self.clone()
    }
}

impl ToCmd for &str {
    fn to_cmd(&self) -> Cmd {
        let mut command = Cmd::new();
        for word in self.split_whitespace() {
            command.arg(word);
        }
        command
    }
}

impl ToCmd for String {
    fn to_cmd(&self) -> Cmd {
        self.as_str().to_cmd()
    }
}

/// One connection.
#[derive(Clone)]
pub struct Conn {
    inner: MultiplexedConnection,
}

impl Conn {
    /// Unloads the module as soon as the server lets it: nothing may be under way.
    pub async fn unload_when_idle(&mut self) {
        wait_for(
            "the idle module to unload",
            Duration::from_secs(5),
            async || match self.ask("MODULE UNLOAD hygiene").await {
                Ok(_) => Ok(()),
                Err(error) => Err(error_text(&error)),
            },
        )
        .await;
    }

    /// Connects, or says why not.
    pub async fn open(port: u16, db: i64, protocol: ProtocolVersion) -> RedisResult<Self> {
        let settings = redis::RedisConnectionInfo::default()
            .set_db(db)
            .set_protocol(protocol)
            // CLIENT SETINFO would fail on servers before 7.2.
            .set_skip_set_lib_name();
        let info = redis::IntoConnectionInfo::into_connection_info(("127.0.0.1", port))?
            .set_redis_settings(settings);
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(10)))
            .set_response_timeout(Some(ANSWER_DEADLINE * times_slower()));
        let inner = redis::Client::open(info)?
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        Ok(Self { inner })
    }

    /// The answer or the error.
    pub async fn ask(&mut self, command: impl ToCmd) -> RedisResult<Value> {
        command.to_cmd().query_async(&mut self.inner).await
    }

    /// The answer; an error fails the test.
    pub async fn value(&mut self, command: impl ToCmd) -> Value {
        let command = command.to_cmd();
        match command.query_async(&mut self.inner).await {
            Ok(value) => value,
            Err(error) => panic!("{} answered {}", shown(&command), error_text(&error)),
        }
    }

    /// Runs a command for its effect; an error fails the test.
    pub async fn run(&mut self, command: impl ToCmd) {
        self.value(command).await;
    }

    /// An integer answer.
    pub async fn int(&mut self, command: impl ToCmd) -> i64 {
        int(&self.value(command).await)
    }

    /// A text answer.
    pub async fn text(&mut self, command: impl ToCmd) -> String {
        text(&self.value(command).await)
    }

    /// An answer made of named fields.
    pub async fn fields(&mut self, command: impl ToCmd) -> Fields {
        Fields::of(&self.value(command).await)
    }

    /// The error's text; an answer that is none fails the test.
    pub async fn error(&mut self, command: impl ToCmd) -> String {
        let command = command.to_cmd();
        match command.query_async::<Value>(&mut self.inner).await {
            Err(error) => error_text(&error),
            Ok(value) => panic!("{} should be refused, answered {value:?}", shown(&command)),
        }
    }

    /// Sends many commands at once, and fails at the first error.
    pub async fn pipe(&mut self, commands: impl IntoIterator<Item = Cmd>) -> Vec<Value> {
        let mut answers = Vec::new();
        let mut commands = commands.into_iter().peekable();
        while commands.peek().is_some() {
            let mut pipe = redis::pipe();
            for command in commands.by_ref().take(1000) {
                pipe.add_command(command);
            }
            let part: Vec<Value> = pipe
                .query_async(&mut self.inner)
                .await
                .unwrap_or_else(|error| panic!("a pipeline answered {}", error_text(&error)));
            answers.extend(part);
        }
        answers
    }

    /// Sends commands between MULTI and EXEC; the answers of EXEC.
    pub async fn transaction(&mut self, commands: &[Cmd]) -> RedisResult<Vec<Value>> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        for command in commands {
            pipe.add_command(command.clone());
        }
        pipe.query_async(&mut self.inner).await
    }

    /// `TTL key`, with the key's raw bytes.
    pub async fn ttl(&mut self, key: impl AsRef<[u8]>) -> i64 {
        self.int(cmd!["TTL", key.as_ref()]).await
    }

    /// `Ok` if the key was given a TTL of that many seconds a while ago; -1 stands for
    /// none and -2 for no key, as TTL answers. Else what TTL answers.
    pub async fn was_given(&mut self, ttl: i64, key: impl AsRef<[u8]>) -> Result<(), String> {
        match self.ttl(key.as_ref()).await {
            left if is_left_of(ttl, left) => Ok(()),
            left => Err(format!("a TTL of {left}, not {ttl}")),
        }
    }

    /// Fails the test unless the key was given a TTL of that many seconds.
    pub async fn assert_given(&mut self, ttl: i64, key: impl AsRef<[u8]>) {
        let key = key.as_ref();
        if let Err(seen) = self.was_given(ttl, key).await {
            panic!("{}: {seen}", key.escape_ascii());
        }
    }

    /// The part of INFO's line `name:` behind the colon.
    pub async fn info(&mut self, section: &str, name: &str) -> Option<String> {
        let info = self.text(cmd!["INFO", section]).await;
        info.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(|value| value.trim().to_owned())
    }
}

/// A command as a person would type it.
pub fn shown(command: &Cmd) -> String {
    let words: Vec<String> = command
        .args_iter()
        .map(|arg| match arg {
            redis::Arg::Simple(bytes) => {
                let cut = bytes.get(..64).unwrap_or(bytes);
                cut.escape_ascii().to_string()
            }
            _ => "<cursor>".to_owned(),
        })
        .collect();
    words.join(" ")
}

/// What the server wrote behind the minus sign.
pub fn error_text(error: &RedisError) -> String {
    match (error.kind(), error.code(), error.detail()) {
        (ErrorKind::Server(_) | ErrorKind::Extension, Some(code), detail) => {
            format!("{code} {}", detail.unwrap_or_default())
        }
        _ => format!("(client side) {error}"),
    }
}

/// The bytes of a string reply of any kind.
pub fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::BulkString(bytes) => bytes.clone(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.clone().into_bytes(),
        Value::Okay => b"OK".to_vec(),
        Value::Int(n) => n.to_string().into_bytes(),
        other => panic!("expected a string, got {other:?}"),
    }
}

/// The text of a string reply of any kind.
pub fn text(value: &Value) -> String {
    String::from_utf8_lossy(&bytes(value)).into_owned()
}

/// An integer reply; text is refused, so that a number sent as text is seen.
pub fn int(value: &Value) -> i64 {
    match value {
        Value::Int(n) => *n,
        other => panic!("expected an integer, got {other:?}"),
    }
}

/// The elements of an array or set.
pub fn list(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(items) | Value::Set(items) => items.clone(),
        other => panic!("expected an array, got {other:?}"),
    }
}

/// Whether `left` is what a TTL of `ttl` seconds is after [`A_WHILE`] at most.
pub fn is_left_of(ttl: i64, left: i64) -> bool {
    let least = if ttl < 0 { ttl } else { (ttl - A_WHILE).max(0) };
    (least..=ttl).contains(&left)
}

/// Named fields in the order they came, from a RESP3 map or RESP2's flat array.
#[derive(Clone, PartialEq)]
pub struct Fields(pub Vec<(String, Value)>);

impl Fields {
    /// Reads a reply as named fields.
    pub fn of(value: &Value) -> Self {
        let pairs = match value {
            Value::Map(pairs) => pairs.clone(),
            Value::Array(items) if items.len() % 2 == 0 => items
                .chunks_exact(2)
                .map(|pair| (pair[0].clone(), pair[1].clone()))
                .collect(),
            other => panic!("expected named fields, got {other:?}"),
        };
        Self(
            pairs
                .into_iter()
                .map(|(name, value)| (text(&name), value))
                .collect(),
        )
    }

    /// The names, in order.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Whether the field is there.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// The field's value; its absence fails the test.
    pub fn get(&self, name: &str) -> &Value {
        match self.0.iter().find(|(known, _)| known == name) {
            Some((_, value)) => value,
            None => panic!("no field {name} in {self:?}"),
        }
    }

    /// An integer field.
    pub fn int(&self, name: &str) -> i64 {
        match self.get(name) {
            Value::Int(n) => *n,
            other => panic!("field {name} should be an integer, is {other:?}"),
        }
    }

    /// A text field.
    pub fn text(&self, name: &str) -> String {
        text(self.get(name))
    }

    /// A field made of named fields.
    pub fn map(&self, name: &str) -> Self {
        Self::of(self.get(name))
    }

    /// A field that is a list of named fields.
    pub fn maps(&self, name: &str) -> Vec<Self> {
        list(self.get(name)).iter().map(Self::of).collect()
    }

    /// A field that holds named things, each with fields of its own: a list whose
    /// entries say their name in the field `by`, or a map from name to fields.
    pub fn named(&self, field: &str, by: &str) -> Vec<(String, Self)> {
        let value = self.get(field);
        let listed = match value {
            Value::Array(items) => items
                .first()
                .is_none_or(|first| matches!(first, Value::Array(_) | Value::Map(_))),
            _ => false,
        };
        if listed {
            let entries = self.maps(field).into_iter();
            entries.map(|entry| (entry.text(by), entry)).collect()
        } else {
            let entries = Self::of(value).0.into_iter();
            entries
                .map(|(name, value)| (name, Self::of(&value)))
                .collect()
        }
    }

    /// One of them.
    pub fn one(&self, field: &str, by: &str, wanted: &str) -> Self {
        let found = self
            .named(field, by)
            .into_iter()
            .find(|(name, _)| name == wanted);
        match found {
            Some((_, entry)) => entry,
            None => panic!("no {by} {wanted} among {field} in {self:?}"),
        }
    }

    /// Integer fields side by side, for one comparison.
    pub fn ints(&self, names: &[&str]) -> Vec<(String, i64)> {
        names
            .iter()
            .map(|name| ((*name).to_owned(), self.int(name)))
            .collect()
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.0.iter().map(|(name, value)| (name, Plain(value))))
            .finish()
    }
}

/// A reply printed the way redis-cli would, so that a failure can be read.
struct Plain<'a>(&'a Value);

impl fmt::Debug for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::BulkString(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Value::Int(n) => write!(f, "{n}"),
            Value::Array(items) | Value::Set(items) => {
                f.debug_list().entries(items.iter().map(Plain)).finish()
            }
            Value::Map(pairs) => f
                .debug_map()
                .entries(pairs.iter().map(|(k, v)| (Plain(k), Plain(v))))
                .finish(),
            other => write!(f, "{other:?}"),
        }
    }
}
