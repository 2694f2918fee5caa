//! What a page tells of itself.

use std::sync::atomic::Ordering;

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Terminal;

/// Tell how a page draws the terminal and what made it say so, for whoever looks for the cause of
/// trouble: it is written to the log, and counted in the metrics of automation.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Report {
    /// The page's version.
    #[serde(default)]
    build_id: String,
    /// How it draws: `webgl` or `dom`.
    #[serde(default)]
    renderer: String,
    /// Why it reports: `opened`, `context-lost`.
    #[serde(default)]
    reason: String,
}

/// That it was heard.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Heard {
    success: bool,
}

/// What is logged of a text of a caller.
fn shown(text: &str) -> String {
    const SHOWN: usize = 64;
    text.chars()
        .take(SHOWN)
        .filter(|character| !character.is_control())
        .collect()
}

impl Operation for Report {
    const ROUTE: Route = Route::post("/api/v1/terminal/state").named("postTerminalState");
    type Service = Terminal;
    type Reply = Heard;

    async fn run(self, terminal: Terminal, _: Call) -> Result<Heard, Fault> {
        terminal.reports().fetch_add(1, Ordering::Relaxed);
        tracing::debug!(
            page.build = shown(&self.build_id),
            page.renderer = shown(&self.renderer),
            "a page reports: {}",
            shown(&self.reason)
        );
        Ok(Heard { success: true })
    }
}
