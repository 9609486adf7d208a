//! What works otherwise from one server to the next. All of it is here: found out
//! once, when the module is loaded, and told in one line of the log.

use std::sync::OnceLock;

use super::{Ctx, call, context};

/// The server that loaded us; it stays the same one if it loads us again.
static HERE: OnceLock<Differences> = OnceLock::new();

/// Before the load, and in tests without a server.
static NOTHING: Differences = Differences::of("", (0, 0, 0));

/// What a server lets a module do. A call of the module API that it does not have is
/// a null pointer once the module is loaded, so most of it is whether one is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differences {
    name: &'static str,
    version: (u32, u32, u32),
    /// Runs jobs at the end of the command, transaction or script that raised an
    /// event (Redis 7.2, every Valkey).
    pub jobs_after_writes: bool,
    /// A module may hear of COPY, RENAME, MOVE and RESTORE without harm.
    pub generic_events: bool,
    /// Modules have settings in CONFIG (Redis 7.0, every Valkey).
    pub settings: bool,
    /// Answers whether a user may do something to a key (Redis 7.0, every Valkey).
    pub key_rights: bool,
    /// A module may put its commands into ACL categories (Redis 7.2, every Valkey).
    pub categories: bool,
    /// ... and make one of its own (Redis 7.4, every Valkey).
    pub own_category: bool,
    /// Sends maps for modules (Redis 7.0, every Valkey).
    pub maps: bool,
    /// Reads one element of a list in place (Redis 7.0, every Valkey).
    pub list_elements: bool,
    /// Tells the turns of its event loop (Redis 7.0, every Valkey).
    pub turns: bool,
    /// Answers CONFIG, which `rename-command` may hide.
    pub config: bool,
}

impl Differences {
    const fn of(name: &'static str, version: (u32, u32, u32)) -> Self {
        Self {
            name,
            version,
            jobs_after_writes: false,
            generic_events: false,
            settings: false,
            key_rights: false,
            categories: false,
            own_category: false,
            maps: false,
            list_elements: false,
            turns: false,
            config: false,
        }
    }

    fn found(ctx: Ctx<'_>) -> Self {
        let of = |field| context::server_info(ctx, c"server", field);
        // Valkey says redis_version 7.2.4 for clients' sake and has its own beside it.
        let valkey = of(c"valkey_version");
        let name = if valkey.is_some() { "Valkey" } else { "Redis" };
        let version = valkey.or_else(|| of(c"redis_version")).unwrap_or_default();
        let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
        let mut part = || parts.next().unwrap_or(0);
        let version = (part(), part(), part());
        Self {
            jobs_after_writes: api!(RedisModule_AddPostNotificationJob).is_some(),
            generic_events: generic_events_are_safe(name, version),
            settings: api!(RedisModule_RegisterStringConfig).is_some()
                && api!(RedisModule_LoadConfigs).is_some(),
            key_rights: api!(RedisModule_ACLCheckKeyPermissions).is_some()
                && api!(RedisModule_GetModuleUserFromUserName).is_some()
                && api!(RedisModule_GetCurrentUserName).is_some(),
            categories: api!(RedisModule_SetCommandACLCategories).is_some(),
            own_category: api!(RedisModule_AddACLCategory).is_some(),
            maps: api!(RedisModule_ReplyWithMap).is_some(),
            list_elements: api!(RedisModule_ListGet).is_some(),
            turns: api!(RedisModule_EventLoopAddOneShot).is_some(),
            config: call::is_known(ctx, b"CONFIG"),
            ..Self::of(name, version)
        }
    }

    /// One line: what works how here.
    #[must_use]
    pub fn told(&self) -> String {
        let (major, minor, patch) = self.version;
        let stamps = if self.jobs_after_writes {
            "results are stamped in the same unit as the write"
        } else {
            "results are stamped within the same event-loop turn"
        };
        let generic = if self.generic_events {
            "RENAME, COPY, MOVE and RESTORE too"
        } else {
            "those that come by RENAME, COPY, MOVE or RESTORE by the next sweep"
        };
        let settings = if self.settings {
            "settings by CONFIG and HYGIENE.CONFIG"
        } else {
            "settings by HYGIENE.CONFIG only"
        };
        let rights = if self.key_rights {
            "rights are checked key by key"
        } else {
            "no rights are checked key by key: withhold hygiene.fixttl and hygiene.orphans by ACL"
        };
        let categories = match (self.categories, self.own_category) {
            (true, true) => "commands are in ACL categories, @hygiene among them",
            (true, false) => "commands are in the server's ACL categories",
            (false, _) => "commands are in no ACL category",
        };
        let maps = if self.maps {
            "RESP3 clients get maps"
        } else {
            "RESP3 clients get flat lists"
        };
        let turns = if self.turns {
            "sweeps see whether clients are at work"
        } else {
            "sweeps take every client for one at work"
        };
        let config = if self.config {
            ""
        } else {
            "; rename-command hides CONFIG: stop-writes-on-bgsave-error is taken to be on, and min-replicas-to-write, if it is set, to be 1"
        };
        format!(
            "loaded on {} {major}.{minor}.{patch}: {stamps}, {generic}; {settings}; {rights}; \
             {categories}; {maps}; {turns}{config}",
            self.name
        )
    }
}

/// From Valkey 8.1.0 to 9.1.0 a subscriber makes `COPY ... DB n` and `MOVE` leave the
/// client in the wrong database (valkey PR #1819, mended by #4024).
fn generic_events_are_safe(name: &str, version: (u32, u32, u32)) -> bool {
    name != "Valkey" || !((8, 1, 0)..=(9, 1, 0)).contains(&version)
}

/// Looks what the server that is loading us can do, before anybody asks for it.
pub fn find(ctx: Ctx<'_>) -> &'static Differences {
    HERE.get_or_init(|| Differences::found(ctx))
}

/// What this server can do.
#[must_use]
pub fn here() -> &'static Differences {
    HERE.get().unwrap_or(&NOTHING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generic_events_are_left_alone_on_the_valkeys_they_harm() {
        for (name, version, safe) in [
            ("Redis", (6, 2, 14), true),
            ("Redis", (8, 2, 3), true),
            ("Valkey", (8, 0, 1), true),
            ("Valkey", (8, 1, 0), false),
            ("Valkey", (8, 1, 1), false),
            ("Valkey", (9, 0, 3), false),
            ("Valkey", (9, 1, 0), false),
            ("Valkey", (9, 1, 1), true),
            ("Valkey", (9, 2, 0), true),
        ] {
            assert_eq!(
                generic_events_are_safe(name, version),
                safe,
                "{name} {version:?}"
            );
        }
    }

    #[test]
    fn every_difference_is_told_in_one_line() {
        let none = Differences::of("Redis", (6, 2, 14));
        let told = none.told();
        assert!(told.starts_with("loaded on Redis 6.2.14: "), "{told}");
        assert!(!told.contains('\n'), "{told}");
        // Whatever one of them changes, the line says so.
        for changed in [
            Differences {
                jobs_after_writes: true,
                ..none.clone()
            },
            Differences {
                generic_events: true,
                ..none.clone()
            },
            Differences {
                settings: true,
                ..none.clone()
            },
            Differences {
                key_rights: true,
                ..none.clone()
            },
            Differences {
                categories: true,
                ..none.clone()
            },
            Differences {
                maps: true,
                ..none.clone()
            },
            Differences {
                turns: true,
                ..none.clone()
            },
            Differences {
                config: true,
                ..none.clone()
            },
        ] {
            assert_ne!(changed.told(), told, "{changed:?}");
        }
    }
}
