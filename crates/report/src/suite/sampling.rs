//! How often a query is answered at random.
//! Knows nothing of models.

use protocol::Sampling;
use text::yaml::{Fields, Problem};

/// The temperature, if samples are asked for and none is given.
const TEMPERATURE: f64 = 1.0;

/// The most samples of one query.
const MOST: usize = 1000;

/// Answers that are drawn at random, each with a seed of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Samples {
    count: usize,
    temperature: f64,
    seed: u64,
}

impl Samples {
    /// Reads `samples`, `temperature` and `seed`. Where the query does not say, `common` applies. Returns `None` for a
    /// query that is answered greedily.
    pub(super) fn read(fields: &mut Fields, common: Option<Self>) -> Result<Option<Self>, Problem> {
        let at = fields.at();
        let (count, temperature) = (fields.count("samples")?, fields.positive("temperature")?);
        let seed = fields.whole("seed")?.map(|seed| seed as u64);
        if common.is_none() && count.is_none() && temperature.is_none() {
            return match seed {
                Some(_) => Err(Problem::new(
                    at,
                    "`seed` needs `samples` or `temperature`: greedy answers draw nothing",
                )),
                None => Ok(None),
            };
        }
        let common = common.unwrap_or(Self { count: 1, temperature: TEMPERATURE, seed: 0 });
        let count = count.unwrap_or(common.count);
        if count > MOST {
            return Err(Problem::new(at, format!("`samples` must be at most {MOST}, not {count}")));
        }
        let temperature = temperature.unwrap_or(common.temperature);
        Ok(Some(Self { count, temperature, seed: seed.unwrap_or(common.seed) }))
    }

    /// Returns how the tokens of each sample are drawn.
    pub(super) fn each(self) -> impl Iterator<Item = Sampling> {
        let Self { count, temperature, seed } = self;
        // The sampler counts up from its seed, so neighbouring samples must not begin beside each other.
        (0..count as u64).map(move |number| Sampling { temperature, seed: mixed(seed, number) })
    }
}

/// Returns the seed of a sample. Seeds are below 2^53, so that every reader of JSON has them exactly.
fn mixed(seed: u64, number: u64) -> u64 {
    let text = [seed.to_le_bytes(), number.to_le_bytes()].concat();
    let digest = artifact::Digest::of(&text);
    let bytes = digest.as_bytes().first_chunk().copied().unwrap_or_default();
    u64::from_le_bytes(bytes) >> 11
}

#[cfg(test)]
mod tests {
    use super::*;
    use text::yaml::Tree;

    fn read(text: &str, common: Option<Samples>) -> Result<Option<Samples>, String> {
        let mut fields = Fields::open(Tree::parse(text).unwrap(), "a query").unwrap();
        Samples::read(&mut fields, common).map_err(|problem| problem.message)
    }

    #[test]
    fn greedy_is_the_default() {
        assert_eq!(read("{prompt: p}", None), Ok(None));
        let common = read("{samples: 4, temperature: 0.7}", None).unwrap();
        assert_eq!(common, Some(Samples { count: 4, temperature: 0.7, seed: 0 }));
        assert_eq!(read("{seed: 9}", common), Ok(Some(Samples { count: 4, temperature: 0.7, seed: 9 })));
        assert!(read("{seed: 9}", None).unwrap_err().contains("greedy"));
        assert!(read("{temperature: 0}", None).unwrap_err().contains("greater than 0"));
        assert!(read("{samples: 2000}", None).unwrap_err().contains("at most 1000"));
    }

    #[test]
    fn samples_have_seeds_of_their_own() {
        let seeds = |seed| {
            let samples = Samples { count: 3, temperature: 1.0, seed };
            samples.each().map(|sampling| sampling.seed).collect::<Vec<_>>()
        };
        assert_eq!(seeds(1), seeds(1));
        assert!(seeds(1).iter().all(|seed| !seeds(2).contains(seed)));
    }
}
