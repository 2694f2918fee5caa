//! The bytes of a file on their way out.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::{self, Stream};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use kit::Fault;
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use crate::Files;
use crate::conditions::{Span, Validator, Verdict, span, weigh};
use crate::entry::size;
use crate::fault::{failed, unreadable};
use crate::jail::Links;
use crate::path::{FilePath, encode};
use crate::walk::is_kernel;
use crate::work::Wanted;

/// Up to this size a file is read when it is opened: one turn instead of two, and the true size of
/// what the kernel makes up as it is read (`/proc`, `/sys`).
const SMALL: usize = 64 << 10;
/// What one turn reads of a larger one; also what a transfer holds in memory. Divisible by three,
/// so that chunks in base64 join without padding.
const CHUNK: usize = 96 << 10;
/// How much of a larger file is looked at to tell text from data.
const SNIFF: usize = 4 << 10;
/// How much one turn digests before it looks whether anyone still waits.
const DIGEST: usize = 1 << 20;

/// Scripts in a page that a file brings must not act as the file service does, whose origin they
/// would share: its own origin is opaque then.
const SANDBOX: &str = "sandbox allow-scripts allow-forms allow-popups allow-modals allow-downloads";

/// An open file.
#[derive(Debug)]
pub struct Content {
    file: Arc<File>,
    /// The first bytes, and all of them if `whole`.
    head: Bytes,
    whole: bool,
    /// None where only reading tells.
    len: Option<u64>,
    validator: Option<Validator>,
    path: FilePath,
}

/// How to send a file.
#[derive(Debug, Default)]
pub struct Manner {
    /// As a download, whatever it is.
    pub attachment: bool,
    /// Under this type instead of the one found out.
    pub content_type: Option<String>,
}

impl Content {
    /// Open the file at this path.
    pub fn open(files: &Files, path: &FilePath) -> Result<Content, Fault> {
        let found = files
            .root
            .find(path, Links::Follow)
            .map_err(failed("read", path))?;
        if found.is_directory() {
            return Err(
                Fault::conflict(format!("{path} is a directory, not a file"))
                    .code("IS_A_DIRECTORY"),
            );
        }
        let mut file = found.open(OFlags::RDONLY).map_err(failed("read", path))?;
        let claimed = size(&found.stat);
        let small = claimed <= SMALL as u64;
        let mut head = Vec::with_capacity(if small {
            SMALL.min(claimed as usize) + 1
        } else {
            SNIFF
        });
        let look = if small { SMALL + 1 } else { SNIFF };
        let read = Read::by_ref(&mut file)
            .take(look as u64)
            .read_to_end(&mut head);
        read.map_err(|error| {
            if is_kernel(&file) {
                unreadable(path, error)
            } else {
                failed("read", path)(error)
            }
        })?;
        let whole = small && head.len() <= SMALL;
        let len = match (small, whole) {
            (true, true) => Some(head.len() as u64),
            (true, false) => None,
            (false, _) => Some(claimed),
        };
        Ok(Content {
            file: Arc::new(file),
            validator: (len == Some(claimed)).then(|| Validator::of(&found.stat)),
            head: head.into(),
            whole,
            len,
            path: path.clone(),
        })
    }

    /// The size; fails where only reading the file to its end would tell it.
    pub fn size(&self) -> Result<u64, Fault> {
        self.len.ok_or_else(|| {
            Fault::bad_request(format!(
                "{} has no size that is known before it is read; read it whole",
                self.path
            ))
        })
    }

