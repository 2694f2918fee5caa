//! From nothing to a computer behind a URL; and, the second time, to the same one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{ArgMatches, Command};
use reqwest::StatusCode;
use routes::Id;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::client::profile::{self, Profile};
use crate::config::{self, Config, Mode, Runtime};
use crate::node::{self, NODE, ROLES};
use crate::ports::Wanted;
use crate::process::Process;
use crate::progress::{say, wait};
use crate::state::State;
use crate::unit::Unit;
use crate::visit::Visitor;
use crate::{dns, down, engine, kit, logs, ports};

/// Names of what the first run makes.
const PROJECT: &str = "default";
const CONTAINER: &str = "first";
/// The alias of the token in the profile.
const TOKEN: &str = "hoody-up";

/// How long a node may take until it answers.
const NODE_PATIENCE: Duration = Duration::from_secs(60);
/// How long the first container may take; machines with much to do have taken minutes.
const CONTAINER_PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(100);

pub fn command() -> Command {
    config::options(Command::new("up").about(
        "Start this machine's node and, the first time, make its administrator and a first container",
    ))
}

pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let config = Config::load(matches)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(Box::pin(async {
        let state = State::create(&config.state)?;
        let _lock = wait("another command is changing this node", down::change_lock(&state)).await?;
        config.keep()?;
        let config = match prepare_engine(&config) {
            Err(error) if error.is::<engine::Cannot>() && !config.is_runtime_chosen => {
                say("*** This machine cannot run system containers. ***");
                say("*** Containers will be plain processes of this machine, without isolation. ***");
                say("*** Ports are 8080 and 8443 where none were chosen. ***");
                let config = Config::load_local(matches)?;
                config.keep()?;
                config
            }
            done => done.map(|()| config)?,
        };
        up(&config, state).await
    }))?;
    Ok(ExitCode::SUCCESS)
}

/// Have what runs the containers run, and the image they are made from.
fn prepare_engine(config: &Config) -> anyhow::Result<()> {
    if config.runtime == Runtime::Incus {
        say("having the container engine run");
        engine::start(config)?;
        say("having the base image");
        engine::image(config)?;
    }
    Ok(())
}

async fn up(config: &Config, mut state: State) -> anyhow::Result<()> {
    let clock = Arc::new(certs::SystemClock);
    let authority =
        certs::Local::open_or_create(&state.pki(), &config.domain, &config.node, clock)?;
    let gateway = node::gateway(config);
    kit::install(
        config,
        &state,
        authority.ca_pem(),
        gateway,
        config::proxy_environment(),
    )?;
    if let Err(error) = kit::install_runtime(config, &state) {
        eprintln!("scripts will not run in containers: {error:#}");
    }

    start(config, &state).await?;
    let listening = ports::present(&config.listen(gateway));
    let visitor = Visitor::new(config, &listening, authority.ca_pem())?;
    wait(
        "waiting for the node to answer",
        answers(config, &state, &visitor),
    )
    .await?;

    let administrator = control::first_run(state.root()).await?;
    if let Some(password) = &administrator.password {
        // At once: nobody knows it otherwise, whatever fails below.
        println!(
            "Administrator  {}, password {password} (shown this once)",
            administrator.username
        );
    }
    let ca = certs::Local::certificate_path(&state.pki());
    let (profile, token) = token(config, &mut state, &ca, &visitor).await?;
    let visitor = visitor.with_token(token.clone());
    let first = first_container(&visitor).await?;
    let waiting = format!("waiting for the container `{}` to answer", first.name);
    wait(&waiting, first.answers(config, &visitor)).await?;
    print(&Summary {
        config,
        container: &first,
        administrator: &administrator.username,
        token: &token,
        profile: &profile,
        ca: &ca,
        program: &std::env::current_exe().context("could not find out where this program is")?,
    });
    Ok(())
}

/// Have the node run as this program and these settings want it.
async fn start(config: &Config, state: &State) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("could not find out where this program is")?;
    let unit = Unit::of(config);
    if Process::read(&state.pid(NODE)).is_some_and(|node| node.is_alive()) {
        let as_wanted = node::running_as(config, &program)?;
        if std::fs::read_to_string(state.running()).is_ok_and(|running| running == as_wanted) {
            return Ok(());
        }
        // Before it is stopped: a node with the old settings is better than none.
        let ours =
            ROLES.map(|role| Process::read(&state.pid(role)).map_or(0, |process| process.pid));
        check_ports(config, &ours)?;
        say("the node runs with other settings or as another version; starting it anew");
        wait("waiting for the node to end", down::stop(config, state)).await?;
    }
    check_ports(config, &[])?;
    say("starting the node");
    match unit {
        Some(unit) => unit.start(config, &program),
        None => start_detached(&program, state),
    }
}

