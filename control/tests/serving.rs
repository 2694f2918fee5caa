//! Control as a process runs it: its sockets, its locks, its end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use control::{Config, ServeError, serve};
use routes::table::{Ack, State, Table, Update};
use serde_json::{Value, json};
use support::World;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

type Serving = (oneshot::Sender<()>, JoinHandle<Result<(), ServeError>>);

fn start(world: &World, config: Config) -> Serving {
    let (stop, stopped) = oneshot::channel::<()>();
    let fake = Arc::new(world.fake.clone());
    let serving = tokio::spawn(serve(config, fake, async {
        stopped.await.ok();
    }));
    (stop, serving)
}

/// Plain HTTP/1.1, as the proxy speaks it.
async fn ask(socket: &Path, request: &str, body: &Value) -> Option<(u16, Value)> {
    let mut stream = UnixStream::connect(socket).await.ok()?;
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let text = format!(
        "{request}\r\nhost: api\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, serde_json::from_str(body).unwrap_or_default()))
}

async fn up(socket: &Path) {
    for _ in 0..500 {
        if ask(socket, "GET /api/v1/ip HTTP/1.1", &Value::Null)
            .await
            .is_some()
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("control never came up");
}

#[tokio::test]
async fn it_serves_alone_and_stops_when_told() {
    let world = World::new().await;
    let mut config = world.config();
    config.metrics = Some("127.0.0.1:0".parse().unwrap());
    let socket = config.socket();
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap()); // left behind by a crash
    let (stop, serving) = start(&world, config.clone());
    up(&socket).await;
    assert_eq!(
        std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let (_hold, second) = start(&world, config.clone());
    assert!(matches!(
        second.await.unwrap(),
        Err(ServeError::Running { .. })
    ));
    up(&socket).await; // the first is not disturbed

    let login = json!({ "username": "admin", "password": world.password });
    let (status, answer) = ask(&socket, "POST /api/v1/users/auth/login HTTP/1.1", &login)
        .await
        .unwrap();
    assert_eq!((status, &answer["statusCode"]), (200, &json!(200)));
    let (status, document) = ask(&socket, "GET /api/v1/openapi.json HTTP/1.1", &Value::Null)
        .await
        .unwrap();
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    let (status, _) = ask(&socket, "GET /metrics HTTP/1.1", &Value::Null)
        .await
        .unwrap();
    assert_eq!(status, 404, "metrics are not part of the API");

    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(5), serving)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(!socket.exists());
    let (stop, serving) = start(&world, config);
    up(&socket).await;
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn metrics_are_for_this_machine_alone() {
    let world = World::new().await;
    let mut config = world.config();
    config.metrics = Some("0.0.0.0:0".parse().unwrap());
    let (_stop, serving) = start(&world, config.clone());
    assert!(matches!(
        serving.await.unwrap(),
        Err(ServeError::PublicMetrics { .. })
    ));

    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    config.metrics = Some(free);
    let socket = config.socket();
    let (stop, serving) = start(&world, config);
    up(&socket).await;
    let mut stream = TcpStream::connect(free).await.unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(
        text.contains("hoody_containers{status=\"running\"} 0"),
        "{text}"
    );
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}

/// A proxy that keeps the table it is fed.
async fn proxy(listener: UnixListener, table: Arc<std::sync::Mutex<Table>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let update: Update = serde_json::from_str(&line).unwrap();
            let ack = Ack {
                generation: update.generation,
            };
            table.lock().unwrap().apply(update);
            write
                .write_all(format!("{}\n", serde_json::to_string(&ack).unwrap()).as_bytes())
                .await
                .unwrap();
        }
    }
}

#[tokio::test]
async fn the_proxy_knows_what_a_client_sees() {
    let world = World::new().await;
    let feed = world.config().feed();
    std::fs::create_dir_all(feed.parent().unwrap()).unwrap();
    let table = Arc::new(std::sync::Mutex::new(Table::default()));
    let proxying = tokio::spawn(proxy(UnixListener::bind(&feed).unwrap(), table.clone()));
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = me.container(&project, "web").await;
    me.until(&web, "running").await;
    let place = table
        .lock()
        .unwrap()
        .find(None, web.parse().unwrap())
        .cloned()
        .expect("the proxy knows it");
    assert_eq!(
        (place.state, place.name.as_str()),
        (State::Running, "web"),
        "whoever sees it running reaches it"
    );
    assert!(place.directory.ends_with(&web) && place.owners.count > 0);
    let generation = table.lock().unwrap().generation;
    drop(node);
    let node = world.start().await;
    let me = node.admin().await;
    me.delete(&format!("/api/v1/containers/{web}")).await.ok();
    me.until(&web, "gone").await;
    for _ in 0..200 {
        if table.lock().unwrap().places.is_empty() {
            assert!(
                table.lock().unwrap().generation > generation,
                "generations grow over restarts"
            );
            proxying.abort();
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the place is left over");
}

#[test]
fn the_document_needs_no_node() {
    let document = control::document();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(
        paths["/api/v1/containers/{id}"]["put"]["operationId"],
        "updateContainerPatch"
    );
    assert_eq!(
        paths["/api/v1/projects/{id}/containers"]["post"]["x-cli"],
        "containers create"
    );
    assert!(paths.len() > 25, "{}", paths.len());
}
