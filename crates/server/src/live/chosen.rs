//! Which model a session paints with, and how its client hears of one that is read.

use super::messages::{Hello, Loading};
use super::outbox::Outbox;
use crate::app::App;
use crate::refusal::Refusal;
use prima_engine::{Found, Session};
use std::time::Duration;
use tokio::time::sleep;

/// The model that a session paints with, by the name it gave; the server's own without one.
#[derive(Default)]
pub(super) struct Chosen(Option<String>);

impl Chosen {
    /// The app for a message of this session; while the model is read, the client hears how far that is.
    pub async fn app(&self, app: &App, outbox: &Outbox) -> Result<App, Refusal> {
        const TELL_EVERY: Duration = Duration::from_millis(100);
        app.check_ready()?;
        let mut closing = app.closing.subscribe();
        while let Found::Loading(progress) = app.engine.model(self.0.as_deref()) {
            outbox.text(&Loading::new(self.0.as_deref(), progress));
            outbox.until_it_moves().await;
            tokio::select! {
                () = sleep(TELL_EVERY) => {}
                _ = closing.wait_for(|&closing| closing) => return Err(Refusal::unavailable("the server is shutting down")),
            }
        }
        app.about(self.0.as_deref()).await
    }

    /// Another model from now on, if it can be used.
    pub async fn change(&mut self, app: &App, session: &Session, outbox: &Outbox, name: String) -> Result<(), Refusal> {
        let next = Self(Some(name));
        let app = next.app(app, outbox).await?;
        session.cancel(u64::MAX - 1);
        let (names, _) = app.models()?;
        let name = next.0.clone().unwrap_or_default();
        outbox.text(&Hello::new(app.pipeline()?, (names, name), app.limits()));
        *self = next;
        Ok(())
    }
}
