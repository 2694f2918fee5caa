//! Dropping files onto a terminal.

use axum::extract::Request;
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use kit::{Call, Fault, Operation, Raw, Route, Wire};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::automation::type_in;
use super::over;
use crate::Terminal;
use crate::drops::{
    Context, DropError, Item, MANIFEST, MAX_DROP_BYTES, MAX_ITEMS, MAX_SLICE, PATIENCE, Place,
    Sealed,
};
use crate::id::{self, Named, TerminalId};
use crate::keys;
use crate::session::{Phase, Session};
use crate::shell::single_quoted;

impl From<DropError> for Fault {
    fn from(error: DropError) -> Fault {
        let message = error.to_string();
        match error {
            DropError::Unknown { .. } => Fault::conflict(message).code("DROP_NOT_FOUND"),
            DropError::Sealed => Fault::conflict(message).code("DROP_SEALED"),
            DropError::Offset { size, .. } => {
                const CODE: &str = "OFFSET_MISMATCH";
                let body =
                    json!({ "error": "Conflict", "message": message, "code": CODE, "size": size });
                Fault::conflict(message).code(CODE).with_body(body)
            }
            DropError::TooLarge => Fault::too_large(message).code("DROP_TOO_LARGE"),
            DropError::TooMany => Fault::unavailable(message)
                .code("TOO_MANY_DROPS")
                .retry_after(PATIENCE),
            DropError::Mismatch { .. } => Fault::conflict(message).code("DROP_MISMATCH"),
            DropError::Disk { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Fault::new(http::StatusCode::INSUFFICIENT_STORAGE, message).code("DISK_FULL")
            }
            DropError::Disk { source, .. } => {
                tracing::warn!(%source, "{message}");
                Fault::internal(format!("{message}: {source}"))
            }
        }
    }
}

/// Do what waits for the disk without holding up others.
async fn on_disk<T: Send + 'static>(
    what: impl FnOnce() -> Result<T, DropError> + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(what)
        .await
        .map_err(|_| Fault::internal("staging a drop failed"))?
        .map_err(Fault::from)
}

fn place(text: &str) -> Result<Place, Fault> {
    Place::read(text).map_err(|why| {
        Fault::bad_request(format!("a path of a drop cannot be used: {why}"))
            .code("INVALID_PATH")
            .field("/path", why)
    })
}

/// Begin to drop files onto a terminal: upload them with `upload`, then give them to the program
/// with `drop-commit`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Begin {
    /// Terminal, 1 to 65535; the one of the host's index where none is given.
    terminal_id: Option<Named>,
}

/// A drop that takes slices.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Begun {
    success: bool,
    terminal_id: String,
    /// Its id.
    drop: String,
    /// What shows that slices and the commit come from whoever began it.
    token: String,
    /// Where its files will be.
    root: String,
    /// Largest slice in bytes.
    max_slice: usize,
    /// Bytes of the whole drop.
    max_bytes: u64,
    /// Files and directories of the whole drop.
    max_items: usize,
    /// Seconds in which the next slice must come.
    expires_in: u64,
}

impl Operation for Begin {
    const ROUTE: Route = Route::post("/api/v1/terminal/drop-begin")
        .named("beginTerminalDrop")
        .query(&["terminal_id"]);
    type Service = Terminal;
    type Reply = Begun;

    async fn run(self, terminal: Terminal, call: Call) -> Result<Begun, Fault> {
        let session = terminal.existing(id::required(self.terminal_id.as_ref(), &call)?)?;
        let begun = begin(&terminal, &session).await?;
        Ok(Begun {
            success: true,
            terminal_id: session.id.to_string(),
            drop: begun.id,
            token: begun.token,
            root: begun.root.to_string_lossy().into_owned(),
            max_slice: MAX_SLICE,
            max_bytes: MAX_DROP_BYTES,
            max_items: MAX_ITEMS,
            expires_in: PATIENCE.as_secs(),
        })
    }
}

