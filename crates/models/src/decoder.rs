//! The decoder that all supported architectures share: an embedding, layers, a norm, a head.
//! Does not know which architecture it is.

use anyhow::{Result, ensure};

use super::layers::{Block, BlockArgs, Embedding, Linear, ModuleArgs, Norm, NormArgs, Pass, PerLayerArgs};
use super::layers::{PerLayerInputs, State, ensure_side};
use super::runtime::Runtime;
use super::tensors::Tensors;

/// The most layers that a configuration is believed to have.
const MOST_LAYERS: usize = 1024;

/// What a family says of a model: everything but the numbers of its weights.
pub(crate) struct DecoderArgs {
    pub(crate) vocab_size: i32,
    pub(crate) hidden_size: i32,
    pub(crate) layers: Vec<BlockArgs>,
    /// The last norm.
    pub(crate) norm: NormArgs,
    /// Whether the embedding is also the output head.
    pub(crate) is_tied: bool,
    pub(crate) head_bias: bool,
    pub(crate) names: Names,
    /// A factor on the embedded tokens.
    pub(crate) embedding_scale: Option<f32>,
    /// A factor on the logits.
    pub(crate) logit_scale: Option<f32>,
    /// Logits `x` become `softcap * tanh(x / softcap)`.
    pub(crate) softcap: Option<f32>,
    /// The inputs of their own that layers have.
    pub(crate) per_layer: Option<PerLayerArgs>,
}

/// The paths of a decoder's parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    /// What all names begin with: nothing, or the place of a text model within another model.
    pub(crate) prefix: &'static str,
    /// The path of the decoder without its head.
    pub(crate) body: &'static str,
    pub(crate) embedding: &'static str,
    pub(crate) norm: &'static str,
    pub(crate) head: &'static str,
}

impl Names {
    /// The names in most families.
    pub(crate) const USUAL: Self =
        Self { prefix: "", body: "model", embedding: "embed_tokens", norm: "norm", head: "lm_head" };
}

impl DecoderArgs {
    /// Returns a decoder of these layers without any of the things that few families have.
    pub(crate) fn new(
        [vocab_size, hidden_size]: [i32; 2],
        norm: NormArgs,
        is_tied: bool,
        layers: Vec<BlockArgs>,
    ) -> Self {
        Self {
            vocab_size,
            hidden_size,
            layers,
            norm,
            is_tied,
            head_bias: false,
            names: Names::USUAL,
            embedding_scale: None,
            logit_scale: None,
            softcap: None,
            per_layer: None,
        }
    }

    /// Fails if a number is impossible, so that none can cause a division by zero or an overflow.
    pub(crate) fn check(&self) -> Result<()> {
        ensure_side("hidden_size", self.hidden_size)?;
        ensure_side("vocab_size", self.vocab_size)?;
        ensure!(!self.layers.is_empty(), "num_hidden_layers is 0");
        for (what, factor) in [("the embedding", self.embedding_scale), ("logits", self.logit_scale)] {
            ensure!(factor.is_none_or(f32::is_finite), "the factor of {what} is {factor:?}");
        }
        ensure!(self.softcap.is_none_or(|cap| cap > 0.0), "final_logit_softcapping is {:?}", self.softcap);
        if let Some(args) = &self.per_layer {
            args.check()?;
            let (own, all) = (args.vocab_size, self.vocab_size);
            ensure!(own >= all, "vocab_size_per_layer_input is {own}, but vocab_size is {all}");
        }
        for (number, layer) in self.layers.iter().enumerate() {
            layer.check()?;
            let sources = layer.modules().filter_map(|module| match module {
                ModuleArgs::Attention(args) => args.source,
                _ => None,
            });
            for source in sources {
                ensure!(source < number, "layer {number} uses the keys of layer {source}");
            }
        }
        Ok(())
    }

    /// Returns the windows that attention has in some layer; `None` is the sight of all tokens.
    fn windows(&self) -> Vec<Option<i32>> {
        let mut windows: Vec<_> =
            self.layers.iter().flat_map(BlockArgs::modules).filter_map(ModuleArgs::window).collect();
        windows.sort_unstable();
        windows.dedup();
        windows
    }
}

/// Returns `count` layers, where `layer` gives the arguments of each.
///
/// # Errors
/// Fails if there are more layers than any model has, or if `layer` fails.
pub(crate) fn layers(count: usize, layer: impl FnMut(usize) -> Result<BlockArgs>) -> Result<Vec<BlockArgs>> {
    ensure!((1..=MOST_LAYERS).contains(&count), "num_hidden_layers is {count}");
    (0..count).map(layer).collect()
}

