//! One order, from its start or from wherever its last process left it, to a certificate.
//!
//! ```text
//! pending ── shown ── asked to look ── ready ── finalized ── valid
//!    │          what was shown is taken back, whatever the outcome
//!    └─ everything needed to go on is on the shelf before the directory hears of it
//! ```

use std::time::Duration;

use instant_acme::{
    AuthorizationStatus, ChallengeType, Error as AcmeError, Identifier, KeyAuthorization, NewOrder,
    Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use tokio::time::Instant;

use super::account::Open;
use super::lease::Lease;
use super::shelf::{Pending, is_token};
use super::{Acme, Failure, Way};
use crate::pair::Pair;

/// For one order, all of it. Directories look several times, minutes apart at worst.
const ORDER: Duration = Duration::from_secs(15 * 60);
/// One sitting of waiting for the directory; the lease is extended between two.
const SITTING: Duration = Duration::from_secs(20);
/// Authorizations that are looked at in one order: it has two names at most.
const AUTHORIZATIONS: usize = 16;

/// What an order is for.
pub(super) struct Task<'a> {
    pub slug: &'a str,
    pub names: &'a [String],
    pub way: Way,
    /// The certificate that it replaces, where the directory wants to know (RFC 9773, section 5).
    pub replaces: Option<&'a Pair>,
}

/// How one name is shown to be ours.
struct Proof {
    name: String,
    kind: ChallengeType,
    token: String,
    authorization: KeyAuthorization,
}

impl Acme {
    /// Order a certificate, under a lease.
    pub(super) async fn order(
        &self,
        open: &Open,
        task: &Task<'_>,
        lease: &mut Lease,
    ) -> Result<Pair, Failure> {
        let (mut order, mut pending) = self.begin(open, task).await?;
        let done = self.prove_and_finalize(&mut order, &mut pending, task, lease);
        let done = tokio::time::timeout(ORDER, Box::pin(done)).await;
        self.take_back(task.slug, &mut pending).await;
        match done {
            Ok(Ok(pem)) => {
                let pem = format!("{}{pem}", pending.key);
                let pair = Pair::read(pem.as_bytes(), pem.as_bytes()).map_err(Failure::Unusable)?;
                if !pair.is_for(task.names) {
                    return Err(Failure::Unusable(format!(
                        "it is for {}",
                        pair.names.join(", ")
                    )));
                }
                if !lease.is_held()? {
                    return Err(Failure::Busy);
                }
                self.shelf.put_pair(task.slug, &pem)?;
                self.shelf.drop_pending(task.slug)?;
                Ok(pair)
            }
            Ok(Err(failure)) => {
                if failure.ends_order() {
                    self.shelf.drop_pending(task.slug)?;
                }
                Err(failure)
            }
            Err(_) => Err(Failure::Slow),
        }
    }

    /// The order that a process before this one left, or a new one.
    async fn begin(&self, open: &Open, task: &Task<'_>) -> Result<(Order, Pending), Failure> {
        if let Some(mut pending) = self.shelf.pending(task.slug)? {
            if pending.account == open.account.id() && pending.names == task.names {
                match open.account.order(pending.url.clone()).await {
                    Ok(mut order) => {
                        if order.state().status != OrderStatus::Invalid {
                            tracing::info!("goes on with the order for {}", task.names.join(", "));
                            return Ok((order, pending));
                        }
                    }
                    // The directory has forgotten it.
                    Err(AcmeError::Api(_)) => {}
                    Err(error) => return Err(self.failed("look at an order", error)),
                }
            }
            self.take_back(task.slug, &mut pending).await;
            self.shelf.drop_pending(task.slug)?;
        }
        let names: Vec<Identifier> = task.names.iter().cloned().map(Identifier::Dns).collect();
        let order = self.new_order(open, task, &names).await?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        let pending = Pending {
            url: order.url().to_owned(),
            account: open.account.id().to_owned(),
            key: key
                .map_err(|error| Failure::Unusable(error.to_string()))?
                .serialize_pem(),
            names: task.names.to_vec(),
            shown: Vec::new(),
            laid: Vec::new(),
        };
        self.shelf.put_pending(task.slug, &pending)?;
        Ok((order, pending))
    }

