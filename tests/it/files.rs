//! Files below `/api/v1/files`.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tests::Rig;
use tests::rig::{Answer, Container};

use crate::wire::{each, refused};

/// The files service of a container, for stories.
pub struct Files<'a> {
    pub rig: &'a Rig,
    pub container: Container,
}

impl<'a> Files<'a> {
    pub async fn of(rig: &'a Rig) -> Files<'a> {
        Files {
            rig,
            container: rig.create("web").await,
        }
    }

    pub async fn call(
        &self,
        method: Method,
        path: &str,
        shape: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Answer {
        self.rig
            .kit(&self.container, "files", method, path, shape)
            .await
    }

    /// A call of `/api/v1/files{path}`.
    pub async fn api(&self, method: Method, path: &str) -> Answer {
        self.call(method, &format!("/api/v1/files{path}"), |request| request)
            .await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.api(Method::GET, path).await
    }

    pub async fn write(&self, path: &str, content: &str) {
        let content = content.to_owned();
        let written = self
            .call(Method::PUT, &format!("/api/v1/files{path}"), |request| {
                request.body(content)
            })
            .await;
        assert_eq!(written.expect(200).json()["success"], true);
    }

    /// What is in a file; nothing where there is none.
    pub async fn read(&self, path: &str) -> Option<String> {
        let answer = self.get(path).await;
        (answer.status == 200).then(|| answer.text())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_written_read_in_parts_and_removed() {
    let rig = Rig::start().await;
    let files = Files::of(&rig).await;
    files.write("/notes/a%20b.txt", "one\ntwo\n").await;
    // clients encode slashes of a path too
    assert_eq!(
        files.read("/notes%2Fa%20b.txt").await.as_deref(),
        Some("one\ntwo\n")
    );
    let path = "/api/v1/files/append/notes/a%20b.txt";
    let appended = files
        .call(Method::PUT, path, |request| request.body("three\n"))
        .await
        .expect(200)
        .json();
    assert_eq!(appended["new_size"], 14);

    let whole = files.get("/notes/a%20b.txt").await.expect(200);
    let etag = whole.header("etag").to_owned();
    assert_eq!(whole.text(), "one\ntwo\nthree\n");
    let at = "/api/v1/files/notes/a%20b.txt";
    let part = files
        .call(Method::GET, at, |request| {
            request.header("range", "bytes=4-6")
        })
        .await
        .expect(206);
    assert_eq!(
        (part.text().as_str(), part.header("content-range")),
        ("two", "bytes 4-6/14")
    );
    files
        .call(Method::GET, at, |request| {
            request.header("range", "bytes=99-")
        })
        .await
        .expect(416);
    files
        .call(Method::GET, at, |request| {
            request.header("if-none-match", &etag)
        })
        .await
        .expect(304);
    assert_eq!(
        files
            .get("/notes/a%20b.txt?lines=2-3")
            .await
            .expect(200)
            .text(),
        "two\nthree\n"
    );
    assert_eq!(
        files
            .get("/notes/a%20b.txt?base64=true")
            .await
            .expect(200)
            .text()
            .trim(),
        "b25lCnR3bwp0aHJlZQo="
    );

    let stat = files.get("/stat/notes/a%20b.txt").await.expect(200).json();
    assert_eq!(
        (&stat["size"], &stat["path"], &stat["name"]),
        (&json!(14), &json!("/notes/a b.txt"), &json!("a b.txt"))
    );
    let listing = files.get("/notes").await.expect(200).json();
    assert_eq!(
        (each(&listing["paths"], "name"), &listing["total"]),
        (vec![json!("a b.txt")], &json!(1))
    );

    let stale = files
        .call(Method::PUT, at, |request| {
            request.header("if-match", "\"stale\"").body("x")
        })
        .await;
    refused_by_files(stale, 412);
    let removed = files.api(Method::DELETE, "/notes").await.expect(200).json();
    assert_eq!(removed["success"], true);
    refused_by_files(files.get("/notes/a%20b.txt").await, 404);
    refused_by_files(files.api(Method::DELETE, "/notes").await, 404);
    rig.stop().await;
}

/// The error shape of this service.
#[track_caller]
pub fn refused_by_files(answer: Answer, status: u16) {
    let body = answer.expect(status).json();
    assert_eq!(body["success"], false, "{body}");
    assert!(
        body["error"]
            .as_str()
            .is_some_and(|error| !error.is_empty()),
        "{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_found_by_name_and_by_content() {
    let rig = Rig::start().await;
    let files = Files::of(&rig).await;
    for (path, content) in [
        ("/src/main.rs", "fn main() {\n    work();\n}\n"),
        ("/src/deep/work.rs", "pub fn work() {}\n"),
        ("/src/.gitignore", "target\n"),
        ("/src/target/out.rs", "fn work() {}\n"),
        ("/README.md", "# work\n"),
    ] {
        files.write(path, content).await;
    }
    let found = files
        .get("/glob/src?pattern=**/*.rs&sort=name")
        .await
        .expect(200)
        .json();
    assert_eq!(
        each(&found["entries"], "name"),
        [json!("deep/work.rs"), json!("main.rs")]
    );
    let all = files
        .get("/glob/src?pattern=**/*.rs&sort=name&no_ignore=true")
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&all["count"], &all["truncated"]),
        (&json!(3), &json!(false))
    );

    let found = files
        .get("/grep/src?pattern=work%5C(&context=1")
        .await
        .expect(200)
        .json();
    let mut paths: Vec<_> = each(&found["matches"], "path")
        .iter()
        .map(Value::to_string)
        .collect();
    paths.sort();
    assert_eq!(paths, ["\"/src/deep/work.rs\"", "\"/src/main.rs\""]);
    let capital = files
        .get("/grep/README.md?pattern=WORK&ignore_case=true&fixed_string=true")
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&capital["matches"][0]["line"], &capital["total_matches"]),
        (&json!("# work"), &json!(1))
    );

    refused_by_files(files.get("/grep/src?pattern=(").await, 400);
    refused_by_files(files.get("/glob/src?pattern=%5B").await, 400);
    refused_by_files(
        files.get("/glob/src?pattern=*&max_results=1000000").await,
        400,
    );
    refused_by_files(files.get("/glob/src").await, 400);
    refused_by_files(files.get("/grep/nowhere?pattern=x").await, 404);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_copied_moved_and_given_other_rights() {
    let rig = Rig::start().await;
    let files = Files::of(&rig).await;
    files.write("/a.txt", "a").await;
    let done = files
        .api(Method::POST, "/copy/a.txt?copy_to=/b.txt")
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&done["source"], &done["destination"]),
        (&json!("/a.txt"), &json!("/b.txt"))
    );
    refused_by_files(
        files.api(Method::POST, "/copy/a.txt?copy_to=/b.txt").await,
        409,
    );
    files
        .api(Method::POST, "/copy/a.txt?copy_to=/b.txt&overwrite=true")
        .await
        .expect(200);
    files
        .api(Method::POST, "/move/b.txt?move_to=/deep/c.txt")
        .await
        .expect(200);
    assert_eq!(
        (
            files.read("/b.txt").await,
            files.read("/deep/c.txt").await.as_deref()
        ),
        (None, Some("a"))
    );

