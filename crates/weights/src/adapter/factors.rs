//! The two factors of a low-rank update: how a file stores them, and how they are read in one orientation.
//! Knows nothing of names or of the model.

use super::read_whole;
use crate::error::{Result, fail, require};
use crate::kernels::Lora;
use crate::tensor::TensorFiles;

/// A low-rank update as a file stores it.
#[derive(Debug)]
pub(super) struct LowRank {
    /// `[rank, in]` when it is read, for each expert.
    a: Factor,
    /// `[rank, out]` when it is read, for each expert.
    b: Factor,
    /// The name of the tensor with DoRA's magnitudes, `[out]`.
    magnitude: Option<String>,
    scale: f32,
    /// The inner dimension.
    pub rank: usize,
    /// How many experts a stack has; `None` for a matrix.
    pub experts: Option<usize>,
    /// The columns of the weight.
    pub inputs: usize,
    /// The rows of the weight.
    pub outputs: usize,
}

/// One factor, and its orientation in the file.
#[derive(Clone, Debug)]
pub(super) struct Factor {
    /// The tensor's name.
    pub tensor: String,
    /// Whether the rank is the last dimension. Such a factor is transposed when it is read.
    pub rank_last: bool,
}

impl Factor {
    /// A factor that is stored as `[rank, n]`.
    pub(super) fn rank_first(tensor: &str) -> Self {
        Self { tensor: tensor.to_owned(), rank_last: false }
    }

    /// A factor that is stored as `[n, rank]`.
    pub(super) fn rank_last(tensor: &str) -> Self {
        Self { tensor: tensor.to_owned(), rank_last: true }
    }

    fn shape<'a>(&self, files: &'a TensorFiles) -> &'a [usize] {
        files.get(&self.tensor).map(|tensor| tensor.shape.as_slice()).unwrap_or_default()
    }

    /// Returns `(rank, n)` of a matrix with these dimensions.
    fn sides(&self, &[first, last]: &[usize; 2]) -> (usize, usize) {
        if self.rank_last { (last, first) } else { (first, last) }
    }

    /// Reads the factor as `[rank, n]`: one matrix, or one for each expert.
    fn read(&self, files: &TensorFiles, [rank, n]: [usize; 2]) -> Result<Vec<Vec<f32>>> {
        let values = floats(files, &self.tensor)?;
        let of_expert = |matrix: &[f32]| {
            if !self.rank_last {
                return matrix.to_vec();
            }
            // Transposed once here, so that computing a row of the update reads both factors in order.
            (0..rank).flat_map(|k| matrix.iter().skip(k).step_by(rank).copied()).collect()
        };
        // `LowRank::new` checks that neither is zero. Their product cannot overflow: it is at most the
        // tensor's size.
        Ok(values.chunks_exact(rank * n).map(of_expert).collect())
    }
}

impl LowRank {
    /// Pairs two factors whose inner dimensions agree. `format` says how the format stores them; the message
    /// shows it if they do not agree.
    pub(super) fn new(
        files: &TensorFiles,
        (a, b): (Factor, Factor),
        scale: f32,
        format: &str,
    ) -> Result<Self> {
        let (a_shape, b_shape) = (a.shape(files), b.shape(files));
        let (experts, a_sides, b_sides) = match (a_shape, b_shape) {
            (&[a0, a1], &[b0, b1]) => (None, [a0, a1], [b0, b1]),
            (&[experts, a1, a2], &[same, b1, b2]) if experts == same => (Some(experts), [a1, a2], [b1, b2]),
            // The flat form of older adapters, which `LoRASwitchLinear.fuse` accepts too.
            (&[a0, a1], &[experts, b1, b2]) if experts > 0 && a0.is_multiple_of(experts) => {
                (Some(experts), [a0 / experts, a1], [b1, b2])
            }
            _ => fail!(
                Adapter,
                "`{}` {a_shape:?} and `{}` {b_shape:?} must be matrices, or stacks with as many experts",
                a.tensor,
                b.tensor
            ),
        };
        let ((rank, inputs), (inner, outputs)) = (a.sides(&a_sides), b.sides(&b_sides));
        if rank != inner {
            // If both factors are transposed, the other two dimensions are equal.
            let hint = if inputs == outputs { "; they look transposed" } else { "" };
            fail!(
                Adapter,
                "`{}` {a_shape:?} and `{}` {b_shape:?} do not multiply: {format}{hint}",
                a.tensor,
                b.tensor
            );
        }
        let empty = [rank, inputs, outputs, experts.unwrap_or(1)].contains(&0);
        require!(!empty, Adapter, "`{}` {a_shape:?} and `{}` {b_shape:?} are empty", a.tensor, b.tensor);
        Ok(Self { a, b, magnitude: None, scale, rank, experts, inputs, outputs })
    }

    /// Adds DoRA's magnitudes, one for each row of the weight.
    pub(super) fn with_magnitude(mut self, files: &TensorFiles, name: &str) -> Result<Self> {
        let shape = files.get(name).map(|tensor| tensor.shape.as_slice()).unwrap_or_default();
        require!(self.experts.is_none(), Adapter, "`{name}`: DoRA of a stack of experts is not defined");
        require!(
            shape == [self.outputs],
            Adapter,
            "`{name}` is {shape:?}, but the weight that it scales has {} rows",
            self.outputs
        );
        self.magnitude = Some(name.to_owned());
        Ok(self)
    }

    /// Whether the update gives each row a length: DoRA.
    pub(super) fn is_dora(&self) -> bool {
        self.magnitude.is_some()
    }

    /// Returns the shape that the weight must have.
    pub(super) fn shape(&self) -> Vec<usize> {
        self.experts.into_iter().chain([self.outputs, self.inputs]).collect()
    }

    /// Fails if the update does not have the rank that the configuration says. `said_by` names the
    /// configuration in the message.
    pub(super) fn has_rank(&self, rank: u64, said_by: &str) -> Result<()> {
        if self.rank as u64 == rank {
            return Ok(());
        }
        let (a, there) = (&self.a.tensor, self.rank);
        let transposed = [self.inputs, self.outputs].iter().any(|side| *side as u64 == rank);
        let hint = if transposed { "; its factors look transposed" } else { "" };
        fail!(Adapter, "{said_by} says rank {rank}, but `{a}` has rank {there}{hint}")
    }

    /// Reads the update: one for a matrix, or one for each expert of a stack.
    pub(super) fn read(&self, files: &TensorFiles) -> Result<Vec<Option<Lora>>> {
        let a = self.a.read(files, [self.rank, self.inputs])?;
        let b = self.b.read(files, [self.rank, self.outputs])?;
        let magnitude = self.magnitude.as_ref().map(|name| floats(files, name)).transpose()?;
        let lora =
            |(a, b)| Some(Lora { a, b, scale: self.scale, rank: self.rank, magnitude: magnitude.clone() });
        Ok(a.into_iter().zip(b).map(lora).collect())
    }
}

fn floats(files: &TensorFiles, name: &str) -> Result<Vec<f32>> {
    let whole = read_whole(files, name)?;
    let mut values = vec![0.0; whole.bytes.len() / whole.float.size()];
    whole.float.decode(&whole.bytes, &mut values);
    Ok(values)
}
