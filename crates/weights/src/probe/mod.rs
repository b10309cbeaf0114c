//! The file `probe.safetensors`: for each linear layer, where its inputs point and how large they are.
//! Knows nothing of how inputs are observed, nor of how rounding uses them.
//!
//! For a layer with rows of `n` weights it has three tensors of float32, named after the module:
//!
//! | tensor | shape | what it is |
//! |---|---|---|
//! | `MODULE.moments` | `[n]` | the mean square of each input |
//! | `MODULE.directions` | `[k, n]` | the first eigenvectors of the inputs' second moments, each of length 1 |
//! | `MODULE.eigenvalues` | `[k]` | their eigenvalues, the largest first |

mod eigen;

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Result, fail, require};
use crate::kernels::{Directions, Float};
use crate::tensor::{Element, TensorFiles, TensorSpec, write_tensors};
use artifact::Output;

/// The name of the file.
pub const PROBE_FILE: &str = "probe.safetensors";

/// What is known of the inputs of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerProbe {
    /// The mean square of each input, `[n]`.
    pub moments: Vec<f32>,
    /// The first eigenvectors of the inputs' second moments, `[k, n]`.
    pub directions: Vec<f32>,
    /// Their eigenvalues, `[k]`.
    pub eigenvalues: Vec<f32>,
}

/// The probes of all layers, by the path of the module.
pub type LayerProbes = BTreeMap<String, LayerProbe>;

/// Writes the file into `output`.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn write_probe(output: &Output, layers: &LayerProbes) -> Result<()> {
    let mut tensors = BTreeMap::new();
    for (module, layer) in layers {
        let (count, columns) = (layer.eigenvalues.len(), layer.moments.len());
        for (part, shape, values) in [
            ("moments", vec![columns], &layer.moments),
            ("directions", vec![count, columns], &layer.directions),
            ("eigenvalues", vec![count], &layer.eigenvalues),
        ] {
            let name = format!("{module}.{part}");
            let mut bytes = vec![0; values.len() * Float::F32.size()];
            Float::F32.encode(values, &mut bytes);
            tensors.insert(name.clone(), (TensorSpec { name, element: Element::F32, shape }, bytes));
        }
    }
    write_tensors(output, PROBE_FILE, tensors.into_values())
}

/// An opened file.
#[derive(Debug)]
pub struct Probe {
    files: TensorFiles,
    mean_moment: f32,
}

impl Probe {
    /// Opens the file in `folder`.
    ///
    /// # Errors
    /// Fails if it cannot be read or is not a safetensors file, or if a tensor is not what it should be.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut probe = Self { files: TensorFiles::open(&folder.join(PROBE_FILE))?, mean_moment: 1.0 };
        let (mut sum, mut count) = (0.0, 0);
        for name in probe.files.tensors().keys().filter(|name| name.ends_with(".moments")) {
            let moments = probe.read(name)?;
            sum += moments.iter().map(|value| f64::from(*value)).sum::<f64>();
            count += moments.len();
        }
        if count > 0 {
            #[expect(clippy::cast_possible_truncation, reason = "the moments are float32 too")]
            let mean = (sum / count as f64) as f32;
            probe.mean_moment = mean;
        }
        Ok(probe)
    }

    /// Returns the mean square of all inputs of all layers, for layers that the probe does not have.
    pub(crate) fn mean_moment(&self) -> f32 {
        self.mean_moment
    }

    /// Returns the probe of the module at `path`, whose rows have `columns` weights; `None` if the file does not
    /// have it.
    ///
    /// # Errors
    /// Fails if a tensor cannot be read, or does not have the shape that it should have.
    pub fn layer(&self, path: &str, columns: usize) -> Result<Option<LayerProbe>> {
        if self.files.get(&format!("{path}.moments")).is_none() {
            return Ok(None);
        }
        let moments = self.read(&format!("{path}.moments"))?;
        let eigenvalues = self.read(&format!("{path}.eigenvalues"))?;
        let directions = self.read(&format!("{path}.directions"))?;
        let is_whole =
            moments.len() == columns && eigenvalues.len().checked_mul(columns) == Some(directions.len());
        require!(
            is_whole,
            Format,
            "the probe of `{path}` is of {} inputs, and the layer has {columns}; probe the model that was fused into",
            moments.len()
        );
        Ok(Some(LayerProbe { moments, directions, eigenvalues }))
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let Some(tensor) = self.files.get(name) else { fail!(Format, "the probe has no `{name}`") };
        require!(tensor.element == Element::F32, Format, "`{name}` is {}, not F32", tensor.element);
        let bytes = self.files.read(name)?;
        let mut values = vec![0.0; bytes.len() / Float::F32.size()];
        Float::F32.decode(&bytes, &mut values);
        require!(values.iter().all(|value| value.is_finite()), Format, "`{name}` is not finite everywhere");
        Ok(values)
    }
}

