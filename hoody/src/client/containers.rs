//! Containers: listing them, making one, turning one on and off, and waiting until it is so.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value, json};

use super::names::{Container, items};
use super::node::{Node, Place, Refused};
use super::output;
use super::render::Format;
use super::request::{Payload, Request};
use super::verb::Verb;

/// The words that make a container.
pub const CREATE: &[&str] = &["containers", "create"];

/// How long `--wait` waits.
const PATIENCE: Duration = Duration::from_secs(300);
/// Pause between two looks; small against the time a container takes to start.
const PAUSE: Duration = Duration::from_millis(150);
/// Pages of `hoody ps`.
const MAX_PAGES: u32 = 50;

pub fn ps() -> Command {
    Command::new("ps").about("List the containers").arg(
        Arg::new("quiet")
            .short('q')
            .long("quiet")
            .action(ArgAction::SetTrue)
            .help("Only the ids"),
    )
}

pub async fn list(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let node = Node::open(matches)?;
    let mut containers = Vec::new();
    for page in 1..=MAX_PAGES {
        let mut request = Request::plain("GET", "/api/v1/containers/");
        request.set_query("page", page.to_string());
        request.set_query("limit", "100".to_owned());
        let data = node.api(request).await?;
        containers.extend(items(&data));
        if u64::from(page) >= data["pagination"]["totalPages"].as_u64().unwrap_or(1) {
            break;
        }
    }
    if matches.get_flag("quiet") {
        let ids: String = containers
            .iter()
            .filter_map(|container| Some(format!("{}\n", container["id"].as_str()?)))
            .collect();
        output::write(ids.as_bytes())?;
    } else if output::format(matches) == Format::Table {
        let rows: Vec<Value> = containers.iter().map(row).collect();
        output::print(&rows.into(), matches)?;
    } else {
        output::print(&containers.into(), matches)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a person wants to know of a container.
fn row(container: &Value) -> Value {
    json!({
        "id": container["id"],
        "name": container["name"],
        "status": container["status"],
        "image": container["container_image"],
        "node": container["server_name"],
        "project": container["project_alias"].as_str().or(container["project_id"].as_str()),
        "created": container["created_at"],
    })
}

/// Make a container; where there is one server only, it need not be named.
pub async fn create(
    node: &Node,
    mut request: Request,
    matches: &ArgMatches,
) -> anyhow::Result<ExitCode> {
    if let Payload::Json(members) = &mut request.payload
        && !members.contains_key("server_id")
    {
        members.insert("server_id".to_owned(), only_server(node).await?.into());
    }
    let mut made = node.api(request).await?;
    if matches.get_flag("wait-for") {
        made = wait(node, &made, "running").await?;
    }
    output::print(&made, matches)?;
    Ok(ExitCode::SUCCESS)
}

async fn only_server(node: &Node) -> anyhow::Result<String> {
    let data = node.api(Request::plain("GET", "/api/v1/servers")).await?;
    let id = |thing: &Value| {
        let id = thing["server_id"]
            .as_str()
            .or(thing["server"]["id"].as_str())
            .or(thing["id"].as_str());
        id.map(str::to_owned)
    };
    let mut ids: Vec<String> = items(&data).iter().filter_map(id).collect();
    ids.dedup();
    match ids.len() {
        1 => Ok(ids.remove(0)),
        0 => bail!("there is no server to make a container on"),
        _ => bail!("which server? say --server-id; list them with `hoody servers list`"),
    }
}

/// The status that a verb leads to, if it is one that turns a container on or off.
pub fn outcome(verb: &Verb) -> Option<&'static str> {
    if verb.words.len() != 2 || verb.words[0] != "containers" {
        return None;
    }
    match verb.words[1].as_str() {
        "start" | "restart" | "resume" => Some("running"),
        "stop" | "force-stop" => Some("stopped"),
        "pause" => Some("paused"),
        _ => None,
    }
}

/// Turn a container on or off.
pub async fn manage(
    node: &Node,
    request: Request,
    wanted: &str,
    matches: &ArgMatches,
) -> anyhow::Result<ExitCode> {
    let id = request
        .inserts
        .first()
        .map(|(_, id)| id.clone())
        .context("no container was named")?;
    let mut done = node.api(request).await?;
    if matches.get_flag("wait-for") {
        done = wait(node, &json!({ "id": id }), wanted).await?;
    }
    output::print(&done, matches)?;
    Ok(ExitCode::SUCCESS)
}

/// Wait until a container has a status, and where that is `running` until its kit answers.
async fn wait(node: &Node, container: &Value, wanted: &str) -> anyhow::Result<Value> {
    let id = container["id"].as_str().context("the API gave no id")?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = node
            .api(Request::plain("GET", format!("/api/v1/containers/{id}")))
            .await?;
        let status = now["status"].as_str().unwrap_or_default().to_owned();
        if status == wanted
            && (wanted != "running" || now["hoody_kit"] == false || answers(node, &now).await?)
        {
            return Ok(now);
        }
        if status == "failed" && wanted != "failed" {
            bail!("the container {id} failed; see why with `hoody containers status-logs {id}`");
        }
        if Instant::now() >= deadline {
            bail!(
                "after {} s the container {id} is {status} and not yet what was asked for",
                PATIENCE.as_secs()
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether the kit of a container answers.
async fn answers(node: &Node, container: &Value) -> anyhow::Result<bool> {
    let place = Place::Kit {
        container: Container::of(container)?,
        service: "terminal".to_owned(),
        index: 1,
    };
    match node
        .send(&place, Request::plain("GET", "/api/v1/terminal/health"))
        .await
    {
        Ok(_) => Ok(true),
        Err(error) => match error.downcast_ref::<Refused>() {
            Some(_) => Ok(false),
            None => Err(error),
        },
    }
}
