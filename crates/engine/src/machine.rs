//! The class of this machine: machines of one class measure about the same times.
//! Knows nothing of what is measured.

use std::env::consts::{ARCH, OS};
use std::fs;
use std::process::Command;
use std::sync::OnceLock;
use std::thread::available_parallelism;

/// Returns the class as text, such as `linux x86_64, 8 threads, AMD Ryzen 7 5800X`.
pub(crate) fn class() -> &'static str {
    static CLASS: OnceLock<String> = OnceLock::new();
    CLASS.get_or_init(|| {
        let threads = available_parallelism().map_or(1, usize::from);
        let chip = chip().unwrap_or("an unknown chip");
        format!("{OS} {ARCH}, {threads} threads, {chip}")
    })
}

/// Returns the name of this machine in its network.
pub(crate) fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Returns the name of the processor.
pub(crate) fn chip() -> Option<&'static str> {
    static CHIP: OnceLock<Option<String>> = OnceLock::new();
    CHIP.get_or_init(ask_chip).as_deref()
}

/// Returns how many processes want to run, on average over the last minute; `None` if the system does not tell.
pub(crate) fn load_average() -> Option<f64> {
    let text = match OS {
        "macos" => {
            let output = Command::new("sysctl").args(["-n", "vm.loadavg"]).output().ok()?;
            // `{ 1.23 1.10 0.98 }`
            String::from_utf8(output.stdout).ok()?.trim_start_matches(['{', ' ']).to_owned()
        }
        _ => fs::read_to_string("/proc/loadavg").ok()?,
    };
    text.split_whitespace().next()?.parse().ok()
}

/// Returns how much memory this machine has, in bytes; `None` if the system does not tell.
pub(crate) fn memory_bytes() -> Option<u64> {
    if OS == "macos" {
        let output = Command::new("sysctl").args(["-n", "hw.memsize"]).output().ok()?;
        return String::from_utf8(output.stdout).ok()?.trim().parse().ok();
    }
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// Asks the operating system for the name of the processor.
fn ask_chip() -> Option<String> {
    if OS == "macos" {
        let output = Command::new("sysctl").args(["-n", "machdep.cpu.brand_string"]).output().ok()?;
        return Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
            .filter(|name| !name.is_empty());
    }
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
