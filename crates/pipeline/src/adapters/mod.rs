//! LoRAs and their relatives on a pipeline: which there are, by name; which a request wants; and what they come to.
//!
//! Weights are never changed ([`prima_models::Adapters`]): a request's LoRAs hold while it is painted, on its thread. Files
//! that were used lately stay ready, and a weight that changes costs nothing.

mod choice;
mod library;
mod merge;
mod prepared;
mod tags;

pub use choice::{LoraChoice, LoraHash, UsedLora};
pub use library::{LoraEntry, LoraOptions};
pub use merge::merge;

use crate::known_models::Recognised;
use crate::{Error, Pipeline, PromptSyntax, Request};
use library::Library;
use prepared::Prepared;
use prima_models::Adapters;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of files that are kept ready beside the one in use.
const READY_BYTES: usize = 2 << 30;
/// A LoRA that distils a model does so at about its whole weight.
const LEAST_WEIGHT: f32 = 0.5;
/// Sets that are kept: what the users of now switch between.
const KEPT_SETS: usize = 4;

/// A pipeline's LoRAs.
#[derive(Default)]
pub(crate) struct Loras {
    library: Mutex<Library>,
    /// Those that every request gets.
    standing: Vec<LoraChoice>,
    ready: Mutex<Ready>,
}

/// What is ready, the one that was used last first.
#[derive(Default)]
struct Ready {
    files: VecDeque<(library::FileId, Arc<Prepared>)>,
    sets: VecDeque<(u64, Arc<Adapters>)>,
}

/// What holds while a request is painted.
pub(crate) struct Active {
    pub adapters: Arc<Adapters>,
    pub warnings: Vec<String>,
    used: Vec<(LoraChoice, bool, Arc<Prepared>)>,
}

