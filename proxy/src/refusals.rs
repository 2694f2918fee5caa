//! Every answer that the proxy gives by itself: what it says, to programs and to people.
//!
//! Nothing in an answer tells a container that does not exist from one that the visitor has no
//! name for, and nothing names a host path, an id or a piece of another request.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use http::StatusCode;
use routes::address::Rejection;
use routes::link::Misuse;
use routes::table::Place;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::domains::{MARK, NotLed};

/// Why a request went nowhere.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// The request cannot be trusted to mean one thing.
    BadRequest(&'static str),
    /// Its host is no hostname.
    BadHost(Rejection),
    /// A host that this node does not answer to.
    UnknownHost,
    /// There is none, or it is not in the project that the host names.
    UnknownContainer,
    /// The container's name goes on with something that is no service.
    UnknownService,
    /// The alias leads to one path, and this is another.
    NotBehindAlias,
    /// The name of something that does not speak HTTP.
    NotHttp,
    Starting(Arc<Place>),
    Stopped(Arc<Place>),
    Paused(Arc<Place>),
    Failed(Arc<Place>),
    /// It sleeps, and was not woken.
    NotWoken(Arc<Place>, NotWoken),
    /// The container's kit cannot be reached or does not speak HTTP.
    ServiceFailed,
    /// The container's kit does not answer.
    ServiceSilent,
    /// The API does not answer.
    ControlAway,
    /// The connection's certificate is not for this host.
    Misdirected,
    /// Plain HTTP, and the method cannot be redirected.
    HttpsRequired,
    MethodNotAllowed,
    RequestTimeout,
    BodyTooLarge,
    TargetTooLong,
    HeadersTooLarge,
    TooManyRequests,
    /// The rules of the container or its project do not let this visitor in.
    AccessDenied,
    /// They would, with a credential.
    AuthenticationRequired(Asked),
    /// A signed link that is not good for this.
    LinkRefused(Misuse),
    /// A cookie of the proxy came from a page of another origin.
    CrossOrigin,
    /// Too many wrong credentials: seconds to wait.
    TooManyAttempts(u32),
    /// A hook's script did not say what becomes of the request.
    HookFailed,
    /// A name of another domain, which leads to nothing here.
    Domain(Box<Domain>, NotLed),
    /// A custom domain for which there is no certificate yet.
    Uncertified(Box<str>),
    /// The certificate for the name is being ordered: seconds to wait.
    CertificateComing(u32),
}

/// Why a container that sleeps was not woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotWoken {
    /// Control, which would do it, does not answer.
    Away,
    /// It was woken too often: seconds to wait.
    Often(u32),
    /// Too many wait already.
    Crowded,
}

/// A name of another domain, and what it could lead to.
#[derive(Debug, Clone)]
pub struct Domain {
    pub name: String,
    /// What stands after the name of an alias: `node-1.containers.example.com`.
    pub aliases: String,
}

/// Which credentials a gate asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    pub password: bool,
    /// A token or a JWT.
    pub token: bool,
    /// Whether a browser would ask its user by itself, in a dialog that no page can explain.
    pub quietly: bool,
}

impl Asked {
    /// The challenges (RFC 9110, section 11.6.1). A scheme that no browser knows asks for the
    /// proxy's own cookie.
    pub fn challenges(self) -> Vec<&'static str> {
        let mut all = Vec::new();
        if self.password && !self.quietly {
            all.push("Basic realm=\"hoody\", charset=\"UTF-8\"");
        }
        if self.token && !self.quietly {
            all.push("Bearer realm=\"hoody\"");
        }
        if all.is_empty() {
            all.push("Session realm=\"hoody\"");
        }
        all
    }
}

