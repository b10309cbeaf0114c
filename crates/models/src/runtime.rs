//! The door to what computes: the operations that models are written in.
//! Knows no model, no file format and no library. There are two implementations: the crate `cpu`, which is our
//! own, and the crate `mlx`.
//!
//! A tensor has one row for each token: `[tokens, dims]`. After [`Runtime::heads`] it has `[tokens, heads,
//! dims]`. An implementation may lay it out in its own way, and it may compute later than it is asked, until
//! something is read. Shapes and token ids are checked before they come here.

use std::ops::Range;

use anyhow::Result;

use weights::adapter::Whole;
use weights::checkpoint::{Checkpoint, Weight};

/// A weight of an opened checkpoint.
#[derive(Clone, Copy)]
pub struct Stored<'a> {
    /// The checkpoint.
    pub checkpoint: &'a Checkpoint,
    /// The weight's name.
    pub name: &'a str,
    /// The weight itself.
    pub weight: &'a Weight,
}

/// The activation of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`
    Silu,
    /// GELU, approximated with a tanh.
    Gelu,
    /// GELU, with the error function.
    ExactGelu,
    /// `max(x, 0)²`
    SquaredRelu,
    /// That of gpt-oss: of a gate `g` at most 7 and an `x` between -7 and 7, `g * sigmoid(1.702 g) * (x + 1)`.
    Clamped,
}

/// How positions become angles.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeArgs {
    /// How many dimensions of a head are rotated.
    pub dims: i32,
    /// Whether neighbours are rotated together, and not a dimension of the first half with one of the second.
    pub traditional: bool,
    /// The angles.
    pub angles: Angles,
}

/// Where the angles of a rotary position embedding come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Angles {
    /// Pair `i` turns by `scale / base^(2i / dims)` for each token.
    Base {
        /// The base.
        base: f32,
        /// A factor on positions.
        scale: f32,
    },
    /// A base that grows with the text once it is longer than `context`.
    Growing {
        /// The base of a short text.
        base: f32,
        /// How much longer than `context` a text may be.
        factor: f32,
        /// The number of tokens up to which the base stays.
        context: i32,
    },
    /// One wavelength for each pair, divided by 2π, and a factor on the input.
    Explicit {
        /// The wavelengths over 2π: `base^(2i / dims)` if nothing is stretched.
        freqs: Vec<f32>,
        /// The factor.
        magnitude: f32,
    },
}

impl Angles {
    /// Returns the base and the factor on positions for a text of so many tokens, if the angles are not explicit. An
    /// explicit wavelength is not scaled.
    pub fn at(&self, dims: i32, seen: i32) -> (f32, f32) {
        match *self {
            Self::Base { base, scale } => (base, scale),
            Self::Growing { base, factor, context } => {
                let seen = seen.max(context) as f32;
                let growth = factor * seen / context as f32 - (factor - 1.0);
                let power = dims as f32 / (dims - 2) as f32;
                (base * libm::powf(growth, power), 1.0)
            }
            Self::Explicit { .. } => (1.0, 1.0),
        }
    }
}

/// The inputs of attention for some new tokens.
pub struct Heads<'a, R: Runtime> {
    /// `[tokens, heads, dims]`
    pub queries: &'a R::Tensor,
    /// Keys and values, each `[tokens, key/value heads, dims]`. If there are none, the cache is that of another layer,
    /// which has put those of the same tokens into it.
    pub own: Option<&'a [R::Tensor; 2]>,
}

/// How queries attend to keys.
pub struct AttentionOptions<'a, R: Runtime> {
    /// The factor on the products of queries and keys.
    pub scale: f32,
    /// How positions turn queries and keys, if they do.
    pub rope: Option<&'a R::Rope>,
    /// For each head, a number that takes its part of the softmax, `[heads]`.
    pub sinks: Option<&'a R::Tensor>,
    /// Products `p` become `softcap * tanh(p / softcap)`, after the scale.
    pub softcap: Option<f32>,
}

/// The inputs of a linear attention for some new tokens. Its state `[value heads, value dims, key dims]` holds a value
/// for each key. For each token, it is first multiplied with the decay; then the token's value is added at its key; then
/// the query reads it.
pub struct Recurrence<'a, R: Runtime> {
    /// `[tokens, key heads, key dims]`. Value heads share key heads.
    pub queries: &'a R::Tensor,
    /// `[tokens, key heads, key dims]`
    pub keys: &'a R::Tensor,
    /// `[tokens, value heads, value dims]`
    pub values: &'a R::Tensor,
    /// The logarithms of the decays, `[tokens, value heads]`: 0 or less.
    pub log_decays: &'a R::Tensor,
    /// If this is given, the value that the state has at the key is subtracted from the token's value, and the
    /// difference is multiplied with this number, `[tokens, value heads]`. This is the delta rule.
    pub replaced: Option<&'a R::Tensor>,
}

