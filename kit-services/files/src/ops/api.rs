//! The operations below `/api/v1/files` that take and give JSON.

use std::time::Duration;

use http::HeaderMap;
use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Files;
use crate::change;
use crate::dav::lock::{self, Reach};
use crate::draft::Replace;
use crate::entry::FileStat;
use crate::jail::Links;
use crate::listing::{Order, Sort};
use crate::path::FilePath;
use crate::remote::place::Place;
use crate::search;
use crate::users;
use crate::walk::Bounds;
use crate::work::Wanted;

/// The place on a backend that a call names, where it names one.
async fn place(
    files: &Files,
    backend: Option<&str>,
    path: &FilePath,
) -> Result<Option<Place>, Fault> {
    match backend.filter(|id| !id.is_empty()) {
        Some(id) => files.remote.place(id, path.clone()).await,
        None => Ok(None),
    }
}

async fn transfer(
    files: &Files,
    from: Place,
    to: FilePath,
    keep: bool,
    overwrite: bool,
) -> Result<Enveloped, Fault> {
    let done = Done {
        success: true,
        source: Some(from.path.to_string()),
        destination: Some(to.to_string()),
        ..Done::default()
    };
    let to = Place {
        path: to,
        ..from.clone()
    };
    files.remote.transfer(&from, &to, keep, overwrite).await?;
    Ok(Enveloped::new(if keep { "Copied" } else { "Moved" }, done))
}

/// The path of a call, byte for byte where the call came over HTTP.
fn asked(files: &Files, route: Route, call: &Call, text: &str) -> Result<FilePath, Fault> {
    let prefix = route.rest_prefix().unwrap_or_default();
    match call.uri.path().strip_prefix(prefix) {
        Some(rest) if !prefix.is_empty() => files.path_of_url(rest),
        _ => files.path_of_bytes(text.as_bytes()),
    }
}

/// A path among the parameters, byte for byte where it came in the query string.
fn named(files: &Files, call: &Call, key: &str, text: &str) -> Result<FilePath, Fault> {
    let query = call.uri.query().unwrap_or_default();
    let raw = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .rfind(|(name, value)| *name == key && !value.is_empty());
    let path = match raw {
        Some((_, value)) => {
            let spaced = value.replace('+', " ");
            files
                .path_of_bytes(&percent_encoding::percent_decode_str(&spaced).collect::<Vec<_>>())?
        }
        None => files.path_of_bytes(text.as_bytes())?,
    };
    if text.is_empty() {
        return Err(Fault::bad_request(format!("`{key}` must name a path")));
    }
    Ok(path)
}

/// A number within its bounds, or its default.
pub fn within(name: &str, given: Option<u64>, default: u64, most: u64) -> Result<u64, Fault> {
    match given {
        None => Ok(default),
        Some(value) if value <= most => Ok(value),
        Some(value) => Err(Fault::bad_request(format!(
            "`{name}` is {value}; it can be at most {most}"
        ))
        .field(format!("/{name}"), format!("at most {most}"))),
    }
}

/// Which version of the interface and of the server answers.
#[derive(Deserialize, JsonSchema)]
pub struct Version {}

#[derive(Serialize, JsonSchema)]
pub struct VersionReply {
    /// Version of the interface.
    version: &'static str,
    server_version: &'static str,
}

impl Operation for Version {
    const ROUTE: Route = Route::get("/api/v1/version")
        .named("getApiVersion")
        .cli("files version");
    type Service = Files;
    type Reply = VersionReply;
    async fn run(self, _: Files, _: Call) -> Result<VersionReply, Fault> {
        Ok(VersionReply {
            version: "v1",
            server_version: env!("CARGO_PKG_VERSION"),
        })
    }
}

/// Describe a file or directory: kind, size, times, owner, permissions.
///
/// A link is described by what it leads to, and named as a link.
#[derive(Deserialize, JsonSchema)]
pub struct Stat {
    /// Absolute path; `~` at its beginning is the home directory.
    path: String,
}

impl Operation for Stat {
    const ROUTE: Route = Route::get("/api/v1/files/stat/{*path}")
        .named("statFile")
        .cli("files stat");
    type Service = Files;
    type Reply = FileStat;
    async fn run(self, files: Files, call: Call) -> Result<FileStat, Fault> {
        let path = asked(&files, Self::ROUTE, &call, &self.path)?;
        let service = files.clone();
        files
            .work
            .short(move || FileStat::of(&service, &path))
            .await
    }
}

