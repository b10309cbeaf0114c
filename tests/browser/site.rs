//! A proxy on loopback that answers for every address, so that it sees every request of a browser.
//! Knows nothing of browsers.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::PARTS;

/// The address of the page.
pub(crate) const REPORT: &str = "http://report.test/";

/// The domains that a new browser profile connects to on every page: for the time, for updates, for the
/// signed-in user.
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
                // A browser opens connections before it needs them, so no connection may wait for another.
                thread::spawn(move || answer(stream.unwrap(), &html, &seen));
            }
        });
        Self { address, requests }
    }

    /// Returns the address of a page that shows the report in a frame. That page says how wide the report is
    /// and where its parts are, and how many names in its plot cover another.
    pub(crate) fn framed(width: u32, height: u32) -> String {
        format!("{REPORT}frame?{width}x{height}")
    }

    /// Returns the address at which the proxy listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what the page has requested so far: the method and the address.
    pub(crate) fn requests(&self) -> Vec<String> {
        let mut requests = self.requests.lock().unwrap().clone();
        requests.retain(|request| !is_browsers_own(request));
        requests
    }
}

/// Whether the request comes from the browser and not from the page. A request for fonts comes from a page.
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
    // It is no failure if the browser is gone.
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
           const names = [...page.querySelectorAll('.point text')].map(name => name.getBoundingClientRect());\
           const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;\
           const seen = names.filter(name => name.width > 0);\
           const collisions = seen.filter((a, i) => seen.slice(i + 1).some(b => meet(a, b))).length;\
           document.querySelector('pre').textContent =\
             JSON.stringify({{width: root.scrollWidth, height: root.scrollHeight, parts, collisions}});\
         }};</script>"
    )
}
