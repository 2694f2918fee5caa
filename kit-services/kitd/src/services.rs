//! The list of the services. Adding one is one line here.

use axum::Router;
use axum::routing::get;
use kit::{Api, pages};
use serde_json::Value;

use crate::Settings;
use crate::pages::PAGES;

/// A service and how it is made.
pub struct Entry {
    /// The slug that the proxy names it by.
    pub slug: &'static str,
    /// Its operations.
    pub api: fn(&Settings) -> Api,
    /// Whether a page answers at `/`.
    pub page: bool,
    /// Whether it has something to do that nobody calls it for.
    pub wanted: fn(&Settings) -> bool,
}

/// Every service of the kit.
pub const SERVICES: &[Entry] = &[
    Entry {
        slug: "terminal",
        api: terminal,
        page: true,
        wanted: |_| false,
    },
    Entry {
        slug: "files",
        api: files,
        page: false, // it shares `/` with listings
        wanted: |settings| files::remote::Remote::wants_to_run(&settings.state.join("files")),
    },
    Entry {
        slug: "sqlite",
        api: sqlite,
        page: false, // it shares `/` with WebSockets
        wanted: |_| false,
    },
    Entry {
        slug: "exec",
        api: exec,
        page: false, // it shares `/` with scripts
        wanted: |settings| exec::Exec::wants_to_run(&settings.state.join("exec")),
    },
];

fn terminal(settings: &Settings) -> Api {
    let mut config = terminal::Config {
        state: settings.state.join("terminal"),
        drops: settings.state.join("drops"),
        pictures: settings.state.join("screenshots"),
        power: settings.power.clone(),
        connector: settings.program.clone(),
        ..terminal::Config::default()
    };
    if !settings.machine {
        // Users of this machine are not the container's: everything is whoever the kit is.
        config.default_user = String::new();
        config.home = Some(settings.home.clone());
        (config.displays, config.units) = (None, None);
    }
    let terminal = terminal::Terminal::new(config);
    terminal::api(&terminal).busy(move || terminal.is_busy())
}

fn files(settings: &Settings) -> Api {
    let files = files::Files::new(files::Config {
        root: settings.root.clone(),
        home: settings.home.clone(),
        remote: files::remote::Config {
            state: settings.state.join("files"),
            mounts: settings.root.join("hoody/mounts"),
            jailed: settings.root.as_os_str() != "/",
            home: settings.home.clone(),
        },
        page: Some(|| PAGES.index("files")),
    });
    files::api(&files).busy(move || files.is_busy())
}

fn sqlite(settings: &Settings) -> Api {
    let state = settings.state.join("sqlite");
    let mut config = sqlite::Config::new(settings.root.clone(), state);
    config.page = Some(|| PAGES.index("sqlite"));
    config.home = Some(settings.home.clone());
    let sqlite = sqlite::Sqlite::new(config);
    sqlite::api(&sqlite).busy(move || sqlite.is_busy())
}

fn exec(settings: &Settings) -> Api {
    let state = settings.state.join("exec");
    let (storage, run) = match settings.machine {
        true => ("/hoody/storage/hoody-exec".into(), "/run/hoody-exec".into()),
        false => (settings.home.join("hoody-exec"), state.join("run")),
    };
    let exec = exec::Exec::new(exec::Config {
        scripts: storage.join("scripts"),
        logs: storage.join("logs"),
        cache: storage.join("cache"),
        run,
        state,
        runtime: settings.runtime.clone(),
        // Users of another machine are not the container's: everything is whoever the kit is.
        user: settings.machine.then(|| "user".to_owned()),
        home: settings.home.clone(),
        environment: settings.environment.clone(),
        page: Some(|| PAGES.index("exec")),
    });
    exec::api(&exec).busy(move || exec.is_busy())
}

/// A service that was called.
pub struct Started {
    pub router: Router,
    busy: Option<kit::api::Busy>,
}

impl Started {
    /// Whether it holds something that would be lost with the process.
    pub fn is_busy(&self) -> bool {
        self.busy.as_ref().is_some_and(|busy| busy())
    }
}

impl Entry {
    /// The service's router with its page and the page's assets.
    pub fn start(&self, settings: &Settings) -> Started {
        let slug = self.slug;
        let api = (self.api)(settings);
        let busy = api.busy.clone();
        let mut router = api.router();
        if self.page {
            router = router.route("/", get(move || async move { PAGES.index(slug) }));
        }
        router = router.nest_service(pages::PREFIX, PAGES.assets());
        Started { router, busy }
    }
}

/// The service with this slug.
pub fn find(slug: &str) -> Option<(usize, &'static Entry)> {
    SERVICES
        .iter()
        .enumerate()
        .find(|(_, entry)| entry.slug == slug)
}

/// The OpenAPI documents of all services, in the order of the list.
pub fn documents() -> Vec<Value> {
    let settings = Settings::machine();
    SERVICES
        .iter()
        .map(|entry| (entry.api)(&settings).document())
        .collect()
}
