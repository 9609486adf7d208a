//! Looks at periodic work that take more than a slice: whoever asked waits for the rest,
//! and what may happen meanwhile.

use std::time::Duration;

use redis::Value;

use crate::celery::{Clock, Message};
use crate::client::{Conn, Fields, error_text, list};
use crate::cmd;
use crate::extremes::no_slice_is_above;
use crate::server::{Server, Setup, on_every_server, on_one_server, same, wait_for};

const SOON: Duration = Duration::from_secs(20);

/// The longest that a slice may take in a build for tests, in µs; of a release it is 2 ms.
const LONGEST_SLICE_US: i64 = 20_000;

/// A broker with more of everything than a look takes in: tables, queues with messages,
/// priorities, messages that were taken.
async fn crowd(conn: &mut Conn, prefix: &str, queues: usize) {
    let message = Message::new("shop.tasks.send", "some-id").queue("celery");
    let script = "for i = ARGV[2], ARGV[3] do local n = string.format('%d', i) \
        redis.call('LPUSH', ARGV[4] .. 'queue' .. n, ARGV[1]) \
        redis.call('LPUSH', ARGV[4] .. 'queue' .. n .. '\\6\\0223', ARGV[1], ARGV[1]) \
        redis.call('SADD', ARGV[4] .. '_kombu.binding.queue' .. n, \
            'queue' .. n .. '\\6\\22\\6\\22queue' .. n) \
        redis.call('SADD', ARGV[4] .. '_kombu.binding.celery', \
            'queue' .. n .. '\\6\\22\\6\\22queue' .. n) \
        redis.call('ZADD', ARGV[4] .. 'unacked_index', ARGV[5], n) \
        redis.call('HSET', ARGV[4] .. 'unacked', n, '[' .. ARGV[1] .. ', \"\", \"celery\"]') end";
    let taken = Clock::of(conn).await.ago_s(60);
    let body = message.body();
    for from in (0..queues).step_by(1_000) {
        let last = (from + 1_000).min(queues) - 1;
        conn.run(cmd!["EVAL", script, 0, &body, from, last, prefix, &taken])
            .await;
    }
    // What passes through a few of them is heard, too.
    for n in 0..50 {
        conn.run(cmd!["LPUSH", format!("{prefix}queue{n}"), &body])
            .await;
    }
}

/// A look takes a second and more: a slice of the shortest, and then a rest.
async fn slowly(conn: &mut Conn) {
    conn.run("HYGIENE.CONFIG SET slice-us 50").await;
    conn.run("HYGIENE.CONFIG SET cpu-percent 1").await;
    conn.run("HYGIENE.CONFIG SET verdict-interval 0").await;
}

async fn quickly(conn: &mut Conn) {
    conn.run("HYGIENE.CONFIG SET slice-us 500").await;
    conn.run("HYGIENE.CONFIG SET cpu-percent 90").await;
}

/// Another client asks, and is seen to wait.
async fn waits(server: &Server, command: &'static str) -> (i64, Asked) {
    let mut client = server.connect().await;
    let id = client.int("CLIENT ID").await;
    let asked = tokio::spawn(async move { client.ask(command).await });
    let mut conn = server.connect().await;
    wait_for("a client that waits", SOON, async || {
        let told = conn.text(cmd!["CLIENT", "LIST", "ID", id]).await;
        let waits = told.contains("flags=b") || asked.is_finished();
        same(waits, true)
    })
    .await;
    assert!(!asked.is_finished(), "{command}: nothing to wait for");
    (id, asked)
}

type Asked = tokio::task::JoinHandle<redis::RedisResult<Value>>;

async fn answer(asked: Asked) -> Result<Value, String> {
    let answer = tokio::time::timeout(SOON * 3, asked).await;
    let answer = answer.expect("an answer").expect("nobody panics");
    answer.map_err(|error| error_text(&error))
}

async fn number(conn: &mut Conn, name: &str) -> i64 {
    let told = conn.info("hygiene", &format!("hygiene_{name}")).await;
    told.expect("INFO hygiene tells it")
        .parse()
        .expect("a number")
}

