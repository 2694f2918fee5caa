//! What a container should do next: pure, and the only place that knows.
//!
//! ```text
//!                    Create          Start             (kit ready)
//!        nothing ───────────► off ───────────► on ─────────────────► running
//!           ▲                 ▲ ▲               │ ▲
//!           │ Delete          │ └──Stop, Kill───┘ │ Thaw
//!        remains ◄── Delete ──┘                   ▼ Freeze
//!                                               frozen
//! ```
//!
//! A container that is given a machine that was kept ready (see [`crate::prespawn`]) begins with
//! `Claim` in place of `Create` and `Start`; `Adopt` then has the engine know what was done. Where
//! the machine is none any more, it is deleted and one is made.
//!
//! A snapshot is taken and dropped whatever the power; a restore, and a sync of a copy with its
//! source, are done while it is off, and turn it off first.
//!
//! [`plan`] looks at what is wanted and what is there and names one step, or none. Steps are
//! idempotent and nothing about them is remembered: after a crash anywhere, the next look plans
//! again.

use std::fmt;
use std::str::FromStr;

use routes::table::State;

use crate::runtime::Power;

/// What the user wants a container to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wants {
    On,
    Off,
    Frozen,
    /// Gone for good; nothing leads back from here.
    Gone,
}

/// The wanted side of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Desired {
    pub wants: Wants,
    /// Off at once, without asking the machine.
    pub force: bool,
    /// A restart is wanted of the machine in this incarnation; any other has restarted already.
    pub restart_from: Option<u64>,
    /// The machine was made completely once.
    pub made: bool,
    /// Its settings changed since they were last brought to the machine.
    pub stale: bool,
    /// Its steps failed for good; nothing more is tried until the user asks for something.
    pub given_up: bool,
    /// It is made from another container, not from an image.
    pub copied: bool,
    /// How far it has come in taking over a machine that was kept ready.
    pub claim: Option<Claim>,
    /// A snapshot is to be taken.
    pub take: bool,
    /// A snapshot is to be removed.
    pub drop: bool,
    /// Its disk is to become that of a snapshot.
    pub restore: bool,
    /// Its disk is to become that of the container it was copied from.
    pub sync: bool,
}

/// A machine that was kept ready becomes that of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Claim {
    /// It is the container's, and knows nothing of it yet.
    Open,
    /// It is the container in name and settings; the engine has not been told.
    Taken,
    /// It could not be made the container: another is made.
    Spoilt,
}

/// The observed side of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub power: Power,
    pub incarnation: u64,
    /// Its kit answers, or it carries none.
    pub ready: bool,
}

/// One thing to do about a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Make the machine, or finish making it.
    Create,
    /// Make a machine that was kept ready this container.
    Claim,
    /// Have the engine know what a claim did.
    Adopt,
    Start,
    Stop,
    /// Turn it off without asking.
    Kill,
    Freeze,
    Thaw,
    /// Bring changed settings to the machine.
    Update,
    /// Make the machine from another, or finish making it.
    Copy,
    /// Keep what its disk holds now.
    Snapshot,
    /// Remove a snapshot.
    Drop,
    /// Bring back what a snapshot holds.
    Restore,
    /// Bring over what changed in the machine it was copied from.
    Sync,
    /// Remove the machine and all it shares with the host.
    Delete,
    /// Nothing is left of it: forget that it was there.
    Purge,
}

/// A container as its user sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    Creating,
    /// A machine that was kept ready is being made this container.
    Claiming,
    Running,
    Paused,
    Stopped,
    Failed,
    /// Its disk is being made from another container's.
    Copying,
    Deleting,
}

