//! The newest picture of the live sessions, for whoever watches (stream.rs).

use prima_pipeline::Picture;
use std::sync::Arc;
use tokio::sync::watch;

/// Where live sessions put their newest picture; one that is off keeps nothing.
#[derive(Debug)]
pub(crate) struct Screen(Option<watch::Sender<Option<Arc<Picture>>>>);

impl Screen {
    pub fn new(is_on: bool) -> Self {
        Self(is_on.then(|| watch::channel(None).0))
    }

    /// The newest picture and each that follows, one that was painted before too; `None` where it is off.
    pub fn watched(&self) -> Option<watch::Receiver<Option<Arc<Picture>>>> {
        let mut newest = self.0.as_ref()?.subscribe();
        newest.mark_changed();
        Some(newest)
    }

    pub fn show(&self, picture: &Picture) {
        if let Some(newest) = &self.0 {
            newest.send_replace(Some(Arc::new(picture.clone())));
        }
    }
}
