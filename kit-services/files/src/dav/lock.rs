//! Locks (RFC 4918, sections 6 and 7), and the question every writing request asks of them.
//!
//! They are kept in memory: a service that holds one is busy, and one that starts anew holds none,
//! which section 6.6 allows. A lock is on a path without links, so that no link is a way around it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};
use kit::Fault;

use super::condition::{self, List, State};
use crate::Files;
use crate::conditions::Validator;
use crate::jail::Links;
use crate::path::FilePath;

/// Locks at a time.
const MOST: usize = 4096;
/// Longest time without a refresh; also what `Infinite` comes to. A client that went away must
/// not keep others out for long.
pub const LONGEST: u64 = 3600;
/// Time where the client names none.
const USUAL: u64 = 600;
/// Longest description of an owner.
pub const OWNER_BYTES: usize = 4 << 10;

/// A lock that was granted.
#[derive(Clone, Debug)]
pub struct Lock {
    pub token: String,
    /// What is locked, links resolved.
    pub path: FilePath,
    /// All that is below it as well.
    pub deep: bool,
    pub exclusive: bool,
    /// What the client says about its owner, as XML.
    pub owner: String,
    pub seconds: u64,
    pub until: Instant,
}

/// How far a request reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The content of what is there, or a new name.
    Content,
    /// The name in its directory.
    Member,
    /// The name, and all that is below it.
    Tree,
}

/// The table.
#[derive(Debug, Default)]
pub struct Locks(Mutex<Vec<Lock>>);

/// Why a lock was not granted.
#[derive(Debug)]
pub enum Refusal {
    /// Another lock covers it; on this path.
    Locked(FilePath),
    Full,
}

impl Lock {
    fn covers(&self, path: &FilePath) -> bool {
        self.path.bytes() == path.bytes() || self.deep && self.path.holds(path)
    }

    /// Whether a request of this reach touches what is locked.
    fn touches(&self, path: &FilePath, reach: Reach) -> bool {
        let parent = path.parent();
        self.covers(path)
            || reach != Reach::Content && !path.is_root() && self.path.bytes() == parent.bytes()
            || reach == Reach::Tree && path.holds(&self.path)
    }
}

impl Locks {
    fn active(&self, now: Instant) -> MutexGuard<'_, Vec<Lock>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|lock| lock.until > now);
        locks
    }

    pub fn is_empty(&self, now: Instant) -> bool {
        self.active(now).is_empty()
    }

    /// Take a lock, unless it clashes with one that is there.
    pub fn grant(&self, new: &Lock, now: Instant) -> Result<(), Refusal> {
        let mut locks = self.active(now);
        let clash = locks.iter().find(|old| {
            let meet = old.covers(&new.path) || new.covers(&old.path);
            meet && (new.exclusive || old.exclusive)
        });
        if let Some(old) = clash {
            return Err(Refusal::Locked(old.path.clone()));
        }
        if locks.len() == MOST {
            return Err(Refusal::Full);
        }
        locks.push(new.clone());
        Ok(())
    }

    /// Give the lock on this path that one of these tokens names a new time.
    pub fn refresh(
        &self,
        path: &FilePath,
        tokens: &[&str],
        seconds: u64,
        now: Instant,
    ) -> Option<Lock> {
        let mut locks = self.active(now);
        let mut all = locks.iter_mut();
        let lock = all.find(|lock| lock.covers(path) && tokens.contains(&&*lock.token))?;
        (lock.seconds, lock.until) = (seconds, now + Duration::from_secs(seconds));
        Some(lock.clone())
    }

    /// Give a lock up. Says whether there was one with this token on this path.
    pub fn release(&self, path: &FilePath, token: &str, now: Instant) -> bool {
        let mut locks = self.active(now);
        let before = locks.len();
        locks.retain(|lock| !(lock.token == token && lock.covers(path)));
        locks.len() < before
    }

    /// What was removed or moved away takes its locks with it.
    pub fn forget(&self, path: &FilePath, now: Instant) {
        self.active(now).retain(|lock| !path.holds(&lock.path));
    }

    /// The locks that cover a path.
    pub fn on(&self, path: &FilePath, now: Instant) -> Vec<Lock> {
        let locks = self.active(now);
        locks
            .iter()
            .filter(|lock| lock.covers(path))
            .cloned()
            .collect()
    }

    /// A path that is locked and whose lock none of these tokens name.
    fn bar(&self, uses: &[(FilePath, Reach)], tokens: &[&str], now: Instant) -> Option<FilePath> {
        let locks = self.active(now);
        let touched = |lock: &&Lock| uses.iter().any(|(path, reach)| lock.touches(path, *reach));
        let held = |lock: &Lock| tokens.contains(&&*lock.token);
        let touched: Vec<&Lock> = locks.iter().filter(touched).collect();
        let open = |lock: &Lock| {
            // Of several shared locks on one thing, one is enough.
            let mut same = touched.iter().filter(|other| other.path == lock.path);
            same.any(|other| held(other))
        };
        touched
            .iter()
            .find(|lock| !open(lock))
            .map(|lock| lock.path.clone())
    }
}

