//! The processes of a node: a supervisor, and under it control, the proxy and the relay.

use std::fs::{self, File, OpenOptions};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal, setsid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::config::{self, Config, Runtime};
use crate::logs::Log;
use crate::process::Process;
use crate::state::State;
use crate::supervise::{Pace, Program, Want, supervise};
use crate::{certs, dns, engine, files, ports};

/// The name of the supervisor in files and logs.
pub const NODE: &str = "node";
/// What it supervises, in the order of their start: the proxy goes last and ends first, so that
/// requests under way still find control; the relay, by which containers leave that are to leave by
/// a proxy, goes on while control is started anew.
pub const ROLES: [&str; 3] = [RELAY, "control", "proxy"];
const RELAY: &str = "relay";

/// Those that a node has: without networks of containers there is nothing to relay.
pub fn roles(config: &Config) -> impl Iterator<Item = &'static str> + use<> {
    let relays = config.runtime == Runtime::Incus;
    ROLES
        .into_iter()
        .filter(move |role| relays || *role != RELAY)
}

/// How long the proxy waits for the bridge on which containers reach it before it serves without.
const BRIDGE: Duration = Duration::from_secs(10);
/// How often it looks whether the bridge has come after all.
const BRIDGE_POLL: Duration = Duration::from_secs(2);

pub fn command() -> Command {
    config::options(Command::new(NODE).about(
        "Run this machine's node in the foreground: the supervisor of control, the proxy and the relay",
    ))
    .arg(
        Arg::new("detached")
            .long("detached")
            .action(ArgAction::SetTrue)
            .hide(true)
            .help("Leave the terminal that it was started from"),
    )
}

pub fn control_command() -> Command {
    role(
        "control",
        "Run the control plane alone; `hoody node` does so by itself",
    )
}

pub fn proxy_command() -> Command {
    role(
        "proxy",
        "Run the proxy alone; `hoody node` does so by itself",
    )
}

pub fn relay_command() -> Command {
    role(
        RELAY,
        "Run the relay of containers that leave by a proxy alone; `hoody node` does so by itself",
    )
}

fn role(name: &'static str, about: &'static str) -> Command {
    let parent = Arg::new("parent")
        .long("parent")
        .value_name("PID")
        .value_parser(value_parser!(i32))
        .hide(true)
        .help("End when this process does, which started this one");
    config::options(Command::new(name).about(about)).arg(parent)
}

/// What a node was started as: where this differs from what it would be now, it wants a restart.
pub fn running_as(config: &Config, program: &Path) -> anyhow::Result<String> {
    let facts = fs::metadata(program)
        .with_context(|| format!("could not look at {}", program.display()))?;
    let gateway = gateway(config);
    let (inode, size, changed, nanos) =
        (facts.ino(), facts.size(), facts.mtime(), facts.mtime_nsec());
    Ok(format!(
        "{} {gateway:?} {program:?} {inode} {size} {changed}.{nanos}\n",
        config.fingerprint()
    ))
}