impl LayerProbe {
    /// Returns the probe of a layer with these inputs, `[tokens, columns]`, and `count` directions.
    pub fn of(inputs: &[f32], columns: usize, count: usize) -> Self {
        let rows: Vec<f64> = inputs.iter().map(|value| f64::from(*value)).collect();
        let (directions, eigenvalues) = eigen::first_eigenvectors(&rows, columns, count);
        let mut moments = vec![0.0; columns];
        for row in rows.chunks_exact(columns) {
            moments.iter_mut().zip(row).for_each(|(sum, value)| *sum += value * value);
        }
        let tokens = (rows.len() / columns).max(1) as f64;
        Self {
            moments: narrow(moments.iter().map(|sum| sum / tokens)),
            directions: narrow(directions.into_iter()),
            eigenvalues: narrow(eigenvalues.into_iter()),
        }
    }

    /// Returns the directions, each as long as the root of its eigenvalue over the mean of the eigenvalues.
    /// Returns `None` if there are none.
    pub fn weighted_directions(&self) -> Option<Directions> {
        let (count, columns) = (self.eigenvalues.len(), self.moments.len());
        let sum: f64 = self.eigenvalues.iter().map(|value| f64::from(*value)).sum();
        let mean = sum / count as f64;
        if !(mean > 0.0 && mean.is_finite()) || self.eigenvalues.iter().any(|value| *value < 0.0) {
            return None;
        }
        let lengths: Vec<_> =
            self.eigenvalues.iter().map(|value| (f64::from(*value) / mean).sqrt()).collect();
        let mut values = Vec::with_capacity(count * columns);
        for column in 0..columns {
            let own = self.directions.iter().skip(column).step_by(columns);
            values.extend(own.zip(&lengths).map(|(value, length)| f64::from(*value) * length));
        }
        Some(Directions { count, values })
    }
}

fn narrow(values: impl Iterator<Item = f64>) -> Vec<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "the file has float32")]
    values.map(|value| value as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer() -> LayerProbe {
        LayerProbe {
            moments: vec![1.0, 4.0, 9.0],
            directions: vec![1.0, 0.0, 0.0, 0.0, 0.6, 0.8],
            eigenvalues: vec![6.0, 2.0],
        }
    }

    #[test]
    fn reads_back_what_it_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::new(folder.path().to_owned());
        write_probe(&output, &[("a.q_proj".to_owned(), layer())].into()).unwrap();
        let probe = Probe::open(folder.path()).unwrap();
        assert_eq!(probe.layer("a.q_proj", 3).unwrap(), Some(layer()));
        assert_eq!(probe.layer("a.k_proj", 3).unwrap(), None);
        assert!(probe.layer("a.q_proj", 4).is_err());
    }

    #[test]
    fn directions_are_as_long_as_their_share() {
        let directions = layer().weighted_directions().unwrap();
        let (long, short) = (1.5f64.sqrt(), 0.5f64.sqrt());
        let [c, d] = [0.6f32, 0.8].map(f64::from);
        assert_eq!(directions.values, [long, 0.0, 0.0, c * short, 0.0, d * short]);
        assert_eq!(LayerProbe { eigenvalues: vec![0.0, 0.0], ..layer() }.weighted_directions(), None);
    }
}
