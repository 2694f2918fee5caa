//! PROPFIND, PROPPATCH, LOCK and UNLOCK.

use std::fmt::Write;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use kit::Fault;
use quick_xml::escape::escape;
use rustix::fs::{FileType, fstatvfs};
use rustix::io::Errno;

use super::lock::{self, LONGEST, Lock, OWNER_BYTES, Reach, Refusal, real};
use super::property::{self, Change, Property};
use super::xml::{self, BODY_BYTES, DAV, Element, Name};
use crate::Files;
use crate::conditions::Validator;
use crate::entry::{lossy, modified, size};
use crate::fault::failed;
use crate::jail::{Jailed, Links, Owner, list};
use crate::path::FilePath;
use crate::upload;
use crate::walk::{Bounds, Flow, walk};
use crate::work::Wanted;

/// Most resources in one answer.
const RESOURCES: usize = 10_000;
/// Largest answer, gathered in memory.
const ANSWER_BYTES: usize = 32 << 20;
/// How deep a PROPFIND without a bound of its own goes.
const DEPTH: usize = 50;
/// How long it may take.
const TIME: Duration = Duration::from_secs(30);

/// Properties that the file itself has.
const LIVE: &[&str] = &[
    "getcontentlength",
    "getcontenttype",
    "getetag",
    "getlastmodified",
    "lockdiscovery",
    "resourcetype",
    "supportedlock",
];
/// Those that are told only to who names them (RFC 4331).
const NAMED: &[&str] = &["quota-available-bytes", "quota-used-bytes"];

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n";
const SUPPORTED: &str = "<D:lockentry><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>\
     <D:lockentry><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>";

/// How far below a resource a request goes (section 10.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    Zero,
    One,
    Infinity,
}

fn depth(headers: &HeaderMap) -> Result<Depth, Fault> {
    match headers.get("depth").map(HeaderValue::as_bytes) {
        None => Ok(Depth::Infinity),
        Some(b"0") => Ok(Depth::Zero),
        Some(b"1") => Ok(Depth::One),
        Some(text) if text.eq_ignore_ascii_case(b"infinity") => Ok(Depth::Infinity),
        Some(_) => Err(Fault::bad_request("Depth is 0, 1 or infinity")),
    }
}

/// The body of a request, whose root is this element.
async fn read(body: Body, root: &str) -> Result<Option<Element>, Fault> {
    let bytes = axum::body::to_bytes(body, BODY_BYTES).await.map_err(|_| {
        Fault::too_large(format!(
            "the XML body is larger than {BODY_BYTES} bytes, or broke off"
        ))
    })?;
    xml::parse(&bytes, root)
}

/// What a PROPFIND asks for.
#[derive(Debug)]
enum Asked {
    All(Vec<Name>),
    Names,
    Some(Vec<Name>),
}

impl Asked {
    fn of(root: Option<&Element>) -> Result<Asked, Fault> {
        let names = |element: &Element| element.elements().map(|one| one.name.clone()).collect();
        let Some(root) = root else {
            return Ok(Asked::All(Vec::new()));
        };
        let asked: Vec<&Element> = root
            .elements()
            .filter(|one| one.is("allprop") || one.is("propname") || one.is("prop"))
            .collect();
        match asked[..] {
            [one] if one.is("allprop") => {
                let more = root.child("include").map(names);
                Ok(Asked::All(more.unwrap_or_default()))
            }
            [one] if one.is("propname") => Ok(Asked::Names),
            [one] => Ok(Asked::Some(names(one))),
            _ => Err(Fault::bad_request(
                "a propfind asks for one of allprop, propname and prop",
            )),
        }
    }
}

/// Tell the properties of a resource, and of what is in it.
pub async fn propfind(
    files: &Files,
    path: FilePath,
    parts: &Parts,
    body: Body,
) -> Result<Response, Fault> {
    let depth = depth(&parts.headers)?;
    let asked = Asked::of(read(body, "propfind").await?.as_ref())?;
    let (service, headers) = (files.clone(), parts.headers.clone());
    let text = files
        .work
        .search(move |wanted| {
            lock::check(&service, &headers, &path, &[])?;
            gather(&service, &path, depth, &asked, wanted)
        })
        .await?;
    Ok(answer(StatusCode::MULTI_STATUS, text))
}

