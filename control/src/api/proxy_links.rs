//! Signed links: URLs that open one service of a container for a while, past its gates.

use kit::{Call, Fault, Operation, Route};
use routes::access::{ANY, Program};
use routes::address::LAST_INDEX;
use routes::link::{Link as Signed, Methods, PARAM, REVOKED};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::containers::invalid;
use super::proxy_permissions::{OfContainer, Scope, settled};
use super::text::{Comment, IdText, Number};
use super::tokens::Expiry;
use crate::auth::permissions::Permission;
use crate::auth::{Principal, broken};
use crate::control::Control;
use crate::edge;
use crate::store::links;
use crate::time::{self, DAY, HOUR, Millis, SECOND};
use crate::words;

/// How long a link opens where nothing is said.
const USUAL: Millis = HOUR;
/// The longest that a link opens: whoever needs more makes a group.
const MOST: Millis = 366 * DAY;

/// A link. The URL is shown once, when the link is made.
#[derive(Serialize, JsonSchema)]
pub struct Link {
    id: String,
    container_id: String,
    /// The service, or `http` or `https`.
    service: String,
    /// Its index, or the port.
    index: u32,
    /// Null for all.
    methods: Option<Vec<String>>,
    /// Whether it opens what changes nothing, and no more.
    read_only: bool,
    /// Only this path and what is below it.
    path_prefix: Option<String>,
    comment: Option<String>,
    created_by: String,
    created_at: String,
    expires_at: String,
    revoked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

impl Link {
    fn of(link: &links::Link) -> Link {
        let methods = methods(link);
        Link {
            id: link.id.to_string(),
            container_id: link.container.to_string(),
            service: link.service.clone(),
            index: link.instance,
            methods: link.methods.clone(),
            read_only: methods.is_read_only(),
            path_prefix: link.prefix.clone(),
            comment: link.comment.clone(),
            created_by: link.created_by.clone(),
            created_at: time::text(link.created_at),
            expires_at: time::text(link.expires_at),
            revoked: link.revoked_at.is_some(),
            url: None,
        }
    }
}

fn methods(link: &links::Link) -> Methods {
    let named = link.methods.as_ref().map(|names| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Methods::named(&names)
    });
    named.and_then(Result::ok).unwrap_or(Methods::ALL)
}

#[derive(Serialize, JsonSchema)]
pub struct Links {
    links: Vec<Link>,
    count: usize,
}

/// The links of a container that have not expired, newest first.
#[derive(Deserialize, JsonSchema)]
pub struct List {
    id: IdText,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/containers/{id}/proxy/links")
        .named("listContainerProxyLinks")
        .cli("containers proxy links list");
    type Service = Control;
    type Reply = Links;

    async fn run(self, control: Control, call: Call) -> Result<Links, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersRead)?;
        let (id, now) = (self.id.0, control.now());
        let found = control
            .store
            .read("list links", move |db| {
                if let Err(fault) = OfContainer::find(db, &principal, id, false)? {
                    return Ok(Err(fault));
                }
                links::of_container(db, id, now).map(Ok)
            })
            .await
            .map_err(broken)?;
        let links: Vec<Link> = found?.iter().map(Link::of).collect();
        Ok(Links {
            count: links.len(),
            links,
        })
    }
}

/// Make a URL that opens one service of a container for a while, whatever its gates ask for.
///
/// Whoever has the URL may use it until it expires or is revoked. It is shown once.
#[derive(Deserialize, JsonSchema)]
pub struct Create {
    id: IdText,
    /// The service, such as terminal or files; http or https with a port.
    service: String,
    /// Its index, or the port of http and https; 1, 80 or 443 where it is not said.
    index: Option<Number<0, LAST_INDEX>>,
    /// When it ends: an RFC 3339 or Unix time.
    expires_at: Option<Expiry>,
    /// The same, in seconds from now; an hour where neither is said.
    expires_in: Option<Number<1, 31_622_400>>,
    /// Only GET, HEAD and OPTIONS.
    #[serde(default)]
    read_only: bool,
    /// Only these methods.
    methods: Option<Vec<String>>,
    /// Only this path and what is below it.
    path_prefix: Option<String>,
    /// What it is for.
    comment: Option<Comment>,
}

impl Operation for Create {
    const ROUTE: Route = Route::post("/api/v1/containers/{id}/proxy/links")
        .named("createContainerProxyLink")
        .cli("containers proxy links create")
        .status(201)
        .says("Link created");
    type Service = Control;
    type Reply = Link;