/// Resolve all links in a path.
#[derive(Deserialize, JsonSchema)]
pub struct RealPath {
    /// Absolute path; `~` at its beginning is the home directory.
    path: String,
}

#[derive(Serialize, JsonSchema)]
pub struct RealPathReply {
    /// The path that was asked for.
    path: String,
    /// The path without links.
    real_path: String,
}

impl Operation for RealPath {
    const ROUTE: Route = Route::get("/api/v1/files/realpath/{*path}")
        .named("realpathFile")
        .cli("files realpath");
    type Service = Files;
    type Reply = RealPathReply;
    async fn run(self, files: Files, call: Call) -> Result<RealPathReply, Fault> {
        let path = asked(&files, Self::ROUTE, &call, &self.path)?;
        let service = files.clone();
        files
            .work
            .short(move || {
                let found = service
                    .root
                    .find(&path, Links::Follow)
                    .map_err(crate::fault::failed("read", &path))?;
                let real = service.root.path_of(&found).ok_or_else(|| {
                    Fault::not_found(format!("{path} was removed meanwhile")).code("NOT_FOUND")
                })?;
                Ok(RealPathReply {
                    path: path.to_string(),
                    real_path: real.to_string(),
                })
            })
            .await
    }
}

/// Find files and directories by a glob pattern: `**/*.rs`, `src/**/*.{ts,tsx}`, `*.md`.
///
/// The pattern is matched against the path below the directory that is searched, and `*` does not
/// match a slash. What `.gitignore` files name is left out, and `.git` itself.
#[derive(Deserialize, JsonSchema)]
pub struct Glob {
    /// Directory to search. Absolute; `~` at its beginning is the home directory.
    pub(super) path: String,
    pub(super) pattern: String,
    /// Most entries in the reply.
    #[schemars(extend("default" = 1000, "maximum" = 10000))]
    pub(super) max_results: Option<u64>,
    /// How many directories deep to go.
    #[schemars(extend("default" = 50, "maximum" = 100))]
    pub(super) max_depth: Option<u64>,
    /// Most entries to look at.
    #[schemars(extend("default" = 100000, "maximum" = 500000))]
    pub(super) max_files_scanned: Option<u64>,
    /// Seconds after which the search ends with what it has.
    #[schemars(extend("default" = 30, "maximum" = 120))]
    pub(super) timeout: Option<u64>,
    /// Find also what `.gitignore` files name.
    #[serde(default)]
    pub(super) no_ignore: bool,
    /// Order of the reply; `mtime` by default.
    pub(super) sort: Option<Sort>,
    /// `desc` by default for `mtime`, else `asc`.
    pub(super) order: Option<Order>,
}

impl Glob {
    /// What the parameters come to.
    pub fn wish(&self) -> Result<search::Glob, Fault> {
        let sort = self.sort.unwrap_or(Sort::Mtime);
        Ok(search::Glob {
            pattern: self.pattern.clone(),
            results: within("max_results", self.max_results, 1000, 10_000)? as usize,
            bounds: bounds(
                self.max_depth,
                self.timeout,
                !self.no_ignore,
                self.max_files_scanned,
            )?,
            sort,
            order: self.order.unwrap_or(if sort == Sort::Mtime {
                Order::Desc
            } else {
                Order::Asc
            }),
        })
    }
}

fn bounds(
    depth: Option<u64>,
    seconds: Option<u64>,
    ignore: bool,
    entries: Option<u64>,
) -> Result<Bounds, Fault> {
    Ok(Bounds {
        depth: within("max_depth", depth, 50, 100)?.max(1) as usize,
        entries: within("max_files_scanned", entries, 100_000, 500_000)? as usize,
        time: Duration::from_secs(within("timeout", seconds, 30, 120)?),
        ignore,
    })
}

impl Operation for Glob {
    const ROUTE: Route = Route::get("/api/v1/files/glob/{*path}")
        .named("globFiles")
        .cli("files glob");
    type Service = Files;
    type Reply = search::GlobResults;
    async fn run(self, files: Files, call: Call) -> Result<search::GlobResults, Fault> {
        let path = asked(&files, Self::ROUTE, &call, &self.path)?;
        let wish = self.wish()?;
        let service = files.clone();
        files
            .work
            .search(move |wanted| wish.run(&service, &path, wanted))
            .await
    }
}