fn gather(
    files: &Files,
    path: &FilePath,
    depth: Depth,
    asked: &Asked,
    wanted: &Wanted,
) -> Result<String, Fault> {
    let found = files
        .root
        .find(path, Links::Follow)
        .map_err(failed("read", path))?;
    let mut text = format!("{HEAD}<D:multistatus xmlns:D=\"DAV:\">");
    describe(files, &mut text, asked, path, &found);
    if found.is_directory() && depth != Depth::Zero {
        let bounds = Bounds {
            depth: if depth == Depth::One { 1 } else { DEPTH },
            entries: RESOURCES,
            time: TIME,
            ignore: false,
        };
        let start = list(&found).map_err(failed("read", path))?;
        let seen = walk(start, bounds, wanted, |entry| {
            let at = path.join(entry.path);
            let held = match entry.kind() {
                // A link is what it leads to, and nothing where that is nothing; it is not entered.
                FileType::Symlink => files.root.find(&at, Links::Follow).ok(),
                _ => entry.hold(),
            };
            if let Some(held) = held {
                describe(files, &mut text, asked, &at, &held);
            }
            if text.len() > ANSWER_BYTES {
                return Flow::Stop;
            }
            Flow::Continue
        });
        wanted.check()?;
        if seen.stopped || seen.deep && depth == Depth::Infinity {
            return Err(match depth {
                Depth::Infinity => Fault::forbidden(format!(
                    "there is too much below {path} for one answer; ask with Depth: 1"
                ))
                .code("PROPFIND_FINITE_DEPTH"),
                _ => Fault::new(
                    StatusCode::INSUFFICIENT_STORAGE,
                    format!("{path} holds more than {RESOURCES} entries; list it with GET"),
                )
                .code("TOO_MANY_ENTRIES"),
            });
        }
    }
    text.push_str("</D:multistatus>\n");
    Ok(text)
}

/// The `href` of a resource; that of a directory ends in a slash.
fn href(path: &FilePath, is_directory: bool) -> String {
    let mut href = path.href();
    if is_directory && !path.is_root() {
        href.push('/');
    }
    href
}

/// Add what is asked about one resource.
fn describe(files: &Files, to: &mut String, asked: &Asked, path: &FilePath, held: &Jailed) {
    if !matches!(held.kind(), FileType::RegularFile | FileType::Directory) {
        return; // a device is no resource: it can be neither read nor written here
    }
    let dead = property::read(held);
    let (mut there, mut missing) = (String::new(), String::new());
    match asked {
        Asked::Names => {
            for local in LIVE {
                if live(files, path, held, local).is_some() {
                    put(&mut there, &Name::dav(local), None, "");
                }
            }
            for one in &dead {
                put(&mut there, &one.name, None, "");
            }
        }
        Asked::All(_) | Asked::Some(_) => {
            if let Asked::All(_) = asked {
                for local in LIVE {
                    if let Some(value) = live(files, path, held, local) {
                        put(&mut there, &Name::dav(local), None, &value);
                    }
                }
                for one in &dead {
                    put(&mut there, &one.name, one.lang.as_deref(), &one.value);
                }
            }
            let (Asked::All(names) | Asked::Some(names)) = asked else {
                unreachable!("the arm is for these two")
            };
            for name in names {
                let value = if name.space == DAV {
                    live(files, path, held, &name.local)
                } else {
                    None
                };
                match (value, dead.iter().find(|one| one.name == *name)) {
                    (Some(value), _) => put(&mut there, name, None, &value),
                    (None, Some(one)) => put(&mut there, name, one.lang.as_deref(), &one.value),
                    (None, None) => put(&mut missing, name, None, ""),
                }
            }
        }
    }
    let _ = write!(
        to,
        "<D:response><D:href>{}</D:href>",
        href(path, held.is_directory())
    );
    if !there.is_empty() || missing.is_empty() {
        group(to, &there, StatusCode::OK);
    }
    if !missing.is_empty() {
        group(to, &missing, StatusCode::NOT_FOUND);
    }
    to.push_str("</D:response>\n");
}

fn group(to: &mut String, properties: &str, status: StatusCode) {
    let _ = write!(
        to,
        "<D:propstat><D:prop>{properties}</D:prop><D:status>{}</D:status></D:propstat>",
        line(status)
    );
}

