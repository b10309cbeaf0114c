//! Places the names of points so that they cover neither points nor each other.
//! Knows nothing of what is plotted.

/// A rectangle: left, top, right, bottom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
}

impl Area {
    /// Returns the size of the area that both share.
    pub(super) fn overlap(&self, other: &Self) -> f64 {
        let width = self.right.min(other.right) - self.left.max(other.left);
        let height = self.bottom.min(other.bottom) - self.top.max(other.top);
        width.max(0.0) * height.max(0.0)
    }

    /// Returns the place in the rectangle that is nearest to a point.
    pub(super) fn nearest(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (x.clamp(self.left, self.right), y.clamp(self.top, self.bottom))
    }

    fn is_within(&self, other: &Self) -> bool {
        self.left >= other.left
            && self.right <= other.right
            && self.top >= other.top
            && self.bottom <= other.bottom
    }
}

/// The height of a line of text.
const HEIGHT: f64 = 15.0;
/// The possible distances between a point and its name, nearest first.
const DISTANCES: [f64; 8] = [9.0, 20.0, 34.0, 50.0, 68.0, 90.0, 115.0, 145.0];
/// The possible directions from a point to its name, best first: right, left, above, below, then the
/// diagonals.
const DIRECTIONS: [(f64, f64); 8] =
    [(1.0, 0.0), (-1.0, 0.0), (0.0, -1.0), (0.0, 1.0), (0.7, -0.7), (0.7, 0.7), (-0.7, -0.7), (-0.7, 0.7)];

/// Places a text of each width beside its point, within `frame`.
///
/// The texts are placed one after the other. Each gets the nearest place that is free of points, bars and
/// earlier texts, and that does not seem to belong to another point. If there is no such place, it gets the
/// place with the lowest penalty.
pub(super) fn place(points: &[(f64, f64)], widths: &[f64], bars: &[Area], frame: &Area) -> Vec<Area> {
    let dot = |(x, y): &(f64, f64)| Area { left: x - 6.0, top: y - 6.0, right: x + 6.0, bottom: y + 6.0 };
    let marks: Vec<_> = points.iter().map(dot).chain(bars.iter().copied()).collect();
    let mut placed = Vec::new();
    for (point, width) in points.iter().zip(widths) {
        let offence = |area: &Area| {
            let covered = |others: &[Area]| others.iter().map(|other| area.overlap(other)).sum::<f64>();
            // Overlapping texts get the highest penalty, because neither can be read.
            covered(&marks)
                + 50.0 * covered(&placed)
                + points.iter().map(|other| claim(area, *point, *other)).sum::<f64>()
        };
        let within: Vec<_> = candidates(*point, *width).filter(|area| area.is_within(frame)).collect();
        let free = within.iter().find(|area| offence(area) == 0.0);
        let least = || within.iter().min_by(|a, b| offence(a).total_cmp(&offence(b)));
        let area = free.or_else(least).copied();
        let area = area.or_else(|| candidates(*point, *width).next()).unwrap_or(dot(point));
        placed.push(area);
    }
    placed
}

/// Whether no text covers another or a point.
pub(super) fn is_legible(areas: &[Area], points: &[(f64, f64)]) -> bool {
    let is_alone =
        |index: usize, area: &Area| areas[index + 1..].iter().all(|other| area.overlap(other) == 0.0);
    let is_on = |area: &Area, (x, y): (f64, f64)| {
        area.overlap(&Area { left: x - 4.0, top: y - 4.0, right: x + 4.0, bottom: y + 4.0 }) > 0.0
    };
    areas
        .iter()
        .enumerate()
        .all(|(index, area)| is_alone(index, area) && !points.iter().any(|point| is_on(area, *point)))
}

/// Returns a penalty if a text for `own` seems to belong to `other`, because `other` is nearer to it or lies
/// on the way to it.
fn claim(area: &Area, own: (f64, f64), other: (f64, f64)) -> f64 {
    let distance = |a: (f64, f64), b: (f64, f64)| (a.0 - b.0).hypot(a.1 - b.1);
    if distance(own, other) < 1.0 {
        return 0.0;
    }
    let end = area.nearest(own);
    let length = distance(own, end).max(1e-9);
    // How far `other` is along the line from `own` to the text.
    let along = ((other.0 - own.0) * (end.0 - own.0) + (other.1 - own.1) * (end.1 - own.1)) / length;
    let along = along.clamp(0.0, length) / length;
    let foot = (own.0 + along * (end.0 - own.0), own.1 + along * (end.1 - own.1));
    let is_nearer = distance(other, area.nearest(other)) < length;
    let is_on_the_way = distance(other, foot) < 8.0;
    if is_nearer || is_on_the_way { 300.0 } else { 0.0 }
}

fn candidates((x, y): (f64, f64), width: f64) -> impl Iterator<Item = Area> {
    DISTANCES.into_iter().flat_map(move |distance| {
        DIRECTIONS.into_iter().map(move |(dx, dy)| {
            // The side of the text that faces the point is `distance` away from the point.
            let left = x + dx * distance - width * (1.0 - dx.signum() * f64::from(dx != 0.0)) / 2.0;
            let top = y + dy * distance - HEIGHT * (1.0 - dy.signum() * f64::from(dy != 0.0)) / 2.0;
            Area { left, top, right: left + width, bottom: top + HEIGHT }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Area = Area { left: 0.0, top: 0.0, right: 600.0, bottom: 300.0 };

    #[test]
    fn a_lone_point_has_its_name_at_the_right_and_at_the_edge_at_the_left() {
        let at = |x: f64| place(&[(x, 100.0)], &[50.0], &[], &FRAME)[0];
        assert_eq!(at(100.0), Area { left: 109.0, top: 92.5, right: 159.0, bottom: 107.5 });
        assert_eq!(at(590.0), Area { left: 531.0, top: 92.5, right: 581.0, bottom: 107.5 });
    }

    #[test]
    fn twelve_names_in_a_cluster_do_not_overlap() {
        let points: Vec<_> =
            (0..12).map(|i| (200.0 + 9.0 * f64::from(i), 150.0 + f64::from(i % 3))).collect();
        let labels = place(&points, &[120.0; 12], &[], &FRAME);
        for (index, label) in labels.iter().enumerate() {
            assert!(label.is_within(&FRAME), "{index}: {label:?}");
        }
        assert!(is_legible(&labels, &points), "{labels:?}");
    }

    #[test]
    fn a_name_is_not_written_where_another_point_seems_to_own_it() {
        // There is no room at the right of the second point, and the first point is at its left.
        let points = [(500.0, 100.0), (530.0, 100.0)];
        let labels = place(&points, &[60.0, 68.0], &[], &FRAME);
        assert_eq!(labels[0].right, 491.0);
        assert!(labels[1].left > 491.0 && labels[1].top != labels[0].top, "{labels:?}");
    }

    #[test]
    fn where_there_is_no_room_something_is_still_returned() {
        let tiny = Area { left: 0.0, top: 0.0, right: 10.0, bottom: 10.0 };
        let labels = place(&[(5.0, 5.0); 3], &[50.0; 3], &[], &tiny);
        assert!(labels.len() == 3 && !is_legible(&labels, &[]));
    }
}
