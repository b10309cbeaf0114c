//! The peak memory of this process.
//! Knows nothing of what takes it.

use anyhow::Result;

/// Returns the peak memory in bytes.
#[cfg(target_os = "linux")]
pub(crate) fn peak_memory() -> Result<u64> {
    models::peak_memory::peak_memory_of_process()
}

/// Returns the peak memory in bytes.
#[cfg(not(target_os = "linux"))]
#[expect(unsafe_code, reason = "a call of the C library that fills a struct")]
pub(crate) fn peak_memory() -> Result<u64> {
    // SAFETY: `usage` has the size that the call fills.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        anyhow::ensure!(
            libc::getrusage(libc::RUSAGE_SELF, &mut usage) == 0,
            "the system does not tell the peak memory"
        );
        usage
    };
    // macOS counts bytes.
    Ok(u64::try_from(usage.ru_maxrss)?)
}
