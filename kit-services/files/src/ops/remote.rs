//! Backends and mounts.

use kit::{Api, Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Files;
use crate::remote::backends::Backend;
use crate::remote::kinds::KINDS;
use crate::remote::mounts::{Mount, Wanted};

/// What became of a backend or a mount.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Done {
    success: bool,
    message: String,
    /// Which.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
}

fn done(message: String, id: Option<String>) -> Done {
    Done {
        success: true,
        message,
        id,
        status: None,
    }
}

/// Connect a backend of the type in the path.
pub async fn connect(files: &Files, slug: &str, given: Map<String, Value>) -> Result<Done, Fault> {
    let kind = crate::remote::kinds::find(slug).ok_or_else(|| {
        Fault::not_found(format!(
            "no type of backends `{slug}`; the document of the service lists them"
        ))
    })?;
    let id = files.remote.connect(kind, given).await?;
    Ok(done(format!("Connected {id}"), Some(id)))
}

/// Add all of it.
pub fn add(api: Api, files: &Files) -> Api {
    let mut api = api
        .op::<List>(files)
        .op::<Details>(files)
        .op::<Update>(files)
        .op::<Disconnect>(files)
        .op::<Test>(files)
        .op::<ListMounts>(files)
        .op::<CreateMount>(files)
        .op::<MountDetails>(files)
        .op::<UpdateMount>(files)
        .op::<Unmount>(files);
    for kind in KINDS.iter().filter(|kind| kind.packaged) {
        let files = files.clone();
        api = api.tabled::<Done>(
            kind.route,
            || kind.schema(),
            move |given, _| {
                let files = files.clone();
                Box::pin(async move { connect(&files, kind.slug, given).await })
            },
        );
    }
    api
}

/// List the backends.
#[derive(Deserialize, JsonSchema)]
pub struct List {}

#[derive(Serialize, JsonSchema)]
pub struct Backends {
    backends: Vec<Backend>,
    count: usize,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/backends")
        .named("listBackends")
        .cli("files backends list");
    type Service = Files;
    type Reply = Backends;
    async fn run(self, files: Files, _: Call) -> Result<Backends, Fault> {
        let backends = files.remote.backends().await?;
        Ok(Backends {
            count: backends.len(),
            backends,
        })
    }
}

/// Describe a backend. Passwords and keys are in no answer.
#[derive(Deserialize, JsonSchema)]
pub struct Details {
    /// Its id.
    id: String,
}

impl Operation for Details {
    const ROUTE: Route = Route::get("/api/v1/backends/{id}")
        .named("getBackendDetails")
        .cli("files backends get");
    type Service = Files;
    type Reply = Backend;
    async fn run(self, files: Files, _: Call) -> Result<Backend, Fault> {
        files.remote.backend(&self.id).await
    }
}

/// Change parameters of a backend; those that are not named stay.
#[derive(Deserialize, JsonSchema)]
pub struct Update {
    /// Its id.
    id: String,
    /// Parameters of its type.
    #[serde(flatten)]
    parameters: Map<String, Value>,
}

impl Operation for Update {
    const ROUTE: Route = Route::put("/api/v1/backends/{id}")
        .named("updateBackend")
        .cli("files backends update");
    type Service = Files;
    type Reply = Done;
    async fn run(self, files: Files, _: Call) -> Result<Done, Fault> {
        files.remote.update(&self.id, self.parameters).await?;
        Ok(done(format!("Changed {}", self.id), Some(self.id)))
    }
}

/// Forget a backend with its passwords and keys. What is on its server stays.
#[derive(Deserialize, JsonSchema)]
pub struct Disconnect {
    /// Its id.
    id: String,
}

impl Operation for Disconnect {
    const ROUTE: Route = Route::delete("/api/v1/backends/{id}")
        .named("disconnectBackend")
        .cli("files backends disconnect");
    type Service = Files;
    type Reply = Done;
    async fn run(self, files: Files, _: Call) -> Result<Done, Fault> {
        files.remote.disconnect(&self.id).await?;
        Ok(done(format!("Disconnected {}", self.id), Some(self.id)))
    }
}

/// Ask the server of a backend whether it answers.
///
/// `success` is false where it does not, and `message` says why.
#[derive(Deserialize, JsonSchema)]
pub struct Test {
    /// Its id.
    id: String,
}

