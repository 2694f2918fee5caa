//! The certificates of this machine's node: what is shown where they come from, and the commands
//! of its administrator.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use certs::acme::{Https, Limits, Parts, Settings, Target, TellIssuers};
use certs::dns::Server;
use certs::{Acme, DnsChallenge, Files, Holding, Holdings, Local, Resolver, SystemClock};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::{self, Config, Mode};
use crate::state::State;

/// The name of the command.
pub const CERTS: &str = "certs";

/// Certificates that are shown, and whoever has them.
pub struct Shown {
    pub resolver: Arc<Resolver>,
    pub proxy: proxy::Certificates,
    /// Renews for as long as it is held.
    _local: Arc<Local>,
}

/// Have the certificates of the node, and have them followed and renewed. `dns` shows TXT records
/// for its names; `names` is the node's own name server.
pub fn open(
    config: &Config,
    state: &State,
    dns: Option<Arc<dyn DnsChallenge>>,
    names: Option<Arc<Server>>,
) -> anyhow::Result<Shown> {
    let local = Arc::new(open_local(config, state)?);
    local
        .renew_in_background()
        .context("could not start the thread that renews certificates")?;
    Ok(match config.certificates.mode {
        Mode::Local => Shown {
            resolver: local.resolver(),
            proxy: proxy::Certificates {
                acme: None,
                holdings: Some(local.clone()),
            },
            _local: local,
        },
        Mode::Files => {
            let files = Arc::new(open_files(config, &local)?);
            files
                .look_in_background()
                .context("could not start the thread that looks for certificates")?;
            Shown {
                resolver: files.resolver(),
                proxy: proxy::Certificates {
                    acme: None,
                    holdings: Some(files),
                },
                _local: local,
            }
        }
        Mode::Acme => {
            let names = names.filter(|_| config.dns.issuers.is_none());
            let issuers = names.map(|names| {
                Arc::new(move |issuers: &[String]| names.certified_by(issuers)) as Arc<TellIssuers>
            });
            let acme = open_acme(config, &local, dns, issuers)?;
            acme.start()?;
            Shown {
                resolver: acme.resolver(),
                proxy: proxy::Certificates {
                    acme: Some(acme.clone()),
                    holdings: Some(acme),
                },
                _local: local,
            }
        }
    })
}

/// What control tells the administrator: read from the files of the node with every question, as
/// the proxy that renews them is another process.
pub fn told(config: &Config, state: &State) -> control::certificates::Certificates {
    let (config, root) = (config.clone(), state.root().to_owned());
    control::certificates::Certificates::new(move || {
        let state = State::open(&root);
        let listed = state.and_then(|state| holdings(&config, &state));
        let listed = listed.map_err(|error| format!("{error:#}"))?;
        Ok(listed.into_iter().map(told_of).collect())
    })
}

fn told_of(holding: Holding) -> control::certificates::Told {
    let millis = |time: SystemTime| {
        let time = jiff::Timestamp::try_from(time).ok();
        time.map(jiff::Timestamp::as_millisecond)
    };
    control::certificates::Told {
        names: holding.names,
        class: holding.class.as_str().to_owned(),
        mode: holding.mode.to_owned(),
        ends: holding.ends.and_then(millis),
        renews: holding.renews.and_then(millis),
        error: holding.error,
    }
}

/// What there is, as the files of the node say.
fn holdings(config: &Config, state: &State) -> anyhow::Result<Vec<Holding>> {
    let local = open_local(config, state)?;
    Ok(match config.certificates.mode {
        Mode::Local => local.holdings(),
        Mode::Files => open_files(config, &local)?.holdings(),
        Mode::Acme => open_acme(config, &local, None, None)?.holdings(),
    })
}

fn open_local(config: &Config, state: &State) -> Result<Local, certs::Error> {
    let clock = Arc::new(SystemClock);
    Local::open_or_create(&state.pki(), &config.domain, &config.node, clock)
}

fn open_files(config: &Config, local: &Local) -> Result<Files, certs::Error> {
    Files::open(
        &config.certificates.files,
        Arc::new(SystemClock),
        local.resolver(),
    )
}

/// What comes from a directory; beneath it, the private authority's for names that have none yet.
fn open_acme(
    config: &Config,
    local: &Local,
    dns: Option<Arc<dyn DnsChallenge>>,
    issuers: Option<Arc<TellIssuers>>,
) -> anyhow::Result<Arc<Acme>> {
    let certificates = &config.certificates;
    let settings = Settings {
        directory: certificates.directory.clone(),
        store: certificates.store.clone(),
        contacts: certificates.contacts.clone(),
        external: certificates.external()?,
        targets: Target::of_node(&config.domain, &config.node),
        own: config.domain.clone(),
        owner: machine()?,
        limits: Limits::default(),
    };
    let parts = Parts {
        http: Arc::new(Https::new(certificates.root.as_deref())?),
        dns,
        clock: Arc::new(SystemClock),
        dice: Arc::new(certs::acme::chance),
        issuers,
    };
    Ok(Acme::open(settings, parts, local.resolver())?)
}

/// What tells this machine from others that share a store.
fn machine() -> anyhow::Result<String> {
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    match id.trim() {
        "" => {
            let name = rustix::system::uname();
            let name = name.nodename().to_str();
            Ok(name.context("this machine's name is not text")?.to_owned())
        }
        id => Ok(id.to_owned()),
    }
}

