//! The same files directly at `/{path}`, with the methods of WebDAV (RFC 4918) and partial updates. Also what is asked below `/api/v1/files` with a
//! method that the operations there do not have.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use kit::{Fault, Raw, Route};
use schemars::JsonSchema;
use serde::Deserialize;

use super::api::{Removed, remove};
use super::{read, write};
use crate::Files;
use crate::change;
use crate::dav::answer as dav;
use crate::dav::lock::{self, Reach};
use crate::draft::Replace;
use crate::jail::Owner;
use crate::listing::DirectoryListing;
use crate::path::FilePath;
use crate::upload::{self, Wish};
use crate::users;

/// Where the operations of the service are; nothing below it is a path of the file system.
const INTERFACE: &str = "/api/v1/";
const BACKENDS: &str = "/api/v1/backends/";
const FILES: &str = "/api/v1/files";
/// Methods that a path has.
const METHODS: &str =
    "GET, HEAD, PUT, PATCH, DELETE, OPTIONS, MKCOL, COPY, MOVE, PROPFIND, PROPPATCH, LOCK, UNLOCK";
/// Largest JSON body of a PATCH.
const PATCH_BYTES: usize = 64 << 10;

/// Answer what no operation has a route for.
pub async fn answer(files: Files, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let head = parts.method == Method::HEAD;
    let answer = match path.strip_prefix(FILES) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            below(&files, rest, parts, body).await
        }
        // types that the packaged rclone does not have, or that nobody has heard of
        _ if path.starts_with(BACKENDS) && parts.method == Method::POST => {
            connect(&files, &path[BACKENDS.len()..], body).await
        }
        _ if path.starts_with(INTERFACE) => Err(Fault::not_found(format!(
            "no operation {} {path}; the operations are listed in {FILES}/openapi.json",
            parts.method
        ))),
        _ => direct(&files, &path, parts, body).await,
    };
    match answer {
        Ok(response) => response,
        Err(fault) => {
            let mut response = crate::refuse(&fault);
            if fault.status == StatusCode::METHOD_NOT_ALLOWED {
                response
                    .headers_mut()
                    .insert(ALLOW, HeaderValue::from_static(METHODS));
            }
            if head {
                *response.body_mut() = Body::empty();
            }
            response
        }
    }
}

/// A path whose first segment is the name of an operation, asked with a method that the operation
/// does not have, is a path like any other; so is the root.
async fn below(files: &Files, rest: &str, parts: Parts, body: Body) -> Result<Response, Fault> {
    let path = files.path_of_url(rest)?;
    match parts.method {
        Method::GET | Method::HEAD => Ok(read::answer(files, path, &parts).await),
        Method::PUT => Ok(write::answer(files, path, parts, body, false).await),
        Method::DELETE => json(&remove(files, &parts.headers, path).await?),
        _ => Err(not_allowed(&parts)),
    }
}

async fn connect(files: &Files, slug: &str, body: Body) -> Result<Response, Fault> {
    let bytes = axum::body::to_bytes(body, PATCH_BYTES).await.map_err(|_| {
        Fault::too_large(format!(
            "the JSON body is larger than {PATCH_BYTES} bytes, or broke off"
        ))
    })?;
    let given = serde_json::from_slice(&bytes)
        .map_err(|error| Fault::bad_request(format!("the body is no JSON object: {error}")))?;
    let done = super::remote::connect(files, slug, given).await?;
    let value = serde_json::to_value(done).expect("replies are plain JSON");
    Ok(kit::http::json(StatusCode::OK, &value))
}

async fn direct(files: &Files, url: &str, parts: Parts, body: Body) -> Result<Response, Fault> {
    let path = files.path_of_url(url)?;
    match parts.method.as_str() {
        "GET" | "HEAD" => Ok(read::answer(files, path, &parts).await),
        "PUT" => put(files, path, parts, body).await,
        "PATCH" => patch(files, path, parts, body).await,
        "DELETE" => json(&remove(files, &parts.headers, path).await?),
        "MKCOL" => make_collection(files, path, &parts).await,
        "COPY" => copy(files, path, &parts).await,
        "MOVE" => relocate(files, path, &parts).await,
        "PROPFIND" => dav::propfind(files, path, &parts, body).await,
        "PROPPATCH" => dav::proppatch(files, path, &parts, body).await,
        "LOCK" => dav::lock(files, path, &parts, body).await,
        "UNLOCK" => dav::unlock(files, path, &parts).await,
        "OPTIONS" => Ok(options()),
        "CHECKAUTH" => Ok(crate::content::respond_plain(
            &Method::GET,
            user(&parts.headers),
        )),
        "LOGOUT" => Ok(log_out()),
        _ => Err(not_allowed(&parts)),
    }
}

