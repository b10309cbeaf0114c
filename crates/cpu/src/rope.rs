//! Rotary position embedding.
//! Knows nothing of attention, nor of how `config.json` stretches the angles.
//!
//! The angles are float32 products, as in MLX. Their sines and cosines are computed in float64 by libm, so they are
//! the same on every system.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::math::rounded;
use models::runtime::{Angles, RopeArgs};

/// A rotary position embedding. Clones share the last turns.
#[derive(Clone)]
pub struct Rope {
    args: Rc<RopeArgs>,
    last: Rc<RefCell<Option<Arc<Turns>>>>,
}

/// How the heads of some tokens are turned.
pub(crate) struct Turns {
    start: usize,
    tokens: usize,
    traditional: bool,
    /// A factor on the heads.
    magnitude: f32,
    /// How many pairs of dimensions are turned.
    pairs: usize,
    /// For each token and each pair: cosine and sine.
    turns: Vec<[f32; 2]>,
}

impl Rope {
    pub(crate) fn new(args: &RopeArgs) -> Self {
        Self { args: Rc::new(args.clone()), last: Rc::default() }
    }

    /// Returns the turns of `tokens` tokens, the first of which has position `start`. All layers ask for the same.
    pub(crate) fn turns(&self, start: usize, tokens: usize) -> Arc<Turns> {
        let mut last = self.last.borrow_mut();
        match &*last {
            Some(turns) if (turns.start, turns.tokens) == (start, tokens) => Arc::clone(turns),
            _ => Arc::clone(last.insert(Arc::new(Turns::new(&self.args, start, tokens)))),
        }
    }
}

impl Turns {
    fn new(args: &RopeArgs, start: usize, tokens: usize) -> Self {
        let seen = i32::try_from(start + tokens).unwrap_or(i32::MAX);
        let (base, scale) = args.angles.at(args.dims, seen);
        let pairs = usize::try_from(args.dims / 2).unwrap_or(0).max(1);
        let speeds: Vec<f32> = match &args.angles {
            Angles::Explicit { freqs, .. } => freqs.iter().map(|freq| 1.0 / freq).collect(),
            Angles::Base { .. } | Angles::Growing { .. } => {
                let step = libm::log(f64::from(base)) / pairs as f64;
                (0..pairs).map(|pair| rounded(libm::exp(-(pair as f64) * step))).collect()
            }
        };
        let mut turns = Vec::with_capacity(tokens * pairs);
        for position in start..start + tokens {
            let position = position as f32 * scale;
            turns.extend(speeds.iter().map(|speed| {
                let (sine, cosine) = libm::sincos(f64::from(position * speed));
                [rounded(cosine), rounded(sine)]
            }));
        }
        let magnitude = match args.angles {
            Angles::Explicit { magnitude, .. } => magnitude,
            Angles::Base { .. } | Angles::Growing { .. } => 1.0,
        };
        Self { start, tokens, traditional: args.traditional, magnitude, pairs, turns }
    }

    /// Turns the heads of some tokens, `[tokens, heads, dims]`. The first of them has the number `first`.
    pub(crate) fn rotate(&self, x: &mut [f32], first: usize, heads: usize, dims: usize) {
        let turns = self.turns.chunks_exact(self.pairs).skip(first);
        for (token, turns) in x.chunks_exact_mut(heads * dims).zip(turns) {
            for head in token.chunks_exact_mut(dims) {
                if self.magnitude != 1.0 {
                    // Only what is turned is scaled.
                    head[..2 * self.pairs].iter_mut().for_each(|value| *value *= self.magnitude);
                }
                self.rotate_head(head, turns);
            }
        }
    }

    fn rotate_head(&self, head: &mut [f32], turns: &[[f32; 2]]) {
        let turn = |a: f32, b: f32, [cosine, sine]: [f32; 2]| [a * cosine - b * sine, a * sine + b * cosine];
        if self.traditional {
            for (pair, turns) in head.chunks_exact_mut(2).zip(turns) {
                pair.copy_from_slice(&turn(pair[0], pair[1], *turns));
            }
        } else {
            let (first, second) = head.split_at_mut(self.pairs);
            for ((a, b), turns) in first.iter_mut().zip(second).zip(turns) {
                [*a, *b] = turn(*a, *b, *turns);
            }
        }
    }
}
