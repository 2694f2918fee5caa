//! When to order: decisions without a clock, a file or a directory.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The first wait after an attempt that failed; each failure in a row doubles it.
const FIRST_WAIT: u64 = 60;
/// The longest wait of one's own accord: a directory that was down for days is found up again
/// within hours.
const LONGEST_WAIT: u64 = 6 * 3600;
/// The longest wait that a directory may ask for.
const LONGEST_TOLD: u64 = 7 * 24 * 3600;
/// Bounds of the wait between two questions for the renewal window (RFC 9773, section 4.3).
const WINDOW_AGAIN: (u64, u64) = (3600, 24 * 3600);

/// When a directory wants a certificate replaced (RFC 9773), in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub start: u64,
    pub end: u64,
}

/// When to replace a certificate: somewhere in the directory's window, else at two thirds of its
/// lifetime and up to a thirtieth of it before, so that many made at once are not replaced at
/// once. `dice` is from 0 to 1.
pub fn renewal(begins: u64, ends: u64, window: Option<Window>, dice: f64) -> u64 {
    let dice = dice.clamp(0.0, 1.0);
    if let Some(Window { start, end }) = window.filter(|window| window.start < window.end) {
        return start + ((end - start) as f64 * dice) as u64;
    }
    let lifetime = ends.saturating_sub(begins) as f64;
    begins + (lifetime * (2.0 / 3.0 - dice / 30.0)) as u64
}

/// How long to wait after this many failures in a row: doubled each time, a quarter more or less,
/// and never less than the directory said.
pub fn wait(failures: u32, told: Option<Duration>, dice: f64) -> u64 {
    let doubled = FIRST_WAIT << failures.saturating_sub(1).min(16);
    let own = doubled.min(LONGEST_WAIT) as f64 * (0.75 + dice.clamp(0.0, 1.0) / 2.0);
    let told = told.map_or(0, |told| told.as_secs().min(LONGEST_TOLD));
    (own as u64).max(told)
}

/// When to ask for the window again.
pub fn ask_again(told: Duration) -> u64 {
    told.as_secs().clamp(WINDOW_AGAIN.0, WINDOW_AGAIN.1)
}

/// What is known of a certificate that there shall be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State {
    pub ends: Option<u64>,
    pub renews: Option<u64>,
    /// Not before then, after a failure.
    pub next_try: Option<u64>,
}

/// Whether to order now.
pub fn is_due(state: State, now: u64) -> bool {
    if state.next_try.is_some_and(|next| now < next) {
        return false;
    }
    match (state.ends, state.renews) {
        (None, _) => true,
        (Some(ends), renews) => now >= renews.unwrap_or(ends) || now >= ends,
    }
}

/// The part of a name that somebody registered, which budgets are counted by: `example.co.uk` of
/// `www.example.co.uk`.
pub fn registered_domain(name: &str) -> &str {
    psl::domain_str(name).unwrap_or(name)
}

/// Orders for domains of others, of the last week: second and registered domain.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Budget {
    spent: Vec<(u64, String)>,
}

const HOUR: u64 = 3600;
const WEEK: u64 = 7 * 24 * HOUR;

