//! A server that the words of one request name, with what opens it: `?type=ssh&server=...`.
//!
//! Nothing of it is kept. What it comes to is a remote of rclone's that is written out in place of a
//! name, and goes to it over its socket.

use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use kit::Fault;
use serde_json::json;

use super::Remote;
use super::kinds::{line, wrong};
use super::place::Place;
use crate::path::FilePath;

/// Longest value of one word.
const WORD_BYTES: usize = 16 << 10;

/// The words of a request.
pub struct Words<'a>(pub &'a [(String, String)]);

impl Words<'_> {
    fn optional(&self, name: &str) -> Result<Option<String>, Fault> {
        let found = self
            .0
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str());
        let Some(text) = found.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        if text.len() > WORD_BYTES || text.contains(']') {
            // rclone reads a remote that is written out up to the first bracket
            return Err(wrong(name, "it is too long, or has a bracket in it"));
        }
        line(name, text.to_owned()).map(Some)
    }

    fn needed(&self, name: &str) -> Result<String, Fault> {
        self.optional(name)?
            .ok_or_else(|| wrong(name, "it must be given"))
    }

    /// A word that is base64 of what it stands for.
    fn encoded(&self, name: &str) -> Result<Option<String>, Fault> {
        let found = self
            .0
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.replace(' ', "+"));
        let Some(text) = found.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let bytes = (text.len() <= WORD_BYTES)
            .then(|| {
                base64::engine::general_purpose::STANDARD
                    .decode(text.trim())
                    .ok()
            })
            .flatten();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or_else(|| wrong(name, "it is no base64 of a text"))?;
        if text.contains(']') {
            return Err(wrong(
                name,
                "it has a bracket in it; connect a backend instead",
            ));
        }
        line(if name == "key" { "key_pem" } else { name }, text).map(Some)
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, Fault> {
        match self.optional(name)?.as_deref() {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(_) => Err(wrong(name, "it is true or false")),
        }
    }
}

/// A remote of rclone's, as it is put together.
struct Written {
    fs: String,
    secrets: Vec<String>,
}

impl Written {
    fn new(kind: &str) -> Written {
        Written {
            fs: format!(":{kind}"),
            secrets: Vec::new(),
        }
    }
    fn add(&mut self, name: &str, value: &str) {
        self.fs
            .push_str(&format!(",{name}=\"{}\"", value.replace('"', "\"\"")));
    }
    fn add_secret(&mut self, name: &str, value: String) {
        self.add(name, &value);
        self.secrets.push(value);
    }
    /// The remote, with the directory that paths are below.
    fn at(mut self, root: &str, path: FilePath) -> Place {
        self.fs.push(':');
        self.fs.push_str(root);
        Place {
            fs: self.fs,
            id: None,
            path,
            secrets: self.secrets,
        }
    }
}

impl Remote {
    /// The place that a request names by a type and what goes with it.
    pub async fn access(
        &self,
        kind: &str,
        words: &Words<'_>,
        path: FilePath,
    ) -> Result<Place, Fault> {
        match kind {
            "ssh" => {
                let mut remote = Written::new("sftp");
                self.host(&mut remote, &words.needed("server")?, 22).await?;
                remote.add("user", &words.needed("user")?);
                // no commands are run there to find out what it is
                remote.add("shell_type", "none");
                remote.add("disable_hashcheck", "true");
                let (pass, key) = (words.encoded("pass")?, words.encoded("key")?);
                if pass.is_none() && key.is_none() {
                    return Err(wrong("pass", "either it or `key` must be given"));
                }
                if let Some(pass) = pass {
                    self.add_password(&mut remote, "pass", pass).await?;
                }
                if let Some(key) = key {
                    remote.add_secret("key_pem", key);
                }
                if let Some(phrase) = words.encoded("passphrase")? {
                    self.add_password(&mut remote, "key_file_pass", phrase)
                        .await?;
                }
                Ok(remote.at("/", path))
            }
            "ftp" => {
                let mut remote = Written::new("ftp");
                self.host(&mut remote, &words.needed("server")?, 21).await?;
                if words.flag("ftp_passive")? == Some(false) {
                    return Err(wrong(
                        "ftp_passive",
                        "the server would have to connect to here; only passive mode is there",
                    ));
                }
                remote.add(
                    "user",
                    &words
                        .optional("user")?
                        .unwrap_or_else(|| "anonymous".into()),
                );
                if words.flag("ftp_secure")? == Some(true) {
                    remote.add("explicit_tls", "true");
                }
                let pass = words
                    .optional("pass")?
                    .unwrap_or_else(|| "anonymous".into());
                self.add_password(&mut remote, "pass", pass).await?;
                Ok(remote.at("/", path))
            }
            "webdav" => {
                let mut remote = Written::new("webdav");
                let root = words.optional("webdav_path")?.unwrap_or_default();
                let url = self.url(&words.needed("server")?).await?;
                remote.add(
                    "url",
                    &format!(
                        "{}/{}",
                        url.trim_end_matches('/'),
                        root.trim_start_matches('/')
                    ),
                );
                remote.add("vendor", "other");
                if let Some(user) = words.optional("user")? {
                    remote.add("user", &user);
                }
                if let Some(pass) = words.optional("pass")? {
                    self.add_password(&mut remote, "pass", pass).await?;
                }
                Ok(remote.at("", path))
            }
            "s3" => {
                let mut remote = Written::new("s3");
                let bucket = words.needed("s3_bucket")?;
                let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
                if !bucket.bytes().all(plain) || bucket.starts_with('.') {
                    return Err(wrong("s3_bucket", "it is no name of a bucket"));
                }
                let endpoint = match words.optional("s3_endpoint")? {
                    Some(endpoint) => endpoint,
                    None => words.needed("server")?,
                };
                remote.add("provider", "Other");
                remote.add("endpoint", &self.url(&endpoint).await?);
                remote.add("region", &words.needed("s3_region")?);
                remote.add("no_check_bucket", "true");
                if let Some(user) = words.optional("user")? {
                    remote.add_secret("access_key_id", user);
                }
                if let Some(pass) = words.encoded("pass")? {
                    remote.add_secret("secret_access_key", pass);
                }
                Ok(remote.at(&bucket, path))
            }
            "git" => Err(super::super::ops::read::absent(
                "reading from git repositories",
            )),
            _ => Err(wrong(
                "type",
                "it is one of ssh, ftp, s3 and webdav; other servers are connected as backends",
            )),
        }
    }

