//! What a container may take of its server.

use std::borrow::Cow;

use kit::Fault;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use super::containers::invalid;
use crate::control::Control;
use crate::limits::{self, LEAST_CPU, LEAST_DISK, LEAST_MEMORY, LEAST_PROCESSES, MOST_CPUS};
use crate::runtime::{Limits, Usage};

/// The kernel's own part of what a machine holds, beside its programs'.
const MEMORY_ROOM: u64 = 24 << 20;

/// A number of processors, kept in thousandths.
#[derive(Debug, Clone, Copy)]
pub struct Cpus(u32);

impl<'de> Deserialize<'de> for Cpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        limits::thousandths(number).map(Cpus).ok_or_else(|| {
            D::Error::custom(format!(
                "must be a number of processors from 0.1 on, not {number}"
            ))
        })
    }
}

impl JsonSchema for Cpus {
    fn schema_name() -> Cow<'static, str> {
        "Cpus".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0.1, "maximum": MOST_CPUS })
    }
}

/// A number of bytes, or text such as `512MiB`; units are powers of 1024.
#[derive(Debug, Clone, Copy)]
pub struct Bytes(u64);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Number(u64),
            Text(String),
        }
        let wrong = "must be a number of bytes, or text such as 512MiB or 8GiB";
        let given = Given::deserialize(deserializer).map_err(|_| D::Error::custom(wrong))?;
        match given {
            Given::Number(number) => Some(number),
            Given::Text(text) => limits::bytes(&text),
        }
        .map(Bytes)
        .ok_or_else(|| D::Error::custom(wrong))
    }
}

impl JsonSchema for Bytes {
    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 0 },
            { "type": "string", "pattern": "^[0-9]+ ?([KMGT](i?B)?|B)?$" },
        ] })
    }
}

/// What a request says of limits. What it does not name stays; null is the server's own limit.
#[derive(Debug, Default, Clone, Copy)]
pub struct Asked {
    pub cpus: Option<Option<Cpus>>,
    pub memory: Option<Option<Bytes>>,
    pub disk: Option<Option<Bytes>>,
    pub processes: Option<Option<u32>>,
}

impl Asked {
    /// Whether it may ask for less than is used.
    pub fn lowers(&self) -> bool {
        let bytes = [self.memory, self.disk];
        bytes.iter().any(|asked| matches!(asked, Some(Some(_))))
            || matches!(self.processes, Some(Some(_)))
    }

    /// The limits as they are to be: those of `before` where nothing was said. None may be more than
    /// the server gives to a container, or less than one lives on.
    pub fn over(self, control: &Control, before: Limits) -> Result<Limits, Fault> {
        let outer = control.config.machine_limits;
        let host = control.host.cpus.saturating_mul(1000);
        let most = Some(outer.cpu.unwrap_or(host).min(host)).filter(|most| *most > 0);
        let cpus = self.cpus.map(|asked| asked.map(|Cpus(cpu)| cpu));
        let memory = self.memory.map(|asked| asked.map(|Bytes(bytes)| bytes));
        let disk = self.disk.map(|asked| asked.map(|Bytes(bytes)| bytes));
        let processors = |cpu: u32| format!("{} processors", f64::from(cpu) / 1000.0);
        let count = |count: u32| count.to_string();
        Ok(Limits {
            cpu: bounded("cpus", cpus, before.cpu, LEAST_CPU, most, processors)?,
            memory: bounded(
                "memory",
                memory,
                before.memory,
                LEAST_MEMORY,
                outer.memory,
                shown,
            )?,
            disk: bounded("disk", disk, before.disk, LEAST_DISK, outer.disk, shown)?,
            processes: bounded(
                "processes",
                self.processes,
                before.processes,
                LEAST_PROCESSES,
                outer.processes,
                count,
            )?,
        })
    }
}

