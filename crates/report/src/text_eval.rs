//! How well a configuration predicts texts, from what was measured at each token.
//! Knows nothing of how it is shown.

use serde::{Deserialize, Serialize};

use super::statistics::{Estimate, largest, mean, quantile, share};
use protocol::{Compared, NotANumber, Reading};

/// How well the model predicted the tokens of the texts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextEval {
    /// The perplexity of the model.
    pub perplexity: Perplexity,
    /// How far the model's distributions are from the reference's, if there is a reference.
    pub divergence: Option<Divergence>,
}

/// The perplexity of texts: e to the power of the mean negative log-likelihood of the predicted tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// `exp(mean)`, where `mean` is the mean negative log-likelihood in nats.
    pub value: f64,
    /// The standard error of `value`: `value` times the standard error of the mean (the delta method).
    pub standard_error: f64,
    /// How many tokens were predicted.
    pub tokens: usize,
}

/// How far a configuration's next-token distributions are from those of a reference, on the same tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// The mean Kullback-Leibler divergence from the reference, in nats per token: `Σ p ln(p / q)`. Here `p`
    /// is the distribution of the reference and `q` that of the configuration.
    pub mean_kl: f64,
    /// The standard error of `mean_kl`, in nats.
    pub standard_error: f64,
    /// The share of tokens, from 0 to 1, where both find the same next token most likely.
    pub top1_agreement: f64,
    /// How many tokens were compared.
    pub tokens: usize,
    /// How the divergences are spread. Older results do not have it.
    #[serde(flatten)]
    pub spread: Option<Spread>,
}

/// How the divergences of the tokens are spread. The quantities are those of llama.cpp's `--kl-divergence`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The median divergence, in nats.
    pub median: f64,
    /// The divergence that 99 % of the tokens do not exceed, in nats.
    pub p99: f64,
    /// The divergence that 99.9 % of the tokens do not exceed, in nats.
    pub p99_9: f64,
    /// The largest divergence, in nats.
    pub max: f64,
    /// The mean change of the probability of the token that the text has, from -1 to 1. Below 0 the configuration is
    /// less sure of the text than the reference.
    pub delta_p: f64,
    /// The share of tokens, from 0 to 1, where the two find another next token most likely.
    pub flips: f64,
    /// The standard error of each.
    pub errors: SpreadErrors,
}

/// The standard errors of the quantities in [`Spread`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the quantities")]
pub struct SpreadErrors {
    pub median: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
    pub delta_p: f64,
    pub flips: f64,
}

impl TextEval {
    /// Returns the figures of some texts together; `None` if they have no token to predict.
    ///
    /// # Errors
    /// Fails on the first figure that is not a number.
    pub fn of(readings: &[&Reading]) -> Result<Option<Self>, NotANumber> {
        let losses: Vec<_> = readings.iter().flat_map(|reading| reading.losses.iter().copied()).collect();
        if losses.is_empty() {
            return Ok(None);
        }
        let Estimate { value: loss, error } = mean(&losses);
        // The same bits on every machine.
        let value = libm::exp(loss);
        let perplexity = Perplexity { value, standard_error: value * error, tokens: losses.len() };
        let compared: Option<Vec<_>> = readings.iter().map(|reading| reading.compared.as_ref()).collect();
        let eval = Self { perplexity, divergence: compared.map(|compared| divergence(&compared)) };
        eval.check().map(|()| Some(eval))
    }

    fn check(&self) -> Result<(), NotANumber> {
        let Perplexity { value, standard_error, .. } = self.perplexity;
        NotANumber::check(&[("perplexity", value), ("standard error of the perplexity", standard_error)])?;
        let Some(divergence) = self.divergence else { return Ok(()) };
        NotANumber::check(&[
            ("KL divergence", divergence.mean_kl),
            ("standard error of the KL divergence", divergence.standard_error),
            ("top-1 agreement", divergence.top1_agreement),
        ])?;
        let Some(Spread { max, delta_p, .. }) = divergence.spread else { return Ok(()) };
        NotANumber::check(&[("largest divergence", max), ("change of the probabilities", delta_p)])
    }
}

fn divergence(compared: &[&Compared]) -> Divergence {
    let all = |of: fn(&Compared) -> &Vec<f64>| -> Vec<f64> {
        compared.iter().flat_map(|compared| of(compared).iter().copied()).collect()
    };
    let mut divergences = all(|compared| &compared.divergences);
    let mean_kl = mean(&divergences);
    divergences.sort_by(f64::total_cmp);
    let agreements = compared.iter().flat_map(|compared| &compared.agrees).filter(|agrees| **agrees).count();
    let tokens = divergences.len();
    let [median, p99, p99_9] = [0.5, 0.99, 0.999].map(|fraction| quantile(&divergences, fraction));
    let (max, delta_p) = (largest(&divergences), mean(&all(|compared| &compared.delta_p)));
    let flips = share(tokens - agreements, tokens);
    let spread = Spread {
        median: median.value,
        p99: p99.value,
        p99_9: p99_9.value,
        max: max.value,
        delta_p: delta_p.value,
        flips: flips.value,
        errors: SpreadErrors {
            median: median.error,
            p99: p99.error,
            p99_9: p99_9.error,
            max: max.error,
            delta_p: delta_p.error,
            flips: flips.error,
        },
    };
    Divergence {
        mean_kl: mean_kl.value,
        standard_error: mean_kl.error,
        top1_agreement: agreements as f64 / tokens.max(1) as f64,
        tokens,
        spread: Some(spread),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_is_no_number_is_named() {
        let reading = |losses: &[f64], kl: f64| Reading {
            losses: losses.to_vec(),
            compared: Some(Compared { divergences: vec![kl], delta_p: vec![0.0], agrees: vec![true] }),
        };
        let problem = |reading| TextEval::of(&[&reading]).unwrap_err();
        assert_eq!(problem(reading(&[f64::NAN], 0.0)), NotANumber("perplexity"));
        assert_eq!(problem(reading(&[1.0], f64::INFINITY)), NotANumber("KL divergence"));
    }

    #[test]
    fn texts_count_by_their_tokens() {
        let reading = |losses: &[f64], kl: &[f64], agrees: &[bool]| Reading {
            losses: losses.to_vec(),
            compared: Some(Compared {
                divergences: kl.to_vec(),
                delta_p: kl.iter().map(|kl| -kl).collect(),
                agrees: agrees.to_vec(),
            }),
        };
        let (one, two) =
            (reading(&[1.0, 3.0], &[0.0, 4.0], &[true, false]), reading(&[2.0], &[2.0], &[true]));
        let eval = TextEval::of(&[&one, &two]).unwrap().unwrap();
        assert_eq!((eval.perplexity.value, eval.perplexity.tokens), (2_f64.exp(), 3));
        let divergence = eval.divergence.unwrap();
        let spread = divergence.spread.unwrap();
        assert_eq!((divergence.mean_kl, spread.median, spread.max, spread.delta_p), (2.0, 2.0, 4.0, -2.0));
        assert!(
            (spread.flips - 1.0 / 3.0).abs() < 1e-12 && (divergence.top1_agreement - 2.0 / 3.0).abs() < 1e-12
        );
        assert_eq!(TextEval::of(&[]), Ok(None));
    }

    #[test]
    fn older_results_are_read() {
        let old = r#"{"mean_kl":0.1,"standard_error":0.01,"top1_agreement":0.9,"tokens":7}"#;
        assert_eq!(serde_json::from_str::<Divergence>(old).unwrap().spread, None);
        let text = serde_json::to_string(&TextEval::of(&[]).unwrap()).unwrap();
        assert_eq!(text, "null");
    }
}
