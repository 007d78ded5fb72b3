//! A depth buffer and the scan conversion of triangles into it.

use glam::Vec3;

/// Depths and triangle numbers of a grid of samples. A larger depth value is nearer.
#[derive(Debug)]
pub struct Depth {
    pub width: usize,
    pub height: usize,
    pub nearest: Vec<f32>,
    /// Triangle number + 1; 0 where there is none. Empty when only depths are asked for.
    pub ids: Vec<u32>,
}

impl Depth {
    /// A buffer that knows which triangle is seen.
    pub fn with_ids(width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            nearest: vec![0.0; width * height],
            ids: vec![0; width * height],
        }
    }

    /// A buffer of depths alone; `far` is what an empty sample holds.
    pub fn depths(width: usize, height: usize, far: f32) -> Self {
        Self {
            width,
            height,
            nearest: vec![far; width * height],
            ids: Vec::new(),
        }
    }

    /// Draws one triangle with corners (x, y, depth), x and y in samples. Both sides are drawn.
    #[inline]
    pub fn triangle(&mut self, number: u32, corners: [Vec3; 3]) {
        let [a, b, c] = corners;
        let low = a.min(b).min(c);
        let high = a.max(b).max(c);
        let (w, h) = (self.width as f32, self.height as f32);
        if high.x < 0.0 || high.y < 0.0 || low.x >= w || low.y >= h {
            return;
        }
        let area = (b.x - a.x) * (c.y - a.y) - (c.x - a.x) * (b.y - a.y);
        if area.abs() < 1e-7 {
            return;
        }
        // First and last row whose centre lies inside.
        let first = (low.y + 0.5).max(0.0) as usize;
        let end = ((high.y + 0.5).clamp(0.0, h)) as usize;
        if first >= end || (low.x + 0.499).max(0.0) as usize >= (high.x + 0.501).min(w) as usize {
            return;
        }
        let inverse = 1.0 / area;
        let zx = ((b.z - a.z) * (c.y - a.y) - (c.z - a.z) * (b.y - a.y)) * inverse;
        let zy = ((c.z - a.z) * (b.x - a.x) - (b.z - a.z) * (c.x - a.x)) * inverse;
        let slope = |p: Vec3, q: Vec3| {
            let dy = q.y - p.y;
            if dy == 0.0 { 0.0 } else { (q.x - p.x) / dy }
        };
        let edges = [(a, b, slope(a, b)), (b, c, slope(b, c)), (c, a, slope(c, a))];
        for y in first..end {
            let yc = y as f32 + 0.5;
            let (mut left, mut right) = (f32::MAX, f32::MIN);
            for (p, q, slope) in &edges {
                if (p.y <= yc) != (q.y <= yc) {
                    let x = p.x + (yc - p.y) * slope;
                    left = if x < left { x } else { left };
                    right = if x > right { x } else { right };
                }
            }
            // A hair wider than exact, so that no sample falls between two neighbours.
            let from = (left + 0.499).max(0.0) as usize;
            let to = ((right + 0.501).clamp(0.0, w)) as usize;
            if from >= to {
                continue;
            }
            let row = y * self.width;
            // Slivers have wild slopes: depths are held within the corners' below.
            let z0 = a.z + zy * (yc - a.y) + zx * (0.5 - a.x);
            let depths = &mut self.nearest[row + from..row + to];
            // Counted in f32, exactly: turning a `usize` into one takes longer than all the rest.
            let mut x = from as f32;
            if self.ids.is_empty() {
                for depth in depths {
                    let z = held(z0 + zx * x, low.z, high.z);
                    *depth = if z > *depth { z } else { *depth };
                    x += 1.0;
                }
            } else {
                let ids = &mut self.ids[row + from..row + to];
                for (depth, id) in depths.iter_mut().zip(ids) {
                    let z = held(z0 + zx * x, low.z, high.z);
                    let is_nearer = z > *depth;
                    *depth = if is_nearer { z } else { *depth };
                    *id = if is_nearer { number + 1 } else { *id };
                    x += 1.0;
                }
            }
        }
    }
}

/// Within two bounds, neither of which is NaN: cheaper than `clamp`.
#[inline]
fn held(z: f32, low: f32, high: f32) -> f32 {
    let z = if z < high { z } else { high };
    if z > low { z } else { low }
}
