//! May this visitor pass the gates of a container?
//!
//! Containers without rules never come here. For the others, what a request brings (credentials,
//! the proxy's cookie, a signed link) is held against the rules of the container and of its
//! project, as the table has them now. The same is done again for an exchange under way when the
//! rules have changed: see [`crate::lines`].

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use routes::Id;
use routes::access::{
    Admission, Carrier, Challenge, Decision, Denial, Gate, Identity, Policy, decide, enabled,
};
use routes::jwt::LEEWAY;
use routes::link::{self, Link, Links, Misuse, Use};
use routes::table::{Place, Table};

use crate::evidence::{Brought, Offer, TOKEN, cookies};
use crate::query;
use crate::refusals::Refusal;
use crate::session::{self, Keys, Scope, Session};

/// A cookie lives no longer than browsers let it: 400 days.
const COOKIE_LIFE: u64 = 400 * 24 * 3600;

/// What is said about one container at one moment.
#[derive(Debug, Clone)]
pub struct Rules {
    project: Option<Arc<Policy>>,
    container: Option<Arc<Policy>>,
    links: Option<Arc<Links>>,
}

impl Rules {
    /// The rules for a container; nothing where anybody may pass.
    pub fn of(place: &Place, table: &Table) -> Option<Rules> {
        let project = match table.projects.is_empty() {
            true => None,
            false => table.projects.get(&place.project),
        };
        if place.access.is_none() && project.is_none() {
            return None;
        }
        Some(Rules {
            project: project.cloned(),
            container: place.access.clone(),
            links: place.links.clone(),
        })
    }

    /// Whether both say the same. What is shared need not be read.
    fn same(&self, other: &Rules) -> bool {
        fn equal<T: PartialEq>(one: &Option<Arc<T>>, other: &Option<Arc<T>>) -> bool {
            match (one, other) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
                (None, None) => true,
                _ => false,
            }
        }
        equal(&self.project, &other.project)
            && equal(&self.container, &other.container)
            && equal(&self.links, &other.links)
    }

    /// The parameters in which a credential may come: their values are not for the log.
    pub fn params(&self) -> Vec<String> {
        let mut names = Vec::new();
        for policy in [&self.container, &self.project].into_iter().flatten() {
            let gates = policy.groups.iter().flat_map(|group| &group.ways).flatten();
            for gate in gates {
                let carriers = match gate {
                    Gate::Token(token) => std::slice::from_ref(&token.carrier),
                    Gate::Jwt(jwt) => &jwt.sources[..],
                    Gate::Password(_) | Gate::Ip(_) => &[],
                };
                for carrier in carriers {
                    if let Carrier::Param(name) = carrier
                        && !names.contains(name)
                    {
                        names.push(name.clone());
                    }
                }
            }
        }
        names
    }
}

/// One request as the gates see it.
#[derive(Debug, Clone)]
pub struct Visitor {
    pub container: Id,
    pub service: &'static str,
    pub instance: u32,
    pub address: IpAddr,
    pub method: String,
    /// As it was sent.
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    /// Whether it came over TLS.
    pub secure: bool,
    /// The scheme and authority that were asked for: the origin of the page, if it is one's own.
    pub origin: String,
    /// Whether a page is opened.
    pub navigates: bool,
    /// Whether it asks to become a WebSocket or the like.
    pub upgrade: bool,
}

