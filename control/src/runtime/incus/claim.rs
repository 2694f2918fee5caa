//! Machines that were kept ready, made those of containers.
//!
//! What takes long is left out of the way: the engine needs tens of milliseconds for anything it is
//! asked, so that the machine is let go on by its freezer, and its own kit writes the files and takes
//! the name. The kit can be believed here: nobody has been in the machine before. The engine is told
//! afterwards ([`Incus::adopt_claimed`]), and takes the machine for frozen until then.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use http::{Request, StatusCode};
use routes::Id;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::super::{Machine, Observed, Power, Runtime, RuntimeError};
use super::disk::name_files;
use super::rest::File;
use super::{
    Incus, KEYS, PREFIX, PROJECT, VARIABLES, digest, failed, host, key_files, kvm_device,
    settings_of, variable_files,
};
use crate::{inside, ready};

/// How long a kit that was just let go on may take to write a few files.
const KIT_ANSWER: Duration = Duration::from_secs(5);
/// Between two tries to connect to it.
const KIT_POLL: Duration = Duration::from_millis(2);
const KIT_BYTES: usize = 4 << 10;
/// A machine that still boots by then is of no use.
const BOOT: Duration = Duration::from_secs(60);
const BOOT_POLL: Duration = Duration::from_millis(100);
/// The largest file beside the kit's program that says what a kit begins with.
const BESIDE_BYTES: u64 = 1 << 20;

impl Incus {
    /// The image, and the kit with what it reads when it begins.
    pub(super) async fn edition_of(&self, image: &str) -> Result<String, RuntimeError> {
        let act = "look up an image";
        let seen = self.rest.get(&format!("images/aliases/{image}")).await;
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) if error.is(StatusCode::NOT_FOUND) => {
                return Err(RuntimeError::NoImage(image.to_owned()));
            }
            Err(error) => return Err(failed(act, error)),
        };
        let fingerprint = seen["target"].as_str().unwrap_or_default();
        let kit = kit_edition(&self.settings.kit)
            .map_err(|error| host(act, &self.settings.kit, &error))?;
        Ok(format!("{fingerprint} {kit}"))
    }

    pub(super) async fn settle_booted(&self, id: Id) -> Result<(), RuntimeError> {
        let line = ["systemctl", "is-system-running", "--wait"];
        let booting = async {
            loop {
                let ran = self.exec(id, &line).await?;
                let said = String::from_utf8_lossy(&ran.stdout);
                match said.trim() {
                    "running" => return Ok(()),
                    "degraded" => {
                        tracing::warn!(container.id = %id, "a unit failed in a machine that is to be kept ready");
                        return Ok(());
                    }
                    // Nobody is there yet to be asked.
                    _ => tokio::time::sleep(BOOT_POLL).await,
                }
            }
        };
        tokio::time::timeout(BOOT, booting)
            .await
            .unwrap_or_else(|_| {
                Err(RuntimeError::Transient {
                    act: "settle",
                    reason: format!("it still boots after {BOOT:?}"),
                })
            })
    }

    pub(super) async fn claim_ready(
        &self,
        machine: &Machine,
        seen: &Observed,
    ) -> Result<Observed, RuntimeError> {
        let act = "claim";
        let id = machine.id;
        let freezer = self.freezer(id);
        if machine.kvm || !machine.kit || !freezer.lets_go() {
            self.thaw(id).await?;
        }
        if machine.kvm {
            let body = json!({ "devices": { "kvm": kvm_device() } });
            self.patch(act, id, body).await?;
        }
        let files = files_of(machine);
        if machine.kit {
            become_one(machine, &files, seen).await?;
        } else {
            let name = format!("{PREFIX}{id}");
            self.put_files(act, &name, files).await?;
            let ran = self.exec(id, &["hostname", &machine.hostname]).await?;
            if ran.code != 0 {
                return Err(RuntimeError::Permanent {
                    act,
                    reason: String::from_utf8_lossy(&ran.stderr).into_owned(),
                });
            }
        }
        Ok(Observed {
            power: Power::On,
            ready: machine.kit,
            ..seen.clone()
        })
    }

    pub(super) async fn adopt_claimed(
        &self,
        machine: &Machine,
        unchanged: bool,
    ) -> Result<(), RuntimeError> {
        let act = "adopt";
        let id = machine.id;
        let instance = self.existing(act, id).await?;
        if instance.power() == Power::Frozen {
            self.thaw(id).await?;
        }
        let mut config = settings_of(machine);
        config.insert("user.hostname".to_owned(), machine.hostname.clone().into());
        config.insert(PROJECT.to_owned(), machine.project.to_string().into());
        if unchanged {
            let digests = [
                (VARIABLES, digest(&variable_files(machine))),
                (KEYS, digest(&key_files(machine))),
            ];
            config.extend(digests.map(|(key, digest)| (key.to_owned(), digest.into())));
        }
        self.patch(act, id, json!({ "config": config })).await
    }
}

