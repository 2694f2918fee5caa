//! A client that reaches every host of a node, wherever the node listens.

use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Method, RequestBuilder};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// An HTTPS client for the hosts of one node.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    tls: Arc<rustls::ClientConfig>,
    https: SocketAddr,
}

/// Sends every name to one address.
struct Everywhere(SocketAddr);

impl Resolve for Everywhere {
    fn resolve(&self, _: Name) -> Resolving {
        let address = self.0;
        Box::pin(async move { Ok(Box::new(std::iter::once(address)) as Addrs) })
    }
}

impl Client {
    /// A client for the node that listens at `https` with certificates of this authority.
    pub fn new(https: SocketAddr, authority_pem: &[u8]) -> Client {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let _ = rustls::crypto::CryptoProvider::install_default((*provider).clone());
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority_pem) {
            roots
                .add(certificate.expect("the authority is PEM"))
                .expect("a valid authority");
        }
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring supports the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        // as browsers do: HTTP/2 where the node has it
        let mut both = tls.clone();
        both.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(both)
            .dns_resolver(Arc::new(Everywhere(https)))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("the client builds");
        Client {
            http,
            tls: Arc::new(tls),
            https,
        }
    }

    /// The port of the node.
    pub fn port(&self) -> u16 {
        self.https.port()
    }

    /// A request to `https://{host}{path}`.
    pub fn request(&self, method: Method, host: &str, path: &str) -> RequestBuilder {
        self.http.request(
            method,
            format!("https://{host}:{}{path}", self.https.port()),
        )
    }

    /// Send a request that was built.
    pub async fn execute(&self, request: reqwest::Request) -> reqwest::Result<reqwest::Response> {
        self.http.execute(request).await
    }

    /// A TLS connection with this server name, HTTP/1.1 only.
    pub async fn connect(&self, host: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.https).await?;
        let name = ServerName::try_from(host.to_owned()).expect("hosts are valid names");
        TlsConnector::from(self.tls.clone())
            .connect(name, tcp)
            .await
    }

    /// A WebSocket to `wss://{host}{path}` with this subprotocol.
    pub async fn websocket(
        &self,
        host: &str,
        path: &str,
        subprotocol: Option<&str>,
    ) -> Result<WebSocketStream<TlsStream<TcpStream>>, tokio_tungstenite::tungstenite::Error> {
        let mut request =
            format!("wss://{host}:{}{path}", self.https.port()).into_client_request()?;
        if let Some(subprotocol) = subprotocol {
            let value = subprotocol.parse().expect("subprotocols are tokens");
            request
                .headers_mut()
                .insert("sec-websocket-protocol", value);
        }
        let stream = self.connect(host).await?;
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
        Ok(socket)
    }
}
