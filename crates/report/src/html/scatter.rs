//! The plot of how good each configuration is against its size on disk.
//! Knows nothing of how it is drawn.

use super::super::Report;
use super::super::table::percent;
use super::plot::{Plot, Point, SHAPES, Upwards};

/// The axis of accuracies: as far as the points and their intervals go, but never below 0 or above 1.
fn accuracy(points: &[Point<'_>]) -> Upwards {
    let ends = || points.iter().flat_map(|point| point.interval);
    let (low, high) = (ends().fold(1.0, f64::min), ends().fold(0.0, f64::max));
    let room = 0.05 * (high - low).max(0.02);
    let ends = [Some((low - room).max(0.0)), Some((high + room).min(1.0))];
    Upwards { title: "accuracy", falling: false, ends, show: percent }
}

const PERPLEXITY: Upwards = Upwards {
    title: "perplexity, less is better",
    falling: true,
    ends: [None, None],
    show: |value| format!("{value}"),
};

impl Report<'_> {
    /// Returns the plot and its heading. It shows accuracy if there were queries, otherwise perplexity. The
    /// plot is empty if there is neither.
    pub(super) fn scatter(&self) -> (String, &'static str) {
        let (points, upwards, heading) = match self.points() {
            (points, _) if !points.is_empty() => {
                let upwards = accuracy(&points);
                (points, upwards, "Accuracy against size")
            }
            (_, points) => (points, PERPLEXITY, "Perplexity against size"),
        };
        if points.is_empty() {
            return (String::new(), heading);
        }
        let choice = self.choice().map(|verdict| verdict.config.as_str());
        let plots = SHAPES.iter().map(|shape| Plot::new(&points, &upwards, shape, choice).draw());
        let mut out = format!("<figure>\n{}", plots.collect::<String>());
        out.push_str(
            "<figcaption>Filled and named, on the dashed line: what no other config beats in both respects. Bars are \
             95 % intervals.</figcaption>\n</figure>\n",
        );
        (out, heading)
    }

    fn points(&self) -> (Vec<Point<'_>>, Vec<Point<'_>>) {
        let configs = || self.results.configs.iter();
        let answered = configs().filter(|(_, results)| results.total > 0).map(|(name, results)| Point {
            name,
            bytes: results.disk_bytes,
            value: results.accuracy,
            interval: results.accuracy_interval,
        });
        let read = configs().filter_map(|(name, results)| {
            let perplexity = results.perplexity.filter(|perplexity| perplexity.value.is_finite())?;
            let reach = perplexity.standard_error * 1.96;
            let interval = [perplexity.value - reach, perplexity.value + reach];
            Some(Point { name, bytes: results.disk_bytes, value: perplexity.value, interval })
        });
        (answered.collect(), read.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::sample;

    #[test]
    fn it_has_every_config_once_in_each_shape() {
        for sample in [sample::plain(), sample::sweep(), sample::texts()] {
            let (plot, _) = sample.report().scatter();
            let count = sample.results.configs.len();
            assert_eq!(plot.matches("<g class=\"point").count(), 2 * count);
            assert_eq!(plot.matches("<svg").count(), 2);
            assert!(plot.contains("On the front: "));
        }
    }

    #[test]
    fn the_front_of_the_example_is_its_smallest_and_its_best() {
        let (plot, heading) = sample::plain().report().scatter();
        assert!(!plot.contains("class=\"key"), "there is room for short names");
        assert_eq!(heading, "Accuracy against size");
        assert!(plot.contains("On the front: base, 4bit, adapter."), "{plot}");
    }

    #[test]
    fn only_the_front_is_named_and_numbered_where_names_have_no_room() {
        let mut sample = sample::sweep();
        let (plot, _) = sample.report().scatter();
        assert_eq!(plot.matches("<ol class=\"key").count(), 0);
        let named = plot.matches("</text></g>").count();
        assert!(named > 0 && named < 2 * sample.results.configs.len(), "{named}");
        // Many, all on the front, side by side.
        for copy in 1..4 {
            for (name, results) in sample::sweep().results.configs {
                sample.results.configs.insert(format!("{name}-{copy}"), results);
            }
        }
        for (number, results) in sample.results.configs.values_mut().enumerate() {
            results.disk_bytes = 1_000_000 * (number as u64 + 10);
            results.accuracy = 0.5 + 1e-6 * number as f64;
        }
        let (plot, _) = sample.report().scatter();
        assert_eq!(plot.matches("<ol class=\"key slim\">").count(), 1, "{plot}");
    }
}
