//! The names of a node: its own name server, and `hoody dns`, which tells whether the world finds
//! them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use certs::DnsChallenge;
use certs::SystemClock;
use certs::dns::check::{Finding, Grade, Plan, ROOTS, check, records_for};
use certs::dns::update::TsigKey;
use certs::dns::{Limits, Program, Server, Update, ZoneSettings};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::addresses;
use crate::config::{self, Config, Mode};

pub const NAME: &str = "dns";
/// For one answer, where nothing else is said.
const PATIENCE: &str = "3";
/// What its name server shows for a node, below the store of certificates.
const SHOWN: &str = "dns";
/// A key of an update's is some hundred bytes.
const KEY_BYTES: u64 = 4 << 10;

pub fn command() -> Command {
    let json = Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("Print what was found as JSON");
    let roots = Arg::new("roots")
        .long("roots")
        .value_name("ADDRESSES")
        .value_delimiter(',')
        .value_parser(value_parser!(IpAddr))
        .help("Name servers to begin with [default: those of the root]");
    let patience = Arg::new("patience")
        .long("patience")
        .value_name("SECONDS")
        .value_parser(value_parser!(u64).range(1..=60))
        .default_value(PATIENCE)
        .help("How long to wait for one answer");
    let issuer = Arg::new("issuer").long("issuer").value_name("NAME").help(
        "Who is to certify the names, as letsencrypt.org [default: the first of --dns-issuers, or whom the directory names]",
    );
    Command::new(NAME)
        .about("The node's names: check whether the world finds them, records to type at the registrar, try a challenge")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            config::options(Command::new("check").about(
                "Tell whether delegation, ports and records are right, and what to change; exit code 1 where something is wrong",
            ))
            .args([json, roots, patience, issuer]),
        )
        .subcommand(config::options(
            Command::new("records").about("Print the records that the domain above needs"),
        ))
        .subcommand(config::options(
            Command::new("try").about(
                "Show a DNS-01 challenge the way that the settings say, and take it back",
            ),
        ))
}

pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (verb, matches) = matches.subcommand().expect("clap asks for a subcommand");
    let config = Config::load(matches)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match verb {
        "check" => runtime.block_on(run_check(&config, matches)),
        "records" => run_records(&config),
        _ => runtime.block_on(run_try(&config)),
    }
}

