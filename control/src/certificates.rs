//! What the node shows its visitors, as whoever has certificates tells: control knows none itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::control::Control;
use crate::store::notifications;
use crate::time::{self, DAY, Millis};

/// One that ends within this time is about to: what is renewed at two thirds of its lifetime has
/// weeks then, and what lives for days is renewed before.
const EXPIRING: Millis = 7 * DAY;
/// How often somebody looks whether one is about to end.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// A certificate that there is, or should be.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Certificate {
    names: Vec<String>,
    /// What it is for: `api`, `node`, `custom` or `file`.
    class: String,
    /// Where it comes from: `local`, `acme` or `files`.
    mode: String,
    /// When it ends; nothing where there is none yet.
    not_after: Option<String>,
    /// When it is to be replaced, or was.
    next_renewal: Option<String>,
    /// Why the last attempt at a new one failed.
    last_error: Option<String>,
    /// Whether it ends soon or has ended, and its time to be replaced is over.
    expiring: bool,
}

/// The same as it is told, in milliseconds since 1970.
#[derive(Debug, Clone)]
pub struct Told {
    pub names: Vec<String>,
    pub class: String,
    pub mode: String,
    pub ends: Option<Millis>,
    pub renews: Option<Millis>,
    pub error: Option<String>,
}

impl Told {
    fn seen(self, now: Millis) -> Certificate {
        let ends_soon = self.ends.is_some_and(|ends| ends - now < EXPIRING);
        // One that nobody here renews has no such time.
        let is_late = self.renews.is_none_or(|renews| renews < now);
        Certificate {
            expiring: ends_soon && (is_late || self.error.is_some()),
            names: self.names,
            class: self.class,
            mode: self.mode,
            not_after: self.ends.map(time::text),
            next_renewal: self.renews.map(time::text),
            last_error: self.error,
        }
    }
}

/// Look now and then, for as long as this is polled, and tell the administrator of what is about to
/// end.
pub async fn watch(control: Control) {
    loop {
        if let Err(error) = look(&control).await {
            tracing::warn!(error, "could not look for certificates that end soon");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Put a notice, and its event, into the administrator's inbox for each certificate that is about to
/// end; once for each.
pub async fn look(control: &Control) -> Result<(), String> {
    let Some(certificates) = control.config.certificates.clone() else {
        return Ok(());
    };
    let now = control.now();
    let mut listed = tokio::task::spawn_blocking(move || certificates.list(now))
        .await
        .map_err(|error| error.to_string())??;
    listed.retain(|certificate| certificate.expiring);
    control
        .store
        .write("tell of certificates that end soon", move |db| {
            notifications::certificates_end(db, &listed, now)
        })
        .await
        .map_err(|error| crate::auth::chain(&error))
}

impl Certificate {
    /// Which one it is: its names, and until when it is good.
    pub fn key(&self) -> String {
        format!("{} {}", self.names.join(" "), self.end())
    }

    fn end(&self) -> &str {
        self.not_after.as_deref().unwrap_or("an unknown time")
    }

    /// What to say of one that is about to end.
    pub fn warning(&self) -> String {
        let names = self.names.join(", ");
        let why = match &self.last_error {
            Some(error) => format!("its replacement failed: {error}"),
            None => "it was not replaced in time".to_owned(),
        };
        format!(
            "The certificate for {names} is good until {}; {why}. See `hoody certs list`",
            self.end()
        )
    }
}

type Tell = dyn Fn() -> Result<Vec<Told>, String> + Send + Sync;

/// Whoever knows which certificates there are; it may take a while.
#[derive(Clone)]
pub struct Certificates(Arc<Tell>);

impl Certificates {
    pub fn new(tell: impl Fn() -> Result<Vec<Told>, String> + Send + Sync + 'static) -> Self {
        Certificates(Arc::new(tell))
    }

    /// All of them as they are at `now`, those that end first at the front.
    pub fn list(&self, now: Millis) -> Result<Vec<Certificate>, String> {
        let mut told = (self.0)()?;
        told.sort_by_key(|it| it.ends.unwrap_or(Millis::MIN));
        Ok(told.into_iter().map(|told| told.seen(now)).collect())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_ends_soon_and_should_have_been_replaced_is_expiring() {
        let now = 1_800_000_000_000;
        for (ends, renews, error, expected) in [
            (Some(30 * DAY), Some(10 * DAY), None, false),
            (Some(5 * DAY), Some(-DAY), None, true),
            (Some(5 * DAY), Some(DAY), None, false), // one that lives for six days
            (Some(5 * DAY), Some(DAY), Some("the line is cut"), true),
            (Some(-DAY), Some(-2 * DAY), None, true),
            (Some(5 * DAY), None, None, true), // from files: nobody here replaces it
            (Some(30 * DAY), None, Some("no such key"), false),
            (None, Some(DAY), Some("the line is cut"), false), // there is none to end
        ] {
            let told = Told {
                names: vec!["api.a.test".to_owned()],
                class: "api".to_owned(),
                mode: "acme".to_owned(),
                ends: ends.map(|at| now + at),
                renews: renews.map(|at: Millis| now + at),
                error: error.map(str::to_owned),
            };
            let seen = told.clone().seen(now);
            assert_eq!(seen.expiring, expected, "{told:?}");
        }
    }
}
