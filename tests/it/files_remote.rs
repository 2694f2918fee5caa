//! Servers elsewhere: backends, mounts, and requests that name a server themselves.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tests::Rig;
use tests::rig::Answer;

use crate::files::{Files, refused_by_files};
use crate::wire::each;

/// A server on the loopback; ends with the test.
struct Server {
    child: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server of this protocol with a file `note.txt`, for `ann` with the password `s3cret-word`.
async fn serve(protocol: &str) -> Server {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("note.txt"), "from elsewhere").expect("a file");
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let address = free.expect("a port").to_string();
    let (program, words) = match protocol {
        // the packaged rclone has none of its own
        "ftp" => (
            "/usr/bin/python3",
            format!(
                "-m pyftpdlib --interface 127.0.0.1 --port {} --username ann --password s3cret-word --directory",
                &address["127.0.0.1:".len()..]
            ),
        ),
        _ => (
            "rclone",
            format!("serve {protocol} --addr {address} --user ann --pass s3cret-word"),
        ),
    };
    let child = Command::new(program)
        .args(words.split(' '))
        .arg(directory.path())
        .env("RCLONE_CONFIG", "/dev/null")
        .env("RCLONE_CACHE_DIR", directory.path().join(".cache"))
        .env("XDG_CACHE_HOME", directory.path().join(".cache"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("rclone and python3-pyftpdlib are installed: hoody/setup/packages.sh check");
    let server = Server {
        child,
        address,
        _directory: directory,
    };
    let begun = Instant::now();
    while tokio::net::TcpStream::connect(&server.address)
        .await
        .is_err()
    {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "a server of {protocol} listens"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server
}

impl Files<'_> {
    async fn send(&self, method: Method, path: &str, body: Value) -> Answer {
        self.call(method, path, |request| request.json(&body)).await
    }

    async fn connect(&self, kind: &str, body: Value) -> String {
        let path = format!("/api/v1/backends/{kind}");
        let made = self
            .send(Method::POST, &path, body)
            .await
            .expect(200)
            .json();
        made["id"].as_str().expect("an id").to_owned()
    }

    async fn ask(&self, method: Method, path: &str) -> Answer {
        self.call(method, path, |request| request).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_of_every_type_are_connected_listed_and_disconnected() {
    let rig = Rig::start().await;
    let files = Files::of(&rig).await;
    let document = kitd::services::documents()
        .into_iter()
        .find(|document| document["x-service"] == "files")
        .expect("the files service has a document");
    let memory = files.connect("memory", json!({})).await;
    let mut ids = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        let Some(kind) = path
            .strip_prefix("/api/v1/backends/")
            .filter(|kind| !kind.contains('{'))
        else {
            continue;
        };
        let schema = &item["post"]["requestBody"]["content"]["application/json"]["schema"];
        let mut body = json!({ "description": "for the story" });
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().expect("a name");
            body[name] = match name {
                "remote" => json!(format!("{memory}:bucket")),
                "upstreams" if kind == "combine" => json!(format!("one={memory}:a two={memory}:b")),
                "upstreams" => json!(format!("{memory}:a {memory}:b")),
                "url" => json!("http://127.0.0.1:9/"),
                _ => json!("word"),
            };
        }
        if kind == "zoho" {
            // what rclone asks for and the contract does not
            refused_by_files(files.send(Method::POST, path, body.clone()).await, 400);
            body["region"] = json!("com");
        }
        ids.push((kind.to_owned(), files.connect(kind, body).await));
    }
    assert!(ids.len() >= 45, "{}", ids.len());
    let listed = files
        .ask(Method::GET, "/api/v1/backends")
        .await
        .expect(200)
        .json();
    assert_eq!(listed["count"], ids.len() + 1);
    for (kind, id) in &ids {
        let path = format!("/api/v1/backends/{id}");
        let one = files.ask(Method::GET, &path).await.expect(200).json();
        assert_eq!(
            (&one["backend_type"], &one["description"]),
            (&json!(kind), &json!("for the story"))
        );
        files.ask(Method::DELETE, &path).await.expect(200);
    }
    let kept = each(
        &files.ask(Method::GET, "/api/v1/backends").await.json()["backends"],
        "id",
    );
    assert_eq!(kept, [json!(memory)]);
    refused_by_files(
        files
            .send(Method::POST, "/api/v1/backends/sftp", json!({}))
            .await,
        400,
    );
    refused_by_files(
        files
            .send(Method::POST, "/api/v1/backends/nonesuch", json!({}))
            .await,
        404,
    );
    refused_by_files(files.ask(Method::GET, "/api/v1/backends/nobody").await, 404);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_is_tested_used_changed_and_mounted() {
    let rig = Rig::start().await;
    let files = Files::of(&rig).await;
    let server = serve("webdav").await;
    let url = format!("http://{}", server.address);
    let given = json!({ "url": url, "vendor": "other", "user": "ann", "pass": "wrong" });
    let id = files.connect("webdav", given).await;
    let path = format!("/api/v1/backends/{id}");
    let tested = files
        .ask(Method::GET, &format!("{path}/test"))
        .await
        .expect(200)
        .json();
    assert_eq!(tested["success"], false);
    files
        .send(Method::PUT, &path, json!({ "pass": "s3cret-word" }))
        .await
        .expect(200);
    let tested = files
        .ask(Method::GET, &format!("{path}/test"))
        .await
        .expect(200)
        .json();
    assert_eq!(tested["success"], true, "{tested}");
    let read = files
        .get(&format!("/note.txt?backend={id}"))
        .await
        .expect(200);
    assert_eq!(read.text(), "from elsewhere");

    let wanted = json!({ "backend_id": id, "label": "story" });
    let mounted = files
        .send(Method::POST, "/api/v1/mounts", wanted)
        .await
        .expect(200)
        .json();
    let (mount, at) = (&mounted["id"], &mounted["mount_path"]);
    let (mount, at) = (mount.as_str().expect("an id"), at.as_str().expect("a path"));
    // the same file, as one of the computer
    let read = files.get(&format!("{at}/note.txt")).await.expect(200);
    assert_eq!(read.text(), "from elsewhere");
    let listed = files
        .ask(Method::GET, "/api/v1/mounts?label=story")
        .await
        .expect(200)
        .json();
    assert_eq!(each(&listed["mounts"], "id"), [json!(mount)]);
    let path = format!("/api/v1/mounts/{mount}");
    let change = json!({ "vfs_config": { "cache_mode": "full", "dir_cache_time": "10s" } });
    files.send(Method::PATCH, &path, change).await.expect(200);
    let one = files.ask(Method::GET, &path).await.expect(200).json();
    assert_eq!(
        (&one["status"], &one["vfs_config"]["dir_cache_time"]),
        (&json!("mounted"), &json!(10))
    );
    files.ask(Method::DELETE, &path).await.expect(200);
    refused_by_files(files.ask(Method::GET, &path).await, 404);
    refused_by_files(files.get(&format!("{at}/note.txt")).await, 404);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_names_a_server_of_its_own() {
    let rig = Rig::start().await;
    let files = Files::of(&rig).await;
    let pass = "czNjcmV0LXdvcmQ="; // base64
    for (kind, protocol) in [("ssh", "sftp"), ("ftp", "ftp"), ("webdav", "webdav")] {
        let server = serve(protocol).await;
        let words = match kind {
            "ssh" => format!("type=ssh&server={}&user=ann&pass={pass}", server.address),
            "webdav" => format!(
                "type=webdav&server=http://{}&user=ann&pass=s3cret-word",
                server.address
            ),
            _ => format!(
                "type=ftp&server={}&user=ann&pass=s3cret-word",
                server.address
            ),
        };
        let read = files
            .ask(Method::GET, &format!("/note.txt?{words}"))
            .await
            .expect(200);
        assert_eq!(read.text(), "from elsewhere", "{kind}");
        if kind == "ssh" {
            let path = format!("/new.txt?{words}");
            let written = files
                .call(Method::PUT, &path, |request| request.body("over ssh"))
                .await;
            written.expect(201);
            assert_eq!(
                files.ask(Method::GET, &path).await.expect(200).text(),
                "over ssh"
            );
        }
    }
    refused_by_files(
        files
            .ask(
                Method::GET,
                "/x?type=ssh&server=-oProxyCommand=id&user=u&pass=eA==",
            )
            .await,
        400,
    );
    rig.stop().await;
}
