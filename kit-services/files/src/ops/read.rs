//! Reading: a listing, a file, or one of the views that a query key selects.

use std::sync::LazyLock;

use axum::extract::Request;
use axum::response::Response;
use axum::routing::get;
use http::header::{ACCEPT, VARY};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use kit::{Fault, Raw, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::api::{self, within};
use crate::Files;
use crate::content::{Content, Manner, respond_plain};
use crate::entry::FileStat;
use crate::fault::failed;
use crate::jail::Links;
use crate::lines::{Found, Lines, LinesError};
use crate::listing::{self, DirectoryListing, Order, PAGE, Sort, Wish};
use crate::path::FilePath;
use crate::remote::access::Words;
use crate::remote::place::Place;
use crate::search;
use crate::work::Wanted;
use crate::zip;

/// Where a listing begins that begins nowhere in particular, at most.
const OFFSET: u64 = 1 << 32;

/// What can be asked about a file or directory.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Read {
    /// Absolute path; `~` at its beginning is the home directory.
    pub path: String,
    /// Describe it instead of sending it.
    pub stat: bool,
    /// Send the SHA-256 of the file, in hex.
    pub sha256: bool,
    /// The same as `sha256`.
    pub hash: bool,
    /// Send the file in base64.
    pub base64: bool,
    /// Send some lines: `10-50`, `100`, `50-`, or the last twenty as `-20`. `X-Line-Range` says
    /// which they are and `X-Total-Lines`, where it came out, how many there are.
    pub lines: Option<String>,
    /// Search a file or directory for a regular expression; see the operation `grepFiles`.
    pub grep: Option<String>,
    /// Find files by a glob pattern; with `grep`, which files to search.
    pub glob: Option<String>,
    pub ignore_case: bool,
    pub fixed_string: bool,
    /// Lines to show before and after each match.
    #[schemars(extend("default" = 0, "maximum" = 10))]
    pub context: Option<u64>,
    #[schemars(extend("default" = 50, "maximum" = 1000))]
    pub max_count: Option<u64>,
    #[schemars(extend("default" = 500, "maximum" = 10000))]
    pub max_matches: Option<u64>,
    #[schemars(extend("default" = 50, "maximum" = 100))]
    pub max_depth: Option<u64>,
    #[schemars(extend("default" = 10485760, "maximum" = 104857600))]
    pub max_filesize: Option<u64>,
    #[schemars(extend("default" = 1000, "maximum" = 10000))]
    pub max_results: Option<u64>,
    #[schemars(extend("default" = 100000, "maximum" = 500000))]
    pub max_files_scanned: Option<u64>,
    #[schemars(extend("default" = 30, "maximum" = 120))]
    pub timeout: Option<u64>,
    pub no_ignore: bool,
    /// Order of a listing or of what a glob pattern finds.
    pub sort: Option<Sort>,
    pub order: Option<Order>,
    /// Entries of a listing to pass over.
    pub offset: Option<u64>,
    /// Most entries of a listing.
    #[schemars(extend("maximum" = 10000))]
    pub limit: Option<u64>,
    /// Send a file as a download.
    pub download: Option<String>,
    /// Send a file under this content type.
    #[serde(rename = "content-type")]
    pub content_type: Option<String>,
    /// List a directory as JSON, also to a browser.
    pub json: Option<String>,
    /// List a directory as text, one name a line.
    pub simple: Option<String>,
    /// Search a directory for names that contain this.
    pub q: Option<String>,
    /// Send a directory as a zip archive.
    pub zip: Option<String>,
    /// Read from this backend instead.
    pub backend: Option<String>,
}

static SCHEMA: LazyLock<Value> = LazyLock::new(|| schemars::schema_for!(Read).to_value());

/// Keys of the interface that select what this service does not do. They are refused, since an
/// answer that passes over them would be another than was asked for.
const ABSENT: &[(&str, &str)] = &[
    ("thumbnail", "image processing"),
    ("history", "a history of files"),
    ("at", "a history of files"),
    ("revision", "a history of files"),
    ("diff", "a history of files"),
    ("downloads", "downloading from a URL"),
    ("download_history", "downloading from a URL"),
];

/// The refusal of what this service does not do.
pub fn absent(what: &str) -> Fault {
    Fault::new(
        StatusCode::NOT_IMPLEMENTED,
        format!("{what} is not part of this service"),
    )
    .code("NOT_IMPLEMENTED")
}

