//! redis-hygiene: a Redis module that keeps a Redis used by Celery clean from
//! inside the server, whatever its clients are configured to do.
//!
//! - [`core`]: the rules, without a server.
//! - [`server`]: the server's module API, wrapped; the only `unsafe`.
//! - [`hook`]: a TTL at the moment of the write.
//! - [`sweep`]: passes over the keyspace, in slices.
//! - [`observe`]: what the traffic of queues shows, for BEATSTATUS.
//! - [`evidence`]: what lies in Redis about periodic work, for BEATSTATUS.
//! - [`clients`]: who is connected, for both and for SCAN.
//! - [`slice`]: how long all of them may work at a time.
//! - [`trigger`]: one task, published and followed to its result.
//! - [`commands`]: what people type.

pub mod clients;
pub mod commands;
pub mod core;
pub mod evidence;
pub mod hook;
pub mod keyspace;
pub mod known;
pub mod observe;
pub mod server;
pub mod settings;
pub mod slice;
pub mod stats;
pub mod sweep;
pub mod trigger;
pub mod verdict;

use crate::core::settings::Settings;
use server::Ctx;
use server::events::{self, OnTurn, Turn, kind};
use server::guard::{Entry, guard};
use server::timer;
use sweep::{background, engine, last};

/// The server's own allocator, so that what the module uses shows in `used_memory`.
#[cfg(not(any(test, fuzzing)))]
#[global_allocator]
static ALLOCATOR: redis_module::alloc::RedisAlloc = redis_module::alloc::RedisAlloc;

/// Loads the module: settings, commands, events.
///
/// # Errors
/// What is wrong with an argument, or what the server refuses.
pub fn load(ctx: Ctx<'_>, args: &[&[u8]]) -> Result<(), String> {
    use server::command::register;

    let here = server::differences::find(ctx);
    // Stamped here and not there, a result would live on at replicas and come back
    // with the append-only file.
    if !server::call::is_known(ctx, b"PEXPIREAT") {
        return Err("rename-command hides PEXPIREAT, by which replicas and the append-only file are told of a TTL".to_owned());
    }
    settings::replace(Settings::of_arguments(args)?);
    server::config::register::<settings::Live>(ctx)?;

    server::command::add_category(ctx);
    register::<commands::scan::Scan>(ctx)?;
    register::<commands::fixttl::FixTtl>(ctx)?;
    register::<commands::beatstatus::BeatStatus>(ctx)?;
    register::<commands::doctor::Doctor>(ctx)?;
    register::<commands::keys::Keys>(ctx)?;
    register::<commands::orphans::Orphans>(ctx)?;
    register::<commands::stats::Stats>(ctx)?;
    register::<commands::jobs::Jobs>(ctx)?;
    register::<commands::jobs::Cancel>(ctx)?;
    register::<commands::trigger::Trigger>(ctx)?;
    register::<commands::config::Config>(ctx)?;
    register::<commands::help::Help>(ctx)?;
    #[cfg(debug_assertions)]
    register::<commands::fault::Fault>(ctx)?;
    server::info::register::<stats::Info>(ctx);
    stats::begin();

    let kinds = if here.generic_events {
        kind::STRING | kind::LIST | kind::SET | kind::GENERIC
    } else {
        kind::STRING | kind::LIST | kind::SET
    };
    if !events::watch_writes::<hook::Hook>(ctx, kinds) {
        return Err("the server refuses keyspace events".to_owned());
    }
    events::watch_server::<Life>(ctx);
    server::log::notice(&here.told());
    background::owe("sweep-on-start");
    Ok(())
}

/// Lets go of everything, so that nothing of ours is called once the library is gone.
///
/// # Errors
/// A scan or a sweep is running, a client waits for HYGIENE.TRIGGER, BEATSTATUS or
/// DOCTOR, or the rules of a user name a command.
pub fn unload(ctx: Ctx<'_>) -> Result<(), String> {
    if let Some((user, rule)) = server::acl::rule_that_names(ctx, b"hygiene.") {
        return Err(format!(
            "ACL user {user} has the rule {rule}, and the server would end itself over a rule \
             whose command is gone: ACL SETUSER {user} +@all or -@all begins the rules anew"
        ));
    }
    trigger::shut(ctx)?;
    evidence::asked::shut(ctx)?;
    engine::shut(ctx)?;
    hook::stop(ctx);
    observe::stop(ctx);
    background::forget();
    clients::forget();
    known::forget();
    last::forget();
    verdict::forget();
    server::beside::shut();
    forget_settings();
    timer::stop_all(ctx);
    Ok(())
}

/// Lets go of what is there from the first step of a load on.
pub fn forget_settings() {
    server::config::forget();
    settings::forget();
}

/// The server's life, as far as it concerns the module.
struct Life;

impl OnTurn for Life {
    fn turn(ctx: Ctx<'_>, turn: Turn) {
        match turn {
            Turn::Cron => {
                keyspace::look_for_listeners(ctx);
                timer::round(ctx);
                clients::round(ctx);
                // A fault of one of them is none of the others'.
                guard(Entry::After, || hook::settle(ctx));
                guard(Entry::After, || observe::state::round(ctx));
                background::round(ctx);
                verdict::round(ctx);
            }
            Turn::LoadEnded => {
                engine::restart_all();
                observe::anew();
                background::owe("sweep-on-start");
            }
            Turn::Primary => {
                observe::anew();
                background::owe("failover");
            }
            Turn::Replica => observe::anew(),
            Turn::Flushed(db) => {
                known::flushed(db);
                trigger::flushed(db);
                if matches!(db, None | Some(0)) {
                    observe::anew();
                }
            }
            Turn::Swapped(a, b) => {
                known::swapped(a, b);
                trigger::swapped(a, b);
                observe::swapped();
                engine::restart_all();
            }
            Turn::Came(id) => clients::came(id),
            Turn::Left(id) => clients::left(id),
            Turn::LoadStarted => {}
        }
    }
}
