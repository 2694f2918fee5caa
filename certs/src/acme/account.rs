//! The account at a directory: made once, kept, and made anew where the directory has lost it.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AccountCredentials, Error as AcmeError, ExternalAccountKey, HttpClient, NewAccount,
    Problem,
};
use serde::{Deserialize, Serialize};

use super::directory::{Heard, Told};
use super::lease::Lease;
use super::{Acme, Failure};

/// How long to wait for another process that is making the account.
const OTHERS: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(200);
/// The lease of whoever makes or changes the account.
const LEASE: &str = "account";

/// The account as it is kept.
#[derive(Serialize, Deserialize)]
pub struct Kept {
    contacts: Vec<String>,
    /// The id of the external account that it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    external: Option<String>,
    credentials: AccountCredentials,
}

/// An account that can be asked with.
pub struct Open {
    pub account: Account,
    pub told: Told,
}

impl Acme {
    /// The account, made where there is none.
    pub(super) async fn account(&self) -> Result<Open, (Failure, Told)> {
        let (http, told) = Heard::new(self.http.clone());
        match self.open_account(http).await {
            Ok(account) => Ok(Open { account, told }),
            Err(failure) => Err((failure, told)),
        }
    }

    async fn open_account(&self, http: Heard) -> Result<Account, Failure> {
        let deadline = tokio::time::Instant::now() + OTHERS;
        let http = Arc::new(http);
        loop {
            if let Some(kept) = self.shelf.account::<Kept>()? {
                let contacts = self.settings.contacts.clone();
                let is_changed = kept.contacts != contacts;
                let builder = Account::builder_with_http(Box::new(Shared(http.clone())));
                let account = builder
                    .from_credentials(kept.credentials)
                    .await
                    .map_err(|error| self.failed("open the account", error))?;
                if is_changed {
                    self.change_contacts(&account, contacts).await?;
                }
                return Ok(account);
            }
            if let Some(lease) = self.lease(LEASE)? {
                // Somebody may have made it between the look and the lease.
                if self.shelf.account::<Kept>()?.is_some() {
                    lease.release()?;
                    continue;
                }
                let made = self.make_account(http).await;
                lease.release()?;
                return made;
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(Failure::Busy);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn make_account(&self, http: Arc<Heard>) -> Result<Account, Failure> {
        let settings = &self.settings;
        let contacts: Vec<&str> = settings.contacts.iter().map(String::as_str).collect();
        let new = NewAccount {
            contact: &contacts,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let external = settings.external.as_ref();
        let key = external.map(|it| ExternalAccountKey::new(it.id.clone(), &it.key));
        let builder = Account::builder_with_http(Box::new(Shared(http)));
        let (account, credentials) = builder
            .create(&new, settings.directory.clone(), key.as_ref())
            .await
            .map_err(|error| self.failed("make an account", error))?;
        self.shelf.put_account(&Kept {
            contacts: settings.contacts.clone(),
            external: external.map(|it| it.id.clone()),
            credentials,
        })?;
        tracing::info!(
            "made the account {} at {}",
            account.id(),
            settings.directory
        );
        Ok(account)
    }

    async fn change_contacts(
        &self,
        account: &Account,
        contacts: Vec<String>,
    ) -> Result<(), Failure> {
        let Some(lease) = self.lease(LEASE)? else {
            return Ok(()); // somebody else is at it
        };
        let texts: Vec<&str> = contacts.iter().map(String::as_str).collect();
        let changed = account
            .update_contacts(&texts)
            .await
            .map_err(|error| self.failed("change the account's contacts", error));
        if changed.is_ok()
            && let Some(kept) = self.shelf.account::<Kept>()?
        {
            self.shelf.put_account(&Kept { contacts, ..kept })?;
        }
        lease.release()?;
        changed
    }

    /// Give the account another key (RFC 8555, section 7.3.5). The old one is good for nothing
    /// afterwards.
    pub async fn roll_over(&self) -> Result<(), Failure> {
        let lease = self.lease(LEASE)?.ok_or(Failure::Busy)?;
        let rolled = match self.shelf.account::<Kept>()? {
            Some(_) => self.roll_over_alone().await,
            None => Err(Failure::NoAccount),
        };
        lease.release()?;
        rolled
    }

    async fn roll_over_alone(&self) -> Result<(), Failure> {
        let mut open = self.account().await.map_err(|(failure, _)| failure)?;
        match open.account.update_key().await {
            Ok(credentials) => {
                let kept = self.shelf.account::<Kept>()?.ok_or(Failure::NoAccount)?;
                self.shelf.put_account(&Kept {
                    credentials,
                    ..kept
                })?;
                Ok(())
            }
            Err(error) => Err(self.failed("change the account's key", error)),
        }
    }

    /// Whether the directory says that there is no such account any more, or none that may order.
    pub(super) fn is_account_lost(error: &AcmeError) -> bool {
        let AcmeError::Api(Problem { r#type, .. }) = error else {
            return false;
        };
        matches!(
            r#type.as_deref(),
            Some(
                "urn:ietf:params:acme:error:accountDoesNotExist"
                    | "urn:ietf:params:acme:error:unauthorized"
            )
        )
    }

    /// Lay the account aside, so that the next look makes another.
    pub(super) fn lose_account(&self, id: &str) -> Result<(), Failure> {
        tracing::warn!("the directory does not take the account {id} any more; making another");
        Ok(self.shelf.lose_account()?)
    }

    pub(super) fn lease(&self, name: &str) -> Result<Option<Lease>, crate::Error> {
        Lease::take(&self.shelf.lease(name), &self.settings.owner, &self.clock)
    }
}

/// The builder wants a client of its own.
struct Shared(Arc<Heard>);

impl HttpClient for Shared {
    fn request(
        &self,
        request: http::Request<instant_acme::BodyWrapper<bytes::Bytes>>,
    ) -> std::pin::Pin<
        Box<dyn Future<Output = Result<instant_acme::BytesResponse, AcmeError>> + Send>,
    > {
        self.0.request(request)
    }
}
