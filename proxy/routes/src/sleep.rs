//! When a container sleeps, what wakes it, and how the proxy and control speak of it.
//!
//! The proxy connects to control for each thing it has to say, writes one line (a [`Call`]) and
//! reads one (a [`Said`]), both JSON.

use serde::{Deserialize, Serialize};

use crate::Id;

/// What a container's owner wants of its sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sleep {
    /// Whether a request to one of its URLs wakes it.
    pub wakes: bool,
    /// What becomes of it when nobody needs it; it stays on where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
}

impl Default for Sleep {
    fn default() -> Self {
        Sleep {
            wakes: true,
            idle: None,
        }
    }
}

impl Sleep {
    /// Whether it says nothing.
    pub fn is_default(&self) -> bool {
        *self == Sleep::default()
    }
}

/// What becomes of a container that nobody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idle {
    pub act: IdleAct,
    /// After this many minutes; at least one.
    pub minutes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdleAct {
    /// Frozen in memory: it takes no processor, and goes on within moments.
    Pause,
    /// Shut down: it takes no memory either, and boots anew.
    Stop,
}

/// What the proxy says to control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Somebody who may pass waits for this container.
    Wake(Id),
    /// Containers that were asked for, and how many milliseconds ago last; zero while something is
    /// under way. It is said now and then even where there are none.
    Used(Vec<(Id, u64)>),
    /// The same where there is more to say.
    More(Vec<(Id, u64)>),
}

/// Containers in one [`Call::Used`].
pub const USED: usize = 1_000;
/// The longest line of either.
pub const LINE: usize = 64 << 10;

/// What control answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// It is being woken; the routing table says when it runs.
    Waking,
    /// It stays as it is.
    No,
    /// It was woken too often: seconds to wait.
    Later(u32),
    /// Noted.
    Noted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_as_documented() {
        let id = Id([0xab; 12]);
        for (call, line) in [
            (Call::Wake(id), r#"{"wake":"abababababababababababab"}"#),
            (
                Call::Used(vec![(id, 7)]),
                r#"{"used":[["abababababababababababab",7]]}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&call).expect("JSON"), line);
            assert_eq!(serde_json::from_str::<Call>(line).expect("a call"), call);
        }
        let later = serde_json::to_string(&Said::Later(3)).expect("JSON");
        assert_eq!(later, r#"{"later":3}"#);
        let full = Call::Used(vec![(id, u64::MAX); USED]);
        assert!(serde_json::to_string(&full).expect("JSON").len() < LINE);
    }

    #[test]
    fn what_says_nothing_of_sleep_is_woken_and_stays_on() {
        let sleep: Sleep = serde_json::from_str("{}").expect("sleep");
        assert_eq!(sleep, Sleep::default());
        assert!(sleep.wakes && sleep.idle.is_none() && sleep.is_default());
    }
}
