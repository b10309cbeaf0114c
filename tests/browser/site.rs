//! A proxy on loopback that answers for every address, so that whatever a browser asks for is seen.
//! Knows nothing of browsers.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::PARTS;

/// Where the page is.
pub(crate) const REPORT: &str = "http://report.test/";

/// Whose hosts a new profile asks whatever the page is: for the time, for updates, for who is signed in.
const BROWSERS_OWN: [&str; 3] = [".google.com", ".googleapis.com", ".gvt1.com"];

/// A page that is served until the test ends.
pub(crate) struct Site {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Site {
    pub(crate) fn serving(html: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let (html, seen) = (Arc::new(html.to_owned()), requests.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (html, seen) = (html.clone(), seen.clone());
                // A browser opens connections ahead of need, so none may wait for another.
                thread::spawn(move || answer(stream.unwrap(), &html, &seen));
            }
        });
        Self { address, requests }
    }

    /// Returns the address of a page that shows the report in a frame, and says how wide it is and where its parts are.
    pub(crate) fn framed(width: u32, height: u32) -> String {
        format!("{REPORT}frame?{width}x{height}")
    }

    /// As a proxy, this is where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the page has asked for so far: the method and the address.
    pub(crate) fn requests(&self) -> Vec<String> {
        let mut requests = self.requests.lock().unwrap().clone();
        requests.retain(|request| !is_browsers_own(request));
        requests
    }
}

/// Whether it is the browser that asks. Fonts it has of its own: those are asked for by pages.
fn is_browsers_own(request: &str) -> bool {
    let address = request.split_once(' ').map_or(request, |(_method, address)| address);
    let address = address.split_once("://").map_or(address, |(_scheme, rest)| rest);
    let host = address.split(['/', ':']).next().unwrap_or_default();
    !host.starts_with("fonts.") && BROWSERS_OWN.iter().any(|domain| host.ends_with(domain))
}

fn answer(mut stream: TcpStream, html: &str, seen: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
    let (request, _version) = first.rsplit_once(' ').unwrap_or((&first, ""));
    seen.lock().unwrap().push(request.to_owned());
    let body = match request.strip_prefix(&format!("GET {REPORT}")) {
        Some("") => html.to_owned(),
        Some(path) => path.strip_prefix("frame?").map(frame).unwrap_or_default(),
        None => String::new(),
    };
    let status = if body.is_empty() { "404 Not Found" } else { "200 OK" };
    let length = body.len();
    // A browser that has gone is no failure.
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}

fn frame(size: &str) -> String {
    let (width, height) = size.split_once('x').unwrap();
    let selectors = PARTS.map(|(selector, _)| selector);
    format!(
        "<!doctype html><meta charset=utf-8><link rel=icon href=data:,>\
         <body style=margin:0><iframe src={REPORT} style=\"display:block;border:0;width:{width}px;height:{height}px\">\
         </iframe><pre id=measured></pre><script>\
         document.querySelector('iframe').onload = event => {{\
           const page = event.target.contentDocument, root = page.documentElement, parts = {{}};\
           for (const selector of {selectors:?}) {{\
             const seen = [...page.querySelectorAll(selector)].find(part => part.getBoundingClientRect().width > 0);\
             if (!seen) continue;\
             const {{x, y, width, height}} = seen.getBoundingClientRect();\
             parts[selector] = {{x: Math.round(x), y: Math.round(y), width: Math.round(width), height: Math.round(height)}};\
           }}\
           document.querySelector('pre').textContent =\
             JSON.stringify({{width: root.scrollWidth, height: root.scrollHeight, parts}});\
         }};</script>"
    )
}