/// What a GET may answer in JSON.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)] // stands for its variants in the document
enum Answer {
    Listing(DirectoryListing),
    Stat(FileStat),
    Grep(search::GrepResults),
    Glob(search::GlobResults),
}

pub fn raws(files: &Files) -> Vec<Raw> {
    let files = files.clone();
    let handler = get(move |request: Request| {
        let files = files.clone();
        async move {
            let (parts, _) = request.into_parts();
            let rest = parts
                .uri
                .path()
                .strip_prefix(GET.rest_prefix().unwrap_or_default());
            let path = files.path_of_url(rest.unwrap_or_default());
            match path {
                Ok(path) => answer(&files, path, &parts).await,
                Err(fault) => crate::refuse(&fault),
            }
        }
    });
    vec![
        Raw::new(
            GET,
            "Read a file or list a directory.\n\nA file is sent as it is, with ranges and conditional \
             requests; a directory as JSON. Query keys select a view instead.",
        )
        .parameters::<Read>()
        .replies::<Answer>()
        .handler(handler),
        Raw::new(
            Route::get("/api/v1/files/health").named("files_healthCheck").cli("files health").open(),
            "Whether the service is well.",
        )
        .replies::<kit::health::Health>(),
    ]
}

const GET: Route = Route::get("/api/v1/files/{*path}")
    .named("getFile")
    .cli("files get");

/// Answer a GET or HEAD.
pub async fn answer(files: &Files, path: FilePath, request: &Parts) -> Response {
    match try_answer(files, path, request).await {
        Ok(response) if request.method == Method::HEAD => bare(response),
        Ok(response) => response,
        Err(fault) => {
            let response = crate::refuse(&fault);
            if request.method == Method::HEAD {
                bare(response)
            } else {
                response
            }
        }
    }
}

/// The same answer without its body, its length still named.
fn bare(response: Response) -> Response {
    use axum::body::HttpBody;
    let (mut parts, body) = response.into_parts();
    if let Some(len) = body.size_hint().exact().filter(|len| *len > 0) {
        parts
            .headers
            .entry(http::header::CONTENT_LENGTH)
            .or_insert(HeaderValue::from(len));
    }
    Response::from_parts(parts, axum::body::Body::empty())
}

async fn try_answer(files: &Files, path: FilePath, request: &Parts) -> Result<Response, Fault> {
    let query = kit::arguments::query_all(request.uri.query().unwrap_or_default());
    for (key, what) in ABSENT {
        if query.iter().any(|(name, _)| name == key) {
            return Err(absent(what));
        }
    }
    let place = elsewhere(files, &query, path.clone()).await?;
    match &place {
        Some(_) if super::archives::asks(&query) => {
            return Err(absent("looking into an archive on another server"));
        }
        Some(_) => {}
        None => {
            let answer = super::archives::answer(files, &path, request, &query);
            if let Some(response) = answer.await? {
                return Ok(response);
            }
        }
    }
    let read: Read = parse(query)?;
    if let Some(place) = place {
        return remote(files, &place, &read, request).await;
    }
    let (service, at) = (files.clone(), path.clone());
    if read.stat {
        let stat = files
            .work
            .short(move || FileStat::of(&service, &at))
            .await?;
        return Ok(json(&stat));
    }
    if let Some(pattern) = &read.grep {
        let wish = read.grep(pattern).wish()?;
        return Ok(json(
            &files
                .work
                .search(move |wanted| wish.run(&service, &at, wanted))
                .await?,
        ));
    }
    if let Some(pattern) = &read.glob {
        let wish = read.glob(pattern).wish()?;
        return Ok(json(
            &files
                .work
                .search(move |wanted| wish.run(&service, &at, wanted))
                .await?,
        ));
    }
    let is_directory = {
        let (service, at) = (files.clone(), path.clone());
        let find = move || {
            let found = service
                .root
                .find(&at, Links::Follow)
                .map_err(failed("read", &at))?;
            Ok(found.is_directory())
        };
        files.work.short(find).await?
    };
    if is_directory {
        return directory(files, path, &read, request).await;
    }
    file(files, path, &read, request).await
}

