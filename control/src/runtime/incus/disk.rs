//! Snapshots of machines, and machines made from one another.
//!
//! Snapshots and copies are the file system's own: they take as long for much as for little, and
//! hold what the disk held at one moment, whatever runs. Before, the machine is asked to write out
//! what it has.
//!
//! A copy is a machine of its own: it gets an address, user ids and a name as any new one does, and
//! of what tells machines apart on their disks ([`IDENTITY`]) nothing is left in it, so that its
//! first start makes it anew. A sync brings over what changed in the source, all of that included,
//! so it is kept beside the machine before and put back after.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, StatusCode};
use routes::Id;
use serde_json::{Value, json};

use super::super::{Machine, Power, RuntimeError, Source};
use super::rest::{File, RestError};
use super::{
    CREATE, Incus, Instance, KEYS, MADE, PREFIX, QUICK, VARIABLES, configuration, devices, digest,
    failed, key_files, variable_files,
};

/// What tells a machine from all others, beside its address: the id of its system, the keys that
/// it shows to those who log in, its credentials' key, the seed of its random numbers. With their
/// modes.
const IDENTITY: [(&str, u32); 9] = [
    ("/etc/machine-id", 0o444),
    ("/etc/ssh/ssh_host_ed25519_key", 0o600),
    ("/etc/ssh/ssh_host_ed25519_key.pub", 0o644),
    ("/etc/ssh/ssh_host_ecdsa_key", 0o600),
    ("/etc/ssh/ssh_host_ecdsa_key.pub", 0o644),
    ("/etc/ssh/ssh_host_rsa_key", 0o600),
    ("/etc/ssh/ssh_host_rsa_key.pub", 0o644),
    ("/var/lib/systemd/credential.secret", 0o400),
    ("/var/lib/systemd/random-seed", 0o600),
];
/// Systemd writes a new id into it where it is empty.
const MACHINE_ID: &str = "/etc/machine-id";
/// The largest file of an identity; what is larger is not one.
const IDENTITY_BYTES: usize = 16 << 10;
/// Set on a machine while it is synced: its identity, and the source that has a snapshot for it.
pub(super) const KEPT: &str = "user.hoody.identity";
pub(super) const SYNCED_FROM: &str = "user.hoody.synced-from";
/// How long a machine may take to write out what it has in memory, before its disk is taken as it is.
const FLUSH: Duration = Duration::from_secs(10);

/// The snapshot of a source that a machine is synced from.
fn passing(of: Id) -> String {
    format!("sync-{of}")
}

impl Incus {
    pub(super) async fn take_snapshot(
        &self,
        id: Id,
        name: &str,
    ) -> Result<Option<u64>, RuntimeError> {
        let act = "snapshot";
        self.flush(id).await?;
        let path = format!("instances/{PREFIX}{id}/snapshots");
        let body = json!({ "name": name, "stateful": false });
        match self.rest.get(&format!("{path}/{name}")).await {
            // taken by a control that did not live to note it, or only begun
            Ok(_) => self.remove_snapshot(act, id, name).await?,
            Err(error) if error.is(StatusCode::NOT_FOUND) => {}
            Err(error) => return Err(failed(act, error)),
        }
        let taken = self.rest.work(Method::POST, &path, body, QUICK).await;
        match taken {
            Ok(_) => {}
            Err(error) if error.is(StatusCode::NOT_FOUND) => {
                return Err(RuntimeError::NoMachine(id));
            }
            Err(error) => return Err(failed(act, error)),
        }
        let seen = self.rest.get(&format!("{path}/{name}")).await;
        let seen = seen.map_err(|error| failed(act, error))?;
        // less than zero where the engine does not count
        Ok(seen["size"].as_u64().filter(|size| *size > 0))
    }

    pub(super) async fn bring_back(&self, id: Id, name: &str) -> Result<(), RuntimeError> {
        let act = "restore";
        let path = format!("instances/{PREFIX}{id}");
        match self.rest.get(&format!("{path}/snapshots/{name}")).await {
            Ok(_) => {}
            Err(error) if error.is(StatusCode::NOT_FOUND) => {
                let name = name.to_owned();
                return Err(RuntimeError::NoSnapshot { id, name });
            }
            Err(error) => return Err(failed(act, error)),
        }
        self.leave_views(act, id, false).await?;
        let body = json!({ "restore": name });
        // the engine chooses its range of user ids anew
        let _making = self.making.lock().await;
        let back = self.rest.work(Method::PUT, &path, body, QUICK).await;
        back.map(drop).map_err(|error| failed(act, error))
    }

