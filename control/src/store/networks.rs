//! How containers are to reach the network.

use std::net::Ipv4Addr;

use rusqlite::{Connection, OptionalExtension, Row, params};

use routes::Id;

use crate::time::Millis;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub container: Id,
    /// `block`, `socks5` or `http`.
    pub kind: String,
    /// The proxy; none for `block`.
    pub host: Option<String>,
    pub port: Option<u16>,
    /// Sealed under [`label`].
    pub credentials: Option<Vec<u8>>,
    pub dns_servers: Vec<Ipv4Addr>,
    pub country: Option<String>,
    pub city: Option<String>,
    pub region: Option<String>,
    pub comment: Option<String>,
    /// Whether it holds; the container is free where it does not.
    pub enabled: bool,
    pub configured_at: Millis,
}

/// What the credentials of a container are sealed under.
pub fn label(container: Id) -> String {
    format!("network {container}")
}

fn read(row: &Row<'_>) -> rusqlite::Result<Network> {
    Ok(Network {
        container: super::id(row, "container_id")?,
        kind: row.get("kind")?,
        host: row.get("host")?,
        port: row.get("port")?,
        credentials: row.get("credentials")?,
        dns_servers: super::json(row, "dns_servers")?,
        country: row.get("country")?,
        city: row.get("city")?,
        region: row.get("region")?,
        comment: row.get("comment")?,
        enabled: row.get("enabled")?,
        configured_at: row.get("configured_at")?,
    })
}

pub fn find(connection: &Connection, container: Id) -> rusqlite::Result<Option<Network>> {
    connection
        .query_row(
            "SELECT * FROM networks WHERE container_id = ?1",
            params![container.to_string()],
            read,
        )
        .optional()
}

pub fn put(connection: &Connection, network: &Network) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT OR REPLACE INTO networks (container_id, kind, host, port, credentials, dns_servers,
             country, city, region, comment, enabled, configured_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        params![
            network.container.to_string(),
            network.kind,
            network.host,
            network.port,
            network.credentials,
            super::to_json(&network.dns_servers),
            network.country,
            network.city,
            network.region,
            network.comment,
            network.enabled,
            network.configured_at
        ],
    )?;
    Ok(())
}

/// Whether there was one.
pub fn delete(connection: &Connection, container: Id) -> rusqlite::Result<bool> {
    let gone = connection.execute(
        "DELETE FROM networks WHERE container_id = ?1",
        params![container.to_string()],
    )?;
    Ok(gone > 0)
}

pub fn all(connection: &Connection) -> rusqlite::Result<Vec<Network>> {
    let mut statement = connection.prepare_cached("SELECT * FROM networks")?;
    statement.query_map([], read)?.collect()
}
