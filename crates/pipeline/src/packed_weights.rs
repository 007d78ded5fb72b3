//! Where the weights of a pipeline's components come from: a cache of packed ones, or the model's own files.

use crate::{Error, LoadOptions, Loaded, OnLoaded};
use prima_checkpoint::{ModelSource, PackedComponent, ParamSource, Reader};
use prima_tensor::{DType, Device, Keep, Param, Residency};
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Parameters by their keys.
pub type NamedParams = Vec<(String, Param)>;

/// A component's parameters and their place in the cache.
struct Component {
    params: NamedParams,
    packed: PackedComponent,
    /// Of the values that were read: others are not kept under the names of these.
    versions: u64,
}

fn versions(params: &[(String, Param)]) -> u64 {
    params.iter().map(|(_, param)| param.version()).sum()
}

/// The components of a pipeline that a cache keeps.
#[derive(Default)]
pub(crate) struct PackedWeights {
    components: Mutex<Vec<Component>>,
}

impl PackedWeights {
    pub fn store(&self) -> Result<u64, Error> {
        let mut components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0;
        for component in components.iter_mut() {
            if component.versions == versions(&component.params) {
                bytes += component.packed.store(&component.params)?;
            }
        }
        Ok(bytes)
    }
}

/// What the CPU keeps a component in, but for its quantized weights: bf16 where there are some, as in its file.
pub(crate) fn rest_of(reader: &Reader, dtype: DType) -> DType {
    if reader.is_quantized() { DType::BF16 } else { dtype }
}

/// The type that a parameter is kept in where `dtype` was asked for, and whether it is multiplied with: vectors stay f32.
pub(crate) fn kept_as(key: &str, shape: &[usize], dtype: DType) -> (DType, bool) {
    match shape.len() {
        0 | 1 => (DType::F32, false),
        _ => (dtype, !key.contains("embeddings.")),
    }
}

/// A network of its own that belongs to no model's components, with the weights of `reader`, each of which it has to ask for
/// once. Nothing of it goes into the cache.
pub(crate) fn read_alone<T>(
    mut reader: Reader,
    dtype: DType,
    load: impl FnOnce(&mut dyn ParamSource) -> Result<T, Error>,
) -> Result<T, Error> {
    let is_gpu = Device::current().is_gpu();
    let dtype = if is_gpu { dtype } else { rest_of(&reader, dtype) };
    reader.defer();
    let made = load(&mut reader)?;
    reader.finish()?;
    let keep = move |key: &str, shape: &[usize]| kept(kept_as(key, shape, dtype), is_gpu, false);
    reader.fill(keep, &|_| {})?;
    Ok(made)
}

/// On the CPU a weight is kept as products read it and in no other form. A GPU has layouts of its own.
fn kept((dtype, is_multiplied): (DType, bool), is_gpu: bool, exact: bool) -> Keep {
    match (is_multiplied && !is_gpu, exact) {
        (true, false) => Keep::Summed(dtype),
        (true, true) => Keep::Packed(dtype),
        (false, _) => Keep::Stored(dtype),
    }
}

/// A model on its way into memory.
pub(crate) struct Loading<'a> {
    options: &'a LoadOptions,
    on_loaded: OnLoaded<'a>,
    residency: Arc<Residency>,
    components: RefCell<Vec<Component>>,
    /// Whether weights can be had back as they were read.
    exact: bool,
    /// All components that were read.
    read: RefCell<Vec<(String, NamedParams)>>,
}

impl<'a> Loading<'a> {
    pub fn new(options: &'a LoadOptions, on_loaded: OnLoaded<'a>) -> Self {
        Self {
            options,
            on_loaded,
            residency: Residency::new(options.resident.unwrap_or(usize::MAX)),
            components: RefCell::default(),
            exact: false,
            read: RefCell::default(),
        }
    }

    /// With weights that can be had back as they were read.
    pub fn exactly(self) -> Self {
        Self { exact: true, ..self }
    }

    /// The cache's components, and the parameters of all.
    pub fn finish(self) -> (PackedWeights, Vec<(String, NamedParams)>) {
        let packed = PackedWeights {
            components: Mutex::new(self.components.into_inner()),
        };
        (packed, self.read.into_inner())
    }

    /// The network that `load` makes, with the weights of `component`, each of which it has to ask for once, and its parameters.
    pub fn component<T>(
        &self,
        source: &ModelSource,
        component: &'static str,
        load: impl FnOnce(&mut dyn ParamSource) -> Result<T, Error>,
    ) -> Result<(T, NamedParams), Error> {
        let (made, params) = self.read_component(source, component, load)?;
        self.read.borrow_mut().push((component.to_owned(), params.clone()));
        Ok((made, params))
    }

    fn read_component<T>(
        &self,
        source: &ModelSource,
        component: &'static str,
        load: impl FnOnce(&mut dyn ParamSource) -> Result<T, Error>,
    ) -> Result<(T, NamedParams), Error> {
        let mut reader = source.component_reader(component)?;
        let is_gpu = Device::current().is_gpu();
        let dtype = self.options.dtype;
        let dtype = if is_gpu { dtype } else { rest_of(&reader, dtype) };
        let exact = self.exact;
        let keep = move |key: &str, shape: &[usize]| kept(kept_as(key, shape, dtype), is_gpu, exact);
        reader.defer();
        let made = load(&mut reader)?;
        reader.finish()?;
        let (read, total) = (AtomicUsize::new(0), reader.bytes());
        let on_read = |bytes: usize| {
            let bytes = read.fetch_add(bytes, Ordering::Relaxed) + bytes;
            (self.on_loaded)(Loaded {
                component,
                bytes,
                total,
            });
        };
        on_read(0);
        // A quantized component is read as fast as it would be mapped.
        let cache = self
            .options
            .cache
            .as_ref()
            .filter(|_| !is_gpu && !reader.is_quantized());
        let Some(mut packed) = cache.and_then(|cache| cache.component(component, &reader, dtype)) else {
            reader.fill(keep, &on_read)?;
            return Ok((made, reader.into_params()));
        };
        // A text is read once for many steps and pictures: where not all weights stay, its encoders' pass through.
        let may_stay = self.options.resident.is_none() || !component.starts_with("text_encoder");
        let kept = (self.residency.clone(), may_stay);
        if packed.attach(reader.params(), &kept) {
            on_read(total);
        } else if self.options.resident.is_some() {
            packed.build(&mut reader, keep, &kept, &on_read)?;
        } else {
            reader.fill(keep, &on_read)?;
        }
        let params = reader.into_params();
        self.components.borrow_mut().push(Component {
            versions: versions(&params),
            params: params.clone(),
            packed,
        });
        Ok((made, params))
    }
}
