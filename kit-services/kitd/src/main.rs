//! `kitd`: the kit of one container.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use kitd::settings::{HOST_FILE, Host};
use kitd::{Kit, Settings, dispatch, loopback, surroundings, trust, upgrade};
use tokio::signal::unix::{SignalKind, signal};

/// The services of one container, on one unix socket.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The socket to answer on.
    #[arg(long, default_value = "/hoody/run/kit.sock")]
    socket: PathBuf,
    /// Home of the ordinary user; with --local also the root of what the services reach.
    #[arg(long)]
    home: Option<PathBuf>,
    /// Be one process among others instead of having a machine to itself.
    #[arg(long, requires = "home")]
    local: bool,
    /// Be neither: connect standard input and output to `--to` through the SOCKS5 proxy that this
    /// file describes. ssh is given this command for its sessions through proxies.
    #[arg(long, requires = "to")]
    socks5: Option<PathBuf>,
    /// Where to connect: host:port.
    #[arg(long, requires = "socks5")]
    to: Option<String>,
}

/// Threads that run tasks. Most kits are idle, and each thread costs memory.
const THREADS: usize = 2;

fn main() -> anyhow::Result<()> {
    let provider = rustls::crypto::ring::default_provider();
    provider
        .install_default()
        .ok()
        .context("the TLS provider was installed twice")?;
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time() // the journal has its own
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("KITD_LOG")
                .unwrap_or_else(|_| "info".into()),
        )
        .init();
    let arguments = Arguments::parse();
    if let (Some(proxy), Some(to)) = (&arguments.socks5, &arguments.to) {
        return tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("could not start the runtime")?
            .block_on(connect(proxy, to));
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(64)
        .enable_all()
        .build()
        .context("could not start the runtime")?
        .block_on(run(arguments))
}

/// Carry bytes between standard input and output and a machine behind a proxy.
async fn connect(proxy: &Path, to: &str) -> anyhow::Result<()> {
    let proxy = terminal::socks5::read(proxy).context("could not read the proxy's file")?;
    let (host, port) = to.rsplit_once(':').context("--to is host:port")?;
    let port = port.parse().context("--to is host:port")?;
    let mut stream = terminal::socks5::connect(&proxy, host, port).await?;
    let mut ends = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
    tokio::io::copy_bidirectional(&mut ends, &mut stream)
        .await
        .context("the connection was lost")?;
    Ok(())
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("could not find out where this program is")?;
    let mut settings = match (&arguments.home, arguments.local) {
        (Some(home), true) => Settings::process(home.clone()),
        (Some(home), false) => Settings {
            home: home.clone(),
            ..Settings::machine()
        },
        (None, _) => Settings::machine(),
    };
    settings.program = Some(program.clone());
    // bin/kitd and deno/deno stand in the same tree, wherever that is
    if let Some(tree) = program.parent().and_then(Path::parent) {
        settings.runtime = tree.join("deno");
    }
    let machine = settings.machine;
    let listener = dispatch::bind(&arguments.socket)
        .with_context(|| format!("could not listen on {}", arguments.socket.display()))?;
    notify_ready();
    tracing::info!("answering on {}", arguments.socket.display());
    if machine {
        tokio::spawn(settle());
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let kit = Kit::new(settings);
    kit.start_wanted();
    tokio::select! {
        served = kit.clone().serve(listener, std::future::pending()) => served.context("serving ended")?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = upgrade::wanted(&kit, program), if machine => {
            tracing::info!("there is another version of this program; making way for it");
        }
    }
    match std::fs::remove_file(&arguments.socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, "the socket stays behind");
        }
        _ => {}
    }
    Ok(())
}

/// What makes a machine at home on its host; none of it keeps the kit from answering.
async fn settle() {
    let trusted = tokio::task::spawn_blocking(|| {
        trust::install(
            Path::new(trust::OFFERED),
            Path::new(trust::BUNDLE),
            Path::new(trust::LOCAL),
        )
    });
    match trusted.await {
        Ok(Ok(0)) => {}
        Ok(Ok(added)) => tracing::info!("trusting {added} certificate(s) of the host"),
        Ok(Err(error)) => tracing::warn!(%error, "the host's certificates are not trusted"),
        Err(error) => tracing::error!(%error, "installing certificates panicked"),
    }
    let host = match Host::read(Path::new(HOST_FILE)) {
        Ok(Some(host)) => host,
        Ok(None) => return,
        Err(error) => return tracing::warn!(%error, "{HOST_FILE} could not be read"),
    };
    if let Err(error) = surroundings::install(&host.environment, Path::new("/etc")) {
        tracing::warn!(%error, "the host's proxy settings are not carried in");
    }
    if host.local
        && let Err(error) = loopback::serve(host).await
    {
        tracing::warn!(%error, "this container's URLs do not work from inside it");
    }
}

/// Tell the service manager, where there is one (sd_notify(3)).
fn notify_ready() {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let sent = std::os::unix::net::UnixDatagram::unbound()
        .and_then(|datagram| datagram.send_to(b"READY=1", Path::new(&socket)));
    if let Err(error) = sent {
        tracing::warn!(%error, "the service manager was not told");
    }
}
