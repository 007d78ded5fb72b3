//! Parameters and their names.

use prima_tensor::Param;

/// Parameters under diffusers' keys.
pub(crate) type NamedParams = Vec<(String, Param)>;

/// A network and its parameters.
pub(crate) struct Component<N> {
    pub(crate) network: N,
    pub(crate) params: NamedParams,
}

/// `prefix.key` for every key.
pub(crate) fn prefixed(prefix: &str, params: &NamedParams) -> NamedParams {
    params
        .iter()
        .map(|(key, param)| (format!("{prefix}.{key}"), param.clone()))
        .collect()
}
