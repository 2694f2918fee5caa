//! Writing below `/api/v1/files`: whole files and their ends.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::put;
use http::StatusCode;
use http::request::Parts;
use kit::{Fault, Raw, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Files;
use crate::path::FilePath;
use crate::upload::{self, Wish, Written};
use crate::users;

/// How to write a file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[allow(dead_code)] // the fields are read from the query one by one
struct Put {
    /// Absolute path; `~` at its beginning is the home directory.
    path: String,
    /// Add to the end of the file instead of replacing it.
    append: bool,
    /// Owner of a file that is new: `user`, `user:group`, or numbers. By default whoever owns the
    /// directory it is made in.
    owner: Option<String>,
    /// Answer only when the file is on the disk.
    fsync: bool,
    /// Write to this backend instead; `append`, `owner` and `fsync` are not for those.
    backend: Option<String>,
}

/// How to add to a file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[allow(dead_code)] // likewise
struct Append {
    /// Absolute path; `~` at its beginning is the home directory.
    path: String,
    /// Owner of a file that is new: `user`, `user:group`, or numbers. By default whoever owns the
    /// directory it is made in.
    owner: Option<String>,
    /// Answer only when the file is on the disk.
    fsync: bool,
}

/// What was written.
#[derive(Debug, Serialize, JsonSchema)]
struct Wrote {
    success: bool,
    path: String,
    /// Size of the file now.
    new_size: u64,
}

const PUT: Route = Route::put("/api/v1/files/{*path}")
    .named("putFile")
    .cli("files put");
const APPEND: Route = Route::put("/api/v1/files/append/{*path}")
    .named("appendFile")
    .cli("files append");

pub fn raws(files: &Files) -> Vec<Raw> {
    let handler = |route: Route, always_append: bool| {
        let files = files.clone();
        put(move |request: Request| {
            let files = files.clone();
            async move {
                let (parts, body) = request.into_parts();
                let rest = parts
                    .uri
                    .path()
                    .strip_prefix(route.rest_prefix().unwrap_or_default());
                match files.path_of_url(rest.unwrap_or_default()) {
                    Ok(path) => answer(&files, path, parts, body, always_append).await,
                    Err(fault) => crate::refuse(&fault),
                }
            }
        })
    };
    vec![
        Raw::new(
            PUT,
            "Write a file.\n\nThe body is the content, whatever its content type says, of any size. The file \
             appears, or replaces the old one, when all of it has come: until then, and if it breaks off, the \
             old one is whole. Directories above it are made where they are missing. A file that is replaced \
             keeps owner and permissions. `If-Match` and `If-None-Match` guard against writing over others.",
        )
        .parameters::<Put>()
        .replies::<Wrote>()
        .handler(handler(PUT, false)),
        Raw::new(
            APPEND,
            "Add to the end of a file.\n\nThe file is made where it is missing. If the body breaks off, the file \
             is as long as before.",
        )
        .parameters::<Append>()
        .replies::<Wrote>()
        .handler(handler(APPEND, true)),
    ]
}

/// Answer a PUT.
pub async fn answer(
    files: &Files,
    path: FilePath,
    request: Parts,
    body: Body,
    append: bool,
) -> Response {
    let query = kit::arguments::query_all(request.uri.query().unwrap_or_default());
    match super::read::elsewhere(files, &query, path.clone()).await {
        Err(fault) => return crate::refuse(&fault),
        Ok(Some(_)) if append || flag(&query, "append") => {
            return crate::refuse(&Fault::bad_request(
                "`append` is not supported with remote backends",
            ));
        }
        Ok(Some(place)) => {
            return match files.remote.write(&place, body).await {
                Ok(item) => {
                    let wrote = Wrote {
                        success: true,
                        path: path.to_string(),
                        new_size: item.size,
                    };
                    let value = serde_json::to_value(wrote).expect("replies are plain JSON");
                    kit::http::json(StatusCode::OK, &value)
                }
                Err(fault) => crate::refuse(&fault),
            };
        }
        Ok(None) => {}
    }
    match write(files, &path, request, body, append).await {
        Ok(written) => {
            let wrote = Wrote {
                success: true,
                path: path.to_string(),
                new_size: written.size,
            };
            let value = serde_json::to_value(wrote).expect("replies are plain JSON");
            let mut response = kit::http::json(StatusCode::OK, &value);
            written.validator.write(response.headers_mut());
            response
        }
        Err(fault) => crate::refuse(&fault),
    }
}

/// Write what a request says.
pub async fn write(
    files: &Files,
    path: &FilePath,
    request: Parts,
    body: Body,
    append: bool,
) -> Result<Written, Fault> {
    let query = kit::arguments::query_all(request.uri.query().unwrap_or_default());
    let wish = Wish {
        owner: users::owner(&files.root, value(&query, "owner"))?,
        fsync: flag(&query, "fsync"),
        headers: request.headers,
    };
    if append || flag(&query, "append") {
        upload::append(files, path, body, wish).await
    } else {
        upload::put(files, path, body, wish).await
    }
}

/// The last value of a key.
pub fn value<'a>(query: &'a [(String, String)], key: &str) -> Option<&'a str> {
    query
        .iter()
        .rev()
        .find(|(name, _)| name == key)
        .map(|(_, value)| value.as_str())
}

/// Whether a key is set, to anything but a no.
pub fn flag(query: &[(String, String)], key: &str) -> bool {
    value(query, key).is_some_and(|value| !matches!(value, "false" | "0" | "no"))
}
