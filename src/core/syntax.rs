//! What may stand behind a command's name, as COMMAND DOCS tells it: clients
//! complete and hint by it.

use std::ffi::CStr;

/// One argument.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    /// What it is called.
    pub name: &'static CStr,
    /// What it is.
    pub kind: Kind,
    /// The word in front of it.
    pub token: Option<&'static CStr>,
    /// It may be left out.
    pub optional: bool,
    /// More than one may follow, behind one token.
    pub multiple: bool,
}

/// What an argument is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any bytes; durations too.
    Text,
    /// A whole number.
    Integer,
    /// A glob.
    Pattern,
    /// Nothing but its token.
    Token,
    /// One of these.
    OneOf(&'static [Arg]),
    /// All of these, in this order.
    Block(&'static [Arg]),
}

impl Arg {
    const fn new(name: &'static CStr, kind: Kind) -> Self {
        Self {
            name,
            kind,
            token: None,
            optional: false,
            multiple: false,
        }
    }

    /// Any bytes.
    #[must_use]
    pub const fn text(name: &'static CStr) -> Self {
        Self::new(name, Kind::Text)
    }

    /// A whole number.
    #[must_use]
    pub const fn integer(name: &'static CStr) -> Self {
        Self::new(name, Kind::Integer)
    }

    /// A glob.
    #[must_use]
    pub const fn pattern(name: &'static CStr) -> Self {
        Self::new(name, Kind::Pattern)
    }

    /// A word by itself.
    #[must_use]
    pub const fn token(name: &'static CStr, token: &'static CStr) -> Self {
        Self::new(name, Kind::Token).after(token)
    }

    /// One of these.
    #[must_use]
    pub const fn one_of(name: &'static CStr, args: &'static [Arg]) -> Self {
        Self::new(name, Kind::OneOf(args))
    }

    /// All of these, in this order.
    #[must_use]
    pub const fn block(name: &'static CStr, args: &'static [Arg]) -> Self {
        Self::new(name, Kind::Block(args))
    }

    /// With that word in front.
    #[must_use]
    pub const fn after(mut self, token: &'static CStr) -> Self {
        self.token = Some(token);
        self
    }

    /// It may be left out.
    #[must_use]
    pub const fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// More than one may follow.
    #[must_use]
    pub const fn multiple(mut self) -> Self {
        self.multiple = true;
        self
    }
}

/// `[DB n | ALLDBS]`
pub const DATABASES: Arg = Arg::one_of(
    c"databases",
    &[
        Arg::integer(c"db").after(c"DB"),
        Arg::token(c"alldbs", c"ALLDBS"),
    ],
)
.optional();

/// `[DB n]`
pub const DATABASE: Arg = Arg::integer(c"db").after(c"DB").optional();

/// `[MATCH glob]`
pub const MATCH: Arg = Arg::pattern(c"glob").after(c"MATCH").optional();

/// `[OLDERTHAN d]`
pub const OLDERTHAN: Arg = Arg::text(c"age").after(c"OLDERTHAN").optional();

/// `[LIMIT n]`
pub const LIMIT: Arg = Arg::integer(c"limit").after(c"LIMIT").optional();

/// `[DRYRUN]`
pub const DRYRUN: Arg = Arg::token(c"dryrun", c"DRYRUN").optional();

/// `[ASYNC]`
pub const ASYNC: Arg = Arg::token(c"async", c"ASYNC").optional();
