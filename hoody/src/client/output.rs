//! Showing an answer: JSON as asked for, all else as the bytes it is.

use std::io::Write;

use anyhow::Context;
use clap::ArgMatches;
use reqwest::Response;
use reqwest::header::{ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderMap};
use serde_json::{Map, Value};
use tokio::io::AsyncWriteExt;

use super::node::unwrapped;
use super::render::Format;

/// Longest JSON answer that is shown; longer ones can be written to a file.
const MAX_JSON: usize = 64 << 20;

/// The format that a command asks for.
pub fn format(matches: &ArgMatches) -> Format {
    Format::of(
        matches
            .get_one::<String>("output")
            .map_or("table", String::as_str),
    )
}

/// Print a value.
pub fn print(value: &Value, matches: &ArgMatches) -> anyhow::Result<()> {
    write(format(matches).show(value).as_bytes())
}

/// Write to standard output; a reader that went away is no failure.
pub fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("could not write to standard output")
        }
        _ => Ok(()),
    }
}

/// Show an answer.
pub async fn show(mut response: Response, matches: &ArgMatches) -> anyhow::Result<()> {
    let file = matches
        .try_get_one::<String>("out-file")
        .ok()
        .flatten()
        .filter(|file| *file != "-");
    if let Some(file) = file {
        return save(response, file).await;
    }
    if response.content_length() == Some(0) && !is_json(response.headers()) {
        if format(matches) != Format::Table {
            print(&Value::Object(headers(response.headers())), matches)?;
        }
        return Ok(());
    }
    if !is_json(response.headers()) {
        while let Some(chunk) = response.chunk().await.context("the answer broke off")? {
            write(&chunk)?;
        }
        return Ok(());
    }
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.context("the answer broke off")? {
        text.extend_from_slice(&chunk);
        anyhow::ensure!(
            text.len() <= MAX_JSON,
            "the answer is larger than {MAX_JSON} bytes; write it to a file with -O"
        );
    }
    if text.is_empty() {
        return Ok(());
    }
    let value =
        serde_json::from_slice(&text).context("the answer is not the JSON it says it is")?;
    print(&unwrapped(value), matches)
}

/// Whether an answer is for showing. A file is what it is, even where what it holds is JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let is_file = headers.contains_key(ACCEPT_RANGES) || headers.contains_key(CONTENT_DISPOSITION);
    kind.split(';').next() == Some("application/json") && !is_file
}

fn headers(headers: &HeaderMap) -> Map<String, Value> {
    let text = |value: &reqwest::header::HeaderValue| {
        String::from_utf8_lossy(value.as_bytes()).into_owned()
    };
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value).into()))
        .collect()
}

/// Write an answer to a file that appears when it is whole.
async fn save(mut response: Response, file: &str) -> anyhow::Result<()> {
    let draft = format!("{file}.{}.part", std::process::id());
    let saved = async {
        let mut out = tokio::fs::File::create_new(&draft).await?;
        while let Some(chunk) = response.chunk().await.map_err(std::io::Error::other)? {
            out.write_all(&chunk).await?;
        }
        out.flush().await?;
        tokio::fs::rename(&draft, file).await
    };
    let saved = saved.await;
    if saved.is_err() {
        let _ = tokio::fs::remove_file(&draft).await;
    }
    saved.with_context(|| format!("could not write {file}"))
}
