//! A plot of points with their intervals, names and Pareto front, as SVG and in words.
//! Knows nothing of benchmarks.

use std::fmt::Write;

use super::super::front::front;
use super::axis::Axis;
use super::label::{Area, is_legible, place};
use super::text::{alike, escape, shorten};
use text::units::{bytes, size};

/// One configuration.
pub(super) struct Point<'a> {
    pub(super) name: &'a str,
    pub(super) bytes: u64,
    pub(super) value: f64,
    /// The ends of its 95 % interval.
    pub(super) interval: [f64; 2],
}

/// What the vertical axis shows.
pub(super) struct Upwards {
    pub(super) title: &'static str,
    /// Whether less is better.
    pub(super) falling: bool,
    /// The ends of the axis; `None` where the end depends on the values.
    pub(super) ends: [Option<f64>; 2],
    pub(super) show: fn(f64) -> String,
}

/// The dimensions of a plot. There is one shape for wide pages and one for phones, so that the text does not
/// shrink on a phone.
pub(super) struct Shape {
    class: &'static str,
    width: f64,
    height: f64,
    ticks: usize,
    /// The maximum number of characters of a name.
    letters: usize,
}

pub(super) const SHAPES: [Shape; 2] = [
    Shape { class: "broad", width: 920.0, height: 420.0, ticks: 6, letters: 30 },
    Shape { class: "slim", width: 358.0, height: 400.0, ticks: 3, letters: 16 },
];

/// The room for text at the left, top, right and bottom.
const MARGINS: [f64; 4] = [46.0, 30.0, 12.0, 44.0];

/// A plot with its axes.
pub(super) struct Plot<'a> {
    points: &'a [Point<'a>],
    upwards: &'a Upwards,
    shape: &'a Shape,
    choice: Option<&'a str>,
    frame: Area,
    across: Axis,
    up: Axis,
}

/// The text beside each point that has one, and its place.
struct Labels {
    /// The places of these points among all points.
    of: Vec<usize>,
    texts: Vec<String>,
    areas: Vec<Area>,
    /// Whether the texts are numbers, whose names are listed below the plot.
    are_numbers: bool,
}