/// Find lines in files by a regular expression.
///
/// What `.gitignore` files name is left out, and so are binary files from their first NUL byte on.
#[derive(Deserialize, JsonSchema)]
pub struct Grep {
    /// File or directory to search. Absolute; `~` at its beginning is the home directory.
    pub(super) path: String,
    /// Regular expression, or the text itself with `fixed_string`.
    pub(super) pattern: String,
    #[serde(default)]
    pub(super) ignore_case: bool,
    /// Take the pattern as it stands.
    #[serde(default)]
    pub(super) fixed_string: bool,
    /// Only files that fit: `*.rs` for a name, `src/**/*.rs` for a path.
    pub(super) glob: Option<String>,
    /// Lines to show before and after each match.
    #[schemars(extend("default" = 0, "maximum" = 10))]
    pub(super) context: Option<u64>,
    /// Most matches in one file.
    #[schemars(extend("default" = 50, "maximum" = 1000))]
    pub(super) max_count: Option<u64>,
    /// Most matches in all.
    #[schemars(extend("default" = 500, "maximum" = 10000))]
    pub(super) max_matches: Option<u64>,
    /// How many directories deep to go.
    #[schemars(extend("default" = 50, "maximum" = 100))]
    pub(super) max_depth: Option<u64>,
    /// Pass over files larger than this many bytes.
    #[schemars(extend("default" = 10485760, "maximum" = 104857600))]
    pub(super) max_filesize: Option<u64>,
    /// Seconds after which the search ends with what it has.
    #[schemars(extend("default" = 30, "maximum" = 120))]
    pub(super) timeout: Option<u64>,
    /// Search also what `.gitignore` files name.
    #[serde(default)]
    pub(super) no_ignore: bool,
}

impl Grep {
    /// What the parameters come to.
    pub fn wish(&self) -> Result<search::Grep, Fault> {
        Ok(search::Grep {
            pattern: self.pattern.clone(),
            ignore_case: self.ignore_case,
            fixed_string: self.fixed_string,
            glob: self.glob.clone().filter(|glob| !glob.is_empty()),
            context: within("context", self.context, 0, 10)? as usize,
            per_file: within("max_count", self.max_count, 50, 1000)?,
            matches: within("max_matches", self.max_matches, 500, 10_000)? as usize,
            file_bytes: within("max_filesize", self.max_filesize, 10 << 20, 100 << 20)?,
            bounds: bounds(self.max_depth, self.timeout, !self.no_ignore, Some(500_000))?,
        })
    }
}

impl Operation for Grep {
    const ROUTE: Route = Route::get("/api/v1/files/grep/{*path}")
        .named("grepFiles")
        .cli("files grep");
    type Service = Files;
    type Reply = search::GrepResults;
    async fn run(self, files: Files, call: Call) -> Result<search::GrepResults, Fault> {
        let path = asked(&files, Self::ROUTE, &call, &self.path)?;
        let wish = self.wish()?;
        let service = files.clone();
        files
            .work
            .search(move |wanted| wish.run(&service, &path, wanted))
            .await
    }
}

/// What became of a change.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Done {
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// Devices, sockets and FIFOs in a tree that were not copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<u64>,
}

impl Done {
    fn at(path: &FilePath) -> Done {
        Done {
            success: true,
            path: Some(path.to_string()),
            ..Done::default()
        }
    }
    fn between(route: &change::Route) -> Done {
        Done {
            success: true,
            source: Some(route.from.to_string()),
            destination: Some(route.to.to_string()),
            ..Done::default()
        }
    }
}

/// What became of a change, in the envelope that the operations with several faces answer in.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Enveloped {
    status_code: u16,
    message: String,
    data: Done,
}

impl Enveloped {
    fn new(message: impl Into<String>, data: Done) -> Self {
        Enveloped {
            status_code: 200,
            message: message.into(),
            data,
        }
    }
}

async fn chmod(files: &Files, call: &Call, path: FilePath, mode: String) -> Result<Done, Fault> {
    let (service, headers) = (files.clone(), call.headers.clone());
    files
        .work
        .short(move || {
            lock::check(&service, &headers, &path, &[(&path, Reach::Content)])?;
            let mode = change::chmod(&service, &path, &mode)?;
            Ok(Done {
                mode: Some(mode),
                ..Done::at(&path)
            })
        })
        .await
}

async fn chown(files: &Files, call: &Call, path: FilePath, owner: String) -> Result<Done, Fault> {
    let (service, headers) = (files.clone(), call.headers.clone());
    files
        .work
        .short(move || {
            lock::check(&service, &headers, &path, &[(&path, Reach::Content)])?;
            let owned = change::chown(&service, &path, &owner)?;
            Ok(Done {
                owner: Some(owned.owner),
                group: Some(owned.group),
                ..Done::at(&path)
            })
        })
        .await
}

