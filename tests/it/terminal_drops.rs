//! Dropping files onto a terminal.

use reqwest::Method;
use serde_json::{Value, json};
use tests::Rig;
use tests::rig::Answer;

use crate::terminal::Terminal;
use crate::wire::{refused, text};

/// Upload a slice.
async fn upload(
    terminal: &Terminal<'_>,
    begun: &Value,
    path: &str,
    offset: usize,
    bytes: &[u8],
) -> Answer {
    let (drop, token) = (text(&begun["drop"]), text(&begun["token"]));
    let path = format!(
        "/api/v1/terminal/upload?terminal_id=1&drop={drop}&token={token}&path={path}&offset={offset}"
    );
    let shape = |request: reqwest::RequestBuilder| {
        request
            .header("content-type", "application/octet-stream")
            .body(bytes.to_vec())
    };
    terminal
        .rig
        .kit(&terminal.container, "terminal", Method::POST, &path, shape)
        .await
}

async fn session(terminal: &Terminal<'_>) {
    let wish = json!({ "terminal_id": "1", "shell": "bash", "cols": 200 });
    let made = terminal.post("/terminal/create", wish).await.expect(200);
    assert_eq!(made.json()["shell_ready"], true);
}

async fn wait(terminal: &Terminal<'_>, pattern: &str) {
    let body = json!({ "mode": "regex", "pattern": pattern, "timeout_ms": 15000 });
    let path = "/terminal/wait?terminal_id=1";
    let waited = terminal.post(path, body).await.expect(200).json();
    assert_eq!(waited["status"], "matched", "{pattern}: {waited}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_uploaded_in_slices_and_their_paths_typed() {
    let rig = Rig::start().await;
    let terminal = Terminal::of(&rig).await;
    session(&terminal).await;
    let begun = terminal
        .post("/terminal/drop-begin?terminal_id=1", json!({}))
        .await
        .expect(200)
        .json();
    assert!(begun["max_slice"].as_u64().is_some_and(|max| max > 1 << 20));
    let file = "notes%2Fto%20do.txt";
    for (offset, slice) in [(0, "milk\n"), (5, "bread\n")] {
        let sent = upload(&terminal, &begun, file, offset, slice.as_bytes()).await;
        assert_eq!(sent.expect(200).json()["size"], offset + slice.len());
    }
    let again = upload(&terminal, &begun, file, 5, b"bread\n").await;
    assert_eq!(again.json()["size"], 11, "where to go on");
    refused(again, 409, "OFFSET_MISMATCH");
    let other = json!({ "drop": begun["drop"], "token": "0" });
    refused(
        upload(&terminal, &other, file, 11, b"x").await,
        409,
        "DROP_NOT_FOUND",
    );
    for path in ["..%2Fx", "%2Fetc%2Fx", "a%0Ab", "manifest.json"] {
        refused(
            upload(&terminal, &begun, path, 0, b"x").await,
            400,
            "INVALID_PATH",
        );
    }
    let commit = format!(
        "/terminal/drop-commit?terminal_id=1&drop={}&token={}",
        text(&begun["drop"]),
        text(&begun["token"])
    );
    let list = |size: usize| {
        json!({ "ctx": "drop", "r": 2, "c": 3, "items": [
            { "p": "notes/to do.txt", "s": size, "name": "to do.txt" },
            { "p": "notes/later", "d": 1, "name": "later" },
        ] })
    };
    refused(terminal.post(&commit, list(12)).await, 409, "DROP_MISMATCH");
    let done = terminal.post(&commit, list(11)).await.expect(200).json();
    assert_eq!(
        (&done["announced"], &done["items"], &done["bytes"]),
        (&json!("paths"), &json!(2), &json!(11))
    );
    wait(&terminal, "notes' $").await;
    refused(
        upload(&terminal, &begun, file, 11, b"x").await,
        409,
        "DROP_SEALED",
    );
    // What was typed is a word of a command line.
    let typed = json!({ "keys": ["home", "l", "s", "space", "enter"] });
    let press = terminal.post("/terminal/press?terminal_id=1", typed);
    press.await.expect(200);
    wait(&terminal, "^ *later +'?to do.txt").await;
    let sum = terminal
        .run(&format!(
            "sha256sum <'{}/manifest.json'",
            text(&done["root"])
        ))
        .await;
    assert!(text(&sum["stdout"]).starts_with(&text(&done["manifest_sha256"])));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_told_of_a_drop_by_a_sequence_of_its_own() {
    let rig = Rig::start().await;
    let terminal = Terminal::of(&rig).await;
    session(&terminal).await;
    let typed = json!({ "input": "stty raw -echo; echo READY; head -c 60 | cat -v" });
    let write = terminal.post("/terminal/write?terminal_id=1", typed);
    write.await.expect(200);
    wait(&terminal, "^ *READY").await;
    let small = json!({ "ctx": "paste", "r": 1, "c": 2, "items": [
        { "name": "a.txt", "b64": "aGVsbG8=" },
        { "name": "folder", "dir": true, "items": [{ "name": "b", "b64": "" }] },
        { "name": "manifest.json", "b64": "e30=" },
    ] });
    let drop = "/terminal/drop?terminal_id=1";
    let done = terminal.post(drop, small).await.expect(200).json();
    assert_eq!(
        (&done["announced"], &done["items"]),
        (&json!("frame"), &json!(4))
    );
    wait(&terminal, r"\^\[\]8472;drop;root=[A-Za-z0-9_-]+").await;
    let root = text(&done["root"]);
    let read = terminal
        .run(&format!(
            "cd '{root}' && cat a.txt folder/b dropped-manifest.json"
        ))
        .await;
    assert_eq!(read["stdout"], "hello{}");

    for (items, code) in [
        (json!([{ "name": "../x", "b64": "" }]), "INVALID_PATH"),
        (json!([{ "name": "x", "b64": "!" }]), "INVALID_BASE64"),
    ] {
        let body = json!({ "ctx": "drop", "items": items });
        refused(terminal.post(drop, body).await, 400, code);
    }
    refused(
        terminal
            .post(drop, json!({ "ctx": "throw", "items": [] }))
            .await,
        400,
        "VALIDATION_ERROR",
    );
    refused(
        terminal
            .post("/terminal/drop-begin?terminal_id=9", json!({}))
            .await,
        404,
        "SESSION_NOT_FOUND",
    );
    rig.stop().await;
}
