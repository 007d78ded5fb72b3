//! The nodes that lead a text through a ControlNet.

use super::graph::{Graph, Known, wrong};
use super::wanted::{Conditioning, Steered};
use crate::refusal::{Refusal, short};

impl Graph<'_> {
    /// The text that a node of `ControlNetApply` hands on, and the ControlNets that it was led through. Those of the positive
    /// text are the request's.
    pub fn steered(
        &self,
        id: &str,
        class: &str,
        output: u64,
        known: &Known,
        depth: usize,
    ) -> Result<Conditioning, Refusal> {
        let input = match (class, output) {
            ("ControlNetApply", 0) => "conditioning",
            ("ControlNetApplyAdvanced", 0) => "positive",
            ("ControlNetApplyAdvanced", 1) => "negative",
            _ => return Err(wrong(id, format!("{} has no output {output}", short(class, 40)))),
        };
        let mut text = self.conditioning(id, input, known, depth)?;
        let (loader, class, _) = self.link(id, "control_net", depth)?;
        if class != "ControlNetLoader" {
            return Err(self.misfit(id, "control_net", "that of ControlNetLoader", class));
        }
        let wanted = self.text(loader, "control_net_name")?;
        let plain = wanted.rsplit_once(".safetensors").map_or(wanted, |(name, _)| name);
        let mut names = known.controlnets.iter();
        let name = names.find(|name| [wanted, plain].contains(&name.as_str()));
        let name = name.ok_or_else(|| wrong(loader, format!("there is no ControlNet {:?} here", short(wanted, 60))))?;
        let share = |input, otherwise| match self.input(id, input) {
            Ok(value) => {
                let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
                number.ok_or_else(|| self.not_possible(id, input, "use a number"))
            }
            Err(_) => Ok(otherwise),
        };
        text.steered.push(Steered {
            name: name.clone(),
            image: self.image(id, "image", known, depth)?,
            strength: share("strength", 1.0)?,
            start: share("start_percent", 0.0)?,
            end: share("end_percent", 1.0)?,
        });
        Ok(text)
    }
}