impl Operation for Test {
    const ROUTE: Route = Route::get("/api/v1/backends/{id}/test")
        .named("testBackendConnection")
        .cli("files backends test");
    type Service = Files;
    type Reply = Done;
    async fn run(self, files: Files, _: Call) -> Result<Done, Fault> {
        let why = files.remote.test(&self.id).await?;
        Ok(Done {
            success: why.is_none(),
            status: Some(if why.is_none() { "connected" } else { "failed" }),
            message: why.unwrap_or_else(|| "The server answers".into()),
            id: Some(self.id),
        })
    }
}

/// List the mounts.
#[derive(Deserialize, JsonSchema)]
pub struct ListMounts {
    /// Only those with this label.
    label: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Mounts {
    mounts: Vec<Mount>,
    count: usize,
}

impl Operation for ListMounts {
    const ROUTE: Route = Route::get("/api/v1/mounts")
        .named("listMounts")
        .cli("files mounts list");
    type Service = Files;
    type Reply = Mounts;
    async fn run(self, files: Files, _: Call) -> Result<Mounts, Fault> {
        let mut mounts = files.remote.mounts();
        if let Some(label) = self.label.filter(|label| !label.is_empty()) {
            mounts.retain(|mount| mount.label.as_ref() == Some(&label));
        }
        Ok(Mounts {
            count: mounts.len(),
            mounts,
        })
    }
}

/// Mount a backend as a directory of the computer.
///
/// It is mounted again when the computer, or the service, has been restarted.
#[derive(Deserialize, JsonSchema)]
pub struct CreateMount {
    #[serde(flatten)]
    wanted: Wanted,
}

/// The mount that was made.
#[derive(Serialize, JsonSchema)]
pub struct Mounted {
    success: bool,
    message: String,
    #[serde(flatten)]
    mount: Mount,
}

impl Operation for CreateMount {
    const ROUTE: Route = Route::post("/api/v1/mounts")
        .named("createMount")
        .cli("files mounts create");
    type Service = Files;
    type Reply = Mounted;
    async fn run(self, files: Files, _: Call) -> Result<Mounted, Fault> {
        let mount = files.remote.create_mount(self.wanted).await?;
        Ok(Mounted {
            success: true,
            message: format!("Mounted at {}", mount.mount_path),
            mount,
        })
    }
}

/// Describe a mount.
#[derive(Deserialize, JsonSchema)]
pub struct MountDetails {
    /// Its id.
    id: String,
}

impl Operation for MountDetails {
    const ROUTE: Route = Route::get("/api/v1/mounts/{id}")
        .named("getMountDetails")
        .cli("files mounts get");
    type Service = Files;
    type Reply = Mount;
    async fn run(self, files: Files, _: Call) -> Result<Mount, Fault> {
        files.remote.mount(&self.id)
    }
}

/// Change how much of a mount is kept. It is unmounted for a moment.
#[derive(Deserialize, JsonSchema)]
pub struct UpdateMount {
    /// Its id.
    id: String,
    /// `cache_mode`, `cache_max_age`, `cache_max_size`, `dir_cache_time`; what is not named stays.
    vfs_config: Map<String, Value>,
}

impl Operation for UpdateMount {
    const ROUTE: Route = Route::patch("/api/v1/mounts/{id}")
        .named("updateMount")
        .cli("files mounts update");
    type Service = Files;
    type Reply = Done;
    async fn run(self, files: Files, _: Call) -> Result<Done, Fault> {
        files
            .remote
            .update_mount(&self.id, self.vfs_config.into())
            .await?;
        Ok(done(format!("Changed {}", self.id), Some(self.id)))
    }
}

/// Unmount, and remove the directory that it was mounted at. What is on the server stays.
#[derive(Deserialize, JsonSchema)]
pub struct Unmount {
    /// Its id.
    id: String,
}

impl Operation for Unmount {
    const ROUTE: Route = Route::delete("/api/v1/mounts/{id}")
        .named("unmount")
        .cli("files mounts unmount");
    type Service = Files;
    type Reply = Done;
    async fn run(self, files: Files, _: Call) -> Result<Done, Fault> {
        files.remote.unmount(&self.id).await?;
        Ok(done(format!("Unmounted {}", self.id), Some(self.id)))
    }
}