async fn begin(terminal: &Terminal, session: &Session) -> Result<crate::drops::Begun, Fault> {
    if let Some(target) = &session.target {
        return Err(Fault::conflict(format!(
            "terminal {} is on {target}, where the files would not be; copy them there with scp",
            session.id
        ))
        .code("NOT_THIS_MACHINE"));
    }
    let account = terminal.account(Some(&session.user))?;
    let (drops, id) = (terminal.drops(), session.id);
    on_disk(move || drops.begin(id, &account)).await
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Upload {
    /// Terminal, 1 to 65535; the one of the host's index where none is given.
    terminal_id: Option<Named>,
    /// The drop, from `drop-begin`.
    drop: String,
    /// Its token, from `drop-begin`.
    token: String,
    /// Where the file is to be beneath the drop's root: plain names with slashes between.
    path: String,
    /// Bytes of the file that were uploaded before.
    offset: u64,
}

/// What a file has so far.
#[derive(Debug, Serialize, JsonSchema)]
struct Uploaded {
    success: bool,
    path: String,
    /// Bytes of the file now: where the next slice begins.
    size: u64,
}

/// Append a slice to a file of a drop.
pub fn upload(terminal: &Terminal) -> Raw {
    let terminal = terminal.clone();
    Raw::new(
        Route::post("/api/v1/terminal/upload").named("uploadTerminalDropSlice"),
        "Append a slice to a file of a drop: the body is the bytes. Where the file has another size than `offset` says, the refusal names its size, so that an upload that was cut off can go on.",
    )
    .takes("application/octet-stream")
    .parameters::<Upload>()
    .replies::<Uploaded>()
    .handler(post(move |request: Request| {
        let terminal = terminal.clone();
        async move {
            match take(terminal, request).await {
                Ok(reply) => kit::http::json(http::StatusCode::OK, &reply),
                Err(fault) => kit::http::refuse(Wire::KIT, &fault),
            }
        }
    }).layer(axum::extract::DefaultBodyLimit::disable()))
}

async fn take(terminal: Terminal, request: Request) -> Result<Value, Fault> {
    let (parts, body) = request.into_parts();
    let (call, asked) = crate::socket::parameters::<Upload>(parts)?;
    let id = id::required(asked.terminal_id.as_ref(), &call)?;
    let place = place(&asked.path)?;
    let slice = axum::body::to_bytes(body, MAX_SLICE).await.map_err(|_| {
        Fault::too_large(format!("a slice has at most {MAX_SLICE} bytes")).code("SLICE_TOO_LARGE")
    })?;
    let (drops, staged) = (terminal.drops(), place.clone());
    let size = on_disk(move || {
        drops.append(
            (&asked.drop, &asked.token, id),
            &staged,
            asked.offset,
            &slice,
        )
    })
    .await?;
    Ok(json!(Uploaded {
        success: true,
        path: place.as_str().to_owned(),
        size,
    }))
}

/// Whether an item is a directory: clients say 1 or true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Flag {
    #[default]
    Missing,
    Bool(bool),
    Number(u8),
}

impl Flag {
    fn is_set(self) -> bool {
        matches!(self, Flag::Bool(true) | Flag::Number(1..))
    }
}

/// An item as it was uploaded.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Listed {
    /// Where it was uploaded.
    p: String,
    /// 1 for an empty directory.
    #[serde(default)]
    d: Flag,
    /// Bytes.
    #[serde(default)]
    s: u64,
    /// What it was called where it comes from.
    #[serde(default)]
    name: String,
    /// SHA-256 in hex, which is checked where it is given.
    h: Option<String>,
}

impl Listed {
    fn read(self) -> Result<Item, Fault> {
        const LONGEST: usize = 1024;
        if self.name.len() > LONGEST {
            return Err(Fault::bad_request("a name has at most 1024 bytes")
                .field("/items", "name is too long"));
        }
        let place = place(&self.p)?;
        Ok(Item {
            directory: u8::from(self.d.is_set()),
            size: if self.d.is_set() { 0 } else { self.s },
            name: if self.name.is_empty() {
                place.as_str().to_owned()
            } else {
                self.name
            },
            hash: self.h,
            place,
        })
    }
}

/// How the program in the terminal is told of a drop.
struct Announcement {
    context: Context,
    /// The cell that it was dropped on.
    row: Option<u32>,
    column: Option<u32>,
    /// What the program asked with, to be given back.
    correlation: Option<String>,
}

/// What became of a drop.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Dropped {
    success: bool,
    terminal_id: String,
    drop: String,
    /// Where its files are.
    root: String,
    /// Of its list, `manifest.json` beneath the root, in hex.
    manifest_sha256: String,
    items: usize,
    bytes: u64,
    /// What is at the top of it.
    paths: Vec<String>,
    /// How the terminal was told: `paths` were typed at the prompt of a shell; a program that
    /// runs there was sent a `frame`, the sequence OSC 8472.
    announced: &'static str,
}

