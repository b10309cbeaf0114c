//! Adapters that are merged into a model at once, each with a factor of its own.
//! Knows nothing of how a file stores an update.

use std::path::PathBuf;

use super::tied::TiedHead;
use super::{Adapter, Base, Update};
use crate::Error;
use crate::error::{Context, Result, fail, require};
use crate::kernels::Lora;

/// Adapters in the order in which their updates are summed.
#[derive(Debug)]
pub struct Adapters(Vec<(Adapter, f32)>);

impl Adapters {
    /// Opens adapter folders. `factors` has a factor on the updates of each, or is empty if all are 1.
    ///
    /// # Errors
    /// Fails if an adapter cannot be opened, or if one that replaces whole tensors has another factor than 1.
    pub fn open(folders: &[PathBuf], factors: &[f64]) -> Result<Self> {
        let mut adapters = Vec::with_capacity(folders.len());
        for (number, folder) in folders.iter().enumerate() {
            let adapter = Adapter::open(folder)?;
            #[expect(clippy::cast_possible_truncation, reason = "MLX multiplies in float32")]
            let factor = factors.get(number).map_or(1.0, |factor| *factor as f32);
            let is_dora = adapter.contents.low_rank.iter().find(|(_, update)| update.is_dora());
            let why =
                adapter.contents.whole.keys().next().map(|name| format!("`{name}` replaces a whole tensor"));
            let why = why.or_else(|| is_dora.map(|(module, _)| format!("the update of `{module}` is DoRA")));
            if let Some(why) = why.filter(|_| factor.to_bits() != 1.0_f32.to_bits()) {
                fail!(Adapter, "in {}: {why}, so the adapter has no `scale` but 1", folder.display());
            }
            adapters.push((adapter, factor));
        }
        Ok(Self(adapters))
    }

    /// Gives the modules of PEFT's adapters the names of mlx-lm's model, as [`Adapter::take_names`] does.
    ///
    /// # Errors
    /// Fails if two modules of an adapter would have one name.
    pub fn take_names(&mut self, renamed: impl Fn(&str) -> String) -> Result<()> {
        self.0.iter_mut().try_for_each(|(adapter, _)| adapter.take_names(&renamed))
    }

    /// Finds the place of every tensor in `base`, as [`Adapter::place`] does.
    ///
    /// # Errors
    /// Fails if an adapter does not fit.
    pub fn place(&mut self, base: &Base) -> Result<()> {
        let count = self.0.len();
        for (number, (adapter, _)) in self.0.iter_mut().enumerate() {
            let which = || format!("adapter {} of {count}", number + 1);
            let placed = adapter.place(base);
            if count > 1 { placed.within(which)? } else { placed? }
        }
        Ok(())
    }

    /// Returns what a user must know about how the adapters are read, and about their names in the model.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        self.0.iter().flat_map(|(adapter, _)| {
            let renaming = adapter.renaming();
            let renaming =
                renaming.map(|renaming| format!("{renaming}; they are taken for the same modules"));
            adapter.contents.note.clone().into_iter().chain(renaming)
        })
    }

    /// Whether an adapter that was trained on transformers' model changes the weight `name`.
    pub fn peft_touches(&self, name: &str) -> bool {
        self.0.iter().any(|(adapter, _)| adapter.contents.named.is_of_peft() && adapter.touches(name))
    }

    /// Whether one of the adapters changes the model's weight `name`.
    pub fn touches(&self, name: &str) -> bool {
        self.0.iter().any(|(adapter, _)| adapter.touches(name))
    }

    /// Returns the sum of what the adapters do to the model's weight `name`, or `None` if they do nothing. The
    /// updates are summed in the order of the adapters and rounded to the weight's type once.
    ///
    /// # Errors
    /// Fails as [`Adapter::update`] does, and if two adapters change the weight and one of them does not just add.
    pub fn update(&self, name: &str) -> Result<Option<Update>> {
        let mut sum = None;
        for (adapter, factor) in &self.0 {
            let Some(update) = adapter.update(name)? else { continue };
            let update = scaled(update, *factor);
            sum = Some(match sum {
                None => update,
                Some(sum) => added(name, sum, update)?,
            });
        }
        Ok(sum)
    }

    /// Decides what becomes of the output head of a tied model. Copies of the head that are equal to those of the
    /// embedding are forgotten if no adapter trains the head on its own. Returns whether one does. `tied` are the
    /// names of both weights.
    ///
    /// # Errors
    /// Fails if a tensor cannot be read, or if one adapter trains the head on its own and another one the embedding
    /// alone, which was the head too when it was trained.
    pub fn settle_tied_heads(&mut self, tied: [&str; 2]) -> Result<bool> {
        let heads = self.0.iter().map(|(adapter, _)| adapter.head_of_tied(tied));
        let heads = heads.collect::<Result<Vec<_>>>()?;
        if !heads.contains(&TiedHead::Apart) {
            self.0.iter_mut().for_each(|(adapter, _)| adapter.forget_head(tied[1]));
            return Ok(false);
        }
        require!(
            !heads.contains(&TiedHead::EmbeddingAlone),
            Adapter,
            "one adapter trains the output head apart from the embedding, and another one trains the embedding while it is \
             the head too: they cannot be summed"
        );
        Ok(true)
    }
}

