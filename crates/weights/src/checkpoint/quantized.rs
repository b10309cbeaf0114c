//! How the weights of a checkpoint are quantized: what `config.json` says, and whether the tensors agree.
//! Knows nothing of the arithmetic.

use serde_json::{Map, Value, json};

use super::weight::{BLOCKS, SCALES};
use super::{CONFIG_FILE, Weight, WeightKind, float_of};
use crate::Error;
use crate::arch::Arch;
use crate::error::{OrBug, Result, fail, require};
use crate::kernels::{Float, Mode, QuantSpec};
use crate::tensor::{Element, TensorFiles, TensorRef};

/// The last words of the names of tensors that other tools add to quantized weights.
const FOREIGN_PARTS: [&str; 12] = [
    "qweight",
    "qzeros",
    "g_idx",
    "absmax",
    "quant_map",
    "nested_absmax",
    "SCB",
    "weight_scale",
    "weight_scale_inv",
    "weight_packed",
    "input_scale",
    "scales",
];

/// The name of the method by which OpenAI's gpt-oss is quantized. Its codes and scales are those of MLX's mode.
const OPENAI: &str = "mxfp4";

/// Writes the section of OpenAI's method as MLX's own, as mlx-lm does when it loads such a model.
pub(super) fn adopt_openai(config: &mut Map<String, Value>) {
    let method = config.get("quantization_config").and_then(|section| section.get("quant_method"));
    if own_section(config).is_none() && method.and_then(Value::as_str) == Some(OPENAI) {
        let section = record(QuantSpec { mode: Mode::Mxfp4, bits: 4, group_size: 32 });
        config.insert("quantization".to_owned(), section.clone());
        config.insert("quantization_config".to_owned(), section);
    }
}

/// Describes the weight of which `name` has the codes in OpenAI's form: `…_blocks`, bytes [.., groups, 16], beside
/// `…_scales`, bytes [.., groups]. Returns `None` if `name` is no such tensor.
///
/// # Errors
/// Fails if the two do not fit each other.
pub(super) fn read_openai(name: &str, blocks: &TensorRef, files: &TensorFiles) -> Result<Option<Weight>> {
    let Some(stem) = name.strip_suffix(BLOCKS) else { return Ok(None) };
    let Some(scales) = files.get(&format!("{stem}{SCALES}")) else { return Ok(None) };
    let fits = blocks.shape.split_last() == Some((&16, scales.shape.as_slice()));
    let groups = scales.shape.last().and_then(|groups| groups.checked_mul(32));
    let (true, Element::U8, Element::U8, Some(columns)) = (fits, blocks.element, scales.element, groups)
    else {
        fail!(
            Checkpoint,
            "`{name}` {:?} {} and `{stem}{SCALES}` {:?} {} are not codes and scales of {OPENAI}",
            blocks.shape,
            blocks.element,
            scales.shape,
            scales.element
        );
    };
    let shape = [scales.shape.split_last().map_or(&[][..], |(_, rows)| rows), &[columns]].concat();
    let spec = QuantSpec { mode: Mode::Mxfp4, bits: 4, group_size: 32 };
    Ok(Some(Weight::of_tensor(name, shape, WeightKind::Quantized(spec, Float::Bf16))))
}

/// Whether `name` has the scales of codes in OpenAI's form.
pub(super) fn is_openai_scale(name: &str, files: &TensorFiles) -> bool {
    name.strip_suffix(SCALES).is_some_and(|stem| files.get(&format!("{stem}{BLOCKS}")).is_some())
}