async fn copy(files: &Files, call: &Call, route: change::Route) -> Result<Done, Fault> {
    let (service, headers) = (files.clone(), call.headers.clone());
    files
        .work
        .tree(move |wanted| {
            let copied = route.copy(&service, &headers, true, wanted)?;
            let skipped = Some(copied.skipped).filter(|skipped| *skipped > 0);
            Ok(Done {
                skipped,
                ..Done::between(&route)
            })
        })
        .await
}

async fn relocate(files: &Files, call: &Call, route: change::Route) -> Result<Done, Fault> {
    let (service, headers) = (files.clone(), call.headers.clone());
    files
        .work
        .tree(move |wanted| {
            route.relocate(&service, &headers, wanted)?;
            Ok(Done::between(&route))
        })
        .await
}

fn route(
    files: &Files,
    from: FilePath,
    to: FilePath,
    overwrite: bool,
    owner: Option<&str>,
) -> Result<change::Route, Fault> {
    Ok(change::Route {
        from,
        to,
        replace: if overwrite {
            Replace::SameKind
        } else {
            Replace::Never
        },
        owner: users::owner(&files.root, owner)?,
        parents: true,
    })
}

/// Set the permissions of a file or directory.
#[derive(Deserialize, JsonSchema)]
pub struct Chmod {
    /// Absolute path; `~` at its beginning is the home directory.
    path: String,
    /// Octal mode: `755`, `0644`.
    chmod: String,
}

impl Operation for Chmod {
    const ROUTE: Route = Route::patch("/api/v1/files/chmod/{*path}")
        .query(&["chmod"])
        .named("chmodFile")
        .cli("files chmod");
    type Service = Files;
    type Reply = Done;
    async fn run(self, files: Files, call: Call) -> Result<Done, Fault> {
        let path = asked(&files, Self::ROUTE, &call, &self.path)?;
        chmod(&files, &call, path, self.chmod).await
    }
}

/// Set owner and group of a file or directory. Nothing can be given to root.
#[derive(Deserialize, JsonSchema)]
pub struct Chown {
    /// Absolute path; `~` at its beginning is the home directory.
    path: String,
    /// `user`, `user:group`, `user:` for the user's own group, `:group`; names or numbers.
    chown: String,
}

impl Operation for Chown {
    const ROUTE: Route = Route::patch("/api/v1/files/chown/{*path}")
        .query(&["chown"])
        .named("chownFile")
        .cli("files chown");
    type Service = Files;
    type Reply = Done;
    async fn run(self, files: Files, call: Call) -> Result<Done, Fault> {
        let path = asked(&files, Self::ROUTE, &call, &self.path)?;
        chown(&files, &call, path, self.chown).await
    }
}

/// Copy a file, or a directory with all that is in it.
///
/// The copy appears when it is complete, under directories that are made where they are missing. A
/// link named as source is followed; links in a tree are copied as links.
#[derive(Deserialize, JsonSchema)]
pub struct Copy {
    /// What to copy. Absolute; `~` at its beginning is the home directory.
    path: String,
    /// Path of the copy.
    copy_to: String,
    /// Replace what is there: a file by a file, a directory, as a whole, by a directory.
    #[serde(default)]
    overwrite: bool,
    /// Owner of what is new: `user`, `user:group`, or numbers. By default whoever owns the
    /// directory it is made in.
    owner: Option<String>,
}

impl Operation for Copy {
    const ROUTE: Route = Route::post("/api/v1/files/copy/{*path}")
        .query(&["copy_to", "overwrite", "owner"])
        .named("copyFile")
        .cli("files copy");
    type Service = Files;
    type Reply = Done;
    async fn run(self, files: Files, call: Call) -> Result<Done, Fault> {
        let from = asked(&files, Self::ROUTE, &call, &self.path)?;
        let to = named(&files, &call, "copy_to", &self.copy_to)?;
        copy(
            &files,
            &call,
            route(&files, from, to, self.overwrite, self.owner.as_deref())?,
        )
        .await
    }
}

/// Move or rename a file, a link or a directory.
///
/// Directories above the destination are made where they are missing. Between file systems it is
/// copied whole and then removed.
#[derive(Deserialize, JsonSchema)]
pub struct Move {
    /// What to move. Absolute; `~` at its beginning is the home directory.
    path: String,
    /// Where to.
    move_to: String,
    /// Replace what is there: a file by a file, a directory, as a whole, by a directory.
    #[serde(default)]
    overwrite: bool,
    /// Owner of directories that are made: `user`, `user:group`, or numbers.
    owner: Option<String>,
}

