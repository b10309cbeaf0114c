//! What is done to this process before anything else: the secret key leaves its environment, and it may open
//! more files.
//! Knows nothing of what the key and the files are for.

use std::env;
use std::ffi::CString;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use engine::sign::{SIGNER_VARIABLE, VARIABLE, signer};

/// The most open files that are asked for. macOS refuses more than 10,240.
const MOST_FILES: u64 = 10_240;

/// If the environment holds a secret key, gives it to the signer, which is a process of its own, and erases it
/// here. Must be called first in `main`, while there is one thread.
pub(crate) fn hand_over_the_key() {
    if env::var_os(VARIABLE).is_some_and(|key| !key.is_empty()) && !is_signer() {
        // Whoever needs the key gets the error of a signer that did not start.
        let _ = signer();
        erase(VARIABLE);
    }
}

/// Raises the limit on open files to what this user may have. The default of macOS is 256.
pub(crate) fn raise_the_limit_of_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(MOST_FILES, |maximum| maximum.min(MOST_FILES));
    if limit.current.is_some_and(|current| current < most) {
        // With fewer files it is slower, so an error changes nothing.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..limit });
    }
}

/// Whether this process is the signer itself. Whoever starts it sets this variable, and the signer reads no
/// models.
fn is_signer() -> bool {
    env::var_os(SIGNER_VARIABLE).is_some()
}

/// Removes a variable, and overwrites its value: `/proc/self/environ` shows the memory in which the program
/// got it.
fn erase(name: &str) {
    let Ok(c_name) = CString::new(name) else { return };
    #[expect(
        unsafe_code,
        reason = "there is one thread, and the value of a variable is a C text that may be written"
    )]
    unsafe {
        let value = libc::getenv(c_name.as_ptr());
        if !value.is_null() {
            std::ptr::write_bytes(value, b'x', libc::strlen(value));
        }
        env::remove_var(name);
    }
}