pub(crate) struct Decoder<R: Runtime> {
    args: DecoderArgs,
    embed_tokens: Embedding<R>,
    per_layer: Option<PerLayerInputs<R>>,
    layers: Vec<Block<R>>,
    windows: Vec<Option<i32>>,
    norm: Norm<R>,
    lm_head: Option<Linear<R>>,
}

/// What the layers of a model keep of the tokens that they have seen.
pub(crate) struct States<R: Runtime> {
    /// How many tokens those are.
    pub(crate) seen: i32,
    pub(crate) layers: Vec<State<R>>,
}

impl<R: Runtime> States<R> {
    /// Waits until everything in them is computed.
    pub(crate) fn settle(&self, runtime: &R) -> Result<()> {
        runtime.settle(&self.layers.iter().flat_map(State::kept).collect::<Vec<_>>())
    }
}

impl<R: Runtime> Decoder<R> {
    /// Loads a decoder whose arguments were checked.
    pub(crate) fn load(weights: &mut Tensors<'_, R>, args: DecoderArgs) -> Result<Self> {
        let (dims, vocab_size, names) = (args.hidden_size, args.vocab_size, args.names);
        let body = format!("{}{}", names.prefix, names.body);
        let embed_tokens =
            Embedding::load(weights, &format!("{body}.{}", names.embedding), vocab_size, dims)?;
        let inputs = |inputs| PerLayerInputs::load(weights, &body, inputs);
        let per_layer = args.per_layer.as_ref().map(inputs).transpose()?;
        let numbered = args.layers.iter().enumerate();
        let layers = numbered
            .map(|(number, layer)| Block::load(weights, &format!("{body}.layers.{number}"), layer))
            .collect::<Result<_>>()?;
        let norm = Norm::load(weights, &format!("{body}.{}", names.norm), dims, args.norm)?;
        let head = format!("{}{}", names.prefix, names.head);
        let lm_head = if args.is_tied {
            None
        } else {
            Some(Linear::load(weights, &head, dims, vocab_size, args.head_bias)?)
        };
        let windows = args.windows();
        Ok(Self { args, embed_tokens, per_layer, layers, windows, norm, lm_head })
    }

    /// Maps `count` token ids to what the last layer makes of them, `[tokens, hidden_size]`.
    pub(crate) fn hidden(
        &self,
        runtime: &R,
        ids: &R::Tokens,
        tokens: i32,
        states: &mut States<R>,
    ) -> Result<R::Tensor> {
        let embedded = self.embed_tokens.forward(runtime, ids)?;
        let mut h = match self.args.embedding_scale {
            Some(scale) => runtime.scaled(&embedded, scale)?,
            None => embedded,
        };
        let seen = states.seen;
        let masked = |window: &Option<i32>| Ok((*window, runtime.mask(tokens, seen, *window)?));
        let masks = self.windows.iter().map(masked).collect::<Result<Vec<_>>>()?;
        let inputs = self.per_layer.as_ref().map(|inputs| inputs.forward(runtime, ids, &h)).transpose()?;
        let (states_of, per_layer) = (states.layers.as_mut_slice(), inputs.as_deref());
        let mut pass = Pass { runtime, tokens, seen, states: states_of, layer: 0, masks: &masks, per_layer };
        for (number, layer) in self.layers.iter().enumerate() {
            pass.layer = number;
            h = layer.forward(&mut pass, &h)?;
        }
        states.seen = seen.saturating_add(tokens);
        Ok(h)
    }

    /// Maps what the last layer makes to logits `[tokens, vocab_size]`.
    pub(crate) fn logits(&self, runtime: &R, hidden: &R::Tensor) -> Result<R::Tensor> {
        let h = self.norm.forward(runtime, hidden)?;
        let logits = match &self.lm_head {
            Some(lm_head) => lm_head.forward(runtime, &h)?,
            None => self.embed_tokens.as_linear(runtime, &h)?,
        };
        let scaled = match self.args.logit_scale {
            Some(scale) => runtime.scaled(&logits, scale)?,
            None => logits,
        };
        match self.args.softcap {
            Some(cap) => runtime.softcapped(&scaled, cap),
            None => Ok(scaled),
        }
    }

    /// Returns what the layers keep before the first token.
    pub(crate) fn states(&self, runtime: &R) -> States<R> {
        States { seen: 0, layers: self.args.layers.iter().map(|layer| layer.state(runtime)).collect() }
    }

    pub(crate) fn vocab_size(&self) -> i32 {
        self.args.vocab_size
    }

    pub(crate) fn activation_dtype(&self, runtime: &R) -> String {
        self.embed_tokens.activation_dtype(runtime)
    }
}
