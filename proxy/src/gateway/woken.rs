//! Requests for a container that sleeps.

use std::sync::Arc;

use pingora::proxy::Session;
use prometheus::IntGauge;
use routes::table::Place;

use super::{Gateway, Verdict, Visit, now};
use crate::refusals::Refusal;
use crate::request::audience;
use crate::resolve::Destination;

/// Counted while it is held; whoever waits may leave.
struct Counted<'a>(&'a IntGauge);

impl<'a> Counted<'a> {
    fn new(gauge: &'a IntGauge) -> Counted<'a> {
        gauge.inc();
        Counted(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Gateway {
    /// Hold a request until its container runs; then see anew whether it may pass: the rules may
    /// have changed meanwhile. `Err` is only the way out early.
    pub(super) async fn woken(
        &self,
        session: &mut Session,
        visit: &mut Visit,
        place: &Arc<Place>,
    ) -> Result<Verdict, Verdict> {
        let shared = &*self.shared;
        let request = session.req_header();
        let audience = audience(request, visit.api);
        let patience = shared.config.limits.wake.of(audience, &request.headers);
        let (changed, stopping) = (shared.changed.subscribe(), shared.stopping.clone());
        let table = || shared.table.load_full();
        let held = shared.wakes.wait(place, patience, table, changed, stopping);
        let counted = Counted::new(&shared.metrics.held);
        Box::pin(held).await?;
        drop(counted);

        let table = shared.table.load();
        let (Some(Destination::Kit { door, alias, .. }), Some(name)) =
            (&visit.destination, visit.name)
        else {
            return Err(Refusal::UnknownContainer.into());
        };
        let stands = alias.as_ref().is_none_or(|alias| {
            let found = table.aliases.get(&alias.name);
            found.is_some_and(|found| found == alias && found.stands(now()))
        });
        if !stands {
            return Err(Refusal::UnknownHost.into());
        }
        let place = table.find(Some(place.project), place.container);
        let place = place.ok_or(Refusal::UnknownContainer)?.clone();
        visit.destination = Some(Destination::Kit {
            place,
            door: *door,
            alias: alias.clone(),
        });
        self.let_in(session, visit, &name, &table)
    }
}
