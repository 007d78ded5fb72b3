//! What the network is told in each of its evaluations: which prompts, joined with which weights.

use super::{MOST_PARTS, PromptSyntax, WeightedPrompt, chunks::MOST_CHUNKS, composed, editing};
use crate::blend::between;
use crate::known_words::UnknownWord;
use crate::{Conditioning, Error, Reading, Request, TextEncoders};
use std::sync::Arc;

/// Prompts whose answers become one.
#[derive(Clone)]
pub(crate) struct Chord {
    /// What the picture should be: one prompt of weight 1, before those of its regions, or those that `AND` joins.
    pub prompts: Vec<(Arc<Conditioning>, f64)>,
    /// What it should not be; `None` where its share of the answer is nothing.
    pub negative: Option<Arc<Conditioning>>,
}

/// Of a whole run.
pub(crate) struct Score {
    chords: Vec<Chord>,
    /// For each network evaluation, the place of its chord.
    of_evaluation: Vec<usize>,
    /// Whether all encodings were there already.
    pub text_cached: bool,
}

impl Score {
    /// The chord of an evaluation, counted from 0, and its number among those that differ.
    pub fn chord(&self, evaluation: usize) -> (usize, &Chord) {
        let number = self.of_evaluation.get(evaluation).or(self.of_evaluation.last());
        let number = number.copied().unwrap_or(0);
        (number, &self.chords[number])
    }
}

/// What a score is made from.
pub(crate) struct Composer<'a> {
    pub encoders: &'a TextEncoders,
    pub request: &'a Request,
    /// diffusers' `force_zeros_for_empty_prompt`.
    pub zeros_if_no_negative: bool,
    /// The weight of the prompts in the answer: `guidance_scale`, or 1 where nothing is evaluated beside them.
    pub scale: f64,
    /// Network evaluations.
    pub total: usize,
    /// Asked between two encodings.
    pub keep_going: &'a mut dyn FnMut() -> bool,
    pub warnings: &'a mut Vec<String>,
}

