//! The newest picture of the live sessions, for whoever watches (stream.rs).

use prima_pipeline::Picture;
use std::sync::Arc;
use tokio::sync::watch;

/// Where live sessions put their newest picture, for whoever watches.
#[derive(Debug)]
pub(crate) struct Screen {
    newest: watch::Sender<Option<Arc<Picture>>>,
    is_on: bool,
}

impl Screen {
    /// One that is off keeps nothing.
    pub fn new(is_on: bool) -> Self {
        Self {
            newest: watch::channel(None).0,
            is_on,
        }
    }

    /// The newest picture and each that follows, one that was painted before too; `None` where it is off.
    pub fn watched(&self) -> Option<watch::Receiver<Option<Arc<Picture>>>> {
        let mut newest = self.newest.subscribe();
        newest.mark_changed();
        self.is_on.then_some(newest)
    }

    pub fn show(&self, picture: &Picture) {
        if self.is_on {
            self.newest.send_replace(Some(Arc::new(picture.clone())));
        }
    }
}
