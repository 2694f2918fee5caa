//! What limits of containers may be: the least that a machine lives on, and how people write them.

/// The least that a machine boots with.
pub const LEAST_MEMORY: u64 = 128 << 20;
/// What an image fills, and some.
pub const LEAST_DISK: u64 = 1 << 30;
/// A machine and its kit have some 40.
pub const LEAST_PROCESSES: u32 = 256;
/// Of a processor, in thousandths: 10 ms of each 100.
pub const LEAST_CPU: u32 = 100;
/// Processors that a number may name, whatever the host has.
pub const MOST_CPUS: f64 = 4096.0;

/// Bytes, as `8GiB`, `512MiB`, `8G` or without a unit; units are powers of 1024.
pub fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit());
    let (digits, unit) = text.split_at(end.unwrap_or(text.len()));
    let shift = match unit.trim() {
        "" | "B" => 0,
        "K" | "KB" | "KiB" => 10,
        "M" | "MB" | "MiB" => 20,
        "G" | "GB" | "GiB" => 30,
        "T" | "TB" | "TiB" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Thousandths of a processor.
pub fn thousandths(cpus: f64) -> Option<u32> {
    let thousandths = (cpus * 1000.0).round();
    let bounds = f64::from(LEAST_CPU)..=MOST_CPUS * 1000.0;
    bounds.contains(&thousandths).then_some(thousandths as u32)
}

pub fn cpus(text: &str) -> Option<u32> {
    thousandths(text.parse().ok()?)
}

pub fn memory(text: &str) -> Option<u64> {
    bytes(text).filter(|bytes| *bytes >= LEAST_MEMORY)
}

pub fn disk(text: &str) -> Option<u64> {
    bytes(text).filter(|bytes| *bytes >= LEAST_DISK)
}

pub fn processes(text: &str) -> Option<u32> {
    text.parse().ok().filter(|count| *count >= LEAST_PROCESSES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, wanted) in [
            ("1024", Some(1024)),
            ("512MiB", Some(512 << 20)),
            ("512M", Some(512 << 20)),
            ("8 GiB", Some(8 << 30)),
            ("1TB", Some(1 << 40)),
            ("16KiB", Some(16 << 10)),
            ("-1", None),
            ("1.5GiB", None),
            ("MiB", None),
            ("", None),
            ("8 gigabytes", None),
            ("99999999999TiB", None),
        ] {
            assert_eq!(bytes(text), wanted, "{text}");
        }
    }

    #[test]
    fn processors_are_tenths_at_least() {
        for (text, wanted) in [
            ("1", Some(1000)),
            ("0.5", Some(500)),
            ("1.2345", Some(1235)),
            ("0.1", Some(100)),
            ("0.05", None),
            ("0", None),
            ("-2", None),
            ("1e9", None),
            ("NaN", None),
            ("inf", None),
            ("two", None),
        ] {
            assert_eq!(cpus(text), wanted, "{text}");
        }
    }

    #[test]
    fn nothing_is_less_than_a_machine_lives_on() {
        assert_eq!(
            (memory("127MiB"), memory("128MiB")),
            (None, Some(128 << 20))
        );
        assert_eq!((disk("1023MiB"), disk("1GiB")), (None, Some(1 << 30)));
        assert_eq!((processes("255"), processes("256")), (None, Some(256)));
    }
}
