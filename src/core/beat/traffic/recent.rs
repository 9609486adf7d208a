//! What went by, known by its hash, within a fixed memory.

/// Slots of one set. A hash can lie in one set only; in it the oldest gives way.
const WAYS: usize = 4;

/// The newest of about 4 times `SETS` (at most 4,096) hashes, each with what is
/// known of it; their memory is taken with the first one. Hash 0 is a free slot.
#[derive(Clone, Debug, Default)]
pub struct Recent<V, const SETS: usize>(Vec<[(u64, V); WAYS]>);

impl<V: Copy + Default, const SETS: usize> Recent<V, SETS> {
    fn set(hash: u64) -> usize {
        usize::try_from(hash >> 52).unwrap_or(0) % SETS
    }

    /// What is known of one that went by.
    pub fn get(&self, hash: u64) -> Option<V> {
        let set = self.0.get(Self::set(hash))?;
        set.iter().find(|slot| slot.0 == hash).map(|slot| slot.1)
    }

    /// Notes one, or what is new of it, as the newest.
    pub fn put(&mut self, hash: u64, value: V) {
        if self.0.is_empty() {
            self.0 = vec![[(0, V::default()); WAYS]; SETS];
        }
        let Some(set) = self.0.get_mut(Self::set(hash)) else {
            return;
        };
        let known = set.iter().position(|slot| slot.0 == hash);
        if let Some(moved) = set.get_mut(..=known.unwrap_or(WAYS - 1)) {
            moved.rotate_right(1);
        }
        if let Some(newest) = set.first_mut() {
            *newest = (hash, value);
        }
    }

    /// What is known of all of them.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let slots = self.0.iter_mut().flatten();
        slots.filter(|slot| slot.0 != 0).map(|slot| &mut slot.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spread as hashes are.
    fn spread(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn the_newest_are_known_and_memory_is_bounded() {
        let mut ids = Recent::<u64, 4_096>::default();
        assert_eq!(ids.get(1), None);
        for n in 1..=100_000 {
            ids.put(spread(n), n);
        }
        assert_eq!(ids.0.len() * WAYS, 16_384);
        let known = |from: u64, to: u64| {
            (from..=to)
                .filter(|n| ids.get(spread(*n)) == Some(*n))
                .count()
        };
        assert_eq!(known(98_001, 100_000), 2_000);
        assert_eq!(known(1, 50_000), 0);
    }

    #[test]
    fn what_is_noted_again_is_one_and_stays_while_others_go() {
        let mut known = Recent::<u64, 16>::default();
        for n in 1..=1_000 {
            known.put(spread(n), n);
            known.put(spread(1), n);
        }
        assert_eq!(known.get(spread(1)), Some(1_000));
        assert_eq!(known.values_mut().filter(|n| **n == 1_000).count(), 2);
        known.values_mut().for_each(|n| *n = 0);
        assert_eq!(known.get(spread(1)), Some(0));
    }
}
