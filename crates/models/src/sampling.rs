//! Draws tokens at random, the same ones for the same seed on every machine.
//! Knows nothing of models.

use protocol::Sampling;

/// Draws one token after the other.
pub(crate) struct Sampler {
    temperature: f64,
    state: u64,
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling) -> Self {
        Self { temperature: sampling.temperature, state: sampling.seed }
    }

    /// Draws the place of one of these logits, each with the probability `softmax(logits / temperature)`.
    ///
    /// The exponential is that of `libm`, and sums are float64 in the order of the vocabulary, so that no machine draws
    /// another token from the same logits.
    pub(crate) fn draw(&mut self, logits: &[f32]) -> u32 {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |logit: &f32| libm::exp(f64::from(logit - largest) / self.temperature);
        let total: f64 = logits.iter().map(weight).sum();
        let target = unit(split_mix(self.state)) * total;
        self.state = self.state.wrapping_add(GOLDEN);
        let mut sum = 0.0;
        let reaches = |logit: &f32| {
            sum += libm::exp(f64::from(logit - largest) / self.temperature);
            sum > target
        };
        let place = logits.iter().position(reaches).unwrap_or(logits.len().saturating_sub(1));
        u32::try_from(place).unwrap_or(u32::MAX)
    }
}

/// The step between states: 2^64 over the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Returns the random number of a state. Source: SplitMix64 (Steele, Lea and Flood 2014, OOPSLA, 453).
fn split_mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Returns a number from 0 up to, but not including, 1.
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_split_mix() {
        // The first three outputs for the seed 1234567, as in the reference implementation.
        let states = [1_234_567, 1_234_567_u64.wrapping_add(GOLDEN)];
        assert_eq!(states.map(split_mix), [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn a_seed_gives_the_same_tokens_in_the_asked_proportions() {
        let logits = [0.0, 1.0, f32::NEG_INFINITY, 2.0];
        let draws = |seed| {
            let mut sampler = Sampler::new(Sampling { temperature: 1.0, seed });
            (0..4000).map(|_| sampler.draw(&logits)).collect::<Vec<_>>()
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
        let count = |token| draws(7).iter().filter(|drawn| **drawn == token).count();
        // softmax([0, 1, 2]) is 0.090, 0.245, 0.665.
        let close = |count: usize, share: f64| (count as f64 / 4000.0 - share).abs() < 0.025;
        assert!(close(count(0), 0.090) && close(count(1), 0.245) && close(count(3), 0.665));
        assert_eq!(count(2), 0);
    }
}
