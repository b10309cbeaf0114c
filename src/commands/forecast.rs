//! Shows what a build will take: disk, memory and time.
//! Knows nothing of how that is found.

use serde_json::json;

use crate::terminal::{print, print_json};
use engine::forecast::{Forecast, NodeForecast, Size};
use text::units::{bytes, duration};

/// How many nodes a line names.
const NAMED: usize = 5;

/// Prints the forecast: three lines, or one JSON line.
pub(crate) fn show(forecast: &Forecast, is_json: bool) -> anyhow::Result<()> {
    if is_json { print_json(&json!({ "forecast": forecast })) } else { print(&lines(forecast)) }
}

fn lines(forecast: &Forecast) -> String {
    let Forecast { nodes, written_bytes, peak_disk_bytes, free_disk_bytes, .. } = forecast;
    let is_rough = nodes.iter().any(|node| matches!(node.size, Size::About(_)));
    let about = if is_rough { "about " } else { "" };
    // If an input comes out as it was, what waits for it does not run.
    let most = if forecast.is_most { "up to " } else { "" };
    let mut disk = format!("disk: {most}{about}{} to write", bytes(*written_bytes));
    disk += &format!(", {} at the peak", bytes(*peak_disk_bytes));
    disk += &free_disk_bytes.map_or_else(String::new, |free| format!("; {} are free", bytes(free)));
    disk += &unknown(nodes, |node| node.size == Size::Unknown, "the size");
    let memory = match (forecast.peak_memory_bytes, forecast.memory_bytes) {
        (0, _) => String::new(),
        (needed, Some(there)) => format!("memory: about {} of {}\n", bytes(needed), bytes(there)),
        (needed, None) => format!("memory: about {}\n", bytes(needed)),
    };
    // What is only checked or fetched has no time of its own.
    let is_timeless = |node: &NodeForecast| node.seconds.is_none() && node.size != Size::Exact(0);
    let time = match forecast.seconds {
        seconds if seconds > 0.0 => {
            let unknown = unknown(nodes, is_timeless, "the time");
            format!("time: {most}about {} by earlier runs here{unknown}\n", duration(seconds))
        }
        _ => String::new(),
    };
    format!("{disk}\n{memory}{time}")
}

/// Names the nodes of which something is not known.
fn unknown(nodes: &[NodeForecast], is_unknown: impl Fn(&NodeForecast) -> bool, what: &str) -> String {
    let names: Vec<_> = nodes.iter().filter(|node| is_unknown(node)).map(|node| node.node.as_str()).collect();
    let named = names.get(..names.len().min(NAMED)).unwrap_or_default().join(", ");
    match names.len() {
        0 => String::new(),
        count if count > NAMED => format!("; {what} of {named} and {} more is not known", count - NAMED),
        _ => format!("; {what} of {named} is not known"),
    }
}
