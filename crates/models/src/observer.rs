//! Observes the inputs of linear layers while a model runs.
//! Knows nothing of what the model reads.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::{Result, ensure};

use super::runtime::Runtime;
use weights::probe::{LayerProbe, LayerProbes};

/// The inputs of a layer, and what was found.
type Observed = (Vec<f32>, LayerProbe);

/// Keeps what was observed. All layers of a model share one.
#[derive(Clone)]
pub(crate) struct Observer {
    found: Rc<RefCell<LayerProbes>>,
    /// The last inputs, and what was found: queries, keys and values have the same ones.
    last: Rc<RefCell<Option<Observed>>>,
    directions: usize,
}

impl Observer {
    /// Makes an observer that keeps so many directions for each layer.
    pub(crate) fn new(directions: usize) -> Self {
        Self { found: Rc::default(), last: Rc::default(), directions }
    }

    /// Returns what was observed, and forgets it.
    pub(crate) fn take(&self) -> LayerProbes {
        self.found.take()
    }

    /// Observes the inputs of the module at `path`, `[tokens, columns]`. The first token is left out: its inputs
    /// are far larger than those of all others, in every model, and of no other kind of text.
    pub(crate) fn observe<R: Runtime>(
        &self,
        runtime: &R,
        path: &str,
        x: &R::Tensor,
        columns: i32,
    ) -> Result<()> {
        let columns = usize::try_from(columns)?;
        let inputs = runtime.numbers(x)?;
        ensure!(
            inputs.iter().all(|value| value.is_finite()),
            "the inputs of `{path}` are not numbers: the model computes NaN or infinity before it; look for them in its weights"
        );
        let mut last = self.last.borrow_mut();
        let known = last.take().filter(|(other, _)| *other == inputs).map(|(_, probe)| probe);
        let of_rest = || LayerProbe::of(inputs.get(columns..).unwrap_or_default(), columns, self.directions);
        let probe = known.unwrap_or_else(of_rest);
        self.found.borrow_mut().insert(path.to_owned(), probe.clone());
        *last = Some((inputs, probe));
        Ok(())
    }
}