/// Status and code of every refusal, for documents and tests.
pub const REFUSALS: &[(u16, &str)] = &[
    (400, "bad_request"),
    (400, "bad_host"),
    (404, "unknown_host"),
    (404, "unknown_container"),
    (404, "unknown_service"),
    (404, "service_not_http"),
    (503, "container_starting"),
    (503, "container_stopped"),
    (503, "container_paused"),
    (503, "container_failed"),
    (502, "service_failed"),
    (504, "service_timeout"),
    (503, "api_unavailable"),
    (421, "misdirected_request"),
    (403, "https_required"),
    (405, "method_not_allowed"),
    (408, "request_timeout"),
    (413, "body_too_large"),
    (414, "target_too_long"),
    (431, "headers_too_large"),
    (429, "too_many_requests"),
    (403, "access_denied"),
    (401, "authentication_required"),
    (403, "link_refused"),
    (403, "cross_origin"),
    (429, "too_many_attempts"),
    (404, "alias_path_pinned"),
    (502, "hook_failed"),
    (404, "domain_not_configured"),
    (404, "domain_leads_elsewhere"),
    (404, "domain_without_alias"),
    (503, "domain_lookup_failed"),
    (429, "domain_lookups_limited"),
    (503, "domain_without_certificate"),
    (503, "certificate_pending"),
    (503, "wake_unavailable"),
    (503, "wake_limited"),
    (503, "wake_crowded"),
];

/// Who reads the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// A program that asked the API: its error shape, `{statusCode, error, message, code}`.
    Api,
    /// A program that asked a container: `{error, message, code}`.
    Kit,
    /// A person: a page.
    Person,
}

/// An answer, ready to be sent.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub content_type: &'static str,
    pub body: String,
    pub retry_after: Option<u32>,
    /// The policy of a page.
    pub policy: Option<&'static str>,
    /// What would open it.
    pub challenges: Vec<&'static str>,
}

impl Answer {
    /// All of it as HTTP/1.1 has it, for a connection that ends with it.
    pub fn message(&self) -> Vec<u8> {
        let reason = self.status.canonical_reason().unwrap_or_default();
        format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{}",
            self.status.as_u16(),
            self.content_type,
            self.body.len(),
            self.body
        )
        .into_bytes()
    }
}

/// Seconds after which a container that starts is worth another try.
const STARTING_RETRY: u32 = 2;
/// Seconds after which a name that no DNS server knew of is worth another try.
const LOOKUP_RETRY: u32 = 10;
/// Seconds in which a certificate may have come.
const CERTIFICATE_RETRY: u32 = 15;

impl Refusal {
    fn row(&self) -> (u16, &'static str) {
        let at = match self {
            Refusal::BadRequest(_) => 0,
            Refusal::BadHost(_) => 1,
            Refusal::UnknownHost => 2,
            Refusal::UnknownContainer => 3,
            Refusal::UnknownService => 4,
            Refusal::NotHttp => 5,
            Refusal::Starting(_) => 6,
            Refusal::Stopped(_) => 7,
            Refusal::Paused(_) => 8,
            Refusal::Failed(_) => 9,
            Refusal::ServiceFailed => 10,
            Refusal::ServiceSilent => 11,
            Refusal::ControlAway => 12,
            Refusal::Misdirected => 13,
            Refusal::HttpsRequired => 14,
            Refusal::MethodNotAllowed => 15,
            Refusal::RequestTimeout => 16,
            Refusal::BodyTooLarge => 17,
            Refusal::TargetTooLong => 18,
            Refusal::HeadersTooLarge => 19,
            Refusal::TooManyRequests => 20,
            Refusal::AccessDenied => 21,
            Refusal::AuthenticationRequired(_) => 22,
            Refusal::LinkRefused(_) => 23,
            Refusal::CrossOrigin => 24,
            Refusal::TooManyAttempts(_) => 25,
            Refusal::NotBehindAlias => 26,
            Refusal::HookFailed => 27,
            Refusal::Domain(_, why) => match why {
                NotLed::NotAsked | NotLed::NoRecord => 28,
                NotLed::Elsewhere(_)
                | NotLed::NotAnAlias
                | NotLed::OtherAddresses
                | NotLed::Endless
                | NotLed::Unclear => 29,
                NotLed::NoAlias => 30,
                NotLed::Unanswered | NotLed::Busy => 31,
                NotLed::TooMany(_) => 32,
            },
            Refusal::Uncertified(_) => 33,
            Refusal::CertificateComing(_) => 34,
            Refusal::NotWoken(_, NotWoken::Away) => 35,
            Refusal::NotWoken(_, NotWoken::Often(_)) => 36,
            Refusal::NotWoken(_, NotWoken::Crowded) => 37,
        };
        REFUSALS[at]
    }

