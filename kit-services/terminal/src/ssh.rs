//! Sessions on other machines, by ssh(1).
//!
//! The session is an ssh on a pseudo-terminal of this machine. Its connection is shared: a command
//! for the session is another ssh that goes over the same connection, with pipes, so that its
//! streams are told apart and its exit code is its own. Where the connection is not up, that ssh
//! makes one by itself, with the same credentials.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use kit::Fault;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::execute::decode_bytes;
use crate::id::Named;
use crate::shell::{Flavour, single_quoted};
use crate::socks5::Proxy;
use crate::workdir::Workdir;
use accounts::Account;

/// Longest key; those of RSA with 16384 bits have some 12 KiB.
const MAX_KEY: usize = 64 << 10;
/// Longest password.
const MAX_PASSWORD: usize = 1024;

/// A machine to run on, as callers name it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct Asked {
    /// Machine to run on instead, by ssh.
    pub ssh_host: Option<String>,
    /// User on that machine.
    pub ssh_user: Option<String>,
    /// Port of its ssh server; 22 where not given.
    #[serde(default)]
    pub ssh_port: Option<Named>,
    /// Password of that user; asked for in the terminal where it is needed and not given.
    pub ssh_password: Option<String>,
    /// Private key for that user, in base64. The keys of this machine's user serve too.
    pub ssh_key: Option<String>,
    /// SOCKS5 proxy to reach that machine by.
    pub socks5_host: Option<String>,
    /// Port of the proxy; 1080 where not given.
    #[serde(default)]
    pub socks5_port: Option<Named>,
    /// User at the proxy.
    pub socks5_user: Option<String>,
    /// Password at the proxy.
    pub socks5_pass: Option<String>,
}

/// A machine that can be tried to be reached.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub host: String,
    pub user: String,
    pub port: u16,
    password: Option<String>,
    key: Option<String>,
    proxy: Option<Proxy>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither password nor key gets into a log.
        write!(f, "{self}")
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}:{}", self.user, self.host, self.port)
    }
}

fn wrong(name: &'static str, why: &str) -> Fault {
    Fault::bad_request(format!("{name} {why}"))
        .code("INVALID_SSH")
        .field(format!("/{name}"), why)
}

/// A text that was given and is not empty.
fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// A name that ssh takes for nothing else.
fn name(field: &'static str, text: String, is_fit: impl Fn(char) -> bool) -> Result<String, Fault> {
    const LONGEST: usize = 253;
    if text.len() > LONGEST || text.starts_with('-') || !text.chars().all(is_fit) {
        return Err(wrong(field, "is no name that ssh takes"));
    }
    Ok(text)
}

fn port(field: &'static str, asked: Option<&Named>, usual: u16) -> Result<u16, Fault> {
    let number = match asked {
        None => return Ok(usual),
        Some(Named::Text(text)) if text.is_empty() => return Ok(usual),
        Some(Named::Text(text)) => text.parse::<i64>().ok(),
        Some(Named::Number(number)) => Some(*number),
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number != 0)
        .ok_or_else(|| wrong(field, "must be a number from 1 to 65535"))
}

impl Asked {
    /// The machine that is meant; none where none is named.
    pub fn read(self) -> Result<Option<Target>, Fault> {
        let proxy = self.proxy()?;
        let (host, user) = (given(self.ssh_host), given(self.ssh_user));
        let (password, key) = (given(self.ssh_password), given(self.ssh_key));
        let (host, user) = match (host, user) {
            (Some(host), Some(user)) => (host, user),
            (None, None) if password.is_none() && key.is_none() && proxy.is_none() => {
                return Ok(None);
            }
            (None, _) => return Err(wrong("ssh_host", "is needed for a session by ssh")),
            (Some(_), None) => return Err(wrong("ssh_user", "is needed together with ssh_host")),
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        let is_user =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '$');
        if password.as_ref().is_some_and(|password| {
            password.len() > MAX_PASSWORD || password.chars().any(char::is_control)
        }) {
            return Err(wrong(
                "ssh_password",
                "has more than 1024 bytes or control characters",
            ));
        }
        Ok(Some(Target {
            host: name("ssh_host", host, is_host)?,
            user: name("ssh_user", user, is_user)?,
            port: port("ssh_port", self.ssh_port.as_ref(), 22)?,
            password,
            key: key.map(|key| read_key(&key)).transpose()?,
            proxy,
        }))
    }

    fn proxy(&self) -> Result<Option<Proxy>, Fault> {
        let (user, password) = (
            given(self.socks5_user.clone()),
            given(self.socks5_pass.clone()),
        );
        let Some(host) = given(self.socks5_host.clone()) else {
            return match (user, password) {
                (None, None) => Ok(None),
                _ => Err(wrong("socks5_host", "is needed for a proxy")),
            };
        };
        // RFC 1929 has a byte for each length.
        let is_short = |text: &Option<String>| text.as_ref().is_none_or(|text| text.len() <= 255);
        if !is_short(&user) || !is_short(&password) {
            return Err(wrong(
                "socks5_user",
                "or socks5_pass has more than 255 bytes",
            ));
        }
        if user.is_none() && password.is_some() {
            return Err(wrong("socks5_user", "is needed together with socks5_pass"));
        }
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        Ok(Some(Proxy {
            host: name("socks5_host", host, is_host)?,
            port: port("socks5_port", self.socks5_port.as_ref(), 1080)?,
            user,
            password: password.unwrap_or_default(),
        }))
    }
}

