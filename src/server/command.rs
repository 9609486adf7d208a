//! Commands: registration, answers, and clients that wait.

use std::ffi::{CStr, CString, c_int, c_void};
use std::mem::ManuallyDrop;

use redis_module::raw;

use super::guard::{Entry, guard};
use super::string::lent_bytes;
use super::{Ctx, differences, log};
use crate::core::figures::Counter;
use crate::core::reply::Reply;
use crate::core::syntax::{Arg, Kind};

/// Commands that were answered with an error.
pub static REFUSED: Counter = Counter::new();
/// Those of them that had too few or too many arguments are counted here instead.
pub static WRONG_ARITY: Counter = Counter::new();

/// What a command answers.
#[derive(Debug)]
pub enum Outcome {
    /// A reply.
    Reply(Reply),
    /// A refusal; `ERR` is put in front.
    Refused(String),
    /// A write that the server would refuse, as it would: an error's code and text.
    Denied(&'static str, &'static str),
    /// Too few or too many arguments, in the server's own words.
    WrongArity,
    /// The client waits; whoever holds its [`Waiting`] answers.
    Waits,
}

impl From<Result<Reply, String>> for Outcome {
    fn from(result: Result<Reply, String>) -> Self {
        match result {
            Ok(reply) => Self::Reply(reply),
            Err(why) => Self::Refused(why),
        }
    }
}

/// The layout of the server's own description of a command that ours follows.
static SIZES: raw::RedisModuleCommandInfoVersion = raw::RedisModuleCommandInfoVersion {
    version: 1,
    sizeof_historyentry: size_of::<raw::RedisModuleCommandHistoryEntry>(),
    sizeof_keyspec: size_of::<raw::RedisModuleCommandKeySpec>(),
    sizeof_arg: size_of::<raw::RedisModuleCommandArg>(),
};

