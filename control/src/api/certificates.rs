//! The certificates of the node, for its administrator. The contract has nothing of the kind: this
//! is an addition of this program.

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::auth::Principal;
use crate::auth::permissions::Permission;
use crate::certificates::Certificate;
use crate::control::Control;

/// The node's certificates: names, until when, when they are replaced, what failed last; for an
/// administrator who is logged in.
///
/// One that ends within a week or has ended, although it should have been replaced by then, is
/// `expiring`.
#[derive(Deserialize, JsonSchema)]
pub struct List {}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/certificates").named("listNodeCertificates");
    type Service = Control;
    type Reply = Vec<Certificate>;

    async fn run(self, control: Control, call: Call) -> Result<Vec<Certificate>, Fault> {
        let principal = Principal::who_may(&call, Permission::ReadAccount)?;
        if !principal.user.is_admin || principal.token().is_some() {
            return Err(Fault::forbidden(
                "certificates of the node are for its administrator, who has to log in: an auth \
                 token does not do",
            ));
        }
        let Some(certificates) = control.config.certificates.clone() else {
            return Ok(Vec::new());
        };
        let now = control.now();
        let listed = tokio::task::spawn_blocking(move || certificates.list(now)).await;
        let why = match listed {
            Ok(Ok(certificates)) => return Ok(certificates),
            Ok(Err(why)) => why,
            Err(error) => error.to_string(),
        };
        tracing::error!(error = why, "could not list certificates");
        Err(Fault::internal(
            "the certificates of the node could not be listed; its log says why",
        ))
    }
}