impl<'a> Plot<'a> {
    /// Lays out the points in a shape; `choice` is the configuration to ship, which is marked.
    pub(super) fn new(
        points: &'a [Point<'a>],
        upwards: &'a Upwards,
        shape: &'a Shape,
        choice: Option<&'a str>,
    ) -> Self {
        let [left, top, right, bottom] = MARGINS;
        let frame = Area { left, top, right: shape.width - right, bottom: shape.height - bottom };
        let sizes = points.iter().map(|point| point.bytes as f64);
        let across = Axis::of(sizes, [None, None], [frame.left, frame.right]);
        let values = points.iter().flat_map(|point| [point.interval[0], point.value, point.interval[1]]);
        let up = Axis::of(values, upwards.ends, [frame.bottom, frame.top]);
        Self { points, upwards, shape, choice, frame, across, up }
    }

    /// Returns the plot as SVG, and below it a list of the names if there is no room for them in the plot.
    pub(super) fn draw(&self) -> String {
        let Shape { class, width, height, .. } = self.shape;
        let title = self.upwards.title;
        let mut out = format!(
            "<svg class=\"plot {class}\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" \
             aria-labelledby=\"plot-{class}-title plot-{class}-words\">\n\
             <title id=\"plot-{class}-title\">{title} against size on disk</title>\n\
             <desc id=\"plot-{class}-words\">{}</desc>\n",
            escape(&self.words())
        );
        self.draw_axes(&mut out);
        self.draw_front(&mut out);
        let labels = self.labels();
        self.draw_points(&mut out, &labels);
        out.push_str("</svg>\n");
        if labels.are_numbers {
            let named = labels.of.iter().map(|index| escape(self.points[*index].name));
            let names: String = named.map(|name| format!("<li>{name}</li>")).collect();
            let _ = writeln!(out, "<ol class=\"key {class}\">{names}</ol>");
        }
        out
    }

    /// Describes the plot in words.
    fn words(&self) -> String {
        let point = |point: &Point<'_>| {
            format!("{}: {} at {}", point.name, (self.upwards.show)(rounded(point.value)), bytes(point.bytes))
        };
        let all: Vec<_> = self.points.iter().map(point).collect();
        let front: Vec<_> = self.front().iter().map(|index| self.points[*index].name).collect();
        format!("{}. On the front: {}.", all.join("; "), front.join(", "))
    }

    fn front(&self) -> Vec<usize> {
        let sign = if self.upwards.falling { -1.0 } else { 1.0 };
        let points: Vec<_> =
            self.points.iter().map(|point| (point.bytes as f64, sign * point.value)).collect();
        front(&points)
    }

    fn draw_axes(&self, out: &mut String) {
        let Area { left, top, right, bottom } = self.frame;
        for tick in self.up.ticks(4) {
            let y = self.up.place(tick);
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{left:.1}\" y1=\"{y:.1}\" x2=\"{right:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 8.0,
                y + 4.0,
                (self.upwards.show)(rounded(tick))
            );
        }
        for tick in self.across.ticks(self.shape.ticks) {
            let x = self.across.place(tick);
            let _ = writeln!(
                out,
                "<line class=\"notch\" x1=\"{x:.1}\" y1=\"{bottom:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\"/>\
                 <text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 5.0,
                bottom + 20.0,
                size(tick)
            );
        }
        let _ = writeln!(
            out,
            "<text class=\"name\" x=\"2\" y=\"{:.1}\">{}</text>\
             <text class=\"name\" x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"end\">size on disk</text>",
            top - 16.0,
            self.upwards.title,
            bottom + 38.0
        );
    }

    /// Draws the front as steps: between two sizes, the value is that of the smaller one.
    fn draw_front(&self, out: &mut String) {
        let mut path = String::new();
        for index in self.front() {
            let (x, y) = self.at(&self.points[index]);
            let _ = match path.is_empty() {
                true => write!(path, "M{x:.1} {y:.1}"),
                false => write!(path, " H{x:.1} V{y:.1}"),
            };
        }
        let _ = writeln!(out, "<path class=\"front\" d=\"{path}\"/>");
    }

    fn draw_points(&self, out: &mut String, labels: &Labels) {
        let front = self.front();
        let bars: Vec<_> = self.points.iter().map(|point| self.bar(point)).collect();
        for Area { left, top, bottom, .. } in &bars {
            let x = left + 1.0;
            let _ = writeln!(
                out,
                "<path class=\"error\" d=\"M{x:.1} {top:.1} V{bottom:.1} M{:.1} {top:.1} h8 M{:.1} {bottom:.1} h8\"/>",
                x - 4.0,
                x - 4.0
            );
        }
        for (index, point) in self.points.iter().enumerate() {
            let (x, y) = self.at(point);
            let class = if front.contains(&index) { "on" } else { "off" };
            let chosen = if self.choice == Some(point.name) { " chosen" } else { "" };
            let label = labels.of.iter().position(|of| *of == index).map(|at| {
                let (text, area) = (&labels.texts[at], labels.areas[at]);
                draw_leader(out, (x, y), &area);
                // The text is anchored at the end that faces the point: this end stays in place in every font.
                let (anchor, beside) = match (area.left >= x, area.right <= x) {
                    (true, _) => ("start", area.left + 2.0),
                    (_, true) => ("end", area.right - 2.0),
                    _ => ("middle", f64::midpoint(area.left, area.right)),
                };
                format!(
                    "<text x=\"{beside:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                    area.bottom - 3.5,
                    escape(text)
                )
            });
            let _ = writeln!(
                out,
                "<g class=\"point {class}{chosen}\"><title>{}: {}, {}</title><circle cx=\"{x:.1}\" cy=\"{y:.1}\" \
                 r=\"5.5\"/>{}</g>",
                escape(point.name),
                (self.upwards.show)(rounded(point.value)),
                bytes(point.bytes),
                label.unwrap_or_default()
            );
        }
    }

    /// Returns the texts beside the points of the front and the chosen one: their names, or numbers if there is no room
    /// for the names.
    fn labels(&self) -> Labels {
        let front = self.front();
        let is_named = |index: &usize| front.contains(index) || self.choice == Some(self.points[*index].name);
        let of: Vec<_> = (0..self.points.len()).filter(is_named).collect();
        let all: Vec<_> = self.points.iter().map(|point| self.at(point)).collect();
        let named: Vec<_> = of.iter().map(|index| all[*index]).collect();
        let others = (0..all.len()).filter(|index| !of.contains(index)).map(|index| all[index]);
        let dots = others.map(|(x, y)| Area { left: x - 6.0, top: y - 6.0, right: x + 6.0, bottom: y + 6.0 });
        let marks: Vec<_> = self.points.iter().map(|point| self.bar(point)).chain(dots).collect();
        let label = |texts: Vec<String>, are_numbers| {
            // An estimate for wide fonts at this size; narrower fonts need less.
            let widths: Vec<_> = texts.iter().map(|text| text.chars().count() as f64 * 7.4 + 4.0).collect();
            Labels { of: of.clone(), areas: place(&named, &widths, &marks, &self.frame), texts, are_numbers }
        };
        let names = self.names();
        let names = label(of.iter().map(|index| names[*index].clone()).collect(), false);
        if is_legible(&names.areas, &all) {
            return names;
        }
        label((1..=of.len()).map(|number| number.to_string()).collect(), true)
    }

    /// Returns the names, shortened and without a long beginning that all of them share.
    fn names(&self) -> Vec<String> {
        let alike = alike(self.points.iter().map(|point| point.name));
        let name = |point: &Point<'_>| match alike {
            0 => shorten(point.name, self.shape.letters),
            alike => shorten(&format!("…{}", &point.name[alike..]), self.shape.letters),
        };
        self.points.iter().map(name).collect()
    }

    fn at(&self, point: &Point<'_>) -> (f64, f64) {
        (self.across.place(point.bytes as f64), self.up.place(point.value))
    }

    fn bar(&self, point: &Point<'_>) -> Area {
        let (x, _) = self.at(point);
        let [low, high] = point.interval;
        Area { left: x - 1.0, top: self.up.place(high), right: x + 1.0, bottom: self.up.place(low) }
    }
}

/// Draws a line from a point to its name, if the name is not close to the point.
fn draw_leader(out: &mut String, (x, y): (f64, f64), area: &Area) {
    let end = area.nearest((x, y));
    if (end.0 - x).hypot(end.1 - y) > 14.0 {
        let _ = writeln!(
            out,
            "<line class=\"leader\" x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            end.0, end.1
        );
    }
}

/// Rounds to four decimal places, which removes the rounding errors of additions.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
