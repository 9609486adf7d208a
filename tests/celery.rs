//! Writes keys exactly as Celery, kombu and RedBeat write them, with dates counted
//! from the server's clock.

use chrono::{DateTime, FixedOffset, Utc};
use redis::Cmd;

use crate::client::{Conn, list, text};
use crate::cmd;

/// What every result key begins with.
pub const RESULT: &str = "celery-task-meta-";
/// Between a queue's name and a priority, and between the parts of a binding.
pub const SEP: &str = "\x06\x16";
/// Seconds in an hour, the unit of most cases.
pub const HOUR: i64 = 3600;

/// The server's clock at one moment, in Unix milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Clock(pub i64);

impl Clock {
    /// Asks the server.
    pub async fn of(conn: &mut Conn) -> Self {
        let answer = list(&conn.value("TIME").await);
        let part = |i: usize| text(&answer[i]).parse::<i64>().expect("a number");
        Self(part(0) * 1000 + part(1) / 1000)
    }

    /// That many seconds ago (ahead when negative), in milliseconds.
    pub fn ago(self, seconds: i64) -> i64 {
        self.0 - seconds * 1000
    }

    /// The same in Unix seconds, as kombu and RedBeat score.
    pub fn ago_s(self, seconds: i64) -> i64 {
        self.ago(seconds) / 1000
    }
}

/// How a `date_done` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Celery 4.4 to 5.3: UTC without saying so.
    Naive,
    /// The same when the microseconds are 0: `isoformat` leaves them out.
    NaiveWholeSecond,
    /// Celery 5.4, and 5.5 or newer in UTC.
    Utc,
    /// Celery 5.5 or newer in another time zone, in minutes east.
    Offset(i32),
    /// celery.node: milliseconds and `Z`.
    Node,
    /// Separated by a space, as Python's `str(datetime)`.
    Spaced,
}

