//! Archives over HTTP: query keys of a GET, as the contract has them.

use axum::response::Response;
use http::Method;
use http::request::Parts;
use kit::{Call, Fault, Operation, Raw, Route};
use schemars::JsonSchema;
use serde::Deserialize;

use super::read::json;
use super::write::value;
use crate::Files;
use crate::archive::{self, ExtractionHistory, ExtractionResult, Extractions, Preview};
use crate::content::respond_bytes;
use crate::path::FilePath;

/// Whether a request asks about an archive.
pub fn asks(query: &[(String, String)]) -> bool {
    const KEYS: [&str; 7] = [
        "extract",
        "extract_file",
        "preview",
        "contents",
        "view_file",
        "extractions",
        "extraction_history",
    ];
    KEYS.iter().any(|key| value(query, key).is_some())
}

/// Answer a GET that asks about an archive; none where it does not.
pub async fn answer(
    files: &Files,
    path: &FilePath,
    request: &Parts,
    query: &[(String, String)],
) -> Result<Option<Response>, Fault> {
    let of = |key| value(query, key);
    if of("extractions").is_some() {
        return Ok(Some(json(&files.extractions.active())));
    }
    if of("extraction_history").is_some() {
        return Ok(Some(json(&files.extractions.history())));
    }
    if let Some(only) = of("extract").or_else(|| of("extract_file")) {
        if only.is_empty() && of("extract_file").is_some() {
            return Err(Fault::bad_request("`extract` must name what to extract"));
        }
        may_write(request)?;
        let begun = archive::extract(files, &request.headers, path.clone(), only, of("dest"));
        return Ok(Some(json(&begun.await?)));
    }
    let name = match (of("view_file"), of("preview").or_else(|| of("contents"))) {
        (None, None) => return Ok(None),
        (None, Some(name)) => name,
        (Some(file), name) => {
            let name = name.filter(|name| !name.is_empty()).unwrap_or(file);
            if name.is_empty() {
                return Err(Fault::bad_request(
                    "`preview` must name a file of the archive",
                ));
            }
            name
        }
    };
    let (service, at, name) = (files.clone(), path.clone(), name.to_owned());
    let response = if name.is_empty() {
        let list = move |wanted: &_| archive::preview(&service, &at, wanted);
        json(&files.work.search(list).await?)
    } else {
        let asked = name.clone();
        let read = move |wanted: &_| archive::view(&service, &at, &asked, wanted);
        respond_bytes(name.as_bytes(), files.work.search(read).await?)
    };
    Ok(Some(response))
}

/// The contract extracts by a GET, which a link or a picture on any page sends too. Browsers say
/// where a request comes from.
fn may_write(request: &Parts) -> Result<(), Fault> {
    let site = request
        .headers
        .get("sec-fetch-site")
        .map(|site| site.as_bytes());
    if request.method != Method::GET || matches!(site, Some(b"cross-site" | b"same-site")) {
        return Err(Fault::forbidden(
            "extracting is asked for with GET, and not from a page of another site",
        ));
    }
    Ok(())
}

/// List the archives that are being extracted.
#[derive(Deserialize, JsonSchema)]
pub struct ListExtractions {}

impl Operation for ListExtractions {
    const ROUTE: Route = Route::get("/api/v1/extractions")
        .named("listApiActiveExtractions")
        .cli("files extractions all");
    type Service = Files;
    type Reply = Extractions;
    async fn run(self, files: Files, _: Call) -> Result<Extractions, Fault> {
        Ok(files.extractions.active())
    }
}

/// What to extract.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)] // documentation
struct Extract {
    /// Path of the archive.
    archive: String,
    /// Path inside of the archive; empty for all of it.
    extract: String,
    /// Directory beside the archive; by default named as the archive is, without its ending.
    dest: Option<String>,
}

/// What to extract of it.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)] // documentation
struct ExtractFile {
    /// Path of the archive.
    archive: String,
    /// Empty, or the same as `extract`.
    extract_file: String,
    /// Path inside of the archive.
    extract: String,
    /// Directory beside the archive; by default named as the archive is, without its ending.
    dest: Option<String>,
}

/// Which list.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)] // documentation
struct Active {
    /// Empty.
    extractions: String,
}

/// Which list.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)] // documentation
struct History {
    /// Empty.
    extraction_history: String,
}

/// What to look at.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)] // documentation
struct Look {
    /// Path of the archive.
    archive: String,
    /// A file of the archive; empty for the list.
    preview: Option<String>,
    /// The same as `preview`.
    contents: Option<String>,
}

/// Which file to look at.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)] // documentation
struct View {
    /// Path of the archive.
    archive: String,
    /// Empty, or the same as `preview`.
    view_file: String,
    /// The file inside of the archive.
    preview: String,
}

/// What is served at `/{archive}` and `/`, for the document.
pub fn raws() -> Vec<Raw> {
    vec![
        Raw::new(
            Route::get("/{*archive}").selected_by("extract").named("extractArchive").cli("files extractions create"),
            "Extract an archive, or what is below a path in it.\n\nIt goes on after the answer; `?extractions` and \
             `?extraction_history` tell how it went. Files that are there are replaced. Links that point out of the \
             destination, devices and FIFOs stay in the archive; a name that leads out ends it. At most 65,534 \
             entries and 64 GiB come out, and 256 MiB and 250 times the size of the archive.",
        )
        .parameters::<Extract>()
        .replies::<ExtractionResult>(),
        Raw::new(
            Route::get("/{*archive}").selected_by("extract_file").named("extractArchiveFile").cli("files extractions extract-file"),
            "Extract one file or directory of an archive.",
        )
        .parameters::<ExtractFile>()
        .replies::<ExtractionResult>(),
        Raw::new(
            Route::get("/{*archive}").selected_by("preview").named("previewArchive").cli("files archive preview"),
            "List a zip, tar, tar.gz, tar.bz2 or tar.xz archive, or send one file of it.\n\nThe first 20,000 entries \
             are listed.",
        )
        .parameters::<Look>()
        .replies::<Preview>(),
        Raw::new(
            Route::get("/{*archive}").selected_by("view_file").named("viewArchiveFile").cli("files archive view"),
            "Send one file of an archive, of 16 MiB at most.",
        )
        .answers("application/octet-stream")
        .parameters::<View>(),
        Raw::new(
            Route::get("/").selected_by("extractions").named("listActiveExtractions").cli("files extractions active"),
            "List the archives that are being extracted.",
        )
        .parameters::<Active>()
        .replies::<Extractions>(),
        Raw::new(
            Route::get("/").selected_by("extraction_history").named("getExtractionHistory").cli("files extractions history"),
            "The last hundred extractions, the last first.",
        )
        .parameters::<History>()
        .replies::<ExtractionHistory>(),
    ]
}
