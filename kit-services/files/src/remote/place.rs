//! What a request reads or writes on another server.

use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use kit::Fault;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{Remote, daemon};
use crate::conditions::{Span, Validator, span};
use crate::content::{Manner, begin};
use crate::entry::{PathItem, PathType};
use crate::listing::{DirectoryListing, Order, PAGE, Sort, Wish};
use crate::path::FilePath;

/// How long another server may take to begin with a file.
const BEGIN: Duration = Duration::from_secs(60);

/// A path of another server.
#[derive(Clone, Debug)]
pub struct Place {
    /// What rclone calls the server: the name of a backend, or a type with its parameters.
    pub fs: String,
    /// The backend, where it is one.
    pub id: Option<String>,
    pub path: FilePath,
    /// What no message repeats.
    pub secrets: Vec<String>,
}

/// A file or directory there.
#[derive(Debug)]
pub struct Item {
    pub name: String,
    pub directory: bool,
    pub size: u64,
    pub modified: Option<SystemTime>,
}

impl Item {
    fn read(value: &Value) -> Option<Item> {
        let time = value["ModTime"]
            .as_str()
            .and_then(|text| text.parse::<jiff::Timestamp>().ok());
        Some(Item {
            name: value["Name"].as_str()?.to_owned(),
            directory: value["IsDir"].as_bool()?,
            size: value["Size"].as_u64().unwrap_or(0),
            modified: time.map(SystemTime::from),
        })
    }

    fn mtime(&self) -> u64 {
        let since = self
            .modified
            .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        since
            .and_then(|since| u64::try_from(since.as_millis()).ok())
            .unwrap_or(0)
    }

    fn path_type(&self) -> PathType {
        if self.directory {
            PathType::Dir
        } else {
            PathType::File
        }
    }

    /// What tells one state of a file from another, where the server says when it changed.
    fn validator(&self) -> Option<Validator> {
        let modified = self.modified?;
        Some(Validator {
            etag: format!("\"{:x}-{:x}\"", self.size, self.mtime()),
            modified,
        })
    }

    /// The description of it in JSON.
    pub fn stat(&self, path: &FilePath) -> Value {
        json!({
            "name": self.name, "path": path.to_string(), "path_type": self.path_type(),
            "size": if self.directory { 0 } else { self.size }, "mtime": self.mtime(),
            "is_symlink": false, "symlink_target": null, "revisions": null,
        })
    }
}

impl Place {
    /// The path as rclone takes it; names there are text.
    fn remote(&self) -> Result<&str, Fault> {
        let text = std::str::from_utf8(self.path.bytes())
            .map_err(|_| Fault::bad_request("paths of other servers are UTF-8"))?;
        match text.chars().any(char::is_control) {
            true => Err(Fault::bad_request(
                "paths of other servers have no control characters",
            )),
            false => Ok(text),
        }
    }

    fn act(&self, act: &str) -> String {
        format!("{act} {} of the other server", self.path)
    }
}

impl Remote {
    /// The place at a path of a backend. Where the backend is this computer there is none: its files
    /// are the service's own, which it reaches without leaving its root.
    pub async fn place(&self, id: &str, path: FilePath) -> Result<Option<Place>, Fault> {
        let backend = self.backend(id).await?;
        Ok((backend.backend_type != "local").then(|| Place {
            fs: format!("{}:", backend.id),
            id: Some(backend.id),
            path,
            secrets: Vec::new(),
        }))
    }

    async fn there(
        &self,
        place: &Place,
        method: &str,
        parameters: Value,
        act: &str,
    ) -> Result<Value, Fault> {
        let answer = self.call(method, &parameters).await?;
        if let Some(id) = &place.id {
            let answered = answer
                .as_ref()
                .map_or_else(|failure| failure.is_missing(), |_| true);
            self.note(id, answered);
        }
        answer.map_err(|failure| failure.fault(&place.act(act), &place.secrets))
    }

    /// What is at a place; a fault where nothing is.
    pub async fn look(&self, place: &Place) -> Result<Item, Fault> {
        let remote = place.remote()?;
        if remote.is_empty() {
            return Ok(Item {
                name: String::new(),
                directory: true,
                size: 0,
                modified: None,
            });
        }
        let parameters = json!({ "fs": place.fs, "remote": remote });
        let found = self
            .there(place, "operations/stat", parameters, "look at")
            .await?;
        Item::read(&found["item"]).ok_or_else(|| {
            Fault::not_found(format!("no file or directory {} there", place.path)).code("NOT_FOUND")
        })
    }