/// The place on another server that a request names, where it names one: a backend by its id, or a
/// type with a server and what opens it.
pub async fn elsewhere(
    files: &Files,
    query: &[(String, String)],
    path: FilePath,
) -> Result<Option<Place>, Fault> {
    let word = |name: &str| super::write::value(query, name).filter(|value| !value.is_empty());
    match (word("backend"), word("type")) {
        (None, None) => Ok(None),
        (Some(id), None) => files.remote.place(id, path).await,
        (None, Some(kind)) => Ok(Some(files.remote.access(kind, &Words(query), path).await?)),
        (Some(_), Some(_)) => Err(Fault::bad_request(
            "name a server by `backend` or by `type`, not both",
        )),
    }
}

async fn remote(
    files: &Files,
    place: &Place,
    read: &Read,
    request: &Parts,
) -> Result<Response, Fault> {
    let others = [
        (read.grep.is_some(), "grep"),
        (read.glob.is_some(), "glob"),
        (read.zip.is_some(), "zip"),
        (read.q.is_some(), "q"),
    ];
    let of_files = read.of_files().into_iter();
    if let Some((_, name)) = of_files.chain(others).find(|(given, _)| *given) {
        return Err(Fault::bad_request(format!(
            "`{name}` is not supported with remote backends; mount the backend, or copy the file here"
        )));
    }
    let item = files.remote.look(place).await?;
    if read.stat {
        return Ok(json(&item.stat(&place.path)));
    }
    if item.directory {
        let listing = files.remote.list(place, read.wish()?).await?;
        return Ok(vary(listed(&listing, read)));
    }
    let manner = read.manner()?;
    files
        .remote
        .send(place, &item, &request.method, &request.headers, &manner)
        .await
}

async fn directory(
    files: &Files,
    path: FilePath,
    read: &Read,
    request: &Parts,
) -> Result<Response, Fault> {
    if let Some((_, name)) = read.of_files().into_iter().find(|(given, _)| *given) {
        return Err(Fault::bad_request(format!(
            "{path} is a directory; `{name}` is for files"
        )));
    }
    if read
        .download
        .as_deref()
        .is_some_and(|url| !matches!(url, "" | "1" | "true"))
    {
        return Err(absent("downloading from a URL"));
    }
    if read.zip.is_some() {
        return zip::respond(files, path, &request.method).await;
    }
    let service = files.clone();
    if let Some(query) = read.q.clone().filter(|query| !query.is_empty()) {
        let search = move |wanted: &Wanted| search::by_name(&service, &path, &query, wanted);
        return Ok(listed(&files.work.search(search).await?, read));
    }
    let plain = read.json.is_none() && read.simple.is_none();
    if let Some(page) = files.page.filter(|_| plain && wants_page(&request.headers)) {
        return Ok(vary(page()));
    }
    let wish = read.wish()?;
    let listing = files
        .work
        .short(move || listing::of(&service, &path, wish))
        .await?;
    Ok(vary(listed(&listing, read)))
}

fn listed(listing: &DirectoryListing, read: &Read) -> Response {
    if read.simple.is_some() {
        return respond_plain(&Method::GET, listing.lines());
    }
    json(listing)
}

async fn file(
    files: &Files,
    path: FilePath,
    read: &Read,
    request: &Parts,
) -> Result<Response, Fault> {
    let method = &request.method;
    if read.zip.is_some() {
        return Err(Fault::bad_request(format!(
            "{path} is a file; `zip` is for directories"
        )));
    }
    let lines = read.lines.as_deref().map(Lines::parse).transpose()?;
    let (service, at) = (files.clone(), path.clone());
    let content = files
        .work
        .short(move || Content::open(&service, &at))
        .await?;
    if read.sha256 || read.hash {
        let sum = files
            .work
            .search(move |wanted| content.sha256(wanted))
            .await?;
        return Ok(respond_plain(method, sum));
    }
    if read.base64 {
        return content.respond_base64(files, method);
    }
    if let Some(lines) = lines {
        return some_lines(files, content, lines, method).await;
    }
    let manner = read.manner()?;
    Ok(content.respond(files, method, &request.headers, &manner))
}

