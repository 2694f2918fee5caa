//! May a request pass to its destination now?
//!
//! A container's state decides. Whoever comes here has passed the gates: what sleeps is woken for
//! them ([`crate::wake`]).

use routes::table::State;

use crate::logs;
use crate::refusals::Refusal;
use crate::resolve::Destination;

/// Whether a request for this destination may pass.
pub fn admit(destination: &Destination) -> Result<(), Refusal> {
    let Destination::Kit { place, door, .. } = destination else {
        return Ok(());
    };
    // The log is the proxy's own: it can be read whatever has become of the machine.
    if door.service == logs::SERVICE {
        return Ok(());
    }
    match place.state {
        State::Running => Ok(()),
        State::Creating | State::Starting => Err(Refusal::Starting(place.clone())),
        State::Paused => Err(Refusal::Paused(place.clone())),
        State::Stopping | State::Stopped => Err(Refusal::Stopped(place.clone())),
        State::Failed => Err(Refusal::Failed(place.clone())),
    }
}