    let done = files
        .api(Method::PATCH, "/chmod/a.txt?chmod=640")
        .await
        .expect(200)
        .json();
    assert_eq!(done["success"], true);
    let stat = files.get("/stat/a.txt").await.json();
    assert!(
        stat["permissions"]
            .as_str()
            .is_some_and(|mode| mode.ends_with("640")),
        "{stat}"
    );
    let ids = own_ids();
    let done = files
        .api(Method::PATCH, &format!("/chown/a.txt?chown={ids}"))
        .await;
    if ids.starts_with("0:") {
        // nothing can be given to root, not even by root
        refused_by_files(done, 400);
        files
            .api(Method::PATCH, "/chown/a.txt?chown=65534:65534")
            .await
            .expect(200);
    } else {
        done.expect(200);
    }
    refused_by_files(
        files.api(Method::PATCH, "/chmod/a.txt?chmod=rwx").await,
        400,
    );
    refused_by_files(
        files
            .api(Method::PATCH, "/chown/a.txt?chown=nobody-here")
            .await,
        400,
    );

    // the forms that the clients of one path use
    files
        .api(Method::POST, "/made/deep?mkdir=")
        .await
        .expect(200);
    assert_eq!(
        files.get("/stat/made/deep").await.expect(200).json()["path_type"],
        "Dir"
    );
    files
        .api(Method::POST, "/a.txt?copy_to=/made/a.txt")
        .await
        .expect(200);
    files
        .api(Method::POST, "/made/a.txt?move_to=/made/b.txt")
        .await
        .expect(200);
    files
        .api(Method::PATCH, "/made/b.txt?chmod=600")
        .await
        .expect(200);
    let patch = async |path: &str, body: Value| {
        let path = format!("/api/v1/files{path}");
        files
            .call(Method::PATCH, &path, |request| request.json(&body))
            .await
    };
    patch("/made/b.txt", json!({ "name": "c.txt" }))
        .await
        .expect(200);
    patch("/made/c.txt", json!({ "move_to": "/made/d.txt" }))
        .await
        .expect(200);
    assert_eq!(files.read("/made/d.txt").await.as_deref(), Some("a"));
    refused_by_files(files.api(Method::POST, "/a.txt").await, 400);
    refused_by_files(patch("/a.txt", json!({})).await, 400);
    refused_by_files(files.api(Method::POST, "/a.txt?extract=all").await, 501);