/// Whether the node can listen where it is to; what the processes `ours` hold counts as free.
fn check_ports(config: &Config, ours: &[u32]) -> anyhow::Result<()> {
    let addresses = ports::present(&config.listen(node::gateway(config)));
    let addresses = addresses
        .iter()
        .flat_map(|ip| [config.http, config.https].map(|port| SocketAddr::new(*ip, port)));
    let visitors = Wanted {
        addresses: addresses.collect(),
        remedy: "choose other ports with --http PORT and --https PORT",
    };
    let metrics = Wanted {
        addresses: [config.proxy_metrics, config.control_metrics]
            .into_iter()
            .flatten()
            .collect(),
        remedy: "choose other addresses with --metrics-proxy and --metrics-control, or say `off` for them",
    };
    let names = Wanted {
        addresses: dns::listen(config)?,
        remedy: "choose other addresses with --dns-bind",
    };
    ports::check(&visitors, ours)?;
    ports::check(&metrics, ours)?;
    ports::check(&names, ours)?;
    Ok(())
}

/// Start the supervisor so that it outlives this command and its terminal.
fn start_detached(program: &Path, state: &State) -> anyhow::Result<()> {
    // What it says before it has a log, or when it panics.
    let complaints =
        std::fs::File::create(complaints(state)).context("could not open the node's log")?;
    std::process::Command::new(program)
        .args([NODE, "--detached", "--state"])
        .arg(state.root())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(complaints)
        .spawn()
        .with_context(|| format!("could not start {}", program.display()))?;
    Ok(())
}

fn complaints(state: &State) -> PathBuf {
    state.log("node-errors")
}

/// Wait until the API answers through the proxy.
async fn answers(config: &Config, state: &State, visitor: &Visitor) -> anyhow::Result<()> {
    let url = format!("{}/api/v1/users/me", config.api_url());
    let deadline = Instant::now() + NODE_PATIENCE;
    loop {
        let saw = match visitor.status(&url).await {
            Ok(StatusCode::UNAUTHORIZED | StatusCode::OK) => return Ok(()),
            Ok(status) => format!("it answers {status}"),
            Err(error) => chain(&error),
        };
        if Instant::now() >= deadline {
            let roles = ROLES
                .iter()
                .chain([&NODE])
                .map(|role| (*role, state.log(role)));
            let mut logs: Vec<(&str, PathBuf)> = roles.collect();
            logs.push(("the node, before it had a log", complaints(state)));
            for (role, path) in logs {
                if let Some(text) = logs::tail(&path, 8) {
                    say(&format!(
                        "the last words of {role}, in {}:\n{text}",
                        path.display()
                    ));
                }
            }
            bail!(
                "the node did not answer at {url} within {} s: {saw}",
                NODE_PATIENCE.as_secs()
            );
        }
        sleep(POLL).await;
    }
}

/// The administrator's token from the profile of this node, made where there is none that works.
async fn token(
    config: &Config,
    state: &mut State,
    ca: &Path,
    visitor: &Visitor,
) -> anyhow::Result<(PathBuf, String)> {
    let directory = config::profiles().unwrap_or_else(|| state.root().join("profiles"));
    let path = choose_profile(
        &directory,
        &format!("{}-{}", config.engine_name, config.https),
        state,
        ca,
    )?;
    let mut known = Profile::read(&path)?.unwrap_or_default();
    if let Some(token) = known.token.clone()
        && known.api_url == config.api_url()
        && visitor.accepts(&token).await?
    {
        state.remember_profile(&path)?;
        return Ok((path, token));
    }
    let token = control::mint_token(state.root(), TOKEN).await?;
    known.api_url = config.api_url();
    known.ca_cert = Some(ca.to_owned());
    known.token = Some(token.clone());
    known.refresh_token = None;
    known.username = None;
    known.write(&path)?;
    state.remember_profile(&path)?;
    Ok((path, token))
}

