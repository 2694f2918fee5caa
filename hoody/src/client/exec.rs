//! Running a command in a container as if it ran here: its output, its exit code, its end.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::ArgMatches;
use clap::parser::ValueSource;
use reqwest::StatusCode;
use serde_json::Value;

use super::node::{Node, Place, Refused};
use super::output;
use super::request::{Payload, Request};

/// The words of the command.
pub const WORDS: &[&str] = &["terminal", "sessions", "exec"];

/// Pauses between two looks at a command that is not done: short at first, so that short commands
/// end at once.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// A result may be unknown for so long after its command was taken.
const GRACE: Duration = Duration::from_secs(2);
/// What shells answer for a command that ran out of time, or was interrupted.
const TIMED_OUT: u8 = 124;
const INTERRUPTED: u8 = 130;

pub async fn run(
    node: &Node,
    place: &Place,
    mut request: Request,
    matches: &ArgMatches,
) -> anyhow::Result<ExitCode> {
    let has = |name: &str| request.query.iter().any(|(known, _)| known == name);
    if !has("terminal_id") && !has("ephemeral") {
        request.set_query("ephemeral", "true".to_owned());
    }
    let waits = match &request.payload {
        Payload::Json(members) => members.get("wait") != Some(&Value::Bool(false)),
        _ => true,
    };
    let mut result = node.kit(place, request).await?;
    if waits {
        result = finished(node, place, result).await?;
    }
    let asked = matches.value_source("output") == Some(ValueSource::CommandLine);
    if asked || !waits {
        output::print(&result, matches)?;
    } else {
        output::write(result["stdout"].as_str().unwrap_or_default().as_bytes())?;
        let _ =
            std::io::stderr().write_all(result["stderr"].as_str().unwrap_or_default().as_bytes());
    }
    Ok(ExitCode::from(if waits { code(&result) } else { 0 }))
}

/// The result of a command once it has ended. An interrupt ends it.
async fn finished(node: &Node, place: &Place, mut result: Value) -> anyhow::Result<Value> {
    let since = Instant::now();
    let mut pause = FIRST_PAUSE;
    while !is_over(&result) {
        let Some(id) = result["command_id"].as_str().map(str::to_owned) else {
            break;
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = tokio::signal::ctrl_c() => {
                let abort = format!("/api/v1/terminal/execute/{id}/abort");
                let _ = node.kit(place, Request::plain("POST", abort)).await;
                std::process::exit(INTERRUPTED.into());
            }
        }
        pause = (pause * 2).min(LAST_PAUSE);
        let look = Request::plain("GET", format!("/api/v1/terminal/result/{id}"));
        match node.kit(place, look).await {
            Ok(now) => result = now,
            Err(error) => match error.downcast_ref::<Refused>() {
                Some(refused)
                    if refused.status == StatusCode::NOT_FOUND && since.elapsed() < GRACE => {}
                _ => return Err(error),
            },
        }
    }
    Ok(result)
}

fn is_over(result: &Value) -> bool {
    !matches!(
        result["status"].as_str(),
        Some("queued" | "pending" | "running")
    )
}

/// The exit code of a result.
fn code(result: &Value) -> u8 {
    if result["timed_out"] == true || result["status"] == "timed_out" {
        return TIMED_OUT;
    }
    match result["exit_code"].as_i64() {
        Some(code) => u8::try_from(code & 0xff).expect("a byte"),
        None => u8::from(result["status"] != "completed"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn results_become_exit_codes() {
        for (result, want) in [
            (json!({ "status": "completed", "exit_code": 0 }), 0),
            (json!({ "status": "completed", "exit_code": 3 }), 3),
            (json!({ "status": "failed", "exit_code": 255 }), 255),
            (json!({ "status": "failed", "exit_code": -1 }), 255),
            (json!({ "status": "failed", "exit_code": null }), 1),
            (json!({ "status": "completed" }), 0),
            (
                json!({ "status": "timed_out", "exit_code": null }),
                TIMED_OUT,
            ),
        ] {
            assert_eq!(code(&result), want, "{result}");
        }
    }
}