async fn put(files: &Files, path: FilePath, parts: Parts, body: Body) -> Result<Response, Fault> {
    let query = kit::arguments::query_all(parts.uri.query().unwrap_or_default());
    if let Some(place) = read::elsewhere(files, &query, path.clone()).await? {
        files.remote.write(&place, body).await?;
    } else if write::flag(&query, "touch") {
        let owner = users::owner(&files.root, write::value(&query, "owner"))?;
        let service = files.clone();
        files
            .work
            .short(move || {
                lock::check(&service, &parts.headers, &path, &[(&path, Reach::Content)])?;
                upload::touch(&service, &path, owner)
            })
            .await?;
    } else {
        if parts.headers.contains_key(http::header::CONTENT_RANGE) {
            // RFC 9110, section 14.5: taken for the whole, a part would destroy the file.
            return Err(Fault::bad_request(
                "a part of a file is written with PATCH and X-Update-Range",
            ));
        }
        let written = write::write(files, &path, parts, body, false).await?;
        let mut response = empty(StatusCode::CREATED);
        written.validator.write(response.headers_mut());
        return Ok(response);
    }
    Ok(empty(StatusCode::CREATED))
}

async fn patch(files: &Files, path: FilePath, parts: Parts, body: Body) -> Result<Response, Fault> {
    let headers = &parts.headers;
    if let Some(range) = headers.get("x-update-range") {
        let update = range.to_str().ok().and_then(Update::parse).ok_or_else(|| {
            Fault::bad_request("X-Update-Range is `append` or `bytes=<first>-<last>`")
        })?;
        let query = kit::arguments::query_all(parts.uri.query().unwrap_or_default());
        let wish = Wish {
            owner: users::owner(&files.root, write::value(&query, "owner"))?,
            fsync: write::flag(&query, "fsync"),
            headers: parts.headers,
        };
        match update {
            Update::Append => {
                upload::append(files, &path, body, wish).await?;
            }
            Update::Range(first, last) => {
                upload::overwrite(files, &path, body, (first, last), wish).await?;
            }
        }
        return Ok(empty(StatusCode::NO_CONTENT));
    }
    let bytes = axum::body::to_bytes(body, PATCH_BYTES).await.map_err(|_| {
        Fault::too_large(format!(
            "the JSON body is larger than {PATCH_BYTES} bytes, or broke off"
        ))
    })?;
    let change: Change = serde_json::from_slice(&bytes).map_err(|error| {
        Fault::bad_request(format!(
            "send X-Update-Range, or as JSON what to change: {error}"
        ))
    })?;
    let service = files.clone();
    match change {
        Change {
            mode: Some(mode),
            owner: None,
            group: None,
            name: None,
        } => {
            files
                .work
                .short(move || {
                    lock::check(&service, &parts.headers, &path, &[(&path, Reach::Content)])?;
                    change::chmod(&service, &path, &mode)
                })
                .await?;
        }
        Change {
            mode: None,
            owner,
            group,
            name: None,
        } if owner.is_some() || group.is_some() => {
            let text = match (owner, group) {
                (Some(owner), Some(group)) => format!("{owner}:{group}"),
                (Some(owner), None) => owner,
                (None, group) => format!(":{}", group.unwrap_or_default()),
            };
            files
                .work
                .short(move || {
                    lock::check(&service, &parts.headers, &path, &[(&path, Reach::Content)])?;
                    change::chown(&service, &path, &text)
                })
                .await?;
        }
        Change {
            mode: None,
            owner: None,
            group: None,
            name: Some(name),
        } => {
            let to = change::renamed(&path, &name)?;
            let route = change::Route {
                from: path,
                to,
                replace: Replace::Never,
                owner: Owner::Directory,
                parents: false,
            };
            files
                .work
                .tree(move |wanted| route.relocate(&service, &parts.headers, wanted))
                .await?;
        }
        _ => {
            return Err(Fault::bad_request(
                "change one thing: mode, owner and group, or name",
            ));
        }
    }
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Which part of a file a body is for.
#[derive(Debug, PartialEq, Eq)]
enum Update {
    Append,
    Range(u64, Option<u64>),
}

impl Update {
    fn parse(text: &str) -> Option<Update> {
        if text.trim() == "append" {
            return Some(Update::Append);
        }
        let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
        let first: u64 = first.parse().ok()?;
        let last = if last.is_empty() {
            None
        } else {
            Some(last.parse().ok()?)
        };
        last.is_none_or(|last: u64| last >= first)
            .then_some(Update::Range(first, last))
    }
}

/// What a PATCH without a range changes: one of them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Change {
    /// Octal mode.
    mode: Option<String>,
    owner: Option<String>,
    group: Option<String>,
    /// New name in the same directory.
    name: Option<String>,
}