fn line(status: StatusCode) -> String {
    let reason = status.canonical_reason().unwrap_or_default();
    format!("HTTP/1.1 {} {reason}", status.as_u16())
}

fn put(to: &mut String, name: &Name, lang: Option<&str>, value: &str) {
    xml::open(to, name);
    if let Some(lang) = lang {
        let _ = write!(to, " xml:lang=\"{}\"", escape(lang));
    }
    if value.is_empty() {
        to.push_str("/>");
    } else {
        to.push('>');
        to.push_str(value);
        xml::close(to, name);
    }
}

/// The value of one of WebDAV's own properties.
fn live(files: &Files, path: &FilePath, held: &Jailed, local: &str) -> Option<String> {
    let directory = held.is_directory();
    Some(match local {
        "getcontentlength" if !directory => size(&held.stat).to_string(),
        "getcontenttype" if !directory => {
            let name = lossy(path.name());
            let guess = mime_guess::from_path(&*name).first_raw();
            guess.unwrap_or("application/octet-stream").to_owned()
        }
        "getetag" if !directory => escape(Validator::of(&held.stat).etag.as_str()).into_owned(),
        "getlastmodified" => httpdate::fmt_http_date(modified(&held.stat)),
        "resourcetype" if directory => "<D:collection/>".to_owned(),
        "resourcetype" => String::new(),
        "supportedlock" => SUPPORTED.to_owned(),
        "lockdiscovery" => {
            let now = Instant::now();
            if files.locks.is_empty(now) {
                return Some(String::new());
            }
            let locks = files.locks.on(&real(files, path, Links::Follow), now);
            locks.iter().map(|lock| active(lock, now)).collect()
        }
        "quota-available-bytes" | "quota-used-bytes" if directory => {
            let space = fstatvfs(held).ok().filter(|space| space.f_blocks > 0)?;
            let blocks = match local {
                "quota-available-bytes" => space.f_bavail,
                _ => space.f_blocks.saturating_sub(space.f_bfree),
            };
            blocks.saturating_mul(space.f_frsize).to_string()
        }
        _ => return None,
    })
}

fn active(lock: &Lock, now: Instant) -> String {
    let scope = if lock.exclusive {
        "exclusive"
    } else {
        "shared"
    };
    let depth = if lock.deep { "infinity" } else { "0" };
    let owner = if lock.owner.is_empty() {
        String::new()
    } else {
        format!("<D:owner>{}</D:owner>", lock.owner)
    };
    format!(
        "<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:{scope}/></D:lockscope>\
         <D:depth>{depth}</D:depth>{owner}<D:timeout>Second-{}</D:timeout>\
         <D:locktoken><D:href>{}</D:href></D:locktoken>\
         <D:lockroot><D:href>{}</D:href></D:lockroot></D:activelock>",
        lock.until
            .saturating_duration_since(now)
            .as_secs()
            .min(LONGEST),
        lock.token,
        lock.path.href(),
    )
}

/// Set and remove properties, all or none.
pub async fn proppatch(
    files: &Files,
    path: FilePath,
    parts: &Parts,
    body: Body,
) -> Result<Response, Fault> {
    let root = read(body, "propertyupdate").await?;
    let root = root.ok_or_else(|| Fault::bad_request("a PROPPATCH needs a propertyupdate"))?;
    let mut changes = Vec::new();
    for part in root.elements() {
        let set = part.is("set");
        if !set && !part.is("remove") {
            continue; // section 17: what is unknown is passed over
        }
        for one in part
            .elements()
            .filter(|one| one.is("prop"))
            .flat_map(Element::elements)
        {
            changes.push(Change {
                name: one.name.clone(),
                property: set.then(|| Property {
                    name: one.name.clone(),
                    lang: one.lang.clone(),
                    value: one.inner(),
                }),
            });
        }
    }
    if changes.is_empty() {
        return Err(Fault::bad_request("the propertyupdate changes nothing"));
    }
    let (service, headers) = (files.clone(), parts.headers.clone());
    let text = files
        .work
        .short(move || {
            lock::check(&service, &headers, &path, &[(&path, Reach::Content)])?;
            patch(&service, &path, changes)
        })
        .await?;
    Ok(answer(StatusCode::MULTI_STATUS, text))
}

