//! Messages that were read, grouped.

use std::collections::BTreeMap;

use crate::core::beat::{Place, Sighting};
use crate::core::celery::envelope::Envelope;

/// What makes messages alike: task, periodic name, origin, database, queue, and
/// whether they were taken.
type Alike = (String, Option<String>, String, u32, Vec<u8>, bool);

/// Sightings under way.
#[derive(Default)]
pub struct Sightings(BTreeMap<Alike, Sighting>);

impl Sightings {
    /// Adds a message, if it is of a task.
    pub fn add(&mut self, db: u32, queue: &[u8], place: Place, message: &Envelope<'_>) {
        let Some(task) = message.task.as_deref() else {
            return;
        };
        let text = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(str::to_owned);
        let periodic_name = text(&message.periodic_task_name);
        let origin = text(&message.origin).unwrap_or_default();
        let alike = (
            task.to_owned(),
            periodic_name.clone(),
            origin.clone(),
            db,
            queue.to_vec(),
            place == Place::Unacked,
        );
        let sighting = self.0.entry(alike).or_insert_with(|| Sighting {
            task: task.to_owned(),
            beat_marked: false,
            periodic_name,
            origin,
            db,
            queue: queue.to_vec(),
            place,
            published_at_ms: None,
            count: 0,
        });
        sighting.beat_marked |= message.beat || message.periodic_task_name.is_some();
        sighting.published_at_ms = sighting.published_at_ms.max(message.published_at_ms());
        sighting.count += 1;
    }

    pub fn into_list(self) -> Vec<Sighting> {
        self.0.into_values().collect()
    }
}
