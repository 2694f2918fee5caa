//! Backends that are directories of the computer (FUSE). They are remembered and made again by the
//! next service, and by the next rclone where one ends.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kit::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::backends::unknown;
use super::kinds::wrong;
use super::{Remote, daemon, lock, new_id};

/// Most mounts of a computer.
const MOUNTS: usize = 32;
/// Longest name and longest label.
const NAME_BYTES: usize = 64;
/// Where mounts are for whoever asks.
const DIRECTORY: &str = "/hoody/mounts/";
/// Largest file of mounts that is read.
const FILE_BYTES: u64 = 1 << 20;

/// How much of a mount is kept here, and for how long.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VfsConfig {
    /// What is kept on the disk: nothing, what is open for both, what is written, or all.
    pub cache_mode: CacheMode,
    /// Seconds that it is kept; `3600`, `1h`.
    #[serde(deserialize_with = "seconds")]
    #[schemars(with = "Value")]
    pub cache_max_age: u64,
    /// Bytes that are kept; `10737418240`, `10G`.
    #[serde(deserialize_with = "bytes")]
    #[schemars(with = "Value")]
    pub cache_max_size: u64,
    /// Seconds that a listing is believed; `300`, `5m`.
    #[serde(deserialize_with = "seconds")]
    #[schemars(with = "Value")]
    pub dir_cache_time: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    Off,
    Minimal,
    Writes,
    Full,
}

impl Default for VfsConfig {
    fn default() -> Self {
        VfsConfig {
            cache_mode: CacheMode::Writes,
            cache_max_age: 3600,
            cache_max_size: 10 << 30,
            dir_cache_time: 300,
        }
    }
}

impl VfsConfig {
    /// These settings, but for those that are given.
    pub fn with(self, given: Value) -> Result<VfsConfig, Fault> {
        let mut whole = serde_json::to_value(self).expect("settings are plain JSON");
        let Value::Object(given) = given else {
            return Err(wrong("vfs_config", "it is an object"));
        };
        for (name, value) in given.into_iter().filter(|(_, value)| !value.is_null()) {
            whole[name.as_str()] = value;
        }
        serde_json::from_value(whole).map_err(|error| wrong("vfs_config", &error.to_string()))
    }
}

/// A number, or a text of numbers with units.
fn measured<'de, D: serde::Deserializer<'de>>(
    reader: D,
    units: &[(&str, u64)],
) -> Result<u64, D::Error> {
    let value = Value::deserialize(reader)?;
    let text = match &value {
        Value::String(text) => text.trim(),
        Value::Number(number) => return number.as_u64().filter(|n| *n <= LARGEST).ok_or_else(bad),
        _ => return Err(bad()),
    };
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let unit = units
        .iter()
        .find(|(name, _)| text[digits..].trim().eq_ignore_ascii_case(name));
    let number: Option<u64> = text[..digits].parse().ok();
    let number = number
        .zip(unit)
        .and_then(|(number, (_, unit))| number.checked_mul(*unit));
    number.filter(|n| *n <= LARGEST).ok_or_else(bad)
}

/// More than any disk has bytes; as many seconds are still nanoseconds in 63 bits once divided.
const LARGEST: u64 = 1 << 50;

fn bad<E: serde::de::Error>() -> E {
    E::custom("ages are seconds, or like 5m and 1h; sizes are bytes, or like 512M and 10G")
}

fn seconds<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<u64, D::Error> {
    let seconds = measured(
        reader,
        &[("", 1), ("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)],
    )?;
    Ok(seconds.min(10 * 365 * 86_400)) // rclone counts nanoseconds in 63 bits
}

fn bytes<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<u64, D::Error> {
    measured(
        reader,
        &[
            ("", 1),
            ("b", 1),
            ("k", 1 << 10),
            ("m", 1 << 20),
            ("g", 1 << 30),
            ("t", 1 << 40),
        ],
    )
}

/// A mount.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Mount {
    pub id: String,
    pub backend_id: String,
    pub mount_path: String,
    pub label: Option<String>,
    /// In milliseconds since 1970.
    pub created_at: u64,
    /// `mounting` until it has been made again, then `mounted`, or `failed` where it could not be.
    #[serde(default)]
    pub status: Status,
    #[serde(default)]
    pub vfs_config: VfsConfig,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It was mounted by a service that is gone, and is about to be again.
    Mounting,
    Mounted,
    #[default]
    Failed,
}

/// What to mount.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Wanted {
    pub backend_id: String,
    /// `/hoody/mounts/<name>`; a name of its own by default.
    pub mount_path: Option<String>,
    pub label: Option<String>,
    /// `cache_mode`, `cache_max_age`, `cache_max_size`, `dir_cache_time`.
    #[schemars(with = "Option<VfsConfig>")]
    pub vfs_config: Option<Value>,
}