/// A path without links: of what its last name stands for, or of the name itself.
pub fn real(files: &Files, path: &FilePath, links: Links) -> FilePath {
    let bare =
        |path: &FilePath| FilePath::from_bytes(path.bytes()).unwrap_or_else(|_| FilePath::root());
    match files.root.place(path, links) {
        Ok(place) => files
            .root
            .path_of(&place.dir)
            .map(|dir| dir.join(&place.name)),
        Err(_) => files
            .root
            .find(path, Links::Follow)
            .ok()
            .and_then(|found| files.root.path_of(&found)),
    }
    .map_or_else(|| bare(path), |path| bare(&path))
}

/// Fail where the header `If` does not hold (412), or where something that the request touches is
/// locked and the header does not name the lock (423). `about` is the path of the request.
pub fn check(
    files: &Files,
    headers: &HeaderMap,
    about: &FilePath,
    uses: &[(&FilePath, Reach)],
) -> Result<(), Fault> {
    let now = Instant::now();
    let lists = lists(headers)?;
    if lists.is_empty() && files.locks.is_empty(now) {
        return Ok(());
    }
    if !lists.is_empty()
        && !condition::weigh(&lists, |tag, state| holds(files, about, tag, state, now))
    {
        return Err(Fault::new(
            StatusCode::PRECONDITION_FAILED,
            format!("what the header If says about {about} does not hold"),
        )
        .code("PRECONDITION_FAILED"));
    }
    let mut real_uses = Vec::with_capacity(uses.len());
    for (path, reach) in uses {
        let links = if *reach == Reach::Content {
            Links::Follow
        } else {
            Links::Keep
        };
        let path = real(files, path, links);
        let is_new = *reach == Reach::Content && files.root.find(&path, Links::Keep).is_err();
        real_uses.push((path, if is_new { Reach::Member } else { *reach }));
    }
    let tokens: Vec<&str> = condition::tokens(&lists).collect();
    match files.locks.bar(&real_uses, &tokens, now) {
        None => Ok(()),
        Some(path) => Err(locked(&path)),
    }
}

/// 423.
pub fn locked(path: &FilePath) -> Fault {
    Fault::new(
        StatusCode::LOCKED,
        format!(
            "{path} is locked; name the lock's token in the header If, or wait at most {LONGEST} s"
        ),
    )
    .code("LOCKED")
}

/// What the header `If` says; nothing where there is none.
pub fn lists(headers: &HeaderMap) -> Result<Vec<List>, Fault> {
    match headers.get("if") {
        None => Ok(Vec::new()),
        Some(value) => condition::parse(value.to_str().unwrap_or_default()),
    }
}

fn holds(files: &Files, about: &FilePath, tag: Option<&str>, state: &State, now: Instant) -> bool {
    let path = match tag {
        None => Ok(about.clone()),
        Some(url) => {
            let path = match url.split_once("://") {
                Some((_, rest)) => &rest[rest.find('/').unwrap_or(rest.len())..],
                None => url,
            };
            files.path_of_url(path.split(['?', '#']).next().unwrap_or_default())
        }
    };
    let Ok(path) = path else { return false };
    match state {
        State::Etag(etag) => {
            let found = files.root.find(&path, Links::Follow);
            found.is_ok_and(|found| Validator::of(&found.stat).etag == *etag)
        }
        State::Token(token) => {
            let at = |links| files.locks.on(&real(files, &path, links), now);
            let named = |locks: Vec<Lock>| locks.iter().any(|lock| lock.token == *token);
            named(at(Links::Follow)) || named(at(Links::Keep))
        }
    }
}

