//! What a node is told: flags over the environment over `hoody.toml` over defaults.
//!
//! This module and `main` are the only ones that read the environment.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Arg, ArgMatches, Command, ValueHint};
use control::limits::{self, LEAST_MEMORY, LEAST_PROCESSES};
use control::runtime::Limits;
use routes::Zone;

mod certificates;
mod dns;
mod prespawn;

pub use certificates::{Certificates, Mode};
pub use dns::{Challenge, Dns};

/// The file of settings in a state directory.
pub const FILE: &str = "hoody.toml";
/// The longest path of a state directory: the sockets in it have 107 bytes for theirs, and the
/// longest is `containers/{24 digits}/kit.sock`.
const STATE_BYTES: usize = 60;

/// Something that can be set: `engine.name` is `--engine-name`, `HOODY_ENGINE_NAME`, and `name`
/// in the section `engine` of the file.
struct Setting {
    key: &'static str,
    value: &'static str,
    help: &'static str,
}

const SETTINGS: &[Setting] = &[
    Setting {
        key: "domain",
        value: "NAME",
        help: "Domain of the node [default: hoody.localhost]",
    },
    Setting {
        key: "node",
        value: "LABEL",
        help: "This node's label in the names of its containers [default: node-1]",
    },
    Setting {
        key: "http",
        value: "PORT",
        help: "Port for HTTP [default: 80; runtime local: 8080]",
    },
    Setting {
        key: "https",
        value: "PORT",
        help: "Port for HTTPS [default: 443; runtime local: 8443]",
    },
    Setting {
        key: "bind",
        value: "ADDRESSES",
        help: "Addresses to listen on, with commas between [default: the loopback for a local domain, else all]",
    },
    Setting {
        key: "senders",
        value: "NETWORKS",
        help: "Load balancers in front that speak the PROXY protocol, with commas between, such as 10.0.0.0/8 [default: none]",
    },
    Setting {
        key: "resolvers",
        value: "system|off|SERVERS",
        help: "Who is asked where custom domains lead: the DNS servers of this machine, nobody, or servers with commas between, such as 192.0.2.53 or [2001:db8::53]:5353 [default: system; off for a local domain]",
    },
    Setting {
        key: "dns.zones",
        value: "NAMES",
        help: "Zones that are delegated to this node, which answers for their names itself, with commas between [default: none]",
    },
    Setting {
        key: "dns.addresses",
        value: "ADDRESSES",
        help: "Addresses that the names of this node lead to [default: the public ones of this machine]",
    },
    Setting {
        key: "dns.bind",
        value: "ADDRESSES",
        help: "Addresses to answer for names on [default: those of the interfaces that lead out]",
    },
    Setting {
        key: "dns.port",
        value: "PORT",
        help: "Port for names [default: 53]",
    },
    Setting {
        key: "dns.servers",
        value: "NAMES",
        help: "Names of the zones' name servers, as the domain above has them [default: ns in each zone]",
    },
    Setting {
        key: "dns.issuers",
        value: "NAMES|any",
        help: "Who may certify names of the zones (CAA), as letsencrypt.org [default: whom the directory names; else any]",
    },
    Setting {
        key: "challenge.servers",
        value: "ADDRESSES",
        help: "Name server that takes updates (RFC 2136) for DNS-01; those after it are waited for, too [default: none]",
    },
    Setting {
        key: "challenge.zone",
        value: "NAME",
        help: "The zone that is updated there [default: the server is asked]",
    },
    Setting {
        key: "challenge.key",
        value: "FILE",
        help: "The key that signs updates, as tsig-keygen writes it [default: none]",
    },
    Setting {
        key: "challenge.program",
        value: "FILE",
        help: "Program that shows DNS-01 challenges: `FILE present|withdraw NAME VALUE` [default: none]",
    },
    Setting {
        key: "runtime",
        value: "incus|local",
        help: "What runs containers [default: incus; without root: local]",
    },
    Setting {
        key: "engine.name",
        value: "NAME",
        help: "Name of the engine's project, pool and bridge [default: hoody]",
    },
    Setting {
        key: "engine.socket",
        value: "FILE",
        help: "The engine's socket [default: /var/lib/incus/unix.socket]",
    },
    Setting {
        key: "engine.pool",
        value: "SIZE",
        help: "Size of the storage pool, as 40GiB, when it is made [default: 64GiB, or what is less: four fifths of the free space]",
    },
    Setting {
        key: "engine.ksm",
        value: "on|off",
        help: "Have the kernel keep pages of memory once that are the same in several containers (KSM). It saves memory where there are many; who measures how long writes take may find out what others hold [default: off]",
    },
    Setting {
        key: "machine.memory",
        value: "SIZE",
        help: "Memory that one container may take, as 8GiB [default: half of this machine's]",
    },
    Setting {
        key: "machine.disk",
        value: "SIZE",
        help: "Disk that one container may take [default: 20GiB, at most half of the storage pool]",
    },
    Setting {
        key: "machine.processes",
        value: "NUMBER",
        help: "Processes and threads that one container may have [default: 16384]",
    },
    Setting {
        key: "prespawn.pools",
        value: "IMAGE=NUMBER|off",
        help: "Machines that are booted in advance, for whoever makes a container next, with commas between kinds; IMAGE/bare is one without the kit, IMAGE/memory:512MiB one with limits (cpus, memory, disk, processes) [default: of debian-13 one for every 8GiB of this machine's memory, at most 4]",
    },
    Setting {
        key: "prespawn.memory",
        value: "SIZE",
        help: "Memory that they may hold together [default: a thirty-second of this machine's]",
    },
    Setting {
        key: "images",
        value: "DIRECTORY",
        help: "Where built images are kept [default: images in the state directory]",
    },
    Setting {
        key: "kitd",
        value: "FILE",
        help: "The kit's program [default: kitd beside this program]",
    },
    Setting {
        key: "setup",
        value: "DIRECTORY",
        help: "The engine's set-up scripts [default: setup beside this program]",
    },
    Setting {
        key: "recipe",
        value: "DIRECTORY",
        help: "The recipe of the base image [default: image beside this program]",
    },
    Setting {
        key: "certificates.mode",
        value: "local|acme|files",
        help: "Where certificates come from: the private authority of this node, a directory that speaks ACME, or files [default: local]",
    },
    Setting {
        key: "certificates.files",
        value: "DIRECTORY",
        help: "For files: NAME.crt and NAME.key, NAME.pem with both, or NAME/fullchain.pem and NAME/privkey.pem",
    },
    Setting {
        key: "certificates.root",
        value: "FILE",
        help: "Roots in PEM form to trust beside the system's: of the directory, or of whoever signed the files",
    },
    Setting {
        key: "certificates.store",
        value: "DIRECTORY",
        help: "For acme: where accounts and certificates are kept; nodes may share it [default: acme in the state directory]",
    },
    Setting {
        key: "acme.directory",
        value: "URL",
        help: "The directory; whoever sets the mode agrees to its terms [default: Let's Encrypt]",
    },
    Setting {
        key: "acme.staging",
        value: "yes|no",
        help: "Use the staging directory of Let's Encrypt, to try things out: no browser believes it [default: no]",
    },
    Setting {
        key: "acme.contact",
        value: "ADDRESSES",
        help: "Mail addresses for the directory to write to, with commas between [default: none]",
    },
    Setting {
        key: "eab.id",
        value: "ID",
        help: "Key identifier of an external account that the directory asks for",
    },
    Setting {
        key: "eab.key",
        value: "FILE",
        help: "File with the key of that account, in base64url as the directory gave it",
    },
    Setting {
        key: "metrics.proxy",
        value: "ADDRESS",
        help: "Loopback address for the proxy's metrics, or off [default: 127.0.0.1:9642]",
    },
    Setting {
        key: "metrics.control",
        value: "ADDRESS",
        help: "Loopback address for control's metrics, or off [default: 127.0.0.1:9643]",
    },
];