    async fn new_order(
        &self,
        open: &Open,
        task: &Task<'_>,
        names: &[Identifier],
    ) -> Result<Order, Failure> {
        let replaced = task.replaces.and_then(|pair| pair.leaf().try_into().ok());
        if let Some(replaced) = replaced {
            match open
                .account
                .new_order(&NewOrder::new(names).replaces(replaced))
                .await
            {
                Ok(order) => return Ok(order),
                // The directory has none, or a certificate of its own mind: it can do without.
                Err(AcmeError::Unsupported(_) | AcmeError::Other(_)) => {}
                Err(AcmeError::Api(problem))
                    if problem.r#type.as_deref()
                        == Some("urn:ietf:params:acme:error:alreadyReplaced")
                        || problem.r#type.as_deref()
                            == Some("urn:ietf:params:acme:error:malformed") => {}
                Err(error) => return Err(self.order_failed(open, error)),
            }
        }
        let new = open.account.new_order(&NewOrder::new(names)).await;
        new.map_err(|error| self.order_failed(open, error))
    }

    fn order_failed(&self, open: &Open, error: AcmeError) -> Failure {
        match Acme::is_account_lost(&error) {
            true => Failure::AccountLost {
                id: open.account.id().to_owned(),
                why: error.to_string(),
            },
            false => self.failed("order", error),
        }
    }

    /// From whichever state the order is in to the chain.
    async fn prove_and_finalize(
        &self,
        order: &mut Order,
        pending: &mut Pending,
        task: &Task<'_>,
        lease: &mut Lease,
    ) -> Result<String, Failure> {
        if order.state().status == OrderStatus::Pending {
            self.prove(order, pending, task, lease).await?;
            let status = self.until_ready(order, lease).await?;
            if status == OrderStatus::Invalid {
                return Err(self.reasons(order).await);
            }
        }
        if order.state().status == OrderStatus::Ready {
            let csr = signing_request(&pending.key, task.names)?;
            order
                .finalize_csr(&csr)
                .await
                .map_err(|error| self.failed("finalize", error))?;
        }
        self.until_issued(order, lease).await
    }