/// Finish a drop: the files are checked against `items`, given to the terminal's user, and the
/// terminal is told. At the prompt of a shell their paths are typed, quoted. A program that runs in
/// the terminal is sent one sequence, `ESC ] 8472 ; drop ; root=<base64url of the directory> ;
/// sha256=<of manifest.json in it> ; ctx= ; r= ; c= ; cr= ESC \`. To commit again tells again.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Commit {
    /// Terminal, 1 to 65535; the one of the host's index where none is given.
    terminal_id: Option<Named>,
    /// The drop, from `drop-begin`.
    drop: String,
    /// Its token, from `drop-begin`.
    token: String,
    /// `drop` or `paste`.
    ctx: Context,
    /// Row of the cell that it was dropped on.
    r: Option<u32>,
    /// Column of that cell.
    c: Option<u32>,
    /// What the program that asked for a paste is to know it by: up to 64 letters, digits, hyphens
    /// and underscores; anything else is not passed on.
    cr: Option<String>,
    /// What was uploaded; what is not listed is thrown away.
    #[schemars(length(max = 4096))]
    items: Vec<Listed>,
}

impl Operation for Commit {
    const ROUTE: Route = Route::post("/api/v1/terminal/drop-commit")
        .named("commitTerminalDrop")
        .query(&["terminal_id", "drop", "token"]);
    type Service = Terminal;
    type Reply = Dropped;

    async fn run(self, terminal: Terminal, call: Call) -> Result<Dropped, Fault> {
        let session = terminal.existing(id::required(self.terminal_id.as_ref(), &call)?)?;
        let items = self
            .items
            .into_iter()
            .map(Listed::read)
            .collect::<Result<Vec<_>, _>>()?;
        let announcement = Announcement {
            context: self.ctx,
            row: self.r,
            column: self.c,
            correlation: self.cr.filter(|nonce| is_nonce(nonce)),
        };
        finish(
            &terminal,
            &session,
            (self.drop, self.token),
            items,
            announcement,
        )
        .await
    }
}

fn is_nonce(text: &str) -> bool {
    const LONGEST: usize = 64;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !text.is_empty() && text.len() <= LONGEST && text.bytes().all(is_plain)
}

async fn finish(
    terminal: &Terminal,
    session: &Session,
    (drop, token): (String, String),
    items: Vec<Item>,
    announcement: Announcement,
) -> Result<Dropped, Fault> {
    let (drops, id, key) = (terminal.drops(), session.id, drop.clone());
    let context = announcement.context;
    let sealed = on_disk(move || drops.seal((&key, &token, id), context, items)).await?;
    let announced = announce(session, &sealed, &announcement).await?;
    Ok(Dropped {
        success: true,
        terminal_id: session.id.to_string(),
        drop,
        root: sealed.root.to_string_lossy().into_owned(),
        manifest_sha256: sealed.sha256.clone(),
        items: sealed.items.len(),
        bytes: sealed.items.iter().map(|item| item.size).sum(),
        paths: sealed
            .tops()
            .iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect(),
        announced,
    })
}

/// Tell the terminal of a drop; how it was told.
async fn announce(
    session: &Session,
    sealed: &Sealed,
    announcement: &Announcement,
) -> Result<&'static str, Fault> {
    if session.view().phase == Phase::Prompt {
        let words: Vec<String> = sealed
            .tops()
            .iter()
            .map(|path| single_quoted(&path.to_string_lossy(), session.flavour))
            .collect();
        if words.is_empty() {
            return Ok("paths");
        }
        let screen = session.screen().await.map_err(over(session))?;
        let text = words.join(" ") + " ";
        type_in(session, keys::paste(&text, screen.bracketed_paste())).await?;
        return Ok("paths");
    }
    type_in(session, frame(sealed, announcement).into_bytes()).await?;
    Ok("frame")
}

/// The sequence by which a program is told of a drop. All of it is letters, digits and a few marks,
/// whatever the files are called.
fn frame(sealed: &Sealed, announcement: &Announcement) -> String {
    let root = URL_SAFE_NO_PAD.encode(sealed.root.as_os_str().as_encoded_bytes());
    let mut frame = format!(
        "\u{1b}]8472;drop;root={root};sha256={};ctx={}",
        sealed.sha256,
        announcement.context.as_str()
    );
    if let Some(row) = announcement.row {
        frame += &format!(";r={row}");
    }
    if let Some(column) = announcement.column {
        frame += &format!(";c={column}");
    }
    if let Some(nonce) = &announcement.correlation {
        frame += &format!(";cr={nonce}");
    }
    frame + "\u{1b}\\"
}

/// A file or a directory with what is in it.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Inline {
    /// What it is called.
    name: String,
    /// Content of a file, in base64.
    b64: Option<String>,
    /// It is a directory.
    #[serde(default)]
    dir: bool,
    /// What is in the directory.
    #[serde(default)]
    items: Vec<Inline>,
}