    /// The stable name of the refusal.
    pub fn code(&self) -> &'static str {
        self.row().1
    }

    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.row().0).expect("the list holds statuses")
    }

    /// Whether the connection is in doubt after it.
    pub fn closes(&self) -> bool {
        matches!(
            self,
            Refusal::BadRequest(_)
                | Refusal::BadHost(_)
                | Refusal::RequestTimeout
                | Refusal::BodyTooLarge
                | Refusal::TargetTooLong
                | Refusal::HeadersTooLarge
        )
    }

    pub fn retry_after(&self) -> Option<u32> {
        match self {
            Refusal::Starting(_) => Some(STARTING_RETRY),
            Refusal::ControlAway | Refusal::NotWoken(_, NotWoken::Away | NotWoken::Crowded) => {
                Some(2)
            }
            Refusal::TooManyRequests => Some(1),
            Refusal::TooManyAttempts(seconds)
            | Refusal::CertificateComing(seconds)
            | Refusal::NotWoken(_, NotWoken::Often(seconds))
            | Refusal::Domain(_, NotLed::TooMany(seconds)) => Some(*seconds),
            Refusal::Domain(_, NotLed::Unanswered | NotLed::Busy) => Some(LOOKUP_RETRY),
            Refusal::Uncertified(_) => Some(CERTIFICATE_RETRY),
            _ => None,
        }
    }

    /// A sentence that says what, and what next.
    fn message(&self) -> Cow<'static, str> {
        let place =
            |place: &Arc<Place>, rest: &str| format!("The computer \"{}\" {rest}", place.name);
        match self {
            Refusal::BadRequest(why) => format!("The request cannot be served: {why}.").into(),
            Refusal::BadHost(why) => format!("The request names no usable host: {why}.").into(),
            Refusal::UnknownHost => "Nothing answers at this name. Check it for a typing error.".into(),
            Refusal::UnknownContainer => {
                "No computer answers at this name. It may have been deleted, or the address is not complete.".into()
            }
            Refusal::UnknownService => {
                "The name of a computer goes on with a service and its number, as in terminal-1, files-1 or http-8080. This one goes on with something else.".into()
            }
            Refusal::NotBehindAlias => {
                "This name leads to one page only, and this is not its path. Open the name without a path.".into()
            }
            Refusal::NotHttp => "This name is not for a browser: its service does not speak HTTP.".into(),
            Refusal::Starting(it) => place(it, "is starting. It will answer in a moment.").into(),
            Refusal::Stopped(it) => place(it, "is stopped. Start it and try again.").into(),
            Refusal::Paused(it) => place(it, "is paused. Resume it and try again.").into(),
            Refusal::Failed(it) => place(it, "has failed. Its status log says why.").into(),
            Refusal::NotWoken(it, NotWoken::Away) => {
                place(it, "sleeps, and cannot be woken right now. Try again in a moment.").into()
            }
            Refusal::NotWoken(it, NotWoken::Often(seconds)) => place(
                it,
                &format!("was woken too often lately. Try again in {seconds} s, or start it."),
            )
            .into(),
            Refusal::NotWoken(it, NotWoken::Crowded) => {
                place(it, "is waking up, and too many wait for it. Try again in a moment.").into()
            }
            Refusal::ServiceFailed => {
                "The computer runs, but its services cannot be reached. They may be starting; otherwise restart the computer.".into()
            }
            Refusal::ServiceSilent => "The computer runs, but the service did not answer in time.".into(),
            Refusal::ControlAway => "The API is not available right now. Computers go on running; try again in a moment.".into(),
            Refusal::Misdirected => "This connection was made for another name. Connect again with this one.".into(),
            Refusal::HttpsRequired => "This name is served over HTTPS only.".into(),
            Refusal::MethodNotAllowed => "This method is not allowed here.".into(),
            Refusal::RequestTimeout => "The request's body did not arrive in time.".into(),
            Refusal::BodyTooLarge => "The request's body is larger than is taken here.".into(),
            Refusal::TargetTooLong => "The path and query are too long.".into(),
            Refusal::HeadersTooLarge => "The request's headers are too large.".into(),
            Refusal::TooManyRequests => "Too many requests from your address are under way. Wait for some of them to end.".into(),
            Refusal::AccessDenied => "The owner of this address does not let you in from here.".into(),
            Refusal::AuthenticationRequired(asked) => match (asked.password, asked.token) {
                (true, true) => "This address asks for a user name and password (Basic) or a token. Send them, or open it in a browser to sign in.",
                (true, false) => "This address asks for a user name and password. Send them (Basic), or open it in a browser to sign in.",
                _ => "This address asks for a token. Send it where its owner said, or open it in a browser to sign in.",
            }.into(),
            Refusal::LinkRefused(why) => format!("This link does not open it: {why}. Ask for a new one.").into(),
            Refusal::CrossOrigin => "A page of another origin may not do this with your sign-in. Do it from this address itself.".into(),
            Refusal::TooManyAttempts(seconds) => format!("Too many wrong credentials. Wait {seconds} s and try again.").into(),
            Refusal::CertificateComing(seconds) => format!("This name is new here, and its certificate is being ordered. Try again in {seconds} s.").into(),
            Refusal::HookFailed => "A script of this computer decides about requests, and it did not answer as it should.".into(),
            Refusal::Domain(domain, why) => domain.message(why).into(),
            Refusal::Uncertified(name) => format!("{name} is set up, but there is no certificate for it yet. Try again in a moment.").into(),
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Refusal::BadRequest(_) | Refusal::BadHost(_) => "This request makes no sense",
            Refusal::UnknownHost => "Nothing here",
            Refusal::UnknownContainer => "No such computer",
            Refusal::UnknownService => "No such service",
            Refusal::NotBehindAlias => "Not here",
            Refusal::NotHttp => "Not a web page",
            Refusal::Starting(_) => "Starting up",
            Refusal::Stopped(_) => "Stopped",
            Refusal::Paused(_) => "Paused",
            Refusal::Failed(_) => "Failed",
            Refusal::NotWoken(..) => "Asleep",
            Refusal::ServiceFailed => "Cannot reach the computer",
            Refusal::ServiceSilent => "No answer in time",
            Refusal::ControlAway => "The API is away",
            Refusal::Misdirected => "Wrong connection",
            Refusal::HttpsRequired => "HTTPS only",
            Refusal::MethodNotAllowed => "Not allowed",
            Refusal::RequestTimeout => "Too slow",
            Refusal::BodyTooLarge | Refusal::TargetTooLong | Refusal::HeadersTooLarge => {
                "Too large"
            }
            Refusal::TooManyRequests => "Too many requests",
            Refusal::AccessDenied => "Not for you",
            Refusal::AuthenticationRequired(_) => "Sign in",
            Refusal::LinkRefused(_) => "This link is over",
            Refusal::CrossOrigin => "From somewhere else",
            Refusal::TooManyAttempts(_) => "Too many attempts",
            Refusal::CertificateComing(_) => "Almost there",
            Refusal::HookFailed => "No decision",
            Refusal::Domain(_, NotLed::Unanswered | NotLed::Busy) => "Where does it lead?",
            Refusal::Domain(_, NotLed::TooMany(_)) => "Too many requests",
            Refusal::Domain(..) => "Not set up yet",
            Refusal::Uncertified(_) => "Almost there",
        }
    }

    /// The answer in the form its reader wants.
    pub fn answer(&self, audience: Audience) -> Answer {
        let status = self.status();
        let error = status.canonical_reason().unwrap_or("Error");
        let (code, message) = (self.code(), self.message());
        let (content_type, body, policy) = match audience {
            Audience::Api => {
                let body = json!({
                    "statusCode": status.as_u16(),
                    "error": error,
                    "message": message,
                    "code": code,
                });
                (JSON, body.to_string(), None)
            }
            Audience::Kit => {
                let body = json!({ "error": error, "message": message, "code": code });
                (JSON, body.to_string(), None)
            }
            Audience::Person => (
                "text/html; charset=utf-8",
                self.page(&message),
                Some(&**POLICY),
            ),
        };
        Answer {
            status,
            content_type,
            body,
            retry_after: self.retry_after(),
            policy,
            challenges: match self {
                Refusal::AuthenticationRequired(asked) => asked.challenges(),
                _ => Vec::new(),
            },
        }
    }

    fn page(&self, message: &str) -> String {
        let again = match self {
            Refusal::Starting(_) | Refusal::NotWoken(..) | Refusal::CertificateComing(_) => {
                self.retry_after()
            }
            _ => None,
        };
        let reload = again.map_or(String::new(), |seconds| {
            format!("<meta http-equiv=\"refresh\" content=\"{seconds}\">\n")
        });
        let mark = match again {
            Some(_) => "<div class=\"spin\" role=\"status\" aria-label=\"starting\"></div>",
            None => "",
        };
        let (status, title, code) = (self.status().as_u16(), self.title(), self.code());
        let message = escape(message);
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"robots\" content=\"noindex\">\n{reload}<title>{title}</title>\n\
             <style>{STYLE}</style>\n</head>\n<body>\n<main>\n{mark}<p class=\"status\">{status}</p>\n\
             <h1>{title}</h1>\n<p>{message}</p>\n<footer><code>{code}</code></footer>\n</main>\n</body>\n</html>\n"
        )
    }
}

