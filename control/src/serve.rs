//! Running a control plane: the API on its socket, the reconciler, the feed, the metrics.

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use rustix::fs::{FlockOperation, flock};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use crate::certificates;
use crate::config::Config;
use crate::control::{Control, OpenError};
use crate::idle;
use crate::prespawn;
use crate::reconcile;
use crate::runtime::Runtime;
use crate::store::containers;
use crate::wake;

/// Requests under way at the end have this long to finish.
const DRAIN: Duration = Duration::from_secs(10);

/// Why control could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("could not make the directory of sockets {path}")]
    MakeDirectory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("could not lock {path}")]
    Lock {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "another control runs on this state directory (it holds {path}); stop it with `hoody down`"
    )]
    Running { path: PathBuf },
    #[error("could not listen on {path}")]
    Listen {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("metrics are for this machine alone: {address} is no loopback address")]
    PublicMetrics { address: SocketAddr },
    #[error("could not listen for metrics on {address}")]
    ListenMetrics {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("could not serve the API")]
    Serve(#[source] std::io::Error),
}

/// Serve until `shutdown` is over. Machines run on.
pub async fn serve(
    config: Config,
    runtime: Arc<dyn Runtime>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let socket = config.socket();
    let directory = socket.parent().unwrap_or(&config.state).to_owned();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .map_err(|source| ServeError::MakeDirectory {
            path: directory.clone(),
            source,
        })?;
    let _lock = lock(&directory.join("control.lock"))?;

    let control = Control::open(config, runtime).await?;
    let listener = listen(&socket)?;
    let waited_for = listen(&control.config.wake())?;
    let metrics = match control.config.metrics {
        Some(address) => Some(listen_for_metrics(address).await?),
        None => None,
    };

    let stop = CancellationToken::new();
    let working = tokio::spawn(reconcile::run(control.clone()));
    let hearing = tokio::spawn(wake::serve(control.clone(), waited_for));
    let idling = tokio::spawn(idle::run(control.clone()));
    let preparing = tokio::spawn(prespawn::run(control.clone()));
    let watching = tokio::spawn(certificates::watch(control.clone()));
    let feeding = tokio::spawn({
        let control = control.clone();
        async move {
            let published = control.metrics.published.clone();
            control
                .publisher
                .run(&control.config.feed(), |n| published.inc_by(n))
                .await;
        }
    });
    let measured = metrics.map(|listener| {
        let router = metrics_router(control.clone());
        let stop = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            axum::serve(listener, router)
                .with_graceful_shutdown(stop)
                .await
        })
    });
    tracing::info!(socket = %socket.display(), runtime = control.runtime.name(), "control serves");

    let router = crate::router(&control);
    let serving = {
        let stop = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            axum::serve(listener, router)
                .with_graceful_shutdown(stop)
                .await
        })
    };
    let mut serving = Drop(serving);
    let ended = tokio::select! {
        () = shutdown => {
            tracing::info!("control stops");
            stop.cancel();
            control.streams.close();
            tokio::time::timeout(DRAIN, &mut serving.0).await.unwrap_or_else(|_| {
                tracing::warn!("requests were still under way after {DRAIN:?}; dropping them");
                Ok(Ok(()))
            })
        }
        ended = &mut serving.0 => ended,
    };
    stop.cancel();
    working.abort();
    feeding.abort();
    hearing.abort();
    idling.abort();
    preparing.abort();
    watching.abort();
    if let Some(measured) = measured {
        measured.abort();
    }
    std::fs::remove_file(&socket).ok(); // a stale one is replaced anyway
    match ended {
        Ok(result) => result.map_err(ServeError::Serve),
        Err(error) => Err(ServeError::Serve(std::io::Error::other(error))),
    }
}

/// Ends its task when dropped.
struct Drop<T>(tokio::task::JoinHandle<T>);

impl<T> std::ops::Drop for Drop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Two controls on one database would undo each other's steps.
fn lock(path: &Path) -> Result<File, ServeError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| ServeError::Lock {
            path: path.to_owned(),
            source,
        })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ServeError::Running {
            path: path.to_owned(),
        }),
        Err(error) => Err(ServeError::Lock {
            path: path.to_owned(),
            source: error.into(),
        }),
    }
}

/// Listen where only our own user may connect. The socket takes its place with its permissions
/// set, in place of one that a crash left behind.
fn listen(path: &Path) -> Result<UnixListener, ServeError> {
    let wrong = |source| ServeError::Listen {
        path: path.to_owned(),
        source,
    };
    let beside = path.with_extension("new");
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(wrong(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&beside).map_err(wrong)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600)).map_err(wrong)?;
    std::fs::rename(&beside, path).map_err(wrong)?;
    Ok(listener)
}

async fn listen_for_metrics(address: SocketAddr) -> Result<TcpListener, ServeError> {
    if !address.ip().is_loopback() {
        return Err(ServeError::PublicMetrics { address });
    }
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::ListenMetrics { address, source })
}

fn metrics_router(control: Control) -> Router {
    let answer = move || {
        let control = control.clone();
        async move {
            let tasks = control.tasks.list();
            let running = tasks.iter().filter(|task| task.step.is_some()).count();
            control.metrics.tasks(running, tasks.len() - running);
            control.metrics.kept(&control.prespawn.standing());
            match control
                .store
                .read("count containers", containers::census)
                .await
            {
                Ok(census) => (
                    StatusCode::OK,
                    [(CONTENT_TYPE, "text/plain; version=0.0.4")],
                    control.metrics.text(&census, control.streams.count()),
                ),
                Err(error) => {
                    tracing::error!(error = %crate::auth::chain(&error), "could not count containers");
                    (
                        StatusCode::INTERNAL_SERVER_ERROR,
                        [(CONTENT_TYPE, "text/plain")],
                        String::new(),
                    )
                }
            }
        }
    };
    Router::new().route("/metrics", get(answer))
}