    async fn add_password(
        &self,
        remote: &mut Written,
        name: &str,
        clear: String,
    ) -> Result<(), Fault> {
        let answer = self
            .call("core/obscure", &json!({ "clear": clear }))
            .await?;
        let hidden = answer
            .map_err(|failure| failure.fault("take the password", std::slice::from_ref(&clear)))?;
        remote.add_secret(
            name,
            hidden["obscured"].as_str().unwrap_or_default().to_owned(),
        );
        remote.secrets.push(clear);
        Ok(())
    }

    async fn host(&self, remote: &mut Written, server: &str, port: u16) -> Result<(), Fault> {
        let (host, port) = split(server, port).ok_or_else(|| {
            wrong(
                "server",
                "it is a host name or address, and a port behind a colon",
            )
        })?;
        permit(&host, port).await?;
        remote.add("host", &host);
        remote.add("port", &port.to_string());
        Ok(())
    }

    /// A URL, of HTTPS where it does not say.
    async fn url(&self, server: &str) -> Result<String, Fault> {
        let (scheme, rest) = server.split_once("://").unwrap_or(("https", server));
        let usual = match scheme {
            "https" => 443,
            "http" => 80,
            _ => return Err(wrong("server", "it is an http or https URL")),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, port) = split(authority, usual)
            .ok_or_else(|| wrong("server", "it names no host, or a user, which is for `user`"))?;
        permit(&host, port).await?;
        Ok(format!("{scheme}://{rest}"))
    }
}

/// Host and port of `host`, `host:port`.
fn split(text: &str, port: u16) -> Option<(String, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, digits)) => (host, digits.parse().ok()?),
        None => (text, port),
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    (!host.is_empty() && host.len() <= 253 && !host.starts_with('-') && host.bytes().all(plain))
        .then(|| (host.to_owned(), port))
}

/// Refuse addresses that are nobody's server: those of a link, where clouds tell a machine its
/// secrets, and those that are none. Others of the computer and around it are for it to reach, as its
/// programs do.
async fn permit(host: &str, port: u16) -> Result<(), Fault> {
    let found = tokio::time::timeout(
        std::time::Duration::from_secs(10),
        tokio::net::lookup_host((host, port)),
    )
    .await;
    let addresses: Vec<SocketAddr> = match found {
        Ok(Ok(found)) => found.collect(),
        _ => {
            return Err(Fault::new(
                http::StatusCode::BAD_GATEWAY,
                format!("{host} has no address"),
            )
            .code("REMOTE_FAILED"));
        }
    };
    match addresses.iter().any(|address| is_refused(address.ip())) {
        true => Err(
            Fault::forbidden(format!("{host} is an address that is not connected to"))
                .code("ADDRESS_REFUSED"),
        ),
        false => Ok(()),
    }
}

fn is_refused(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_link_local() || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast()
        }
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_and_a_port() {
        assert_eq!(
            split("h.example:2222", 22),
            Some(("h.example".into(), 2222))
        );
        assert_eq!(split("h.example", 22), Some(("h.example".into(), 22)));
        for evil in [
            "",
            "-oProxyCommand=id",
            "h;id",
            "u@h",
            "h,ssh=id",
            "h\"x",
            "h:ssh",
            "h:70000",
            "[::1]:22",
        ] {
            assert_eq!(split(evil, 22), None, "{evil}");
        }
    }

    #[test]
    fn the_servers_of_a_link_are_refused() {
        for (address, refused) in [
            ("169.254.169.254", true),
            ("::ffff:169.254.169.254", true),
            ("fe80::1", true),
            ("0.0.0.0", true),
            ("224.0.0.1", true),
            ("127.0.0.1", false),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_refused(address.parse().unwrap()), refused, "{address}");
        }
    }

    #[test]
    fn words_stay_in_the_value_they_are_of() {
        let mut remote = Written::new("sftp");
        remote.add("user", "a\",ssh=\"id");
        assert_eq!(remote.fs, ":sftp,user=\"a\"\",ssh=\"\"id\"");
        let words = [
            ("user".to_owned(), "a]b".to_owned()),
            ("pass".to_owned(), "not base64!".to_owned()),
            ("server".to_owned(), "a\nb".to_owned()),
        ];
        let words = Words(&words);
        assert!(words.needed("user").is_err() && words.encoded("pass").is_err());
        assert!(words.needed("server").is_err() && words.needed("nothing").is_err());
    }
}