/// One command of the module.
pub trait Command {
    /// Its name.
    const NAME: &'static CStr;
    /// The server's flags for it. None of 7.0 and later: 6.2 refuses the command then.
    const FLAGS: &'static CStr;
    /// The server's ACL categories for it, where a module may set them (7.2 and later).
    const CATEGORIES: &'static CStr;
    /// Tips for clients, in COMMAND INFO: those of a cluster learn there which nodes
    /// to ask. Without a policy it is any one node.
    const TIPS: &'static CStr = c"nondeterministic_output";
    /// What it is for, for COMMAND DOCS.
    const SUMMARY: &'static CStr;
    /// What it costs, for COMMAND DOCS.
    const COMPLEXITY: &'static CStr;
    /// The version of the module that brought it, for COMMAND DOCS.
    const SINCE: &'static CStr = c"0.1.0";
    /// What may stand behind its name, for COMMAND DOCS.
    const ARGS: &'static [Arg] = &[];
    /// The fewest and exactly as many words, the name among them: negative is at least.
    const ARITY: c_int;
    /// Runs it; `args` are those behind the name.
    fn run(ctx: Ctx<'_>, args: &[&[u8]]) -> Outcome;
}

/// Registers a command.
///
/// # Errors
/// The server refuses it.
pub fn register<C: Command>(ctx: Ctx<'_>) -> Result<(), String> {
    let refused = || {
        format!(
            "the server refuses the command {}",
            C::NAME.to_string_lossy()
        )
    };
    let create = api!(RedisModule_CreateCommand).ok_or_else(refused)?;
    // SAFETY: name and flags end in NUL, and the server copies both.
    let status = unsafe {
        create(
            ctx.ptr(),
            C::NAME.as_ptr(),
            Some(run::<C>),
            C::FLAGS.as_ptr(),
            0,
            0,
            0,
        )
    };
    if status != 0 {
        return Err(refused());
    }
    describe::<C>(ctx);
    Ok(())
}

/// Tells the server what COMMAND DOCS shows and which ACL categories the command
/// is in, where it asks (7.0 and 7.2).
fn describe<C: Command>(ctx: Ctx<'_>) {
    let Some(look) = api!(RedisModule_GetCommand) else {
        return;
    };
    // SAFETY: the name ends in NUL and is one that was just registered.
    let command = unsafe { look(ctx.ptr(), C::NAME.as_ptr()) };
    if command.is_null() {
        return;
    }
    document::<C>(command);
    categorise::<C>(command);
}

fn document<C: Command>(command: *mut raw::RedisModuleCommand) {
    let Some(set) = api!(RedisModule_SetCommandInfo) else {
        return;
    };
    let mut lists = Vec::new();
    let args = raw_args(C::ARGS, &mut lists);
    let info = raw::RedisModuleCommandInfo {
        version: &raw const SIZES,
        summary: C::SUMMARY.as_ptr(),
        complexity: C::COMPLEXITY.as_ptr(),
        since: C::SINCE.as_ptr(),
        history: std::ptr::null_mut(),
        tips: C::TIPS.as_ptr(),
        arity: C::ARITY,
        key_specs: std::ptr::null_mut(),
        args,
    };
    // SAFETY: the command is ours; the texts end in NUL, the lists of arguments in an
    // empty one, and all of it lives until the server has copied it.
    if unsafe { set(command, &raw const info) } != 0 {
        log::warning(&format!(
            "{} has no documentation on this server",
            C::NAME.to_string_lossy()
        ));
    }
}

/// The server's own description of arguments. They, and what they consist of, lie in
/// `lists` and end each with an empty one.
fn raw_args(
    args: &[Arg],
    lists: &mut Vec<Box<[raw::RedisModuleCommandArg]>>,
) -> *mut raw::RedisModuleCommandArg {
    if args.is_empty() {
        return std::ptr::null_mut();
    }
    let mut list: Vec<_> = args.iter().map(|arg| raw_arg(arg, lists)).collect();
    list.push(raw::RedisModuleCommandArg {
        name: std::ptr::null(),
        ..raw_arg(&Arg::text(c""), lists)
    });
    let mut list = list.into_boxed_slice();
    let first = list.as_mut_ptr();
    lists.push(list);
    first
}

fn raw_arg(
    arg: &Arg,
    lists: &mut Vec<Box<[raw::RedisModuleCommandArg]>>,
) -> raw::RedisModuleCommandArg {
    const OPTIONAL: c_int = 1;
    const MULTIPLE: c_int = 2;
    let (kind, parts): (_, &[Arg]) = match arg.kind {
        Kind::Text => (0, &[]),
        Kind::Integer => (1, &[]),
        Kind::Pattern => (4, &[]),
        Kind::Token => (6, &[]),
        Kind::OneOf(parts) => (7, parts),
        Kind::Block(parts) => (8, parts),
    };
    raw::RedisModuleCommandArg {
        name: arg.name.as_ptr(),
        type_: kind,
        // No argument is a key.
        key_spec_index: -1,
        token: arg.token.map_or(std::ptr::null(), CStr::as_ptr),
        summary: std::ptr::null(),
        since: std::ptr::null(),
        flags: OPTIONAL * c_int::from(arg.optional) + MULTIPLE * c_int::from(arg.multiple),
        deprecated_since: std::ptr::null(),
        subargs: raw_args(parts, lists),
        display_text: std::ptr::null(),
    }
}

/// The module's own ACL category.
const OWN_CATEGORY: &CStr = c"hygiene";

/// Makes the module's own ACL category where modules may have one (Redis 7.4, Valkey
/// 8.0). One that is there from an earlier load serves too. While the module is
/// being loaded only.
pub fn add_category(ctx: Ctx<'_>) {
    if let Some(add) = api!(RedisModule_AddACLCategory) {
        // SAFETY: the context is that of the load; the name ends in NUL.
        unsafe {
            add(ctx.ptr(), OWN_CATEGORY.as_ptr());
        }
    }
}

fn categorise<C: Command>(command: *mut raw::RedisModuleCommand) {
    let Some(set) = api!(RedisModule_SetCommandACLCategories) else {
        return;
    };
    if differences::here().own_category {
        let all = [C::CATEGORIES.to_bytes(), b" ", OWN_CATEGORY.to_bytes()].concat();
        let done = CString::new(all).is_ok_and(|all| {
            // SAFETY: the command is ours and the categories end in NUL; if one of
            // them is unknown nothing has changed.
            unsafe { set(command, all.as_ptr()) == 0 }
        });
        if done {
            return;
        }
    }
    // SAFETY: the command is ours and the categories end in NUL.
    if unsafe { set(command, C::CATEGORIES.as_ptr()) } != 0 {
        log::warning(&format!(
            "{} has no ACL category on this server",
            C::NAME.to_string_lossy()
        ));
    }
}

unsafe extern "C" fn run<C: Command>(
    ctx: *mut raw::RedisModuleCtx,
    argv: *mut *mut raw::RedisModuleString,
    argc: c_int,
) -> c_int {
    let ctx = Ctx::new(ctx);
    let outcome = guard(Entry::Command, || {
        let args = arguments(argv, argc);
        C::run(ctx, args.get(1..).unwrap_or_default())
    });
    // Who waits is answered later.
    if !matches!(outcome, Some(Outcome::Waits)) {
        answered(ctx, || {
            outcome.unwrap_or_else(|| Outcome::Refused(FAULT.to_owned()))
        });
    }
    0
}

/// What a client is told whose request met a fault of ours.
const FAULT: &str = "internal fault of the hygiene module, see the log";

/// Sends an answer; an error where that panics, so that nobody waits for ever.
fn answered(ctx: Ctx<'_>, outcome: impl FnOnce() -> Outcome) {
    if guard(Entry::Client, || send(ctx, outcome())).is_none() {
        guard(Entry::Command, || send_error(ctx, "ERR", FAULT));
    }
}

/// The arguments of a call, for the length of it.
pub(super) fn arguments<'a>(argv: *mut *mut raw::RedisModuleString, argc: c_int) -> Vec<&'a [u8]> {
    let count = usize::try_from(argc).unwrap_or(0);
    if argv.is_null() || count == 0 {
        return Vec::new();
    }
    // SAFETY: the server hands over `argc` strings at `argv` that live as long as
    // the call.
    let strings = unsafe { std::slice::from_raw_parts(argv, count) };
    strings.iter().map(|string| lent_bytes(*string)).collect()
}

fn send(ctx: Ctx<'_>, outcome: Outcome) {
    match outcome {
        Outcome::Reply(reply) => send_reply(ctx, &reply),
        Outcome::Refused(why) => {
            REFUSED.add(1);
            send_error(ctx, "ERR", &why);
        }
        Outcome::Denied(code, why) => {
            REFUSED.add(1);
            send_error(ctx, code, why);
        }
        Outcome::WrongArity => {
            WRONG_ARITY.add(1);
            if let Some(wrong) = api!(RedisModule_WrongArity) {
                // SAFETY: the context is that of the running command.
                unsafe {
                    wrong(ctx.ptr());
                }
            }
        }
        Outcome::Waits => {}
    }
}

fn send_error(ctx: Ctx<'_>, code: &str, why: &str) {
    let Some(reply) = api!(RedisModule_ReplyWithError) else {
        return;
    };
    let line: String = why
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let Ok(line) = CString::new(format!("{code} {line}")) else {
        return;
    };
    // SAFETY: the context is live, the text ends in NUL and holds no line break.
    unsafe {
        reply(ctx.ptr(), line.as_ptr());
    }
}

fn send_reply(ctx: Ctx<'_>, reply: &Reply) {
    match reply {
        Reply::Done => {
            if let Some(send) = api!(RedisModule_ReplyWithSimpleString) {
                // SAFETY: the context is that of the running command, the text ends in NUL.
                unsafe {
                    send(ctx.ptr(), c"OK".as_ptr());
                }
            }
        }
        Reply::Int(n) => {
            if let Some(send) = api!(RedisModule_ReplyWithLongLong) {
                // SAFETY: the context is that of the running command.
                unsafe {
                    send(ctx.ptr(), *n);
                }
            }
        }
        Reply::Bulk(bytes) => send_bulk(ctx, bytes),
        Reply::Text(text) => {
            if let Some(send) = api!(RedisModule_ReplyWithVerbatimString) {
                // SAFETY: pointer and length are those of a live string.
                unsafe {
                    send(ctx.ptr(), text.as_ptr().cast(), text.len());
                }
            }
        }
        Reply::Array(items) => {
            send_length(ctx, items.len(), false);
            for item in items {
                send_reply(ctx, item);
            }
        }
        Reply::Map(fields) => {
            send_length(ctx, fields.len(), true);
            for (name, value) in fields {
                send_bulk(ctx, name);
                send_reply(ctx, value);
            }
        }
    }
}

fn send_bulk(ctx: Ctx<'_>, bytes: &[u8]) {
    if let Some(send) = api!(RedisModule_ReplyWithStringBuffer) {
        // SAFETY: pointer and length are those of a live slice.
        unsafe {
            send(ctx.ptr(), bytes.as_ptr().cast(), bytes.len());
        }
    }
}

/// The head of a list or map. The server flattens a map for RESP2 clients; 6.2
/// has no maps for modules, so there every client gets the flat list.
fn send_length(ctx: Ctx<'_>, len: usize, map: bool) {
    let len = i64::try_from(len).unwrap_or(0);
    let (send, len) = match (map, api!(RedisModule_ReplyWithMap)) {
        (true, Some(send)) => (Some(send), len),
        (true, None) => (api!(RedisModule_ReplyWithArray), len * 2),
        (false, _) => (api!(RedisModule_ReplyWithArray), len),
    };
    if let Some(send) = send {
        // SAFETY: the context is that of the running command.
        unsafe {
            send(ctx.ptr(), len);
        }
    }
}

/// Who answers clients that wait.
pub trait Answers {
    /// What a client is told that CLIENT UNBLOCK lets go.
    const LET_GO: &'static str;
    /// The answer to the client that waits under this id, taken out.
    fn take(id: u64) -> Option<Result<Reply, String>>;
    /// The client left, or was told to stop waiting.
    fn left(client: &Waiting);
}

/// A client that waits for its answer. Dropped without one, by a panic, it is told
/// of the fault.
#[derive(Debug, PartialEq, Eq)]
pub struct Waiting(*mut raw::RedisModuleBlockedClient);

impl Waiting {
    /// Lets the calling client wait, without a limit. The caller has made sure
    /// that it may: in a transaction or script the server would answer an error by
    /// itself and hand back a dead handle.
    pub fn block<A: Answers>(ctx: Ctx<'_>) -> Option<Self> {
        let block = api!(RedisModule_BlockClient)?;
        // SAFETY: the context is that of the running command; the callbacks get an
        // id, never a pointer, so nothing can dangle.
        let client = unsafe {
            block(
                ctx.ptr(),
                Some(answer::<A>),
                Some(timed_out::<A>),
                Some(forget::<A>),
                0,
            )
        };
        if client.is_null() {
            return None;
        }
        if let Some(watch) = api!(RedisModule_SetDisconnectCallback) {
            // SAFETY: the handle was just made.
            unsafe { watch(client, Some(disconnected::<A>)) }
        }
        Some(Self(client))
    }

