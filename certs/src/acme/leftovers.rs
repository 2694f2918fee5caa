//! What nobody goes on with: orders and leases of processes that died, certificates of nodes that
//! are no more.

use super::lease::Lease;
use super::{Acme, KEPT_ENDED};
use crate::clock::seconds;
use crate::{Class, Error};

/// How long an order is left to whoever may go on with it: directories forget one after a week
/// (RFC 8555 leaves it to them).
const KEPT_ORDER: u64 = 7 * 24 * 3600;
/// How long nothing is heard of a lease before it is looked at: many terms, so that whoever just
/// takes one finds nobody at it.
const KEPT_LEASE: u64 = 3600;
/// Leases and orders that are looked at in one sweep: the rest waits for the next.
const AT_A_SWEEP: usize = 256;

impl Acme {
    /// Take away what is left over, each under its lease.
    pub(super) async fn clear(&self) -> Result<(), Error> {
        self.clear_orders().await?;
        self.clear_ended()?;
        self.clear_leases()
    }

    /// Orders that there is no certificate to come from: their domain is known no more, or never
    /// was because the first try did not end. What they showed is taken back.
    async fn clear_orders(&self) -> Result<(), Error> {
        let now = seconds(self.clock.now());
        for (slug, changed) in self.shelf.orders()?.into_iter().take(AT_A_SWEEP) {
            let is_old = |changed: u64| changed + KEPT_ORDER < now;
            if !is_old(changed) || self.target(&slug).is_some() {
                continue;
            }
            let Some(lease) = self.lease(&slug)? else {
                continue;
            };
            // Somebody may just have gone on with it.
            let is_left = self.shelf.order_changed(&slug).is_some_and(is_old);
            if is_left && let Some(mut pending) = self.shelf.pending(&slug)? {
                tracing::info!("the order for {slug} was left over, and is dropped");
                self.take_back(&slug, &mut pending).await;
            }
            if is_left {
                self.shelf.drop_pending(&slug)?;
            }
            lease.release()?;
        }
        Ok(())
    }

    /// Certificates of nodes and domains that are this store's no more: nobody renews them, and
    /// they have ended.
    fn clear_ended(&self) -> Result<(), Error> {
        let now = seconds(self.clock.now());
        for slug in self.shelf.slugs()? {
            if self.target(&slug).is_some() {
                continue;
            }
            let is_over = || -> Result<bool, Error> {
                let held = self.read(&slug, self.shelf.stamp(&slug))?;
                let is_own = matches!(held.record.class, Class::Api | Class::Node);
                let ends = held.pair.as_ref().map(|pair| seconds(pair.ends));
                Ok(is_own && ends.is_some_and(|ends| ends + KEPT_ENDED < now))
            };
            if self
                .held_ends(&slug)
                .is_none_or(|ends| ends + KEPT_ENDED >= now)
                || !is_over()?
            {
                continue;
            }
            let Some(lease) = self.lease(&slug)? else {
                continue;
            };
            if is_over()? {
                tracing::info!("the certificate {slug} has ended, and is no target any more");
                self.shelf.remove(&slug)?;
            }
            lease.release()?;
        }
        Ok(())
    }

    /// Leases whose holders died and whose things nobody has worked on since. One that can be
    /// taken is nobody's; its file goes when it is given back.
    fn clear_leases(&self) -> Result<(), Error> {
        let before = seconds(self.clock.now()).saturating_sub(KEPT_LEASE);
        let leases = self.shelf.leases_before(before)?;
        for path in leases.into_iter().take(AT_A_SWEEP) {
            if let Some(lease) = Lease::take(&path, &self.settings.owner, &self.clock)? {
                lease.release()?;
            }
        }
        Ok(())
    }
}
