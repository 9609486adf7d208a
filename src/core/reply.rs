//! The shape of an answer, before it is put on a wire.

use std::borrow::Cow;

/// One reply, built by the commands and sent by the server adapter.
///
/// Only what every client library shows alike is here: no doubles, no booleans,
/// and user bytes never travel in a simple string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `OK` as Redis's own commands say it, a simple string.
    Done,
    /// A 64-bit integer.
    Int(i64),
    /// A bulk string: any bytes.
    Bulk(Cow<'static, [u8]>),
    /// Text for a person; RESP3 clients get it as a verbatim string.
    Text(String),
    /// A list.
    Array(Vec<Reply>),
    /// Named fields in order: a map for RESP3 clients, a flat field/value array
    /// for RESP2 ones.
    Map(Vec<(Cow<'static, [u8]>, Reply)>),
}

impl Reply {
    /// A bulk string of text known at compile time.
    #[must_use]
    pub const fn word(text: &'static str) -> Self {
        Self::Bulk(Cow::Borrowed(text.as_bytes()))
    }

    /// A bulk string of owned bytes.
    #[must_use]
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Bulk(Cow::Owned(bytes.into()))
    }

    /// An integer, held at the ends of what RESP can say.
    #[must_use]
    pub fn count(n: u64) -> Self {
        Self::Int(i64::try_from(n).unwrap_or(i64::MAX))
    }

    /// The integer in that field of a map.
    #[must_use]
    pub fn int(&self, field: &str) -> Option<i64> {
        let Self::Map(fields) = self else {
            return None;
        };
        fields
            .iter()
            .find(|(name, _)| name.as_ref() == field.as_bytes())
            .and_then(|(_, value)| match value {
                Self::Int(n) => Some(*n),
                _ => None,
            })
    }

    /// A map whose field names are known at compile time.
    #[must_use]
    pub fn map<const N: usize>(fields: [(&'static str, Reply); N]) -> Self {
        Self::Map(
            fields
                .into_iter()
                .map(|(name, value)| (Cow::Borrowed(name.as_bytes()), value))
                .collect(),
        )
    }
}
