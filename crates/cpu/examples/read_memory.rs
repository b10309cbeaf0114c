//! Prints how many seconds all cores take to read so many bytes from memory, from end to end: the limit of a token.
//! `bench/decode.py` calls it. The bytes are far more than the caches hold, and the best of several runs counts.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a small tool of the benchmarks")]

use std::thread::{available_parallelism, scope};
use std::time::Instant;

use memmap2::{Advice, MmapMut};

/// So many bytes are in memory, whatever is asked, so that no cache holds them.
const WHOLE: usize = 1 << 30;

fn main() {
    let length: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let mut memory = MmapMut::map_anon(WHOLE).unwrap();
    let _ = memory.advise(Advice::HugePage);
    memory.fill(1);
    let threads = available_parallelism().map_or(1, usize::from);
    let share = (WHOLE / threads) & !63;
    let seconds = |_| {
        let start = Instant::now();
        scope(|scope| {
            for part in memory.chunks(share).take(threads) {
                scope.spawn(|| std::hint::black_box(sum(part)));
            }
        });
        start.elapsed().as_secs_f64()
    };
    let best = (0..9).map(seconds).fold(f64::INFINITY, f64::min);
    println!("{}", best * length as f64 / (share * threads) as f64);
}

/// Sums in sixteen lanes, so that the sums do not limit the reading.
fn sum(bytes: &[u8]) -> u64 {
    let mut lanes = [0_u64; 16];
    for line in bytes.as_chunks::<8>().0.chunks_exact(16) {
        for (lane, word) in lanes.iter_mut().zip(line) {
            *lane = lane.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    lanes.iter().fold(0, |sum, lane| sum.wrapping_add(*lane))
}
