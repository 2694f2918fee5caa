//! Pingora with nothing of ours but its tuning: one upstream, no routing, no log.
//!
//! It is what the rest of the proxy is measured against, so it gets what Pingora itself can be
//! given: one thread without work stealing, small stream buffers, upstream connections over a
//! unix socket, the allocator of the node.

use std::net::SocketAddr;
use std::path::Path;

use async_trait::async_trait;
use pingora::listeners::ListenerConfig;
use pingora::listeners::tls::TlsSettings;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;

struct Bare {
    small: Box<HttpPeer>,
    large: Box<HttpPeer>,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(
        &self,
        session: &mut Session,
        (): &mut (),
    ) -> pingora::Result<Box<HttpPeer>> {
        let large = session.req_header().raw_path().starts_with(b"/large");
        Ok(if large { &self.large } else { &self.small }.clone())
    }
}

/// Serve until the process is ended.
pub fn serve(
    http: SocketAddr,
    https: SocketAddr,
    directory: &Path,
    small: &Path,
    large: &Path,
) -> anyhow::Result<()> {
    let conf = ServerConf {
        threads: 1,
        work_stealing: false,
        upstream_keepalive_pool_size: 256,
        ca_file: Some("/dev/null".into()),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let peer = |socket: &Path| -> anyhow::Result<Box<HttpPeer>> {
        let socket = socket.to_string_lossy();
        Ok(Box::new(HttpPeer::new_uds(&socket, false, String::new())?))
    };
    let bare = Bare {
        small: peer(small)?,
        large: peer(large)?,
    };
    let mut service = http_proxy_service(&server.configuration, bare);
    let buffers = L4BufferSettings::new(8 << 10, 1460);
    let pem = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let mut tls = TlsSettings::intermediate(&pem("certificate.pem"), &pem("key.pem"))?;
    tls.enable_h2();
    service.add_listener(ListenerConfig::tcp(http.to_string()).l4_buffer(buffers));
    service.add_listener(
        ListenerConfig::tcp(https.to_string())
            .tls(tls)
            .l4_buffer(buffers),
    );
    server.add_service(service);
    server.run_forever();
}
