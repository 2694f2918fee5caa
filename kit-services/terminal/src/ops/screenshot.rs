//! Pictures of the screen.

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use kit::{Fault, Raw, Route, Wire};
use schemars::JsonSchema;
use serde::Deserialize;

use super::over;
use crate::Terminal;
use crate::album;
use crate::id::{self, Named};
use crate::picture::{self, Colour, FONT_SIZES, Format, Style};

/// Where the kept copy is told.
const SAVED_AS: &str = "x-saved-as";

fn white() -> String {
    "white".to_owned()
}

fn black() -> String {
    "black".to_owned()
}

fn usual_size() -> u32 {
    20
}

fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Screenshot {
    /// Terminal, 1 to 65535; the one of the host's index where none is given.
    terminal_id: Option<Named>,
    /// png, jpeg or gif.
    #[serde(default)]
    format: Format,
    /// Colour of letters that have none: a name from black to white, #rrggbb, or R,G,B.
    #[serde(default = "white")]
    foreground: String,
    /// Colour behind letters that have none.
    #[serde(default = "black")]
    background: String,
    /// Size of the letters in pixels, 6 to 72.
    #[serde(default = "usual_size")]
    fontsize: u32,
    /// Keep a copy in the machine, where the header `x-saved-as` says. The newest hundred are kept.
    #[serde(default = "yes")]
    save: bool,
}

/// A picture of a terminal's screen.
pub fn raw(terminal: &Terminal) -> Raw {
    let terminal = terminal.clone();
    Raw::new(
        Route::get("/api/v1/terminal/screenshot")
            .named("captureTerminalScreenshot")
            .cli("terminal sessions screenshot"),
        "A picture of a terminal's screen as it is now: colours, bold and slanted letters, wide letters and the cursor.",
    )
    .answers("image/png")
    .parameters::<Screenshot>()
    .handler(get(move |request: Request| {
        let terminal = terminal.clone();
        async move {
            match answer(terminal, request).await {
                Ok(response) => response,
                Err(fault) => kit::http::refuse(Wire::KIT, &fault),
            }
        }
    }))
}

async fn answer(terminal: Terminal, request: Request) -> Result<Response, Fault> {
    let (call, asked) = crate::socket::parameters::<Screenshot>(request.into_parts().0)?;
    let session = terminal.existing(id::required(asked.terminal_id.as_ref(), &call)?)?;
    let colour = |name: &'static str, text: &str| {
        Colour::read(text).ok_or_else(|| {
            Fault::bad_request(format!(
                "{name} must be black, red, green, yellow, blue, magenta, cyan, white, #rrggbb or R,G,B"
            ))
            .field(format!("/{name}"), "no colour")
        })
    };
    if !FONT_SIZES.contains(&asked.fontsize) {
        return Err(Fault::bad_request(format!(
            "fontsize must be {} to {}",
            FONT_SIZES.start(),
            FONT_SIZES.end()
        ))
        .field("/fontsize", "out of range"));
    }
    let style = Style {
        foreground: colour("foreground", &asked.foreground)?,
        background: colour("background", &asked.background)?,
        font_size: asked.fontsize,
    };
    let screen = session.screen().await.map_err(over(&session))?;
    let format = asked.format;
    let _turn = terminal.picture_turn().await;
    let drawn = tokio::task::spawn_blocking(move || {
        let picture = picture::draw(&screen, &style)
            .map_err(|error| Fault::bad_request(error.to_string()).code("PICTURE_TOO_LARGE"))?;
        format.encode(&picture).map_err(|error| {
            tracing::error!(%error, "a screen could not be made a picture");
            Fault::internal(error.to_string())
        })
    });
    let bytes = drawn
        .await
        .map_err(|_| Fault::internal("drawing the screen failed"))??;
    let name = format!("terminal-{}.{}", session.id, format.ending());
    let mut saved = None;
    if asked.save {
        let account = terminal.account(Some(&session.user))?;
        let (directory, id, copy) = (
            terminal.config().pictures.clone(),
            session.id,
            bytes.clone(),
        );
        let kept = tokio::task::spawn_blocking(move || {
            album::keep(&directory, &account, id, format.ending(), &copy)
        });
        // Whoever asked for a picture gets it, whether or not there is room for a copy.
        match kept.await {
            Ok(Ok(path)) => saved = HeaderValue::from_str(&path.to_string_lossy()).ok(),
            Ok(Err(error)) => tracing::warn!(%error, "a picture of a terminal was not kept"),
            Err(error) => tracing::error!(%error, "keeping a picture panicked"),
        }
    }
    let headers = [
        (CONTENT_TYPE, format.content_type().to_owned()),
        (CONTENT_DISPOSITION, format!("inline; filename=\"{name}\"")),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    let mut response = (headers, bytes).into_response();
    if let Some(path) = saved {
        response.headers_mut().insert(SAVED_AS, path);
    }
    Ok(response)
}
