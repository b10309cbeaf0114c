//! A proxy on loopback between the program and a server, which breaks, delays and counts what passes.
//! Knows nothing of S3, and of HTTP only where a request's head ends and how long its body is.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// What becomes of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Nothing: all passes.
    None,
    /// It is closed at once.
    Refuse,
    /// It is closed after so many bytes of the server's.
    Cut(u64),
    /// It falls silent after so many bytes of the server's, and stays open.
    Freeze(u64),
    /// The first request is answered with this status; nothing is passed on.
    Status(&'static str),
    /// Of the first answer the head comes, which tells the length, and at most half of what follows.
    Truncate,
    /// So many bytes pass in each tenth of a second.
    Slow(u64),
}

/// The proxy, for as long as the process lives.
pub(crate) struct Proxy {
    port: u16,
    traffic: Arc<Traffic>,
}

/// What passed, and what may.
#[derive(Debug)]
struct Traffic {
    down: AtomicU64,
    up: AtomicU64,
    down_limit: AtomicU64,
    up_limit: AtomicU64,
}

impl Proxy {
    /// Passes on to a port of this machine; `choose` says what becomes of the first connection, the second, …
    pub(crate) fn to(server: u16, mut choose: impl FnMut(usize) -> Fault + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (down, up) = (AtomicU64::new(0), AtomicU64::new(0));
        let limit = || AtomicU64::new(u64::MAX);
        let traffic = Arc::new(Traffic { down, up, down_limit: limit(), up_limit: limit() });
        let shared = Arc::clone(&traffic);
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let (fault, traffic) = (choose(number), Arc::clone(&shared));
                // A side that goes away in the middle ends the connection, which is all there is to do.
                thread::spawn(move || client.and_then(|client| serve(client, server, fault, &traffic)));
            }
        });
        Self { port, traffic }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many bytes the server sent through here.
    pub(crate) fn down(&self) -> u64 {
        self.traffic.down.load(Ordering::Relaxed)
    }

    /// How many bytes the server was sent through here.
    pub(crate) fn up(&self) -> u64 {
        self.traffic.up.load(Ordering::Relaxed)
    }

    /// Once the server has sent so much, every connection is closed, and every new one.
    pub(crate) fn limit_down(&self, bytes: u64) {
        self.traffic.down_limit.store(bytes, Ordering::Relaxed);
    }

    /// Once the server was sent so much, every connection is closed, and every new one.
    pub(crate) fn limit_up(&self, bytes: u64) {
        self.traffic.up_limit.store(bytes, Ordering::Relaxed);
    }
}

impl Traffic {
    fn is_over(&self) -> bool {
        self.down.load(Ordering::Relaxed) > self.down_limit.load(Ordering::Relaxed)
            || self.up.load(Ordering::Relaxed) > self.up_limit.load(Ordering::Relaxed)
    }
}

fn serve(client: TcpStream, port: u16, fault: Fault, traffic: &Arc<Traffic>) -> io::Result<()> {
    match fault {
        Fault::Refuse => return Ok(()),
        Fault::Freeze(0) => return io::copy(&mut &client, &mut io::sink()).map(drop),
        Fault::Status(status) => return refuse(&client, status),
        _ => {}
    }
    let server = TcpStream::connect(("127.0.0.1", port))?;
    let (reader, writer, counted) = (client.try_clone()?, server.try_clone()?, Arc::clone(traffic));
    let upward = thread::spawn(move || {
        let delay = if let Fault::Slow(bytes) = fault { Some(bytes) } else { None };
        pump(&reader, &writer, &counted.up, delay, |_| !counted.is_over())
    });
    let passed = answer(&server, &client, fault, traffic);
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    // Its side ends with the connection.
    let _ = upward.join();
    passed
}

/// Passes the server's bytes on, up to the fault.
fn answer(server: &TcpStream, client: &TcpStream, fault: Fault, traffic: &Traffic) -> io::Result<()> {
    let open = |_: u64| !traffic.is_over();
    match fault {
        Fault::Cut(limit) => pump(server, client, &traffic.down, None, |passed| passed < limit && open(0)),
        Fault::Freeze(limit) => {
            pump(server, client, &traffic.down, None, |passed| passed < limit && open(0))?;
            // Until the client has had enough.
            while client.peek(&mut [0]).is_ok_and(|count| count > 0) {
                thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        }
        Fault::Truncate => {
            let mut block = [0; 16 << 10];
            let count = (&mut &*server).read(&mut block)?;
            let head = end_of_head(&block[..count]).unwrap_or(count);
            (&mut &*client).write_all(&block[..head + (count - head) / 2])
        }
        Fault::Slow(bytes) => pump(server, client, &traffic.down, Some(bytes), open),
        _ => pump(server, client, &traffic.down, None, open),
    }
}

/// Passes bytes on for as long as `go_on` says so, which is told how many have passed.
fn pump(
    mut from: &TcpStream,
    mut to: &TcpStream,
    counter: &AtomicU64,
    slow: Option<u64>,
    go_on: impl Fn(u64) -> bool,
) -> io::Result<()> {
    let mut block = vec![0; slow.map_or(4 << 10, |bytes| usize::try_from(bytes).unwrap())];
    let mut passed = 0;
    while go_on(passed) {
        let count = from.read(&mut block)?;
        if count == 0 {
            return to.shutdown(Shutdown::Write);
        }
        to.write_all(&block[..count])?;
        passed += count as u64;
        counter.fetch_add(count as u64, Ordering::Relaxed);
        if slow.is_some() {
            thread::sleep(Duration::from_millis(100));
        }
    }
    // Whoever of the two still waits for the other waits no more.
    let _ = from.shutdown(Shutdown::Read);
    Ok(())
}

/// Takes one request and says no to it.
fn refuse(mut client: &TcpStream, status: &str) -> io::Result<()> {
    let mut request = Vec::new();
    let mut block = [0; 16 << 10];
    while end_of_head(&request).is_none_or(|head| request.len() < head + length(&request[..head])) {
        match client.read(&mut block)? {
            0 => return Ok(()),
            count => request.extend_from_slice(&block[..count]),
        }
    }
    write!(client, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// How long the body is, as the head says.
fn length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let said = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    said.map_or(0, |said| said.trim().parse().unwrap())
}