/// Returns the name of the tool that quantized the model according to its configuration, although the weights are
/// floats: the section is a left-over, for example of a model that was merged in 16 bits. Returns `None` if the
/// configuration names no other tool than MLX.
///
/// # Errors
/// Fails if another tool than MLX did quantize the model. Its tensors have names and layouts of their own, so
/// they would not be recognised as quantized.
pub(super) fn left_over(config: &Map<String, Value>, files: &TensorFiles) -> Result<Option<String>> {
    let inner = || config.get("text_config").and_then(|text| text.get("quantization_config"));
    let section = config.get("quantization_config").or_else(inner);
    let method = section.and_then(|section| section.get("quant_method")).and_then(Value::as_str);
    let Some(method) = method.filter(|_| own_section(config).is_none()) else { return Ok(None) };
    let is_foreign = |(name, tensor): (&String, &TensorRef)| {
        let last = name.rsplit('.').next().unwrap_or(name);
        FOREIGN_PARTS.contains(&last) || tensor.shape.len() > 1 && float_of(tensor.element).is_none()
    };
    match files.tensors().iter().find(|(name, tensor)| is_foreign((name, tensor))) {
        Some((name, tensor)) => fail!(
            Unsupported,
            "the model was quantized by {method}, not by MLX: `{name}` is {}; take the model that was not quantized",
            tensor.element
        ),
        None => Ok(Some(method.to_owned())),
    }
}

/// Removes the sections of other tools from the configuration.
pub(super) fn forget_others(config: &mut Map<String, Value>) {
    config.remove("quantization_config");
    if let Some(text) = config.get_mut("text_config").and_then(Value::as_object_mut) {
        text.remove("quantization_config");
    }
}

/// Returns MLX's own section of the configuration, `quantization`.
fn own_section(config: &Map<String, Value>) -> Option<&Value> {
    config.get("quantization").filter(|section| !section.is_null())
}

/// Returns the module that the tensor `name` is a part of, if that module is quantized.
pub(super) fn module_of<'a>(name: &'a str, files: &TensorFiles) -> Option<&'a str> {
    let (module, part) = name.rsplit_once('.')?;
    let has = |part: &str| files.get(&format!("{module}.{part}")).is_some();
    let is_part = matches!(part, "weight" | "scales" | "biases" | "global_scale");
    (is_part && has("weight") && has("scales")).then_some(module)
}

/// Describes the weight of a quantized module. `packed` is its `weight` tensor.
pub(super) fn read(
    module: &str,
    packed: &TensorRef,
    files: &TensorFiles,
    packing: &Packing<'_>,
) -> Result<Weight> {
    let get = |part: &str| files.get(&format!("{module}.{part}"));
    let scales = get("scales").ok_or_else(|| Error::Bug(format!("`{module}` has scales")))?;
    let spec = packing.spec(module, packed, scales)?;
    require!(
        get("global_scale").is_none(),
        Unsupported,
        "`{module}.global_scale`: this version does not read nvfp4 with a scale for the whole tensor"
    );
    let float = match spec.mode {
        Mode::Affine => float_of(scales.element).ok_or_else(|| {
            Error::Checkpoint(format!("`{module}.scales` is {}, not a float", scales.element))
        })?,
        // Codes and scales do not say which type the weights had. MLX dequantizes them to bfloat16.
        _ => Float::Bf16,
    };
    let biases = get("biases");
    let columns = columns(spec, packed, scales).filter(|_| match (spec.mode, biases) {
        (Mode::Affine, Some(biases)) => (&biases.shape, biases.element) == (&scales.shape, scales.element),
        (Mode::Affine, None) => false,
        (_, biases) => biases.is_none() && scales.element == Element::U8,
    });
    let Some(columns) = columns else {
        let show = |tensor: &TensorRef| format!("{:?} {}", tensor.shape, tensor.element);
        fail!(
            Checkpoint,
            "`{module}` does not have the shapes of {spec}, as {CONFIG_FILE} says: weight {}, scales {}, biases {}",
            show(packed),
            show(scales),
            biases.map_or_else(|| "none".to_owned(), show)
        );
    };
    let mut shape = packed.shape.clone();
    *shape.last_mut().or_bug("a quantized weight has a dimension")? = columns;
    Ok(Weight::of_tensor(&format!("{module}.weight"), shape, WeightKind::Quantized(spec, float)))
}