    /// Whether all of it is in memory.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    pub fn path(&self) -> &FilePath {
        &self.path
    }

    /// Bytes from this offset, as many as asked for unless the file ends.
    pub fn read_at(&self, at: u64, want: usize) -> io::Result<Bytes> {
        if self.whole {
            let from = usize::try_from(at)
                .unwrap_or(usize::MAX)
                .min(self.head.len());
            let to = from.saturating_add(want).min(self.head.len());
            return Ok(self.head.slice(from..to));
        }
        let mut buffer = vec![0; want];
        let mut filled = 0;
        while filled < want {
            match self.file.read_at(&mut buffer[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer.truncate(filled);
        Ok(buffer.into())
    }

    /// Answer a GET or HEAD for the file itself.
    pub fn respond(
        self,
        files: &Files,
        method: &Method,
        asked: &HeaderMap,
        manner: &Manner,
    ) -> Response {
        let mime = manner
            .content_type
            .clone()
            .unwrap_or_else(|| self.content_type());
        let begun = begin(&self.path, &mime, self.validator.as_ref(), asked, manner);
        let mut headers = match begun {
            Ok(headers) => headers,
            Err(response) => return *response,
        };
        let Some(len) = self.len else {
            let body = if method == Method::HEAD {
                Body::empty()
            } else {
                self.until_end(files)
            };
            return answer(StatusCode::OK, headers, body);
        };
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        // RFC 9110, section 14.2: a range means something for GET only.
        let ranged = method == Method::GET
            && self
                .validator
                .as_ref()
                .is_none_or(|one| one.same_range(asked));
        let (status, from, to) = match if ranged {
            span(asked, len)
        } else {
            Span::Whole
        } {
            Span::Whole => (StatusCode::OK, 0, len),
            Span::Part(from, to) => {
                headers.insert(
                    CONTENT_RANGE,
                    header(&format!("bytes {from}-{}/{len}", to - 1)),
                );
                (StatusCode::PARTIAL_CONTENT, from, to)
            }
            Span::Beyond => {
                let mut response = crate::refuse(&Fault::new(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    format!(
                        "{} has {len} bytes; the range asked for lies beyond them",
                        self.path
                    ),
                ));
                response
                    .headers_mut()
                    .insert(CONTENT_RANGE, header(&format!("bytes */{len}")));
                return response;
            }
        };
        headers.insert(CONTENT_LENGTH, HeaderValue::from(to - from));
        let body = if method == Method::HEAD {
            Body::empty()
        } else {
            self.part(files, from, to)
        };
        answer(status, headers, body)
    }

    /// Answer with a part of the file as plain text.
    pub fn respond_text(self, files: &Files, method: &Method, from: u64, to: u64) -> Response {
        let mut headers = plain();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(to - from));
        let body = if method == Method::HEAD {
            Body::empty()
        } else {
            self.part(files, from, to)
        };
        answer(StatusCode::OK, headers, body)
    }

    /// Answer with the file in base64.
    pub fn respond_base64(self, files: &Files, method: &Method) -> Result<Response, Fault> {
        use futures::TryStreamExt;
        let len = self.size()?;
        let mut headers = plain();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(len.div_ceil(3) * 4));
        let body = if method == Method::HEAD {
            Body::empty()
        } else {
            let encode = |bytes: Bytes| Bytes::from(STANDARD.encode(bytes));
            Body::from_stream(self.stream(files, 0, len).map_ok(encode))
        };
        Ok(answer(StatusCode::OK, headers, body))
    }

    /// The SHA-256 of the file, in hex.
    pub fn sha256(&self, wanted: &Wanted) -> Result<String, Fault> {
        let len = self.size()?;
        let (mut digest, mut at) = (Sha256::new(), 0);
        while at < len {
            wanted.check()?;
            let bytes = self
                .read_at(at, DIGEST)
                .map_err(failed("read", &self.path))?;
            if bytes.is_empty() {
                break;
            }
            at += bytes.len() as u64;
            digest.update(&bytes);
        }
        Ok(hex::encode(digest.finalize()))
    }

    fn part(self, files: &Files, from: u64, to: u64) -> Body {
        if self.whole {
            return Body::from(self.head.slice(from as usize..to as usize));
        }
        Body::from_stream(self.stream(files, from, to))
    }

    /// Exactly these bytes; a file that became shorter breaks the stream, so that nobody takes the
    /// beginning for the whole.
    fn stream(
        self,
        files: &Files,
        from: u64,
        to: u64,
    ) -> impl Stream<Item = io::Result<Bytes>> + use<> {
        let (files, content) = (files.clone(), Arc::new(self));
        stream::try_unfold(from, move |at| {
            let (files, content) = (files.clone(), content.clone());
            async move {
                if at >= to {
                    return Ok(None);
                }
                let want = usize::try_from(to - at).unwrap_or(CHUNK).min(CHUNK);
                let bytes = files
                    .work
                    .short(move || {
                        content
                            .read_at(at, want)
                            .map_err(failed("read", &content.path))
                    })
                    .await
                    .map_err(io::Error::other)?;
                if bytes.is_empty() {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the file became shorter",
                    ));
                }
                let next = at + bytes.len() as u64;
                Ok(Some((bytes, next)))
            }
        })
    }

    /// What the kernel makes up as it is read, to its end.
    fn until_end(self, files: &Files) -> Body {
        let (files, content) = (files.clone(), Arc::new(self));
        let head = content.head.clone();
        let rest = stream::try_unfold(head.len() as u64, move |at| {
            let (files, content) = (files.clone(), content.clone());
            async move {
                let bytes = files
                    .work
                    .short(move || {
                        content
                            .read_at(at, CHUNK)
                            .map_err(failed("read", &content.path))
                    })
                    .await
                    .map_err(io::Error::other)?;
                let next = at + bytes.len() as u64;
                Ok::<_, io::Error>(if bytes.is_empty() {
                    None
                } else {
                    Some((bytes, next))
                })
            }
        });
        Body::from_stream(futures::StreamExt::chain(
            stream::once(async { Ok(head) }),
            rest,
        ))
    }

    /// What it is by its name, and by its first bytes where the name does not say.
    fn content_type(&self) -> String {
        let text = is_text(&self.head, self.whole);
        let name = crate::entry::lossy(self.path.name());
        match mime_guess::from_path(&*name).first_raw() {
            Some(mime) if text && is_textual(mime) => format!("{mime}; charset=utf-8"),
            Some(mime) => mime.to_owned(),
            None if text => "text/plain; charset=utf-8".to_owned(),
            None => "application/octet-stream".to_owned(),
        }
    }
}