impl Setting {
    fn flag(&self) -> String {
        self.key.replace('.', "-")
    }

    fn variable(&self) -> String {
        format!("HOODY_{}", self.key.replace('.', "_").to_ascii_uppercase())
    }
}

/// What runs containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    Incus,
    Local,
}

impl Runtime {
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Incus => "incus",
            Runtime::Local => "local",
        }
    }
}

/// The settings of a node.
#[derive(Debug, Clone)]
pub struct Config {
    /// The state directory.
    pub state: PathBuf,
    pub domain: String,
    pub node: String,
    pub zone: Zone,
    pub http: u16,
    pub https: u16,
    /// Addresses to listen on, where they were named.
    bind: Option<Vec<IpAddr>>,
    /// Load balancers that say for whom they speak.
    pub senders: Vec<proxy::Network>,
    /// Who is asked where custom domains lead.
    pub resolvers: proxy::Resolvers,
    /// The name server of this node.
    pub dns: Dns,
    /// Other ways to show DNS-01 challenges.
    pub challenge: Challenge,
    pub runtime: Runtime,
    /// Whether somebody chose it.
    pub is_runtime_chosen: bool,
    pub engine_name: String,
    pub engine_socket: PathBuf,
    /// Of the storage pool, where it was said.
    pub pool_size: Option<u64>,
    /// Whether the engine's machines may share pages of memory that are the same.
    pub merges_memory: bool,
    /// What one container may take, in bytes.
    machine_memory: Option<u64>,
    machine_disk: Option<u64>,
    machine_processes: u32,
    /// Machines that are kept ready.
    prespawn_pools: Vec<control::prespawn::Pool>,
    prespawn_memory: Option<u64>,
    pub images: PathBuf,
    pub kitd: PathBuf,
    pub setup: PathBuf,
    pub recipe: PathBuf,
    pub certificates: Certificates,
    pub proxy_metrics: Option<SocketAddr>,
    pub control_metrics: Option<SocketAddr>,
    /// What flags and the environment said: `up` keeps it for the commands that come later.
    chosen: BTreeMap<&'static str, String>,
}

/// Add the options of a node to one of its commands.
pub fn options(command: Command) -> Command {
    let state = Arg::new("state")
        .long("state")
        .value_name("DIRECTORY")
        .value_hint(ValueHint::DirPath)
        .help("State directory of the node [default: /var/lib/hoody; without root: ~/.local/state/hoody] [env: HOODY_STATE]");
    let settings = SETTINGS.iter().map(|setting| {
        Arg::new(setting.key)
            .long(setting.flag())
            .value_name(setting.value)
            .help(format!("{} [env: {}]", setting.help, setting.variable()))
            .help_heading("Settings")
    });
    command.arg(state).args(settings)
}