    /// Show every name that the directory does not know to be ours, then ask it to look.
    async fn prove(
        &self,
        order: &mut Order,
        pending: &mut Pending,
        task: &Task<'_>,
        lease: &mut Lease,
    ) -> Result<(), Failure> {
        let mut proofs = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(next) = authorizations.next().await {
            let mut next = next.map_err(|error| self.failed("look at an authorization", error))?;
            match next.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                status => {
                    return Err(Failure::Proof {
                        name: next.identifier().to_string(),
                        why: format!("its authorization is {status:?}"),
                    });
                }
            }
            let identifier = next.identifier();
            let name = match identifier.identifier {
                Identifier::Dns(name) => name.to_ascii_lowercase(),
                other => format!("{other:?}"),
            };
            let kind = task.way.kind(identifier.wildcard);
            let offered: Vec<String> = next
                .challenges
                .iter()
                .map(|challenge| format!("{:?}", challenge.r#type))
                .collect();
            let Some(challenge) = next.challenge(kind.clone()) else {
                return Err(Failure::Proof {
                    name,
                    why: format!(
                        "the directory offers no {kind:?} for it, only {}",
                        offered.join(", ")
                    ),
                });
            };
            proofs.push(Proof {
                name,
                kind,
                token: challenge.token.clone(),
                authorization: challenge.key_authorization(),
            });
            if proofs.len() == AUTHORIZATIONS {
                break;
            }
        }
        for proof in &proofs {
            self.show(task.slug, pending, proof).await?;
            // It may take as long as others take to see it.
            if !lease.extend()? {
                return Err(Failure::Busy);
            }
        }
        let mut authorizations = order.authorizations();
        while let Some(next) = authorizations.next().await {
            let mut next = next.map_err(|error| self.failed("look at an authorization", error))?;
            if next.status != AuthorizationStatus::Pending {
                continue;
            }
            let kind = task.way.kind(next.identifier().wildcard);
            if let Some(mut challenge) = next.challenge(kind) {
                challenge
                    .set_ready()
                    .await
                    .map_err(|error| self.failed("ask for a look", error))?;
            }
        }
        Ok(())
    }

    /// Put one answer where the directory looks. What is written down first can be taken back by
    /// whoever comes after.
    async fn show(&self, slug: &str, pending: &mut Pending, proof: &Proof) -> Result<(), Failure> {
        let Proof { name, token, .. } = proof;
        if !is_token(token) {
            return Err(Failure::Proof {
                name: name.clone(),
                why: "the directory's token is none".to_owned(),
            });
        }
        match proof.kind {
            ChallengeType::Dns01 => {
                let dns = self.dns.as_ref();
                let dns = dns.ok_or_else(|| Failure::NoDns { name: name.clone() })?;
                let record = format!("_acme-challenge.{name}");
                let value = proof.authorization.dns_value();
                pending.shown.push((record.clone(), value.clone()));
                self.shelf.put_pending(slug, pending)?;
                dns.present(&record, &value).await?;
            }
            ChallengeType::Http01 => {
                let answer = proof.authorization.as_str();
                pending
                    .laid
                    .push(self.challenges.lay_http(name, token, answer)?);
                self.shelf.put_pending(slug, pending)?;
            }
            _ => {
                let digest = proof.authorization.digest();
                pending
                    .laid
                    .push(self.challenges.lay_alpn(name, digest.as_ref())?);
                self.shelf.put_pending(slug, pending)?;
            }
        }
        Ok(())
    }

    /// Take back what was shown. What cannot be is tried again with the next order.
    pub(super) async fn take_back(&self, slug: &str, pending: &mut Pending) {
        let mut left = Vec::new();
        for (record, value) in std::mem::take(&mut pending.shown) {
            let taken = match &self.dns {
                Some(dns) => dns.withdraw(&record, &value).await,
                None => Ok(()),
            };
            if let Err(error) = taken {
                tracing::warn!(%error, "a TXT record stays for now");
                left.push((record, value));
            }
        }
        pending.shown = left;
        for file in std::mem::take(&mut pending.laid) {
            if let Err(error) = self.challenges.take_away(&file) {
                tracing::warn!(error = crate::chain(&error), "an answer stays for now");
            }
        }
        if let Err(error) = self.shelf.put_pending(slug, pending) {
            tracing::warn!(
                error = crate::chain(&error),
                "could not write down an order"
            );
        }
    }

    async fn until_ready(
        &self,
        order: &mut Order,
        lease: &mut Lease,
    ) -> Result<OrderStatus, Failure> {
        loop {
            match order.poll_ready(&sitting()).await {
                Ok(status) => return Ok(status),
                Err(AcmeError::Timeout(next)) => self.sit(next, lease).await?,
                Err(AcmeError::Api(problem)) if order.state().status == OrderStatus::Invalid => {
                    let reasons = self.reasons(order).await;
                    return Err(match reasons {
                        Failure::Proof { .. } => reasons,
                        _ => self.failed("prove its names", AcmeError::Api(problem)),
                    });
                }
                Err(error) => return Err(self.failed("wait for an order", error)),
            }
        }
    }

    async fn until_issued(&self, order: &mut Order, lease: &mut Lease) -> Result<String, Failure> {
        loop {
            match order.poll_certificate(&sitting()).await {
                Ok(chain) => return Ok(chain),
                Err(AcmeError::Timeout(next)) => self.sit(next, lease).await?,
                Err(error) => return Err(self.failed("wait for a certificate", error)),
            }
        }
    }

    /// Between two sittings: say that we live, and wait as long as the directory asked for.
    async fn sit(
        &self,
        next: Option<std::time::Instant>,
        lease: &mut Lease,
    ) -> Result<(), Failure> {
        if let Some(next) = next {
            let next = Instant::from_std(next);
            while Instant::now() < next {
                if !lease.extend()? {
                    return Err(Failure::Busy);
                }
                tokio::time::sleep_until(next.min(Instant::now() + SITTING)).await;
            }
        }
        match lease.extend()? {
            true => Ok(()),
            false => Err(Failure::Busy),
        }
    }

    /// Why an order is invalid: the errors of its challenges.
    async fn reasons(&self, order: &mut Order) -> Failure {
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut next)) = authorizations.next().await {
            if next.refresh().await.is_err() {
                continue;
            }
            let failed = next.challenges.iter().find_map(|it| it.error.as_ref());
            if let Some(problem) = failed {
                return Failure::Proof {
                    name: next.identifier().to_string(),
                    why: words(problem),
                };
            }
        }
        Failure::Refused {
            what: "the order",
            kind: None,
            why: "it does not say why".to_owned(),
        }
    }
}

fn sitting() -> RetryPolicy {
    RetryPolicy::new()
        .initial_delay(Duration::from_millis(250))
        .backoff(1.5)
        .timeout(SITTING)
}

/// What a directory says, without the library's words around it.
pub(super) fn words(problem: &Problem) -> String {
    let detail = problem.detail.as_deref().unwrap_or("without a reason");
    match problem.r#type.as_deref() {
        Some(kind) => format!("{detail} ({})", kind.rsplit(':').next().unwrap_or(kind)),
        None => detail.to_owned(),
    }
}

fn signing_request(key: &str, names: &[String]) -> Result<Vec<u8>, Failure> {
    let make = || {
        let key = KeyPair::from_pem(key)?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&key)?.der().to_vec())
    };
    make().map_err(|error: rcgen::Error| Failure::Unusable(error.to_string()))
}