/// A moment in Unix milliseconds as text.
pub fn iso(ms: i64, form: Form) -> String {
    let utc: DateTime<Utc> = DateTime::from_timestamp_millis(ms).expect("a date");
    match form {
        Form::Naive => utc.format("%Y-%m-%dT%H:%M:%S%.6f").to_string(),
        Form::NaiveWholeSecond => utc.format("%Y-%m-%dT%H:%M:%S").to_string(),
        Form::Utc => utc.format("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string(),
        Form::Node => utc.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        Form::Spaced => utc.format("%Y-%m-%d %H:%M:%S%.6f").to_string(),
        Form::Offset(minutes) => {
            let zone = FixedOffset::east_opt(minutes * 60).expect("an offset");
            let local = utc.with_timezone(&zone);
            local.format("%Y-%m-%dT%H:%M:%S%.6f%:z").to_string()
        }
    }
}

/// The key of a result.
pub fn result_key(id: &str) -> String {
    format!("{RESULT}{id}")
}

/// A stored result with `date_done` as it is to stand there: JSON text.
pub fn result_body(id: &str, status: &str, result: &str, date_done: &str) -> String {
    format!(
        r#"{{"status": "{status}", "result": {result}, "traceback": null, "children": [], "date_done": {date_done}, "task_id": "{id}"}}"#
    )
}

/// A finished result of that moment.
pub fn result(id: &str, status: &str, done_ms: i64, form: Form) -> String {
    result_body(id, status, "3", &format!("\"{}\"", iso(done_ms, form)))
}

/// STARTED, as `task_track_started` writes it.
pub fn started(id: &str) -> String {
    result_body(
        id,
        "STARTED",
        r#"{"pid": 20668, "hostname": "w1@lab"}"#,
        "null",
    )
}

/// gocelery's: no `date_done` at all.
pub fn undated(id: &str) -> String {
    format!(
        r#"{{"task_id":"{id}","status":"SUCCESS","traceback":null,"result":3,"children":null}}"#
    )
}

/// With `result_extended`: says which task it was.
pub fn extended(id: &str, task: &str, status: &str, done_ms: i64) -> String {
    let date = iso(done_ms, Form::Utc);
    format!(
        r#"{{"status": "{status}", "result": 3, "traceback": null, "children": [], "date_done": "{date}", "name": "{task}", "args": [], "kwargs": {{}}, "worker": "w1@lab", "retries": 0, "queue": "celery", "task_id": "{id}"}}"#
    )
}

/// The pickle (protocol 4) of such a result: the date is plain text inside.
pub fn pickled(id: &str, done_ms: i64) -> Vec<u8> {
    let mut frame = b"}\x94(\x8c\x06status\x94\x8c\x07SUCCESS\x94\x8c\x06result\x94K\x03".to_vec();
    frame.extend(b"\x8c\ttraceback\x94N\x8c\x08children\x94]\x94\x8c\tdate_done\x94");
    for text in [
        iso(done_ms, Form::Naive),
        "task_id".to_owned(),
        id.to_owned(),
    ] {
        frame.extend([0x8c, u8::try_from(text.len()).expect("a short text")]);
        frame.extend(text.as_bytes());
        frame.push(0x94);
    }
    frame.extend(b"u.");
    let mut pickle = b"\x80\x04\x95".to_vec();
    pickle.extend(u64::try_from(frame.len()).expect("a length").to_le_bytes());
    pickle.extend(frame);
    pickle
}

/// Celery 5.7's `result_compression`: the marker, the type and a zlib stream.
pub fn compressed() -> Vec<u8> {
    let mut bytes = b"\0celery-compressed\0application/x-gzip\0".to_vec();
    // A result of 2020, so that one who inflates it and trusts it would delete it.
    bytes.extend(
        b"\x78\x9c\xab\x56\x2a\x2e\x49\x2c\x29\x2d\x56\xb2\x52\x50\x0a\x0e\x75\x76\x76\x0d\x0e\x56\xd2\x51\x50\x2a\x4a\x2d\x2e\xcd\x29\x01\x0a\x1a\x03\x39\x25\x45\x89\xc9\xa9\x49\x89\xc9\xd9\x40\x7e\x5e\x69\x4e\x0e\x50\x28\x39\x23\x33\x27\xa5\x28\x35\x0f\x28\x12\x1d\x0b\xe4\xa7\x24\x96\xa4\xc6\xa7\xe4\xe7\xa5\x82\xcc\x31\x32\x30\x32\xd0\x35\x30\x04\xa2\x10\x03\x03\x2b\x30\xd2\x33\x00\x03\x6d\x30\x07\x64\x41\x49\x62\x71\x76\x7c\x66\x0a\x48\x79\x55\x4e\x66\x92\x52\x2d\x00\xc8\x0b\x26\x4e",
    );
    bytes
}

/// A task message as it lies in a queue.
#[derive(Debug, Clone)]
pub struct Message {
    task: String,
    id: String,
    queue: String,
    origin: String,
    eta: Option<String>,
    priority: u8,
    beat: bool,
    entry: Option<String>,
    tag: String,
    protocol_1: bool,
}

impl Message {
    /// A message for the queue `celery` from one sender.
    pub fn new(task: &str, id: &str) -> Self {
        Self {
            task: task.to_owned(),
            id: id.to_owned(),
            queue: "celery".to_owned(),
            origin: "gen20669@vm".to_owned(),
            eta: None,
            priority: 0,
            beat: false,
            entry: None,
            tag: format!("tag-{id}"),
            protocol_1: false,
        }
    }

    /// As with `task_protocol = 1`: what there is to know is in the body, and the origin
    /// is a UUID in `reply_to`.
    pub fn protocol_1(mut self) -> Self {
        self.protocol_1 = true;
        self
    }

    pub fn queue(mut self, queue: &str) -> Self {
        queue.clone_into(&mut self.queue);
        self
    }

    pub fn origin(mut self, origin: &str) -> Self {
        origin.clone_into(&mut self.origin);
        self
    }

    /// Not to run before then.
    pub fn eta(mut self, ms: i64) -> Self {
        self.eta = Some(iso(ms, Form::Utc));
        self
    }

    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// Marked by the beat of Celery 5.7 or newer.
    pub fn by_beat(mut self) -> Self {
        self.beat = true;
        self
    }

    /// Marked by django-celery-beat 2.3.0 or newer.
    pub fn by_entry(mut self, name: &str) -> Self {
        self.entry = Some(name.to_owned());
        self
    }

    /// The list element.
    pub fn body(&self) -> String {
        let Self {
            task,
            id,
            queue,
            origin,
            priority,
            tag,
            ..
        } = self;
        let eta = self
            .eta
            .as_ref()
            .map_or("null".to_owned(), |eta| format!("\"{eta}\""));
        let mut marks = String::new();
        if self.beat {
            marks += r#", "celery_beat_task": true"#;
        }
        if let Some(entry) = &self.entry {
            marks += &format!(r#", "periodic_task_name": "{entry}""#);
        }
        if self.protocol_1 {
            let body = base64(&format!(
                r#"{{"task": "{task}", "id": "{id}", "args": [1, 2], "kwargs": {{}}, "group": null, "group_index": null, "retries": 0, "eta": {eta}, "expires": null, "utc": true, "callbacks": null, "errbacks": null, "timelimit": [null, null], "taskset": null, "chord": null}}"#
            ));
            let headers = marks.trim_start_matches(", ");
            return format!(
                r#"{{"body": "{body}", "content-encoding": "utf-8", "content-type": "application/json", "headers": {{{headers}}}, "properties": {{"correlation_id": "{id}", "reply_to": "{origin}", "delivery_mode": 2, "delivery_info": {{"exchange": "", "routing_key": "{queue}"}}, "priority": {priority}, "body_encoding": "base64", "delivery_tag": "{tag}"}}}}"#
            );
        }
        format!(
            r#"{{"body": "W1sxLCAyXSwge30sIHt9XQ==", "content-encoding": "utf-8", "content-type": "application/json", "headers": {{"lang": "py", "task": "{task}", "id": "{id}", "shadow": null, "eta": {eta}, "expires": null, "group": null, "group_index": null, "retries": 0, "timelimit": [null, null], "root_id": "{id}", "parent_id": null, "argsrepr": "[1, 2]", "kwargsrepr": "{{}}", "origin": "{origin}", "ignore_result": false, "replaced_task_nesting": 0, "stamped_headers": null, "stamps": {{}}{marks}}}, "properties": {{"correlation_id": "{id}", "reply_to": "0f5ee1b4-3c1c-3b6e-a1f0-6c5bb9b3c5a1", "delivery_mode": 2, "delivery_info": {{"exchange": "", "routing_key": "{queue}"}}, "priority": {priority}, "body_encoding": "base64", "delivery_tag": "{tag}"}}}}"#
        )
    }

    /// The push a publisher does.
    pub fn push(&self) -> Cmd {
        cmd!["LPUSH", queue_key(&self.queue, self.priority), self.body()]
    }

    /// The two writes by which kombu notes a delivered message that is not done.
    pub fn unacked(&self, delivered_s: i64) -> [Cmd; 2] {
        self.unacked_by("", "", delivered_s)
    }

    /// The same behind a key prefix, for a message that came by an exchange.
    pub fn unacked_by(&self, prefix: &str, exchange: &str, delivered_s: i64) -> [Cmd; 2] {
        let value = format!(r#"[{}, "{exchange}", "{}"]"#, self.body(), self.queue);
        [
            cmd![
                "ZADD",
                format!("{prefix}unacked_index"),
                delivered_s,
                &self.tag
            ],
            cmd!["HSET", format!("{prefix}unacked"), &self.tag, value],
        ]
    }

    /// The list element once kombu has put it back.
    pub fn redelivered(&self) -> String {
        let marked = self
            .body()
            .replace(
                "}, \"properties\"",
                ", \"redelivered\": true}, \"properties\"",
            )
            .replace("}, \"priority\"", ", \"redelivered\": true}, \"priority\"");
        assert_eq!(marked.matches("redelivered").count(), 2, "{marked}");
        marked
    }
}

/// A task of protocol 1 as it lies in `unacked`.
pub fn old_unacked(id: &str, eta_ms: Option<i64>, delivered_s: i64) -> [Cmd; 2] {
    let message = Message::new("a.b", id).protocol_1();
    let message = eta_ms.into_iter().fold(message, Message::eta);
    message.unacked(delivered_s)
}

/// A message under celery-redis-plus: its hash, as version 0.4.1 with Celery 5.7 wrote
/// it to Redis 7.0, and its entries in queue and index. Of a message that a worker has
/// taken, or whose `eta` lies ahead, the one in the queue is missing.
pub fn plus_message(prefix: &str, queue: &str, tag: &str, payload: &str, due_s: i64) -> [Cmd; 3] {
    let (index, list) = (
        format!("{prefix}messages_index:{queue}"),
        format!("{prefix}queue:{queue}"),
    );
    let hash = cmd![
        "HSET",
        format!("{prefix}message:{tag}"),
        "payload",
        payload,
        "routing_key",
        queue,
        "priority",
        0,
        "native_delayed",
        0,
        "eta",
        0,
        "delivery_count",
        0
    ];
    // Priorities come first in the score, then the time in ms.
    let score = 2_550_000_000_000_000 + due_s * 1_000;
    [
        hash,
        cmd!["ZADD", index, format!("{due_s}.5"), tag],
        cmd!["ZADD", list, score, tag],
    ]
}

/// An answer to `inspect ping` as a worker sends it.
pub fn pidbox_reply(asker: &str, tag: &str) -> String {
    format!(
        r#"{{"body": "eyJ3MUBsYWIiOiB7Im9rIjogInBvbmcifX0=", "content-encoding": "utf-8", "content-type": "application/json", "headers": {{"ticket": "8aaf6e47-b23b-450b-94ce-c82401461856", "clock": 3}}, "properties": {{"delivery_mode": 1, "delivery_info": {{"exchange": "reply.celery.pidbox", "routing_key": "{asker}"}}, "priority": 0, "body_encoding": "base64", "delivery_tag": "{tag}"}}}}"#
    )
}

/// An event as a worker sends it: an element of a `celeryev.*` list.
pub fn event(at_ms: i64) -> String {
    let body = base64(&format!(
        r#"{{"hostname": "w1@lab", "utcoffset": 0.0, "pid": 22663, "clock": 2, "timestamp": {}.{:03}, "type": "worker-heartbeat"}}"#,
        at_ms / 1000,
        at_ms % 1000
    ));
    format!(
        r#"{{"body": "{body}", "content-encoding": "utf-8", "content-type": "application/json", "headers": {{"hostname": "w1@lab"}}, "properties": {{"delivery_mode": 1, "delivery_info": {{"exchange": "celeryev", "routing_key": "worker.heartbeat"}}, "priority": 0, "body_encoding": "base64", "delivery_tag": "e-{at_ms}"}}}}"#
    )
}

/// As Python's `b64encode`.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::new();
    for group in text.as_bytes().chunks(3) {
        let bits = group
            .iter()
            .fold(0_usize, |bits, byte| (bits << 8) | usize::from(*byte))
            << (8 * (3 - group.len()));
        for at in 0..4 {
            encoded.push(if at <= group.len() {
                DIGITS[(bits >> (18 - 6 * at)) & 63].into()
            } else {
                '='
            });
        }
    }
    encoded
}

/// The list of a queue at a priority; the steps are 0, 3, 6 and 9.
pub fn queue_key(queue: &str, priority: u8) -> String {
    if priority == 0 {
        queue.to_owned()
    } else {
        format!("{queue}{SEP}{priority}")
    }
}

/// Adds a queue to an exchange's table.
pub fn binding(exchange: &str, routing_key: &str, queue: &str) -> Cmd {
    let member = format!("{routing_key}{SEP}{SEP}{queue}");
    cmd!["SADD", format!("_kombu.binding.{exchange}"), member]
}

/// The id of a process, as kombu makes it.
pub fn oid(n: usize) -> String {
    format!("0f5ee1b4-3c1c-3b6e-a1f0-{n:012}")
}

/// The list of answers to that process.
pub fn reply_list(n: usize) -> String {
    format!("{}.reply.celery.pidbox", oid(n))
}

/// The binding of that list.
pub fn reply_binding(n: usize) -> Cmd {
    binding("reply.celery.pidbox", &oid(n), &reply_list(n))
}

/// How many of [`seed_big_reply_lists`] are bound.
pub const BOUND: usize = 12;

/// Answers that nobody fetched: 22 lists of a megabyte each, [`BOUND`] of them bound.
pub async fn seed_big_reply_lists(conn: &mut Conn) -> Vec<String> {
    let lists: Vec<String> = (0..22).map(reply_list).collect();
    let big = "x".repeat(1_000_000);
    conn.pipe(lists.iter().map(|list| cmd!["LPUSH", list, &big]))
        .await;
    conn.pipe((0..BOUND).map(reply_binding)).await;
    lists
}

/// A RedBeat entry with both its fields, due at that score in the schedule.
pub fn redbeat_entry(
    name: &str,
    task: &str,
    every_s: i64,
    last_run_ms: i64,
    due_s: i64,
) -> [Cmd; 2] {
    redbeat_entry_enabled(name, task, every_s, last_run_ms, due_s, true)
}

/// The same, switched on or off.
pub fn redbeat_entry_enabled(
    name: &str,
    task: &str,
    every_s: i64,
    last_run_ms: i64,
    due_s: i64,
    enabled: bool,
) -> [Cmd; 2] {
    let definition = format!(
        r#"{{"name": "{name}", "task": "{task}", "args": null, "kwargs": {{}}, "options": {{"queue": "maintenance", "expires": 60}}, "schedule": {{"__type__": "interval", "every": {every_s}.0, "relative": false}}, "enabled": {enabled}}}"#
    );
    let utc: DateTime<Utc> = DateTime::from_timestamp_millis(last_run_ms).expect("a date");
    let meta = format!(
        r#"{{"last_run_at": {{"__type__": "datetime", {}, "timezone": "UTC"}}, "total_run_count": 3}}"#,
        utc.format(
            r#""year": %Y, "month": %-m, "day": %-d, "hour": %-H, "minute": %-M, "second": %-S, "microsecond": 798537"#
        )
    );
    let key = format!("redbeat:{name}");
    [
        cmd!["HSET", &key, "definition", definition, "meta", meta],
        cmd!["ZADD", "redbeat::schedule", due_s, &key],
    ]
}

/// RedBeat's lock as a tick leaves it.
pub fn redbeat_lock(ttl_ms: i64) -> Cmd {
    cmd![
        "SET",
        "redbeat::lock",
        "0123456789abcdef0123456789abcdef",
        "PX",
        ttl_ms
    ]
}

/// That many results without TTL, named `prefix` and a number, in one pipeline.
pub async fn seed_results(conn: &mut Conn, prefix: &str, count: usize) {
    // A script is far quicker than a client here, and the million needs it.
    let script = "local body = ARGV[3] \
                  for i = tonumber(ARGV[2]), tonumber(ARGV[2]) + tonumber(ARGV[1]) - 1 do \
                  redis.call('SET', 'celery-task-meta-' .. KEYS[1] .. i, body) end";
    let clock = Clock::of(conn).await;
    let body = result("seeded", "SUCCESS", clock.ago(60), Form::Utc);
    let mut from = 0;
    while from < count {
        let part = (count - from).min(5000);
        conn.run(cmd!["EVAL", script, 1, prefix, part, from, &body])
            .await;
        from += part;
    }
}

mod tests {
    use super::*;

    #[test]
    fn dates_look_as_each_celery_writes_them() {
        let ms = 1_795_578_381_279;
        let rows = [
            (Form::Naive, "2026-11-25T03:46:21.279000"),
            (Form::NaiveWholeSecond, "2026-11-25T03:46:21"),
            (Form::Utc, "2026-11-25T03:46:21.279000+00:00"),
            (Form::Offset(60), "2026-11-25T04:46:21.279000+01:00"),
            (Form::Offset(330), "2026-11-25T09:16:21.279000+05:30"),
            (Form::Node, "2026-11-25T03:46:21.279Z"),
            (Form::Spaced, "2026-11-25 03:46:21.279000"),
        ];
        for (form, expected) in rows {
            assert_eq!(iso(ms, form), expected, "{form:?}");
        }
    }

    #[test]
    fn bodies_are_the_json_they_claim_to_be() {
        let message = Message::new("a.b", "id")
            .by_beat()
            .by_entry("e")
            .eta(0)
            .body();
        for body in [
            message,
            extended("id", "a.b", "SUCCESS", 0),
            started("id"),
            undated("id"),
        ] {
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(&body);
            assert!(parsed.is_ok(), "{body}: {parsed:?}");
        }
    }
}
