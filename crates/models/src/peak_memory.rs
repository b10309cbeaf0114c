//! The peak memory of this process.
//! Knows nothing of what takes it.

use std::io::Write;

use anyhow::{Context, Result};

/// Lets the system count the peak memory of this process from now on. It may not know how; then the peak is that of all
/// the time before too.
pub fn reset_peak_memory() {
    let _ = std::fs::OpenOptions::new()
        .write(true)
        .open("/proc/self/clear_refs")
        .and_then(|mut file| file.write_all(b"5"));
}

/// Returns the peak memory of this process in bytes, as Linux counts it.
///
/// # Errors
/// Fails if the system does not tell.
pub fn peak_memory_of_process() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(kibibytes.context("no VmHWM in /proc/self/status")? * 1024)
}
