//! How much a look takes in at most, however much lies there.

/// The bounds of one look.
pub struct Bounds {
    /// Known names taken along, of each kind.
    pub names: usize,
    /// Pairs of database and key prefix looked at by default names.
    pub brokers: usize,
    /// Routing tables that are read; of others only the name is taken.
    pub tables: usize,
    /// Members of all tables, beyond which no further table is read.
    pub members: u64,
    /// Queues whose length is looked up.
    pub queues: usize,
    /// Queues looked at in full: lists of any one-digit priority, and messages.
    pub in_full: usize,
    /// Nodes of all lists that are measured before anything is copied.
    pub nodes: u64,
    /// Bytes of messages copied out of the data set.
    pub message_bytes: u64,
    /// Of each hash of unacknowledged messages the entries looked at: the oldest, and
    /// the newest, which beat may have sent just now.
    pub unacked: (u64, u64),
    /// Members of one schedule of RedBeat's that are all looked at, and of a longer one
    /// those of each part of it.
    pub entries: (u64, [&'static [u8]; 4]),
    /// Bytes of such entries copied out of the data set.
    pub entry_bytes: u64,
    /// Tasks, and queues, of which is told what was heard.
    pub heard: usize,
    /// Connections that the server is asked to describe, some at a time. Each takes
    /// about 3 µs.
    pub clients: u64,
}

/// Of a look in slices.
pub static IN_SLICES: Bounds = Bounds {
    names: 500,
    brokers: 500,
    tables: 200,
    members: 10_000,
    queues: 500,
    in_full: 100,
    nodes: 8_000,
    message_bytes: 1024 * 1024,
    unacked: (200, 100),
    entries: (300, [b"120", b"80", b"80", b"10"]),
    entry_bytes: 512 * 1024,
    heard: 1_000,
    clients: 10_000,
};

/// Of a look in one piece, where nobody can wait: a millisecond's work, a little more
/// where all of it is there.
pub static IN_ONE_PIECE: Bounds = Bounds {
    names: 100,
    brokers: 100,
    tables: 20,
    members: 500,
    queues: 60,
    in_full: 12,
    nodes: 500,
    message_bytes: 64 * 1024,
    unacked: (20, 10),
    entries: (40, [b"16", b"10", b"10", b"4"]),
    entry_bytes: 64 * 1024,
    heard: 60,
    clients: 100,
};
