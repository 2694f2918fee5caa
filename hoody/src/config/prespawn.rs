//! Which machines are kept ready in advance.

use anyhow::bail;
use control::limits;
use control::prespawn::{Kind, MEMBERS, Pool};
use control::runtime::Limits;

use super::{Runtime, Value};

/// The image that machines are made of where nobody says otherwise.
const IMAGE: &str = "debian-13";
/// Of a kind without the kit.
const BARE: &str = "bare";
/// A machine that is kept ready holds some 40 MiB: of this much memory that is less than a hundredth.
const MEMORY_FOR_ONE: u64 = 8 << 30;
/// More are of use to those who make many at once; they say so.
const MOST: usize = 4;
/// The part of the machine's memory that those which are kept ready may hold.
const PART: u64 = 32;
/// The longest name of an image.
const IMAGE_BYTES: usize = 100;

/// The pools that were asked for. Where nothing was said: one machine for every 8 GiB of memory, at
/// most four; none where containers are processes.
pub fn pools(value: Option<&Value>, runtime: Runtime, memory: u64) -> anyhow::Result<Vec<Pool>> {
    let Some(Value { text, source }) = value else {
        let size = usize::try_from(memory / MEMORY_FOR_ONE).unwrap_or(MOST);
        let size = if runtime == Runtime::Incus {
            size.min(MOST)
        } else {
            0
        };
        let kind = Kind {
            image: IMAGE.to_owned(),
            kit: true,
            limits: Limits::default(),
        };
        return Ok((size > 0)
            .then_some(Pool { kind, size })
            .into_iter()
            .collect());
    };
    if text == "off" {
        return Ok(Vec::new());
    }
    let mut pools: Vec<Pool> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let read = part.split_once('=').and_then(|(kind, size)| {
            Some(Pool {
                kind: read_kind(kind)?,
                size: size.trim().parse().ok()?,
            })
        });
        let plain = |letter: char| {
            letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-_.".contains(letter)
        };
        match read {
            Some(pool)
                if !pool.kind.image.is_empty()
                    && pool.kind.image.len() <= IMAGE_BYTES
                    && pool.kind.image.chars().all(plain)
                    && pools.iter().all(|other| other.kind != pool.kind) =>
            {
                pools.push(pool);
            }
            _ => bail!(
                "{source}: `{part}` is not how many machines of which image to keep ready; write `off`, or as \
                 debian-13=2, each kind once; behind the image may be `/bare` for machines without the kit, and \
                 limits such as `/cpus:0.5`, `/memory:512MiB`, `/disk:10GiB` and `/processes:1000`"
            ),
        }
    }
    let all = pools
        .iter()
        .fold(0usize, |all, pool| all.saturating_add(pool.size));
    if all > MEMBERS {
        bail!("{source}: {all} machines to keep ready are too many; {MEMBERS} are the most");
    }
    Ok(pools)
}

/// A kind as settings write it: `debian-13/memory:512MiB`.
fn read_kind(text: &str) -> Option<Kind> {
    let mut parts = text.split('/').map(str::trim);
    let mut kind = Kind {
        image: parts.next()?.to_owned(),
        kit: true,
        limits: Limits::default(),
    };
    let limits = &mut kind.limits;
    for part in parts {
        let (name, value) = part.split_once(':').unwrap_or((part, ""));
        let again = match name {
            BARE if value.is_empty() => !std::mem::replace(&mut kind.kit, false),
            "cpus" => limits.cpu.replace(limits::cpus(value)?).is_some(),
            "memory" => limits.memory.replace(limits::memory(value)?).is_some(),
            "disk" => limits.disk.replace(limits::disk(value)?).is_some(),
            "processes" => {
                let count = limits::processes(value)?;
                limits.processes.replace(count).is_some()
            }
            _ => return None,
        };
        if again {
            return None;
        }
    }
    Some(kind)
}

/// Bytes that they may hold where nothing was said.
pub fn usual_memory(memory: u64) -> u64 {
    memory / PART
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<String> {
        let value = Value {
            text: text.to_owned(),
            source: "--prespawn-pools".to_owned(),
        };
        let pools = pools(Some(&value), Runtime::Incus, 0)?;
        let shown = pools
            .iter()
            .map(|pool| format!("{}: {}", pool.kind.key(), pool.size));
        Ok(shown.collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn pools_are_read() {
        for (text, pools) in [
            ("off", ""),
            ("debian-13=2", "debian-13 kit: 2"),
            (
                "debian-13=2, debian-13/bare=1,mine_1.0=0",
                "debian-13 kit: 2, debian-13 bare: 1, mine_1.0 kit: 0",
            ),
            ("debian-13=64", "debian-13 kit: 64"),
            (
                "debian-13/memory:512MiB/cpus:0.5=2,debian-13/processes:300/bare/disk:2GiB=1",
                "debian-13 kit cpu:500 memory:536870912: 2, debian-13 bare disk:2147483648 processes:300: 1",
            ),
        ] {
            assert_eq!(read(text).unwrap(), pools, "{text}");
        }
        for text in [
            "",
            "2",
            "debian-13",
            "debian-13=",
            "debian-13=-1",
            "=2",
            "/bare=1",
            "debian-13=1,debian-13=2",
            "debian-13=65",
            "a=64,b=1",
            "a;b=1",
            "a/=1",
            "a/bare/bare=1",
            "a/memory:1=1",
            "a/memory:512MiB/memory:1GiB=1",
            "a/cpus:0=1",
            "a/size:3=1",
            "Debian 13=1",
            "debian-13=99999999999999999999",
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.starts_with("--prespawn-pools: "), "{text}: {error}");
        }
    }

    #[test]
    fn small_machines_keep_none_ready() {
        for (gib, runtime, size) in [
            (4, Runtime::Incus, 0),
            (8, Runtime::Incus, 1),
            (24, Runtime::Incus, 3),
            (512, Runtime::Incus, 4),
            (512, Runtime::Local, 0),
        ] {
            let pools = pools(None, runtime, gib << 30).unwrap();
            let sizes: usize = pools.iter().map(|pool| pool.size).sum();
            assert_eq!(sizes, size, "{gib} GiB");
        }
    }
}
