//! A headless Chromium, started anew for every page.
//! Knows nothing of what is on the page.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::site::Site;

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
const ON_MACOS: &str = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome";
/// How long one page may take on a busy machine.
const POLL_INTERVAL: Duration = Duration::from_secs(120);

pub(crate) struct Chromium(PathBuf);

/// What Chromium wrote.
pub(crate) struct Page {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Chromium {
    /// Finds the browser that the variable CHROMIUM names, or else one on the PATH.
    pub(crate) fn find() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&path).flat_map(|folder| NAMES.map(|name| folder.join(name)));
        let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
        let mut all = on_path.chain([PathBuf::from(ON_MACOS)]);
        let found = named.or_else(|| all.find(|path| path.is_file()));
        Self(found.expect("these tests need Chromium: `apt-get install chromium`, or CHROMIUM=/path/to/it"))
    }

    /// Opens a page. All requests go to `site`, whatever their address.
    pub(crate) fn open(&self, site: &Site, address: &str, options: &[&str]) -> Page {
        let folder = tempfile::tempdir().unwrap();
        self.run(site, address, options, &folder)
    }

    /// Takes a picture of a page in a window of this size, as PNG.
    pub(crate) fn picture(&self, site: &Site, address: &str, size: (u32, u32), option: &str) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("picture.png");
        let size = format!("--window-size={},{}", size.0, size.1);
        let screenshot = format!("--screenshot={}", file.display());
        let page = self.run(site, address, &[&size, &screenshot, option], &folder);
        fs::read(&file).unwrap_or_else(|error| panic!("{error}: {}", page.stderr))
    }

    fn run(&self, site: &Site, address: &str, options: &[&str], folder: &TempDir) -> Page {
        let file = |name: &str| folder.path().join(name);
        let mut command = Command::new(&self.0);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        command.args(["--disable-dev-shm-usage", "--enable-logging=stderr", "--v=0"]);
        command.args(["--disable-extensions", "--disable-default-apps", "--hide-scrollbars"]);
        command.arg("--disable-features=NetworkTimeServiceQuerying,OptimizationHints,MediaRouter");
        // Requests to loopback go through the proxy too, so a page cannot bypass it.
        command.arg(format!("--proxy-server={}", site.address())).arg("--proxy-bypass-list=<-loopback>");
        command.arg(format!("--user-data-dir={}", file("profile").display()));
        command.args(options).arg(address).stdin(Stdio::null());
        // The output goes into files, because Chromium would block on a full pipe that nobody reads.
        command.stdout(File::create(file("stdout")).unwrap()).stderr(File::create(file("stderr")).unwrap());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.0.display()));
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > POLL_INTERVAL {
                child.kill().unwrap();
                panic!("Chromium has not ended after {POLL_INTERVAL:?}: {}", read(&file("stderr")));
            }
            sleep(Duration::from_millis(20));
        }
        Page { stdout: read(&file("stdout")), stderr: read(&file("stderr")) }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()
}
