//! The pictures that come with a message: one to start from, a mask of it, and one that a ControlNet reads.

use super::messages::{Layers, Paint, Steering};
use crate::app::App;
use crate::masks::{Masking, Transparency, initial};
use crate::refusal::Refusal;
use axum::body::Bytes;
use prima_pipeline::{Control, Mask, Picture};

/// What there is to paint over and to be steered by.
#[derive(Default)]
pub(super) struct Given {
    pub picture: Option<Picture>,
    pub mask: Option<Mask>,
    pub control: Option<Control>,
}

impl Given {
    /// Of a message and its payload.
    pub async fn read(app: &App, paint: &Paint, payload: Option<Bytes>) -> Result<Self, Refusal> {
        let Some(payload) = payload else {
            return Ok(Self::default());
        };
        let layers = paint.layers.unwrap_or(Layers {
            image: payload.len(),
            ..Layers::default()
        });
        let [image, mask, control] = layers.cut(&payload)?;
        let size = (paint.width, paint.height);
        let mut given = Self::default();
        match (image, mask) {
            (Some(image), mask) => {
                let masking = Masking::new(mask, size, Transparency::Stays);
                let (picture, mask) = initial(app, image, masking).await?;
                (given.picture, given.mask) = (Some(picture), mask);
            }
            (None, Some(_)) => return Err(Refusal::field("layers", "a mask is of an image: send both")),
            (None, None) => {}
        }
        given.control = match (control, &paint.control) {
            (Some(file), Some(steering)) => {
                let masking = Masking::new(None::<Bytes>, size, Transparency::Stays);
                let (picture, _) = initial(app, file, masking).await?;
                Some(steering.of(picture)?)
            }
            (None, None) => None,
            _ => {
                let message = "a ControlNet has a picture in layers.control and its name in control: send both";
                return Err(Refusal::field("control", message));
            }
        };
        Ok(given)
    }
}

impl Layers {
    fn cut(self, payload: &Bytes) -> Result<[Option<Bytes>; 3], Refusal> {
        let lengths = [self.image, self.mask, self.control];
        let sum = lengths.iter().try_fold(0_usize, |sum, length| sum.checked_add(*length));
        if sum != Some(payload.len()) {
            let message = format!(
                "layers do not come to the {} bytes of the message's payload",
                payload.len()
            );
            return Err(Refusal::field("layers", message));
        }
        let mut from = 0;
        Ok(lengths.map(|length| {
            let file = payload.slice(from..from + length);
            from += length;
            (length > 0).then_some(file)
        }))
    }
}

impl Steering {
    fn of(&self, picture: Picture) -> Result<Control, Refusal> {
        let preprocessor = self.preprocessor.as_deref().map(str::parse).transpose()?;
        Ok(Control {
            preprocessor: preprocessor.unwrap_or_default(),
            scale: self.scale.unwrap_or(1.0),
            start: self.start.unwrap_or(0.0),
            end: self.end.unwrap_or(1.0),
            ..Control::new(&self.name, picture)
        })
    }
}
