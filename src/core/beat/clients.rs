//! Workers as CLIENT LIST shows them.
//!
//! Seen with Celery 5.2.7 and 5.7.0: a worker has one connection whose last
//! command is BRPOP, blocked or not, one or two that PSUBSCRIBE (control
//! and gossip; `--without-gossip` leaves one), and one whose last command is
//! PUBLISH, for heartbeats every 2 s (with 4.4 too; none with `--without-gossip
//! --without-heartbeat`). `celery events` and Flower only PSUBSCRIBE, a web
//! process only SUBSCRIBEs.

use std::collections::BTreeMap;

use super::evidence::Crowd;

/// `celery inspect` waits in BRPOP too, as a rule for one second.
const ASKER_AGE_S: u64 = 2;

/// Who waited within this time, in whole seconds as CLIENT LIST has them, and
/// does not at the moment is likely between two of kombu's polls.
const BETWEEN_POLLS_S: u64 = 1;

/// Three of a worker's heartbeats, and five. With `--without-heartbeat` alone it
/// says that it is there as it starts, and nothing later.
const HEART_SHOWN_S: u64 = 6;
const HEART_STOPPED_S: u64 = 10;

/// Counts Celery's connections per database in the text of CLIENT LIST, 6.2 and
/// later. Databases without any are left out.
#[must_use]
pub fn crowds(list: &[u8]) -> BTreeMap<u32, Crowd> {
    let mut crowds: BTreeMap<u32, Crowd> = BTreeMap::new();
    for client in list.split(|byte| *byte == b'\n').filter_map(Client::read) {
        let consumer = client.cmd == b"brpop" && client.age_s >= ASKER_AGE_S;
        let subscriber = client.psub > 0;
        let sends = client.cmd == b"publish" && !subscriber;
        if !consumer && !subscriber && !sends {
            continue;
        }
        let crowd = crowds.entry(client.db).or_default();
        crowd.subscribers += u64::from(subscriber);
        crowd.consumers += u64::from(consumer);
        let blocked = consumer && client.flags.contains(&b'b');
        crowd.blocked += u64::from(blocked);
        let went_on = client.age_s.saturating_sub(client.idle_s) >= HEART_SHOWN_S;
        crowd.hearts += u64::from(sends && went_on);
        crowd.beating += u64::from(sends && client.idle_s <= HEART_STOPPED_S);
        crowd.asking += u64::from(blocked || (consumer && client.idle_s <= BETWEEN_POLLS_S));
    }
    crowds
}

/// The ids of all clients in the text of CLIENT LIST.
pub fn client_ids(list: &[u8]) -> impl Iterator<Item = u64> {
    list.split(|byte| *byte == b'\n').filter_map(|line| {
        let first = line.split(|byte| *byte == b' ').next()?;
        number(first.strip_prefix(b"id=")?)
    })
}

struct Client<'a> {
    age_s: u64,
    idle_s: u64,
    flags: &'a [u8],
    db: u32,
    psub: u64,
    cmd: &'a [u8],
}

impl<'a> Client<'a> {
    /// Servers allow no blank in what a client calls itself. If one did, a field
    /// could stand there twice, and such a client is not counted.
    fn read(line: &'a [u8]) -> Option<Self> {
        let [mut age, mut idle, mut flags, mut db, mut psub, mut cmd] = [None; 6];
        for field in line.split(|byte| *byte == b' ') {
            let at = memchr::memchr(b'=', field)?;
            let (name, value) = (field.get(..at)?, field.get(at + 1..)?);
            let slot = match name {
                b"age" => &mut age,
                b"idle" => &mut idle,
                b"flags" => &mut flags,
                b"db" => &mut db,
                b"psub" => &mut psub,
                b"cmd" => &mut cmd,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return None;
            }
        }
        Some(Self {
            age_s: number(age?)?,
            idle_s: number(idle?)?,
            flags: flags?,
            db: u32::try_from(number(db?)?).ok()?,
            psub: number(psub?)?,
            cmd: cmd?,
        })
    }
}