/// Returns the length of a row before packing, in weights, if the shapes of codes and scales fit the spec.
fn columns(spec: QuantSpec, packed: &TensorRef, scales: &TensorRef) -> Option<usize> {
    let (words, rows) = packed.shape.split_last()?;
    let (groups, scale_rows) = scales.shape.split_last()?;
    let columns = groups.checked_mul(spec.group_size)?;
    let fits = columns > 0 && columns.checked_mul(spec.bits)? == words.checked_mul(32)? && rows == scale_rows;
    (fits && packed.element == Element::U32).then_some(columns)
}

/// What `config.json` and the tensors say about how the modules of a model are quantized.
pub(super) struct Packing<'a> {
    config: &'a Map<String, Value>,
    arch: &'a Arch,
    /// The spec of the first module whose row length is known and that has no entry of its own.
    observed: Option<QuantSpec>,
    /// Whether the default of the configuration is trusted.
    is_default_right: bool,
}

impl<'a> Packing<'a> {
    /// Compares the default of the configuration with the modules whose row length is known.
    pub(super) fn of(config: &'a Map<String, Value>, arch: &'a Arch, files: &TensorFiles) -> Self {
        let own = Self { config, arch, observed: None, is_default_right: true };
        let observe = |(name, packed): (&String, &TensorRef)| {
            let module = name.strip_suffix(".weight")?;
            let scales = files.get(&format!("{module}.scales"))?;
            let has_entry = own.section().ok()?.get(module).is_some_and(Value::is_object);
            own.by_columns(module, packed, scales).filter(|_| !has_entry)
        };
        let known: Vec<_> = files.tensors().iter().filter_map(observe).collect();
        own.with_known(&known)
    }

    /// Adds `known`, the specs of the modules whose row length is known. If one of them is the default, the
    /// default is trusted: one is enough, because a model may use a usual name for a matrix of another width.
    /// The default is also trusted if there are no such modules. A model type without a record need not use
    /// the usual names, so its default is trusted too.
    fn with_known(self, known: &[QuantSpec]) -> Self {
        let default = self.section().ok().and_then(|section| written("", section).ok());
        let agrees = known.is_empty() || default.is_some_and(|default| known.contains(&default));
        let is_default_right = agrees || self.arch.is_plain();
        Self { observed: known.first().copied(), is_default_right, ..self }
    }

    /// Returns how `module` is quantized. If `config.json` has an entry for the module, the entry decides.
    /// Otherwise the default decides, if it is trusted and fits the shapes of the tensors; converted models
    /// are known to have a wrong default. Otherwise the shapes decide, as in `infer_quant_config` of mlx-lm's
    /// `utils.py`.
    fn spec(&self, module: &str, packed: &TensorRef, scales: &TensorRef) -> Result<QuantSpec> {
        let section = self.section().map_err(|rule| Error::Checkpoint(format!("`{module}` {rule}")))?;
        if let Some(entry) = section.get(module).filter(|entry| entry.is_object()) {
            return written(module, entry);
        }
        let by_columns = self.by_columns(module, packed, scales);
        let possible = possible_specs(packed, scales);
        let observed = self.observed.filter(|spec| possible.contains(spec));
        let default = match written(module, section) {
            Ok(default) => default,
            Err(error @ Error::Unsupported(_)) => return Err(error),
            // MLX does not have these bits or this group size, so the shapes decide.
            Err(error) => return by_columns.or(observed).ok_or(error),
        };
        if possible.contains(&default) && self.is_default_right {
            return Ok(default);
        }
        let same_group = || possible.iter().find(|spec| spec.group_size == default.group_size).copied();
        let same_bits = || possible.iter().find(|spec| spec.bits == default.bits).copied();
        Ok(by_columns.or(observed).or_else(same_group).or_else(same_bits).unwrap_or(default))
    }

