//! Which task ids went by, within a fixed memory.

/// Sets of slots. An id can lie in one set only; in it the oldest gives way.
const SETS: usize = 4_096;
const WAYS: usize = 4;

/// An id, hashed, and the series it belongs to; 0 is a free slot.
type Slot = (u64, u64);

/// The newest 16,384 or so ids, in 256 KB that are taken with the first one.
#[derive(Clone, Debug, Default)]
pub struct Ids(Vec<[Slot; WAYS]>);

impl Ids {
    fn set(id: u64) -> usize {
        usize::try_from(id >> 52).unwrap_or(0) % SETS
    }

    /// The series of an id that went by.
    pub fn series(&self, id: u64) -> Option<u64> {
        let set = self.0.get(Self::set(id))?;
        set.iter().find(|slot| slot.0 == id).map(|slot| slot.1)
    }

    /// Notes an id.
    pub fn add(&mut self, id: u64, series: u64) {
        if self.0.is_empty() {
            self.0 = vec![[(0, 0); WAYS]; SETS];
        }
        if let Some(set) = self.0.get_mut(Self::set(id)) {
            set.rotate_right(1);
            if let Some(newest) = set.first_mut() {
                *newest = (id, series);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_ids_are_known_and_memory_is_bounded() {
        let mut ids = Ids::default();
        assert_eq!(ids.series(1), None);
        // Spread as hashes are.
        let spread = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for n in 1..=100_000 {
            ids.add(spread(n), n);
        }
        assert_eq!(ids.0.len() * WAYS, 16_384);
        let known = |from: u64, to: u64| {
            (from..=to)
                .filter(|n| ids.series(spread(*n)) == Some(*n))
                .count()
        };
        assert_eq!(known(98_001, 100_000), 2_000);
        assert_eq!(known(1, 50_000), 0);
    }
}
