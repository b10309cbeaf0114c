//! The survival of a fine-tuning by layer and kind of module, as a heat map for each configuration.
//! Knows nothing of how it was measured.

use std::fmt::Write;

use super::super::Report;
use super::super::layers::Layers;
use super::text::{escape, prose};
use weights::survival::Survival;

impl Report<'_> {
    /// Returns a heat map for each configuration with a survival, lowest survival first. A map is open unless
    /// the fine-tuning is intact. The text is empty if no configuration has a survival.
    pub(super) fn heat(&self) -> String {
        let configs = self.results.configs.iter();
        let mut configs: Vec<_> =
            configs.filter_map(|(name, results)| Some((name, results.survival.as_ref()?))).collect();
        if configs.is_empty() {
            return String::new();
        }
        configs.sort_by(|(_, a), (_, b)| a.overall.survival.total_cmp(&b.overall.survival));
        let mut out = String::from(
            "<p>1 is a fine-tuning that is intact, 0 one of which nothing is left: the stronger the colour, the more is \
             lost.</p>\n",
        );
        out.push_str("<p class=\"legend\" aria-hidden=\"true\"><span>0 lost</span>");
        for step in 0..=10 {
            let _ = write!(out, "<i class=\"heat h{step}\"></i>");
        }
        out.push_str("<span>intact 1</span></p>\n<div class=\"maps\">\n");
        for (name, survival) in configs {
            write_map(&mut out, name, survival);
        }
        out.push_str("</div>\n");
        out
    }
}

fn write_map(out: &mut String, name: &str, survival: &Survival) {
    let all = survival.overall;
    let (open, class) = if survival.is_intact() { ("", "good") } else { (" open", "bad") };
    let _ = write!(
        out,
        "<details class=\"map\"{open}>\n<summary><h3>{}</h3> <span class=\"{class}\">survival {:.2}</span></summary>\n\
         <dl class=\"facts\">\n",
        escape(name),
        all.survival
    );
    let facts = [
        ("rounding", all.rounding.map_or_else(|| "by layer".to_owned(), |rounding| rounding.to_string())),
        ("survival", format!("{:.3}", all.survival)),
        ("cosine", format!("{:.3}", all.cosine)),
        ("noise to signal", format!("{:.2}", all.noise_to_signal)),
        ("reverted", format!("{:.1}%", all.reverted * 100.0)),
        ("delta per step", all.delta_per_step.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))),
    ];
    for (term, value) in facts {
        let _ = writeln!(out, "<div><dt>{term}</dt><dd>{value}</dd></div>");
    }
    out.push_str("</dl>\n");
    if let Some(cause) = &survival.cause {
        let _ = writeln!(out, "<p class=\"cause\">{}</p>", prose(cause));
    }
    if let Some(explanation) = survival.explanation() {
        let _ = writeln!(out, "<p>{}.</p>", prose(explanation));
    }
    write_cells(out, name, &Layers::of(survival));
    out.push_str("</details>\n");
}

fn write_cells(out: &mut String, name: &str, layers: &Layers) {
    let name = escape(name);
    let _ = writeln!(
        out,
        "<div class=\"wide\" role=\"region\" aria-label=\"Survival by layer, {name}\" tabindex=\"0\">\
         <table class=\"cells\">"
    );
    if !layers.rows.is_empty() {
        out.push_str("<thead><tr><th scope=\"col\">layer</th>");
        for kind in &layers.kinds {
            let _ = write!(out, "<th scope=\"col\">{}</th>", escape(kind));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
    }
    for (layer, cells) in &layers.rows {
        let _ = write!(out, "<tr><th scope=\"row\">{layer}</th>");
        for cell in cells {
            match cell {
                Some(value) => write_cell(out, *value, 1),
                None => out.push_str("<td></td>"),
            }
        }
        out.push_str("</tr>\n");
    }
    if !layers.rows.is_empty() {
        out.push_str("</tbody>\n");
    }
    if !layers.others.is_empty() {
        out.push_str("<tbody class=\"others\">\n");
        for (module, value) in &layers.others {
            let label = module.strip_prefix("model.").unwrap_or(module);
            // The browser may break a name between its words.
            let label = escape(label).replace('_', "_<wbr>").replace('.', ".<wbr>");
            let _ = write!(out, "<tr><th scope=\"row\">{label}</th>");
            write_cell(out, *value, layers.kinds.len().max(1));
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n");
    }
    out.push_str("</table></div>\n");
}

fn write_cell(out: &mut String, value: f64, columns: usize) {
    let span = if columns > 1 { format!(" colspan=\"{columns}\"") } else { String::new() };
    // A value that rounds to zero is written 0.00, not -0.00.
    let value = if value.abs() < 0.005 { 0.0 } else { value };
    let _ = write!(out, "<td class=\"heat h{}\"{span}>{value:.2}</td>", step(value));
}

/// Returns the tenth that is nearest to a value, from 0 to 10. Values below 0 count as 0, values above 1 as
/// 1.
fn step(value: f64) -> usize {
    (0..10).filter(|tenth| value >= (f64::from(*tenth) + 0.5) / 10.0).count()
}

#[cfg(test)]
mod tests {
    use super::step;

    #[test]
    fn values_have_the_colour_of_the_nearest_tenth() {
        assert_eq!([-0.3, 0.0, 0.04, 0.12, 0.5, 0.96, 1.0, 1.3].map(step), [0, 0, 0, 1, 5, 10, 10, 10]);
        assert_eq!(step(f64::NAN), 0);
    }
}