fn patch(files: &Files, path: &FilePath, changes: Vec<Change>) -> Result<String, Fault> {
    let found = files
        .root
        .find(path, Links::Follow)
        .map_err(failed("change", path))?;
    if !matches!(found.kind(), FileType::RegularFile | FileType::Directory) {
        return Err(failed("change", path)(Errno::OPNOTSUPP));
    }
    let names: Vec<Name> = changes.iter().map(|change| change.name.clone()).collect();
    let own = |name: &Name| {
        let local = name.local.as_str();
        name.space == DAV
            && (LIVE.contains(&local) || NAMED.contains(&local) || local == "creationdate")
    };
    let mut text = format!(
        "{HEAD}<D:multistatus xmlns:D=\"DAV:\"><D:response><D:href>{}</D:href>",
        href(path, found.is_directory())
    );
    let list = |keep: &dyn Fn(&Name) -> bool| {
        let mut properties = String::new();
        for name in names.iter().filter(|name| keep(name)) {
            put(&mut properties, name, None, "");
        }
        properties
    };
    if names.iter().any(own) {
        group(&mut text, &list(&own), StatusCode::FORBIDDEN);
        let others = list(&|name| !own(name));
        if !others.is_empty() {
            group(&mut text, &others, StatusCode::FAILED_DEPENDENCY);
        }
    } else {
        // Two at a time would each write what it read and lose the other's.
        let _turn = files
            .properties
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let status = match property::change(&found, changes) {
            Ok(()) => StatusCode::OK,
            // Too much, or a file system that keeps no attributes at all.
            Err(Errno::NOSPC | Errno::DQUOT | Errno::RANGE | Errno::TOOBIG | Errno::OPNOTSUPP) => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            Err(error) => return Err(failed("change", path)(error)),
        };
        group(&mut text, &list(&|_| true), status);
    }
    text.push_str("</D:response></D:multistatus>\n");
    Ok(text)
}

/// Take a lock, or give one a new time.
pub async fn lock(
    files: &Files,
    path: FilePath,
    parts: &Parts,
    body: Body,
) -> Result<Response, Fault> {
    let deep = match depth(&parts.headers)? {
        Depth::Zero => false,
        Depth::Infinity => true,
        Depth::One => return Err(Fault::bad_request("the Depth of a lock is 0 or infinity")),
    };
    let timeout = parts
        .headers
        .get("timeout")
        .and_then(|text| text.to_str().ok());
    let seconds = lock::seconds(timeout);
    let info = read(body, "lockinfo").await?;
    let wish = match &info {
        None => None,
        Some(info) => Some(wish(info)?),
    };
    let (service, headers) = (files.clone(), parts.headers.clone());
    files
        .work
        .short(move || match wish {
            None => refresh(&service, &headers, &path, seconds),
            Some((exclusive, owner)) => {
                let new = Lock {
                    token: lock::token(),
                    path: real(&service, &path, Links::Follow),
                    deep,
                    exclusive,
                    owner,
                    seconds,
                    until: Instant::now() + Duration::from_secs(seconds),
                };
                take(&service, &headers, &path, &new)
            }
        })
        .await
}

/// Whether a lock is to be exclusive, and whose it is.
fn wish(info: &Element) -> Result<(bool, String), Fault> {
    let scope = info.child("lockscope");
    let has = |local| scope.is_some_and(|scope| scope.child(local).is_some());
    let write = info
        .child("locktype")
        .is_some_and(|kind| kind.child("write").is_some());
    if !write || has("exclusive") == has("shared") {
        return Err(Fault::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "a lock is a write lock, and exclusive or shared",
        ));
    }
    let owner = info.child("owner").map(Element::inner).unwrap_or_default();
    if owner.len() > OWNER_BYTES {
        return Err(Fault::too_large(format!(
            "the owner of a lock is described in at most {OWNER_BYTES} bytes"
        )));
    }
    Ok((has("exclusive"), owner))
}

