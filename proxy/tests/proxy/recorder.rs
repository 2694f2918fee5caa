//! A kit that trusts nobody: it reads requests as strictly as RFC 9112 allows and keeps each of
//! them as the bytes it was. Whatever follows a request on its connection is another one.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

pub struct Recorder {
    seen: Arc<Mutex<Vec<Recorded>>>,
    task: tokio::task::JoinHandle<()>,
}

/// One whole request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Recorded {
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(key, _)| key == name);
        named.map(|(_, value)| value.as_str()).collect()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Recorder {
    /// Serve on this socket, in place of what is there.
    pub fn serve(socket: &Path) -> Recorder {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).expect("a socket");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                connections.spawn(record(stream, shared.clone()));
            }
        });
        Recorder { seen, task }
    }

    /// What has come since this was last asked.
    pub fn take(&self) -> Vec<Recorded> {
        std::mem::take(&mut self.seen.lock().expect("no panic"))
    }
}

async fn record(stream: UnixStream, seen: Arc<Mutex<Vec<Recorded>>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = one(&mut stream).await {
        seen.lock().expect("no panic").push(request);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        if stream.get_mut().write_all(answer).await.is_err() {
            return;
        }
    }
}

/// One line, ended by CR and LF and holding neither.
async fn line(stream: &mut BufReader<UnixStream>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await.ok()? {
            b'\r' => {
                assert_eq!(
                    stream.read_u8().await.ok()?,
                    b'\n',
                    "a bare CR came through"
                );
                return Some(line);
            }
            b'\n' => panic!("a bare LF came through"),
            byte => line.push(byte),
        }
    }
}

async fn exactly(stream: &mut BufReader<UnixStream>, length: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = stream.take(length as u64);
    rest.read_to_end(&mut bytes).await.ok()?;
    (bytes.len() == length).then_some(bytes)
}

async fn one(stream: &mut BufReader<UnixStream>) -> Option<Recorded> {
    let first = String::from_utf8(line(stream).await?).expect("text");
    let words: Vec<&str> = first.split(' ').collect();
    assert!(
        matches!(words[..], [_, target, "HTTP/1.1"] if !target.is_empty()),
        "{first:?} came through"
    );
    let mut headers = Vec::new();
    loop {
        let header = line(stream).await?;
        if header.is_empty() {
            break;
        }
        let header = String::from_utf8_lossy(&header).into_owned();
        let (name, value) = header.split_once(':').expect("a colon");
        assert!(
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()),
            "the name {name:?} came through"
        );
        assert!(!value.contains('\0'), "{value:?} came through");
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Recorded {
        line: first,
        headers,
        body: Vec::new(),
    };
    let (lengths, codings) = (
        request.all("content-length"),
        request.all("transfer-encoding"),
    );
    assert!(
        lengths.len() + codings.len() <= 1,
        "{:?} has two lengths",
        request.headers
    );
    request.body = match (lengths.first(), codings.first()) {
        (Some(length), _) => exactly(stream, length.parse().expect("a number")).await?,
        (_, Some(coding)) => {
            assert!(coding.eq_ignore_ascii_case("chunked"), "{coding}");
            let mut body = Vec::new();
            loop {
                let size = String::from_utf8(line(stream).await?).expect("text");
                let size = usize::from_str_radix(&size, 16).expect("a plain size");
                body.extend(exactly(stream, size).await?);
                assert!(line(stream).await?.is_empty(), "no trailers are passed on");
                if size == 0 {
                    break body;
                }
            }
        }
        (None, None) => Vec::new(),
    };
    Some(request)
}