    /// Returns the spec that gives `module` the row length that follows from the configuration, if one
    /// follows.
    fn by_columns(&self, module: &str, packed: &TensorRef, scales: &TensorRef) -> Option<QuantSpec> {
        let expected = self.arch.columns(module, self.config)?;
        let has_expected = |spec: &QuantSpec| columns(*spec, packed, scales) == Some(expected);
        possible_specs(packed, scales).into_iter().find(has_expected)
    }

    fn section(&self) -> Result<&'a Value, String> {
        let section = own_section(self.config).or_else(|| self.config.get("quantization_config"));
        let none = || format!("is quantized, but {CONFIG_FILE} has no `quantization`");
        section.filter(|section| !section.is_null()).ok_or_else(none)
    }
}

/// Returns every spec that fits the shapes of these codes and scales.
fn possible_specs(packed: &TensorRef, scales: &TensorRef) -> Vec<QuantSpec> {
    let is_affine = scales.element != Element::U8;
    let modes = Mode::WORDS.into_iter().map(|(_, mode)| mode);
    let specs = modes.filter(|mode| (*mode == Mode::Affine) == is_affine).flat_map(|mode| {
        let sizes = move |bits: usize| mode.group_sizes().iter().map(move |size| (bits, *size));
        mode.bits().iter().flat_map(move |bits| sizes(*bits)).map(move |(bits, group_size)| QuantSpec {
            mode,
            bits,
            group_size,
        })
    });
    specs.filter(|spec| columns(*spec, packed, scales).is_some()).collect()
}

/// Returns how `module` is quantized by an entry of `config.json`.
fn written(module: &str, entry: &Value) -> Result<QuantSpec> {
    // An entry without a mode is affine, whatever the default is: mlx-lm passes the entry itself to
    // `to_quantized`.
    let word = entry.get("mode").and_then(Value::as_str).unwrap_or("affine");
    let mode = Mode::WORDS.iter().find(|(known, _)| *known == word).map(|(_, mode)| *mode);
    let mode = mode.ok_or_else(|| {
        Error::Unsupported(format!("`{module}` is quantized in the mode {word}, which MLX does not have"))
    })?;
    let number = |key: &str, allowed: &[usize]| {
        let value = entry.get(key).and_then(Value::as_u64).and_then(|value| usize::try_from(value).ok());
        // If the mode allows only one value, the entry may leave it out; so it may leave out MLX's usual groups.
        let usual = (key == "group_size" && mode == Mode::Affine).then_some(64);
        let only = allowed.first().copied().filter(|_| allowed.len() == 1).or(usual);
        let value = value.or(only).filter(|value| allowed.contains(value));
        value.ok_or_else(|| {
            let where_it_is = format!("`quantization` of `{module}` in {CONFIG_FILE}");
            Error::Checkpoint(format!("{where_it_is} needs `{key}`, one of {allowed:?}"))
        })
    };
    Ok(QuantSpec {
        mode,
        bits: number("bits", mode.bits())?,
        group_size: number("group_size", mode.group_sizes())?,
    })
}

