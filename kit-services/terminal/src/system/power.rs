//! Restarting the machine and shutting it down, through systemd.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// What is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Reboot,
    Shutdown,
}

impl Act {
    pub fn as_str(self) -> &'static str {
        match self {
            Act::Reboot => "reboot",
            Act::Shutdown => "shutdown",
        }
    }

    /// What systemctl(1) calls it.
    fn verb(self) -> &'static str {
        match self {
            Act::Reboot => "reboot",
            Act::Shutdown => "poweroff",
        }
    }
}

/// What is to happen, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub act: Act,
    /// From now.
    pub seconds: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    #[error("could not ask systemd: {program} does not run")]
    Ask {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("systemd does not do it: {why}")]
    Refused { why: String },
}

/// The timer's name: there is one, so that a later order takes the place of an earlier one.
const UNIT: &str = "hoody-power";
/// How long systemd may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

impl Schedule {
    /// What a caller asked for, if it is in range. The least is a second, in which the answer gets
    /// to the caller.
    pub fn read(act: Act, delay: i64) -> Option<Schedule> {
        const DAY: i64 = 86_400;
        let seconds = u32::try_from(delay).ok().filter(|_| delay <= DAY)?;
        Some(Schedule {
            act,
            seconds: seconds.max(1),
        })
    }

    /// Have it done. A timer of systemd itself, so that it also happens where this kit is replaced
    /// meanwhile. `program` is systemd-run(1).
    pub async fn ask(self, program: &Path) -> Result<(), ScheduleError> {
        // An order that was given before; there may be none.
        let systemctl = program.with_file_name("systemctl");
        let _ = run(&systemctl, &["stop", &format!("{UNIT}.timer")]).await;
        let when = format!("--on-active={}s", self.seconds);
        let unit = format!("--unit={UNIT}");
        run(
            program,
            &[
                "--quiet",
                "--collect",
                &unit,
                &when,
                "--timer-property=AccuracySec=100ms",
                "systemctl",
                "--no-block",
                self.act.verb(),
            ],
        )
        .await
    }
}

async fn run(program: &Path, arguments: &[&str]) -> Result<(), ScheduleError> {
    let ask = |source| ScheduleError::Ask {
        program: program.to_owned(),
        source,
    };
    let answer = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let answer = tokio::time::timeout(PATIENCE, answer)
        .await
        .map_err(|elapsed| ask(elapsed.into()))?
        .map_err(ask)?;
    if answer.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&answer.stderr);
    let why = why.lines().next().unwrap_or("it does not say why");
    const SHOWN: usize = 200;
    Err(ScheduleError::Refused {
        why: why.chars().take(SHOWN).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_seconds_of_a_day() {
        let seconds = |delay| Schedule::read(Act::Reboot, delay).map(|schedule| schedule.seconds);
        assert_eq!(seconds(0), Some(1));
        assert_eq!(seconds(90), Some(90));
        assert_eq!(seconds(86_400), Some(86_400));
        assert_eq!(seconds(86_401), None);
        assert_eq!(seconds(-1), None);
        assert_eq!(seconds(i64::MAX), None);
    }

    #[tokio::test]
    async fn a_refusal_says_why() {
        let schedule = Schedule::read(Act::Shutdown, 5).unwrap();
        let refused = schedule.ask(Path::new("/usr/bin/false")).await;
        assert!(matches!(refused, Err(ScheduleError::Refused { .. })));
        let missing = schedule.ask(Path::new("/no/such/systemd-run")).await;
        assert!(matches!(missing, Err(ScheduleError::Ask { .. })));
    }
}