impl Domain {
    /// What is missing, in words for whoever sets the name up.
    fn message(&self, why: &NotLed) -> String {
        let Domain { name, aliases } = self;
        let how = format!(
            "It takes a CNAME record that leads to the name of an alias, such as my-shop.{aliases}."
        );
        match why {
            NotLed::NotAsked | NotLed::NoRecord => format!(
                "{name} does not lead here yet. {how} At the top of a domain, where no CNAME can be, it takes an ALIAS or ANAME record to that name and a CNAME record to it at {MARK}.{name}."
            ),
            NotLed::Elsewhere(end) => {
                format!("{name} leads to {end}, which is no alias of this node. {how}")
            }
            NotLed::NotAnAlias => format!(
                "{name} leads to a name of this node that is no alias. {how} Make an alias, and let the record lead to that."
            ),
            NotLed::OtherAddresses => format!(
                "{MARK}.{name} leads to an alias of this node, but the addresses of {name} are not those of the alias. It takes an ALIAS or ANAME record to the name of the alias, or the same addresses, and no others."
            ),
            NotLed::Endless => format!(
                "The CNAME records of {name} lead in a circle, or from one name to the next too often. {how}"
            ),
            NotLed::Unclear => {
                format!("On its way, {name} leads to several names at once. {how} A name has one.")
            }
            NotLed::NoAlias => format!(
                "{name} leads to this node, but to no alias that is there. Check the name in the record; an alias may have been switched off or have expired, too."
            ),
            NotLed::Unanswered => format!(
                "Where {name} leads could not be found out: no DNS server has answered. Try again in a moment."
            ),
            NotLed::Busy => format!(
                "Where {name} leads cannot be found out now: too many names are being asked for. Try again in a moment."
            ),
            NotLed::TooMany(seconds) => format!(
                "Too many names that lead nowhere were asked for from your address. Wait {seconds} s and try again."
            ),
        }
    }
}