/// The headers of an answer that sends a file, or the answer itself where the conditions of the
/// request say that nothing is sent.
pub fn begin(
    path: &FilePath,
    mime: &str,
    validator: Option<&Validator>,
    asked: &HeaderMap,
    manner: &Manner,
) -> Result<HeaderMap, Box<Response>> {
    let mut headers = HeaderMap::new();
    if let Some(validator) = validator {
        validator.write(&mut headers);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    match weigh(asked, validator, true) {
        Verdict::Proceed => {}
        Verdict::NotModified => {
            return Err(Box::new(answer(
                StatusCode::NOT_MODIFIED,
                headers,
                Body::empty(),
            )));
        }
        Verdict::Failed => return Err(Box::new(precondition_failed(headers))),
    }
    if is_active(mime) {
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
    }
    if let Ok(mime) = HeaderValue::from_str(mime) {
        headers.insert(CONTENT_TYPE, mime);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if manner.attachment {
        headers.insert(CONTENT_DISPOSITION, attachment(path.name()));
    }
    Ok(headers)
}

/// A short answer in plain text.
pub fn respond_plain(method: &Method, text: String) -> Response {
    let mut headers = plain();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        Body::from(text)
    };
    answer(StatusCode::OK, headers, body)
}

/// The bytes of a file that came out of something else, by its name. What a browser would run runs
/// in no origin.
pub fn respond_bytes(name: &[u8], bytes: Vec<u8>) -> Response {
    let guess = mime_guess::from_path(crate::entry::lossy(name)).first_raw();
    let mime = match guess {
        Some(mime) if is_textual(mime) && is_text(&bytes, true) => format!("{mime}; charset=utf-8"),
        Some(mime) => mime.to_owned(),
        None if is_text(&bytes, true) => "text/plain; charset=utf-8".to_owned(),
        None => "application/octet-stream".to_owned(),
    };
    let mut headers = plain();
    if is_active(&mime) {
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
    }
    headers.insert(CONTENT_TYPE, header(&mime));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    answer(StatusCode::OK, headers, Body::from(bytes))
}

/// 412.
pub fn precondition_failed(headers: HeaderMap) -> Response {
    let mut response = crate::refuse(
        &Fault::new(
            StatusCode::PRECONDITION_FAILED,
            "the file is not in the state that the request names",
        )
        .code("PRECONDITION_FAILED"),
    );
    for (name, value) in headers {
        if let Some(name) = name {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn plain() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
}

fn answer(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("digits and punctuation are a valid header")
}

/// `Content-Disposition` with the name in both of its forms (RFC 6266).
pub fn attachment(name: &[u8]) -> HeaderValue {
    let plain: String = crate::entry::lossy(name)
        .chars()
        .map(|c| {
            if c.is_ascii() && !c.is_ascii_control() && c != '"' && c != '\\' {
                c
            } else {
                '_'
            }
        })
        .collect();
    let encoded = encode(name);
    header(&format!(
        "attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"
    ))
}

/// Whether bytes read as UTF-8 text; the last character may be cut off unless they are all.
fn is_text(bytes: &[u8], whole: bool) -> bool {
    if bytes.contains(&0) {
        return false;
    }
    match std::str::from_utf8(bytes) {
        Ok(_) => true,
        Err(error) => !whole && error.error_len().is_none(),
    }
}

fn is_textual(mime: &str) -> bool {
    mime.starts_with("text/")
        || mime.ends_with("+xml")
        || mime.ends_with("+json")
        || matches!(
            mime,
            "application/json"
                | "application/javascript"
                | "application/xml"
                | "application/toml"
                | "application/x-sh"
                | "application/yaml"
        )
}

/// Whether a browser may run what a document of this type says. What is not known to be inert is
/// taken to be active.
fn is_active(mime: &str) -> bool {
    let mime = mime
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let (class, kind) = mime.split_once('/').unwrap_or((&mime, ""));
    match class {
        "image" => kind.contains("xml"),
        "audio" | "video" | "font" => false,
        _ => !matches!(
            mime.as_str(),
            "text/plain" | "application/octet-stream" | "application/json" | "application/pdf"
        ),
    }
}
