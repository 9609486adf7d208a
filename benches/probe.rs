//! The client beside which the contenders work: one connection, PING and GET in
//! turn, the next as soon as the last is answered, each timed.
//!
//! Usage: probe PORT KEY MAX_SECONDS
//!
//! Says `ready` when it has begun, goes on until its standard input is closed,
//! and prints what it saw as JSON. A program of its own, so that neither the
//! interpreter of the scripts nor its locks are in the figures.

use std::env;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What one kind of request met.
#[derive(Default)]
struct Seen {
    latencies_ns: Vec<u64>,
    refused: u64,
}

impl Seen {
    fn add(&mut self, latency: Duration, refused: bool) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latencies_ns.push(ns);
        self.refused += u64::from(refused);
    }

    /// Its figures as a JSON object, latencies in microseconds.
    fn json(&mut self) -> String {
        self.latencies_ns.sort_unstable();
        format!(
            "{{\"requests\":{},\"refused\":{},\"p50_us\":{:.1},\"p99_us\":{:.1},\"p999_us\":{:.1},\"max_us\":{:.1}}}",
            self.latencies_ns.len(),
            self.refused,
            self.quantile_us(500),
            self.quantile_us(990),
            self.quantile_us(999),
            self.quantile_us(1_000),
        )
    }

    /// The nearest-rank quantile, given in thousandths.
    fn quantile_us(&self, thousandths: usize) -> f64 {
        let rank = (self.latencies_ns.len() * thousandths).div_ceil(1_000);
        let ns = self.latencies_ns.get(rank.saturating_sub(1)).copied();
        #[allow(clippy::cast_precision_loss, reason = "a latency is far below 2^52 ns")]
        let us = ns.unwrap_or(0) as f64 / 1_000.0;
        us
    }
}

/// Reads one status, error or bulk reply; says whether it was an error.
fn read_reply(server: &mut BufReader<TcpStream>, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    if server.read_until(b'\n', line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let Some((b'$', length)) = line.split_first() else {
        return Ok(line.first() == Some(&b'-'));
    };
    let length = std::str::from_utf8(length).ok().map(str::trim);
    // A missing value is `$-1`, with nothing behind it.
    if let Some(length) = length.and_then(|text| text.parse::<usize>().ok()) {
        line.resize(length + 2, 0);
        server.read_exact(line)?;
    }
    Ok(false)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let (Some(port), Some(key), Some(seconds)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: probe PORT KEY MAX_SECONDS".into());
    };
    let most = Duration::from_secs(seconds.parse()?);
    let stream = TcpStream::connect(("127.0.0.1", port.parse()?))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(most))?;
    let mut server = BufReader::new(stream);
    let get = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());

    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        told.store(true, Ordering::Relaxed);
    });

    let (mut pings, mut gets) = (Seen::default(), Seen::default());
    let mut line = Vec::new();
    println!("ready");
    let started = Instant::now();
    while !stop.load(Ordering::Relaxed) && started.elapsed() < most {
        for (request, seen) in [
            (b"*1\r\n$4\r\nPING\r\n".as_slice(), &mut pings),
            (get.as_bytes(), &mut gets),
        ] {
            let asked = Instant::now();
            server.get_mut().write_all(request)?;
            let refused = read_reply(&mut server, &mut line)?;
            seen.add(asked.elapsed(), refused);
        }
    }
    let seconds = started.elapsed().as_secs_f64();

    let mut both = Seen {
        latencies_ns: [pings.latencies_ns.as_slice(), gets.latencies_ns.as_slice()].concat(),
        refused: pings.refused + gets.refused,
    };
    println!(
        "{{\"seconds\":{seconds:.3},\"ping\":{},\"get\":{},\"both\":{}}}",
        pings.json(),
        gets.json(),
        both.json()
    );
    Ok(())
}
