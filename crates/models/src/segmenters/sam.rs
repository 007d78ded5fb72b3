//! Segment Anything (transformers `models/sam/modeling_sam.py`, 5.23): a picture is encoded once, and every question about it
//! is then answered by a small decoder.

use super::sam_config::{SamConfig, SamMasks, SamPrompt};
use super::sam_mask_decoder::MaskDecoder;
use super::sam_prompt_encoder::PromptEncoder;
use super::sam_vision_encoder::VisionEncoder;
use crate::Cancelled;
use prima_checkpoint::{Error, ParamSource};
use prima_tensor::Tensor;

/// `SamModel`.
pub struct Sam {
    vision_encoder: VisionEncoder,
    prompt_encoder: PromptEncoder,
    mask_decoder: MaskDecoder,
    config: SamConfig,
}

impl Sam {
    /// Values have to be there when the parameters are given, not later.
    pub fn new(config: &SamConfig, source: &mut dyn ParamSource) -> Result<Self, Error> {
        config.check()?;
        Ok(Self {
            vision_encoder: VisionEncoder::new(config, source)?,
            prompt_encoder: PromptEncoder::new(config, source)?,
            mask_decoder: MaskDecoder::new(config, source)?,
            config: config.clone(),
        })
    }

    pub fn config(&self) -> &SamConfig {
        &self.config
    }

    /// A picture `[1, image_size, image_size, 3]`, each channel with ImageNet's mean and spread taken out, to its embedding
    /// `[1, grid, grid, output_channels]`.
    pub fn encode(&self, picture: &Tensor, keep_going: &mut dyn FnMut() -> bool) -> Result<Tensor, Cancelled> {
        self.vision_encoder.forward(picture, keep_going)
    }

    pub fn masks(&self, embedding: &Tensor, prompt: &SamPrompt) -> SamMasks {
        let tokens = self.prompt_encoder.tokens(prompt);
        let dense = self.prompt_encoder.dense(prompt.mask.as_ref());
        let positions = self.prompt_encoder.grid_positions();
        self.mask_decoder
            .forward(embedding, &positions, tokens.as_ref(), &dense)
    }
}
