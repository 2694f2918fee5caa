//! The slugs of the services, and which of them carry an index.
//!
//! This is the list for hostnames; the kit has its own list of what it can serve.

/// One service as hostnames name it.
#[derive(Debug, PartialEq, Eq)]
pub struct Service {
    /// The slug used in hostnames: `n`.
    pub slug: &'static str,
    /// Other names for the same service: none shorter than the slug, so that what fits into a
    /// label under one of them fits under the slug.
    pub aliases: &'static [&'static str],
    /// Whether hostnames carry an index after the slug.
    pub indexed: bool,
    /// The lowest index.
    pub first: u32,
}

const fn service(slug: &'static str, aliases: &'static [&'static str]) -> Service {
    Service {
        slug,
        aliases,
        indexed: true,
        first: 1,
    }
}

/// Every service a hostname can name.
pub const SERVICES: &[Service] = &[
    Service {
        slug: "terminal",
        aliases: &[],
        indexed: true,
        first: 0,
    },
    service("display", &[]),
    service("files", &[]),
    service("sqlite", &[]),
    service("exec", &[]),
    service("browser", &[]),
    service("agent", &["workspaces"]),
    service("code", &[]),
    service("curl", &[]),
    service("n", &["notifications"]),
    service("daemon", &["daemons"]),
    service("cron", &[]),
    service("pipe", &[]),
    service("notes", &[]),
    service("watch", &[]),
    service("run", &[]),
    service("tunnel", &[]),
    service("logs", &["proxylogs"]),
];

/// The service with this slug or alias.
pub fn find(name: &str) -> Option<&'static Service> {
    SERVICES
        .iter()
        .find(|service| service.slug == name || service.aliases.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_means_one_service() {
        for service in SERVICES {
            for name in service.aliases.iter().chain([&service.slug]) {
                assert_eq!(
                    find(name).map(|found| found.slug),
                    Some(service.slug),
                    "{name}"
                );
                assert!(name.len() >= service.slug.len(), "{name}");
                assert!(name.bytes().all(|byte| byte.is_ascii_lowercase()), "{name}");
            }
        }
        for reserved in ["http", "https", "ssh", "proxy", "desktop", ""] {
            assert_eq!(find(reserved), None, "{reserved}");
        }
    }
}
