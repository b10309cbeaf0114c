//! An adapter folder in mlx-lm's or PEFT's format: which weights it changes, and by how much.
//! Knows nothing of merging, of stages or of models' architectures.

mod coverage;
mod factors;
mod fit;
mod mlx;
mod pattern;
mod peft;
mod renaming;
mod several;
mod tied;
mod variant;

pub use fit::Base;
pub use renaming::Renaming;
pub use several::Adapters;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use coverage::Named;
use factors::LowRank;
use serde_json::{Map, Value};

use crate::Error;
use crate::arch::Expert;
use crate::error::{Context, OrBug, Result, fail, require};
use crate::kernels::{Float, Lora};
use crate::tensor::{Element, TensorFiles};
use artifact::AtPath;

const CONFIG_FILE: &str = "adapter_config.json";
const MLX_FILE: &str = "adapters.safetensors";
const PEFT_FILE: &str = "adapter_model.safetensors";
/// The name that mlx-vlm may give to an adapter's weights.
const VLM_FILE: &str = "weights.safetensors";

/// An adapter folder, opened and checked. The updates are read on demand.
#[derive(Debug)]
pub struct Adapter {
    files: TensorFiles,
    contents: Contents,
    /// For each module name that a stack of experts may have: the experts with an update of their own, by
    /// number, and their modules.
    experts: BTreeMap<String, BTreeMap<usize, String>>,
    /// How the names of the model become those of the adapter, if they differ.
    renaming: Option<Renaming>,
}

/// The contents of an adapter file, in either format.
#[derive(Debug, Default)]
struct Contents {
    /// The low-rank updates by module. A module's name is its weight's name without `.weight`.
    low_rank: BTreeMap<String, LowRank>,
    /// The tensors that replace a weight, by that weight's name.
    whole: BTreeMap<String, String>,
    /// The modules that the configuration names, which must be in the file.
    named: Named,
    /// What a user must know about how the adapter is read.
    note: Option<String>,
}

/// What an adapter does to one weight.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// A low-rank update of a matrix, or one for each expert of a 3-D stack. The entry of an expert without
    /// an update is `None`. The list may be shorter than the stack; the experts after its end have no update.
    LowRank(Vec<Option<Lora>>),
    /// The tensor replaces the weight.
    Replace(Whole),
    /// The tensor replaces the weight, then the low-rank update is added. This is PEFT's `base_layer`, which
    /// PEFT saves beside the update of an embedding.
    ReplaceThenAdd(Whole, Lora),
}

/// A tensor that replaces a weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Whole {
    /// The type of the elements.
    pub float: Float,
    /// The shape, which is that of the weight.
    pub shape: Vec<usize>,
    /// The elements, little-endian. All of them are finite.
    pub bytes: Vec<u8>,
}

impl Adapter {
    /// Opens an adapter folder of mlx-lm or of PEFT. The name of the weights file says which.
    ///
    /// # Errors
    /// Fails if a file is missing or cannot be read, if there are weights of both formats, or if there is no
    /// update. It also fails if the configuration and the tensors contradict each other, or if the adapter
    /// cannot be merged.
    pub fn open(folder: &Path) -> Result<Self> {
        let (mlx, peft) = (folder.join(MLX_FILE), folder.join(PEFT_FILE));
        let file = match (mlx.exists(), peft.exists()) {
            (true, true) => fail!(
                Adapter,
                "{} holds both {MLX_FILE} (mlx-lm) and {PEFT_FILE} (PEFT): one of them must go",
                folder.display()
            ),
            (true, false) => mlx,
            (false, true) => peft,
            (false, false) if folder.join(VLM_FILE).exists() => folder.join(VLM_FILE),
            (false, false) => fail!(Adapter, "{}", no_weights(folder)),
        };
        let config = read_config(&folder.join(CONFIG_FILE))?;
        let files = TensorFiles::open(&file)?;
        files.check_not_empty().within(|| file.display().to_string())?;
        let is_mlx = !file.ends_with(PEFT_FILE);
        let contents = if is_mlx { mlx::read(&files, &config) } else { peft::read(&files, &config) };
        let contents = contents.within(|| format!("in {}", folder.display()))?;
        let changes = contents.low_rank.len() + contents.whole.len();
        require!(
            changes > 0,
            Adapter,
            "{} holds no update: no layer was trained. mlx-lm has no LoRA for the layers of some models, such as `bitnet`",
            file.display()
        );
        let experts = experts_by_stack(&contents.low_rank);
        Ok(Self { files, contents, experts, renaming: None })
    }