/// Returns the entry of `config.json` that records a spec, in the form that mlx-lm reads.
pub(crate) fn record(spec: QuantSpec) -> Value {
    json!(spec)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::arch;

    /// Returns how a module is quantized in a model with `hidden_size` 256. `widths` are the row lengths of
    /// its codes and its scales.
    fn spec(
        model_type: &str,
        module: &str,
        section: &Value,
        widths: [usize; 2],
        scale: Element,
    ) -> QuantSpec {
        let config = json!({"model_type": model_type, "hidden_size": 256, "quantization": section});
        let config = config.as_object().unwrap();
        let tensor = |element, columns| TensorRef::of_shape(element, vec![8, columns]);
        let (packed, scales) = (tensor(Element::U32, widths[0]), tensor(scale, widths[1]));
        let packing =
            Packing { config, arch: arch::of_config(config), observed: None, is_default_right: true };
        let known: Vec<_> = packing.by_columns(module, &packed, &scales).into_iter().collect();
        packing.with_known(&known).spec(module, &packed, &scales).unwrap()
    }

    const Q: &str = "model.layers.0.self_attn.q_proj";

    #[test]
    fn the_shapes_decide_where_the_default_contradicts_them() {
        let affine = |bits, group_size| QuantSpec { mode: Mode::Affine, bits, group_size };
        let four = [256 * 4 / 32, 256 / 64];
        for section in [
            json!({"bits": 4, "group_size": 64}),
            json!({"bits": 8, "group_size": 64}),
            json!({"bits": 4, "group_size": 32}),
            json!({"bits": 3, "group_size": 128}),
            // These fit the shapes too: only the row length of the module tells them apart.
            json!({"bits": 8, "group_size": 32}),
            json!({"bits": 2, "group_size": 128}),
            // MLX does not have these bits.
            json!({"bits": 7, "group_size": 64}),
        ] {
            assert_eq!(spec("llama", Q, &section, four, Element::F16), affine(4, 64), "{section}");
        }
        // The row length of this module is not known: the part of the default that can be right is used.
        let other = |section| spec("llama", "model.layers.0.mlp.gate", &section, four, Element::F16);
        assert_eq!(other(json!({"bits": 8, "group_size": 64})), affine(4, 64));
        assert_eq!(other(json!({"bits": 2, "group_size": 64})), affine(4, 64));
        assert_eq!(other(json!({"bits": 8, "group_size": 32})), affine(8, 32));
        // Six bits are not a power of two.
        let six = [256 * 6 / 32, 256 / 64];
        assert_eq!(spec("new", Q, &json!({"bits": 8, "group_size": 64}), six, Element::BF16), affine(6, 64));
    }

    #[test]
    fn one_module_that_agrees_is_enough_to_believe_the_default() {
        // Like `o_proj` of deepseek_v2, which is narrower than its name and the configuration suggest.
        let config = json!({"model_type": "deepseek_v2", "hidden_size": 256, "quantization": {"bits": 4, "group_size": 32}});
        let config = config.as_object().unwrap();
        let affine = |bits, group_size| QuantSpec { mode: Mode::Affine, bits, group_size };
        let (default, other) = (affine(4, 32), affine(2, 64));
        let packed = TensorRef::of_shape(Element::U32, vec![8, 128 * 4 / 32]);
        let scales = TensorRef::of_shape(Element::F16, vec![8, 128 / 32]);
        let spec = |known: &[QuantSpec]| {
            let packing =
                Packing { config, arch: arch::of_config(config), observed: None, is_default_right: true };
            packing.with_known(known).spec(Q, &packed, &scales).unwrap()
        };
        assert_eq!(spec(&[other, default]), default);
        assert_eq!(spec(&[other]), other);
    }

    #[test]
    fn scales_of_a_byte_are_of_the_other_modes() {
        let section = json!({"bits": 4, "group_size": 64});
        let mx = spec("llama", Q, &section, [256 * 4 / 32, 256 / 32], Element::U8);
        assert_eq!(mx, QuantSpec { mode: Mode::Mxfp4, bits: 4, group_size: 32 });
        let nv = spec("llama", Q, &section, [256 * 4 / 32, 256 / 16], Element::U8);
        assert_eq!(nv, QuantSpec { mode: Mode::Nvfp4, bits: 4, group_size: 16 });
    }

    #[test]
    fn an_entry_of_its_own_counts_as_it_is() {
        let section = json!({"bits": 8, "group_size": 64, Q: {"bits": 2, "group_size": 128}});
        let two = QuantSpec { mode: Mode::Affine, bits: 2, group_size: 128 };
        assert_eq!(spec("llama", Q, &section, [256 * 4 / 32, 256 / 64], Element::F16), two);
    }
}