impl Visitor {
    pub fn scope(&self) -> Scope<'_> {
        Scope {
            container: self.container,
            service: self.service,
            instance: self.instance,
        }
    }

    pub fn target(&self) -> String {
        match self.query.is_empty() {
            true => self.path.clone(),
            false => format!("{}?{}", self.path, self.query),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether a browser sends it for a page, not for its user.
    pub fn is_scripted(&self) -> bool {
        self.header("sec-fetch-mode").is_some()
    }

    /// Whether a page of this very origin sends it, as far as a browser tells.
    pub fn is_same_origin(&self) -> bool {
        match self.header("origin") {
            Some(origin) => origin.eq_ignore_ascii_case(&self.origin),
            None => self.header("sec-fetch-site") == Some("same-origin"),
        }
    }

    /// What a browser asks before a page of another origin may send this: the method and the
    /// headers that it names (CORS). It carries no credential, by design.
    pub fn preflight(&self) -> Option<(&str, &str)> {
        let method = self.header("access-control-request-method")?;
        let headers = self.header("access-control-request-headers");
        let asks = self.method == "OPTIONS" && self.header("origin").is_some();
        asks.then_some((method, headers.unwrap_or_default()))
    }

    /// Whether it is no browser's, or one's that was sent here from this very origin.
    pub fn is_from_here(&self) -> bool {
        match (self.header("origin"), self.header("sec-fetch-site")) {
            (Some(_), _) => self.is_same_origin(),
            (None, Some(site)) => matches!(site, "same-origin" | "none"),
            (None, None) => true,
        }
    }

    /// Whether it could change something, or become something that could.
    fn is_unsafe(&self) -> bool {
        self.upgrade || !matches!(self.act(), "GET" | "HEAD" | "OPTIONS")
    }

    /// The method by what the request does: `files` extracts an archive when it is asked with GET,
    /// which a link that only reads must not do, nor a page of another site.
    fn act(&self) -> &str {
        match self.service == "files" && query::names(&self.query, &["extract", "extract_file"]) {
            true => "POST",
            false => &self.method,
        }
    }

    fn brought<'a>(
        &'a self,
        now: u64,
        offer: Option<&'a Offer>,
        session: Option<&'a Session>,
        link: Option<&'a str>,
    ) -> Brought<'a> {
        Brought {
            address: self.address,
            now,
            headers: &self.headers,
            query: &self.query,
            offer,
            session,
            link,
        }
    }

    /// End the session that it comes with.
    pub async fn sign_out(&self, keys: &Keys, now: u64) {
        let sent = cookies(&self.headers, keys.name(self.secure));
        keys.sign_out(sent, self.scope(), now).await;
    }

    fn session(&self, keys: &Keys, now: u64) -> Option<Session> {
        let sent = cookies(&self.headers, keys.name(self.secure));
        keys.unseal(sent, self.scope(), now)
    }

    /// The link of a token, if it is good for this request.
    fn link(&self, token: &str, rules: &Rules, now: u64) -> Result<Link, Misuse> {
        let links = rules.links.as_deref().ok_or(Misuse::Elsewhere)?;
        let link = Link::verify(token, &links.key).map_err(|_| Misuse::Elsewhere)?;
        links.stands(&link, now)?;
        link.allows(&Use {
            container: self.container,
            service: self.service,
            instance: self.instance,
            method: self.act(),
            path: &self.path,
            now,
        })?;
        Ok(link)
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Outcome {
    Pass(Box<Passed>),
    /// A credential in the address becomes a cookie: set it, and go on without these parameters.
    Exchange {
        session: Session,
        without: Vec<String>,
    },
    Challenge(Challenge),
    Refuse(Refusal),
}

/// Which credential was tried on a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// None, or one that was proved before.
    Nothing,
    Right,
    Wrong,
}

/// With what somebody passed.
#[derive(Debug)]
pub struct Passed {
    identity: Option<Identity>,
    consumed: Vec<Carrier>,
    offer: Option<Offer>,
    session: Option<Session>,
    link: Option<String>,
    until: Option<u64>,
}

impl Passed {
    /// The right to go on that follows from it.
    pub fn go_on(self, visitor: Visitor, rules: Rules) -> Pass {
        let exchange = Exchange {
            visitor,
            offer: self.offer,
            session: self.session,
            link: self.link,
            until: self.until,
            rules: Mutex::new(rules),
        };
        Pass {
            identity: self.identity,
            consumed: self.consumed,
            exchange: Arc::new(exchange),
        }
    }
}