/// What a configuration is made from, so that tests own all of it.
struct Sources<'a> {
    flag: &'a dyn Fn(&str) -> Option<String>,
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    is_root: bool,
    /// The directory of this program.
    beside: &'a Path,
}

/// A value, and who set it.
struct Value {
    text: String,
    source: String,
}

impl Config {
    /// The settings for a command with [`options`].
    pub fn load(matches: &ArgMatches) -> anyhow::Result<Config> {
        Config::load_with(&|key| matches.get_one::<String>(key).cloned())
    }

    /// The same for a machine that turned out unable to run system containers.
    pub fn load_local(matches: &ArgMatches) -> anyhow::Result<Config> {
        Config::load_with(&|key| match key {
            "runtime" => Some(Runtime::Local.name().to_owned()),
            key => matches.get_one::<String>(key).cloned(),
        })
    }

    fn load_with(flag: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Config> {
        let program = env::current_exe().context("could not find out where this program is")?;
        Config::from_sources(&Sources {
            flag,
            variable: &|name| env::var_os(name),
            is_root: rustix::process::geteuid().is_root(),
            beside: program.parent().unwrap_or(Path::new("/")),
        })
    }

    fn from_sources(sources: &Sources<'_>) -> anyhow::Result<Config> {
        let state = state_directory(sources)?;
        let file = read_file(&state.join(FILE))?;
        let mut chosen = BTreeMap::new();
        let mut values = BTreeMap::new();
        for setting in SETTINGS {
            let variable = setting.variable();
            let flag =
                (sources.flag)(setting.key).map(|text| (text, format!("--{}", setting.flag())));
            let spoken = match flag {
                Some(spoken) => Some(spoken),
                None => text_variable(sources, &variable)?.map(|text| (text, variable)),
            };
            if let Some((text, source)) = spoken {
                let text = if is_path(setting) {
                    absolute(&text)?
                } else {
                    text
                };
                chosen.insert(setting.key, text.clone());
                values.insert(setting.key, Value { text, source });
            } else if let Some(text) = file.get(setting.key) {
                let source = format!("{} in {}", setting.key, state.join(FILE).display());
                values.insert(
                    setting.key,
                    Value {
                        text: text.clone(),
                        source,
                    },
                );
            }
        }
        let text = |key: &str, default: &str| {
            values
                .get(key)
                .map_or(default.to_owned(), |value| value.text.clone())
        };
        let path = |key: &str, default: PathBuf| {
            values
                .get(key)
                .map_or(default, |value| PathBuf::from(&value.text))
        };
        let runtime = match values.get("runtime") {
            None if sources.is_root => Runtime::Incus,
            None => Runtime::Local,
            Some(value) => match value.text.as_str() {
                "incus" => Runtime::Incus,
                "local" => Runtime::Local,
                other => bail!(
                    "{}: no runtime is called `{other}`; there are incus and local",
                    value.source
                ),
            },
        };
        let (http, https) = match runtime {
            Runtime::Incus => (80, 443),
            Runtime::Local => (8080, 8443),
        };
        let (http, https) = (
            port(values.get("http"), http)?,
            port(values.get("https"), https)?,
        );
        if http == https {
            bail!("HTTP and HTTPS cannot both have port {http}");
        }
        let domain = text("domain", "hoody.localhost").to_ascii_lowercase();
        let node = text("node", "node-1").to_ascii_lowercase();
        let zone = Zone::new(&domain, &node)
            .with_context(|| format!("`{domain}` cannot be the domain of node `{node}`"))?;
        let engine_name = text("engine.name", "hoody");
        check_engine_name(&engine_name)?;
        let resolvers = match values.get("resolvers") {
            Some(value) => resolvers(value)?,
            // Nobody's name leads to a machine that only itself can reach.
            None if zone.is_local() => proxy::Resolvers::Off,
            None => proxy::Resolvers::System,
        };
        let certificates = certificates::read(&values, &state, &zone)?;
        let (dns, challenge) = dns::read(&values)?;
        Ok(Config {
            resolvers,
            zone,
            http,
            https,
            bind: values.get("bind").map(addresses).transpose()?,
            senders: values
                .get("senders")
                .map(networks)
                .transpose()?
                .unwrap_or_default(),
            dns,
            challenge,
            runtime,
            is_runtime_chosen: values.contains_key("runtime"),
            engine_socket: path("engine.socket", "/var/lib/incus/unix.socket".into()),
            pool_size: size(values.get("engine.pool"))?,
            merges_memory: switch(values.get("engine.ksm"))?,
            machine_memory: size(values.get("machine.memory"))?,
            machine_disk: size(values.get("machine.disk"))?,
            machine_processes: processes(values.get("machine.processes"))?,
            prespawn_pools: prespawn::pools(
                values.get("prespawn.pools"),
                runtime,
                control::node::memory(),
            )?,
            prespawn_memory: size(values.get("prespawn.memory"))?,
            images: path("images", state.join("images")),
            kitd: path("kitd", sources.beside.join("kitd")),
            setup: path("setup", sources.beside.join("setup")),
            recipe: path("recipe", sources.beside.join("image")),
            certificates,
            proxy_metrics: metrics(values.get("metrics.proxy"), 9642)?,
            control_metrics: metrics(values.get("metrics.control"), 9643)?,
            domain,
            node,
            engine_name,
            state,
            chosen,
        })
    }

    /// What each container may take, where `space` is what the disks of all share.
    pub fn machine_limits(&self, space: Option<u64>) -> Limits {
        let memory = self.machine_memory.unwrap_or(control::node::memory() / 2);
        // one that is full leaves its neighbours room
        let usual = space.map_or(MACHINE_DISK, |space| MACHINE_DISK.min(space / 2));
        Limits {
            cpu: None,
            memory: Some(memory.max(LEAST_MEMORY)),
            disk: Some(self.machine_disk.unwrap_or(usual)),
            processes: Some(self.machine_processes),
        }
    }

    /// Machines that are kept ready, and what they may hold.
    pub fn prespawn(&self) -> control::prespawn::Settings {
        let usual = || prespawn::usual_memory(control::node::memory());
        control::prespawn::Settings {
            pools: self.prespawn_pools.clone(),
            memory: self.prespawn_memory.unwrap_or_else(usual),
        }
    }

    /// Where the proxy listens. `gateway` is where containers reach this machine.
    pub fn listen(&self, gateway: Option<IpAddr>) -> Vec<IpAddr> {
        if let Some(bind) = &self.bind {
            return bind.clone();
        }
        if !self.zone.is_local() {
            return vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        }
        let mut addresses = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        addresses.extend(gateway);
        addresses
    }

    /// The address of the API: `https://api.hoody.localhost`.
    pub fn api_url(&self) -> String {
        self.url(self.zone.api())
    }

    /// The address of a host of this node.
    pub fn url(&self, host: &str) -> String {
        match self.https {
            443 => format!("https://{host}"),
            port => format!("https://{host}:{port}"),
        }
    }

    /// Keep what flags and the environment said in the file of the state directory, where later
    /// commands find it. What else is in the file stays as it is, comments too. Returns whether
    /// there was something new.
    pub fn keep(&self) -> anyhow::Result<bool> {
        let path = self.state.join(FILE);
        let before = read_text(&path)?;
        let text = before.as_deref().unwrap_or_default();
        let mut document: toml_edit::DocumentMut = text
            .parse()
            .with_context(|| format!("{} is not TOML", path.display()))?;
        let known = flatten(&path, text)?;
        for (key, text) in &self.chosen {
            if known.get(*key) != Some(text) {
                put(&mut document, key, text);
            }
        }
        let heading = if before.is_none() {
            "# Settings of this node; `hoody up` puts them into effect.\n"
        } else {
            ""
        };
        let text = format!("{heading}{document}");
        if before.as_deref() == Some(&*text) {
            return Ok(false);
        }
        crate::files::write(&path, text.as_bytes(), 0o644)?;
        Ok(true)
    }

    /// Everything that a running node depends on, as one text: two that differ want a restart.
    pub fn fingerprint(&self) -> String {
        let Config {
            state,
            domain,
            node,
            http,
            https,
            bind,
            senders,
            resolvers,
            dns,
            challenge,
            engine_socket,
            certificates,
            ..
        } = self;
        let (runtime, engine, kitd) = (self.runtime.name(), &self.engine_name, &self.kitd);
        let (proxy_metrics, control_metrics) = (self.proxy_metrics, self.control_metrics);
        let (memory, disk) = (self.machine_memory, self.machine_disk);
        let processes = self.machine_processes;
        let (pools, ready) = (&self.prespawn_pools, self.prespawn_memory);
        format!(
            "{state:?} {domain} {node} {http} {https} {bind:?} {senders:?} {resolvers:?} {dns:?} {challenge:?} {runtime} {engine} {engine_socket:?} {kitd:?} \
             {certificates:?} {proxy_metrics:?} {control_metrics:?} {memory:?} {disk:?} {processes} \
             {pools:?} {ready:?}"
        )
    }
}

/// The proxy settings of this machine, for containers that share its way out: `http_proxy` and
/// its siblings, in lower case. A proxy on this machine's loopback is of no use to a container.
pub fn proxy_environment() -> BTreeMap<&'static str, String> {
    let find = |name: &'static str| {
        let value = env::var(name)
            .or_else(|_| env::var(name.to_ascii_uppercase()))
            .ok()?;
        (!value.is_empty() && !is_on_loopback(&value)).then_some((name, value))
    };
    ["http_proxy", "https_proxy", "no_proxy"]
        .into_iter()
        .filter_map(find)
        .collect()
}