impl Remote {
    pub fn mounts(&self) -> Vec<Mount> {
        lock(&self.0.mounts).clone()
    }

    pub fn mount(&self, id: &str) -> Result<Mount, Fault> {
        let found = self.mounts().into_iter().find(|mount| mount.id == id);
        found.ok_or_else(|| {
            let id: String = id.chars().filter(|c| !c.is_control()).take(64).collect();
            Fault::not_found(format!("no mount `{id}`; GET /api/v1/mounts lists them"))
                .code("MOUNT_NOT_FOUND")
        })
    }

    pub(super) fn mount_paths(&self, backend: &str) -> Vec<String> {
        let mounts = self
            .mounts()
            .into_iter()
            .filter(|mount| mount.backend_id == backend);
        mounts.map(|mount| mount.mount_path).collect()
    }

    pub async fn create_mount(&self, wanted: Wanted) -> Result<Mount, Fault> {
        let _change = self.0.changes.lock().await;
        let backend = self
            .backend(&wanted.backend_id)
            .await
            .map_err(|_| unknown(&wanted.backend_id))?;
        if self.0.config.jailed && backend.backend_type == "local" {
            return Err(wrong(
                "backend_id",
                "this service keeps to a directory, and a mount would not",
            ));
        }
        let id = new_id("mount");
        let path = wanted.mount_path.filter(|path| !path.is_empty());
        let path =
            path.unwrap_or_else(|| format!("{DIRECTORY}mount_{}", id.trim_start_matches("mount-")));
        name_of(&path)?;
        let mounts = self.mounts();
        if mounts.len() >= MOUNTS {
            return Err(Fault::conflict(format!(
                "there are {MOUNTS} mounts, which is all there can be"
            ))
            .code("TOO_MANY_MOUNTS"));
        }
        if mounts.iter().any(|mount| mount.mount_path == path) {
            return Err(Fault::conflict(format!("something is mounted at {path}")).code("EXISTS"));
        }
        let label = wanted.label.filter(|label| !label.is_empty());
        if label
            .as_ref()
            .is_some_and(|label| label.len() > NAME_BYTES || label.chars().any(char::is_control))
        {
            return Err(wrong(
                "label",
                &format!("it is longer than {NAME_BYTES} bytes, or has control characters"),
            ));
        }
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let mut mount = Mount {
            id,
            backend_id: wanted.backend_id,
            mount_path: path,
            label,
            created_at: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            status: Status::Mounted,
            vfs_config: VfsConfig::default()
                .with(wanted.vfs_config.unwrap_or_else(|| json!({})))?,
        };
        self.attach(&mount).await?;
        mount.status = Status::Mounted;
        lock(&self.0.mounts).push(mount.clone());
        if let Err(fault) = self.save() {
            lock(&self.0.mounts).retain(|one| one.id != mount.id);
            self.detach(&mount).await;
            return Err(fault);
        }
        Ok(mount)
    }

    /// Mount with other settings what is mounted.
    pub async fn update_mount(&self, id: &str, given: Value) -> Result<(), Fault> {
        let _change = self.0.changes.lock().await;
        let old = self.mount(id)?;
        let mut mount = old.clone();
        mount.vfs_config = old.vfs_config.with(given)?;
        self.detach(&old).await;
        let mut attached = self.attach(&mount).await;
        if attached.is_err() {
            let again = self.attach(&old).await;
            mount = Mount {
                status: if again.is_ok() {
                    Status::Mounted
                } else {
                    Status::Failed
                },
                ..old
            };
        } else {
            mount.status = Status::Mounted;
        }
        for one in lock(&self.0.mounts).iter_mut().filter(|one| one.id == id) {
            one.clone_from(&mount);
        }
        if attached.is_ok() {
            attached = self.save();
        }
        attached
    }