fn read_key(base64: &str) -> Result<String, Fault> {
    let text = decode_bytes(base64)
        .ok()
        .filter(|bytes| bytes.len() <= MAX_KEY)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| wrong("ssh_key", "is not base64 of a private key"))?;
    if !text.starts_with("-----BEGIN ") || text.contains('\0') {
        return Err(wrong("ssh_key", "is no private key in PEM"));
    }
    // ssh refuses a key whose last line has no end.
    Ok(text.trim_end().to_owned() + "\n")
}

/// How to reach a machine, once its files are written.
#[derive(Clone, Debug)]
pub struct Reach {
    pub program: PathBuf,
    common: Vec<OsString>,
    user: String,
    host: String,
    pub environment: BTreeMap<String, String>,
    /// The socket that is there while a connection is.
    pub connection: PathBuf,
}

impl Target {
    /// Write what ssh needs into the session's directory. `program` is ssh(1), `connector` the
    /// command that connects through a SOCKS5 proxy (see [`crate::socks5`]).
    pub fn prepare(
        &self,
        program: &Path,
        connector: Option<&Path>,
        workdir: &Workdir,
    ) -> io::Result<Reach> {
        let directory = workdir.directory("ssh")?;
        let connection = directory.join("connection");
        let mut common: Vec<OsString> = Vec::new();
        let mut option = |option: String| common.extend(["-o".into(), OsString::from(option)]);
        let quoted = |path: &Path| percent(&format!("\"{}\"", path.display()));
        option(format!("ControlPath={}", quoted(&connection)));
        // A machine met for the first time is trusted; one that changed is not.
        option("StrictHostKeyChecking=accept-new".to_owned());
        option("ConnectTimeout=20".to_owned());
        // Two minutes of silence are an end.
        option("ServerAliveInterval=30".to_owned());
        option("ServerAliveCountMax=4".to_owned());
        option("NumberOfPasswordPrompts=1".to_owned());
        // ssh runs what connects it through a proxy with this.
        let mut environment = BTreeMap::from([("SHELL".to_owned(), "/bin/sh".to_owned())]);
        if let Some(key) = &self.key {
            workdir.write("key", key)?;
            option(format!(
                "IdentityFile={}",
                quoted(&workdir.path.join("key"))
            ));
        }
        if let Some(password) = &self.password {
            workdir.write("password", password)?;
            // It is asked for passwords and for whatever else a server wants to know.
            let script = format!(
                "#!/bin/sh\ncase \"$1\" in *[Pp]assword*|*[Pp]assphrase*) cat {} ;; *) exit 1 ;; esac\n",
                single_quoted(
                    &workdir.path.join("password").to_string_lossy(),
                    Flavour::Posix
                )
            );
            workdir.script("askpass", &script)?;
            let askpass = workdir.path.join("askpass").to_string_lossy().into_owned();
            environment.insert("SSH_ASKPASS".to_owned(), askpass);
            environment.insert("SSH_ASKPASS_REQUIRE".to_owned(), "force".to_owned());
        }
        if let Some(proxy) = &self.proxy {
            let connector = connector.ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::Unsupported,
                    "this kit has no program that connects through a proxy",
                )
            })?;
            workdir.write("proxy", &serde_json::to_string(proxy)?)?;
            let word =
                |path: &Path| percent(&single_quoted(&path.to_string_lossy(), Flavour::Posix));
            option(format!(
                "ProxyCommand={} --socks5 {} --to %h:%p",
                word(connector),
                word(&workdir.path.join("proxy"))
            ));
        }
        common.extend(["-p".into(), self.port.to_string().into()]);
        Ok(Reach {
            program: program.to_owned(),
            common,
            user: self.user.clone(),
            host: self.host.clone(),
            environment,
            connection,
        })
    }
}

/// In options of ssh, a percent sign stands for itself when there are two.
fn percent(text: &str) -> String {
    text.replace('%', "%%")
}

impl Reach {
    /// The arguments of the session's own ssh.
    pub fn session(&self) -> Vec<OsString> {
        // No escape character: whatever is typed is for the other side.
        self.arguments(&["-tt", "-e", "none", "-o", "ControlMaster=yes"], None)
    }

    /// The arguments of an ssh that runs a command line.
    pub fn command(
        &self,
        text: &str,
        environment: &BTreeMap<String, String>,
        cwd: Option<&str>,
    ) -> Vec<OsString> {
        let quoted = |text: &str| single_quoted(text, Flavour::Posix);
        let mut line = String::new();
        for (name, value) in environment {
            line += &format!("export {name}={}; ", quoted(value));
        }
        if let Some(cwd) = cwd {
            line += &format!("cd {} && ", quoted(cwd));
        }
        line += text;
        self.arguments(&["-T", "-o", "ControlMaster=no"], Some(line))
    }