impl Active {
    /// For the recipe.
    pub fn used(self) -> Vec<UsedLora> {
        let used = self.used.into_iter().map(|(choice, in_prompt, file)| UsedLora {
            choice,
            hash: LoraHash::of(file),
            in_prompt,
        });
        used.collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request's LoRAs before their files are looked at: each, and whether the prompt says it.
struct Wanted {
    choices: Vec<(LoraChoice, bool)>,
    warnings: Vec<String>,
}

impl Pipeline {
    /// The LoRAs that there are, by name.
    pub fn loras(&self) -> Vec<LoraEntry> {
        lock(&self.loras.library).entries()
    }

    /// Looks anew what is in the folder of LoRAs.
    pub fn refresh_loras(&self) {
        lock(&self.loras.library).refresh();
    }

    /// Those that every request gets.
    pub fn standing_loras(&self) -> &[LoraChoice] {
        &self.loras.standing
    }

    pub(crate) fn with_loras(mut self, options: &LoraOptions) -> Result<Self, Error> {
        let (library, standing) = Library::new(options)?;
        self.loras = Loras {
            library: Mutex::new(library),
            standing,
            ready: Mutex::default(),
        };
        // A file that does not fit is found out now.
        for choice in self.loras.standing.clone() {
            self.ready(&choice.name)?;
        }
        Ok(self)
    }

    /// The request without tags of LoRAs, and these.
    pub(crate) fn active<'a>(&self, request: &'a Request) -> Result<(Cow<'a, Request>, Active), Error> {
        let (request, wanted) = self.wanted(request)?;
        let Wanted { choices, mut warnings } = wanted;
        let mut used = Vec::new();
        for (choice, in_prompt) in choices {
            if let Some(file) = self.ready(&choice.name)? {
                warnings.extend(file.warning.clone());
                used.push((choice, in_prompt, file));
            }
        }
        let files: Vec<_> = used
            .iter()
            .map(|(choice, _, file)| (file.clone(), choice.unet, choice.text))
            .collect();
        let active = Active {
            adapters: self.set(&files),
            warnings,
            used,
        };
        Ok((request, active))
    }

    /// Makes the LoRAs of a request ready, as painting it does first. Returns what there is to say of them.
    pub fn make_ready(&self, request: &Request) -> Result<Vec<String>, Error> {
        Ok(self.active(request)?.1.warnings)
    }

    /// The request without tags, with all LoRAs that it wants among its own; their files are not looked at.
    pub(crate) fn with_tags_read<'a>(&self, request: &'a Request) -> Result<Cow<'a, Request>, Error> {
        Ok(self.wanted(request)?.0)
    }

    /// What the request's LoRAs make of the model, where one of them is of those that distil it to few steps. The request's
    /// tags have been read.
    pub(crate) fn known_lora(&self, request: &Request) -> Option<Recognised> {
        let library = lock(&self.loras.library);
        let strong = request.loras.iter().filter(|choice| choice.unet >= LEAST_WEIGHT);
        strong
            .filter_map(|choice| library.entry(&choice.name))
            .find_map(|entry| Recognised::lora(&entry.name, entry.title()))
    }

    fn wanted<'a>(&self, request: &'a Request) -> Result<(Cow<'a, Request>, Wanted), Error> {
        let library = lock(&self.loras.library);
        let mut choices: Vec<(LoraChoice, bool)> = Vec::new();
        for choice in &request.loras {
            let Some(name) = library.resolve(&choice.name) else {
                return Err(Error::request(
                    "loras",
                    format!("{:?}", short(&choice.name)),
                    library.known(),
                ));
            };
            let weights = [choice.unet, choice.text];
            if !weights.into_iter().all(LoraChoice::is_weight) {
                let fix = format!("use weights from -{0} to {0}", LoraChoice::MOST);
                return Err(Error::request("loras", format!("{:?}", short(&choice.name)), fix));
            }
            let choice = LoraChoice { name, ..choice.clone() };
            choices.push((choice, false));
        }
        let (mut request, mut warnings) = (Cow::Borrowed(request), Vec::new());
        if request.prompt_syntax != PromptSyntax::Plain
            && let Some((prompt, tags, said)) = tags::extract(&request.prompt)
        {
            warnings.extend(said);
            for tag in tags {
                match library.resolve(&tag.name) {
                    Some(name) => choices.push((
                        LoraChoice {
                            name,
                            unet: tag.unet,
                            text: tag.text,
                        },
                        true,
                    )),
                    None => warnings.push(format!(
                        "there is no LoRA {:?}, and its tag has no effect: {}",
                        short(&tag.name),
                        library.known()
                    )),
                }
            }
            request.to_mut().prompt = prompt;
        }
        let negative = request.negative_prompt.as_deref();
        let negative = negative.filter(|_| request.prompt_syntax != PromptSyntax::Plain);
        if let Some((prompt, ..)) = negative.and_then(tags::extract) {
            warnings.push("LoRA tags have no effect in the negative prompt: write them into the prompt".to_owned());
            request.to_mut().negative_prompt = Some(prompt);
        }
        // Those of the server hold where the request does not say otherwise.
        let standing = self.loras.standing.iter();
        let standing: Vec<_> = standing
            .filter(|choice| !choices.iter().any(|(said, _)| said.name == choice.name))
            .map(|choice| (choice.clone(), false))
            .collect();
        let choices: Vec<_> = standing.into_iter().chain(choices).collect();
        if !choices.is_empty() {
            request.to_mut().loras = choices.iter().map(|(choice, _)| choice.clone()).collect();
        }
        Ok((request, Wanted { choices, warnings }))
    }

    /// The file of that name, made ready for this model. `None` if there is none any more.
    fn ready(&self, name: &str) -> Result<Option<Arc<Prepared>>, Error> {
        let Some((path, id)) = lock(&self.loras.library).file(name) else {
            return Ok(None);
        };
        let mut ready = lock(&self.loras.ready);
        if let Some(place) = ready.files.iter().position(|(other, _)| *other == id)
            && let Some(found) = ready.files.remove(place)
        {
            ready.files.push_front(found.clone());
            return Ok(Some(found.1));
        }
        let file = Arc::new(Prepared::new(&path, &self.parts.components, &self.parts.name)?);
        ready.files.push_front((id, file.clone()));
        let mut bytes = 0;
        ready.files.retain(|(_, other)| {
            bytes += other.bytes;
            bytes <= READY_BYTES || Arc::ptr_eq(other, &file)
        });
        Ok(Some(file))
    }

    /// What these files do together, each with its weights on the UNet and on the text encoders.
    fn set(&self, files: &[(Arc<Prepared>, f32, f32)]) -> Arc<Adapters> {
        if files.is_empty() {
            return Arc::default();
        }
        let number = |text_only: bool| {
            let mut hasher = DefaultHasher::new();
            for (file, unet, text) in files {
                if !text_only {
                    (file.id, unet.to_bits(), text.to_bits()).hash(&mut hasher);
                } else if file.changes_text && *text != 0.0 {
                    (file.id, text.to_bits()).hash(&mut hasher);
                }
            }
            hasher.finish()
        };
        let changes_text = files.iter().any(|(file, _, text)| file.changes_text && *text != 0.0);
        let (identity, text_identity) = (number(false), if changes_text { number(true).max(1) } else { 0 });
        let found = {
            let ready = lock(&self.loras.ready);
            ready
                .sets
                .iter()
                .find(|(other, _)| *other == identity)
                .map(|(_, set)| set.clone())
        };
        if let Some(found) = found {
            return found;
        }
        let mut adapters = Adapters::new(identity, text_identity);
        for (file, unet, text) in files {
            file.add_to(&mut adapters, *unet, *text);
        }
        let adapters = Arc::new(adapters);
        let mut ready = lock(&self.loras.ready);
        ready.sets.push_front((identity, adapters.clone()));
        ready.sets.truncate(KEPT_SETS);
        adapters
    }
}

fn short(name: &str) -> String {
    name.chars().take(60).collect()
}