    /// Reads every tensor once, and checks that its elements are finite floats.
    ///
    /// # Errors
    /// Fails if a tensor cannot be read, is not float16, bfloat16 or float32, or holds an infinity or a NaN.
    pub fn check(&self) -> Result<()> {
        self.files.tensors().keys().try_for_each(|name| read_whole(&self.files, name).map(drop))
    }

    /// Gives the modules of an adapter of PEFT, which has transformers' names, the names of mlx-lm's model.
    ///
    /// # Errors
    /// Fails if two modules would have one name.
    pub fn take_names(&mut self, renamed: impl Fn(&str) -> String) -> Result<()> {
        if !self.contents.named.is_of_peft() {
            return Ok(());
        }
        let mut low_rank = BTreeMap::new();
        for (module, update) in std::mem::take(&mut self.contents.low_rank) {
            let name = renamed(&module);
            require!(
                low_rank.insert(name.clone(), update).is_none(),
                Adapter,
                "two updates are for `{name}`"
            );
        }
        let mut whole = BTreeMap::new();
        for (weight, tensor) in std::mem::take(&mut self.contents.whole) {
            let name = match weight.strip_suffix(".weight") {
                Some(module) => format!("{}.weight", renamed(module)),
                None => weight,
            };
            require!(whole.insert(name.clone(), tensor).is_none(), Adapter, "two tensors are for `{name}`");
        }
        (self.contents.low_rank, self.contents.whole) = (low_rank, whole);
        self.experts = experts_by_stack(&self.contents.low_rank);
        Ok(())
    }

    /// Finds the place of every tensor in `base`, and checks that the adapter holds every module that its
    /// configuration names. If the model names its modules otherwise, and there is exactly one way to translate
    /// the names that gives every tensor a place, that is taken; [`renaming`](Self::renaming) has it then.
    ///
    /// # Errors
    /// Fails if a tensor has no place, or if a module is missing. The message lists the tensors or the modules.
    pub fn place(&mut self, base: &Base) -> Result<()> {
        let Err(misfit) = fit::check(self, base) else { return coverage::check(self, base) };
        let names: Vec<_> = self.names().collect();
        let fits = |renaming: &Renaming| {
            let renamed = base.renamed(renaming);
            fit::check(self, &renamed).is_ok() && coverage::check(self, &renamed).is_ok()
        };
        let mut possible = Renaming::possible(&names, base).into_iter().filter(fits);
        match (possible.next(), possible.next()) {
            (Some(only), None) => self.renaming = Some(only),
            _ => return Err(misfit),
        }
        Ok(())
    }

    /// Returns how the names of the model were translated, if they were.
    pub fn renaming(&self) -> Option<&Renaming> {
        self.renaming.as_ref()
    }