/// What depends on whose machine it is.
fn files_of(machine: &Machine) -> Vec<File> {
    let mut files = name_files(&machine.hostname);
    files.extend(variable_files(machine));
    files.extend(key_files(machine));
    files
}

/// Have the kit in a machine make it this one.
async fn become_one(
    machine: &Machine,
    files: &[File],
    seen: &Observed,
) -> Result<(), RuntimeError> {
    let wrong = |reason: String| RuntimeError::Permanent {
        act: "claim",
        reason,
    };
    let files = files.iter().map(|file| {
        let text = file.bytes.as_deref().map(std::str::from_utf8).transpose();
        Ok(inside::File {
            path: file.path,
            text: text.map_err(|error| wrong(error.to_string()))?,
            mode: file.mode,
            owner: file.owner,
        })
    });
    let identity = inside::Identity {
        hostname: &machine.hostname,
        files: files.collect::<Result<_, RuntimeError>>()?,
    };
    let body = serde_json::to_vec(&identity).map_err(|error| wrong(error.to_string()))?;
    let asking = async {
        let socket = loop {
            match ready::connection(&seen.directory, seen.owners) {
                Ok(Some(socket)) => break socket,
                Ok(None) => return Err("the kit's socket is somebody else's".to_owned()),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::CONNREFUSED) => {
                    tokio::time::sleep(KIT_POLL).await;
                }
                Err(error) => return Err(format!("the kit's socket: {error}")),
            }
        };
        let question = Request::post("/identity")
            .header("content-type", "application/json")
            .body(body.into())
            .map_err(|error| error.to_string())?;
        let answered = inside::ask(socket, question, KIT_BYTES).await;
        let (status, said) = answered.map_err(|error| error.to_string())?;
        match status.is_success() {
            true => Ok(()),
            false => Err(format!(
                "the kit said {status}: {}",
                String::from_utf8_lossy(&said)
            )),
        }
    };
    match tokio::time::timeout(KIT_ANSWER, asking).await {
        Ok(asked) => asked.map_err(wrong),
        Err(_) => Err(wrong(format!("the kit said nothing for {KIT_ANSWER:?}"))),
    }
}

/// Tells one kit from another, with all that it reads when it begins: its program by what the file
/// system says of it, as the kit itself does it, and what is beside it by its contents.
fn kit_edition(kit: &Path) -> std::io::Result<String> {
    let mut digest = Sha256::new();
    let program = fs::metadata(kit.join("bin/kitd"))?;
    let facts = (
        program.ino(),
        program.mtime(),
        program.mtime_nsec(),
        program.size(),
    );
    digest.update(format!("{facts:?}"));
    let mut beside = vec![kit.join("kit.json")];
    match fs::read_dir(kit.join("ca")) {
        Ok(entries) => beside.extend(entries.flatten().map(|entry| entry.path())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    beside.sort();
    for path in beside {
        let facts = match fs::metadata(&path) {
            Ok(facts) => facts,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        digest.update(path.as_os_str().as_encoded_bytes());
        match facts.is_file() && facts.len() <= BESIDE_BYTES {
            true => digest.update(fs::read(&path)?),
            false => digest.update(facts.len().to_le_bytes()),
        }
    }
    Ok(hex::encode(&digest.finalize()[..12]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_kit_is_another_edition() {
        let kit = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(kit.path().join("bin")).unwrap();
        std::fs::create_dir_all(kit.path().join("ca")).unwrap();
        assert!(kit_edition(kit.path()).is_err(), "there is no kit");
        std::fs::write(kit.path().join("bin/kitd"), "one").unwrap();
        let mut editions = vec![kit_edition(kit.path()).unwrap()];
        assert_eq!(kit_edition(kit.path()).unwrap(), editions[0]);
        std::fs::write(kit.path().join("kit.json"), "{}").unwrap();
        editions.push(kit_edition(kit.path()).unwrap());
        std::fs::write(kit.path().join("ca/one.crt"), "a").unwrap();
        editions.push(kit_edition(kit.path()).unwrap());
        std::fs::write(kit.path().join("ca/one.crt"), "b").unwrap();
        editions.push(kit_edition(kit.path()).unwrap());
        let next = kit.path().join("bin/next");
        std::fs::write(&next, "two").unwrap();
        std::fs::rename(&next, kit.path().join("bin/kitd")).unwrap();
        editions.push(kit_edition(kit.path()).unwrap());
        let count = editions.len();
        editions.sort();
        editions.dedup();
        assert_eq!(editions.len(), count);
    }
}