/// What a limit is to be: as before where nothing was said, within what there may be otherwise.
fn bounded<T: PartialOrd + Copy>(
    name: &str,
    asked: Option<Option<T>>,
    before: Option<T>,
    least: T,
    most: Option<T>,
    in_words: impl Fn(T) -> String,
) -> Result<Option<T>, Fault> {
    let Some(asked) = asked else {
        return Ok(before);
    };
    if asked.is_some_and(|asked| asked < least) {
        let least = in_words(least);
        return Err(invalid(name, format!("must be at least {least}")));
    }
    if let Some(most) = most.filter(|most| asked.is_some_and(|asked| asked > *most)) {
        let most = in_words(most);
        return Err(invalid(
            name,
            format!("this server gives a container at most {most}"),
        ));
    }
    Ok(asked)
}

/// Refuse new limits that what is there does not fit into. Memory that the kernel can take back is in
/// nobody's way.
pub fn fits(before: Limits, wanted: Limits, usage: &Usage) -> Result<(), Fault> {
    let below = |what: &str, used: String, limit: String| {
        Fault::conflict(format!(
            "the container uses {used} of {what} and cannot be held to {limit}; free some, or choose more"
        ))
        .code("LIMIT_BELOW_USE")
    };
    if let (Some(limit), Some(used)) = (wanted.memory, usage.memory_held)
        && used + MEMORY_ROOM > limit
        && before.memory != wanted.memory
    {
        return Err(below("memory", shown(used), shown(limit)));
    }
    if let (Some(limit), Some(used)) = (wanted.disk, usage.disk)
        && used > limit
        && before.disk != wanted.disk
    {
        return Err(below("disk", shown(used), shown(limit)));
    }
    if let Some(limit) = wanted.processes
        && usage.processes > u64::from(limit)
        && before.processes != wanted.processes
    {
        let used = usage.processes.to_string();
        return Err(below("processes", used, limit.to_string()));
    }
    Ok(())
}

/// What a container may take: its own limits where it has some, the server's where those are lower.
#[derive(Serialize, JsonSchema)]
pub struct Shown {
    /// Processors; null is all of them.
    cpus: Option<f64>,
    /// Bytes.
    memory: Option<u64>,
    /// Bytes.
    disk: Option<u64>,
    processes: Option<u32>,
}

impl Shown {
    pub fn of(control: &Control, own: Limits) -> Shown {
        let limits = own.within(control.config.machine_limits);
        Shown {
            cpus: limits.cpu.map(|cpu| f64::from(cpu) / 1000.0),
            memory: limits.memory,
            disk: limits.disk,
            processes: limits.processes,
        }
    }
}

/// Bytes for people, in the largest unit that keeps them whole or nearly so.
fn shown(bytes: u64) -> String {
    const UNITS: [(u64, &str); 2] = [(1 << 30, "GiB"), (1 << 20, "MiB")];
    for (unit, name) in UNITS {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{} {name}", bytes / unit);
        }
        if bytes >= unit {
            return format!("{:.1} {name}", bytes as f64 / unit as f64);
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn sizes_are_numbers_or_words() {
        for (given, wanted) in [
            (json!(1024), Some(1024)),
            (json!("1024"), Some(1024)),
            (json!("512MiB"), Some(512 << 20)),
            (json!(-1), None),
            (json!(1.5), None),
            (json!("many"), None),
            (Value::Null, None),
        ] {
            let read = serde_json::from_value::<Bytes>(given.clone()).ok();
            assert_eq!(read.map(|bytes| bytes.0), wanted, "{given}");
        }
        for (given, wanted) in [
            (json!(1), Some(1000)),
            (json!(0.05), None),
            (json!("2"), None),
        ] {
            let read = serde_json::from_value::<Cpus>(given.clone()).ok();
            assert_eq!(read.map(|cpus| cpus.0), wanted, "{given}");
        }
    }

    #[test]
    fn bytes_are_shown_in_words() {
        for (bytes, words) in [
            (100, "100 bytes"),
            (128 << 20, "128 MiB"),
            (1 << 30, "1 GiB"),
            (1_600_000_000, "1.5 GiB"),
        ] {
            assert_eq!(shown(bytes), words);
        }
    }
}