async fn make_collection(files: &Files, path: FilePath, parts: &Parts) -> Result<Response, Fault> {
    let length = parts
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok());
    if length.is_some_and(|length| length != "0") || parts.headers.contains_key("transfer-encoding")
    {
        return Err(Fault::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "MKCOL takes no body",
        ));
    }
    let (service, headers) = (files.clone(), parts.headers.clone());
    files
        .work
        .short(move || {
            lock::check(&service, &headers, &path, &[(&path, Reach::Member)])?;
            change::make_collection(&service, &path)
        })
        .await?;
    Ok(empty(StatusCode::CREATED))
}

async fn copy(files: &Files, path: FilePath, parts: &Parts) -> Result<Response, Fault> {
    let recursive = match header(&parts.headers, "depth") {
        None => true,
        Some(depth) if depth.eq_ignore_ascii_case("infinity") => true,
        Some("0") => false,
        Some(_) => return Err(Fault::bad_request("Depth is 0 or infinity")),
    };
    let route = between(files, path, parts)?;
    let (service, headers) = (files.clone(), parts.headers.clone());
    let copied = files
        .work
        .tree(move |wanted| route.copy(&service, &headers, recursive, wanted))
        .await;
    copied.map_err(precondition)?;
    Ok(empty(StatusCode::NO_CONTENT))
}

async fn relocate(files: &Files, path: FilePath, parts: &Parts) -> Result<Response, Fault> {
    let route = between(files, path, parts)?;
    let (service, headers) = (files.clone(), parts.headers.clone());
    let moved = files
        .work
        .tree(move |wanted| route.relocate(&service, &headers, wanted))
        .await;
    moved.map_err(precondition)?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// From the path of the request to its `Destination` (RFC 4918, section 10.3), on the same host.
fn between(files: &Files, from: FilePath, parts: &Parts) -> Result<change::Route, Fault> {
    let destination = header(&parts.headers, "destination")
        .ok_or_else(|| Fault::bad_request("Destination must name where to, as a URL or a path"))?;
    let path = match destination.split_once("://") {
        None if destination.starts_with('/') => destination,
        None => {
            return Err(Fault::bad_request(
                "Destination must be a URL or begin with a slash",
            ));
        }
        Some((_, rest)) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let own = header(&parts.headers, kit::call::edge::HOST)
                .or_else(|| header(&parts.headers, "host"))
                .or_else(|| parts.uri.authority().map(|authority| authority.as_str()));
            let name = |host: &str| {
                host.rsplit_once('@')
                    .map_or(host, |(_, host)| host)
                    .to_ascii_lowercase()
            };
            if own.is_some_and(|own| without_port(&name(own)) != without_port(&name(host))) {
                return Err(Fault::new(
                    StatusCode::BAD_GATEWAY,
                    format!("{host} is another server"),
                ));
            }
            path
        }
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let replace = match header(&parts.headers, "overwrite") {
        Some("F" | "f") => Replace::Never,
        _ => Replace::Any,
    };
    Ok(change::Route {
        from,
        to: files.path_of_url(path)?,
        replace,
        owner: Owner::Directory,
        parents: false,
    })
}

fn without_port(host: &str) -> String {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name.to_owned(),
        _ => host.to_owned(),
    }
}

/// What must not be overwritten is a precondition to WebDAV.
fn precondition(mut fault: Fault) -> Fault {
    if fault.code == Some("EXISTS") {
        fault.status = StatusCode::PRECONDITION_FAILED;
    }
    fault
}

fn options() -> Response {
    let mut response = empty(StatusCode::OK);
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(METHODS));
    let headers = response.headers_mut();
    headers.insert("dav", HeaderValue::from_static("1, 2"));
    // Without it Windows does not take it for a folder.
    headers.insert("ms-author-via", HeaderValue::from_static("DAV"));
    response
}

