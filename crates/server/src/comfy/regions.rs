//! The nodes that give a text a part of the picture, and that join such texts.

use super::graph::{Graph, Known, wrong};
use super::wanted::{Area, Conditioning, Part};
use crate::refusal::Refusal;
use prima_pipeline::Region;

impl Graph<'_> {
    /// What a node of `ConditioningSetArea` hands on.
    pub fn in_an_area(&self, id: &str, class: &str, known: &Known, depth: usize) -> Result<Conditioning, Refusal> {
        let mut text = self.conditioning(id, "conditioning", known, depth)?;
        if !text.parts.is_empty() || text.area.is_some() {
            return Err(wrong(id, "the conditioning has an area already"));
        }
        let in_pixels = class == "ConditioningSetArea";
        let most = if in_pixels { 16_384.0 } else { 1.0 };
        let side = |input| self.number(id, input, 0.0, most);
        text.area = Some(Area {
            sides: [side("x")?, side("y")?, side("width")?, side("height")?],
            in_pixels,
            strength: self.number(id, "strength", 0.0, 10.0)?,
        });
        Ok(text)
    }

    /// What `ConditioningCombine` hands on: the text of the whole picture with the others as its parts.
    pub fn combined(&self, id: &str, known: &Known, depth: usize) -> Result<Conditioning, Refusal> {
        let [first, second] =
            ["conditioning_1", "conditioning_2"].map(|input| self.conditioning(id, input, known, depth));
        let (mut whole, other) = match (first?, second?) {
            (first, second) if first.area.is_some() && second.area.is_none() => (second, first),
            both => both,
        };
        let Some(area) = other.area else {
            let message =
                "ConditioningCombine joins the conditioning of the whole picture and others that have an area";
            return Err(wrong(id, message));
        };
        whole.parts.push(Part { text: other.text, area });
        whole.parts.extend(other.parts);
        Ok(whole)
    }
}

impl Conditioning {
    /// Its parts in a picture of this size; `node` is at fault where there are some of nothing.
    pub fn regions(&self, node: &str, size: (Option<usize>, Option<usize>)) -> Result<Vec<Region>, Refusal> {
        if self.area.is_some() {
            let message =
                "an area alone is no picture: join it with the conditioning of the whole by ConditioningCombine";
            return Err(Refusal::field(node.to_owned(), message));
        }
        Ok(self.parts.iter().map(|part| part.region(size)).collect())
    }
}

impl Part {
    fn region(&self, (width, height): (Option<usize>, Option<usize>)) -> Region {
        let Area {
            sides: [x, y, w, h],
            in_pixels,
            strength,
        } = self.area;
        let area = match (in_pixels, width, height) {
            // Of a picture that is yet to come: enough to check the rest of the graph by.
            (true, None, _) | (true, _, None) => [0.0, 0.0, 1.0, 1.0],
            (_, width, height) => {
                let whole = [width, height].map(|side| if in_pixels { side.unwrap_or(1) as f64 } else { 1.0 });
                let share = |end: f64, axis: usize| (end / whole[axis]).min(1.0);
                [share(x, 0), share(y, 1), share(x + w, 0), share(y + h, 1)]
            }
        };
        Region {
            prompt: self.text.clone(),
            area,
            // There the answers are averaged with their strengths, and the whole picture's has one.
            share: strength / (1.0 + strength),
        }
    }
}