/// The file of the profile for this node: the one it had, the default one where that is free, or
/// one called `own`. A profile of another node is left alone.
fn choose_profile(
    directory: &Path,
    own: &str,
    state: &State,
    ca: &Path,
) -> anyhow::Result<PathBuf> {
    let is_free = |path: &Path| -> anyhow::Result<bool> {
        Ok(Profile::read(path)?
            .is_none_or(|known| known.api_url.is_empty() || known.ca_cert.as_deref() == Some(ca)))
    };
    if let Some(path) = state.profile()
        && is_free(path)?
    {
        return Ok(path.to_owned());
    }
    for name in ["default", own] {
        let path = profile::path(directory, name)?;
        if is_free(&path)? {
            return Ok(path);
        }
    }
    Ok(state.root().join("profile.json"))
}

/// A container, as far as its addresses go.
struct Container {
    id: Id,
    project: Id,
    name: String,
}

/// The container to show: the first one, made where there is none at all.
async fn first_container(visitor: &Visitor) -> anyhow::Result<Container> {
    let listed = visitor
        .get("/api/v1/containers/?limit=100&sort_by=created_at&sort_order=asc")
        .await?;
    let listed = listed["containers"]
        .as_array()
        .context("the API lists no containers")?;
    let named = listed
        .iter()
        .find(|container| container["name"] == CONTAINER);
    if let Some(container) = named.or(listed.first()) {
        return Container::read(container);
    }
    let projects = visitor.get("/api/v1/projects/?limit=100").await?;
    let projects = projects["projects"]
        .as_array()
        .context("the API lists no projects")?;
    let project = match projects
        .iter()
        .find(|project| project["alias"] == PROJECT)
        .or(projects.first())
    {
        Some(project) => text(project, "id")?,
        None => text(
            &visitor
                .post("/api/v1/projects/", json!({ "alias": PROJECT }))
                .await?,
            "id",
        )?,
    };
    let servers = visitor.get("/api/v1/servers").await?;
    let server = servers.get(0).context("the API lists no server")?;
    let server = text(server, "server_id").or_else(|_| text(server, "id"))?;
    say(&format!("making the container `{CONTAINER}`"));
    let order = json!({ "server_id": server, "name": CONTAINER, "hoody_kit": true });
    Container::read(
        &visitor
            .post(&format!("/api/v1/projects/{project}/containers"), order)
            .await?,
    )
}

impl Container {
    fn read(container: &Value) -> anyhow::Result<Container> {
        Ok(Container {
            id: text(container, "id")?.parse().context("a container's id")?,
            project: text(container, "project_id")?
                .parse()
                .context("a project's id")?,
            name: text(container, "name")?,
        })
    }

    /// The address of one of its services: `https://{P}-{C}-terminal-1...`.
    fn url(&self, config: &Config, service: &str) -> String {
        let Container { id, project, .. } = self;
        let zone = &config.zone;
        config.url(&format!(
            "{project}-{id}-{service}-1.{}.{}",
            zone.node(),
            zone.containers()
        ))
    }

    /// Wait until its terminal answers through the proxy, and start it where it stands still.
    async fn answers(&self, config: &Config, visitor: &Visitor) -> anyhow::Result<()> {
        let health = format!("{}/api/v1/terminal/health", self.url(config, "terminal"));
        let path = format!("/api/v1/containers/{}", self.id);
        let deadline = Instant::now() + CONTAINER_PATIENCE;
        let mut look = Instant::now();
        let mut status = String::new();
        loop {
            let saw = match visitor.status(&health).await {
                Ok(StatusCode::OK) => return Ok(()),
                Ok(status) => format!("it answers {status}"),
                Err(error) => chain(&error),
            };
            if Instant::now() >= look {
                look = Instant::now() + Duration::from_secs(1);
                status = text(&visitor.get(&path).await?, "status")?;
                match status.as_str() {
                    "stopped" => {
                        say(&format!("starting the container `{}`", self.name));
                        visitor.post(&format!("{path}/start"), json!({})).await?;
                    }
                    "paused" => {
                        say(&format!("resuming the container `{}`", self.name));
                        visitor.post(&format!("{path}/resume"), json!({})).await?;
                    }
                    _ => {}
                }
            }
            let is_lost = matches!(status.as_str(), "failed" | "error");
            if is_lost || Instant::now() >= deadline {
                bail!(
                    "the container `{}` does not answer at {health}: {saw}; its status is {status}. See what \
                     happened with `hoody containers status-logs {}`",
                    self.name,
                    self.id
                );
            }
            sleep(POLL).await;
        }
    }
}