    pub async fn list(&self, place: &Place, wish: Wish) -> Result<DirectoryListing, Fault> {
        let parameters =
            json!({ "fs": place.fs, "remote": place.remote()?, "opt": { "noMimeType": true } });
        let found = self
            .there(place, "operations/list", parameters, "list")
            .await?;
        let mut items: Vec<Item> = found["list"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Item::read)
            .collect();
        items.sort_by(|a, b| {
            let ordered = match wish.sort {
                Sort::Name => a.name.cmp(&b.name),
                Sort::Mtime => a.modified.cmp(&b.modified),
                Sort::Size => a.size.cmp(&b.size),
            };
            match wish.order {
                Order::Asc => ordered,
                Order::Desc => ordered.reverse(),
            }
        });
        let total = items.len();
        let page: Vec<PathItem> = items
            .iter()
            .skip(wish.offset)
            .take(wish.limit.min(PAGE))
            .map(|item| PathItem {
                path_type: item.path_type(),
                name: item.name.clone(),
                encoded_name: None,
                mtime: item.mtime(),
                size: if item.directory { 0 } else { item.size },
                revisions: None,
                special: None,
            })
            .collect();
        let truncated = wish.offset.saturating_add(page.len()) < total;
        Ok(DirectoryListing {
            total,
            offset: wish.offset,
            truncated,
            allow_search: false,
            allow_archive: false,
            ..DirectoryListing::new(&place.path, page)
        })
    }

    /// What a server is called in a URL of rclone's. One that is written out has, while rclone keeps
    /// the connection, a short name, without what opens it and without slashes.
    async fn short(&self, place: &Place) -> Result<String, Fault> {
        if place.id.is_some() {
            return Ok(place.fs.clone());
        }
        let parameters = json!({ "fs": place.fs });
        let known = self
            .there(place, "operations/fsinfo", parameters, "read")
            .await?;
        match (known["Name"].as_str(), known["Root"].as_str()) {
            (Some(name), Some(root)) => Ok(format!("{name}:{root}")),
            _ => Err(Fault::internal(
                "rclone does not know what it is connected to",
            )),
        }
    }