impl Operation for Move {
    const ROUTE: Route = Route::post("/api/v1/files/move/{*path}")
        .query(&["move_to", "overwrite", "owner"])
        .named("moveFile")
        .cli("files move");
    type Service = Files;
    type Reply = Done;
    async fn run(self, files: Files, call: Call) -> Result<Done, Fault> {
        let from = asked(&files, Self::ROUTE, &call, &self.path)?;
        let to = named(&files, &call, "move_to", &self.move_to)?;
        relocate(
            &files,
            &call,
            route(&files, from, to, self.overwrite, self.owner.as_deref())?,
        )
        .await
    }
}

/// Make a directory, or move or copy something: one of `mkdir`, `move_to`, `copy_to`.
#[derive(Deserialize, JsonSchema)]
pub struct Operate {
    /// Absolute path; `~` at its beginning is the home directory.
    path: String,
    /// Make this directory, and those above it where they are missing. One that exists is well.
    #[serde(default)]
    mkdir: bool,
    /// Move it here.
    move_to: Option<String>,
    /// Copy it here.
    copy_to: Option<String>,
    /// Replace what is there.
    #[serde(default)]
    overwrite: bool,
    /// Owner of what is new: `user`, `user:group`, or numbers.
    owner: Option<String>,
    /// Not available: archives are not extracted by this service.
    extract: Option<String>,
    /// Not available: nothing is downloaded by this service.
    download_from: Option<String>,
    /// Do it on this backend instead.
    backend: Option<String>,
}

impl Operation for Operate {
    const ROUTE: Route = Route::post("/api/v1/files/{*path}")
        .query(&[
            "mkdir",
            "move_to",
            "copy_to",
            "overwrite",
            "owner",
            "extract",
            "download_from",
            "backend",
        ])
        .named("postFileOperation");
    type Service = Files;
    type Reply = Enveloped;
    async fn run(self, files: Files, call: Call) -> Result<Enveloped, Fault> {
        if self.extract.is_some() {
            return Err(super::read::absent("extracting archives"));
        }
        if self.download_from.is_some() {
            return Err(super::read::absent("downloading from a URL"));
        }
        let path = asked(&files, Self::ROUTE, &call, &self.path)?;
        let owner = self.owner.as_deref();
        if let Some(place) = place(&files, self.backend.as_deref(), &path).await? {
            return match (self.mkdir, self.move_to, self.copy_to) {
                (true, None, None) => {
                    files.remote.make_directory(&place).await?;
                    Ok(Enveloped::new("Directory created", Done::at(&path)))
                }
                (false, Some(to), None) => {
                    let to = named(&files, &call, "move_to", &to)?;
                    transfer(&files, place, to, false, self.overwrite).await
                }
                (false, None, Some(to)) => {
                    let to = named(&files, &call, "copy_to", &to)?;
                    transfer(&files, place, to, true, self.overwrite).await
                }
                _ => Err(Fault::bad_request(
                    "say what to do with one of mkdir, move_to, copy_to",
                )),
            };
        }
        match (self.mkdir, self.move_to, self.copy_to) {
            (true, None, None) => {
                let owner = users::owner(&files.root, owner)?;
                let service = files.clone();
                files
                    .work
                    .short(move || {
                        lock::check(&service, &call.headers, &path, &[(&path, Reach::Member)])?;
                        let made = change::make_directory(&service, &path, owner)?;
                        let message = if made {
                            "Directory created"
                        } else {
                            "The directory was there"
                        };
                        Ok(Enveloped::new(message, Done::at(&path)))
                    })
                    .await
            }
            (false, Some(to), None) => {
                let to = named(&files, &call, "move_to", &to)?;
                let done = relocate(
                    &files,
                    &call,
                    route(&files, path, to, self.overwrite, owner)?,
                )
                .await?;
                Ok(Enveloped::new("Moved", done))
            }
            (false, None, Some(to)) => {
                let to = named(&files, &call, "copy_to", &to)?;
                let done = copy(
                    &files,
                    &call,
                    route(&files, path, to, self.overwrite, owner)?,
                )
                .await?;
                Ok(Enveloped::new("Copied", done))
            }
            _ => Err(Fault::bad_request(
                "say what to do with one of mkdir, move_to, copy_to",
            )),
        }
    }
}

