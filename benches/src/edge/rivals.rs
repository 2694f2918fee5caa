//! The proxies that are compared: ours, a bare Pingora, and the packaged ones, each doing the same
//! job on one core.
//!
//! All get the same certificate and the same upstreams over the same unix sockets, keep their
//! connections to both sides, route by host and write an access log; only the bare Pingora has
//! neither routes nor log. What each cannot do like the others is said where it is configured.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::Command;

use super::ground::{Ground, LARGE, LARGE_ROUTE, SMALL, host};
use super::ours;
use crate::server::{Server, free_address, listens};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ours,
    Bare,
    Nginx,
    HaProxy,
    Caddy,
}

impl Kind {
    pub const ALL: [Kind; 5] = [
        Kind::Ours,
        Kind::Bare,
        Kind::Nginx,
        Kind::HaProxy,
        Kind::Caddy,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Ours => "ours",
            Kind::Bare => "bare_pingora",
            Kind::Nginx => "nginx",
            Kind::HaProxy => "haproxy",
            Kind::Caddy => "caddy",
        }
    }

    /// What its package says it is; nothing for what is built here.
    pub fn version(self) -> Option<String> {
        let (program, argument) = match self {
            Kind::Ours | Kind::Bare => return None,
            Kind::Nginx => ("nginx", "-v"),
            Kind::HaProxy => ("haproxy", "-v"),
            Kind::Caddy => ("caddy", "version"),
        };
        let output = Command::new(program).arg(argument).output().ok()?;
        // nginx says it on its standard error
        let said = [output.stdout, output.stderr].concat();
        let first = String::from_utf8_lossy(&said).lines().next()?.to_owned();
        Some(first)
    }
}

/// One proxy that runs.
pub struct Rival {
    pub name: String,
    pub kind: Kind,
    pub routes: usize,
    pub http: SocketAddr,
    pub https: SocketAddr,
    server: Server,
    /// Control's side of the feed, for ours.
    pub control: Option<UnixStream>,
}

impl Rival {
    /// Start it with this many routes, pinned to a core, and wait until it listens.
    pub fn start(
        kind: Kind,
        name: String,
        routes: usize,
        ground: &Ground,
        core: usize,
    ) -> anyhow::Result<Rival> {
        let (http, https) = (free_address()?, free_address()?);
        let directory = ground.path(&format!("{name}-{}", http.port()));
        std::fs::create_dir_all(&directory)?;
        let job = Job {
            routes,
            http,
            https,
            own: directory.display().to_string(),
            certificates: ground.path("").display().to_string(),
            sockets: [SMALL, LARGE].map(|part| ground.socket(part).display().to_string()),
        };
        let command = match kind {
            Kind::Ours => job.ours()?,
            Kind::Bare => job.bare()?,
            Kind::Nginx => job.nginx()?,
            Kind::HaProxy => job.haproxy()?,
            Kind::Caddy => job.caddy()?,
        };
        let log = directory.join("log");
        let mut server = Server::start(&command, Some(core), &log)?;
        server.until(|| listens(http) && listens(https), &log)?;
        let control = match kind {
            Kind::Ours => Some(ours::feed(ground, &directory, routes)?),
            _ => None,
        };
        Ok(Rival {
            name,
            kind,
            routes,
            http,
            https,
            server,
            control,
        })
    }

    pub fn pid(&self) -> u32 {
        self.server.pid()
    }
}

/// What a proxy is told to do.
struct Job {
    routes: usize,
    http: SocketAddr,
    https: SocketAddr,
    /// A directory of its own.
    own: String,
    certificates: String,
    /// Of the small and of the large upstream.
    sockets: [String; 2],
}

/// What a node tells the allocator of its programs (`hoody/src/supervise.rs`); the bare Pingora is
/// told the same.
const ALLOCATOR: (&str, &str) = (
    "_RJEM_MALLOC_CONF",
    "background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0",
);

/// Idle upstream connections that a proxy may keep, as ours does by default.
const KEPT: usize = 256;
/// Enough for all tunnels, with both sides of each below the usual limit of 20,000 descriptors.
const CONNECTIONS: usize = 9_000;