fn text(value: &Value, key: &str) -> anyhow::Result<String> {
    let text = value[key]
        .as_str()
        .with_context(|| format!("the API's answer has no `{key}`"))?;
    Ok(text.to_owned())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        words = format!("{words}: {error}");
        source = error.source();
    }
    words
}

/// What a person wants to know of a node that is up.
struct Summary<'a> {
    config: &'a Config,
    container: &'a Container,
    administrator: &'a str,
    token: &'a str,
    profile: &'a Path,
    ca: &'a Path,
    program: &'a Path,
}

fn print(summary: &Summary<'_>) {
    let Summary {
        config,
        container,
        administrator,
        token,
        profile,
        ca,
        program,
    } = summary;
    // What the directory or somebody else made, curl believes as it believes the rest of the world;
    // or by the roots that the node was told about.
    let certificates = &config.certificates;
    let (origin, believed) = match certificates.mode {
        Mode::Local => {
            let (ca, program) = (ca.display(), program.display());
            let origin = format!("CA             {ca}\n\x20 trust it     {program} trust");
            (origin, Some(ca.to_string()))
        }
        Mode::Acme => (
            format!("Certificates   from {}", certificates.directory),
            certificates
                .root
                .as_ref()
                .map(|it| it.display().to_string()),
        ),
        Mode::Files => (
            format!("Certificates   in {}", certificates.files.display()),
            certificates
                .root
                .as_ref()
                .map(|it| it.display().to_string()),
        ),
    };
    let believed = believed.map_or(String::new(), |roots| format!(" --cacert {roots}"));
    // curl would ask a proxy of the machine's for names that only this machine knows.
    let direct = if config.zone.is_local() && !config::proxy_environment().is_empty() {
        " --noproxy '*'"
    } else {
        ""
    };
    println!(
        "API            {api}\n\
         Container      {name} ({id})\n\
         \x20 terminal     {terminal}\n\
         \x20 files        {files}\n\
         Token          {token}\n\
         \x20              (of {administrator}, kept in {profile})\n\
         {origin}\n\
         Try it         curl{direct}{believed} -H 'Authorization: Bearer {token}' {api}/api/v1/containers/",
        api = config.api_url(),
        name = container.name,
        id = container.id,
        terminal = container.url(config, "terminal"),
        files = container.url(config, "files"),
        profile = profile.display(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_of_other_nodes_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let (directory, ca) = (root.path().join("profiles"), root.path().join("ca.crt"));
        let mut state = State::create(&root.path().join("state")).unwrap();
        let choose = |state: &State| choose_profile(&directory, "hoody-443", state, &ca).unwrap();
        let keep = |path: &Path, ca: &str| {
            let profile = Profile {
                api_url: "https://x".into(),
                ca_cert: Some(ca.into()),
                ..Profile::default()
            };
            profile.write(path).unwrap();
        };
        let default = directory.join("default.json");
        assert_eq!(choose(&state), default);
        keep(&default, ca.to_str().unwrap());
        assert_eq!(choose(&state), default, "it is this node's");
        keep(&default, "/other/ca.crt");
        assert_eq!(choose(&state), directory.join("hoody-443.json"));
        state
            .remember_profile(&directory.join("mine.json"))
            .unwrap();
        assert_eq!(choose(&state), directory.join("mine.json"));
        keep(&directory.join("mine.json"), "/other/ca.crt");
        keep(&directory.join("hoody-443.json"), "/other/ca.crt");
        assert_eq!(choose(&state), state.root().join("profile.json"));
    }

    #[test]
    fn containers_have_addresses() {
        let container = Container::read(&json!({
            "id": "0123456789abcdef01234567", "project_id": "89abcdef0123456789abcdef", "name": "first"
        }))
        .unwrap();
        assert_eq!(container.name, "first");
        let error = Container::read(&json!({ "id": "x", "project_id": "y", "name": "z" }))
            .err()
            .expect("no ids");
        assert!(error.to_string().contains("a container's id"), "{error}");
    }
}
