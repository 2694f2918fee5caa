//! The page on which a person signs in to a gated container, and what it sends back.
//!
//! The page belongs to the proxy and runs no script. It posts to a path of the very host that was
//! asked for, so that the cookie is that host's alone.

use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use routes::access::{CREDENTIAL_BYTES, Challenge};
use sha2::{Digest as _, Sha256};

use crate::evidence::Offer;
use crate::query;
use crate::refusals::{STYLE, escape};

/// Where the form of a sign-in goes.
pub const SIGN_IN: &str = "/.hoody/sign-in";
/// Where the cookie is taken away.
pub const SIGN_OUT: &str = "/.hoody/sign-out";
/// The form in all: a token of [`CREDENTIAL_BYTES`], escaped, fits.
pub const FORM_BYTES: usize = 16 << 10;
/// The address to go on to.
const NEXT_BYTES: usize = 4 << 10;

/// What the form said.
#[derive(Debug, PartialEq, Eq)]
pub struct Form {
    pub offer: Offer,
    pub next: String,
}

impl Form {
    /// Read what was posted; nothing where it is not what the page sends.
    pub fn read(body: &[u8]) -> Option<Form> {
        let body = std::str::from_utf8(body).ok()?;
        let field = |name| query::value(body, name).map(|value| value.into_owned());
        let filled = |name| field(name).filter(|it| !it.is_empty() && it.len() <= CREDENTIAL_BYTES);
        let offer = match filled("token") {
            Some(token) => Offer::Value(token.trim().to_owned()),
            None => Offer::Password {
                username: filled("username")?,
                password: field("password").filter(|it| it.len() <= CREDENTIAL_BYTES)?,
            },
        };
        let next = field("next").filter(|next| is_here(next));
        Some(Form {
            offer,
            next: next.unwrap_or_else(|| "/".to_owned()),
        })
    }
}

/// Whether this is a path of the same host, however a browser reads it.
pub fn is_here(next: &str) -> bool {
    let mut bytes = next.bytes();
    next.len() <= NEXT_BYTES
        && bytes.next() == Some(b'/')
        && !matches!(bytes.next(), Some(b'/' | b'\\'))
        && next.bytes().all(|byte| byte.is_ascii_graphic())
        && !next.starts_with(SIGN_IN)
        && !next.starts_with(SIGN_OUT)
}

/// Why the page is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It was asked for, or something behind it was.
    Asked,
    /// What was given opened nothing.
    Wrong,
    /// What was given was right, and more is needed.
    Further,
}

/// The policy of the page: this style, a form to its own host, and nothing else.
pub static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(style()));
    format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'self'")
});

fn style() -> String {
    format!("{STYLE}{}", include_str!("signin.css"))
}

