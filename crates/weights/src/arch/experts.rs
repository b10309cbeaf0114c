//! The names of experts in a mixture of experts: one by one in a checkpoint, and in the stacks of mlx-lm's
//! models.
//! Knows nothing of tensors.

/// The highest number that an expert may have, so that a hostile name cannot demand a huge list.
const MAX_NUMBER: usize = 65_535;

/// The three matrices of an expert: Mixtral's name, and the name in all other models.
const PROJECTIONS: [(&str, &str); 3] = [("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj")];

/// The modules below the owner of the experts in which mlx-lm's models keep stacks. Source: `sanitize` in
/// `models/{qwen3_moe,mixtral,afmoe,gemma4_text}.py`.
const STACKS: [&str; 3] = ["switch_mlp", "experts", "experts.switch_glu"];

/// The path of a module of one expert: `OWNER.experts.NUMBER.PROJECTION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expert<'a> {
    /// The path of the module that has the experts.
    pub owner: &'a str,
    /// The number of the expert.
    pub number: usize,
    /// The name of the module in the expert. Mixtral's names are translated to those of all other models.
    pub projection: &'a str,
}

impl<'a> Expert<'a> {
    /// Parses the path of a module. Returns `None` if it is not that of an expert's module.
    pub fn of(module: &'a str) -> Option<Self> {
        let (owner, rest) = module.rsplit_once(".experts.")?;
        let (digits, written) = rest.split_once('.')?;
        let number = Self::number(digits)?;
        let known = PROJECTIONS.iter().find(|(mixtral, _)| *mixtral == written);
        let projection = known.map_or(written, |(_, usual)| usual);
        Some(Self { owner, number, projection })
    }

    /// Parses the number of an expert.
    pub fn number(digits: &str) -> Option<usize> {
        let number = digits.parse::<usize>().ok().filter(|number| *number <= MAX_NUMBER)?;
        (number.to_string() == digits).then_some(number)
    }

    /// Whether it is one of the three matrices that are stacked.
    pub fn is_matrix(&self) -> bool {
        PROJECTIONS.iter().any(|(_, usual)| *usual == self.projection)
    }

    /// Returns the paths that the stack may have in a model.
    pub fn possible_stacks(&self) -> impl Iterator<Item = String> {
        STACKS.iter().map(|place| format!("{}.{place}.{}", self.owner, self.projection))
    }
}

/// Whether `name` is that of a stack of experts, or of a tensor in one.
pub(super) fn is_stack(name: &str) -> bool {
    [".switch_mlp.", ".switch_glu.", ".experts."].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_names_apart() {
        let expert = Expert::of("a.block_sparse_moe.experts.3.w2").unwrap();
        assert_eq!((expert.owner, expert.number, expert.projection), ("a.block_sparse_moe", 3, "down_proj"));
        assert!(expert.is_matrix());
        assert_eq!(Expert::of("m.experts.01.w1"), None);
        assert_eq!(Expert::of("m.experts.70000.w1"), None);
        assert_eq!(Expert::of("m.mlp.up_proj"), None);
        let stacks: Vec<_> = Expert::of("m.experts.0.up_proj").unwrap().possible_stacks().collect();
        assert_eq!(stacks, ["m.switch_mlp.up_proj", "m.experts.up_proj", "m.experts.switch_glu.up_proj"]);
    }
}