/// Change permissions or owner, or move or rename: one of `chmod`, `chown`, `move_to`, `name`.
#[derive(Deserialize, JsonSchema)]
pub struct Modify {
    /// Absolute path; `~` at its beginning is the home directory.
    path: String,
    /// Octal mode: `755`, `0644`.
    chmod: Option<String>,
    /// `user`, `user:group`, `user:`, `:group`; names or numbers.
    chown: Option<String>,
    /// Owner of directories that a move makes.
    owner: Option<String>,
    /// Move it here.
    move_to: Option<String>,
    /// Give it this name in its directory.
    name: Option<String>,
    /// Do it on this backend instead.
    backend: Option<String>,
}

impl Operation for Modify {
    const ROUTE: Route = Route::patch("/api/v1/files/{*path}")
        .query(&["chmod", "chown", "owner", "backend"])
        .named("patchFileApi");
    type Service = Files;
    type Reply = Enveloped;
    async fn run(self, files: Files, call: Call) -> Result<Enveloped, Fault> {
        let path = asked(&files, Self::ROUTE, &call, &self.path)?;
        if let Some(place) = place(&files, self.backend.as_deref(), &path).await? {
            let to = match (self.chmod, self.chown, self.move_to, self.name) {
                (None, None, Some(to), None) => named(&files, &call, "move_to", &to)?,
                (None, None, None, Some(name)) => change::renamed(&path, &name)?,
                _ => {
                    return Err(Fault::bad_request(
                        "permissions and owners are not supported with remote backends; move_to and name are",
                    ));
                }
            };
            return transfer(&files, place, to, false, false).await;
        }
        match (self.chmod, self.chown, self.move_to, self.name) {
            (Some(mode), None, None, None) => Ok(Enveloped::new(
                "Permissions changed",
                chmod(&files, &call, path, mode).await?,
            )),
            (None, Some(owner), None, None) => Ok(Enveloped::new(
                "Owner changed",
                chown(&files, &call, path, owner).await?,
            )),
            (None, None, Some(to), None) => {
                let to = named(&files, &call, "move_to", &to)?;
                let done = relocate(
                    &files,
                    &call,
                    route(&files, path, to, false, self.owner.as_deref())?,
                )
                .await?;
                Ok(Enveloped::new("Moved", done))
            }
            (None, None, None, Some(name)) => {
                let to = change::renamed(&path, &name)?;
                let done = relocate(&files, &call, route(&files, path, to, false, None)?).await?;
                Ok(Enveloped::new("Renamed", done))
            }
            _ => Err(Fault::bad_request(
                "say what to change: chmod or chown in the query, or move_to or name in the body",
            )),
        }
    }
}

/// Remove a file, a link, or a directory with all that is in it.
#[derive(Deserialize, JsonSchema)]
pub struct Delete {
    /// Absolute path; `~` at its beginning is the home directory.
    path: String,
    /// Do it on this backend instead.
    backend: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Removed {
    pub success: bool,
    pub message: String,
}

/// Remove what is at a path.
pub async fn remove(files: &Files, headers: &HeaderMap, path: FilePath) -> Result<Removed, Fault> {
    let (service, headers) = (files.clone(), headers.clone());
    // One file does not wait for the trees of others.
    let (at, single) = (path.clone(), files.clone());
    let is_single = files
        .work
        .short(move || change::is_single(&single, &at))
        .await?;
    if is_single {
        return files
            .work
            .short(move || {
                change::remove_unlocked(&service, &headers, &path, &Wanted::default())?;
                Ok(Removed {
                    success: true,
                    message: format!("Removed {path}"),
                })
            })
            .await;
    }
    files
        .work
        .tree(move |wanted| {
            change::remove_unlocked(&service, &headers, &path, wanted)?;
            Ok(Removed {
                success: true,
                message: format!("Removed {path}"),
            })
        })
        .await
}

impl Operation for Delete {
    const ROUTE: Route = Route::delete("/api/v1/files/{*path}")
        .named("deleteFile")
        .cli("files delete");
    type Service = Files;
    type Reply = Removed;
    async fn run(self, files: Files, call: Call) -> Result<Removed, Fault> {
        let path = asked(&files, Self::ROUTE, &call, &self.path)?;
        if let Some(place) = place(&files, self.backend.as_deref(), &path).await? {
            files.remote.remove(&place).await?;
            return Ok(Removed {
                success: true,
                message: format!("Removed {path}"),
            });
        }
        remove(&files, &call.headers, path).await
    }
}