/// The right to go on to the container, and what is kept back from it.
#[derive(Debug)]
pub struct Pass {
    pub identity: Option<Identity>,
    pub consumed: Vec<Carrier>,
    pub exchange: Arc<Exchange>,
}

/// What is needed to decide again about a request that passed.
#[derive(Debug)]
pub struct Exchange {
    visitor: Visitor,
    offer: Option<Offer>,
    session: Option<Session>,
    link: Option<String>,
    /// When what it passed with ends, in seconds since 1970.
    until: Option<u64>,
    /// What it was judged by last.
    rules: Mutex<Rules>,
}

/// Decide about a request.
pub fn judge(rules: &Rules, visitor: &Visitor, keys: &Keys, now: u64) -> (Outcome, Tried) {
    let (project, container) = (rules.project.as_deref(), rules.container.as_deref());
    if !enabled(project, container) {
        return (Outcome::Refuse(Refusal::AccessDenied), Tried::Nothing);
    }
    let session = visitor.session(keys, now);
    // Where no header can be set, a credential may come in the address.
    let offer = match visitor.navigates || visitor.upgrade {
        true => Offer::of_query(&visitor.query),
        false => None,
    };
    let ask = |link: Option<&str>| {
        let brought = visitor.brought(now, offer.as_ref(), session.as_ref(), link);
        decide(
            project,
            container,
            visitor.service,
            visitor.instance,
            &brought,
        )
    };
    let mut decision = ask(None);
    // A link helps where nothing else does.
    let token = query::value(&visitor.query, link::PARAM);
    let mut held = None;
    let mut misuse = None;
    if !matches!(decision, Decision::Allow(_)) {
        let remembered = session.as_ref().and_then(|session| session.link.as_deref());
        for (text, addressed) in [(token.as_deref(), true), (remembered, false)] {
            let Some(text) = text else { continue };
            match visitor.link(text, rules, now) {
                Ok(link) => {
                    decision = ask(Some(&link.id.to_string()));
                    held = Some((link, text.to_owned(), addressed));
                    break;
                }
                Err(why) => misuse = misuse.or(Some(why)),
            }
        }
    }
    let admission = match decision {
        Decision::Allow(admission) => admission,
        Decision::Challenge(challenge) => {
            // Who knows one credential may not guess at the other.
            let tried = match (challenge.wrong, challenge.fresh) {
                (true, _) => Tried::Wrong,
                (false, true) => Tried::Right,
                (false, false) => Tried::Nothing,
            };
            let outcome = match misuse {
                Some(why) => Outcome::Refuse(Refusal::LinkRefused(why)),
                None => Outcome::Challenge(challenge),
            };
            return (outcome, tried);
        }
        Decision::Deny(Denial::Disabled | Denial::Refused) => {
            let refusal = misuse.map_or(Refusal::AccessDenied, Refusal::LinkRefused);
            return (Outcome::Refuse(refusal), Tried::Nothing);
        }
    };
    let tried = match admission.fresh {
        true => Tried::Right,
        false => Tried::Nothing,
    };
    let by_cookie =
        admission.remembered || held.as_ref().is_some_and(|(_, _, addressed)| !addressed);
    if by_cookie && visitor.is_unsafe() && !visitor.is_same_origin() {
        return (Outcome::Refuse(Refusal::CrossOrigin), Tried::Nothing);
    }
    let mut without: Vec<String> = (admission.consumed.iter())
        .filter_map(|carrier| match carrier {
            Carrier::Param(name) => Some(name.clone()),
            Carrier::Header(_) | Carrier::Cookie(_) => None,
        })
        .collect();
    if admission.offered {
        without.push(TOKEN.to_owned());
    }
    let addressed = held.as_ref().is_some_and(|(_, _, addressed)| *addressed);
    if visitor.navigates && (addressed || !without.is_empty()) {
        without.push(link::PARAM.to_owned());
        let mut fresh = renewed(&admission, session.as_ref(), now);
        if let Some((link, text, true)) = held {
            fresh.expires = match &session {
                Some(session) if !session.proofs.is_empty() => session.expires,
                _ => link.expires.min(now + COOKIE_LIFE),
            };
            fresh.proofs = session.map(|session| session.proofs).unwrap_or_default();
            fresh.link = Some(text);
        }
        let session = fresh;
        return (Outcome::Exchange { session, without }, tried);
    }
    let mut consumed = admission.consumed;
    if admission.offered {
        consumed.push(Carrier::Param(TOKEN.to_owned()));
    }
    let ends = [
        admission.until.map(|until| until.saturating_add(LEEWAY)),
        (admission.remembered || by_cookie)
            .then(|| session.as_ref().map(|session| session.expires))
            .flatten(),
        held.as_ref().map(|(link, _, _)| link.expires),
    ];
    let passed = Passed {
        identity: admission.identity,
        consumed,
        offer,
        session,
        link: held.map(|(_, text, _)| text),
        until: ends.into_iter().flatten().min(),
    };
    (Outcome::Pass(Box::new(passed)), tried)
}