impl Composer<'_> {
    pub fn score(mut self) -> Result<Score, Error> {
        let request = self.request;
        let parts = composed(&request.prompt, request.prompt_syntax);
        if parts.len() > MOST_PARTS {
            let fix = format!("AND joins at most {MOST_PARTS} prompts");
            return Err(Error::request("prompt", format!("of {} parts", parts.len()), fix));
        }
        let mut cached = true;
        let mut prompts = Vec::new();
        let seconds = second_parts(request, parts.len());
        for (i, (text, weight)) in parts.iter().enumerate() {
            let second = seconds.as_ref().map(|seconds| seconds[i]);
            prompts.push((self.voice(text, second, request.clip_skip, &mut cached)?, *weight));
        }
        self.blend(&mut prompts, &mut cached)?;
        self.add_regions(&mut prompts, &mut cached)?;
        self.say_of_prompts(&prompts);
        let sum: f64 = parts.iter().map(|(_, weight)| weight * self.scale).sum();
        let needs_negative = self.scale > 1.0 || (sum - 1.0).abs() > 1e-9;
        let negative = match &request.negative_prompt {
            _ if !needs_negative => None,
            None if self.zeros_if_no_negative => Some(vec![Arc::new(prompts[0].0[0].zeros_like())]),
            text => {
                let text = text.as_deref().unwrap_or("");
                let second = request.negative_prompt_2.as_deref();
                // diffusers applies clip_skip to the prompt only.
                let voice = self.voice(text, second, 0, &mut cached)?;
                self.say_of_dropped("negative prompt", &voice);
                Some(voice)
            }
        };
        Ok(self.arranged(&prompts, negative.as_deref(), cached))
    }

    /// Takes the prompts towards the one that they are blended with.
    fn blend(&mut self, prompts: &mut [(Vec<Arc<Conditioning>>, f64)], cached: &mut bool) -> Result<(), Error> {
        let Some(blend) = &self.request.blend else {
            return Ok(());
        };
        let Some(text) = blend.prompt.as_ref().filter(|_| blend.share > 0.0) else {
            return Ok(());
        };
        let [(voice, _)] = prompts else {
            let fix = "a blend is between two prompts: leave AND out";
            return Err(Error::request("blend.prompt", format!("{text:?}"), fix));
        };
        let other = self.voice(text, None, self.request.clip_skip, cached)?;
        let pairs: Vec<_> = (0..voice.len().max(other.len()))
            .map(|i| (at(voice, i), at(&other, i)))
            .collect();
        let differ = pairs.iter().any(|(a, b)| a.length() != b.length());
        let filler = if differ {
            self.voice("", None, self.request.clip_skip, cached)?.pop()
        } else {
            None
        };
        *voice = pairs
            .iter()
            .map(|(from, to)| Arc::new(between(from, to, blend.share, filler.as_deref())))
            .collect();
        Ok(())
    }

    /// The regions' prompts stand behind the picture's own.
    fn add_regions(
        &mut self,
        prompts: &mut Vec<(Vec<Arc<Conditioning>>, f64)>,
        cached: &mut bool,
    ) -> Result<(), Error> {
        let regions = &self.request.regions;
        if !regions.is_empty() && prompts.len() > 1 {
            let fix = "they are parts of one prompt's picture: leave AND out";
            return Err(Error::request("regions", regions.len(), fix));
        }
        for region in regions {
            let voice = self.voice(&region.prompt, None, self.request.clip_skip, cached)?;
            prompts.push((voice, 1.0));
        }
        Ok(())
    }

    /// The encodings of a prompt, evaluation by evaluation: one of all if it does not change.
    fn voice(
        &mut self,
        prompt: &str,
        prompt_2: Option<&str>,
        clip_skip: usize,
        cached: &mut bool,
    ) -> Result<Vec<Arc<Conditioning>>, Error> {
        let syntax = self.request.prompt_syntax;
        let firsts = editing::texts(prompt, syntax, self.total);
        let seconds = prompt_2.map(|second| editing::texts(second, syntax, self.total));
        let count = firsts.len().max(seconds.as_ref().map_or(1, Vec::len));
        let at = |texts: &[String], i: usize| texts[i.min(texts.len() - 1)].clone();
        let mut voice: Vec<Arc<Conditioning>> = Vec::new();
        let mut last = None;
        for i in 0..count {
            let reading = Reading {
                prompt: at(&firsts, i),
                prompt_2: seconds.as_ref().map(|seconds| at(seconds, i)),
                syntax,
                clip_skip,
            };
            let same = voice.last().filter(|_| last.as_ref() == Some(&reading)).cloned();
            let encoded = match same {
                Some(same) => same,
                None if !(self.keep_going)() => return Err(Error::Cancelled),
                None => {
                    let (encoded, found) = self.encoders.encode(&reading)?;
                    *cached &= found;
                    encoded
                }
            };
            voice.push(encoded);
            last = Some(reading);
        }
        Ok(voice)
    }

    fn arranged(
        &self,
        prompts: &[(Vec<Arc<Conditioning>>, f64)],
        negative: Option<&[Arc<Conditioning>]>,
        text_cached: bool,
    ) -> Score {
        let voices = prompts.iter().map(|(voice, _)| voice.as_slice()).chain(negative);
        let changes = voices.clone().any(|voice| voice.len() > 1);
        let mut chords: Vec<Chord> = Vec::new();
        let mut of_evaluation = Vec::new();
        for i in 0..if changes { self.total } else { 1 } {
            let chord = Chord {
                prompts: prompts.iter().map(|(voice, weight)| (at(voice, i), *weight)).collect(),
                negative: negative.map(|voice| at(voice, i)),
            };
            let known = chords.iter().position(|other| other.is(&chord));
            of_evaluation.push(known.unwrap_or(chords.len()));
            if known.is_none() {
                chords.push(chord);
            }
        }
        Score {
            chords,
            of_evaluation,
            text_cached,
        }
    }

    fn say_of_prompts(&mut self, prompts: &[(Vec<Arc<Conditioning>>, f64)]) {
        let (request, syntax) = (self.request, self.request.prompt_syntax);
        if WeightedPrompt::parse(&request.prompt, syntax).has_break() {
            self.warnings.push(format!(
                "BREAK begins another 75 tokens of the prompt; --prompt-syntax {} takes it as a word",
                PromptSyntax::Plain
            ));
        }
        if prompts.len() > 1 && request.regions.is_empty() {
            self.warnings.push(format!(
                "AND joins {} prompts, each a network evaluation of its own; --prompt-syntax {} takes it as a word",
                prompts.len(),
                PromptSyntax::Plain
            ));
        }
        let encoders = self.encoders.encoders().len();
        if encoders < 2 && (request.prompt_2.is_some() || request.negative_prompt_2.is_some()) {
            let text = "prompt_2 and negative_prompt_2 have no effect: this model has one text encoder";
            self.warnings.push(text.to_owned());
        }
        for (voice, _) in prompts {
            self.say_of_dropped("prompt", voice);
        }
        let mut unknown: Vec<&UnknownWord> = Vec::new();
        for word in prompts
            .iter()
            .flat_map(|(voice, _)| voice)
            .flat_map(|c| &c.unknown_words)
        {
            if !unknown.contains(&word) {
                unknown.push(word);
            }
        }
        warn_unknown(self.warnings, &unknown);
    }

    /// Names the words that the text encoders never saw.
    fn say_of_dropped(&mut self, what: &str, voice: &[Arc<Conditioning>]) {
        let dropped = voice.iter().map(|c| c.dropped.as_str()).max_by_key(|text| text.len());
        let Some(dropped) = dropped.filter(|text| !text.is_empty()) else {
            return;
        };
        let length = self.encoders.max_length();
        let most = match self.request.prompt_syntax {
            PromptSyntax::Plain => format!("{length} tokens"),
            _ => format!("{MOST_CHUNKS} chunks of {} tokens", length.saturating_sub(2)),
        };
        let text = format!("the {what} is longer than {most}; this part was not read: \"{dropped}\"");
        if !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }
}