/// Whether this is the URL of something on the loopback.
fn is_on_loopback(url: &str) -> bool {
    ["//localhost", "//127.", "//[::1]"]
        .iter()
        .any(|place| url.contains(place))
}

/// What is logged: `info`, or what `HOODY_LOG` says.
pub fn log_filter() -> String {
    env::var("HOODY_LOG")
        .ok()
        .filter(|filter| !filter.is_empty())
        .unwrap_or_else(|| "info".to_owned())
}

/// Where client profiles are kept, as the client's own commands find it.
pub fn profiles() -> Option<PathBuf> {
    let named = |name: &str| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    named("HOODY_CONFIG").or_else(|| Some(named("HOME")?.join(".config/hoody")))
}

/// Whose browsers are meant.
pub struct Person {
    pub home: PathBuf,
    /// User and group to act as, where root acts for the one who called sudo(8).
    pub instead: Option<(u32, u32)>,
}

/// The person who called this program, also through sudo.
pub fn person() -> Option<Person> {
    let number = |name: &str| env::var(name).ok()?.parse::<u32>().ok();
    let is_root = rustix::process::geteuid().is_root();
    let instead = number("SUDO_UID").zip(number("SUDO_GID"));
    if let (true, Some((user, group))) = (is_root, instead)
        && let Ok(Some(account)) = nix::unistd::User::from_uid(user.into())
    {
        return Some(Person {
            home: account.dir,
            instead: Some((user, group)),
        });
    }
    let home = env::var_os("HOME").filter(|home| !home.is_empty())?;
    Some(Person {
        home: home.into(),
        instead: None,
    })
}