impl Job {
    fn upstream(&self, route: usize) -> &'static str {
        if route == LARGE_ROUTE { LARGE } else { SMALL }
    }

    fn ours(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .env(ALLOCATOR.0, ALLOCATOR.1)
            .args(["serve", "ours"])
            .args([self.http, self.https].map(|it| it.to_string()));
        command.args([&self.certificates, &self.own]);
        Ok(command)
    }

    fn bare(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .env(ALLOCATOR.0, ALLOCATOR.1)
            .args(["serve", "bare"])
            .args([self.http, self.https].map(|it| it.to_string()));
        command.arg(&self.certificates).args(&self.sockets);
        Ok(command)
    }

    /// Its log is buffered, as ours is; request bodies are streamed, as ours are.
    fn nginx(&self) -> anyhow::Result<Command> {
        let Job {
            http,
            https,
            own,
            certificates,
            sockets: [small, large],
            ..
        } = self;
        let mut map = String::new();
        for route in 0..self.routes {
            writeln!(map, "{} {};", host(route), self.upstream(route))?;
        }
        std::fs::write(format!("{own}/map"), map)?;
        let configuration = format!(
            "daemon off; worker_processes 1; user root; pid {own}/pid; error_log stderr crit;
             events {{ worker_connections 19000; multi_accept on; }}
             http {{
               access_log {own}/access.log combined buffer=64k flush=1s;
               client_body_temp_path {own}; proxy_temp_path {own}; fastcgi_temp_path {own};
               uwsgi_temp_path {own}; scgi_temp_path {own};
               keepalive_requests 1000000000; keepalive_timeout 600; tcp_nodelay on;
               client_max_body_size 0; proxy_request_buffering off; server_names_hash_bucket_size 256;
               map_hash_max_size 524288; map_hash_bucket_size 256;
               map $host $upstream {{ default none; include {own}/map; }}
               map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
               upstream small {{ server unix:{small}; keepalive {KEPT}; keepalive_requests 1000000000; }}
               upstream large {{ server unix:{large}; keepalive {KEPT}; keepalive_requests 1000000000; }}
               upstream none {{ server unix:/nowhere; }}
               server {{
                 listen {http}; listen {https} ssl http2;
                 ssl_certificate {certificates}/certificate.pem; ssl_certificate_key {certificates}/key.pem;
                 ssl_session_cache off; ssl_session_tickets on;
                 http2_max_requests 1000000000;
                 location / {{
                   proxy_pass http://$upstream; proxy_http_version 1.1; proxy_read_timeout 600;
                   proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;
                   proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;
                   proxy_set_header Connection $connection_upgrade; proxy_set_header Upgrade $http_upgrade;
                 }}
               }}
             }}
            "
        );
        let file = format!("{own}/nginx.conf");
        std::fs::write(&file, configuration)?;
        let mut command = Command::new("nginx");
        command.args(["-c", &file]);
        Ok(command)
    }

    /// It logs to a file through its standard output: files are nothing it opens.
    fn haproxy(&self) -> anyhow::Result<Command> {
        let Job {
            http,
            https,
            own,
            certificates,
            sockets: [small, large],
            ..
        } = self;
        let mut map = String::new();
        for route in 0..self.routes {
            writeln!(map, "{} {}", host(route), self.upstream(route))?;
        }
        std::fs::write(format!("{own}/map"), map)?;
        let configuration = format!(
            "global
               nbthread 1
               maxconn {CONNECTIONS}
               log stdout format raw local0
               tune.ssl.default-dh-param 2048
               tune.pool-low-fd-ratio 50
             defaults
               mode http
               log global
               option httplog
               timeout connect 5s
               timeout client 600s
               timeout server 600s
               timeout tunnel 1h
               timeout http-keep-alive 600s
               http-reuse always
             frontend edge
               bind {http}
               bind {https} ssl crt {certificates}/both.pem alpn h2,http/1.1
               option forwardfor
               http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
               http-request set-header X-Forwarded-Host %[req.hdr(host)]
               use_backend %[req.hdr(host),field(1,:),lower,map({own}/map)]
             backend small
               server one unix@{small} pool-max-conn {KEPT} maxconn {CONNECTIONS}
             backend large
               server one unix@{large} pool-max-conn {KEPT} maxconn {CONNECTIONS}
            "
        );
        let file = format!("{own}/haproxy.cfg");
        std::fs::write(&file, configuration.trim_end().to_owned() + "\n")?;
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f", &file]);
        Ok(command)
    }

    /// Its `map` compares names one after another, so it is given its host matcher, which looks
    /// them up.
    fn caddy(&self) -> anyhow::Result<Command> {
        let Job {
            http,
            https,
            own,
            certificates,
            sockets: [small, large],
            ..
        } = self;
        let hosts: Vec<String> = (0..self.routes)
            .filter(|&it| it != LARGE_ROUTE)
            .map(host)
            .collect();
        let to = |socket: &str| {
            serde_json::json!([{
                "handler": "reverse_proxy",
                "upstreams": [{ "dial": format!("unix/{socket}") }],
                "transport": {
                    "protocol": "http",
                    "keep_alive": { "max_idle_conns": KEPT, "max_idle_conns_per_host": KEPT },
                },
            }])
        };
        let routes = serde_json::json!([
            { "match": [{ "host": [host(LARGE_ROUTE)] }], "handle": to(large), "terminal": true },
            { "match": [{ "host": hosts }], "handle": to(small), "terminal": true },
        ]);
        let server = |address: &SocketAddr, secure: bool| {
            let mut server = serde_json::json!({
                "listen": [address.to_string()],
                "routes": routes,
                "automatic_https": { "disable": true },
                "logs": {},
                "protocols": ["h1", "h2"],
            });
            if secure {
                server["tls_connection_policies"] = serde_json::json!([{}]);
            }
            server
        };
        let configuration = serde_json::json!({
            "admin": { "disabled": true },
            "logging": { "logs": { "default": {
                "writer": { "output": "file", "filename": format!("{own}/access.log"), "roll": false },
                "encoder": { "format": "json" },
            } } },
            "apps": {
                "http": { "servers": { "plain": server(http, false), "secure": server(https, true) } },
                "tls": { "certificates": { "load_files": [{
                    "certificate": format!("{certificates}/certificate.pem"),
                    "key": format!("{certificates}/key.pem"),
                }] } },
            },
        });
        let file = format!("{own}/caddy.json");
        std::fs::write(&file, serde_json::to_vec(&configuration)?)?;
        let mut command = Command::new("caddy");
        command.args(["run", "--config", &file]);
        // One core is all it gets; its collector and its scheduler should know.
        command
            .env("GOMAXPROCS", "1")
            .env("HOME", own)
            .env("XDG_DATA_HOME", own)
            .env("XDG_CONFIG_HOME", own);
        Ok(command)
    }
}