#[tokio::test]
async fn a_look_at_a_crowd_is_taken_in_slices_however_much_lies_there() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        crowd(&mut conn, "", 5_000).await;
        // Teaches all names.
        conn.run("HYGIENE.SCAN MEMORY OFF").await;
        conn.run("HYGIENE.STATS RESET").await;
        let status = conn.fields("HYGIENE.BEATSTATUS VERBOSE").await;
        assert!(number(&mut conn, "slices_total").await > 3);
        assert_eq!(status.map("unacked").int("count"), 5_000);
        let says = |status: &Fields, words: &str| {
            let seen = list(status.get("evidence"));
            let seen: Vec<String> = seen.iter().map(crate::client::text).collect();
            assert!(
                seen.iter().any(|line| line.contains(words)),
                "{words}: {seen:?}"
            );
        };
        says(&status, "500 queues were looked at");
        // In one piece within narrower bounds, and told so.
        let told = conn
            .transaction(&[cmd!["HYGIENE.BEATSTATUS", "VERBOSE"]])
            .await;
        let told = Fields::of(&told.expect("an answer")[0]);
        assert_eq!(told.text("verdict"), status.text("verdict"));
        assert_eq!(told.map("unacked").int("count"), 5_000);
        says(&told, "60 queues were looked at");
        no_slice_is_above(
            LONGEST_SLICE_US,
            &mut conn,
            &[
                "HYGIENE.BEATSTATUS",
                "HYGIENE.BEATSTATUS VERBOSE",
                "HYGIENE.DOCTOR",
            ],
        )
        .await;
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_a_look_is_let_go_or_killed_and_the_next_is_served() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        crowd(&mut conn, "", 2_000).await;
        for (way, told) in [
            ("TIMEOUT", "told to stop waiting; nothing was changed"),
            ("ERROR", "UNBLOCKED"),
        ] {
            slowly(&mut conn).await;
            let (id, asked) = waits(&server, "HYGIENE.BEATSTATUS").await;
            let (_, next) = waits(&server, "HYGIENE.DOCTOR").await;
            assert_eq!(conn.int(cmd!["CLIENT", "UNBLOCK", id, way]).await, 1);
            let error = answer(asked).await.expect_err("it is let go");
            assert!(error.contains(told), "{way}: {error}");
            quickly(&mut conn).await;
            assert!(answer(next).await.is_ok(), "{way}");
        }
        slowly(&mut conn).await;
        let (id, asked) = waits(&server, "HYGIENE.DOCTOR").await;
        let (_, next) = waits(&server, "HYGIENE.BEATSTATUS VERBOSE").await;
        let refused = conn.error("MODULE UNLOAD hygiene").await;
        assert!(refused.starts_with("ERR"), "{refused}");
        assert_eq!(conn.int(cmd!["CLIENT", "KILL", "ID", id]).await, 1);
        assert!(answer(asked).await.is_err());
        quickly(&mut conn).await;
        let status = Fields::of(&answer(next).await.expect("an answer"));
        assert_eq!(status.map("unacked").int("count"), 2_000);
        conn.unload_when_idle().await;
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn many_who_ask_at_once_are_all_answered() {
    const CLIENTS: usize = 200;
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        crowd(&mut conn, "", 1_000).await;
        let mut asked = Vec::new();
        for n in 0..CLIENTS {
            let mut client = server.connect_db(i64::try_from(n % 3).unwrap()).await;
            let command = ["HYGIENE.BEATSTATUS", "HYGIENE.DOCTOR"][n % 2];
            asked.push(tokio::spawn(async move { client.ask(command).await }));
        }
        for one in asked {
            let told = crate::acl::said(&Ok(answer(one).await.expect("an answer")));
            assert!(told.contains("unknown") && told.contains("queue"), "{told}");
        }
        assert_eq!(number(&mut conn, "faults_total").await, 0);
        server.assert_alive();
    })
    .await;
}