/// Where programs are looked for.
pub fn path() -> impl Iterator<Item = PathBuf> {
    // where root's are, which sudo and service managers may leave out
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    let named: Vec<_> = env::var_os("PATH")
        .iter()
        .flat_map(env::split_paths)
        .collect();
    named.into_iter().chain(usual)
}

/// The Java that was chosen.
pub fn java_home() -> Option<PathBuf> {
    env::var_os("JAVA_HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from)
}

fn state_directory(sources: &Sources<'_>) -> anyhow::Result<PathBuf> {
    let state = match (sources.flag)("state") {
        Some(state) => state,
        None => match text_variable(sources, "HOODY_STATE")? {
            Some(state) => state,
            None if sources.is_root => "/var/lib/hoody".to_owned(),
            None => {
                let home = text_variable(sources, "HOME")?;
                let home =
                    home.context("where is the state kept? set HOME, or say --state DIRECTORY")?;
                format!("{home}/.local/state/hoody")
            }
        },
    };
    let state = absolute(&state)?;
    if state.len() > STATE_BYTES {
        bail!(
            "the state directory {state} is too long a path for the sockets in it; choose one of at most \
             {STATE_BYTES} bytes with --state"
        );
    }
    Ok(state.into())
}

fn text_variable(sources: &Sources<'_>, name: &str) -> anyhow::Result<Option<String>> {
    match (sources.variable)(name) {
        None => Ok(None),
        Some(value) if value.is_empty() => Ok(None),
        Some(value) => match value.into_string() {
            Ok(text) => Ok(Some(text)),
            Err(_) => bail!("the environment variable {name} is not UTF-8"),
        },
    }
}

/// An absolute path, without its last slash.
fn absolute(path: &str) -> anyhow::Result<String> {
    let path = std::path::absolute(path).with_context(|| format!("`{path}` is not a path"))?;
    let path: PathBuf = path.components().collect();
    path.into_os_string()
        .into_string()
        .map_err(|path| anyhow::anyhow!("the path {path:?} is not UTF-8"))
}

fn is_path(setting: &Setting) -> bool {
    matches!(setting.value, "FILE" | "DIRECTORY")
}

fn read_text(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("could not read {}", path.display())),
    }
}

/// The settings of a file, by key.
fn read_file(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    match read_text(path)? {
        Some(text) => flatten(path, &text),
        None => Ok(BTreeMap::new()),
    }
}

fn flatten(path: &Path, text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let table: toml::Table = text
        .parse()
        .with_context(|| format!("{} is not TOML", path.display()))?;
    let mut found = BTreeMap::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(section) => {
                for (name, value) in section {
                    found.insert(format!("{key}.{name}"), plain(value));
                }
            }
            value => {
                found.insert(key, plain(value));
            }
        }
    }
    for key in found.keys() {
        if !SETTINGS.iter().any(|setting| setting.key == key) {
            let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
            bail!(
                "{}: there is no setting `{key}`; there are {}",
                path.display(),
                known.join(", ")
            );
        }
    }
    Ok(found)
}

