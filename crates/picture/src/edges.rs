//! What ControlNets of lines read of a picture: its edges, or strokes.

use crate::{Gray, Picture};

/// White edges on black (Canny 1986, with Sobel's 3x3 gradients and their sum of amounts, as OpenCV's `Canny` computes it):
/// from gradients above `high` on along those above `low`. The crates that have it bring linear algebra and fonts along.
pub fn canny(picture: &Picture, low: u16, high: u16) -> Picture {
    let gray = Gray::of(picture);
    let (width, height) = (gray.width as isize, gray.height as isize);
    let at = |x: isize, y: isize| {
        // The edge repeats.
        let (x, y) = (x.clamp(0, width - 1), y.clamp(0, height - 1));
        i32::from(gray.values[(y * width + x) as usize])
    };
    let gradient = |x: isize, y: isize| {
        let across = |y| at(x + 1, y) - at(x - 1, y);
        let down = |x| at(x, y + 1) - at(x, y - 1);
        let dx = across(y - 1) + 2 * across(y) + across(y + 1);
        let dy = down(x - 1) + 2 * down(x) + down(x + 1);
        (dx, dy)
    };
    let gradients: Vec<(i32, i32)> = (0..width * height).map(|i| gradient(i % width, i / width)).collect();
    let size = |x: isize, y: isize| {
        let inside = (0..width).contains(&x) && (0..height).contains(&y);
        let (dx, dy) = if inside {
            gradients[(y * width + x) as usize]
        } else {
            (0, 0)
        };
        dx.abs() + dy.abs()
    };
    let mut edges = Gray::flat(gray.width, gray.height, 0);
    let mut to_follow = Vec::new();
    let is_ridge = |x: isize, y: isize| is_ridge(gradients[(y * width + x) as usize], |dx, dy| size(x + dx, y + dy));
    for y in 0..height {
        for x in 0..width {
            if size(x, y) > i32::from(high) && is_ridge(x, y) {
                edges.values[(y * width + x) as usize] = 255;
                to_follow.push((x, y));
            }
        }
    }
    while let Some((x, y)) = to_follow.pop() {
        for (x, y) in (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (x + dx, y + dy))) {
            let inside = (0..width).contains(&x) && (0..height).contains(&y);
            if inside && size(x, y) > i32::from(low) && is_ridge(x, y) {
                let edge = &mut edges.values[(y * width + x) as usize];
                if *edge == 0 {
                    *edge = 255;
                    to_follow.push((x, y));
                }
            }
        }
    }
    edges.to_picture()
}

/// Whether the gradient here is larger than those beside it in its own direction, of which there are four.
fn is_ridge((dx, dy): (i32, i32), size: impl Fn(isize, isize) -> i32) -> bool {
    // tan(22.5) and tan(67.5) degrees.
    const FLAT: f64 = 0.414_213_562_373_095;
    const STEEP: f64 = 2.414_213_562_373_095;
    let here = size(0, 0);
    let slope = f64::from(dy.abs()) / f64::from(dx.abs()).max(1e-9);
    let (before, after) = if slope < FLAT {
        (size(-1, 0), size(1, 0))
    } else if slope > STEEP {
        (size(0, -1), size(0, 1))
    } else {
        let sign = if (dx < 0) == (dy < 0) { 1 } else { -1 };
        return here > size(-sign, -1) && here > size(sign, 1);
    };
    here > before && here >= after
}

/// White strokes on black, whichever way round they were drawn.
pub fn scribble(picture: &Picture) -> Picture {
    let gray = Gray::of(picture).binarized();
    let white = gray.values.iter().filter(|value| **value > 0).count();
    if 2 * white > gray.values.len() {
        gray.inverted().to_picture()
    } else {
        gray.to_picture()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_one_line_where_the_brightness_jumps() {
        let mut gray = Gray::flat(12, 8, 20);
        for row in gray.values.chunks_mut(12) {
            row[6..].fill(220);
        }
        let edges = Gray::of(&canny(&gray.to_picture(), 100, 200));
        for row in edges.values.chunks(12) {
            let white: Vec<usize> = (0..12).filter(|&x| row[x] > 0).collect();
            assert_eq!(white.len(), 1, "{row:?}");
            assert!((5..=6).contains(&white[0]), "{row:?}");
        }
        let flat = canny(&Gray::flat(12, 8, 20).to_picture(), 100, 200);
        assert!(flat.rgb.iter().all(|v| *v == 0));
    }

    #[test]
    fn strokes_are_white_whichever_way_round_they_were_drawn() {
        let mut gray = Gray::flat(8, 8, 255);
        gray.values[8..16].fill(30);
        let strokes = scribble(&gray.to_picture());
        assert_eq!(strokes, scribble(&gray.inverted().to_picture()));
        assert_eq!(Gray::of(&strokes).bounds().map(|b| (b.top, b.bottom)), Some((1, 2)));
    }
}