    pub async fn unmount(&self, id: &str) -> Result<(), Fault> {
        let _change = self.0.changes.lock().await;
        let mount = self.mount(id)?;
        self.detach(&mount).await;
        lock(&self.0.mounts).retain(|one| one.id != id);
        self.save()
    }

    /// Mount what was mounted by a service, or an rclone, that is gone.
    pub(super) async fn mount_again(&self) {
        let _change = self.0.changes.lock().await;
        for mount in self.mounts() {
            self.detach(&mount).await;
            let attached = self.attach(&mount).await;
            if let Err(fault) = &attached {
                tracing::warn!(mount = %mount.id, "could not mount {} again: {}", mount.mount_path, fault.message);
            }
            let status = if attached.is_ok() {
                Status::Mounted
            } else {
                Status::Failed
            };
            for one in lock(&self.0.mounts)
                .iter_mut()
                .filter(|one| one.id == mount.id)
            {
                one.status = status;
            }
        }
    }

    fn target(&self, mount: &Mount) -> Result<PathBuf, Fault> {
        Ok(self.0.config.mounts.join(name_of(&mount.mount_path)?))
    }

    async fn attach(&self, mount: &Mount) -> Result<(), Fault> {
        if !Path::new("/dev/fuse").exists() || daemon::program("fusermount3").is_none() {
            return Err(Fault::new(
                http::StatusCode::NOT_IMPLEMENTED,
                "nothing can be mounted: this computer lacks /dev/fuse or the package `fuse3`; read the backend with ?backend= instead",
            )
            .code("FUSE_MISSING"));
        }
        let target = self.target(mount)?;
        let failed = |error: std::io::Error| {
            Fault::conflict(format!("could not make {}: {error}", mount.mount_path))
                .code("MOUNT_POINT")
        };
        std::fs::create_dir_all(&self.0.config.mounts).map_err(failed)?;
        match std::fs::create_dir(&target) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                // not through a link, and over nothing
                let own = std::fs::symlink_metadata(&target).map_err(failed)?;
                if !own.is_dir() || std::fs::read_dir(&target).map_err(failed)?.next().is_some() {
                    return Err(Fault::conflict(format!(
                        "{} is no empty directory",
                        mount.mount_path
                    ))
                    .code("MOUNT_POINT"));
                }
            }
            made => made.map_err(failed)?,
        }
        let vfs = &mount.vfs_config;
        let nanos = |seconds: u64| seconds.saturating_mul(1_000_000_000);
        let (uid, gid) = std::fs::metadata(&self.0.config.home)
            .map(|home| {
                use std::os::unix::fs::MetadataExt;
                (home.uid(), home.gid())
            })
            .unwrap_or_default();
        let parameters = json!({
            "fs": format!("{}:", mount.backend_id),
            "mountPoint": target,
            "vfsOpt": {
                "CacheMode": vfs.cache_mode as u8, "CacheMaxAge": nanos(vfs.cache_max_age),
                "CacheMaxSize": vfs.cache_max_size, "DirCacheTime": nanos(vfs.dir_cache_time),
                "UID": uid, "GID": gid,
            },
            // users of the computer see what its root mounts
            "mountOpt": { "AllowOther": crate::jail::privileged() },
        });
        let answer = self.call("mount/mount", &parameters).await?;
        answer.map(drop).map_err(|failure| {
            let _ = std::fs::remove_dir(&target);
            failure.fault(&format!("mount {}", mount.mount_path), &[])
        })
    }

    /// Unmount, whatever the state it is in, and take the directory away.
    async fn detach(&self, mount: &Mount) {
        let Ok(target) = self.target(mount) else {
            return;
        };
        let mounted = || match std::fs::symlink_metadata(&target) {
            Ok(own) => {
                use std::os::unix::fs::MetadataExt;
                std::fs::metadata(&self.0.config.mounts).is_ok_and(|above| above.dev() != own.dev())
            }
            // a mount whose rclone is gone answers nothing at all
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        };
        if mounted() {
            let _ = self
                .call("mount/unmount", &json!({ "mountPoint": target }))
                .await;
        }
        if mounted()
            && let Some(program) = daemon::program("fusermount3")
        {
            let ended = tokio::process::Command::new(program)
                .env_clear()
                .args(["-u", "-z", "--"])
                .arg(&target)
                .stderr(std::process::Stdio::null())
                .status();
            let _ = tokio::time::timeout(std::time::Duration::from_secs(10), ended).await;
        }
        let _ = std::fs::remove_dir(&target);
    }

    /// Write down what is mounted, whole or not at all.
    fn save(&self) -> Result<(), Fault> {
        let text = serde_json::to_vec(&self.mounts()).expect("mounts are plain JSON");
        let path = file(&self.0.config.state);
        let next = path.with_extension("next");
        daemon::private_directory(&self.0.config.state)
            .and_then(|()| std::fs::write(&next, text))
            .and_then(|()| std::fs::rename(&next, &path))
            .map_err(|error| Fault::internal(format!("could not write down the mounts: {error}")))
    }
}

