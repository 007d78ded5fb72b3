//! What a worker tells of a job while it is at it.

use crate::bus::PREVIEWS;
use async_nats::{Client, Subscriber};
use futures_util::StreamExt as _;
use std::time::{Duration, Instant};

/// Who looks at a job says so more often than this.
const LOOKED_AT: Duration = Duration::from_secs(2);
const TELL_EVERY: Duration = Duration::from_millis(200);

/// A job at the worker's own server.
pub(crate) struct Watcher<'a> {
    pub client: &'a Client,
    pub http: &'a reqwest::Client,
    pub server_url: &'a str,
    pub server_token: &'a str,
    pub id: &'a str,
}

impl Watcher<'_> {
    /// Says how far the job is as long as somebody looks, who says so again and again (`watched`); never ends.
    pub async fn tell(&self, mut watched: Subscriber) {
        let url = format!("{}/sdapi/v1/progress?task_id={}", self.server_url, self.id);
        let mut said = String::new();
        while let Some(looks) = watched.next().await {
            let until = Instant::now() + LOOKED_AT;
            // Without previews, whoever looks does not cost a decoded picture a step.
            let skip = looks.payload != PREVIEWS.as_bytes();
            while Instant::now() < until {
                let request = self.http.get(format!("{url}&skip_current_image={skip}"));
                let request = request.bearer_auth(self.server_token).timeout(LOOKED_AT);
                if let Ok(answer) = request.send().await
                    && let Ok(progress) = answer.text().await
                    && progress != said
                {
                    // Previews that no message holds are not told.
                    let subject = format!("prima.progress.{}", self.id);
                    let _ = self.client.publish(subject, progress.clone().into()).await;
                    said = progress;
                }
                tokio::time::sleep(TELL_EVERY).await;
            }
        }
        std::future::pending::<()>().await;
    }
}
