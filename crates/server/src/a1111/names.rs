//! Names of samplers and schedules as the web UI's programs send them.

use prima_pipeline::{Error, SchedulerKind, TimestepSpacing};

/// A name that says something.
pub(super) fn named(name: Option<&String>) -> Option<&str> {
    name.map(String::as_str).filter(|name| !name.trim().is_empty())
}

/// A sampler's name may end in that of a schedule, which an own one outranks.
pub(super) fn sampler_and_schedule(
    sampler: Option<&str>,
    schedule: Option<&str>,
) -> Result<(Option<SchedulerKind>, Option<TimestepSpacing>), Error> {
    let (mut scheduler, mut spacing) = (None, None);
    if let Some(name) = sampler {
        let (kind, karras) = SchedulerKind::from_a1111(name).map_err(Error::Schedule)?;
        (scheduler, spacing) = (Some(kind), karras);
    }
    if let Some(name) = schedule {
        spacing = TimestepSpacing::from_a1111(name).map_err(Error::Schedule)?.or(spacing);
    }
    Ok((scheduler, spacing))
}