    /// Send a file, or the part of it that is asked for.
    pub async fn send(
        &self,
        place: &Place,
        item: &Item,
        method: &Method,
        asked: &HeaderMap,
        manner: &Manner,
    ) -> Result<Response, Fault> {
        let validator = item.validator();
        let mime = manner.content_type.clone().unwrap_or_else(|| {
            mime_guess::from_path(&item.name)
                .first_or_octet_stream()
                .to_string()
        });
        let begun = begin(&place.path, &mime, validator.as_ref(), asked, manner);
        let mut sent = match begun {
            Ok(sent) => sent,
            Err(response) => return Ok(*response),
        };
        let ranged =
            *method == Method::GET && validator.as_ref().is_none_or(|one| one.same_range(asked));
        let part = if ranged {
            span(asked, item.size)
        } else {
            Span::Whole
        };
        let mut request = Request::builder().method(Method::GET).uri(format!(
            "/{}/{}",
            utf8_percent_encode(&format!("[{}]", self.short(place).await?), NON_ALPHANUMERIC),
            place
                .remote()?
                .split('/')
                .map(|name| utf8_percent_encode(name, NON_ALPHANUMERIC).to_string())
                .collect::<Vec<_>>()
                .join("/"),
        ));
        let (status, length) = match part {
            Span::Whole => (StatusCode::OK, item.size),
            Span::Part(from, to) => {
                request = request.header(RANGE, format!("bytes={from}-{}", to - 1));
                sent.insert(
                    CONTENT_RANGE,
                    text(&format!("bytes {from}-{}/{}", to - 1, item.size)),
                );
                (StatusCode::PARTIAL_CONTENT, to - from)
            }
            Span::Beyond => {
                let mut response = crate::refuse(&Fault::new(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    format!(
                        "{} has {} bytes; the range asked for lies beyond them",
                        place.path, item.size
                    ),
                ));
                response
                    .headers_mut()
                    .insert(CONTENT_RANGE, text(&format!("bytes */{}", item.size)));
                return Ok(response);
            }
        };
        sent.insert(CONTENT_LENGTH, HeaderValue::from(length));
        let body = if *method == Method::HEAD {
            Body::empty()
        } else {
            let _turn = self.turn().await?;
            let daemon = self.running().await?.daemon;
            let request = request
                .body(Body::empty())
                .map_err(|_| Fault::bad_request("the path is too long"))?;
            let answer = tokio::time::timeout(BEGIN, daemon.send(request))
                .await
                .map_err(|_| {
                    Fault::new(
                        StatusCode::GATEWAY_TIMEOUT,
                        "the other server does not begin with the file",
                    )
                })??;
            if answer.status() != status {
                let failure = daemon::Failure {
                    status: answer.status().as_u16(),
                    message: format!("rclone answered {}", answer.status()),
                };
                return Err(failure.fault(&place.act("read"), &place.secrets));
            }
            daemon::body(daemon, answer.into_body())
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = sent;
        Ok(response)
    }

    /// Write a file. It is there when all of it has come.
    pub async fn write(&self, place: &Place, body: Body) -> Result<Item, Fault> {
        let (directory, name) = {
            let remote = place.remote()?;
            let (directory, name) = remote.rsplit_once('/').unwrap_or(("", remote));
            (directory.to_owned(), name.to_owned())
        };
        if name.is_empty() || name.contains(['"', '\\', '%']) {
            return Err(Fault::bad_request(
                "the path must end in a name, without quotes, backslashes and `%`",
            ));
        }
        let boundary = hex::encode(rand::random::<[u8; 16]>());
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        let around =
            |text: String| stream::once(async move { Ok::<_, axum::Error>(Bytes::from(text)) });
        let parts = around(head)
            .chain(body.into_data_stream().map_err(axum::Error::new))
            .chain(around(tail));
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!(
                "/operations/uploadfile?fs={}&remote={}",
                encode(&place.fs),
                encode(&directory)
            ))
            .header(
                CONTENT_TYPE,
                format!("multipart/form-data; boundary={boundary}"),
            )
            .body(Body::from_stream(parts))
            .map_err(|_| Fault::bad_request("the path is too long"))?;
        let _turn = self.turn().await?;
        let daemon = self.running().await?.daemon;
        let answer = daemon.ask(request).await;
        answer.map_err(|failure| failure.fault(&place.act("write"), &place.secrets))?;
        self.look(place).await
    }

    /// Remove a file, or a directory with all that is in it.
    pub async fn remove(&self, place: &Place) -> Result<(), Fault> {
        let item = self.look(place).await?;
        if place.path.is_root() {
            return Err(Fault::bad_request(
                "the root of a backend is not removed; name what is in it",
            ));
        }
        let method = if item.directory {
            "operations/purge"
        } else {
            "operations/deletefile"
        };
        let parameters = json!({ "fs": place.fs, "remote": place.remote()? });
        self.there(place, method, parameters, "remove")
            .await
            .map(drop)
    }

    pub async fn make_directory(&self, place: &Place) -> Result<(), Fault> {
        let parameters = json!({ "fs": place.fs, "remote": place.remote()? });
        self.there(place, "operations/mkdir", parameters, "make")
            .await
            .map(drop)
    }

    /// Copy or move a file to another path of the same server.
    pub async fn transfer(
        &self,
        place: &Place,
        to: &Place,
        keep: bool,
        overwrite: bool,
    ) -> Result<(), Fault> {
        if self.look(place).await?.directory {
            return Err(Fault::bad_request(
                "on other servers files are copied and moved, one at a time",
            ));
        }
        if !overwrite && self.look(to).await.is_ok() {
            return Err(Fault::conflict(format!("{} is there already", to.path)).code("EXISTS"));
        }
        let method = if keep {
            "operations/copyfile"
        } else {
            "operations/movefile"
        };
        let parameters = json!({
            "srcFs": place.fs, "srcRemote": place.remote()?, "dstFs": to.fs, "dstRemote": to.remote()?,
        });
        self.there(place, method, parameters, "transfer")
            .await
            .map(drop)
    }
}

fn text(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("digits and punctuation are a valid header")
}