    async fn run(self, control: Control, call: Call) -> Result<Link, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersUpdate)?;
        let (id, now) = (self.id.0, control.now());
        let service = match Program::parse(&self.service) {
            Some(known) if ![ANY, "ssh"].contains(&known.as_str()) => known.as_str().to_owned(),
            _ => {
                let message = format!("there is no service `{}` that speaks HTTP", self.service);
                return Err(invalid("service", message));
            }
        };
        let instance = self.index.map_or(
            match service.as_str() {
                "http" => 80,
                "https" => 443,
                _ => 1,
            },
            |index| index.0,
        );
        let door = format!("{service}-{instance}");
        if door.parse::<routes::address::Door>().is_err() {
            return Err(invalid("index", format!("`{service}` has no {instance}")));
        }
        let named = match &self.methods {
            None => Methods::ALL,
            Some(names) if names.is_empty() => {
                return Err(invalid("methods", "must name a method, or be left out"));
            }
            Some(names) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                Methods::named(&names).map_err(|error| invalid("methods", error.to_string()))?
            }
        };
        let allowed = match self.read_only {
            true => named.read_only(),
            false => named,
        };
        if allowed.names().is_some_and(|names| names.is_empty()) {
            let message = "none of the methods is left of a link that is read-only";
            return Err(invalid("methods", message));
        }
        let asked = match (self.expires_at, self.expires_in) {
            (Some(_), Some(_)) => {
                return Err(invalid(
                    "expires_in",
                    "says the same as `expires_at`; name one",
                ));
            }
            (Some(at), None) => at.at(now)?,
            (None, seconds) => now + seconds.map_or(USUAL, |n| Millis::from(n.0) * SECOND),
        };
        if asked > now + MOST {
            let message = "is more than a year ahead; make a group for those who come for longer";
            return Err(invalid("expires_at", message));
        }
        let expires_at = asked / SECOND * SECOND;
        if expires_at <= now {
            return Err(invalid("expires_at", "is in the past"));
        }
        let kept = links::Link {
            id: words::id(),
            container: id,
            service,
            instance,
            methods: allowed
                .names()
                .map(|names| names.iter().map(|&name| name.to_owned()).collect()),
            prefix: self
                .path_prefix
                .filter(|prefix| !matches!(&**prefix, "" | "/")),
            comment: self.comment.map(Comment::into_string),
            created_by: principal.label(),
            created_at: now,
            expires_at,
            revoked_at: None,
        };
        let fresh = hex::encode(rand::random::<[u8; 32]>());
        let publisher = control.clone();
        let made = control
            .store
            .write_then(
                "make a link",
                move |db| {
                    let subject = match OfContainer::find(db, &principal, id, true)? {
                        Ok(subject) => subject,
                        Err(fault) => return Ok(Err(fault)),
                    };
                    links::expire(db, now)?;
                    // So that all of them can be revoked.
                    if links::of_container(db, id, now)?.len() >= REVOKED {
                        return Ok(Err(Fault::conflict(format!(
                            "a container may have {REVOKED} links that have not expired, and this one has them"
                        ))
                        .code("LIMIT_REACHED")));
                    }
                    let key = links::key(db, id, &fresh)?;
                    let signed = Signed {
                        id: kept.id,
                        container: id,
                        service: kept.service.clone(),
                        instance,
                        expires: (kept.expires_at / SECOND).cast_unsigned(),
                        methods: allowed,
                        prefix: kept.prefix.clone(),
                    };
                    let token = match signed.mint(&key) {
                        Ok(token) => token,
                        Err(error) => return Ok(Err(invalid("path_prefix", error.to_string()))),
                    };
                    links::insert(db, &kept)?;
                    let edge = edge::of_container(db, id, now)?;
                    Ok(Ok((subject, kept, token, edge)))
                },
                move |made| {
                    if let Ok((_, _, _, edge)) = made {
                        publisher.publisher.set_edge(id, edge.clone());
                    }
                },
            )
            .await
            .map_err(broken)?;
        let (subject, kept, token, _) = made?;
        settled(&control).await;
        let config = &control.config;
        let host = format!(
            "{}-{id}-{}-{}.{}.containers.{}",
            subject.project, kept.service, kept.instance, config.node, config.domain
        );
        let path = kept.prefix.as_deref().unwrap_or("/");
        let url = format!("{}{path}?{PARAM}={token}", config.url(&host));
        Ok(Link {
            url: Some(url),
            ..Link::of(&kept)
        })
    }
}

/// Revoke a link: it opens nothing from now on, and what it holds open is closed.
#[derive(Deserialize, JsonSchema)]
pub struct Delete {
    id: IdText,
    #[serde(rename = "linkId")]
    link: IdText,
}

impl Operation for Delete {
    const ROUTE: Route = Route::delete("/api/v1/containers/{id}/proxy/links/{linkId}")
        .named("deleteContainerProxyLink")
        .cli("containers proxy links delete")
        .says("Link revoked");
    type Service = Control;
    type Reply = ();

    async fn run(self, control: Control, call: Call) -> Result<(), Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersUpdate)?;
        let (id, link, now) = (self.id.0, self.link.0, control.now());
        let publisher = control.clone();
        let gone = control
            .store
            .write_then(
                "revoke a link",
                move |db| {
                    if let Err(fault) = OfContainer::find(db, &principal, id, true)? {
                        return Ok(Err(fault));
                    }
                    if links::find(db, id, link, now)?.is_none() {
                        return Ok(Err(Fault::not_found(format!(
                            "no link {link}; list them with `hoody containers proxy links list`"
                        ))
                        .code("NOT_FOUND")));
                    }
                    links::revoke(db, link, now)?;
                    edge::of_container(db, id, now).map(Ok)
                },
                move |gone| {
                    if let Ok(edge) = gone {
                        publisher.publisher.set_edge(id, edge.clone());
                    }
                },
            )
            .await
            .map_err(broken)?;
        gone?;
        settled(&control).await;
        Ok(())
    }
}