    pub(super) async fn remove_snapshot(
        &self,
        act: &'static str,
        id: Id,
        name: &str,
    ) -> Result<(), RuntimeError> {
        let path = format!("instances/{PREFIX}{id}/snapshots/{name}");
        match self
            .rest
            .work(Method::DELETE, &path, Value::Null, QUICK)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.is(StatusCode::NOT_FOUND) => Ok(()),
            Err(error) => Err(failed(act, error)),
        }
    }

    /// Make a machine from another. What an earlier attempt left was removed before.
    pub(super) async fn make_copy(
        &self,
        machine: &Machine,
        source: &Source,
    ) -> Result<(), RuntimeError> {
        let act = "copy";
        let name = format!("{PREFIX}{}", machine.id);
        let origin = self.existing(act, source.id).await?;
        let mut from = format!("{PREFIX}{}", source.id);
        match &source.snapshot {
            Some(snapshot) => from = format!("{from}/{snapshot}"),
            None => self.flush(source.id).await?,
        }
        let directory = self.directory(machine.id);
        self.make_directories(act, machine)?;
        let making = self.making.lock().await;
        let address = self.choose_address(machine.id).await?;
        let mut config = configuration(machine, self.network, address);
        config.insert(MADE.to_owned(), "false".into());
        // What is not named is the source's: all else of it is taken away.
        for key in origin.config.keys() {
            if !key.starts_with("volatile.") && !key.starts_with("image.") {
                config.entry(key.clone()).or_insert_with(|| "".into());
            }
        }
        let mut devices = devices(machine, &self.settings, &directory, address);
        for other in origin.devices.keys() {
            if devices.get(other).is_none() {
                devices[other] = json!({ "type": "none" });
            }
        }
        let body = json!({
            "name": name,
            "type": "container",
            "profiles": [],
            "config": config,
            "devices": devices,
            "source": {
                "type": "copy", "source": from, "instance_only": true, "allow_inconsistent": true,
            },
        });
        let made = self
            .rest
            .work(Method::POST, "instances", body, CREATE)
            .await;
        drop(making);
        match made {
            Ok(_) => {}
            Err(error) if error.is(StatusCode::NOT_FOUND) && source.snapshot.is_some() => {
                return Err(RuntimeError::NoSnapshot {
                    id: source.id,
                    name: source.snapshot.clone().unwrap_or_default(),
                });
            }
            Err(error) => return Err(failed(act, error)),
        }
        self.put_identity(act, machine.id, &BTreeMap::new()).await?;
        let (variables, keys) = (variable_files(machine), key_files(machine));
        let made = json!({ "config": {
            MADE: "true", VARIABLES: digest(&variables), KEYS: digest(&keys),
        } });
        self.put_files(act, &name, variables).await?;
        self.put_files(act, &name, keys).await?;
        self.patch(act, machine.id, made).await
    }

    /// Bring a machine that is off to what its source is. May stop anywhere and be repeated: what
    /// it was is kept with it until the end.
    pub(super) async fn bring_over(
        &self,
        machine: &Machine,
        source: Id,
    ) -> Result<(), RuntimeError> {
        let act = "sync";
        let id = machine.id;
        let name = format!("{PREFIX}{id}");
        let instance = self.existing(act, id).await?;
        let identity: BTreeMap<String, String> = match instance.text(KEPT) {
            Some(kept) => serde_json::from_str(kept)
                .map_err(|error| failed(act, RestError::Broken(error.to_string())))?,
            None => {
                let identity = self.identity(act, &name).await?;
                // From here on its files may be the source's: those of the node are to be written anew.
                let kept = json!({ "config": {
                    KEPT: json!(identity).to_string(), SYNCED_FROM: source.to_string(),
                    VARIABLES: "", KEYS: "",
                } });
                self.patch(act, id, kept).await?;
                identity
            }
        };
        let passing = passing(id);
        self.remove_snapshot(act, source, &passing).await?;
        self.flush(source).await?;
        let path = format!("instances/{PREFIX}{source}/snapshots");
        let body = json!({ "name": passing, "stateful": false });
        match self.rest.work(Method::POST, &path, body, QUICK).await {
            Ok(_) => {}
            Err(error) if error.is(StatusCode::NOT_FOUND) => {
                return Err(RuntimeError::NoMachine(source));
            }
            Err(error) => return Err(failed(act, error)),
        }
        self.leave_views(act, id, false).await?;
        let body = json!({
            "name": name,
            "type": "container",
            "profiles": [],
            "source": {
                "type": "copy", "source": format!("{PREFIX}{source}/{passing}"), "refresh": true,
                "instance_only": true, "allow_inconsistent": true,
            },
        });
        let refreshed = self
            .rest
            .work(Method::POST, "instances", body, CREATE)
            .await;
        self.remove_snapshot(act, source, &passing).await?;
        refreshed.map_err(|error| failed(act, error))?;
        self.be_itself(act, id, &machine.hostname, &identity).await
    }

    /// Put back what a machine was before its sync began.
    async fn be_itself(
        &self,
        act: &'static str,
        id: Id,
        hostname: &str,
        identity: &BTreeMap<String, String>,
    ) -> Result<(), RuntimeError> {
        let name = format!("{PREFIX}{id}");
        self.put_identity(act, id, identity).await?;
        self.put_files(act, &name, name_files(hostname)).await?;
        let done = json!({ "config": { KEPT: "", SYNCED_FROM: "" } });
        self.patch(act, id, done).await
    }

    /// A machine whose sync did not come to its end may look like its source: before it starts, it is
    /// itself again.
    pub(super) async fn after_sync(&self, id: Id, instance: &Instance) -> Result<(), RuntimeError> {
        let act = "start";
        let Some(kept) = instance.text(KEPT).filter(|kept| !kept.is_empty()) else {
            return Ok(());
        };
        let identity = serde_json::from_str(kept)
            .map_err(|error| failed(act, RestError::Broken(error.to_string())))?;
        self.forget_sync(id, instance.text(SYNCED_FROM)).await?;
        let hostname = instance.text("user.hostname").unwrap_or_default();
        self.be_itself(act, id, hostname, &identity).await
    }

    /// Take away what a machine's sync has put elsewhere, where it did not come to its end.
    pub(super) async fn forget_sync(&self, id: Id, from: Option<&str>) -> Result<(), RuntimeError> {
        match from.and_then(|source| source.parse().ok()) {
            Some(source) => self.remove_snapshot("delete", source, &passing(id)).await,
            None => Ok(()),
        }
    }

    /// What tells the machine from others: paths, and their contents in hexadecimal digits.
    async fn identity(
        &self,
        act: &'static str,
        name: &str,
    ) -> Result<BTreeMap<String, String>, RuntimeError> {
        let mut identity = BTreeMap::new();
        for (path, _) in IDENTITY {
            let file = self.rest.file(name, path, IDENTITY_BYTES).await;
            if let Some(bytes) = file.map_err(|error| failed(act, error))? {
                identity.insert(path.to_owned(), hex::encode(bytes));
            }
        }
        Ok(identity)
    }

    /// Give a machine that is off this identity, and nothing of another.
    async fn put_identity(
        &self,
        act: &'static str,
        id: Id,
        identity: &BTreeMap<String, String>,
    ) -> Result<(), RuntimeError> {
        let name = format!("{PREFIX}{id}");
        for (path, mode) in IDENTITY {
            let own = identity
                .get(path)
                .and_then(|digits| hex::decode(digits).ok());
            // whatever stands there, a link or a directory among it, is not written through
            let removed = self.rest.remove_file(&name, path).await;
            removed.map_err(|error| failed(act, error))?;
            let bytes = match own {
                Some(bytes) => bytes,
                None if path == MACHINE_ID => Vec::new(),
                None => continue,
            };
            let file = File {
                path,
                bytes: Some(bytes),
                mode,
                owner: 0,
            };
            self.put_files(act, &name, vec![file]).await?;
        }
        Ok(())
    }

    /// Have a machine that is on write out what it has in memory. One that does not is not waited
    /// for: its disk is then what it would be after a loss of power.
    async fn flush(&self, id: Id) -> Result<(), RuntimeError> {
        let instance = self.existing("flush", id).await?;
        if instance.power() != Power::On {
            return Ok(());
        }
        let body = json!({
            "command": ["sync"], "record-output": false, "wait-for-websocket": false, "interactive": false,
        });
        let path = format!("instances/{PREFIX}{id}/exec");
        if let Err(error) = self.rest.work(Method::POST, &path, body, FLUSH).await {
            tracing::debug!(container.id = %id, %error, "the machine did not write out what it has");
        }
        Ok(())
    }
}

/// The machine's name for itself, as its image's templates write it at its creation.
pub(super) fn name_files(hostname: &str) -> Vec<File> {
    let hosts = format!(
        "127.0.0.1 localhost\n127.0.1.1 {hostname}\n::1 localhost ip6-localhost ip6-loopback\n"
    );
    let file = |path, text: String| File {
        path,
        bytes: Some(text.into_bytes()),
        mode: 0o644,
        owner: 0,
    };
    vec![
        file("/etc/hostname", format!("{hostname}\n")),
        file("/etc/hosts", hosts),
    ]
}