/// A token that nobody can guess (section 6.5), as a version 4 UUID.
pub fn token() -> String {
    let bits = rand::random::<u128>() & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    format!(
        "urn:uuid:{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// The seconds that the header `Timeout` (section 10.7) asks for, within bounds.
pub fn seconds(header: Option<&str>) -> u64 {
    let asked = header.into_iter().flat_map(|text| text.split(','));
    let mut asked = asked.filter_map(|one| match one.trim() {
        "Infinite" => Some(LONGEST),
        one => one.strip_prefix("Second-")?.parse().ok(),
    });
    asked.next().unwrap_or(USUAL).clamp(1, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> FilePath {
        FilePath::from_bytes(text.as_bytes()).unwrap()
    }

    fn lock(at: &str, deep: bool, exclusive: bool, until: Instant) -> Lock {
        Lock {
            token: format!("{at} {deep} {exclusive}"),
            path: path(at),
            deep,
            exclusive,
            owner: String::new(),
            seconds: 10,
            until,
        }
    }

    #[test]
    fn locks_clash_reach_and_end() {
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        let locks = Locks::default();
        let grant =
            |at: &str, deep, exclusive| locks.grant(&lock(at, deep, exclusive, later), now).is_ok();
        assert!(grant("a/b", true, true));
        assert!(!grant("a/b/c", false, false) && !grant("a", true, false));
        assert!(grant("a", false, true) && grant("s", false, false) && grant("s", true, false));
        assert!(!grant("s", false, true) && grant("a/bb", false, true));
        let bars = |at: &str, reach, tokens: &[&str]| {
            locks.bar(&[(path(at), reach)], tokens, now).is_some()
        };
        for (at, reach, want) in [
            ("a/b/c/d", Reach::Content, true),
            ("a/x", Reach::Content, false),
            ("a/x", Reach::Member, true),
            ("a/x/y", Reach::Member, false),
            ("", Reach::Tree, true),
            ("", Reach::Content, false),
            ("ab", Reach::Tree, false),
        ] {
            assert_eq!(bars(at, reach, &[]), want, "{at} {reach:?}");
        }
        assert!(!bars("s", Reach::Content, &["s true false"]));
        assert!(bars("a", Reach::Tree, &["a false true"]));
        assert!(
            !locks.release(&path("x"), "s true false", now)
                && locks.release(&path("s/t"), "s true false", now)
        );
        locks.forget(&path("a"), now);
        assert!(!bars("a/b/c", Reach::Tree, &[]) && bars("s", Reach::Content, &[]));
        assert!(
            locks
                .refresh(&path("s"), &["s false false"], 60, now)
                .is_some()
        );
        assert!(!locks.is_empty(later) && locks.is_empty(now + Duration::from_secs(60)));
    }

    #[test]
    fn the_table_is_bounded_and_so_are_times() {
        let now = Instant::now();
        let locks = Locks::default();
        for i in 0..MOST {
            locks
                .grant(
                    &lock(&i.to_string(), false, true, now + Duration::from_secs(1)),
                    now,
                )
                .unwrap();
        }
        let more = lock("more", false, true, now + Duration::from_secs(9));
        assert!(matches!(locks.grant(&more, now), Err(Refusal::Full)));
        assert!(locks.grant(&more, now + Duration::from_secs(2)).is_ok());
        for (text, want) in [
            (None, USUAL),
            (Some("Second-30"), 30),
            (Some("Infinite, Second-5"), LONGEST),
            (Some("Second-4100000000"), LONGEST),
            (Some("Second-0"), 1),
            (Some("soon"), USUAL),
        ] {
            assert_eq!(seconds(text), want, "{text:?}");
        }
        assert!(token() != token() && token().len() == "urn:uuid:".len() + 36);
    }
}