/// A value as a flag would say it.
fn plain(value: toml::Value) -> String {
    match value {
        toml::Value::String(text) => text,
        toml::Value::Array(values) => values.into_iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn put(document: &mut toml_edit::DocumentMut, key: &str, text: &str) {
    let item = match text.parse::<u16>() {
        Ok(number) => toml_edit::value(i64::from(number)),
        Err(_) => toml_edit::value(text),
    };
    match key.split_once('.') {
        Some((section, name)) => document[section].or_insert(toml_edit::table())[name] = item,
        None => document[key] = item,
    }
}

/// Disk that one container may take where nothing was said: it fills up alone.
const MACHINE_DISK: u64 = 20 << 30;
/// Processes and threads of one container: far above what work needs, and a fork bomb ends here
/// instead of at the host's own limit.
const MACHINE_PROCESSES: u32 = 16_384;
/// Off where nothing was said.
fn switch(value: Option<&Value>) -> anyhow::Result<bool> {
    match value.map(|value| (value.text.as_str(), value)) {
        None | Some(("off", _)) => Ok(false),
        Some(("on", _)) => Ok(true),
        Some((text, Value { source, .. })) => bail!("{source}: `{text}` is neither `on` nor `off`"),
    }
}

fn processes(value: Option<&Value>) -> anyhow::Result<u32> {
    let Some(Value { text, source }) = value else {
        return Ok(MACHINE_PROCESSES);
    };
    match text.parse() {
        Ok(number) if number >= LEAST_PROCESSES => Ok(number),
        _ => bail!("{source}: `{text}` is not a number of processes from {LEAST_PROCESSES} on"),
    }
}

/// A number of bytes, as `8GiB`, `512MiB` or `8G`; powers of 1024.
fn size(value: Option<&Value>) -> anyhow::Result<Option<u64>> {
    let Some(Value { text, source }) = value else {
        return Ok(None);
    };
    let has_unit = text.ends_with(|letter: char| letter.is_ascii_alphabetic());
    let Some(bytes) = limits::bytes(text).filter(|_| has_unit) else {
        bail!("{source}: `{text}` is not a size; write it as 8GiB, 512MiB or 1TiB");
    };
    let bytes = Some(bytes).filter(|bytes| *bytes >= LEAST_MEMORY);
    match bytes {
        Some(bytes) => Ok(Some(bytes)),
        None => bail!("{source}: `{text}` is too small or too large; at least 128MiB"),
    }
}

fn port(value: Option<&Value>, default: u16) -> anyhow::Result<u16> {
    let Some(Value { text, source }) = value else {
        return Ok(default);
    };
    match text.parse() {
        Ok(0) | Err(_) => bail!("{source}: `{text}` is not a port; it is a number from 1 to 65535"),
        Ok(port) => Ok(port),
    }
}

fn resolvers(value: &Value) -> anyhow::Result<proxy::Resolvers> {
    let Value { text, source } = value;
    let servers = match text.as_str() {
        "off" => return Ok(proxy::Resolvers::Off),
        "system" => return Ok(proxy::Resolvers::System),
        servers => servers,
    };
    let parse = |part: &str| {
        let part = part.trim();
        let with_port = part.parse::<SocketAddr>();
        let alone = |_| {
            part.parse()
                .map(|ip: IpAddr| SocketAddr::new(ip, dns::PORT))
        };
        with_port.or_else(alone).with_context(|| {
            format!("{source}: `{part}` is neither `system` nor `off`, and no address of a DNS server such as 192.0.2.53 or 127.0.0.1:5353")
        })
    };
    let servers = servers.split(',').map(parse).collect::<Result<_, _>>()?;
    Ok(proxy::Resolvers::At(servers))
}

fn addresses(value: &Value) -> anyhow::Result<Vec<IpAddr>> {
    let Value { text, source } = value;
    let parse = |part: &str| {
        let part = part.trim();
        part.parse()
            .with_context(|| format!("{source}: `{part}` is not an IP address"))
    };
    text.split(',').map(parse).collect()
}

fn networks(value: &Value) -> anyhow::Result<Vec<proxy::Network>> {
    let Value { text, source } = value;
    let parse = |part: &str| part.trim().parse().with_context(|| source.clone());
    text.split(',').map(parse).collect()
}

fn metrics(value: Option<&Value>, default: u16) -> anyhow::Result<Option<SocketAddr>> {
    let Some(Value { text, source }) = value else {
        return Ok(Some((Ipv4Addr::LOCALHOST, default).into()));
    };
    if text == "off" {
        return Ok(None);
    }
    let address: SocketAddr = text.parse().with_context(|| {
        format!("{source}: `{text}` is neither an address like 127.0.0.1:{default} nor off")
    })?;
    if !address.ip().is_loopback() {
        bail!(
            "{source}: metrics are for this machine alone, and {address} is not a loopback address"
        );
    }
    Ok(Some(address))
}

/// Names of Linux interfaces have 15 bytes, and the bridge is called like the engine with a digit.
fn check_engine_name(name: &str) -> anyhow::Result<()> {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let starts = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase());
    if !plain || !starts || name.len() > 12 {
        bail!(
            "`{name}` cannot be the engine's name: it is at most 12 lower-case letters and digits, a letter first"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration from flags, variables and a file in a state directory that is gone after.
    fn load(
        flags: &[(&str, &str)],
        variables: &[(&str, &str)],
        file: &str,
        is_root: bool,
    ) -> anyhow::Result<Config> {
        let state = tempfile::tempdir().unwrap();
        fs::write(state.path().join(FILE), file).unwrap();
        load_from(state.path(), flags, variables, is_root)
    }

    fn load_from(
        state: &Path,
        flags: &[(&str, &str)],
        variables: &[(&str, &str)],
        is_root: bool,
    ) -> anyhow::Result<Config> {
        let find = |list: &[(&str, &str)], name: &str| {
            list.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Config::from_sources(&Sources {
            flag: &|key| match key {
                "state" => Some(state.to_str().unwrap().to_owned()),
                key => find(flags, key),
            },
            variable: &|name| find(variables, name).map(OsString::from),
            is_root,
            beside: Path::new("/opt/bin"),
        })
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        let read = |text: &str| {
            let value = Value {
                text: text.to_owned(),
                source: "--machine-disk".to_owned(),
            };
            size(Some(&value)).ok().flatten()
        };
        for (text, bytes) in [
            ("8GiB", Some(8 << 30)),
            ("512MiB", Some(512 << 20)),
            ("2T", Some(2 << 40)),
            ("1 GB", Some(1 << 30)),
            ("1MiB", None),
            ("8", None),
            ("-8GiB", None),
            ("GiB", None),
            ("99999999999999TiB", None),
        ] {
            assert_eq!(read(text), bytes, "{text}");
        }
    }

    #[test]
    fn no_container_takes_everything_unless_it_is_let() {
        const POOL: u64 = 64 << 30;
        let limits = |flags: &[(&str, &str)], space| {
            let limits = load(flags, &[], "", true).unwrap().machine_limits(space);
            (limits.memory.unwrap(), limits.disk, limits.processes)
        };
        let half = (control::node::memory() / 2).max(LEAST_MEMORY);
        let usual = (half, Some(20 << 30), Some(16_384));
        assert_eq!(limits(&[], Some(POOL)), usual);
        assert_eq!(limits(&[], None), usual);
        assert_eq!(limits(&[], Some(POOL / 8)).1, Some(4 << 30));
        let chosen = [
            ("machine.memory", "512MiB"),
            ("machine.disk", "30GiB"),
            ("machine.processes", "1000"),
        ];
        let as_chosen = (512 << 20, Some(30 << 30), Some(1000));
        assert_eq!(limits(&chosen, Some(POOL / 8)), as_chosen);
        for wrong in ["many", "0", "255", "-1", "99999999999"] {
            let error = load(&[("machine.processes", wrong)], &[], "", true);
            let error = error.unwrap_err().to_string();
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn a_proxy_on_the_loopback_is_none_for_containers() {
        for (url, is_on_it) in [
            ("http://localhost:3128", true),
            ("http://127.0.0.1:3128/", true),
            ("http://[::1]:3128", true),
            ("http://proxy.example:3128", false),
            ("http://10.0.0.1:3128", false),
            ("localhost,127.0.0.1,.example", false), // no_proxy is a list
        ] {
            assert_eq!(is_on_loopback(url), is_on_it, "{url}");
        }
    }

    #[test]
    fn flags_come_before_the_environment_before_the_file_before_defaults() {
        let file =
            "domain = \"file.test\"\nnode = \"file\"\nhttp = 81\n[engine]\nname = \"file\"\n";
        let variables = [
            ("HOODY_NODE", "variable"),
            ("HOODY_HTTP", "82"),
            ("HOODY_ENGINE_NAME", ""),
        ];
        let config = load(&[("http", "83")], &variables, file, true).unwrap();
        assert_eq!(config.domain, "file.test");
        assert_eq!(config.node, "variable");
        assert_eq!(config.http, 83);
        assert_eq!(config.https, 443);
        assert_eq!(config.engine_name, "file", "an empty variable says nothing");
        assert_eq!(config.kitd, Path::new("/opt/bin/kitd"));
    }

    #[test]
    fn defaults_follow_the_runtime() {
        for (is_root, runtime, expected) in [
            (true, None, (Runtime::Incus, 80, 443)),
            (false, None, (Runtime::Local, 8080, 8443)),
            (true, Some("local"), (Runtime::Local, 8080, 8443)),
        ] {
            let flags: Vec<_> = runtime
                .map(|runtime| ("runtime", runtime))
                .into_iter()
                .collect();
            let config = load(&flags, &[], "", is_root).unwrap();
            assert_eq!((config.runtime, config.http, config.https), expected);
        }
    }

    #[test]
    fn a_local_domain_listens_on_the_loopback_and_for_containers() {
        let gateway = Some("10.1.2.1".parse().unwrap());
        for (flags, expected) in [
            (vec![], vec!["127.0.0.1", "::1", "10.1.2.1"]),
            (vec![("domain", "example.org")], vec!["0.0.0.0", "::"]),
            (vec![("bind", "192.0.2.1, ::1")], vec!["192.0.2.1", "::1"]),
        ] {
            let listen = load(&flags, &[], "", true).unwrap().listen(gateway);
            let listen: Vec<String> = listen.iter().map(ToString::to_string).collect();
            assert_eq!(listen, expected);
        }
    }

    #[test]
    fn custom_domains_are_asked_for_where_the_world_can_reach_the_node() {
        use proxy::Resolvers::{At, Off, System};
        let at = |servers: &[&str]| At(servers.iter().map(|it| it.parse().unwrap()).collect());
        let public = ("domain", "example.org");
        for (flags, expected) in [
            (vec![], Off),
            (vec![public], System),
            (vec![("resolvers", "system")], System),
            (vec![public, ("resolvers", "off")], Off),
            (vec![("resolvers", "192.0.2.53")], at(&["192.0.2.53:53"])),
            (
                vec![("resolvers", "127.0.0.1:5353, 2001:db8::53,[::1]:54")],
                at(&["127.0.0.1:5353", "[2001:db8::53]:53", "[::1]:54"]),
            ),
        ] {
            assert_eq!(load(&flags, &[], "", true).unwrap().resolvers, expected);
        }
    }

    #[test]
    fn what_is_wrong_says_who_said_it() {
        for (flags, variables, file, words) in [
            (
                vec![("https", "none")],
                vec![],
                "",
                "--https: `none` is not a port",
            ),
            (
                vec![],
                vec![("HOODY_HTTP", "0")],
                "",
                "HOODY_HTTP: `0` is not a port",
            ),
            (vec![], vec![], "http = 70000", "`70000` is not a port"),
            (
                vec![("resolvers", "192.0.2.53,none")],
                vec![],
                "",
                "--resolvers: `none` is neither `system` nor `off`",
            ),
            (vec![], vec![], "colour = 1", "there is no setting `colour`"),
            (vec![], vec![], "domain = [", "is not TOML"),
            (
                vec![("runtime", "docker")],
                vec![],
                "",
                "no runtime is called `docker`",
            ),
            (
                vec![("http", "99"), ("https", "99")],
                vec![],
                "",
                "cannot both have port 99",
            ),
            (
                vec![("domain", "a b")],
                vec![],
                "",
                "`a b` cannot be the domain",
            ),
            (vec![("node", "a.b")], vec![], "", "of node `a.b`"),
            (
                vec![("engine.name", "Hoody")],
                vec![],
                "",
                "cannot be the engine's name",
            ),
            (
                vec![("bind", "here")],
                vec![],
                "",
                "`here` is not an IP address",
            ),
            (
                vec![("dns.zones", "example.org,a..b")],
                vec![],
                "",
                "--dns-zones: `a..b` is not a name",
            ),
            (
                vec![],
                vec![("HOODY_DNS_PORT", "dns")],
                "",
                "HOODY_DNS_PORT: `dns` is not a port",
            ),
            (
                vec![("challenge.servers", "ns.example.org")],
                vec![],
                "",
                "`ns.example.org` is no address",
            ),
            (
                vec![("metrics.proxy", "0.0.0.0:1")],
                vec![],
                "",
                "not a loopback address",
            ),
            (
                vec![("certificates.mode", "magic")],
                vec![],
                "",
                "no mode is called `magic`",
            ),
            (
                vec![("certificates.mode", "files")],
                vec![],
                "",
                "name their directory with --certificates-files",
            ),
            (
                vec![("certificates.mode", "acme")],
                vec![],
                "",
                "no directory gives certificates for hoody.localhost",
            ),
            (
                vec![("acme.directory", "http://acme.test/dir")],
                vec![],
                "",
                "is not an https URL",
            ),
            (
                vec![
                    ("acme.directory", "https://a.test"),
                    ("acme.staging", "yes"),
                ],
                vec![],
                "",
                "are two directories",
            ),
            (
                vec![("acme.staging", "perhaps")],
                vec![],
                "",
                "`perhaps` is neither yes nor no",
            ),
            (
                vec![("acme.contact", "admin")],
                vec![],
                "",
                "`admin` is no mail address",
            ),
            (vec![("eab.id", "kid-1")], vec![], "", "belong together"),
        ] {
            let error = load(&flags, &variables, file, true).expect_err(words);
            let error = format!("{error:#}");
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn names_and_challenges_are_told_in_sections() {
        let file = "[dns]\nzones = [\"N.example.org.\", \"api.example.org\"]\naddresses = \"192.0.2.1, 2001:db8::1\"\n\
                    [challenge]\nservers = \"192.0.2.53,[2001:db8::53]:5353\"\nkey = \"/etc/key\"\n";
        let config = load(&[], &[], file, true).unwrap();
        assert_eq!(config.dns.zones, ["n.example.org", "api.example.org"]);
        assert_eq!(config.dns.addresses.map(|all| all.len()), Some(2));
        assert_eq!(config.dns.port, 53);
        let servers = config.challenge.servers.iter().map(ToString::to_string);
        assert_eq!(
            servers.collect::<Vec<_>>(),
            ["192.0.2.53:53", "[2001:db8::53]:5353"]
        );
        assert_eq!(config.challenge.key.as_deref(), Some(Path::new("/etc/key")));
        let none = load(&[], &[], "", true).unwrap().dns;
        assert!(none.zones.is_empty());
        let issuers = |text| {
            let flags = [("dns.issuers", text)];
            load(&flags, &[], "", true).unwrap().dns.issuers
        };
        assert_eq!(none.issuers, None, "as the directory says");
        assert_eq!(issuers("any"), Some(vec![]));
        assert_eq!(issuers("CA.test"), Some(vec!["ca.test".to_owned()]));
    }

    #[test]
    fn metrics_can_be_off() {
        assert_eq!(
            load(&[("metrics.proxy", "off")], &[], "", true)
                .unwrap()
                .proxy_metrics,
            None
        );
        assert!(load(&[], &[], "", true).unwrap().proxy_metrics.is_some());
    }

    #[test]
    fn what_was_chosen_is_kept_and_the_rest_of_the_file_stays() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join(FILE);
        fs::write(&path, "# mine\nnode = \"here\" # keep\nhttp = 81\n").unwrap();
        let flags = [
            ("http", "8080"),
            ("engine.name", "other"),
            ("bind", "127.0.0.1"),
        ];
        let config = load_from(
            state.path(),
            &flags,
            &[("HOODY_DOMAIN", "a.localhost")],
            true,
        )
        .unwrap();
        assert!(config.keep().unwrap());
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("# mine\nnode = \"here\" # keep\nhttp = 8080"),
            "{text}"
        );
        let again = load_from(state.path(), &[], &[], true).unwrap();
        assert_eq!(again.fingerprint(), config.fingerprint());
        assert_eq!(again.engine_name, "other");
        assert!(!config.keep().unwrap(), "nothing new");
        assert!(!again.keep().unwrap(), "nothing chosen");
    }

    #[test]
    fn a_state_directory_leaves_room_for_sockets() {
        let long = PathBuf::from(format!("/{}", "x".repeat(80)));
        let error = load_from(&long, &[], &[], true)
            .expect_err("too long")
            .to_string();
        assert!(error.contains("at most 60 bytes"), "{error}");
    }

    #[test]
    fn addresses_name_the_port_only_where_it_is_needed() {
        assert_eq!(
            load(&[], &[], "", true).unwrap().api_url(),
            "https://api.hoody.localhost"
        );
        assert_eq!(
            load(&[], &[], "", false).unwrap().api_url(),
            "https://api.hoody.localhost:8443"
        );
    }
}
