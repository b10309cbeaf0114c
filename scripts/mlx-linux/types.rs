
// Appended to the generated bindings: the two types of half.h, and a clock that mlx-rs's random module asks for.
#[repr(C)]
#[derive(Default, Clone, Copy, Debug)]
pub struct float16_t(pub u16);
pub type bfloat16_t = u16;

/// Nanoseconds since the epoch, in place of the Mach clock; mlx-rs seeds its random state with it.
#[no_mangle]
pub extern "C" fn mach_approximate_time() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |elapsed| elapsed.as_nanos() as u64)
}