    let real = files
        .get("/realpath/made/../a.txt")
        .await
        .expect(200)
        .json();
    assert_eq!(real["real_path"], "/a.txt");
    rig.stop().await;
}

fn own_ids() -> String {
    format!(
        "{}:{}",
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_out() {
    let rig = Rig::start().await;
    let files = Files::of(&rig).await;
    let secret = rig.state.path().join("secret");
    std::fs::write(&secret, "of the host").expect("the state directory is ours");
    let home = rig
        .state
        .path()
        .join("homes")
        .join(files.container.id.to_string());
    std::os::unix::fs::symlink(&secret, home.join("absolute")).expect("a link");
    std::os::unix::fs::symlink("../../secret", home.join("relative")).expect("a link");
    std::os::unix::fs::symlink("..", home.join("up")).expect("a link");
    for path in [
        "/absolute",
        "/relative",
        "/up%2Fup%2Fsecret",
        "/..%2F..%2Fsecret",
        "/x%2F..%2F..%2F..%2Fsecret",
    ] {
        for before in [
            "/api/v1/files",
            "/api/v1/files/stat",
            "/api/v1/files/realpath",
            "",
        ] {
            let answer = files
                .call(Method::GET, &format!("{before}{path}"), |request| request)
                .await;
            assert!(!answer.text().contains("of the host"), "{before}{path}");
            assert!(
                answer.status >= 400 || !answer.text().contains("\"size\":11"),
                "{before}{path}: {}",
                answer.text()
            );
        }
        files
            .call(Method::PUT, &format!("/api/v1/files{path}"), |request| {
                request.body("mine")
            })
            .await;
        files.api(Method::DELETE, path).await;
    }
    assert_eq!(
        std::fs::read_to_string(&secret).expect("it is still there"),
        "of the host"
    );
    for path in ["/nul%00byte", "/bad%2"] {
        let answer = files.get(path).await;
        assert!(
            (400..500).contains(&answer.status),
            "{path}: {}",
            answer.text()
        );
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_says_which_it_is() {
    let rig = Rig::start().await;
    let files = Files::of(&rig).await;
    let version = files
        .call(Method::GET, "/api/v1/version", |request| request)
        .await
        .expect(200)
        .json();
    assert_eq!(version["version"], "v1");
    assert_eq!(
        files.get("/health").await.expect(200).json()["service"],
        "files"
    );
    refused_by_files(
        files
            .call(Method::GET, "/api/v1/nothing", |request| request)
            .await,
        404,
    );
    refused_by_files(
        files
            .get("/a.txt?type=git&url=https://elsewhere.test/x")
            .await,
        501,
    );
    // the terminal's error shape is another
    let other = files
        .rig
        .kit(
            &files.container,
            "terminal",
            Method::GET,
            "/api/v1/terminal/result/never",
            |request| request,
        )
        .await;
    refused(other, 404, "COMMAND_NOT_FOUND");
    rig.stop().await;
}