/// Returns the update multiplied by `factor`. An update that replaces a weight has the factor 1.
fn scaled(update: Update, factor: f32) -> Update {
    match update {
        Update::LowRank(loras) if factor.to_bits() != 1.0_f32.to_bits() => {
            let scale = |lora: Lora| Lora { scale: lora.scale * factor, ..lora };
            Update::LowRank(loras.into_iter().map(|lora| lora.map(scale)).collect())
        }
        update => update,
    }
}

fn added(name: &str, first: Update, second: Update) -> Result<Update> {
    let (Update::LowRank(mut first), Update::LowRank(second)) = (first, second) else {
        fail!(Adapter, "two adapters change `{name}`, and one of them replaces it: their sum is not defined");
    };
    if first.len() < second.len() {
        first.resize(second.len(), None);
    }
    for (sum, lora) in first.iter_mut().zip(second) {
        *sum = match (sum.take(), lora) {
            (Some(one), Some(two)) => Some(both(one, two).ok_or_else(|| {
                Error::Adapter(format!(
                    "two adapters change `{name}`, and one is DoRA: their sum is not defined"
                ))
            })?),
            (one, two) => one.or(two),
        };
    }
    Ok(Update::LowRank(first))
}

/// Returns the sum of two updates as one, whose rank is the sum of their ranks. Returns `None` if one is DoRA.
fn both(one: Lora, two: Lora) -> Option<Lora> {
    if one.magnitude.is_some() || two.magnitude.is_some() {
        return None;
    }
    // The product is `(scale * b) @ a`, as in mlx-lm, so the scales can go into the factors first.
    let folded = |lora: Lora| (lora.a, lora.b.into_iter().map(move |value| value * lora.scale), lora.rank);
    let ((mut a, b, rank), (more_a, more_b, more)) = (folded(one), folded(two));
    a.extend(more_a);
    Some(Lora { a, b: b.chain(more_b).collect(), scale: 1.0, rank: rank + more, magnitude: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Backend, Cpu, Float, Rows};

    fn lora(a: &[f32], b: &[f32], scale: f32) -> Lora {
        Lora { a: a.to_vec(), b: b.to_vec(), scale, rank: 1, magnitude: None }
    }

    fn merged(update: Update) -> Vec<f32> {
        let Update::LowRank(loras) = update else { panic!("it adds") };
        let mut rows = Rows { float: Float::F32, columns: 2, values: vec![1.0, 2.0, 3.0, 4.0] };
        Cpu::default().merge(&mut rows, loras[0].as_ref().unwrap(), 0).unwrap();
        rows.values
    }

    #[test]
    fn updates_are_summed() {
        let one = Update::LowRank(vec![Some(lora(&[1.0, 2.0], &[1.0, 0.0], 0.5))]);
        let two = Update::LowRank(vec![Some(lora(&[4.0, 8.0], &[1.0, 1.0], 1.0))]);
        let sum = added("w", one, scaled(two, 0.25)).unwrap();
        assert_eq!(merged(sum), [1.0 + 0.5 + 1.0, 2.0 + 1.0 + 2.0, 4.0, 6.0]);
    }

    #[test]
    fn what_is_no_sum_is_refused() {
        let plain = || Update::LowRank(vec![Some(lora(&[1.0, 2.0], &[1.0, 0.0], 0.5))]);
        let dora = Lora { magnitude: Some(vec![1.0, 1.0]), ..lora(&[1.0, 2.0], &[1.0, 0.0], 0.5) };
        let refused = added("w", plain(), Update::LowRank(vec![Some(dora)])).unwrap_err();
        assert_eq!(refused.to_string(), "two adapters change `w`, and one is DoRA: their sum is not defined");
        let whole = super::super::Whole { float: Float::F32, shape: vec![2, 2], bytes: vec![0; 16] };
        let refused = added("w", plain(), Update::Replace(whole)).unwrap_err();
        assert!(
            refused.to_string().ends_with("one of them replaces it: their sum is not defined"),
            "{refused}"
        );
    }

    #[test]
    fn experts_without_an_update_stay() {
        let (one, two) = (lora(&[1.0], &[1.0], 1.0), lora(&[2.0], &[1.0], 1.0));
        let sum = added(
            "w",
            Update::LowRank(vec![None, Some(one.clone())]),
            Update::LowRank(vec![Some(two.clone())]),
        );
        assert_eq!(sum.unwrap(), Update::LowRank(vec![Some(two), Some(one)]));
    }
}