fn number(text: &[u8]) -> Option<u64> {
    crate::core::args::number(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V6: &str = "id=7 addr=127.0.0.1:5 laddr=127.0.0.1:6379 fd=9 name= age=60 idle=0 flags=b db=0 sub=0 psub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=21 obl=0 oll=0 omem=0 tot-mem=21 events=r cmd=brpop user=default redir=-1";
    const V7: &str = "id=7 addr=127.0.0.1:5 laddr=127.0.0.1:6379 fd=9 name= age=60 idle=0 flags=b db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=21 multi-mem=0 rbs=1024 rbp=0 obl=0 oll=0 omem=0 tot-mem=1813 events=r cmd=brpop user=default redir=-1 resp=2";
    const V8: &str = "id=7 addr=127.0.0.1:5 laddr=127.0.0.1:6379 fd=9 name= age=60 idle=0 flags=b db=0 sub=0 psub=0 ssub=0 multi=-1 watch=0 qbuf=0 qbuf-free=0 argv-mem=21 multi-mem=0 rbs=1024 rbp=0 obl=0 oll=0 omem=0 tot-mem=1813 events=r cmd=brpop user=default redir=-1 resp=3 lib-name=redis-py(celery_v5.7.0) lib-ver=8.1.0 io-thread=0 tot-net-in=1 tot-net-out=2 tot-cmds=3";

    fn crowd(subscribers: u64, consumers: u64, blocked: u64) -> Crowd {
        Crowd {
            subscribers,
            consumers,
            blocked,
            asking: blocked,
            ..Crowd::default()
        }
    }

    #[test]
    fn every_line_has_an_id() {
        let list = [V6, V7, V8, "", "addr=id=3 id=4"].join("\n");
        assert_eq!(client_ids(list.as_bytes()).collect::<Vec<_>>(), [7, 7, 7]);
    }

    #[test]
    fn a_line_of_any_server_is_read_for_what_the_client_does() {
        for line in [V6, V7, V8] {
            let rows = [
                ("waits", line.to_owned(), crowd(0, 1, 1)),
                (
                    "between two polls, or took something a moment ago",
                    line.replace("flags=b", "flags=N")
                        .replace("idle=0", "idle=1"),
                    Crowd {
                        asking: 1,
                        ..crowd(0, 1, 0)
                    },
                ),
                (
                    "works",
                    line.replace("flags=b", "flags=N")
                        .replace("idle=0", "idle=2"),
                    crowd(0, 1, 0),
                ),
                (
                    "blocked in a subscribed client's way",
                    line.replace("flags=b", "flags=Pb"),
                    crowd(0, 1, 1),
                ),
                (
                    "control channel",
                    line.replace("flags=b", "flags=P")
                        .replace("psub=0", "psub=1")
                        .replace("cmd=brpop", "cmd=psubscribe"),
                    crowd(1, 0, 0),
                ),
                (
                    "the same after a health check",
                    line.replace("psub=0", "psub=1")
                        .replace("cmd=brpop", "cmd=ping"),
                    crowd(1, 0, 0),
                ),
                (
                    "a web process that waits for a result",
                    line.replace("sub=0 psub", "sub=6 psub")
                        .replace("cmd=brpop", "cmd=subscribe"),
                    crowd(0, 0, 0),
                ),
                (
                    "an inspect that asks",
                    line.replace("age=60", "age=1"),
                    crowd(0, 0, 0),
                ),
                (
                    "a worker's heart",
                    line.replace("cmd=brpop", "cmd=publish")
                        .replace("idle=0", "idle=10"),
                    Crowd {
                        hearts: 1,
                        beating: 1,
                        ..Crowd::default()
                    },
                ),
                (
                    "a heart that stopped",
                    line.replace("cmd=brpop", "cmd=publish")
                        .replace("idle=0", "idle=11"),
                    Crowd {
                        hearts: 1,
                        ..Crowd::default()
                    },
                ),
                (
                    "a worker that said it is there, and has no heart",
                    line.replace("cmd=brpop", "cmd=publish")
                        .replace("idle=0", "idle=55"),
                    Crowd::default(),
                ),
                (
                    "another command that blocks",
                    line.replace("cmd=brpop", "cmd=blpop"),
                    crowd(0, 0, 0),
                ),
                (
                    "a name with signs of equality",
                    line.replace("name=", "name=a=b=cmd=x"),
                    crowd(0, 1, 1),
                ),
                (
                    "a name that no server allows hides its client at most",
                    line.replace("name=", "name=x cmd=brpop"),
                    crowd(0, 0, 0),
                ),
                (
                    "half a name",
                    line.replace("name=", "name=x y"),
                    crowd(0, 0, 0),
                ),
                (
                    "cut",
                    line.split(" cmd=").next().unwrap().to_owned(),
                    crowd(0, 0, 0),
                ),
                (
                    "numbers that are none",
                    line.replace("db=0", "db=-1"),
                    crowd(0, 0, 0),
                ),
                (
                    "numbers beyond all",
                    line.replace("age=60", "age=99999999999999999999"),
                    crowd(0, 0, 0),
                ),
            ];
            for (what, line, expected) in rows {
                let got = crowds(format!("{line}\n").as_bytes());
                let got = got.get(&0).copied().unwrap_or_default();
                assert_eq!(got, expected, "{what}: {line}");
            }
        }
    }

    #[test]
    fn each_database_has_its_own_crowd() {
        let in_db_3 = V7.replace("db=0", "db=3");
        let control = in_db_3
            .replace("psub=0", "psub=1")
            .replace("cmd=brpop", "cmd=psubscribe");
        let list = format!("{V7}\n{in_db_3}\n{control}\n{control}\n\nnonsense\n\u{0}=\n");
        let got = crowds(list.as_bytes());
        assert_eq!(
            got,
            BTreeMap::from([(0, crowd(0, 1, 1)), (3, crowd(2, 1, 1))])
        );
        assert_eq!(got[&3].live(), 1);
        assert!(crowds(b"").is_empty());
        assert!(crowds(&[b'='; 1000]).is_empty());
    }
}
