//! Who is connected, by id, so that CLIENT LIST can be asked for some of them at a time:
//! to describe one takes the server about 3 µs.

use std::collections::BTreeSet;

use crate::server::context::server_numbers;
use crate::server::{Ctx, MainCell};

/// Ids kept at most. While more are connected it is not known who they are.
const MOST_IDS: usize = 20_000;

struct Connected {
    ids: BTreeSet<u64>,
    /// Nobody is connected but these.
    all: bool,
    /// Since the load nobody has looked whether these are all.
    begun: bool,
}

static CONNECTED: MainCell<Connected> = MainCell::new(Connected {
    ids: BTreeSet::new(),
    all: false,
    begun: true,
});

/// The server's periodic round: the first after a load tells whether somebody was
/// connected before it. While a server starts it may not be asked yet.
pub fn round(ctx: Ctx<'_>) {
    if !CONNECTED.get().begun {
        return;
    }
    let count = count(ctx);
    let mut connected = CONNECTED.get_mut();
    connected.begun = false;
    connected.all = count.is_some_and(|count| count == connected.ids.len() as u64);
}

/// How many are connected, replicas aside. Costs what `INFO clients` costs.
#[must_use]
pub fn count(ctx: Ctx<'_>) -> Option<u64> {
    server_numbers(ctx, c"clients", [c"connected_clients"]).map(|[count]| count)
}

/// One more is connected.
pub fn came(id: u64) {
    let mut connected = CONNECTED.get_mut();
    if connected.ids.len() < MOST_IDS {
        connected.ids.insert(id);
    } else {
        connected.all = false;
    }
}

/// One is gone.
pub fn left(id: u64) {
    CONNECTED.get_mut().ids.remove(&id);
}

/// The ids of all who are connected; `None` where they are not known.
#[must_use]
pub fn ids() -> Option<Vec<u64>> {
    let connected = CONNECTED.get();
    connected
        .all
        .then(|| connected.ids.iter().copied().collect())
}

/// These were all at this moment.
pub fn learn(ids: impl Iterator<Item = u64>) {
    let mut connected = CONNECTED.get_mut();
    connected.ids.extend(ids);
    connected.all = connected.ids.len() <= MOST_IDS;
}

/// Forgets them, before the library goes.
pub fn forget() {
    let mut connected = CONNECTED.get_mut();
    connected.ids = BTreeSet::new();
    connected.all = false;
    connected.begun = true;
}