    /// Ends the wait; the server asks [`Answers::take`] for the answer under this
    /// id, or drops it if the client is gone.
    pub fn done(self, id: u64) {
        ManuallyDrop::new(self).unblock(id);
    }

    fn unblock(&self, id: u64) {
        if let Some(unblock) = api!(RedisModule_UnblockClient) {
            // SAFETY: each handle is unblocked once, by what takes it or by drop.
            unsafe {
                unblock(self.0, id_to_data(id));
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Ids begin at 1: no answer is kept under this one.
        self.unblock(0);
    }
}

fn id_to_data(id: u64) -> *mut c_void {
    std::ptr::without_provenance_mut(usize::try_from(id).unwrap_or(0))
}

fn data_to_id(data: *mut c_void) -> u64 {
    data.addr() as u64
}

unsafe extern "C" fn answer<A: Answers>(
    ctx: *mut raw::RedisModuleCtx,
    _argv: *mut *mut raw::RedisModuleString,
    _argc: c_int,
) -> c_int {
    answered(Ctx::new(ctx), || {
        let id = api!(RedisModule_GetBlockedClientPrivateData).map_or(0, |data| {
            // SAFETY: called from the reply callback of a client we unblocked.
            data_to_id(unsafe { data(ctx) })
        });
        let result = A::take(id).unwrap_or_else(|| Err(FAULT.to_owned()));
        result.into()
    });
    0
}

unsafe extern "C" fn timed_out<A: Answers>(
    ctx: *mut raw::RedisModuleCtx,
    _argv: *mut *mut raw::RedisModuleString,
    _argc: c_int,
) -> c_int {
    guard(Entry::Client, || {
        send_error(Ctx::new(ctx), "ERR", A::LET_GO);
        if let Some(handle) = api!(RedisModule_GetBlockedClientHandle) {
            // SAFETY: called from the timeout callback of a client that waits.
            let client = unsafe { handle(ctx) };
            A::left(&ManuallyDrop::new(Waiting(client)));
        }
    });
    0
}

unsafe extern "C" fn disconnected<A: Answers>(
    _ctx: *mut raw::RedisModuleCtx,
    client: *mut raw::RedisModuleBlockedClient,
) {
    guard(Entry::Client, || {
        A::left(&ManuallyDrop::new(Waiting(client)));
    });
}

unsafe extern "C" fn forget<A: Answers>(_ctx: *mut raw::RedisModuleCtx, data: *mut c_void) {
    guard(Entry::Client, || drop(A::take(data_to_id(data))));
}
