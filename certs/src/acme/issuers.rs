//! Who certifies: what a directory says of itself for CAA records (RFC 8555, section 9.7.6; RFC
//! 8659), so that the zones of a node let it and nobody else.

use std::path::Path;

use bytes::Bytes;
use http::Request;
use instant_acme::{BodyWrapper, Error as AcmeError};
use serde::{Deserialize, Serialize};

use super::shelf::Shelf;
use super::{Acme, Failure};
use crate::clock::seconds;

/// For how long what was said holds.
const HOLDS: u64 = 24 * 3600;
/// Names that are taken over; directories have one to three.
const MOST: usize = 16;

/// What a directory said, and when.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuers {
    pub names: Vec<String>,
    pub asked: u64,
}

/// The part of a directory (RFC 8555, section 7.1.1) that says it.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    meta: Meta,
}

#[derive(Deserialize, Default)]
struct Meta {
    #[serde(default, rename = "caaIdentities")]
    identities: Vec<String>,
}

/// Who certifies, as a directory said last to whoever has this store; nothing where it never did.
pub fn issuers(store: &Path, directory: &str) -> Result<Vec<String>, crate::Error> {
    let shelf = Shelf::open(store, directory)?;
    Ok(shelf.issuers()?.unwrap_or_default().names)
}

impl Acme {
    /// Tell whoever wants to know what is written down.
    pub(super) fn tell_issuers(&self) -> Result<(), crate::Error> {
        if let (Some(tell), Some(issuers)) = (&self.issuers, self.shelf.issuers()?) {
            tell(&issuers.names);
        }
        Ok(())
    }

    /// Ask the directory where that was long ago, and tell.
    pub(super) async fn ask_issuers(&self) -> Result<(), Failure> {
        if self.issuers.is_none() {
            return Ok(());
        }
        let now = seconds(self.clock.now());
        let known = self.shelf.issuers()?;
        if known.is_none_or(|known| known.asked + HOLDS <= now) {
            let mut names = self.document().await?.meta.identities;
            names.truncate(MOST);
            names.sort_unstable();
            self.shelf.put_issuers(&Issuers { names, asked: now })?;
        }
        Ok(self.tell_issuers()?)
    }

    async fn document(&self) -> Result<Document, Failure> {
        let what = "read who certifies";
        let failed = |error: AcmeError| self.failed(what, error);
        let request = Request::get(&self.settings.directory)
            .body(BodyWrapper::<Bytes>::default())
            .map_err(|error| failed(error.into()))?;
        let mut answer = self.http.request(request).await.map_err(failed)?;
        let status = answer.parts.status;
        if !status.is_success() {
            let why = format!("it was answered {}", status.as_u16());
            return Err(failed(AcmeError::Other(why.into())));
        }
        let body = answer.body.into_bytes().await;
        let body = body.map_err(|error| failed(AcmeError::Other(error)))?;
        serde_json::from_slice(&body).map_err(|error| failed(error.into()))
    }
}
