//! The experts of a mixture: their names in a checkpoint one by one, and the stacks that mlx-lm's models have.
//! Knows nothing of tensors.

/// The highest number that an expert may have, so that a hostile name makes no list as long as it says.
const MAX_NUMBER: usize = 65_535;

/// Mixtral's names of the three matrices of an expert, and everybody else's.
const PROJECTIONS: [(&str, &str); 3] = [("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj")];

/// The modules in which mlx-lm's models keep stacks, below the owner of the experts: `sanitize` in
/// `models/{qwen3_moe,mixtral,afmoe,gemma4_text}.py`.
const STACKS: [&str; 3] = ["switch_mlp", "experts", "experts.switch_glu"];

/// How a checkpoint keeps the experts of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Experts {
    /// As the model has them, or in a way that this version does not turn into that.
    AsInModel,
    /// One by one, as `PREFIX.experts.N.PROJECTION`, or stacked as the model has them: `PREFIX.switch_mlp.PROJECTION`.
    OneByOne,
}

/// The module of one expert: `OWNER.experts.NUMBER.PROJECTION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expert<'a> {
    /// The module that has the experts.
    pub owner: &'a str,
    /// Its number.
    pub number: usize,
    /// What follows, in the names of all models but Mixtral.
    pub projection: &'a str,
}

impl<'a> Expert<'a> {
    /// Takes the path of a module apart. None if it is not one of an expert.
    pub fn of(module: &'a str) -> Option<Self> {
        let (owner, rest) = module.rsplit_once(".experts.")?;
        let (digits, written) = rest.split_once('.')?;
        let number = digits.parse::<usize>().ok().filter(|number| *number <= MAX_NUMBER)?;
        let is_plain = number.to_string() == digits;
        let known = PROJECTIONS.iter().find(|(mixtral, _)| *mixtral == written);
        let projection = known.map_or(written, |(_, usual)| usual);
        is_plain.then_some(Self { owner, number, projection })
    }

    /// Whether it is one of the three matrices that a stack is made of.
    pub fn is_matrix(&self) -> bool {
        PROJECTIONS.iter().any(|(_, usual)| *usual == self.projection)
    }

    /// Returns the path of the stack that mlx-lm makes of these experts.
    pub fn stack(&self) -> String {
        format!("{}.switch_mlp.{}", self.owner, self.projection)
    }

    /// Returns the paths that the stack may have in a model.
    pub fn possible_stacks(&self) -> impl Iterator<Item = String> {
        STACKS.iter().map(|place| format!("{}.{place}.{}", self.owner, self.projection))
    }
}

impl Experts {
    /// Whether a name is that of a stack of experts, or of a tensor of one.
    pub fn is_stack(self, name: &str) -> bool {
        [".switch_mlp.", ".switch_glu.", ".experts."].iter().any(|word| name.contains(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_names_apart() {
        let expert = Expert::of("a.block_sparse_moe.experts.3.w2").unwrap();
        assert_eq!((expert.owner, expert.number, expert.projection), ("a.block_sparse_moe", 3, "down_proj"));
        assert_eq!(expert.stack(), "a.block_sparse_moe.switch_mlp.down_proj");
        assert!(expert.is_matrix());
        assert_eq!(Expert::of("m.experts.01.w1"), None);
        assert_eq!(Expert::of("m.experts.70000.w1"), None);
        assert_eq!(Expert::of("m.mlp.up_proj"), None);
        let stacks: Vec<_> = Expert::of("m.experts.0.up_proj").unwrap().possible_stacks().collect();
        assert_eq!(stacks, ["m.switch_mlp.up_proj", "m.experts.up_proj", "m.experts.switch_glu.up_proj"]);
    }
}