impl Budget {
    /// Spend one order; otherwise how many seconds until there is one.
    pub fn spend(
        &mut self,
        name: &str,
        per_hour: usize,
        per_domain: usize,
        now: u64,
    ) -> Result<(), u64> {
        self.spent.retain(|(at, _)| now < at + WEEK);
        let domain = registered_domain(name);
        let wait = |mut times: Vec<u64>, most: usize, term: u64| {
            times.sort_unstable();
            let over = (times.len() + 1)
                .checked_sub(most)
                .filter(|over| *over > 0)?;
            times.get(over - 1).map_or(Some(term), |at| {
                Some((at + term).saturating_sub(now).max(1))
            })
        };
        let all = self.spent.iter().map(|(at, _)| *at);
        let hour: Vec<u64> = all.filter(|at| now < at + HOUR).collect();
        let same: Vec<u64> = self
            .spent
            .iter()
            .filter(|(_, spent)| spent == domain)
            .map(|(at, _)| *at)
            .collect();
        let waits = [wait(hour, per_hour, HOUR), wait(same, per_domain, WEEK)];
        match waits.into_iter().flatten().max() {
            Some(wait) => Err(wait),
            None => {
                self.spent.push((now, domain.to_owned()));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 24 * 3600;

    #[test]
    fn renewal_is_in_the_window_or_before_two_thirds() {
        let window = Some(Window {
            start: 50 * DAY,
            end: 52 * DAY,
        });
        let empty = Some(Window { start: 9, end: 9 });
        for (window, dice, expected) in [
            (None, 0.0, 60 * DAY),
            (None, 1.0, 57 * DAY),
            (window, 0.0, 50 * DAY),
            (window, 0.5, 51 * DAY),
            (window, 1.0, 52 * DAY),
            (empty, 0.0, 60 * DAY),
        ] {
            let found = renewal(0, 90 * DAY, window, dice);
            assert!(found.abs_diff(expected) <= 1, "{found} for {expected}");
        }
    }

    #[test]
    fn waits_double_up_to_a_bound_and_obey_the_directory() {
        let hour = Some(Duration::from_secs(3600));
        let ever = Some(Duration::from_secs(u64::MAX));
        for (failures, told, expected) in [
            (1, None, 60),
            (2, None, 120),
            (5, None, 960),
            (40, None, LONGEST_WAIT),
            (u32::MAX, None, LONGEST_WAIT),
            (1, hour, 3600),
            (12, hour, LONGEST_WAIT),
            (1, ever, LONGEST_TOLD),
        ] {
            assert_eq!(wait(failures, told, 0.5), expected, "{failures} {told:?}");
        }
    }

    #[test]
    fn an_order_is_due_where_there_is_none_or_its_time_has_come() {
        let state = |ends, renews, next_try| State {
            ends,
            renews,
            next_try,
        };
        for (state, now, due) in [
            (state(None, None, None), 5, true),
            (state(None, None, Some(6)), 5, false),
            (state(None, None, Some(5)), 5, true),
            (state(Some(90), Some(60), None), 59, false),
            (state(Some(90), Some(60), None), 60, true),
            (state(Some(90), Some(60), Some(70)), 65, false),
            (state(Some(90), None, None), 89, false),
            (state(Some(90), None, None), 90, true),
        ] {
            assert_eq!(is_due(state, now), due, "{state:?} at {now}");
        }
    }

    #[test]
    fn budgets_are_for_what_somebody_registered() {
        for (name, domain) in [
            ("www.example.com", "example.com"),
            ("a.b.example.co.uk", "example.co.uk"),
            ("example.com", "example.com"),
            ("com", "com"),
        ] {
            assert_eq!(registered_domain(name), domain);
        }
        let mut budget = Budget::default();
        assert_eq!(budget.spend("a.example.com", 3, 2, 100), Ok(()));
        assert_eq!(budget.spend("b.example.com", 3, 2, 200), Ok(()));
        assert_eq!(
            budget.spend("c.example.com", 3, 2, 300),
            Err(WEEK - 200),
            "the domain's"
        );
        assert_eq!(budget.spend("example.org", 3, 2, 300), Ok(()));
        assert_eq!(
            budget.spend("example.net", 3, 2, 400),
            Err(HOUR - 300),
            "the hour's"
        );
        assert_eq!(budget.spend("example.net", 3, 2, 100 + HOUR), Ok(()));
        assert_eq!(budget.spend("c.example.com", 3, 2, 100 + WEEK), Ok(()));
    }

    proptest! {
        #[test]
        fn no_hour_and_no_domain_is_overspent(steps in proptest::collection::vec((0u64..5_000, 0u8..4), 1..80)) {
            let (per_hour, per_domain) = (5, 3);
            let (mut budget, mut now, mut done) = (Budget::default(), 0, Vec::new());
            for (step, domain) in steps {
                now += step;
                let name = format!("w.d{domain}.com");
                match budget.spend(&name, per_hour, per_domain, now) {
                    Ok(()) => done.push((now, domain)),
                    // Who waits as long as was said, gets it.
                    Err(wait) => prop_assert_eq!(budget.clone().spend(&name, per_hour, per_domain, now + wait), Ok(())),
                }
                prop_assert!(done.iter().filter(|(at, _)| now < at + HOUR).count() <= per_hour);
                prop_assert!(done.iter().filter(|(at, of)| now < at + WEEK && *of == domain).count() <= per_domain);
            }
        }
    }
}
