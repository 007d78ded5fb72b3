//! How two things lie to each other, from where a judge sees each of them.

use super::head::CELLS;
use super::readers::GEOMETRY;
use crate::features::FINE;

/// Cells that a thing has to fill, in all, to be there.
const LEAST: f32 = 1.0;

/// Where one thing is: means and ends of its evidence, fractions of the picture.
struct Body {
    mass: f32,
    x: f32,
    y: f32,
    /// Standard deviations.
    spread: [f32; 2],
    /// Left, top, right and bottom: the twentieth and nineteen twentieths of the evidence.
    ends: [f32; 4],
}

fn body(map: &[f32]) -> Body {
    let mass: f32 = map.iter().sum();
    let at = |cell: usize| [cell % FINE, cell / FINE].map(|v| (v as f32 + 0.5) / FINE as f32);
    let mean = |of: &dyn Fn([f32; 2]) -> f32| {
        let sum: f32 = map.iter().enumerate().map(|(cell, v)| v * of(at(cell))).sum();
        sum / mass.max(1e-6)
    };
    let (x, y) = (mean(&|p| p[0]), mean(&|p| p[1]));
    let end = |axis: usize, share: f32| {
        let mut lines = [0.0f32; FINE];
        for (cell, v) in map.iter().enumerate() {
            lines[if axis == 0 { cell % FINE } else { cell / FINE }] += v;
        }
        let mut rest = share * mass;
        for (i, line) in lines.iter().enumerate() {
            if *line >= rest {
                return (i as f32 + rest / line.max(1e-6)) / FINE as f32;
            }
            rest -= line;
        }
        1.0
    };
    Body {
        mass,
        x,
        y,
        spread: [mean(&|p| (p[0] - x).powi(2)), mean(&|p| (p[1] - y).powi(2))].map(f32::sqrt),
        ends: [end(0, 0.05), end(1, 0.05), end(0, 0.95), end(1, 0.95)],
    }
}

/// The centre of a map's evidence, fractions of the picture; `None` where there is none to speak of.
pub(crate) fn centre(map: &[f32]) -> Option<[f32; 2]> {
    let found = body(map);
    (found.mass >= LEAST).then_some([found.x, found.y])
}

/// What decides how the first of two things lies to the second, `[GEOMETRY]`; `None` where either is not there. Each map is
/// `[CELLS]`, the evidence for one of them. A cell that shows a thing shows one of the two.
pub(crate) fn geometry(things: &[f32], first: &[f32], second: &[f32]) -> Option<Vec<f32>> {
    let share = |own: &[f32], other: &[f32]| -> Vec<f32> {
        (0..CELLS)
            .map(|cell| {
                let of = own[cell] + other[cell];
                // Little evidence for either is no evidence.
                things[cell] * own[cell] / (of + 0.02)
            })
            .collect()
    };
    let maps = [share(first, second), share(second, first)];
    let [a, b] = [body(&maps[0]), body(&maps[1])];
    if a.mass < LEAST || b.mass < LEAST {
        return None;
    }
    let mut values = Vec::with_capacity(GEOMETRY);
    for thing in [&a, &b] {
        values.extend([thing.mass / 64.0, thing.x, thing.y]);
        values.extend(thing.spread.map(|v| 4.0 * v));
        values.extend(thing.ends);
    }
    // Differences, in which the answer lies, larger than the rest.
    values.extend([4.0 * (a.x - b.x), 4.0 * (a.y - b.y)]);
    values.extend((0..4).map(|end| 4.0 * (a.ends[end] - b.ends[end])));
    let gap = (a.ends[0] - b.ends[2]).max(b.ends[0] - a.ends[2]);
    values.extend([4.0 * gap, 4.0 * (b.ends[1] - a.ends[3])]);
    Some(values)
}

/// A map as a mirror shows it.
pub(crate) fn mirrored(map: &[f32]) -> Vec<f32> {
    map.chunks_exact(FINE)
        .flat_map(|row| row.iter().rev().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map with a square of evidence.
    fn square(left: usize, top: usize, side: usize) -> Vec<f32> {
        let inside =
            |cell: usize| (left..left + side).contains(&(cell % FINE)) && (top..top + side).contains(&(cell / FINE));
        (0..CELLS).map(|cell| f32::from(u8::from(inside(cell)))).collect()
    }

    #[test]
    fn a_centre_is_the_middle_of_the_evidence_and_nothing_has_none() {
        assert_eq!(centre(&square(4, 8, 4)), Some([0.375, 0.625]));
        assert_eq!(centre(&vec![0.0; CELLS]), None);
    }

    #[test]
    fn a_pair_needs_both_things() {
        let (a, b) = (square(1, 6, 4), square(10, 6, 4));
        let things: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        let values = geometry(&things, &a, &b).unwrap();
        assert_eq!(values.len(), GEOMETRY);
        assert!(values[1] < values[10], "the first is left of the second");
        assert!(geometry(&a, &a, &vec![0.0; CELLS]).is_none());
    }
}