    /// Returns the adapter's name of the model's module or weight `name`.
    fn own_name<'a>(&self, name: &'a str) -> Cow<'a, str> {
        self.renaming.as_ref().map_or(Cow::Borrowed(name), |renaming| renaming.translate(name))
    }

    /// Returns what the adapter does to the model's weight `name`, or `None` if it does nothing. The adapter must
    /// have its [`place`] in the model.
    ///
    /// # Errors
    /// Fails if a tensor cannot be read or holds an infinity or a NaN. It also fails if a stack of experts
    /// has both a whole tensor and low-rank updates.
    ///
    /// [`place`]: Self::place
    pub fn update(&self, name: &str) -> Result<Option<Update>> {
        let name = &*self.own_name(name);
        let whole =
            self.contents.whole.get(name).map(|tensor| read_whole(&self.files, tensor)).transpose()?;
        let module = name.strip_suffix(".weight").unwrap_or_default();
        let loras = match (self.contents.low_rank.get(module), self.experts.get(module)) {
            (Some(low_rank), _) => Some(low_rank.read(&self.files)?),
            (None, Some(experts)) => Some(self.read_experts(experts)?),
            (None, None) => None,
        };
        Ok(match (whole, loras) {
            (whole, None) => whole.map(Update::Replace),
            (None, Some(loras)) => Some(Update::LowRank(loras)),
            (Some(whole), Some(loras)) => match <[_; 1]>::try_from(loras) {
                Ok([Some(lora)]) => Some(Update::ReplaceThenAdd(whole, lora)),
                _ => fail!(
                    Adapter,
                    "`{name}` is a stack of experts that has a tensor of its own and updates besides"
                ),
            },
        })
    }

    fn read_experts(&self, experts: &BTreeMap<usize, String>) -> Result<Vec<Option<Lora>>> {
        let last = experts.keys().last().copied().unwrap_or_default();
        let mut loras = vec![None; last + 1];
        for (expert, module) in experts {
            let low_rank = self.contents.low_rank.get(module).or_bug("an expert has its update")?;
            if let (Some(place), Some(lora)) = (loras.get_mut(*expert), low_rank.read(&self.files)?.pop()) {
                *place = lora;
            }
        }
        Ok(loras)
    }

    /// Returns the names of the weights that the adapter changes. An expert that the file keeps apart has its
    /// own name, even if the model stacks its experts.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let low_rank = self.contents.low_rank.keys().map(|module| format!("{module}.weight"));
        let whole = self.contents.whole.keys().cloned();
        whole.chain(low_rank.filter(|name| !self.contents.whole.contains_key(name)))
    }

    /// Returns how many bytes the adapter's tensors take in its file.
    pub fn stored(&self) -> u64 {
        self.files.tensors().values().map(|tensor| tensor.length as u64).sum()
    }

    /// Whether the adapter changes the model's weight `name`.
    pub fn touches(&self, name: &str) -> bool {
        let name = &*self.own_name(name);
        self.contents.whole.contains_key(name)
            || name.strip_suffix(".weight").is_some_and(|module| self.changes(module))
    }

    /// Whether the adapter changes the weight of `module`.
    fn changes(&self, module: &str) -> bool {
        self.contents.low_rank.contains_key(module)
            || self.experts.contains_key(module)
            || self.contents.whole.contains_key(&format!("{module}.weight"))
    }
}

fn no_weights(folder: &Path) -> String {
    let pickle = folder.join("adapter_model.bin").exists();
    let hint = if pickle {
        "; adapter_model.bin is a pickle, which may run code: save it again with PEFT as safetensors"
    } else {
        ""
    };
    format!("{} holds neither {MLX_FILE} (mlx-lm) nor {PEFT_FILE} (PEFT){hint}", folder.display())
}

fn read_config(path: &Path) -> Result<Map<String, Value>> {
    let bytes = fs::read(path).at("read", path)?;
    text::from_python_json(&bytes).within(|| format!("{} is not a JSON object", path.display()))
}

/// Reads a tensor, and checks that its elements are finite floats.
fn read_whole(files: &TensorFiles, name: &str) -> Result<Whole> {
    let tensor = files.get(name).ok_or_else(|| Error::Bug(format!("`{name}` was there")))?;
    let float = match tensor.element {
        Element::F32 => Float::F32,
        Element::F16 => Float::F16,
        Element::BF16 => Float::Bf16,
        other => fail!(Adapter, "`{name}` is {other}, not a float16, bfloat16 or float32"),
    };
    let bytes = files.read(name)?;
    let mut place = vec![0.0; 4096];
    for (block, bytes) in bytes.chunks(place.len() * float.size()).enumerate() {
        float.decode(bytes, &mut place);
        let read = place.iter().take(bytes.len() / float.size());
        if let Some((within, value)) = read.enumerate().find(|(_, value)| !value.is_finite()) {
            fail!(
                Adapter,
                "`{name}` holds {value} at element {}: an adapter must be finite",
                block * 4096 + within
            );
        }
    }
    Ok(Whole { float, shape: tensor.shape.clone(), bytes })
}

fn experts_by_stack(low_rank: &BTreeMap<String, LowRank>) -> BTreeMap<String, BTreeMap<usize, String>> {
    let mut stacks: BTreeMap<String, BTreeMap<usize, String>> = BTreeMap::new();
    for module in low_rank.keys() {
        let Some(expert) = Expert::of(module) else { continue };
        for stack in expert.possible_stacks() {
            stacks.entry(stack).or_default().insert(expert.number, module.clone());
        }
    }
    stacks
}

/// How many lines of a list an error message shows.
const SHOWN: usize = 5;

/// Formats a list for an error message: its first lines, and how many more there are.
fn listed(lines: impl ExactSizeIterator<Item = String>) -> String {
    let count = lines.len();
    let mut text = lines.take(SHOWN).collect::<Vec<_>>().join("\n  ");
    if count > SHOWN {
        text += &format!("\n  and {} more", count - SHOWN);
    }
    text
}

#[cfg(test)]
mod tests;
