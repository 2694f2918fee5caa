//! Time as the API writes it. The clock is an argument, so that tests own it.

use std::sync::Arc;

use jiff::Timestamp;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Milliseconds since the epoch: how the database keeps times.
pub type Millis = i64;

pub const SECOND: Millis = 1000;
pub const MINUTE: Millis = 60 * SECOND;
pub const HOUR: Millis = 60 * MINUTE;
pub const DAY: Millis = 24 * HOUR;

/// The clock of the machine.
pub fn system() -> Clock {
    Arc::new(Timestamp::now)
}

/// RFC 3339 in UTC with milliseconds: `2026-11-22T03:30:00.000Z`.
pub fn text(at: Millis) -> String {
    let stamp = Timestamp::from_millisecond(at).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{stamp:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_carry_milliseconds_and_a_zone() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(1_795_318_200_123), "2026-11-22T03:30:00.123Z");
    }
}