const JSON: &str = "application/json; charset=utf-8";

/// The style of every page: no font, image or script comes from anywhere.
pub const STYLE: &str = include_str!("refusals.css");

/// A page may use this one style and do nothing else.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(STYLE));
    format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'")
});

pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            letter => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use routes::Id;
    use routes::table::{Owners, State};

    use super::*;

    fn place(name: &str) -> Arc<Place> {
        Arc::new(Place {
            container: Id([0xab; 12]),
            project: Id([0xcd; 12]),
            name: name.into(),
            state: State::Stopped,
            incarnation: 1,
            directory: "/secret/path".into(),
            owners: Owners { base: 0, count: 0 },
            access: None,
            links: None,
            hooks: None,
            address: None,
            embedding: Default::default(),
            sleep: Default::default(),
        })
    }

    fn all() -> Vec<Refusal> {
        let it = place("web");
        vec![
            Refusal::BadRequest("two lengths"),
            Refusal::BadHost(Rejection::BadLabel),
            Refusal::UnknownHost,
            Refusal::UnknownContainer,
            Refusal::UnknownService,
            Refusal::NotHttp,
            Refusal::Starting(it.clone()),
            Refusal::Stopped(it.clone()),
            Refusal::Paused(it.clone()),
            Refusal::Failed(it.clone()),
            Refusal::ServiceFailed,
            Refusal::ServiceSilent,
            Refusal::ControlAway,
            Refusal::Misdirected,
            Refusal::HttpsRequired,
            Refusal::MethodNotAllowed,
            Refusal::RequestTimeout,
            Refusal::BodyTooLarge,
            Refusal::TargetTooLong,
            Refusal::HeadersTooLarge,
            Refusal::TooManyRequests,
            Refusal::AccessDenied,
            Refusal::AuthenticationRequired(Asked {
                password: true,
                token: true,
                quietly: false,
            }),
            Refusal::LinkRefused(Misuse::Expired),
            Refusal::CrossOrigin,
            Refusal::TooManyAttempts(6),
            Refusal::NotBehindAlias,
            Refusal::HookFailed,
            domain(NotLed::NoRecord),
            domain(NotLed::Elsewhere("example.org".into())),
            domain(NotLed::NoAlias),
            domain(NotLed::Unanswered),
            domain(NotLed::TooMany(3)),
            Refusal::Uncertified("shop.example.net".into()),
            Refusal::CertificateComing(5),
            Refusal::NotWoken(it.clone(), NotWoken::Away),
            Refusal::NotWoken(it.clone(), NotWoken::Often(9)),
            Refusal::NotWoken(it, NotWoken::Crowded),
        ]
    }

    fn domain(why: NotLed) -> Refusal {
        let domain = Domain {
            name: "shop.example.net".into(),
            aliases: "box1.containers.hoody.example.com".into(),
        };
        Refusal::Domain(Box::new(domain), why)
    }

    #[test]
    fn the_list_is_complete_and_no_answer_leaks() {
        let rows: Vec<_> = all().iter().map(Refusal::row).collect();
        assert_eq!(rows, REFUSALS);
        for refusal in all() {
            for audience in [Audience::Api, Audience::Kit, Audience::Person] {
                let body = refusal.answer(audience).body;
                assert!(!body.contains("abab") && !body.contains("cdcd"), "{body}");
                assert!(!body.contains("/secret"), "{body}");
                assert!(body.contains(refusal.code()), "{body}");
            }
        }
    }

    #[test]
    fn shapes_are_those_of_the_contract() {
        let read = |audience| {
            let body = Refusal::Stopped(place("web")).answer(audience).body;
            serde_json::from_str::<serde_json::Value>(&body).expect("JSON")
        };
        let message = "The computer \"web\" is stopped. Start it and try again.";
        let (error, code) = ("Service Unavailable", "container_stopped");
        let api = json!({ "statusCode": 503, "error": error, "message": message, "code": code });
        assert_eq!(read(Audience::Api), api);
        assert_eq!(
            read(Audience::Kit),
            json!({ "error": error, "message": message, "code": code })
        );
    }

    #[test]
    fn a_domain_is_told_what_it_lacks() {
        let said = |why| domain(why).answer(Audience::Person).body;
        let record = "my-shop.box1.containers.hoody.example.com";
        let none = said(NotLed::NoRecord);
        assert!(
            none.contains(record) && none.contains("_hoody.shop.example.net"),
            "{none}"
        );
        // What a DNS server says may be anything that fits into a name.
        let elsewhere = said(NotLed::Elsewhere("<script>.example.org".into()));
        assert!(elsewhere.contains("&lt;script&gt;.example.org") && elsewhere.contains(record));
        assert!(said(NotLed::NotAnAlias).contains("no alias"));
        assert!(said(NotLed::OtherAddresses).contains("addresses"));
        let waits = domain(NotLed::TooMany(3)).answer(Audience::Kit);
        assert_eq!((waits.status.as_u16(), waits.retry_after), (429, Some(3)));
        let silent = domain(NotLed::Busy).answer(Audience::Kit);
        assert_eq!(
            (silent.status.as_u16(), silent.retry_after),
            (503, Some(10))
        );
    }

    #[test]
    fn a_page_runs_nothing_and_loads_nothing() {
        let evil = place("<script>alert('x')</script>\" onload=\"y");
        let answer = Refusal::Stopped(evil).answer(Audience::Person);
        assert!(!answer.body.contains("<script"), "{}", answer.body);
        assert!(!answer.body.contains("\" onload"), "{}", answer.body);
        assert!(!answer.body.contains("http://") && !answer.body.contains("https://"));
        assert!(
            answer
                .policy
                .expect("a policy")
                .starts_with("default-src 'none'")
        );
        let waits = Refusal::Starting(place("web")).answer(Audience::Person);
        assert!(waits.body.contains("http-equiv=\"refresh\""));
        assert_eq!(waits.retry_after, Some(2));
    }
}