/// Who the request says it is. Nothing is checked here: the gates are the proxy's.
fn user(headers: &HeaderMap) -> String {
    use base64::Engine;
    let basic = header(headers, "authorization").and_then(|text| text.strip_prefix("Basic "));
    basic
        .and_then(|text| {
            base64::engine::general_purpose::STANDARD
                .decode(text.trim())
                .ok()
        })
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|pair| pair.split_once(':').map(|(user, _)| user.to_owned()))
        .unwrap_or_default()
}

/// Makes a browser forget what it sent.
fn log_out() -> Response {
    let mut response = empty(StatusCode::UNAUTHORIZED);
    response.headers_mut().insert(
        WWW_AUTHENTICATE,
        HeaderValue::from_static("Basic realm=\"files\""),
    );
    response
}

fn not_allowed(parts: &Parts) -> Fault {
    Fault::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} is not allowed on {}", parts.method, parts.uri.path()),
    )
}

fn json(reply: &Removed) -> Result<Response, Fault> {
    let value = serde_json::to_value(reply).expect("replies are plain JSON");
    Ok(kit::http::json(StatusCode::OK, &value))
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().remove(CONTENT_TYPE);
    response
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A path directly under the root.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)] // documentation
struct At {
    /// Absolute path; `~` at its beginning is the home directory.
    path: String,
}

/// What to search for.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)] // documentation
struct Search {
    /// Directory to search.
    directory: String,
    /// Text that names contain, whatever its case; at most 512 bytes.
    q: String,
}

/// What to pack.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)] // documentation
struct Zip {
    /// Directory to pack.
    directory: String,
}

/// Where a file is on an SSH server.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)] // documentation
struct OverSsh {
    /// Absolute path there.
    path: String,
    /// `host` or `host:port`.
    server: String,
    user: String,
    /// Password, in base64. Either it or `key` must be given.
    pass: Option<String>,
    /// Private key (PEM), in base64.
    key: Option<String>,
    /// What opens the key, in base64.
    passphrase: Option<String>,
}

/// Where a file is on an FTP server.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)] // documentation
struct OverFtp {
    /// Absolute path there.
    path: String,
    /// `host` or `host:port`.
    server: String,
    /// `anonymous` by default.
    user: Option<String>,
    pass: Option<String>,
    /// Turn to TLS at the beginning (explicit TLS).
    #[schemars(extend("default" = false))]
    ftp_secure: Option<bool>,
    /// Always passive mode.
    #[schemars(extend("default" = true))]
    ftp_passive: Option<bool>,
}

/// Where a file is on a WebDAV server.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)] // documentation
struct OverWebdav {
    /// Path below `webdav_path`.
    path: String,
    /// `host`, `host:port` or a URL; HTTPS where it does not say.
    server: String,
    user: Option<String>,
    pass: Option<String>,
    /// Path on the server that paths are below.
    #[schemars(extend("default" = "/"))]
    webdav_path: Option<String>,
}

