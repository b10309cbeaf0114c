//! Keeps the errors of rounded rows away from the directions that inputs take: once over the columns, a code
//! moves by a step where that makes the errors along the directions smaller.
//! Knows nothing of how the rows were rounded. `docs/rounding.md` has the formulas.

use super::Directions;

/// How many rows are worked on side by side. Rows do not depend on each other, so it does not affect the
/// result.
pub(super) const LANES: usize = 8;

/// How much an error along a direction of length 1 counts beside an error anywhere.
const ALONG: f64 = 10.0;

type Lane = [f64; LANES];

/// Some rows, column by column, in float64.
pub(super) struct Lanes<'a> {
    directions: &'a Directions,
    /// The largest code.
    levels: f64,
    /// The codes.
    codes: Vec<Lane>,
    /// The steps; 0 where a code must stay.
    steps: Vec<Lane>,
    /// The errors, less the random part: a code moves first where rounding was nearly undecided.
    errors: Vec<Lane>,
    /// The errors of each row along each direction.
    along: Vec<Lane>,
}

impl<'a> Lanes<'a> {
    pub(super) fn new(columns: usize, directions: &'a Directions, bits: usize) -> Self {
        let lanes = || vec![[0.0; LANES]; columns];
        Self {
            directions,
            levels: f64::from((1u32 << bits) - 1),
            codes: lanes(),
            steps: lanes(),
            errors: lanes(),
            along: vec![[0.0; LANES]; directions.count],
        }
    }

    /// Puts a rounded row into a lane. A weight has the number of steps that its code moved, its update and its
    /// random number; a group has a step.
    #[inline(always)]
    pub(super) fn add(
        &mut self,
        lane: usize,
        codes: &[u8],
        (moves, delta, numbers): (&[f32], &[f32], &[f32]),
        steps: &[f32],
    ) {
        let group_size = codes.len() / steps.len();
        for along in &mut self.along {
            along[lane] = 0.0;
        }
        let count = self.directions.count;
        for (column, code) in codes.iter().enumerate() {
            let (step, delta) = (f64::from(steps[column / group_size]), f64::from(delta[column]));
            let error = f64::from(moves[column]) * step - delta;
            for (along, direction) in
                self.along.iter_mut().zip(&self.directions.values[column * count..][..count])
            {
                along[lane] += error * direction;
            }
            self.codes[column][lane] = f64::from(*code);
            self.steps[column][lane] = if delta == 0.0 { 0.0 } else { step };
            self.errors[column][lane] = error - f64::from(numbers[column]) * step;
        }
    }

    /// Goes once over the columns. A code moves by one step if that makes `|e|² + 10 |e V|²` smaller, where `e`
    /// is the error of its row and `V` are the directions.
    #[inline(always)]
    pub(super) fn settle(&mut self) {
        let count = self.directions.count;
        let columns = self.codes.iter_mut().zip(&self.steps).zip(&self.errors);
        for ((codes, (steps, errors)), direction) in columns
            .map(|((codes, steps), errors)| (codes, (steps, errors)))
            .zip(self.directions.values.chunks_exact(count))
        {
            let mut slope = [0.0; LANES];
            let mut square = 0.0;
            for (along, direction) in self.along.iter().zip(direction) {
                square += direction * direction;
                for lane in 0..LANES {
                    slope[lane] += along[lane] * direction;
                }
            }
            let bend = 1.0 + ALONG * square;
            let mut moved = [0.0; LANES];
            for lane in 0..LANES {
                let gradient = errors[lane] + ALONG * slope[lane];
                let best = -gradient / (bend * steps[lane]);
                // `rint(best)`, no further than one step.
                let by = f64::from(u8::from(best > 0.5)) - f64::from(u8::from(best < -0.5));
                let (step, code) = (by * steps[lane], codes[lane] + by);
                let is_better = 2.0 * step * gradient + step * step * bend < 0.0;
                let is_there = (code >= 0.0) & (code <= self.levels);
                let moves = is_better & is_there;
                moved[lane] = if moves { step } else { 0.0 };
                codes[lane] = if moves { code } else { codes[lane] };
            }
            for (along, direction) in self.along.iter_mut().zip(direction) {
                for lane in 0..LANES {
                    along[lane] += moved[lane] * direction;
                }
            }
        }
    }

    /// Copies the codes of a lane out.
    #[inline(always)]
    pub(super) fn take(&self, lane: usize, codes: &mut [u8]) {
        for (code, own) in codes.iter_mut().zip(&self.codes) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a code has eight bits at most"
            )]
            let narrow = own[lane] as u8;
            *code = narrow;
        }
    }
}
