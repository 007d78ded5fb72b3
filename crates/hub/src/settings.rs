//! Where the hub is, where its cache is, and who asks: the hub's own environment variables (huggingface_hub `constants.py`).

use crate::Error;
use prima_checkpoint::hub::{cache_dir, home_dir};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ENDPOINT: &str = "https://huggingface.co";

/// What does not depend on the model that is pulled.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `HF_ENDPOINT`, without a `/` at its end.
    pub endpoint: String,
    /// `HF_HUB_CACHE` and what stands in for it.
    pub cache: PathBuf,
    pub token: Option<String>,
    /// Where the token would be kept, for errors.
    pub token_file: PathBuf,
    /// `HF_HUB_OFFLINE`: nothing may be asked for.
    pub offline: bool,
    /// `HF_HUB_ETAG_TIMEOUT`: for answers about a file.
    pub answer_timeout: Duration,
    /// `HF_HUB_DOWNLOAD_TIMEOUT`: between two pieces of a file.
    pub read_timeout: Duration,
    /// A file of certificates instead of Mozilla's list: `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`, `SSL_CERT_FILE`.
    pub certificates: Option<PathBuf>,
    /// Tries of a file that brought nothing new, before it is given up.
    pub tries: u32,
    /// The wait after the first of them; each further one waits twice as long.
    pub first_wait: Duration,
}

impl Settings {
    pub fn of_environment() -> Result<Self, Error> {
        Self::from(|name| std::env::var_os(name))
    }

    fn from(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let os = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| os(name).and_then(|value| value.into_string().ok());
        let is_on = |name: &str| {
            text(name).is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str()))
        };
        let seconds = |name: &str, default| {
            let said = text(name)
                .and_then(|value| value.parse::<u64>().ok())
                .filter(|s| *s > 0);
            Duration::from_secs(said.unwrap_or(default))
        };
        let path = |name: &str| os(name).map(PathBuf::from);
        let home = home_dir(&variable).ok_or(Error::NoHome)?;
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let implicit = !is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN");
        let token = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN"));
        let token = token.or_else(|| std::fs::read_to_string(&token_file).ok());
        let token = token
            .map(|token| token.trim().to_owned())
            .filter(|token| implicit && !token.is_empty());
        let certificates = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"];
        Ok(Self {
            endpoint: text("HF_ENDPOINT")
                .unwrap_or_else(|| ENDPOINT.to_owned())
                .trim_end_matches('/')
                .to_owned(),
            cache: cache_dir(&variable).ok_or(Error::NoHome)?,
            token,
            token_file,
            offline: is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE"),
            answer_timeout: seconds("HF_HUB_ETAG_TIMEOUT", 10),
            read_timeout: seconds("HF_HUB_DOWNLOAD_TIMEOUT", 30),
            certificates: certificates.into_iter().find_map(path),
            tries: 5,
            first_wait: Duration::from_secs(1),
        })
    }

    /// As the environment says nothing, for a hub at `endpoint`.
    pub fn of(endpoint: &str, cache: &Path) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            cache: cache.to_owned(),
            token: None,
            token_file: cache.join("token"),
            offline: false,
            answer_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            certificates: None,
            tries: 5,
            first_wait: Duration::from_secs(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(set: &[(&str, &str)]) -> Settings {
        let find = |name: &str| {
            set.iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| OsString::from(value))
        };
        Settings::from(find).unwrap()
    }

    #[test]
    fn the_hubs_variables_say_where_and_who() {
        let home = tempfile::tempdir().unwrap();
        let at = home.path().to_str().unwrap();
        let plain = with(&[("HOME", at)]);
        assert_eq!(
            (plain.endpoint.as_str(), plain.offline),
            ("https://huggingface.co", false)
        );
        assert_eq!(plain.cache, home.path().join(".cache/huggingface/hub"));
        assert_eq!(plain.token, None);
        std::fs::create_dir_all(home.path().join(".cache/huggingface")).unwrap();
        std::fs::write(home.path().join(".cache/huggingface/token"), "hf_kept\n").unwrap();
        assert_eq!(with(&[("HOME", at)]).token.as_deref(), Some("hf_kept"));
        assert_eq!(
            with(&[("HOME", at), ("HF_TOKEN", "hf_said")]).token.as_deref(),
            Some("hf_said")
        );
        assert_eq!(
            with(&[("HOME", at), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token,
            None
        );
        assert_eq!(with(&[("HOME", at), ("HF_TOKEN_PATH", "/nowhere/token")]).token, None);
        let elsewhere = with(&[
            ("HF_HOME", at),
            ("HF_HUB_CACHE", "/c"),
            ("HF_ENDPOINT", "https://mirror.example/"),
            ("HF_HUB_OFFLINE", "1"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "7"),
            ("SSL_CERT_FILE", "/etc/ca.pem"),
        ]);
        assert_eq!(elsewhere.cache, PathBuf::from("/c"));
        assert_eq!(elsewhere.token_file, home.path().join("token"));
        assert_eq!(elsewhere.endpoint, "https://mirror.example");
        assert!(elsewhere.offline);
        assert_eq!(elsewhere.read_timeout, Duration::from_secs(7));
        assert_eq!(elsewhere.certificates, Some(PathBuf::from("/etc/ca.pem")));
        assert!(!with(&[("HOME", at), ("HF_HUB_OFFLINE", "0")]).offline);
    }
}