/// One look after the other is under way, and each is that of its user.
#[tokio::test]
async fn looks_of_several_users_show_each_his_own() {
    on_every_server(async |binary| {
        if !binary.is_7_0_or_newer() {
            return binary.left_out("a module cannot ask what a user may do");
        }
        let mut server = Setup::on(binary)
            .setting("key-prefixes", "lion: zebra:")
            .start()
            .await;
        let mut conn = server.connect().await;
        for name in ["lion", "zebra"] {
            crowd(&mut conn, &format!("{name}:"), 500).await;
            conn.run(format!("ACL SETUSER {name} on nopass ~{name}:* &* +@all"))
                .await;
        }
        slowly(&mut conn).await;
        let mut asked = Vec::new();
        for n in 0..12 {
            let (own, other) = [("lion", "zebra"), ("zebra", "lion")][n % 2];
            let command = ["HYGIENE.BEATSTATUS VERBOSE", "HYGIENE.DOCTOR"][n / 2 % 2];
            let mut client = server.connect().await;
            client.run(cmd!["AUTH", own, "any"]).await;
            let task = tokio::spawn(async move { client.ask(command).await });
            asked.push((own, other, command, task));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        quickly(&mut conn).await;
        for (own, other, command, task) in asked {
            let told = answer(task).await;
            let told = crate::acl::said(&Ok(told.expect("an answer")));
            assert!(told.contains(own), "{own} {command}: {told}");
            assert!(!told.contains(other), "{own} {command}: {told}");
        }
        // One whose user goes meanwhile sees nothing more of what was his.
        slowly(&mut conn).await;
        let mut client = server.connect().await;
        client.run("AUTH lion any").await;
        let gone = tokio::spawn(async move { client.ask("HYGIENE.BEATSTATUS").await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        conn.run("ACL DELUSER lion").await;
        quickly(&mut conn).await;
        assert!(answer(gone).await.is_err(), "the server closes it");
        conn.run("HYGIENE.BEATSTATUS").await;
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn a_look_goes_on_whatever_becomes_of_the_data_set() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        for change in [
            "FLUSHALL",
            "FLUSHDB ASYNC",
            "SWAPDB 0 1",
            "DEBUG RELOAD",
            "REPLICAOF 127.0.0.1 1",
            "CLIENT PAUSE 100 ALL",
        ] {
            crowd(&mut conn, "", 1_000).await;
            slowly(&mut conn).await;
            let (_, asked) = waits(&server, "HYGIENE.BEATSTATUS VERBOSE").await;
            conn.run(change).await;
            quickly(&mut conn).await;
            // The server itself lets go of all who wait when it becomes a replica.
            match answer(asked).await {
                Ok(_) => {}
                Err(error) => {
                    let role = change.starts_with("REPLICAOF") && error.starts_with("UNBLOCKED");
                    assert!(role, "{change}: {error}");
                }
            }
            conn.run("REPLICAOF NO ONE").await;
            conn.run("HYGIENE.BEATSTATUS").await;
        }
        assert_eq!(number(&mut conn, "faults_total").await, 0);
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn a_look_that_panics_is_told_to_all_who_wait_for_it_and_the_next_is_whole() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        crowd(&mut conn, "", 1_000).await;
        slowly(&mut conn).await;
        let (_, first) = waits(&server, "HYGIENE.BEATSTATUS").await;
        let (_, next) = waits(&server, "HYGIENE.DOCTOR").await;
        conn.run("HYGIENE.FAULT slice 1").await;
        let error = answer(first).await.expect_err("a fault");
        assert!(error.contains("internal fault"), "{error}");
        quickly(&mut conn).await;
        assert!(answer(next).await.is_ok());
        // So is the verdict on much, which is found beside the main thread.
        conn.run("HYGIENE.FAULT beside 1").await;
        let error = conn.ask("HYGIENE.BEATSTATUS").await.expect_err("a fault");
        assert!(error_text(&error).contains("internal fault"), "{error}");
        assert!(conn.ask("HYGIENE.DOCTOR").await.is_ok());
        conn.run("HYGIENE.FAULT beside 1").await;
        let error = conn.error("HYGIENE.SCAN").await;
        assert!(error.contains("internal fault"), "{error}");
        let report = conn.fields("HYGIENE.SCAN").await;
        assert!(!list(report.get("findings")).is_empty());
        assert!(number(&mut conn, "faults_total").await >= 3);
        // The library goes while nobody waits for what is being found.
        conn.run("HYGIENE.CONFIG SET verdict-interval 1").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        conn.unload_when_idle().await;
        server.assert_alive();
    })
    .await;
}

const TRIGGER: &str = "HYGIENE.TRIGGER shop.add QUEUE fresh TIMEOUT 60s";

#[tokio::test]
async fn trigger_looks_for_its_queue_in_slices_and_publishes_then() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        crowd(&mut conn, "", 2_000).await;
        conn.run("HYGIENE.SCAN MEMORY OFF").await;
        slowly(&mut conn).await;
        let mut worker = server.connect().await;
        let taken =
            tokio::spawn(async move { format!("{:?}", worker.value("BRPOP fresh 60").await) });
        let (_, first) = waits(&server, TRIGGER).await;
        let (_, second) = waits(&server, TRIGGER).await;
        assert_eq!(number(&mut conn, "faults_total").await, 0);
        let error = conn.error("MODULE UNLOAD hygiene").await;
        assert!(!error.is_empty());
        assert_eq!(conn.int("EXISTS fresh").await, 0);
        assert!(!taken.is_finished(), "published before it was looked");
        quickly(&mut conn).await;
        // kombu's worker asks each second anew.
        let taken = tokio::time::timeout(SOON, taken).await;
        let taken = taken.expect("a message").expect("nobody panics");
        assert!(taken.contains("shop.add"), "{taken}");
        wait_for("the other message", SOON, async || {
            same(conn.int("LLEN fresh").await, 1)
        })
        .await;
        for asked in [first, second] {
            assert!(!asked.is_finished(), "waits for its result");
            asked.abort();
        }
        no_slice_is_above(
            LONGEST_SLICE_US,
            &mut conn,
            &["HYGIENE.TRIGGER shop.add QUEUE fresh TIMEOUT 1s"],
        )
        .await;
        server.assert_alive();
    })
    .await;
}