/// Drop a few small files onto a terminal with one call: what `drop-begin`, `upload` and
/// `drop-commit` do one after another. The whole call has at most 16 MiB.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct OneShot {
    /// Terminal, 1 to 65535; the one of the host's index where none is given.
    terminal_id: Option<Named>,
    /// `drop` or `paste`.
    ctx: Context,
    /// Row of the cell that it was dropped on.
    r: Option<u32>,
    /// Column of that cell.
    c: Option<u32>,
    /// Files `{name, b64}` and directories `{name, dir: true, items: [...]}`.
    items: Vec<Inline>,
}

impl Operation for OneShot {
    const ROUTE: Route = Route::post("/api/v1/terminal/drop")
        .named("oneShotTerminalDrop")
        .query(&["terminal_id"]);
    type Service = Terminal;
    type Reply = Dropped;

    async fn run(self, terminal: Terminal, call: Call) -> Result<Dropped, Fault> {
        let session = terminal.existing(id::required(self.terminal_id.as_ref(), &call)?)?;
        let mut flat = Vec::new();
        flatten("", self.items, &mut flat)?;
        let begun = begin(&terminal, &session).await?;
        let (drops, id) = (terminal.drops(), session.id);
        let (key, token) = (begun.id.clone(), begun.token.clone());
        let items = on_disk(move || stage(&drops, (&key, &token, id), flat)).await?;
        let announcement = Announcement {
            context: self.ctx,
            row: self.r,
            column: self.c,
            correlation: None,
        };
        finish(
            &terminal,
            &session,
            (begun.id, begun.token),
            items,
            announcement,
        )
        .await
    }
}

fn stage(
    drops: &crate::drops::Drops,
    key: (&str, &str, TerminalId),
    flat: Vec<(Item, Vec<u8>)>,
) -> Result<Vec<Item>, DropError> {
    let mut items = Vec::with_capacity(flat.len());
    for (item, content) in flat {
        if item.directory == 0 {
            drops.append(key, &item.place, 0, &content)?;
        }
        items.push(item);
    }
    Ok(items)
}

/// Directories and what is in them, as one list of items with their contents.
fn flatten(above: &str, items: Vec<Inline>, flat: &mut Vec<(Item, Vec<u8>)>) -> Result<(), Fault> {
    for item in items {
        if flat.len() >= MAX_ITEMS {
            return Err(DropError::TooLarge.into());
        }
        if item.name.contains('/') {
            return Err(Fault::bad_request(
                "a name of a drop has no slash; nest it in a `dir` instead",
            )
            .code("INVALID_PATH")
            .field("/items", "slash in a name"));
        }
        let path = match above {
            // The list of the drop itself has this place.
            "" if item.name == MANIFEST => format!("dropped-{MANIFEST}"),
            "" => item.name.clone(),
            above => format!("{above}/{}", item.name),
        };
        let staged = place(&path)?;
        let content = match (&item.b64, item.dir) {
            (Some(text), false) => STANDARD.decode(text).map_err(|error| {
                Fault::bad_request(format!("b64 of {} is not base64: {error}", staged.as_str()))
                    .code("INVALID_BASE64")
                    .field("/items", "not base64")
            })?,
            (None, true) => Vec::new(),
            _ => {
                return Err(Fault::bad_request(format!(
                    "{} needs either b64 or dir",
                    staged.as_str()
                ))
                .field("/items", "neither a file nor a directory"));
            }
        };
        flat.push((
            Item {
                place: staged,
                directory: u8::from(item.dir),
                size: content.len() as u64,
                name: item.name,
                hash: None,
            },
            content,
        ));
        flatten(&path, item.items, flat)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_frame_is_plain_whatever_the_files_are_called() {
        let sealed = Sealed {
            root: PathBuf::from("/var/lib/hoody/drops/\u{1b}]0;x"),
            sha256: "ab".repeat(32),
            items: Vec::new(),
        };
        let announcement = Announcement {
            context: Context::Paste,
            row: Some(3),
            column: None,
            correlation: Some("n-1".to_owned()),
        };
        let text = frame(&sealed, &announcement);
        let inner = text
            .strip_prefix("\u{1b}]8472;drop;root=")
            .and_then(|rest| rest.strip_suffix("\u{1b}\\"))
            .unwrap();
        assert!(inner.ends_with(";ctx=paste;r=3;cr=n-1"), "{inner}");
        assert!(!inner.contains(char::is_control));
        assert!(
            is_nonce("a-B_9") && !is_nonce("") && !is_nonce("a;b") && !is_nonce(&"a".repeat(65))
        );
    }
}