    fn arguments(&self, first: &[&str], line: Option<String>) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = first.iter().map(OsString::from).collect();
        arguments.extend(self.common.iter().cloned());
        arguments.extend(["-l".into(), OsString::from(&self.user)]);
        arguments.extend(["--".into(), OsString::from(&self.host)]);
        arguments.extend(line.map(OsString::from));
        arguments
    }

    /// Whether the connection of the session is up.
    pub fn is_connected(&self) -> bool {
        self.connection.exists()
    }
}

/// Where ssh(1) is.
pub fn program(
    account: &Account,
    environment: &BTreeMap<String, String>,
) -> Result<PathBuf, Fault> {
    let path = account.search_path(environment);
    crate::launch::find("ssh", &path).ok_or_else(|| {
        Fault::unavailable("this machine has no ssh; install openssh-client").code("NO_SSH")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(change: impl FnOnce(&mut Asked)) -> Result<Option<Target>, Fault> {
        let mut asked = Asked {
            ssh_host: Some("host".to_owned()),
            ssh_user: Some("me".to_owned()),
            ..Asked::default()
        };
        change(&mut asked);
        asked.read()
    }

    #[test]
    fn what_is_half_named_or_no_name_is_refused() {
        assert_eq!(Asked::default().read().unwrap(), None);
        assert_eq!(asked(|_| {}).unwrap().unwrap().to_string(), "me@host:22");
        let wrong: [fn(&mut Asked); 16] = [
            |asked| asked.ssh_user = None,
            |asked| asked.ssh_host = None,
            |asked| asked.ssh_host = Some("-oProxyCommand=reboot".to_owned()),
            |asked| asked.ssh_host = Some("a b".to_owned()),
            |asked| asked.ssh_host = Some("a;b".to_owned()),
            |asked| asked.ssh_user = Some("-l".to_owned()),
            |asked| asked.ssh_user = Some("me\n".to_owned()),
            |asked| asked.ssh_port = Some(Named::Number(0)),
            |asked| asked.ssh_port = Some(Named::Text("65536".to_owned())),
            |asked| asked.ssh_port = Some(Named::Text("22 -oX".to_owned())),
            |asked| asked.ssh_password = Some("a\nb".to_owned()),
            |asked| asked.ssh_key = Some("bm8=".to_owned()),
            |asked| asked.ssh_key = Some("!".to_owned()),
            |asked| asked.socks5_user = Some("me".to_owned()),
            |asked| asked.socks5_host = Some("-x".to_owned()),
            |asked| {
                asked.socks5_host = Some("proxy".to_owned());
                asked.socks5_port = Some(Named::Number(70_000));
            },
        ];
        for (number, change) in wrong.into_iter().enumerate() {
            let fault = asked(change).unwrap_err();
            assert_eq!(fault.code, Some("INVALID_SSH"), "{number}: {fault}");
        }
        let only_a_password = Asked {
            ssh_password: Some("x".to_owned()),
            ..Asked::default()
        };
        assert!(only_a_password.read().is_err());
    }

    #[test]
    fn secrets_are_in_files_of_their_own_and_in_no_argument() {
        let state = tempfile::tempdir().unwrap();
        let workdir = Workdir::create(state.path(), &Account::current()).unwrap();
        let target = asked(|asked| {
            asked.ssh_password = Some("it's secret %h".to_owned());
            asked.ssh_key = Some("LS0tLS1CRUdJTiBYLS0tLS0Ka2V5".to_owned());
            asked.socks5_host = Some("proxy".to_owned());
            asked.socks5_user = Some("someone".to_owned());
            asked.socks5_pass = Some("hush".to_owned());
        })
        .unwrap()
        .unwrap();
        let reach = target
            .prepare(
                Path::new("/usr/bin/ssh"),
                Some(Path::new("/opt/a b%/kitd")),
                &workdir,
            )
            .unwrap();
        let words: Vec<String> = reach
            .session()
            .into_iter()
            .chain(reach.command(
                "ls",
                &BTreeMap::from([("A".into(), "b'c".into())]),
                Some("/x y"),
            ))
            .map(|word| word.into_string().unwrap())
            .collect();
        let line = words.join(" ");
        assert!(!line.contains("secret") && !line.contains("hush"), "{line}");
        assert!(line.contains("'/opt/a b%%/kitd' --socks5 "), "{line}");
        assert_eq!(words.last().unwrap(), "export A='b'\\''c'; cd '/x y' && ls");
        assert!(!format!("{target:?}").contains("secret"));
        let read = |name: &str| std::fs::read_to_string(workdir.path.join(name)).unwrap();
        assert_eq!(read("key"), "-----BEGIN X-----\nkey\n");
        let told = std::process::Command::new(workdir.path.join("askpass"))
            .arg("me@host's password: ")
            .output()
            .unwrap();
        assert_eq!(told.stdout, b"it's secret %h");
        let other = std::process::Command::new(workdir.path.join("askpass"))
            .arg("Are you sure?")
            .output()
            .unwrap();
        assert!(!other.status.success() && other.stdout.is_empty());
    }
}
