//! A proxy on loopback between the program and a server. It breaks, delays and counts what passes.
//! Knows nothing of S3, and of HTTP only where the head of a request ends and how long its body is.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// What the proxy does to one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Nothing: everything passes.
    None,
    /// It closes the connection at once.
    Refuse,
    /// It closes the connection after this many bytes from the server.
    Cut(u64),
    /// It stops sending after this many bytes from the server, and keeps the connection open.
    Freeze(u64),
    /// It answers the first request with this status, and passes nothing on.
    Status(&'static str),
    /// It passes the head of the first answer, which gives the length, and at most half of what follows.
    Truncate,
    /// It passes this many bytes in each tenth of a second.
    Slow(u64),
}

/// The proxy. It runs for as long as the process lives.
pub(crate) struct Proxy {
    port: u16,
    traffic: Arc<Traffic>,
}

/// How many bytes passed, and how many may pass.
#[derive(Debug)]
struct Traffic {
    down: AtomicU64,
    up: AtomicU64,
    down_limit: AtomicU64,
    up_limit: AtomicU64,
}

impl Proxy {
    /// Starts a proxy to a port of this machine. `choose` gives the fault of each connection, by its number.
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
                // If a side goes away, the connection ends, and nothing else needs to be done.
                thread::spawn(move || client.and_then(|client| serve(client, server, fault, &traffic)));
            }
        });
        Self { port, traffic }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns how many bytes the server sent through the proxy.
    pub(crate) fn down(&self) -> u64 {
        self.traffic.down.load(Ordering::Relaxed)
    }

    /// Returns how many bytes were sent to the server through the proxy.
    pub(crate) fn up(&self) -> u64 {
        self.traffic.up.load(Ordering::Relaxed)
    }

    /// Once the server has sent more than `bytes`, all connections are closed, new ones too.
    pub(crate) fn limit_down(&self, bytes: u64) {
        self.traffic.down_limit.store(bytes, Ordering::Relaxed);
    }

    /// Once more than `bytes` were sent to the server, all connections are closed, new ones too.
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
    // This thread ends when the connection does.
    let _ = upward.join();
    passed
}

/// Passes on the bytes of the server, up to the fault.
fn answer(server: &TcpStream, client: &TcpStream, fault: Fault, traffic: &Traffic) -> io::Result<()> {
    let open = |_: u64| !traffic.is_over();
    match fault {
        Fault::Cut(limit) => pump(server, client, &traffic.down, None, |passed| passed < limit && open(0)),
        Fault::Freeze(limit) => {
            pump(server, client, &traffic.down, None, |passed| passed < limit && open(0))?;
            // Wait until the client gives up.
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

/// Passes bytes on as long as `go_on` returns true. `go_on` is told how many have passed.
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
    // Neither of the two may wait for the other any longer.
    let _ = from.shutdown(Shutdown::Read);
    Ok(())
}

/// Reads one request and answers it with `status`.
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

/// Returns the length of the body, as the head gives it.
fn length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let said = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    said.map_or(0, |said| said.trim().parse().unwrap())
}
