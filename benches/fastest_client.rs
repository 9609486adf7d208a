//! The least that a client can do to give every result without TTL one: SCAN with
//! COUNT 1000, and for each page EXPIRE NX of its keys in one write.
//!
//! Usage: fastest_client PORT PATTERN TTL_SECONDS
//!
//! Prints how many keys it gave a TTL. No client library, no allocation per key,
//! and the names go back as they came, so that hardly any time is spent here.

use std::env;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

struct Server {
    stream: BufReader<TcpStream>,
    line: Vec<u8>,
}

impl Server {
    fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self {
            stream: BufReader::with_capacity(256 * 1024, stream),
            line: Vec::new(),
        })
    }

    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(request)
    }

    /// The number behind the type byte of the next line: a length, or an integer.
    fn number(&mut self, kind: u8) -> Result<usize, Box<dyn Error>> {
        self.line.clear();
        self.stream.read_until(b'\n', &mut self.line)?;
        match self.line.split_first() {
            Some((first, rest)) if *first == kind => {
                Ok(std::str::from_utf8(rest)?.trim().parse()?)
            }
            _ => Err(String::from_utf8_lossy(&self.line).into()),
        }
    }

    /// Adds the next bulk string to `into`.
    fn bulk(&mut self, into: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
        let length = self.number(b'$')? as u64;
        let read = (&mut self.stream).take(length).read_to_end(into)? as u64;
        self.stream.read_exact(&mut [0; 2])?;
        if read < length {
            return Err("the server closed the connection".into());
        }
        Ok(())
    }
}

/// Adds a bulk string to a request.
fn put(request: &mut Vec<u8>, word: &[u8]) -> io::Result<()> {
    write!(request, "${}\r\n", word.len())?;
    request.extend_from_slice(word);
    request.extend_from_slice(b"\r\n");
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let (Some(port), Some(pattern), Some(ttl)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: fastest_client PORT PATTERN TTL_SECONDS".into());
    };
    let mut server = Server::connect(port.parse()?)?;
    let (mut cursor, mut name, mut request) = (b"0".to_vec(), Vec::new(), Vec::new());
    let mut expired = 0;
    loop {
        request.clear();
        request.extend_from_slice(b"*6\r\n");
        for word in [
            b"SCAN",
            cursor.as_slice(),
            b"MATCH",
            pattern.as_bytes(),
            b"COUNT",
            b"1000",
        ] {
            put(&mut request, word)?;
        }
        server.send(&request)?;

        server.number(b'*')?;
        cursor.clear();
        server.bulk(&mut cursor)?;
        let keys = server.number(b'*')?;
        request.clear();
        for _ in 0..keys {
            name.clear();
            server.bulk(&mut name)?;
            request.extend_from_slice(b"*4\r\n$6\r\nEXPIRE\r\n");
            put(&mut request, &name)?;
            put(&mut request, ttl.as_bytes())?;
            request.extend_from_slice(b"$2\r\nNX\r\n");
        }
        server.send(&request)?;
        for _ in 0..keys {
            expired += server.number(b':')?;
        }
        if cursor == b"0" {
            break;
        }
    }
    println!("{expired}");
    Ok(())
}