/// The page.
pub fn page(challenge: &Challenge, reason: Reason, host: &str, next: &str) -> String {
    let next = escape(if is_here(next) { next } else { "/" });
    let host = escape(host);
    let says = match reason {
        Reason::Asked => "",
        Reason::Wrong => {
            "<p class=\"wrong\" role=\"alert\">That did not open it. Check it and try again.</p>\n"
        }
        Reason::Further => {
            "<p class=\"right\" role=\"status\">That was right. One more is needed.</p>\n"
        }
    };
    let mut forms = String::new();
    let mut form = |fields: &str, button: &str| {
        let _ = write!(
            forms,
            "<form method=\"post\" action=\"{SIGN_IN}\">\n<input type=\"hidden\" name=\"next\" value=\"{next}\">\n\
             {fields}<button type=\"submit\">{button}</button>\n</form>\n"
        );
    };
    let focus = |first: bool| if first { " autofocus" } else { "" };
    if challenge.password {
        form(
            &format!(
                "<label for=\"username\">User name</label>\n\
                 <input id=\"username\" name=\"username\" autocomplete=\"username\" autocapitalize=\"none\" \
                 spellcheck=\"false\" required{}>\n\
                 <label for=\"password\">Password</label>\n\
                 <input id=\"password\" name=\"password\" type=\"password\" autocomplete=\"current-password\" required>\n",
                focus(true)
            ),
            "Sign in",
        );
    }
    if challenge.token {
        form(
            &format!(
                "<label for=\"token\">Access token</label>\n\
                 <input id=\"token\" name=\"token\" type=\"password\" autocomplete=\"off\" required{}>\n",
                focus(!challenge.password)
            ),
            match challenge.password {
                true => "Use the token",
                false => "Sign in",
            },
        );
    }
    let or = match challenge.password && challenge.token {
        true => forms.replacen(
            "</form>\n<form",
            "</form>\n<p class=\"or\">or</p>\n<form",
            1,
        ),
        false => forms,
    };
    let style = style();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n<title>Sign in</title>\n\
         <style>{style}</style>\n</head>\n<body>\n<main>\n<h1>Sign in</h1>\n\
         <p>This address is protected by its owner.</p>\n{says}{or}\
         <footer><code>{host}</code></footer>\n</main>\n</body>\n</html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_read_as_the_page_sends_it() {
        let password = |username: &str, password: &str| Offer::Password {
            username: username.into(),
            password: password.into(),
        };
        for (body, offer, next) in [
            (
                "username=ann&password=a%26b+c&next=%2Fx%3Fy%3D1",
                password("ann", "a&b c"),
                "/x?y=1",
            ),
            ("username=ann&password=", password("ann", ""), "/"),
            (
                "token=+abc+&next=%2F%2Fevil.example",
                Offer::Value("abc".into()),
                "/",
            ),
        ] {
            let form = Form::read(body.as_bytes()).expect(body);
            assert_eq!((form.offer, form.next.as_str()), (offer, next), "{body}");
        }
        let long = format!("token={}", "a".repeat(CREDENTIAL_BYTES + 1));
        for body in [
            "",
            "next=/",
            "username=ann",
            "password=x",
            "token=",
            "username=&password=x",
            "username=a&username=b&password=x",
            &long,
        ] {
            assert_eq!(Form::read(body.as_bytes()), None, "{body}");
        }
        assert_eq!(Form::read(b"token=\xff"), None);
    }

    #[test]
    fn only_paths_of_the_same_host_are_gone_on_to() {
        for here in ["/", "/a/b?c=d", "/?next=//x", "/a//b"] {
            assert!(is_here(here), "{here}");
        }
        for away in [
            "",
            "a",
            "//evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "https://evil.example",
            "javascript:alert(1)",
            "/a\r\nset-cookie: x=y",
            "/\t/evil.example",
            " /",
            "/ ",
            "/é",
            "/.hoody/sign-out",
            "/.hoody/sign-in?next=/",
        ] {
            assert!(!is_here(away), "{away:?}");
        }
    }

    #[test]
    fn the_page_asks_for_what_opens_it_and_runs_nothing() {
        let asks = |password, token| Challenge {
            password,
            token,
            ..Challenge::default()
        };
        let evil = "/\"><script>alert(1)</script>";
        for (challenge, forms) in [
            (asks(true, false), 1),
            (asks(false, true), 1),
            (asks(true, true), 2),
        ] {
            let page = page(&challenge, Reason::Wrong, "a.example", evil);
            assert_eq!(page.matches("<form").count(), forms);
            assert_eq!(page.contains("name=\"password\""), challenge.password);
            assert_eq!(page.contains("name=\"token\""), challenge.token);
            assert!(
                !page.contains("<script") && !page.contains("http"),
                "{page}"
            );
            assert_eq!(page.matches("autofocus").count(), 1);
            assert_eq!(page.contains("class=\"or\""), forms == 2);
        }
        assert!(POLICY.contains("form-action 'self'") && POLICY.starts_with("default-src 'none'"));
    }
}