/// The step that brings what is there closer to what is wanted.
pub fn plan(desired: Desired, seen: Option<Seen>) -> Option<Step> {
    let power = seen.map(|seen| seen.power);
    if desired.wants == Wants::Gone {
        return Some(if seen.is_none() {
            Step::Purge
        } else {
            Step::Delete
        });
    }
    let steady = matches!(power, Some(Power::Off | Power::On | Power::Frozen));
    if desired.made && desired.drop && steady {
        return Some(Step::Drop);
    }
    if desired.given_up {
        return None;
    }
    if !desired.made {
        return match (power, desired.claim) {
            (Some(Power::Changing), _) => None,
            // A creation that stopped halfway: begin again from nothing.
            (Some(Power::Remains | Power::Broken), _) => Some(Step::Delete),
            (Some(Power::On | Power::Frozen), Some(Claim::Open)) => Some(Step::Claim),
            // What was kept ready is no such machine: nothing of it goes into the next.
            (Some(_), Some(_)) => Some(Step::Delete),
            (None | Some(Power::Off | Power::On | Power::Frozen), _) => Some(if desired.copied {
                Step::Copy
            } else {
                Step::Create
            }),
        };
    }
    let seen = seen?; // see `lost`
    if desired.claim == Some(Claim::Taken) && steady {
        return Some(Step::Adopt);
    }
    if desired.take && steady {
        return Some(Step::Snapshot);
    }
    if (desired.restore || desired.sync) && steady {
        return Some(match seen.power {
            // What it would write while it shuts down is not kept: nobody asks it to.
            Power::On | Power::Frozen => Step::Kill,
            _ if desired.restore => Step::Restore,
            _ => Step::Sync,
        });
    }
    let restart = desired.restart_from == Some(seen.incarnation);
    match (seen.power, desired.wants) {
        (Power::Remains | Power::Changing, _) => None,
        (Power::Broken, _) => Some(Step::Kill),
        (Power::Off, _) if desired.stale => Some(Step::Update),
        (Power::Off, Wants::On | Wants::Frozen) => Some(Step::Start),
        (Power::Off, _) => None,
        (Power::On, Wants::Off) => Some(if desired.force {
            Step::Kill
        } else {
            Step::Stop
        }),
        (Power::On, Wants::On) if restart => Some(Step::Stop),
        (Power::On, _) if desired.stale => Some(Step::Update),
        (Power::On, Wants::Frozen) => Some(Step::Freeze),
        (Power::On, _) => None,
        (Power::Frozen, Wants::Off) if desired.force => Some(Step::Kill),
        (Power::Frozen, Wants::On | Wants::Off) => Some(Step::Thaw),
        (Power::Frozen, _) => None,
    }
}

/// A machine that was made is not there any more: somebody else removed it. It is not made again,
/// because what was in it would not come back.
pub fn lost(desired: Desired, seen: Option<Seen>) -> bool {
    desired.made
        && desired.wants != Wants::Gone
        && seen.is_none_or(|seen| seen.power == Power::Remains)
}

/// What the user sees. `before` is what was shown so far; `patient` while a machine that was just
/// turned on may take its time to become ready.
pub fn status(desired: Desired, seen: Option<Seen>, before: Status, patient: bool) -> Status {
    if desired.wants == Wants::Gone {
        return Status::Deleting;
    }
    if desired.given_up || lost(desired, seen) {
        return Status::Failed;
    }
    let Some(seen) = seen.filter(|_| desired.made) else {
        let kept = |seen: Seen| matches!(seen.power, Power::On | Power::Frozen | Power::Changing);
        return if desired.claim == Some(Claim::Open) && seen.is_some_and(kept) {
            Status::Claiming
        } else if desired.copied {
            Status::Copying
        } else {
            Status::Creating
        };
    };
    if desired.sync {
        return Status::Copying;
    }
    match seen.power {
        Power::Remains | Power::Changing => before,
        Power::Broken => Status::Failed,
        // It runs, and the engine does not know.
        Power::Frozen if desired.claim == Some(Claim::Taken) => before,
        Power::Frozen => Status::Paused,
        // Until it first runs, it is being created.
        Power::Off
            if matches!(
                before,
                Status::Creating | Status::Claiming | Status::Copying
            ) && desired.wants != Wants::Off =>
        {
            before
        }
        Power::Off => Status::Stopped,
        Power::On if seen.ready || !patient || before == Status::Paused => Status::Running,
        Power::On => before,
    }
}

/// What a visitor of the container's URLs meets.
pub fn state(desired: Desired, seen: Option<Seen>, status: Status) -> Option<State> {
    if desired.wants == Wants::Gone {
        return None;
    }
    if status == Status::Failed {
        return Some(State::Failed);
    }
    let Some(seen) = seen.filter(|_| desired.made) else {
        return Some(State::Creating);
    };
    Some(match (seen.power, desired.wants) {
        (Power::Frozen, _) => State::Paused,
        (Power::On, Wants::Off) => State::Stopping,
        // Whoever comes before it is frozen would hang in it: it is woken for them.
        (Power::On, Wants::Frozen) => State::Paused,
        (Power::On, _) if seen.ready => State::Running,
        (Power::On, _) => State::Starting,
        (Power::Off, Wants::On) => State::Starting,
        (Power::Off, _) => State::Stopped,
        (Power::Remains | Power::Broken, _) => State::Failed,
        (Power::Changing, Wants::Off) => State::Stopping,
        (Power::Changing, _) => State::Starting,
    })
}

