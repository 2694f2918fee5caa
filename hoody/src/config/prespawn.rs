//! Which machines are kept ready in advance.

use anyhow::bail;
use control::prespawn::{Kind, MEMBERS, Pool};

use super::{Runtime, Value};

/// The image that machines are made of where nobody says otherwise.
const IMAGE: &str = "debian-13";
/// Of a kind without the kit.
const BARE: &str = "/bare";
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
            let kit = !kind.ends_with(BARE);
            let image = kind.strip_suffix(BARE).unwrap_or(kind).trim().to_owned();
            let size = size.trim().parse::<usize>().ok()?;
            Some(Pool {
                kind: Kind { image, kit },
                size,
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
                 debian-13=2, with `/bare` behind the image for machines without the kit, and each kind once"
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