pub fn command() -> Command {
    let name = || {
        Arg::new("name")
            .value_name("NAME")
            .required(true)
            .help("A name that the certificate is for, such as api.example.org")
    };
    Command::new(CERTS)
        .about("The certificates of this machine's node")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            config::options(Command::new("list").about(
                "List certificates: until when, when they are replaced, and what failed last",
            ))
            .arg(
                Arg::new("json")
                    .long("json")
                    .action(ArgAction::SetTrue)
                    .help("As JSON"),
            ),
            config::options(Command::new("renew").about(
                "Have a certificate from the directory replaced within a minute, whatever failed before",
            ))
            .arg(name()),
            config::options(Command::new("revoke").about(
                "Tell the world not to believe a certificate any more; a new one with another key is ordered",
            ))
            .arg(name())
            .arg(
                Arg::new("key-lost")
                    .long("key-lost")
                    .action(ArgAction::SetTrue)
                    .help("Because somebody else may have its key"),
            ),
            config::options(
                Command::new("rollover")
                    .about("Give the account at the directory another key; the old one is good for nothing then"),
            ),
        ])
}

pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (verb, matches) = matches.subcommand().context("clap asks for a verb")?;
    let config = Config::load(matches)?;
    let state = State::open(&config.state)?;
    if verb == "list" {
        let holdings = holdings(&config, &state)?;
        match matches.get_flag("json") {
            true => println!("{}", json(&holdings)),
            false => print!("{}", table(&holdings, SystemTime::now())),
        }
        return Ok(ExitCode::SUCCESS);
    }
    if config.certificates.mode != Mode::Acme {
        bail!(
            "`hoody certs {verb}` is for certificates from a directory, and this node has none: \
             certificates.mode is {}",
            config.certificates.mode.name()
        );
    }
    let local = open_local(&config, &state)?;
    // Nothing is ordered here: that is the proxy's.
    let acme = open_acme(&config, &local, None, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let name = || matches.get_one::<String>("name").map_or("", String::as_str);
    match verb {
        "renew" => {
            acme.hasten(name())?;
            println!("the certificate for {} is ordered within a minute", name());
        }
        "revoke" => {
            runtime.block_on(Box::pin(acme.revoke(name(), matches.get_flag("key-lost"))))?;
            println!("the certificate for {} is revoked", name());
        }
        _ => {
            runtime.block_on(Box::pin(acme.roll_over()))?;
            println!("the account has another key");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn time(time: Option<SystemTime>) -> String {
    let time = time.and_then(|time| jiff::Timestamp::try_from(time).ok());
    time.map_or_else(
        || "-".to_owned(),
        |time| time.strftime("%Y-%m-%d %H:%M").to_string(),
    )
}

fn json(holdings: &[Holding]) -> serde_json::Value {
    let stamp = |time: Option<SystemTime>| {
        let time = time.and_then(|time| jiff::Timestamp::try_from(time).ok());
        time.map(|time| time.to_string())
    };
    let row = |it: &Holding| {
        serde_json::json!({
            "names": it.names,
            "class": it.class,
            "mode": it.mode,
            "not_after": stamp(it.ends),
            "next_renewal": stamp(it.renews),
            "last_error": it.error,
        })
    };
    holdings.iter().map(row).collect()
}

/// A row for each certificate, and beneath it what failed last.
fn table(holdings: &[Holding], now: SystemTime) -> String {
    let names: Vec<String> = holdings.iter().map(|it| it.names.join(", ")).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0).max(5);
    let mut text = format!(
        "{:<width$}  {:<6} {:<6} {:<17} {:<6} {}\n",
        "NAMES", "CLASS", "MODE", "NOT AFTER (UTC)", "DAYS", "NEXT RENEWAL"
    );
    for (names, it) in names.iter().zip(holdings) {
        let left = it.ends.map(|ends| ends.duration_since(now));
        let days = match left {
            None => "none".to_owned(),
            Some(Ok(left)) => (left.as_secs() / Duration::from_secs(86_400).as_secs()).to_string(),
            Some(Err(_)) => "ended".to_owned(),
        };
        let line = format!(
            "{names:<width$}  {:<6} {:<6} {:<17} {days:<6} {:<17}",
            it.class.as_str(),
            it.mode,
            time(it.ends),
            time(it.renews)
        );
        text.push_str(line.trim_end());
        text.push('\n');
        if let Some(error) = &it.error {
            text.push_str(&format!("    last error: {error}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use certs::Class;

    use super::*;

    #[test]
    fn the_list_says_what_there_is_and_what_failed() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let holding = |names: &[&str], ends: Option<i64>, error: Option<&str>| Holding {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            class: Class::Api,
            mode: "acme",
            ends: ends.map(|days| match u64::try_from(days) {
                Ok(days) => now + Duration::from_secs(days * 86_400),
                Err(_) => now - Duration::from_secs(days.unsigned_abs() * 86_400),
            }),
            renews: None,
            error: error.map(str::to_owned),
        };
        let holdings = [
            holding(&["api.a.example", "*.api.a.example"], Some(12), None),
            holding(&["shop.example"], Some(-1), Some("the line is cut")),
            holding(&["new.example"], None, None),
        ];
        let text = table(&holdings, now);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1],
            "api.a.example, *.api.a.example  api    acme   2027-01-27 08:00  12     -"
        );
        assert!(lines[2].contains(" ended "), "{text}");
        assert_eq!(lines[3], "    last error: the line is cut");
        assert!(lines[4].contains(" none "), "{text}");
        assert_eq!(json(&holdings)[1]["last_error"], "the line is cut");
        assert_eq!(json(&holdings)[0]["not_after"], "2027-01-27T08:00:00Z");
    }
}