/// Something that a layer keeps from pass to pass.
pub enum RuntimeState<'a, R: Runtime> {
    /// Keys and values.
    Cache(&'a R::Cache),
    /// The state of a convolution or of a linear attention.
    Tensor(&'a R::Tensor),
}

/// The operations that models are written in, and the memory that they work on.
///
/// # Errors
/// An operation fails if the runtime's library fails or the system gives no memory. What reads a checkpoint also
/// fails if a file cannot be read.
pub trait Runtime: Sized + 'static {
    /// Activations, or a vector of weights.
    type Tensor: Clone;
    /// Token ids.
    type Tokens: Clone;
    /// A weight matrix `[rows, columns]` or a stack `[experts, rows, columns]`, float or quantized.
    type Matrix;
    /// The tensors of a checkpoint that were not taken yet.
    type Weights;
    /// A rotary position embedding.
    type Rope: Clone;
    /// Which tokens a token sees.
    type Mask;
    /// The keys and values that one layer has seen.
    type Cache;
    /// For each token, the numbers of the experts that it goes through.
    type Choice;
    /// The pairs of token and expert, in the order in which they are computed.
    type Routes;

    /// Whether operations are only noted, and computed when something is read. The next token is then asked
    /// for before the current one is read.
    const IS_LAZY: bool;

    /// Long prompts are read in pieces of this many tokens, which bounds the memory of activations.
    const PREFILL_STEP: usize;

    /// Returns the name of the device, such as `cpu` or `gpu`.
    fn device(&self) -> Result<&'static str>;

    /// Returns the peak memory of this process in bytes.
    fn peak_memory_bytes(&self) -> Result<u64>;

    // Loading.

    /// Prepares for taking the tensors of a checkpoint.
    fn open(&self, checkpoint: &Checkpoint) -> Result<Self::Weights>;

    /// Takes a float weight. A matrix or a stack keeps its shape, but is not a factor of a product.
    fn vector(&self, weights: &mut Self::Weights, stored: Stored<'_>) -> Result<Self::Tensor>;

    /// Takes a float or quantized weight with two or three dimensions.
    fn matrix(&self, weights: &mut Self::Weights, stored: Stored<'_>) -> Result<Self::Matrix>;

    /// Returns numbers in memory as a vector.
    fn vector_of(&self, numbers: &Whole) -> Result<Self::Tensor>;

    /// Returns numbers in memory as a matrix or a stack.
    fn matrix_of(&self, numbers: &Whole) -> Result<Self::Matrix>;

    /// Reads what was taken into memory, if it is not there yet.
    fn finish(&self, weights: Self::Weights) -> Result<()>;

    /// Returns the type of the activations that rows of a matrix become, such as `float32`.
    fn activation_dtype(&self, matrix: &Self::Matrix) -> String;

    // Products with weights.

    /// Returns token ids as the model reads them.
    fn tokens(&self, ids: &[u32]) -> Result<Self::Tokens>;

    /// Returns the rows of a matrix with these numbers.
    fn rows(&self, matrix: &Self::Matrix, numbers: &Self::Tokens) -> Result<Self::Tensor>;

    /// Returns `x @ transpose(matrix) + bias`.
    fn product(
        &self,
        x: &Self::Tensor,
        matrix: &Self::Matrix,
        bias: Option<&Self::Tensor>,
    ) -> Result<Self::Tensor>;

    /// Returns the products of one tensor with several matrices, each with its bias. A runtime may compute them together.
    fn products(
        &self,
        x: &Self::Tensor,
        layers: &[(&Self::Matrix, Option<&Self::Tensor>)],
    ) -> Result<Vec<Self::Tensor>> {
        layers.iter().map(|(matrix, bias)| self.product(x, matrix, *bias)).collect()
    }

    /// Returns `magnitude / length`, where `length` is that of each row of `weight + scale * b @ a`, and `factors`
    /// are `a` and `b`. This is the
    /// factor of DoRA on each row.
    fn dora_factors(
        &self,
        weight: &Self::Matrix,
        factors: [&Self::Matrix; 2],
        scale: f32,
        magnitude: &Self::Tensor,
    ) -> Result<Self::Tensor>;

    // Element by element.

    /// Returns `a + b`.
    fn add(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor>;

    /// Returns each row of `x` plus `bias`.
    fn add_bias(&self, x: &Self::Tensor, bias: &Self::Tensor) -> Result<Self::Tensor>;

    /// Returns `a + b`. If activations are float16, a sum beyond their range becomes the largest number.
    fn add_clipped(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor>;

    /// Returns `x + factor * update`, where the update is rounded to the type of the activations first.
    fn add_update(&self, x: &Self::Tensor, update: &Self::Tensor, factor: f32) -> Result<Self::Tensor>;

    /// Returns `x + number`.
    fn add_number(&self, x: &Self::Tensor, number: f32) -> Result<Self::Tensor>;

    /// Returns `x * number`.
    fn scaled(&self, x: &Self::Tensor, number: f32) -> Result<Self::Tensor>;

    /// Returns each row of `x`, multiplied with `factors` element by element.
    fn multiply(&self, x: &Self::Tensor, factors: &Self::Tensor) -> Result<Self::Tensor>;

    /// Returns each row of `x`, multiplied with the factor that has the token's number.
    fn multiply_rows(
        &self,
        x: &Self::Tensor,
        factors: &Self::Tensor,
        numbers: &Self::Tokens,
    ) -> Result<Self::Tensor>;

    /// Returns each number of a token's heads, multiplied with the head's factor. `factors` is `[tokens, heads]`.
    fn multiply_heads(&self, x: &Self::Tensor, factors: &Self::Tensor) -> Result<Self::Tensor>;

    /// Returns each number of a token, multiplied with the token's factor. `factors` is `[tokens, 1]`.
    fn multiply_tokens(&self, x: &Self::Tensor, factors: &Self::Tensor) -> Result<Self::Tensor>;

    /// Returns `1 / (1 + e^-x)`, in the type of `x`.
    fn sigmoid(&self, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// Returns `1 / (1 + e^-x)` in float32, for numbers that decide something.
    fn precise_sigmoid(&self, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// Returns `cap * tanh(x / cap)`.
    fn softcapped(&self, x: &Self::Tensor, cap: f32) -> Result<Self::Tensor>;

    /// Returns `activation(x)`.
    fn activated(&self, activation: Activation, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// Returns `activation(gate) * x`.
    fn gated(&self, activation: Activation, gate: &Self::Tensor, x: &Self::Tensor) -> Result<Self::Tensor>;

    // Along a row.

    /// Divides the last axis of `x` by its root mean square, and multiplies it with `weight`.
    fn rms_norm(&self, x: &Self::Tensor, weight: Option<&Self::Tensor>, eps: f32) -> Result<Self::Tensor>;

    /// Gives the last axis of `x` the mean 0 and the variance 1, multiplies it with `weight`, and adds `bias`.
    fn layer_norm(
        &self,
        x: &Self::Tensor,
        weight: Option<&Self::Tensor>,
        bias: Option<&Self::Tensor>,
        eps: f32,
    ) -> Result<Self::Tensor>;

    /// Returns `e^x / sum(e^x)` of each row.
    fn softmax(&self, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// Returns each row of `x`, divided by its sum plus `eps`.
    fn normalized(&self, x: &Self::Tensor, eps: f32) -> Result<Self::Tensor>;

    // Shapes.

    /// Returns these columns of the last axis.
    fn columns(&self, x: &Self::Tensor, columns: Range<i32>) -> Result<Self::Tensor>;

    /// Joins tensors along the last axis. The other axes are the same.
    fn joined(&self, parts: &[&Self::Tensor]) -> Result<Self::Tensor>;

    /// Joins the heads of each token: the opposite of [`heads`](Self::heads).
    fn flat(&self, x: &Self::Tensor) -> Result<Self::Tensor>;

    // Attention.

    /// Splits `[tokens, heads * dims]` into `[tokens, heads, dims]`.
    fn heads(&self, x: &Self::Tensor, heads: i32) -> Result<Self::Tensor>;

    /// Returns the rotary position embedding with these arguments.
    fn rope(&self, args: &RopeArgs) -> Result<Self::Rope>;

    /// Returns an empty cache for a layer that sees the last `window` tokens, or all tokens.
    fn cache(&self, window: Option<i32>) -> Self::Cache;

    /// Returns the mask for `tokens` new tokens after `seen` others, where each sees the last `window` tokens or
    /// all before it.
    fn mask(&self, tokens: i32, seen: i32, window: Option<i32>) -> Result<Self::Mask>;

    /// Rotates queries and keys by their positions, adds keys and values to the cache, and returns the softmax
    /// attention of the queries, `[tokens, heads * dims]`.
    fn attention(
        &self,
        heads: &Heads<'_, Self>,
        options: &AttentionOptions<'_, Self>,
        mask: &Self::Mask,
        cache: &mut Self::Cache,
    ) -> Result<Self::Tensor>;

    /// Returns the product of each head, `[tokens, heads, input]`, with the head's matrix of a stack
    /// `[heads, output, input]`.
    fn head_product(&self, x: &Self::Tensor, stack: &Self::Matrix) -> Result<Self::Tensor>;

    // Layers with a state.

    /// Returns the convolution of each channel of `x`, `[tokens, channels]`, with its row of `kernel`,
    /// `[channels, length, 1]`. A token sees the last `length` tokens, of which `inputs` keeps those before `x`; at first
    /// they are zeros.
    fn convolved(
        &self,
        x: &Self::Tensor,
        kernel: &Self::Tensor,
        bias: Option<&Self::Tensor>,
        inputs: &mut Option<Self::Tensor>,
    ) -> Result<Self::Tensor>;

    /// Returns `ln(1 + e^(x + bias))` within the limits, in float32. `x` is `[tokens, heads]`.
    fn steps(&self, x: &Self::Tensor, bias: &Self::Tensor, limits: [f32; 2]) -> Result<Self::Tensor>;

    /// Returns what the queries read, `[tokens, value heads, value dims]`. `state` is `None` before the first token.
    fn recurrence(
        &self,
        inputs: &Recurrence<'_, Self>,
        state: &mut Option<Self::Tensor>,
    ) -> Result<Self::Tensor>;

    // Experts.

    /// Returns the places of the `count` largest numbers of each row, and these numbers.
    fn largest(&self, x: &Self::Tensor, count: i32) -> Result<(Self::Choice, Self::Tensor)>;

    /// Returns the numbers of each row of `x` at the places of a choice.
    fn at(&self, x: &Self::Tensor, choice: &Self::Choice) -> Result<Self::Tensor>;

    /// Returns the numbers of a vector at the places of a choice, `[tokens, count]`.
    fn picked(&self, numbers: &Self::Tensor, choice: &Self::Choice) -> Result<Self::Tensor>;

    /// Cuts each row of `x` into groups, and sets the numbers of all but the best `kept` groups to 0. A group is as good as
    /// the sum of its two largest numbers.
    fn best_groups(&self, x: &Self::Tensor, groups: i32, kept: i32) -> Result<Self::Tensor>;

    /// Puts the pairs of token and expert into an order.
    fn routes(&self, choice: &Self::Choice) -> Result<Self::Routes>;

    /// Returns the row of the token for each pair.
    fn spread(&self, x: &Self::Tensor, routes: &Self::Routes) -> Result<Self::Tensor>;

    /// Returns the product of each pair's row with the matrix of its expert, as [`product`](Self::product).
    fn expert_product(
        &self,
        x: &Self::Tensor,
        stack: &Self::Matrix,
        routes: &Self::Routes,
    ) -> Result<Self::Tensor>;

    /// Adds to each pair's row the row of its expert in `bias`, `[experts, dims]`.
    fn add_expert_bias(
        &self,
        x: &Self::Tensor,
        bias: &Self::Tensor,
        routes: &Self::Routes,
    ) -> Result<Self::Tensor>;

    /// Returns for each token the sum of its pairs' rows, each multiplied with its score, `[tokens, count]`.
    fn gather(&self, x: &Self::Tensor, scores: &Self::Tensor, routes: &Self::Routes) -> Result<Self::Tensor>;

    // Results.

    /// Returns the row of the last token.
    fn last(&self, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// Returns the place of the largest number in the only row of `x`; of several, the first.
    fn most_likely(&self, x: &Self::Tensor) -> Result<Self::Tokens>;

    /// Starts to compute a token, and does not wait for it.
    fn start(&self, token: &Self::Tokens) -> Result<()>;

    /// Waits for a token and returns it.
    fn read(&self, token: &Self::Tokens) -> Result<u32>;

    /// Waits until this is computed.
    fn settle(&self, states: &[RuntimeState<'_, Self>]) -> Result<()>;

    /// Gives memory back that is kept for later use.
    fn free(&self) -> Result<()>;

    /// Returns the numbers of a tensor in float32, row by row.
    fn numbers(&self, x: &Self::Tensor) -> Result<Vec<f32>>;

    /// Returns rows of `dims` numbers each.
    fn tensor(&self, numbers: Vec<f32>, dims: usize) -> Result<Self::Tensor>;

    /// Returns `ln softmax(x)` of each row in float32.
    fn log_softmax(&self, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// Returns for each row of log probabilities that of the token with this number.
    fn chosen(&self, log_probabilities: &Self::Tensor, tokens: &[u32]) -> Result<Vec<f64>>;

    /// Returns for each row `sum(p * ln(p / q))`, where `p` is the reference's distribution and `q` the own one.
    /// Also returns for each row whether both find the same token most likely.
    fn divergences(&self, reference: &Self::Tensor, own: &Self::Tensor) -> Result<Vec<(f64, bool)>>;
}
