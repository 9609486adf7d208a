//! Sweeps that run on without their client: started by ASYNC, seen in HYGIENE.JOBS.

use std::time::Duration;

use redis::Value;

use crate::client::{Conn, Fields, ToCmd, int};
use crate::server::wait_for;

/// The id in an ASYNC answer: an integer, or the field `job`.
pub fn job_id(answer: &Value) -> i64 {
    match answer {
        Value::Int(id) => *id,
        other => int(Fields::of(other).get("job")),
    }
}

/// Starts a job and answers its id.
pub async fn start(conn: &mut Conn, command: impl ToCmd) -> i64 {
    job_id(&conn.value(command).await)
}

/// What HYGIENE.JOBS tells: a list of named fields with `id` and `state`.
pub async fn all(conn: &mut Conn) -> Vec<Fields> {
    let answer = conn.value("HYGIENE.JOBS").await;
    crate::client::list(&answer)
        .iter()
        .map(Fields::of)
        .collect()
}

/// One of them.
pub async fn job(conn: &mut Conn, id: i64) -> Fields {
    let jobs = all(conn).await;
    jobs.iter()
        .find(|job| job.int("id") == id)
        .cloned()
        .unwrap_or_else(|| panic!("no job {id} in {jobs:?}"))
}

/// Waits until the job is in that state.
pub async fn wait_until(conn: &mut Conn, id: i64, state: &str) -> Fields {
    let what = format!("job {id} to be {state}");
    wait_for(&what, Duration::from_secs(60), async || {
        let seen = job(conn, id).await;
        if seen.text("state") == state {
            Ok(seen)
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await
}
