//! Looking at keys in any database, as far as the caller may.

use std::ffi::CStr;

use crate::core::beat::Hold;
use crate::core::keys::KeyType;
use crate::server::acl::{Right, User};
use crate::server::call::{self, Value};
use crate::server::key::{Key, untouched};
use crate::server::scan::MembersCursor;
use crate::server::{Ctx, Str};

/// A key that is there.
pub struct Shown {
    name: Str,
    /// Its database.
    pub db: i32,
    /// Its type.
    pub kind: KeyType,
    /// Bytes of a string, elements of anything else.
    pub len: u64,
    /// Its remaining life.
    pub hold: Hold,
}

impl Shown {
    /// Its name.
    pub fn name(&self) -> &[u8] {
        self.name.bytes()
    }
}

/// Whose rights count.
enum Rights {
    /// Nobody's: the server has no way to ask.
    Unchecked,
    /// This user's.
    Of(User),
    /// Those of a user who is there no longer.
    None,
}

/// The one way of this folder, and of TRIGGER, to the data set.
pub struct Look<'a> {
    ctx: Ctx<'a>,
    rights: Rights,
    db: i32,
    hidden: u64,
}

impl<'a> Look<'a> {
    /// Looks as that user; with `None` at everything.
    pub fn new(ctx: Ctx<'a>, user: Option<&[u8]>) -> Self {
        Self {
            ctx,
            rights: match user.map(User::named) {
                None => Rights::Unchecked,
                Some(Some(user)) => Rights::Of(user),
                Some(None) => Rights::None,
            },
            db: ctx.db(),
            hidden: 0,
        }
    }

    /// The context of the callback.
    pub const fn ctx(&self) -> Ctx<'a> {
        self.ctx
    }

    /// Keys that are there and that the caller may not see.
    pub const fn hidden(&self) -> u64 {
        self.hidden
    }

    fn go(&mut self, db: i32) -> bool {
        if self.db != db && self.ctx.select(db) {
            self.db = db;
        }
        self.db == db
    }

    /// The key, if it is there and the caller may look at it.
    pub fn key(&mut self, db: i32, name: &[u8]) -> Option<Shown> {
        if !self.go(db) {
            return None;
        }
        let name = Str::new(name)?;
        let key = Key::read(self.ctx, &name)?;
        let kind = key.kind()?;
        let (len, hold) = (key.len() as u64, key.ttl().map_or(Hold::NoTtl, Hold::Ttl));
        drop(key);
        if !self.allows(&name) {
            self.hidden += 1;
            return None;
        }
        Some(Shown {
            name,
            db,
            kind,
            len,
            hold,
        })
    }

    /// Whether the caller may look at a key of this name, if there is one.
    pub fn may(&self, name: &[u8]) -> bool {
        Str::new(name).is_some_and(|name| self.allows(&name))
    }

    fn allows(&self, name: &Str) -> bool {
        match &self.rights {
            Rights::Unchecked => true,
            Rights::Of(user) => user.may(Right::Access, name),
            Rights::None => false,
        }
    }

    /// Asks the server about a key that was shown, without that being a use of it:
    /// its name comes first.
    pub fn ask(&mut self, key: &Shown, command: &CStr, args: &[&[u8]]) -> Value {
        if !self.go(key.db) {
            return Value::Nil;
        }
        let mut words = vec![key.name()];
        words.extend(args);
        untouched(self.ctx, &key.name, || {
            call::read(self.ctx, command, &words)
        })
    }

    /// Some more members of a set, those of `buckets` of it, without that being a use of
    /// it; `false` at its end.
    pub fn members(
        &mut self,
        set: &Shown,
        cursor: &mut MembersCursor,
        buckets: usize,
        members: &mut Vec<Vec<u8>>,
    ) -> bool {
        if !self.go(set.db) {
            return false;
        }
        let key = Key::read(self.ctx, &set.name);
        let Some(key) = key.filter(|key| key.kind() == Some(KeyType::Set)) else {
            return false;
        };
        (0..buckets).all(|_| cursor.step(&key, |member| members.push(member.to_vec())))
    }

    /// Lets `read` look at the bytes of a string, without a copy and without
    /// touching its idle time.
    pub fn string<R>(&mut self, key: &Shown, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        if !self.go(key.db) {
            return None;
        }
        Key::read(self.ctx, &key.name)?.string().map(read)
    }

    /// What the key takes in memory, from the first `samples` elements or nodes.
    pub fn bytes(&mut self, key: &Shown, samples: u32) -> u64 {
        if !self.go(key.db) {
            return u64::MAX;
        }
        call::memory_usage(self.ctx, &key.name, samples)
    }

    /// Whether so many members of a zset are [too long to be
    /// copied](call::too_long_to_copy).
    pub fn too_long_to_copy(&mut self, zset: &Shown, members: u64) -> bool {
        self.go(zset.db) && call::too_long_to_copy(self.ctx, &zset.name, members)
    }

    /// A field of a hash; `None` if it is absent or has more than `most` bytes.
    pub fn field(&mut self, key: &Shown, field: &[u8], most: u64) -> Field {
        let length = self.ask(key, c"HSTRLEN", &[field]);
        match length.int().and_then(|n| u64::try_from(n).ok()) {
            None | Some(0) => Field::Absent,
            Some(bytes) if bytes > most => Field::TooLong,
            Some(_) => match self.ask(key, c"HGET", &[field]) {
                Value::Str(value) => Field::Value(value),
                _ => Field::Absent,
            },
        }
    }
}

/// What a field of a hash is.
pub enum Field {
    /// Not there, or empty.
    Absent,
    /// Longer than was asked for; not copied.
    TooLong,
    /// Its bytes.
    Value(Vec<u8>),
}

/// Pairs of member and score, of a reply WITHSCORES.
pub fn scored(reply: &Value) -> impl Iterator<Item = (&[u8], &[u8])> {
    reply.array().chunks(2).filter_map(|pair| match pair {
        [member, score] => Some((member.str()?, score.str()?)),
        _ => None,
    })
}