/// The session that follows from an admission: what was remembered lives no longer than before.
fn renewed(admission: &Admission, before: Option<&Session>, now: u64) -> Session {
    let mut expires = now + session::LIFE.as_secs();
    if let Some(until) = admission.until {
        expires = expires.min(until);
    }
    if let Some(before) = before.filter(|_| admission.remembered) {
        expires = expires.min(before.expires);
    }
    let mut session = Session::new(&admission.proofs, expires);
    session.link = before.and_then(|before| before.link.clone());
    session
}

/// What a sign-in with this credential comes to.
pub enum SignedIn {
    /// It opened the door.
    Open(Session),
    /// It opened something, and more is asked for.
    Further(Session, Challenge),
    /// It opened nothing.
    Shut(Challenge),
    /// There is nothing to sign in to.
    Refused,
}

/// Try a credential from the form of a sign-in.
pub fn sign_in(rules: &Rules, visitor: &Visitor, offer: &Offer, keys: &Keys, now: u64) -> SignedIn {
    let before = visitor.session(keys, now);
    // The form says it all: nothing else of the request counts.
    let blank = HeaderMap::new();
    let brought = Brought {
        headers: &blank,
        query: "",
        ..visitor.brought(now, Some(offer), before.as_ref(), None)
    };
    let decision = decide(
        rules.project.as_deref(),
        rules.container.as_deref(),
        visitor.service,
        visitor.instance,
        &brought,
    );
    match decision {
        Decision::Allow(admission) => SignedIn::Open(renewed(&admission, before.as_ref(), now)),
        Decision::Challenge(challenge) if challenge.fresh => {
            let so_far = Admission {
                proofs: challenge.proofs.clone(),
                remembered: before.is_some(),
                ..Admission::default()
            };
            SignedIn::Further(renewed(&so_far, before.as_ref(), now), challenge)
        }
        Decision::Challenge(challenge) => SignedIn::Shut(challenge),
        Decision::Deny(_) => SignedIn::Refused,
    }
}

impl Exchange {
    /// Whether it may go on. `rules` are those of now; without any, everybody may.
    pub fn stands(&self, rules: Option<&Rules>, now: u64) -> bool {
        let Some(rules) = rules else { return true };
        if self.until.is_some_and(|until| until <= now) {
            return false;
        }
        let mut last = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if last.same(rules) {
            *last = rules.clone();
            return true;
        }
        let link = self.link.as_deref();
        let link = link.and_then(|text| self.visitor.link(text, rules, now).ok());
        let id = link.map(|link| link.id.to_string());
        let brought = self.visitor.brought(
            now,
            self.offer.as_ref(),
            self.session.as_ref(),
            id.as_deref(),
        );
        let decision = decide(
            rules.project.as_deref(),
            rules.container.as_deref(),
            self.visitor.service,
            self.visitor.instance,
            &brought,
        );
        let stands = matches!(decision, Decision::Allow(_));
        if stands {
            *last = rules.clone();
        }
        stands
    }
}