async fn run_check(config: &Config, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    if config.dns.zones.is_empty() {
        bail!(
            "this node answers for no zone; name the delegated ones with --dns-zones, such as {}",
            config.zone.containers()
        );
    }
    let roots = match matches.get_many::<IpAddr>("roots") {
        Some(roots) => roots.copied().collect(),
        None => ROOTS.iter().filter_map(|root| root.parse().ok()).collect(),
    };
    let issuer = matches.get_one::<String>("issuer");
    let seconds = matches
        .get_one::<u64>("patience")
        .expect("it has a default");
    let plan = Plan {
        zones: zones(config)?,
        hosts: hosts(config),
        addresses: announced(config)?,
        ports: vec![config.http, config.https],
        issuer: issuer.cloned().or_else(|| expected_issuer(config)),
        roots,
        port: config.dns.port,
        patience: Duration::from_secs(*seconds),
    };
    let findings = check(&plan).await?;
    if matches.get_flag("json") {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        findings.iter().for_each(show);
    }
    let is_wrong = findings.iter().any(|it| it.grade == Grade::Wrong);
    Ok(if is_wrong {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn show(finding: &Finding) {
    let grade = match finding.grade {
        Grade::Good => "good",
        Grade::Doubtful => "doubtful",
        Grade::Wrong => "WRONG",
    };
    println!("{grade:<9}{}: {}", finding.about, finding.what);
    if let Some(next) = &finding.next {
        println!("{:<9}→ {next}", "");
    }
    for record in &finding.records {
        println!("{:<13}{record}", "");
    }
}

fn run_records(config: &Config) -> anyhow::Result<ExitCode> {
    for zone in zones(config)? {
        for record in records_for(&zone)? {
            println!("{record}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_try(config: &Config) -> anyhow::Result<ExitCode> {
    let Some(way) = challenge(config, None)? else {
        bail!(
            "no way is set: name a server with --challenge-servers or a program with \
             --challenge-program; the node's own name server is looked at by `hoody dns check`"
        );
    };
    for host in [config.zone.api().to_owned(), node_host(config)] {
        let name = format!("_acme-challenge.{host}");
        let value = "hoody-dns-try-hoody-dns-try-hoody-dns-try-0";
        way.present(&name, value).await?;
        println!("shown      {name}");
        way.withdraw(&name, value).await?;
        println!("taken back {name}");
    }
    Ok(ExitCode::SUCCESS)
}

/// The name server for the proxy to run, where zones are delegated to this node.
pub fn server(config: &Config) -> anyhow::Result<Option<proxy::Dns>> {
    if config.dns.zones.is_empty() {
        return Ok(None);
    }
    let mut server = Server::new(zones(config)?, Limits::default(), SystemClock)?;
    if config.certificates.mode == Mode::Acme {
        // Whichever process or node is asked shows what another one is proving.
        server = server.shown_in(&config.certificates.store.join(SHOWN))?;
    }
    Ok(Some(proxy::Dns {
        listen: listen(config)?,
        server: Arc::new(server),
    }))
}

/// The way in which DNS-01 challenges are shown: a program, a server that takes updates, or the
/// node's own name server.
pub fn challenge(
    config: &Config,
    own: Option<Arc<Server>>,
) -> anyhow::Result<Option<Arc<dyn DnsChallenge>>> {
    let settings = &config.challenge;
    if let Some(program) = &settings.program {
        return Ok(Some(Arc::new(Program::new(program.clone()))));
    }
    if settings.servers.is_empty() {
        return Ok(own.map(|own| own as Arc<dyn DnsChallenge>));
    }
    let key = match &settings.key {
        Some(path) => {
            let failed = || format!("could not read the key {}", path.display());
            let length = std::fs::metadata(path).with_context(failed)?.len();
            if length > KEY_BYTES {
                bail!("{} is no key: it has {length} bytes", path.display());
            }
            let text = std::fs::read_to_string(path).with_context(failed)?;
            Some(TsigKey::parse(&text).with_context(failed)?)
        }
        None => None,
    };
    let servers = settings.servers.clone();
    let update = Update::new(servers, settings.zone.as_deref(), key, SystemClock)?;
    Ok(Some(Arc::new(update)))
}

/// Who is to certify the names of this node, where that is known.
fn expected_issuer(config: &Config) -> Option<String> {
    match &config.dns.issuers {
        Some(issuers) => issuers.first().cloned(),
        None if config.certificates.mode == Mode::Acme => {
            let directory = &config.certificates.directory;
            certs::acme::issuers(&config.certificates.store, directory)
                .ok()?
                .into_iter()
                .next()
        }
        None => None,
    }
}

/// Where the name server listens; nowhere where there is none.
pub fn listen(config: &Config) -> anyhow::Result<Vec<SocketAddr>> {
    if config.dns.zones.is_empty() {
        return Ok(Vec::new());
    }
    let mut addresses = match &config.dns.bind {
        Some(addresses) => addresses.clone(),
        None if config.zone.is_local() => {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        }
        // Not all of them: other resolvers of this machine are on the loopback and on bridges.
        None => addresses::of_default_interfaces(),
    };
    addresses = crate::ports::present(&addresses);
    if addresses.is_empty() {
        bail!(
            "no interface of this machine leads out; name addresses to answer on with --dns-bind"
        );
    }
    let port = config.dns.port;
    Ok(addresses
        .into_iter()
        .map(|ip| SocketAddr::new(ip, port))
        .collect())
}

/// The delegated zones with the names of this node in them.
fn zones(config: &Config) -> anyhow::Result<Vec<ZoneSettings>> {
    let (hosts, addresses) = (hosts(config), announced(config)?);
    let zone = |origin: &String| {
        let beneath = format!(".{origin}");
        if !hosts
            .iter()
            .any(|host| host == origin || host.ends_with(&beneath))
        {
            bail!(
                "the zone {origin} holds no name of this node; its names are {}",
                hosts.join(", ")
            );
        }
        Ok(ZoneSettings {
            origin: origin.clone(),
            hosts: hosts.clone(),
            addresses: addresses.clone(),
            servers: config.dns.servers.clone(),
            issuers: config.dns.issuers.clone().unwrap_or_default(),
        })
    };
    config.dns.zones.iter().map(zone).collect()
}

fn node_host(config: &Config) -> String {
    format!("{}.{}", config.zone.node(), config.zone.containers())
}

/// Every name that leads to this node.
fn hosts(config: &Config) -> Vec<String> {
    let (api, node) = (config.zone.api(), node_host(config));
    vec![
        api.to_owned(),
        format!("*.{api}"),
        format!("*.{node}"),
        node,
    ]
}

/// Where the names lead. A private address is told only where somebody said so.
fn announced(config: &Config) -> anyhow::Result<Vec<IpAddr>> {
    if let Some(addresses) = &config.dns.addresses {
        return Ok(addresses.clone());
    }
    let found = addresses::of_default_interfaces();
    let public: Vec<IpAddr> = found
        .iter()
        .copied()
        .filter(|ip| addresses::is_public(*ip))
        .collect();
    if public.is_empty() {
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        bail!(
            "this machine has no public address itself ({}); say where its names lead with \
             --dns-addresses, also if that is a private address",
            if found.is_empty() {
                "and no way out".to_owned()
            } else {
                found.join(", ")
            }
        );
    }
    Ok(public)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(words: &[&str]) -> Config {
        let state = tempfile::tempdir().unwrap();
        let state = state.path().to_str().unwrap();
        let words = [&["hoody", "--state", state], words].concat();
        let matches = config::options(Command::new("hoody"))
            .try_get_matches_from(words)
            .unwrap();
        Config::load(&matches).unwrap()
    }

    #[test]
    fn a_node_without_zones_has_no_name_server() {
        let config = config(&["--domain", "example.org"]);
        assert!(server(&config).unwrap().is_none());
        assert!(listen(&config).unwrap().is_empty());
        assert!(challenge(&config, None).unwrap().is_none());
    }

    #[test]
    fn a_zone_has_the_names_of_the_node() {
        let config = config(&[
            "--domain",
            "example.org",
            "--node",
            "n",
            "--dns-zones",
            "n.containers.example.org,api.example.org",
            "--dns-addresses",
            "10.0.0.1",
            "--dns-bind",
            "127.0.0.1",
            "--dns-port",
            "5353",
        ]);
        let dns = server(&config).unwrap().unwrap();
        assert_eq!(dns.listen, ["127.0.0.1:5353".parse().unwrap()]);
        let zones = dns.server.settings();
        assert_eq!(zones.len(), 2);
        assert_eq!(zones[0].addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        for host in [
            "api.example.org",
            "*.api.example.org",
            "n.containers.example.org",
            "*.n.containers.example.org",
        ] {
            assert!(zones[0].hosts.iter().any(|it| it == host), "{host}");
        }
        assert!(challenge(&config, Some(dns.server)).unwrap().is_some());
    }

    #[test]
    fn a_zone_without_a_name_of_the_node_is_refused() {
        let config = config(&[
            "--domain",
            "example.org",
            "--dns-zones",
            "example.net",
            "--dns-addresses",
            "10.0.0.1",
        ]);
        let error = server(&config).expect_err("a stranger's zone").to_string();
        assert!(
            error.contains("the zone example.net holds no name"),
            "{error}"
        );
    }

    #[test]
    fn a_way_to_show_challenges_is_made_from_settings() {
        let home = tempfile::tempdir().unwrap();
        let key = home.path().join("key");
        let path = key.to_str().unwrap();
        let with_key = config(&["--challenge-servers", "192.0.2.1", "--challenge-key", path]);
        let failed = |config: &Config| format!("{:#}", challenge(config, None).err().expect("bad"));
        assert!(failed(&with_key).contains("could not read the key"));
        std::fs::write(&key, "key k { algorithm hmac-md5; secret \"aGk=\"; };").unwrap();
        assert!(failed(&with_key).contains("`hmac-md5` is not supported"));
        std::fs::write(&key, "key k { algorithm hmac-sha256; secret \"aGk=\"; };").unwrap();
        assert!(challenge(&with_key, None).unwrap().is_some());
        let program = config(&["--challenge-program", "/usr/local/bin/show"]);
        assert!(challenge(&program, None).unwrap().is_some());
    }
}