async fn some_lines(
    files: &Files,
    content: Content,
    lines: Lines,
    method: &Method,
) -> Result<Response, Fault> {
    let in_memory = content.is_whole();
    let find = move |wanted: &Wanted| {
        let len = content.size()?;
        let found = lines.find(len, |at, want| content.read_at(at, want), wanted);
        let found = found.map_err(|error| match error {
            LinesError::Read(error) => failed("read", content.path())(error),
            LinesError::Unwanted => Fault::unavailable("the caller went away"),
        })?;
        Ok((content, found))
    };
    let (content, found) = if in_memory {
        find(&Wanted::default())?
    } else {
        files.work.search(find).await?
    };
    let Some(Found {
        from,
        to,
        range,
        count,
        total,
        truncated,
    }) = found
    else {
        return Err(Fault::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            format!("{} ends before the first of these lines", content.path()),
        ));
    };
    let mut response = content.respond_text(files, method, from, to);
    let range = range.map_or_else(
        || {
            if count == 0 {
                "0-0".to_owned()
            } else {
                format!("-{count}")
            }
        },
        |(first, last)| format!("{first}-{last}"),
    );
    let headers = response.headers_mut();
    headers.insert(
        "x-line-range",
        HeaderValue::from_str(&range).expect("digits and a dash"),
    );
    if let Some(total) = total {
        headers.insert("x-total-lines", HeaderValue::from(total));
    }
    if truncated {
        headers.insert("x-truncated", HeaderValue::from_static("true"));
    }
    Ok(response)
}

impl Read {
    /// What is asked that only a file here can answer.
    fn of_files(&self) -> [(bool, &'static str); 3] {
        [
            (self.sha256 || self.hash, "sha256"),
            (self.base64, "base64"),
            (self.lines.is_some(), "lines"),
        ]
    }

    fn wish(&self) -> Result<Wish, Fault> {
        let sort = self.sort.unwrap_or(Sort::Name);
        Ok(Wish {
            sort,
            order: self.order.unwrap_or(if sort == Sort::Mtime {
                Order::Desc
            } else {
                Order::Asc
            }),
            offset: within("offset", self.offset, 0, OFFSET)? as usize,
            limit: within("limit", self.limit, PAGE as u64, PAGE as u64)? as usize,
        })
    }
    fn manner(&self) -> Result<Manner, Fault> {
        let content_type = self.content_type.clone().filter(|text| !text.is_empty());
        if let Some(mime) = &content_type
            && !is_mime(mime)
        {
            return Err(Fault::bad_request(format!("`{mime}` is no content type")));
        }
        Ok(Manner {
            attachment: self.download.is_some(),
            content_type,
        })
    }
    fn grep(&self, pattern: &str) -> api::Grep {
        api::Grep {
            path: String::new(),
            pattern: pattern.to_owned(),
            ignore_case: self.ignore_case,
            fixed_string: self.fixed_string,
            glob: self.glob.clone(),
            context: self.context,
            max_count: self.max_count,
            max_matches: self.max_matches,
            max_depth: self.max_depth,
            max_filesize: self.max_filesize,
            timeout: self.timeout,
            no_ignore: self.no_ignore,
        }
    }
    fn glob(&self, pattern: &str) -> api::Glob {
        api::Glob {
            path: String::new(),
            pattern: pattern.to_owned(),
            max_results: self.max_results,
            max_depth: self.max_depth,
            max_files_scanned: self.max_files_scanned,
            timeout: self.timeout,
            no_ignore: self.no_ignore,
            sort: self.sort,
            order: self.order,
        }
    }
}

fn parse(query: Vec<(String, String)>) -> Result<Read, Fault> {
    let arguments = kit::arguments::merge(&SCHEMA, None, query, [])?;
    serde_json::from_value(Value::Object(arguments)).map_err(|error| {
        Fault::bad_request(format!("invalid parameters: {error}")).code("VALIDATION_ERROR")
    })
}

pub fn json(reply: &impl Serialize) -> Response {
    let value = serde_json::to_value(reply).expect("replies are plain JSON");
    kit::http::json(StatusCode::OK, &value)
}

/// What `/` and every directory answer depends on who asks.
fn vary(mut response: Response) -> Response {
    response
        .headers_mut()
        .append(VARY, HeaderValue::from_static("accept"));
    response
}

/// Whether a person looks: only browsers that navigate name HTML.
fn wants_page(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"))
}

fn is_mime(text: &str) -> bool {
    let token = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
    };
    let (mime, parameters) = text.split_once(';').unwrap_or((text, ""));
    let printable = parameters
        .bytes()
        .all(|b| b == b' ' || b.is_ascii_graphic());
    mime.trim()
        .split_once('/')
        .is_some_and(|(kind, name)| token(kind) && token(name))
        && printable
}