/// Run the supervisor until it is told to end.
pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let config = Config::load(matches)?;
    let state = State::open(&config.state)?;
    if matches.get_flag("detached") {
        let _ = setsid(); // it only fails where there is nothing to leave
    }
    let log = Log::open(&state.log(NODE)).context("could not open the node's log")?;
    let level = EnvFilter::try_new(config::log_filter()).unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter(level)
        .with_writer(move || log.clone())
        .init();
    let _lock = lock(&state.lock())?.with_context(|| {
        format!(
            "a node runs on {} already; stop it with `hoody down`",
            state.root().display()
        )
    })?;
    let own = Process::of(std::process::id()).context("this process cannot see itself in /proc")?;
    let program = std::env::current_exe().context("could not find out where this program is")?;
    files::write(
        &state.running(),
        running_as(&config, &program)?.as_bytes(),
        0o600,
    )?;
    own.write(&state.pid(NODE))?;
    info!("node {} of {} starts", config.node, config.domain);
    let (renew, renewed) = watch::channel(0u64);
    let programs = roles(&config).map(|name| Program {
        name,
        path: program.clone(),
        arguments: vec![
            name.into(),
            "--state".into(),
            config.state.clone().into(),
            "--parent".into(),
            std::process::id().to_string().into(),
        ],
        log: state.log(name),
        pid: state.pid(name),
        // A new proxy takes the place of the old one without losing a request.
        renew: (name == "proxy").then(|| renewed.clone()),
    });
    // One thread: the death of the thread that starts a role is the role's signal to end.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (want, wanted) = watch::channel(Want::Run);
        tokio::spawn(listen_for_signals(want, renew)?);
        supervise(programs.collect(), Pace::default(), wanted).await;
        anyhow::Ok(())
    })?;
    info!("node {} ended", config.node);
    files::remove(&state.pid(NODE))?;
    files::remove(&state.running())?;
    Ok(ExitCode::SUCCESS)
}

/// The first signal asks for an end, the second for one at once. SIGHUP asks for a proxy with the
/// settings and the program that there are now; a terminal that closes takes no node with it.
fn listen_for_signals(
    want: watch::Sender<Want>,
    renew: watch::Sender<u64>,
) -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        let mut asked = 0;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {
                    info!("told to renew the proxy");
                    renew.send_modify(|times| *times += 1);
                    continue;
                }
            }
            asked += 1;
            info!("told to end");
            want.send_replace(if asked == 1 { Want::End } else { Want::Die });
        }
    })
}