/// The encoding for an evaluation: the last where there are fewer.
fn at(voice: &[Arc<Conditioning>], evaluation: usize) -> Arc<Conditioning> {
    voice[evaluation.min(voice.len() - 1)].clone()
}

impl Chord {
    fn is(&self, other: &Self) -> bool {
        let all = |chord: &Self| -> Vec<*const Conditioning> {
            let prompts = chord.prompts.iter().map(|(prompt, _)| prompt);
            prompts.chain(&chord.negative).map(Arc::as_ptr).collect()
        };
        all(self) == all(other)
    }
}

/// What the second text encoder reads, for each part that `AND` joins: as many parts, or all of it for each.
fn second_parts(request: &Request, count: usize) -> Option<Vec<&str>> {
    let second = request.prompt_2.as_deref()?;
    let parts = composed(second, request.prompt_syntax);
    Some(if parts.len() == count {
        parts.into_iter().map(|(text, _)| text).collect()
    } else {
        vec![second; count]
    })
}

/// Names the words that no picture was seen of, and what they come nearest to.
fn warn_unknown(warnings: &mut Vec<String>, words: &[&UnknownWord]) {
    let named = |UnknownWord { word, nearest }: &UnknownWord| match nearest.as_slice() {
        [] => format!("\"{word}\""),
        nearest => format!("\"{word}\" (nearest known: {})", nearest.join(", ")),
    };
    if !words.is_empty() {
        let list: Vec<String> = words.iter().map(|word| named(word)).collect();
        warnings.push(format!("the model saw no pictures of {}", list.join(", ")));
    }
}
