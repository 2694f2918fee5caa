//! The handle that all parts of control share.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use routes::Id;

use crate::auth::Auth;
use crate::config::{self, Config};
use crate::idle::Used;
use crate::metrics::Metrics;
use crate::node::Host;
use crate::policies::Policies;
use crate::prespawn::Prespawn;
use crate::publish::Publisher;
use crate::reconcile::Nudges;
use crate::runtime::Runtime;
use crate::runtime::fake::Fake;
use crate::secrets::{Secrets, SecretsError};
use crate::shares::Shares;
use crate::store::node::Identity;
use crate::store::{Store, StoreError, containers, node};
use crate::stream::Streams;
use crate::tasks::Tasks;
use crate::time::{self, Clock, Millis};
use crate::wake::Woken;
use crate::words;

/// A control plane; cheap to clone. It does nothing by itself: [`crate::reconcile`] and
/// [`crate::publish`] run on it, and [`crate::api()`] asks it.
#[derive(Clone)]
pub struct Control(Arc<Parts>);

/// What a control plane is made of.
pub struct Parts {
    pub config: Config,
    pub store: Store,
    pub runtime: Arc<dyn Runtime>,
    pub clock: Clock,
    pub auth: Auth,
    pub secrets: Secrets,
    pub host: Host,
    pub identity: Identity,
    pub nudges: Nudges,
    /// Told of every end of a step about a container's disk, for those who wait for one.
    pub disks: tokio::sync::watch::Sender<()>,
    pub publisher: Publisher,
    pub metrics: Metrics,
    pub woken: Woken,
    pub used: Used,
    pub streams: Streams,
    pub tasks: Tasks,
    pub policies: Policies,
    pub prespawn: Prespawn,
    pub shares: Shares,
}

/// Raised when what a runtime writes for all machines alike changes: those that are there are told.
pub(crate) const SETTINGS: u32 = 1;

/// Why a control plane could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("could not make the state directory {path}")]
    MakeDirectory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Deref for Control {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Control {
    /// Open the control plane of a state directory; what is missing in it is made.
    pub async fn open(config: Config, runtime: Arc<dyn Runtime>) -> Result<Control, OpenError> {
        Self::open_at(config, runtime, time::system()).await
    }

    /// The same, with a clock of the caller's.
    pub async fn open_at(
        config: Config,
        runtime: Arc<dyn Runtime>,
        clock: Clock,
    ) -> Result<Control, OpenError> {
        std::fs::create_dir_all(&config.state).map_err(|source| OpenError::MakeDirectory {
            path: config.state.clone(),
            source,
        })?;
        let secrets = Secrets::open(&config::secrets(&config.state))?;
        let store = Store::open(&config.database())?;
        let host = Host::observe(&config.state);
        let (boot, now) = (host.boot.clone(), clock().as_millisecond());
        let bounds = config.machine_limits;
        let fresh = Identity {
            id: words::id(),
            since: now,
        };
        let identity = store
            .write("note the start of the node", move |db| {
                let before = node::boot(db, &boot)?;
                if before.is_some_and(|before| before != boot) {
                    let stay_off = containers::booted(db, now)?;
                    tracing::info!(
                        stay_off,
                        "the host was booted; what does not start with it stays off"
                    );
                }
                if node::is_news(db, "machines", &format!("{SETTINGS} {bounds:?}"))? {
                    let machines = containers::outdate(db)?;
                    tracing::info!(
                        machines,
                        "each machine is told what it may take: {bounds:?}"
                    );
                }
                node::identity(db, fresh)
            })
            .await?;
        Ok(Self::assemble(
            config, store, runtime, secrets, host, identity, clock,
        ))
    }

    /// A control plane of nothing, for its documents.
    pub fn detached() -> Control {
        let config = Config::new("/nonexistent", "node", "localhost");
        let store = Store::in_memory().expect("a database in memory needs memory alone");
        let nobody = Fake::new(
            "/nonexistent",
            Arc::new(|_, _| tokio::spawn(async {}).abort_handle()),
        );
        let identity = Identity {
            id: Id([0; 12]),
            since: 0,
        };
        Self::assemble(
            config,
            store,
            Arc::new(nobody),
            Secrets::passing(),
            Host::default(),
            identity,
            time::system(),
        )
    }

    fn assemble(
        config: Config,
        store: Store,
        runtime: Arc<dyn Runtime>,
        secrets: Secrets,
        host: Host,
        identity: Identity,
        clock: Clock,
    ) -> Control {
        let auth = Auth::new(store.clone(), clock.clone(), &secrets, &config.limits);
        let generation = clock().as_millisecond().cast_unsigned();
        Control(Arc::new(Parts {
            auth,
            nudges: Nudges::default(),
            disks: tokio::sync::watch::Sender::new(()),
            publisher: Publisher::new(generation),
            metrics: Metrics::new(),
            woken: Woken::default(),
            used: Used::default(),
            streams: Streams::default(),
            tasks: Tasks::default(),
            policies: Policies::default(),
            prespawn: Prespawn::default(),
            shares: Shares::default(),
            config,
            store,
            runtime,
            clock,
            secrets,
            host,
            identity,
        }))
    }

    pub fn now(&self) -> Millis {
        (self.clock)().as_millisecond()
    }
}