#[tokio::test]
async fn what_forbids_to_publish_while_trigger_looks_is_told_and_nothing_is_published() {
    on_every_server(async |binary| {
        let mut server = Setup::on(binary).start().await;
        let mut conn = server.connect().await;
        conn.run("CONFIG SET maxmemory-policy noeviction").await;
        for (what, undo, told) in [
            ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "UNBLOCKED"),
            ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "(OOM)"),
            (
                "CONFIG SET min-replicas-to-write 1",
                "CONFIG SET min-replicas-to-write 0",
                "(NOREPLICAS)",
            ),
            ("HYGIENE.FAULT slice 1", "PING", "internal fault"),
        ] {
            crowd(&mut conn, "", 2_000).await;
            slowly(&mut conn).await;
            let (_, asked) = waits(&server, TRIGGER).await;
            conn.run(what).await;
            quickly(&mut conn).await;
            let error = answer(asked).await.expect_err(what);
            assert!(error.contains(told), "{what}: {error}");
            conn.run(undo).await;
            assert_eq!(conn.int("EXISTS fresh").await, 0, "{what}");
            conn.run("FLUSHALL").await;
        }
        // Whoever leaves publishes nothing, nor who is told to stop.
        crowd(&mut conn, "", 2_000).await;
        slowly(&mut conn).await;
        for way in ["CLIENT UNBLOCK", "CLIENT KILL ID"] {
            let (id, asked) = waits(&server, TRIGGER).await;
            conn.run(format!("{way} {id}").as_str()).await;
            assert!(answer(asked).await.is_err(), "{way}");
        }
        let (_, asked) = waits(&server, TRIGGER).await;
        // What it saw lies there no longer: it looks anew.
        conn.run("FLUSHALL").await;
        quickly(&mut conn).await;
        wait_for("the message", SOON, async || {
            same(conn.int("LLEN fresh").await, 1)
        })
        .await;
        asked.abort();
        server.assert_alive();
    })
    .await;
}

/// Each is described by the server, so they are asked for some at a time, by their ids.
#[tokio::test]
async fn workers_are_counted_among_two_thousand_clients() {
    on_one_server(async |binary| {
        for loaded_later in [false, true] {
            let setup = Setup::on(binary).config("maxclients 3000");
            let setup = if loaded_later {
                setup.without_module()
            } else {
                setup
            };
            let mut server = setup.start().await;
            let mut conn = server.connect().await;
            conn.run(crate::celery::binding("celery", "celery", "celery"))
                .await;
            let mut early = vec![server.connect().await];
            if loaded_later {
                let file = crate::server::module_path();
                conn.run(cmd!["MODULE", "LOAD", file.to_str()]).await;
                // Those before the load become known.
                conn.run("HYGIENE.BEATSTATUS").await;
            }
            for _ in 0..2_000 {
                early.push(server.connect().await);
            }
            let mut workers = Vec::new();
            for mut worker in [early.remove(0), early.pop().expect("a client")] {
                workers.push(tokio::spawn(
                    async move { worker.ask("BRPOP celery 100").await },
                ));
            }
            wait_for("two consumers", SOON, async || {
                let status = conn.fields("HYGIENE.BEATSTATUS VERBOSE").await;
                same(status.map("workers").int("blocked_consumers"), 2)
            })
            .await;
            no_slice_is_above(LONGEST_SLICE_US, &mut conn, &["HYGIENE.BEATSTATUS"]).await;
            let told = conn.transaction(&[cmd!["HYGIENE.BEATSTATUS"]]).await;
            let told = Fields::of(&told.expect("an answer")[0]);
            assert_eq!(told.map("workers").int("blocked_consumers"), -1);
            drop(early);
            wait_for("the others to be gone", SOON, async || {
                let clients = conn.info("clients", "connected_clients").await;
                same(clients.as_deref(), Some("3"))
            })
            .await;
            let told = conn.transaction(&[cmd!["HYGIENE.BEATSTATUS"]]).await;
            let told = Fields::of(&told.expect("an answer")[0]);
            assert_eq!(told.map("workers").int("blocked_consumers"), 2);
            server.assert_alive();
        }
    })
    .await;
}