/// Run the control plane until it is told to end.
pub fn run_control(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (config, state) = prepare(matches)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let machines = machines(&config, &state).await?;
        let mut settings =
            control::Config::new(state.root(), config.node.clone(), config.domain.clone());
        settings.https_port = config.https;
        settings.metrics = config.control_metrics;
        settings.certificates = Some(certs::told(&config, &state));
        settings.machine_limits = config.machine_limits(machines.space());
        settings.prespawn = config.prespawn();
        Box::pin(control::serve(settings, machines, told_to_end()?)).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// What runs the containers of this node.
pub async fn machines(config: &Config, state: &State) -> anyhow::Result<Arc<dyn control::Runtime>> {
    match config.runtime {
        Runtime::Local => {
            use control::runtime::local::{Local, Settings};
            let mut settings = Settings::new(
                state.root().join("containers"),
                state.kit().join("bin/kitd"),
            );
            settings.hidden = vec![state.root().to_owned()];
            Ok(Arc::new(Local::open(settings).await?))
        }
        Runtime::Incus => {
            use control::runtime::incus::{Incus, Settings};
            let settings = Settings {
                socket: config.engine_socket.clone(),
                name: config.engine_name.clone(),
                containers: state.root().join("containers"),
                kit: state.kit(),
                relay: relay_socket(state),
            };
            Ok(Incus::connect(settings).await?)
        }
    }
}

fn relay_socket(state: &State) -> PathBuf {
    state.root().join("run").join("relay.sock")
}

/// Run the relay until it is told to end.
pub fn run_relay(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    use control::relay::{Reach, Settings, serve};
    use control::runtime::incus::{RELAY, RELAY_NAMES};
    let (config, state) = prepare(matches)?;
    let socket = relay_socket(&state);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let told = told_to_end()?;
        tokio::pin!(told);
        let address = async {
            loop {
                if let Some(IpAddr::V4(address)) = gateway(&config) {
                    return address;
                }
                tokio::time::sleep(BRIDGE_POLL).await;
            }
        };
        let address = tokio::select! {
            address = address => address,
            () = &mut told => return Ok(ExitCode::SUCCESS),
        };
        let settings = Settings {
            address,
            port: RELAY,
            names: RELAY_NAMES,
            socket,
            reach: Reach::Beyond,
        };
        serve(settings, told).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Run the proxy until it is told to end.
pub fn run_proxy(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (config, state) = prepare(matches)?;
    let names = dns::server(&config).context("the name server cannot start")?;
    let own = names.as_ref().map(|names| names.server.clone());
    let challenge = dns::challenge(&config, own.clone())?;
    let shown = certs::open(&config, &state, challenge, own)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let told = told_to_end()?;
        let gateway = wait_for_gateway(&config).await;
        let late = gateway.is_none().then(|| bridge_comes(config.clone()));
        let mut settings = proxy::Config::new(config.zone.clone(), state.root());
        let addresses = ports::present(&config.listen(gateway));
        settings.http = addresses.iter().map(|ip| SocketAddr::new(*ip, config.http)).collect();
        settings.https = addresses.iter().map(|ip| SocketAddr::new(*ip, config.https)).collect();
        settings.senders = config.senders.clone();
        settings.resolvers = config.resolvers.clone();
        settings.public_https_port = Some(config.https);
        settings.metrics = config.proxy_metrics;
        settings.certificates = shown.proxy.clone();
        settings.dns = names;
        let end = async {
            match late {
                Some(late) => tokio::select! {
                    () = told => {}
                    () = late => info!("the bridge of the containers is there; starting anew to listen on it"),
                },
                None => told.await,
            }
        };
        let resolver = shown.resolver.clone();
        let started = |proxy: &proxy::Proxy| {
            let bound = proxy.bound();
            info!(http = ?bound.http, https = ?bound.https, "the proxy listens");
            proxy.domains().certified_by(move |host| resolver.find(host).is_some());
        };
        Box::pin(proxy::run(settings, shown.resolver.clone(), started, end)).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Where containers reach this machine, if it is an address of its own.
pub fn gateway(config: &Config) -> Option<IpAddr> {
    match config.runtime {
        Runtime::Incus => engine::gateway(config),
        Runtime::Local => None,
    }
}

async fn wait_for_gateway(config: &Config) -> Option<IpAddr> {
    if !needs_bridge(config) {
        return None;
    }
    let found = tokio::time::timeout(BRIDGE, bridge_comes(config.clone())).await;
    if found.is_err() {
        warn!("the engine's bridge is not there; containers do not reach this node until it comes");
    }
    gateway(config)
}

/// Whether the proxy listens on the engine's bridge: where it listens on all addresses it need not.
fn needs_bridge(config: &Config) -> bool {
    config.runtime == Runtime::Incus
        && config.listen(None) != config.listen(Some([192, 0, 2, 1].into()))
}

async fn bridge_comes(config: Config) {
    if !needs_bridge(&config) {
        return std::future::pending().await;
    }
    while gateway(&config).is_none() {
        tokio::time::sleep(BRIDGE_POLL).await;
    }
}

/// What both roles do first.
fn prepare(matches: &ArgMatches) -> anyhow::Result<(Config, State)> {
    if let Some(parent) = matches.get_one::<i32>("parent") {
        set_parent_process_death_signal(Some(Signal::TERM))
            .context("could not ask for the signal of a parent's end")?;
        if getppid() != Pid::from_raw(*parent) {
            bail!("the process that started this one has ended");
        }
    }
    let level = format!("{},{}", config::log_filter(), proxy::QUIET);
    let level = EnvFilter::try_new(level).unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter(level)
        .with_writer(std::io::stderr)
        .init();
    let config = Config::load(matches)?;
    let state = State::open(&config.state)?;
    Ok((config, state))
}

/// Until this process is told to end.
fn told_to_end() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Hold a file's lock; none where another process does.
pub fn lock(path: &Path) -> anyhow::Result<Option<File>> {
    let mut open = OpenOptions::new();
    let file = open
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    let file = file.with_context(|| format!("could not open {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("could not lock {}", path.display())),
    }
}