impl Wants {
    pub fn as_str(self) -> &'static str {
        match self {
            Wants::On => "on",
            Wants::Off => "off",
            Wants::Frozen => "frozen",
            Wants::Gone => "gone",
        }
    }
}

impl Claim {
    pub fn as_str(self) -> &'static str {
        match self {
            Claim::Open => "open",
            Claim::Taken => "taken",
            Claim::Spoilt => "spoilt",
        }
    }
}

impl Step {
    pub const ALL: [Step; 16] = [
        Step::Create,
        Step::Claim,
        Step::Adopt,
        Step::Start,
        Step::Stop,
        Step::Kill,
        Step::Freeze,
        Step::Thaw,
        Step::Update,
        Step::Copy,
        Step::Snapshot,
        Step::Drop,
        Step::Restore,
        Step::Sync,
        Step::Delete,
        Step::Purge,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Step::Create => "create",
            Step::Claim => "claim",
            Step::Adopt => "adopt",
            Step::Start => "start",
            Step::Stop => "stop",
            Step::Kill => "kill",
            Step::Freeze => "freeze",
            Step::Thaw => "thaw",
            Step::Update => "update",
            Step::Copy => "copy",
            Step::Snapshot => "snapshot",
            Step::Drop => "drop",
            Step::Restore => "restore",
            Step::Sync => "sync",
            Step::Delete => "delete",
            Step::Purge => "purge",
        }
    }
}

impl Status {
    pub const ALL: [Status; 8] = [
        Status::Creating,
        Status::Claiming,
        Status::Running,
        Status::Paused,
        Status::Stopped,
        Status::Failed,
        Status::Copying,
        Status::Deleting,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Claiming => "claiming",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
            Status::Failed => "failed",
            Status::Copying => "copying",
            Status::Deleting => "deleting",
        }
    }
}

/// A word that names no status or want.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is none of the known words")]
pub struct UnknownWord(String);

impl FromStr for Status {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Status::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

impl FromStr for Wants {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        [Wants::On, Wants::Off, Wants::Frozen, Wants::Gone]
            .into_iter()
            .find(|wants| wants.as_str() == text)
            .ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

impl FromStr for Claim {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        [Claim::Open, Claim::Taken, Claim::Spoilt]
            .into_iter()
            .find(|claim| claim.as_str() == text)
            .ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POWERS: [Option<Power>; 7] = [
        None,
        Some(Power::Remains),
        Some(Power::Off),
        Some(Power::On),
        Some(Power::Frozen),
        Some(Power::Changing),
        Some(Power::Broken),
    ];
    const WANTS: [Wants; 4] = [Wants::On, Wants::Off, Wants::Frozen, Wants::Gone];

    fn desired(wants: Wants) -> Desired {
        Desired {
            wants,
            force: false,
            restart_from: None,
            made: true,
            stale: false,
            given_up: false,
            copied: false,
            claim: None,
            take: false,
            drop: false,
            restore: false,
            sync: false,
        }
    }

    fn seen(power: Option<Power>) -> Option<Seen> {
        power.map(|power| Seen {
            power,
            incarnation: 7,
            ready: true,
        })
    }

    /// Rows: what is there. Columns: what is wanted: on, off, frozen, gone.
    #[test]
    fn a_made_container() {
        use Step::*;
        let table: [(Option<Power>, [Option<Step>; 4]); 7] = [
            (None, [None, None, None, Some(Purge)]),
            (Some(Power::Remains), [None, None, None, Some(Delete)]),
            (
                Some(Power::Off),
                [Some(Start), None, Some(Start), Some(Delete)],
            ),
            (
                Some(Power::On),
                [None, Some(Stop), Some(Freeze), Some(Delete)],
            ),
            (
                Some(Power::Frozen),
                [Some(Thaw), Some(Thaw), None, Some(Delete)],
            ),
            (Some(Power::Changing), [None, None, None, Some(Delete)]),
            (
                Some(Power::Broken),
                [Some(Kill), Some(Kill), Some(Kill), Some(Delete)],
            ),
        ];
        for (power, steps) in table {
            for (wants, step) in WANTS.into_iter().zip(steps) {
                assert_eq!(
                    plan(desired(wants), seen(power)),
                    step,
                    "{power:?} wanted {wants:?}"
                );
            }
        }
    }