fn take(
    files: &Files,
    headers: &HeaderMap,
    path: &FilePath,
    new: &Lock,
) -> Result<Response, Fault> {
    lock::check(files, headers, path, &[])?;
    let there = files.root.find(path, Links::Follow);
    let is_new = match &there {
        Ok(_) => false,
        Err(Errno::NOENT) => true,
        Err(error) => return Err(failed("lock", path)(*error)),
    };
    if is_new {
        let parent = files.root.find(&new.path.parent(), Links::Follow);
        if !parent.is_ok_and(|parent| parent.is_directory()) {
            return Err(
                Fault::conflict(format!("no directory {} to hold it", new.path.parent()))
                    .code("NO_PARENT"),
            );
        }
        lock::check(files, headers, path, &[(path, Reach::Member)])?;
    }
    let now = Instant::now();
    match files.locks.grant(new, now) {
        Ok(()) => {}
        Err(Refusal::Full) => {
            return Err(
                Fault::unavailable("too many locks are held; try again later")
                    .retry_after(Duration::from_secs(60)),
            );
        }
        Err(Refusal::Locked(at)) if at != new.path && new.path.holds(&at) => {
            // Section 9.10.6: what is in the way is below, so both are named.
            let text = format!(
                "{HEAD}<D:multistatus xmlns:D=\"DAV:\">\
                 <D:response><D:href>{}</D:href><D:status>{}</D:status></D:response>\
                 <D:response><D:href>{}</D:href><D:status>{}</D:status></D:response></D:multistatus>\n",
                at.href(),
                line(StatusCode::LOCKED),
                path.href(),
                line(StatusCode::FAILED_DEPENDENCY),
            );
            return Ok(answer(StatusCode::MULTI_STATUS, text));
        }
        Err(Refusal::Locked(at)) => return Err(lock::locked(&at)),
    }
    if is_new && let Err(fault) = upload::touch(files, path, Owner::Directory) {
        files.locks.release(&new.path, &new.token, now);
        return Err(fault);
    }
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let mut response = answer(status, discovery(new, now));
    let token = HeaderValue::from_str(&format!("<{}>", new.token)).expect("hex digits and dashes");
    response.headers_mut().insert("lock-token", token);
    Ok(response)
}

fn refresh(
    files: &Files,
    headers: &HeaderMap,
    path: &FilePath,
    seconds: u64,
) -> Result<Response, Fault> {
    let lists = lock::lists(headers)?;
    if lists.is_empty() {
        return Err(Fault::bad_request(
            "a LOCK needs a lockinfo, or, to refresh a lock, its token in the header If",
        ));
    }
    lock::check(files, headers, path, &[])?;
    let tokens: Vec<&str> = super::condition::tokens(&lists).collect();
    let now = Instant::now();
    let refreshed = files
        .locks
        .refresh(&real(files, path, Links::Follow), &tokens, seconds, now);
    let lock = refreshed.ok_or_else(|| {
        Fault::new(
            StatusCode::PRECONDITION_FAILED,
            format!("{path} has no lock with that token; it may have run out"),
        )
        .code("PRECONDITION_FAILED")
    })?;
    Ok(answer(StatusCode::OK, discovery(&lock, now)))
}

fn discovery(lock: &Lock, now: Instant) -> String {
    format!(
        "{HEAD}<D:prop xmlns:D=\"DAV:\"><D:lockdiscovery>{}</D:lockdiscovery></D:prop>\n",
        active(lock, now)
    )
}

/// Give a lock up.
pub async fn unlock(files: &Files, path: FilePath, parts: &Parts) -> Result<Response, Fault> {
    let token = parts
        .headers
        .get("lock-token")
        .and_then(|text| text.to_str().ok());
    let token = token.and_then(|text| text.trim().strip_prefix('<')?.strip_suffix('>'));
    let token = token.ok_or_else(|| {
        Fault::bad_request("Lock-Token must be the token of the lock between < and >")
    })?;
    let (service, headers, token) = (files.clone(), parts.headers.clone(), token.to_owned());
    files
        .work
        .short(move || {
            lock::check(&service, &headers, &path, &[])?;
            let at = real(&service, &path, Links::Follow);
            if service.locks.release(&at, &token, Instant::now()) {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                return Ok(response);
            }
            Err(
                Fault::conflict(format!("{path} has no lock with that token"))
                    .code("LOCK_TOKEN_MISMATCH"),
            )
        })
        .await
}

fn answer(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/xml; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