/// What is served at `/{path}`, for the document.
pub fn raws() -> Vec<Raw> {
    vec![
        Raw::new(
            Route::get("/{*path}").selected_by("type=ssh").named("accessViaSSH").cli("files access ssh"),
            "Send a file, or list a directory, of an SSH server.\n\nWhat opens it is used for this request \
             and not kept. The key of the server's host is not checked: for one whose key is to be checked, connect a backend of \
             the type sftp with `known_hosts_file`.",
        )
        .parameters::<OverSsh>(),
        Raw::new(
            Route::put("/{*path}").selected_by("type=ssh").status(201).named("uploadViaSSH").cli("files access ssh-upload"),
            "Write a file of an SSH server.\n\nThe body is the content. Directories above it are made where \
             they are missing.",
        )
        .parameters::<OverSsh>(),
        Raw::new(
            Route::get("/{*path}").selected_by("type=ftp").named("accessViaFTP").cli("files access ftp"),
            "Send a file, or list a directory, of an FTP server.\n\nWhat opens it is used for this request \
             and not kept.",
        )
        .parameters::<OverFtp>(),
        Raw::new(
            Route::get("/{*path}").selected_by("type=webdav").named("accessViaWebDAV").cli("files access webdav"),
            "Send a file, or list a directory, of a WebDAV server.\n\nWhat opens it is used for this request \
             and not kept.",
        )
        .parameters::<OverWebdav>(),
        Raw::new(
            Route::get("/{*path}").named("listDirectory").cli("files dir"),
            "List a directory or send a file.\n\nA browser gets a page for a directory, everyone else JSON.",
        )
        .parameters::<read::Read>()
        .replies::<DirectoryListing>(),
        Raw::new(
            Route::get("/{*directory}").selected_by("q").named("searchDirectory").cli("files search"),
            "Search a directory, and those in it, for names.",
        )
        .parameters::<Search>()
        .replies::<DirectoryListing>(),
        Raw::new(
            Route::get("/{*directory}")
                .selected_by("zip")
                .named("downloadDirectoryAsZip")
                .cli("files downloads zip"),
            "Send a directory as a zip archive.\n\nIt is packed as it is sent. Links are packed as \
             links; devices, sockets and FIFOs are left out.",
        )
        .answers("application/zip")
        .parameters::<Zip>(),
        Raw::new(
            Route::head("/{*path}").named("getFileMetadata").cli("files metadata"),
            "The headers of a GET.",
        )
        .parameters::<At>(),
        Raw::new(
            Route::put("/{*path}").status(201).named("uploadFile").cli("files upload"),
            "Write a file.\n\nAs the PUT below `/api/v1/files`, without a reply.",
        )
        .parameters::<At>(),
        Raw::new(
            Route::put("/{*path}").selected_by("touch").status(201).named("touchFile").cli("files touch"),
            "Make an empty file, or give one that is there the present time.",
        )
        .parameters::<At>(),
        Raw::new(
            Route::patch("/{*path}").status(204).named("patchFile").cli("files patch"),
            "Write a part of a file, or change mode, owner or name.\n\nWith the header `X-Update-Range: append` \
             the body is added to the file's end; with `bytes=<first>-<last>` it overwrites these bytes, which \
             must exist. Without it the body is JSON: `{mode}`, `{owner, group}` or `{name}`.",
        )
        .parameters::<At>(),
        Raw::new(
            Route::delete("/{*path}").named("deleteFileOrDirectory").cli("files delete-recursive"),
            "Remove a file, a link, or a directory with all that is in it.",
        )
        .parameters::<At>()
        .replies::<Removed>(),
        Raw::new(Route::options("/{*path}").named("getOptions").cli("files options"), "The methods there are.")
            .parameters::<At>(),
        Raw::new(
            Route::method("MKCOL", "/{*path}").status(201),
            "Make a directory in one that exists.",
        )
        .parameters::<At>(),
        Raw::new(
            Route::method("COPY", "/{*path}").status(204),
            "Copy to the path in the header `Destination`.\n\n`Depth: 0` copies a directory without what is in \
             it; `Overwrite: F` replaces nothing.",
        )
        .parameters::<At>(),
        Raw::new(
            Route::method("MOVE", "/{*path}").status(204),
            "Move to the path in the header `Destination`.\n\n`Overwrite: F` replaces nothing.",
        )
        .parameters::<At>(),
        Raw::new(
            Route::method("PROPFIND", "/{*path}").status(207),
            "Tell the properties of a file or directory (RFC 4918, section 9.1).\n\nWith `Depth: 1` also those of \
             what is directly in it, with `infinity` of all below it, at most 10,000. The body, where there is one, \
             is a `propfind`.",
        )
        .answers("application/xml")
        .parameters::<At>(),
        Raw::new(
            Route::method("PROPPATCH", "/{*path}").status(207),
            "Set and remove properties, all or none (RFC 4918, section 9.2).\n\nThe body is a `propertyupdate`. \
             Properties are kept in an extended attribute of the file: at most 256 and 32 KiB of them, less where \
             the file system takes less, which answers 507.",
        )
        .answers("application/xml")
        .parameters::<At>(),
        Raw::new(
            Route::method("LOCK", "/{*path}"),
            "Lock a file, or a directory with all that is in it (RFC 4918, section 9.10).\n\nThe body is a \
             `lockinfo`; without one the lock that the header `If` names gets a new time. Who writes to what is \
             locked names the token in `If`, or gets 423. A lock lasts 600 seconds unless `Timeout` says \
             otherwise, 3600 at most, and not longer than the service runs.",
        )
        .answers("application/xml")
        .parameters::<At>(),
        Raw::new(
            Route::method("UNLOCK", "/{*path}").status(204),
            "Give up the lock in the header `Lock-Token`.",
        )
        .parameters::<At>(),
        Raw::new(
            Route::method("CHECKAUTH", "/{*path}"),
            "The user that the request names; empty where it names none.",
        )
        .answers("text/plain")
        .parameters::<At>(),
        Raw::new(
            Route::method("LOGOUT", "/{*path}").status(401),
            "Answers 401, so that a browser forgets the password it sent.",
        )
        .parameters::<At>(),
    ]
}
