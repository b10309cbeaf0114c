//! Takes the secret key out of the environment of this process, before anything else is done.
//! Knows nothing of what the key is used for.

use std::env;
use std::ffi::CString;

use engine::sign::{VARIABLE, signer};

/// If the environment holds a secret key, gives it to the signer, which is a process of its own, and erases it
/// here. Must be called first in `main`, while there is one thread.
pub(crate) fn hand_over_the_key() {
    if env::var_os(VARIABLE).is_some_and(|key| !key.is_empty()) && !is_signer() {
        // Whoever needs the key gets the error of a signer that did not start.
        let _ = signer();
        erase(VARIABLE);
    }
}

/// Whether this process is a signer, or a command that shows the key.
fn is_signer() -> bool {
    env::args().skip(1).any(|argument| argument == "keys")
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