fn file(state: &Path) -> PathBuf {
    state.join("mounts.json")
}

/// What is to be mounted; nothing where none was written down.
pub fn load(state: &Path) -> Vec<Mount> {
    let path = file(state);
    let fits = std::fs::metadata(&path).is_ok_and(|file| file.len() <= FILE_BYTES);
    let text = fits.then(|| std::fs::read(&path).ok()).flatten();
    let mut mounts: Vec<Mount> = text
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    mounts.truncate(MOUNTS);
    for mount in &mut mounts {
        mount.status = Status::Mounting;
    }
    mounts
}

/// The name in a path of a mount. One name: what is below the directory is the service's own to make.
fn name_of(path: &str) -> Result<&str, Fault> {
    let name = path
        .strip_prefix(DIRECTORY)
        .map(|name| name.trim_end_matches('/'));
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    name.filter(|name| {
        (1..=NAME_BYTES).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
    })
    .ok_or_else(|| {
        wrong(
            "mount_path",
            "it is /hoody/mounts/<name>, of letters, digits, dots, dashes and underscores",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_one_name_below_its_directory() {
        assert_eq!(name_of("/hoody/mounts/s3").unwrap(), "s3");
        for evil in [
            "/etc",
            "/hoody/mounts/",
            "/hoody/mounts/../x",
            "/hoody/mounts/a/b",
            "/hoody/mounts/.ssh",
            "s3",
            "/hoody/mounts/a b",
            "/hoody/mountsx/a",
        ] {
            assert!(name_of(evil).is_err(), "{evil}");
        }
    }

    #[test]
    fn what_another_service_mounted_is_yet_to_be_mounted() {
        let state = tempfile::tempdir().unwrap();
        assert!(load(state.path()).is_empty());
        let kept = json!([{ "id": "mount-1", "backend_id": "b-1", "mount_path": "/hoody/mounts/b",
            "label": null, "created_at": 1, "status": "mounted" }]);
        std::fs::write(file(state.path()), kept.to_string()).unwrap();
        assert_eq!(load(state.path())[0].status, Status::Mounting);
        std::fs::write(file(state.path()), "[{").unwrap();
        assert!(load(state.path()).is_empty());
    }

    #[test]
    fn settings_have_units_and_bounds() {
        let with = |given| VfsConfig::default().with(given);
        let made = with(json!({ "cache_mode": "full", "cache_max_age": "2h", "cache_max_size": "512M", "dir_cache_time": 7 })).unwrap();
        assert_eq!(
            (
                made.cache_mode,
                made.cache_max_age,
                made.cache_max_size,
                made.dir_cache_time
            ),
            (CacheMode::Full, 7200, 512 << 20, 7)
        );
        for wrong in [
            json!({ "cache_mode": "all" }),
            json!({ "cache_max_age": -1 }),
            json!({ "cache_max_age": "x" }),
            json!({ "cache_max_size": "99999999999999999999" }),
            json!({ "other": 1 }),
            json!([]),
        ] {
            assert!(with(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
