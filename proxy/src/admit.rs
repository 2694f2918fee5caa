//! May a request pass to its destination now?
//!
//! Today a container's state decides. Gates (passwords, tokens, addresses) and waking come in
//! here, in this order: who is it, is it allowed, is it awake.

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
