//! The parameters of the page.

use schemars::JsonSchema;

use crate::id::Named;

/// What the page takes from its address.
#[expect(
    dead_code,
    reason = "the page reads its address itself; this is its reference"
)]
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub struct Page {
    /// Terminal to show, 1 to 65535; the one of the host's index where none is given.
    #[schemars(rename = "terminal_id")]
    pub terminal_id: Option<Named>,
    /// Working directory of a new session.
    pub cwd: Option<String>,
    /// Make the working directory where it is missing.
    #[schemars(rename = "cwd_auto_create")]
    pub cwd_auto_create: Option<bool>,
    /// Shell of a new session.
    pub shell: Option<String>,
    /// User of a new session.
    pub user: Option<String>,
    /// Command to run, in base64.
    pub cmd: Option<String>,
    /// Look without typing.
    pub readonly: Option<bool>,
    /// Title of the page.
    #[schemars(length(max = 200))]
    pub title: Option<String>,
    /// Size of the letters in pixels.
    #[schemars(rename = "fontSize", range(min = 8, max = 72))]
    pub font_size: Option<u8>,
    /// Colour behind the letters.
    #[schemars(rename = "backgroundColor")]
    pub background_color: Option<String>,
    /// Show the terminal without its toolbar.
    pub hide_toolbar: Option<bool>,
    /// Variable of a new session, as NAME=value; may be repeated.
    pub env: Option<String>,
    /// X display of a new session.
    pub display: Option<String>,
    /// End the session that is there and begin a new one.
    pub reset: Option<bool>,
}
