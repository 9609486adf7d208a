//! The rights of the client that asked, checked key by key.
//!
//! From Redis 7.0 on. 6.2 gives modules no ACL API: there nothing is checked, and
//! the commands say so.

use redis_module::raw;

use super::{Ctx, Str, call};

/// What is to be done to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Look at it.
    Access,
    /// Change or delete it.
    Change,
}

const ACCESS: i32 = 1 << 4;
const UPDATE: i32 = 1 << 5;
const DELETE: i32 = 1 << 7;

/// The name of the user that called; `None` where the server does not tell.
#[must_use]
pub fn current_user(ctx: Ctx<'_>) -> Option<Vec<u8>> {
    let name = api!(RedisModule_GetCurrentUserName)?;
    // SAFETY: the context is that of a running command; the string is ours to free.
    let name = Str::own(unsafe { name(ctx.ptr()) })?;
    Some(name.bytes().to_vec())
}

/// A user whose rules name commands that begin so, and the rule. A server looks such a
/// rule up anew when commands go, or when it writes users down, and ends itself by an
/// assertion if the command is gone (Redis 6.2 to 8.10, Valkey 8.0 and 8.1, acl.c,
/// `ACLDescribeSelectorCommandRules`, `ACLRecomputeCommandBitsFromCommandRulesAllUsers`;
/// Valkey 9.1 refuses to unload by itself).
pub fn rule_that_names(ctx: Ctx<'_>, beginning: &[u8]) -> Option<(String, String)> {
    let users = call::read(ctx, c"ACL", &[b"LIST"]);
    let mut lines = users.array().iter().filter_map(call::Value::str);
    lines.find_map(|line| rule_in(line, beginning))
}

/// The same in one line of ACL LIST: `user`, its name, its rules.
fn rule_in(line: &[u8], beginning: &[u8]) -> Option<(String, String)> {
    let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    let mut words = line.split(|byte| *byte == b' ').skip(1);
    let user = words.next()?;
    words.find_map(|word| {
        // Selectors stand in parentheses.
        let rule = word.strip_prefix(b"(").unwrap_or(word);
        let rule = rule.strip_suffix(b")").unwrap_or(rule);
        let command = rule
            .strip_prefix(b"+")
            .or_else(|| rule.strip_prefix(b"-"))?;
        let head = command.get(..beginning.len())?;
        head.eq_ignore_ascii_case(beginning)
            .then(|| (text(user), text(rule)))
    })
}

/// A user whose rights are asked for. Given back on drop.
pub struct User(*mut raw::RedisModuleUser);

impl User {
    /// The user of that name; `None` if it is there no longer.
    pub fn named(name: &[u8]) -> Option<Self> {
        let look = api!(RedisModule_GetModuleUserFromUserName)?;
        let name = Str::new(name)?;
        // SAFETY: the name is a live string; the handle is freed by drop.
        let ptr = unsafe { look(name.ptr()) };
        (!ptr.is_null()).then(|| Self(ptr))
    }

    /// Whether it may do that to the key.
    #[must_use]
    pub fn may(&self, right: Right, name: &Str) -> bool {
        self.may_lent(right, name.ptr())
    }

    pub(super) fn may_lent(&self, right: Right, name: *mut raw::RedisModuleString) -> bool {
        let Some(check) = api!(RedisModule_ACLCheckKeyPermissions) else {
            return true;
        };
        let flags = match right {
            Right::Access => ACCESS,
            Right::Change => UPDATE | DELETE,
        };
        // SAFETY: user and name are live.
        unsafe { check(self.0, name, flags) == 0 }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if let Some(free) = api!(RedisModule_FreeModuleUser) {
            // SAFETY: made for us and freed once.
            unsafe { free(self.0) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_found_wherever_it_names_a_command() {
        for (line, found) in [
            ("user default on nopass ~* &* +@all", None),
            (
                "user app on #1f ~* +@all -hygiene.fixttl",
                Some(("app", "-hygiene.fixttl")),
            ),
            (
                "user app on -@all (~a* -@all +Hygiene.scan)",
                Some(("app", "+Hygiene.scan")),
            ),
            (
                "user hygiene.x on ~hygiene.* &hygiene.* +@hygiene +get",
                None,
            ),
            ("user a on -hygiene", None),
            ("user", None),
            ("", None),
        ] {
            let told = rule_in(line.as_bytes(), b"hygiene.");
            let told = told.as_ref().map(|(user, rule)| (&**user, &**rule));
            assert_eq!(told, found, "{line}");
        }
    }
}