    #[test]
    fn a_container_that_is_not_made_yet() {
        use Step::*;
        let table: [(Option<Power>, Option<Step>); 7] = [
            (None, Some(Create)),
            (Some(Power::Remains), Some(Delete)),
            (Some(Power::Off), Some(Create)),
            (Some(Power::On), Some(Create)),
            (Some(Power::Frozen), Some(Create)),
            (Some(Power::Changing), None),
            (Some(Power::Broken), Some(Delete)),
        ];
        for (power, step) in table {
            for wants in [Wants::On, Wants::Off, Wants::Frozen] {
                let desired = Desired {
                    made: false,
                    ..desired(wants)
                };
                assert_eq!(
                    plan(desired, seen(power)),
                    step,
                    "{power:?} wanted {wants:?}"
                );
            }
        }
    }

    /// Rows: what is there. Columns: how far the claim has come: open, spoilt; taken.
    #[test]
    fn a_container_with_a_machine_that_was_kept_ready() {
        use Step::*;
        let table: [(Option<Power>, [Option<Step>; 3]); 7] = [
            (None, [Some(Create), Some(Create), None]),
            (Some(Power::Remains), [Some(Delete), Some(Delete), None]),
            (Some(Power::Off), [Some(Delete), Some(Delete), Some(Adopt)]),
            (Some(Power::On), [Some(Claim), Some(Delete), Some(Adopt)]),
            (
                Some(Power::Frozen),
                [Some(Claim), Some(Delete), Some(Adopt)],
            ),
            (Some(Power::Changing), [None, None, None]),
            (
                Some(Power::Broken),
                [Some(Delete), Some(Delete), Some(Kill)],
            ),
        ];
        for (power, steps) in table {
            for wants in [Wants::On, Wants::Off, Wants::Frozen] {
                for (claim, step) in [
                    super::Claim::Open,
                    super::Claim::Spoilt,
                    super::Claim::Taken,
                ]
                .into_iter()
                .zip(steps)
                {
                    let desired = Desired {
                        made: claim == super::Claim::Taken,
                        claim: Some(claim),
                        ..desired(wants)
                    };
                    assert_eq!(
                        plan(desired, seen(power)),
                        step,
                        "{power:?}, {claim:?}, wanted {wants:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_claim_is_shown_until_the_machine_is_the_container() {
        let open = Desired {
            made: false,
            claim: Some(Claim::Open),
            ..desired(Wants::On)
        };
        let frozen = seen(Some(Power::Frozen));
        let shown = |desired, seen, before| status(desired, seen, before, true);
        assert_eq!(shown(open, frozen, Status::Claiming), Status::Claiming);
        assert_eq!(
            state(open, frozen, Status::Claiming),
            Some(State::Creating),
            "no URL leads to it before"
        );
        assert_eq!(shown(open, None, Status::Claiming), Status::Creating);
        let spoilt = Desired {
            claim: Some(Claim::Spoilt),
            ..open
        };
        assert_eq!(shown(spoilt, frozen, Status::Claiming), Status::Creating);
        let taken = Desired {
            made: true,
            claim: Some(Claim::Taken),
            ..open
        };
        let on = seen(Some(Power::On));
        assert_eq!(shown(taken, on, Status::Claiming), Status::Running);
        // The engine takes it for frozen until it is told.
        assert_eq!(shown(taken, frozen, Status::Running), Status::Running);
    }

    #[test]
    fn force_asks_nobody() {
        let off = Desired {
            force: true,
            ..desired(Wants::Off)
        };
        assert_eq!(plan(off, seen(Some(Power::On))), Some(Step::Kill));
        assert_eq!(plan(off, seen(Some(Power::Frozen))), Some(Step::Kill));
    }

    #[test]
    fn a_restart_is_of_one_incarnation() {
        let again = Desired {
            restart_from: Some(7),
            ..desired(Wants::On)
        };
        assert_eq!(plan(again, seen(Some(Power::On))), Some(Step::Stop));
        assert_eq!(plan(again, seen(Some(Power::Off))), Some(Step::Start));
        let next = Seen {
            power: Power::On,
            incarnation: 8,
            ready: true,
        };
        assert_eq!(plan(again, Some(next)), None);
    }

    #[test]
    fn settings_come_before_the_start() {
        let stale = Desired {
            stale: true,
            ..desired(Wants::On)
        };
        assert_eq!(plan(stale, seen(Some(Power::Off))), Some(Step::Update));
        assert_eq!(plan(stale, seen(Some(Power::On))), Some(Step::Update));
    }

    /// Rows: what is there. Columns: a snapshot is to be taken, removed, restored; a sync.
    #[test]
    fn a_container_with_snapshots() {
        use Step::*;
        let table = [
            (Power::Off, [Snapshot, Drop, Restore, Sync]),
            (Power::On, [Snapshot, Drop, Kill, Kill]),
            (Power::Frozen, [Snapshot, Drop, Kill, Kill]),
        ];
        for (power, steps) in table {
            for wants in [Wants::On, Wants::Off, Wants::Frozen] {
                let asked = [
                    Desired {
                        take: true,
                        ..desired(wants)
                    },
                    Desired {
                        drop: true,
                        ..desired(wants)
                    },
                    Desired {
                        restore: true,
                        ..desired(wants)
                    },
                    Desired {
                        sync: true,
                        ..desired(wants)
                    },
                ];
                for (asked, step) in asked.into_iter().zip(steps) {
                    assert_eq!(plan(asked, seen(Some(power))), Some(step), "{power:?}");
                }
            }
        }
        // of a container that failed, a snapshot can still be removed
        let failed = Desired {
            given_up: true,
            drop: true,
            ..desired(Wants::On)
        };
        assert_eq!(plan(failed, seen(Some(Power::Off))), Some(Drop));
    }

    #[test]
    fn a_copy_is_copying_until_it_is_made_and_while_it_is_synced() {
        let copy = Desired {
            copied: true,
            made: false,
            ..desired(Wants::Off)
        };
        assert_eq!(plan(copy, None), Some(Step::Copy));
        assert_eq!(plan(copy, seen(Some(Power::Remains))), Some(Step::Delete));
        assert_eq!(status(copy, None, Status::Copying, true), Status::Copying);
        let made = Desired { made: true, ..copy };
        let off = seen(Some(Power::Off));
        assert_eq!(status(made, off, Status::Copying, true), Status::Stopped);
        let synced = Desired { sync: true, ..made };
        assert_eq!(status(synced, off, Status::Stopped, true), Status::Copying);
    }

    #[test]
    fn only_deletion_goes_on_after_giving_up() {
        for power in POWERS {
            for wants in WANTS {
                let step = plan(
                    Desired {
                        given_up: true,
                        ..desired(wants)
                    },
                    seen(power),
                );
                assert_eq!(
                    step.is_some(),
                    wants == Wants::Gone,
                    "{power:?} wanted {wants:?}"
                );
            }
        }
    }

    #[test]
    fn a_lost_machine_is_failed_and_not_made_again() {
        assert_eq!(plan(desired(Wants::On), None), None);
        assert_eq!(
            status(desired(Wants::On), None, Status::Running, true),
            Status::Failed
        );
        assert_eq!(
            state(desired(Wants::On), None, Status::Failed),
            Some(State::Failed)
        );
    }

    #[test]
    fn a_container_is_creating_until_its_kit_answers() {
        let on = desired(Wants::On);
        let mut at = Seen {
            power: Power::Off,
            incarnation: 0,
            ready: false,
        };
        let unmade = Desired { made: false, ..on };
        assert_eq!(
            status(unmade, None, Status::Creating, true),
            Status::Creating
        );
        assert_eq!(
            status(on, Some(at), Status::Creating, true),
            Status::Creating
        );
        at.power = Power::On;
        assert_eq!(
            status(on, Some(at), Status::Creating, true),
            Status::Creating
        );
        assert_eq!(state(on, Some(at), Status::Creating), Some(State::Starting));
        assert_eq!(
            status(on, Some(at), Status::Creating, false),
            Status::Running
        );
        at.ready = true;
        assert_eq!(
            status(on, Some(at), Status::Creating, true),
            Status::Running
        );
        assert_eq!(state(on, Some(at), Status::Running), Some(State::Running));
    }

    #[test]
    fn a_kit_that_went_away_does_not_make_a_machine_stopped() {
        let at = Seen {
            power: Power::On,
            incarnation: 1,
            ready: false,
        };
        assert_eq!(
            status(desired(Wants::On), Some(at), Status::Running, true),
            Status::Running
        );
    }

    /// A runtime that does what it is told, from any state.
    fn act(step: Step, desired: &mut Desired, seen: &mut Option<Seen>, incarnation: &mut u64) {
        let power = match step {
            Step::Create | Step::Copy => {
                desired.made = true;
                desired.claim = None;
                seen.map_or(Some(Power::Off), |seen| Some(seen.power))
            }
            Step::Claim => {
                desired.made = true;
                desired.claim = Some(Claim::Taken);
                Some(Power::On)
            }
            Step::Adopt => {
                desired.claim = None;
                seen.map(|seen| match seen.power {
                    Power::Frozen => Power::On,
                    power => power,
                })
            }
            Step::Start | Step::Thaw => Some(Power::On),
            Step::Stop | Step::Kill => Some(Power::Off),
            Step::Freeze => Some(Power::Frozen),
            Step::Update => {
                desired.stale = false;
                seen.map(|seen| seen.power)
            }
            Step::Snapshot => {
                desired.take = false;
                seen.map(|seen| seen.power)
            }
            Step::Drop => {
                desired.drop = false;
                seen.map(|seen| seen.power)
            }
            Step::Restore | Step::Sync => {
                if step == Step::Restore {
                    desired.restore = false;
                } else {
                    desired.sync = false;
                }
                desired.stale = true;
                seen.map(|seen| seen.power)
            }
            Step::Delete | Step::Purge => None,
        };
        if step == Step::Start {
            *incarnation += 1;
        }
        *seen = power.map(|power| Seen {
            power,
            incarnation: *incarnation,
            ready: power == Power::On,
        });
    }

    prop_compose! {
        fn any_desired()(
            wants in prop::sample::select(WANTS.to_vec()),
            force: bool,
            restart in prop::option::of(0u64..3),
            made: bool,
            stale: bool,
            given_up: bool,
            claim in prop::sample::select(vec![None, Some(Claim::Open), Some(Claim::Taken), Some(Claim::Spoilt)]),
            (copied, take, drop, restore, sync) in any::<(bool, bool, bool, bool, bool)>(),
        ) -> Desired {
            Desired {
                wants, force, restart_from: restart, made, stale, given_up, claim,
                copied, take, drop, restore, sync,
            }
        }
    }

    proptest! {
        #[test]
        fn every_state_converges(
            start in any_desired(),
            power in prop::sample::select(POWERS.to_vec()),
            incarnation in 0u64..3,
            settles in prop::sample::select(vec![Power::Off, Power::On, Power::Frozen, Power::Broken]),
        ) {
            let mut desired = start;
            let mut incarnation = incarnation;
            let mut seen = power.map(|power| Seen { power, incarnation, ready: true });
            let mut purged = false;
            for _ in 0..20 {
                // What is between two states arrives in one of them by itself.
                if let Some(at) = seen.as_mut().filter(|at| at.power == Power::Changing) {
                    at.power = settles;
                }
                let Some(step) = plan(desired, seen) else { break };
                if desired.wants == Wants::Gone {
                    prop_assert!(matches!(step, Step::Delete | Step::Purge), "{step:?} of what should be gone");
                }
                prop_assert!(step != Step::Purge || seen.is_none(), "forgot a machine that is there");
                let off = seen.is_some_and(|seen| seen.power == Power::Off);
                prop_assert!(
                    off || !matches!(step, Step::Restore | Step::Sync),
                    "{step:?} of a disk in use"
                );
                prop_assert!(
                    !(desired.restore || desired.sync) || step != Step::Start,
                    "started on a disk that is to be replaced"
                );
                prop_assert!(
                    desired.made || step != Step::Start,
                    "started what is not this container's yet"
                );
                if step == Step::Create {
                    prop_assert!(
                        desired.claim.is_none() || seen.is_none(),
                        "took what was kept ready for a machine of its own"
                    );
                }
                purged |= step == Step::Purge;
                if purged { break }
                act(step, &mut desired, &mut seen, &mut incarnation);
            }
            let power = seen.map(|seen| seen.power);
            if desired.wants == Wants::Gone {
                prop_assert!(purged && seen.is_none());
            } else if !desired.given_up && !lost(desired, seen) {
                let want = match desired.wants {
                    Wants::On => Power::On,
                    Wants::Off => Power::Off,
                    Wants::Frozen | Wants::Gone => Power::Frozen,
                };
                prop_assert_eq!(power, Some(want));
                prop_assert!(desired.made && !desired.stale || power == Some(Power::Frozen));
                prop_assert_eq!(plan(desired, seen), None);
                let left = desired.take || desired.drop || desired.restore || desired.sync;
                prop_assert!(!left, "something was not done: {:?}", desired);
            }
        }
    }
}
