//! Scripts that run as they should.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_a_script_answers() {
    let bench = Bench::new();
    for (nth, (code, status, kind, text)) in [
        ("return { hi: 1 }", 200, "application/json", r#"{"hi":1}"#),
        ("return 'plain'", 200, "text/plain; charset=utf-8", "plain"),
        ("return '<!doctype html><p>x'", 200, "text/html; charset=utf-8", "<!doctype html><p>x"),
        ("return 7", 200, "application/json", "7"),
        ("", 204, "", ""),
        ("return null", 204, "", ""),
        ("return Buffer.from('abc')", 200, "application/octet-stream", "abc"),
        ("return new Response('r', { status: 418, headers: { 'content-type': 'x/y' } })", 418, "x/y", "r"),
        ("res.status(201).json({ a: [1] })", 201, "application/json", r#"{"a":[1]}"#),
        ("res.type('text/css').send('x')", 200, "text/css", "x"),
        ("res.redirect('/there')", 302, "", ""),
        ("module.exports = (req, res) => res.json({ m: req.method })", 200, "application/json", r#"{"m":"GET"}"#),
        ("module.exports = async () => ({ a: 1 })", 200, "application/json", r#"{"a":1}"#),
        ("export default function handler(req: any) { return { u: req.url } }", 200, "application/json", ""),
        ("export default async (req, res) => { res.send('x') }", 200, "text/plain; charset=utf-8", "x"),
        ("export default { fetch(request) { return new Response(request.method) } }", 200, "text/plain;charset=UTF-8", "GET"),
        ("export function GET() { return 'got' }\nexport const POST = () => 1", 200, "text/plain; charset=utf-8", "got"),
        ("export const POST = () => 1", 405, "application/json", ""),
        ("exports.handler = () => 'h'", 200, "text/plain; charset=utf-8", "h"),
        ("module.exports = (req, res) => { setTimeout(() => res.end('late'), 30) }", 200, "text/plain;charset=UTF-8", "late"),
        ("enum A { X = 3 }\nconst x: number = A.X; return x", 200, "application/json", "3"),
        ("import { join } from 'path'\nimport os from 'node:os'\nreturn join('a', 'b') + typeof os.cpus", 200, "text/plain; charset=utf-8", "a/bfunction"),
        ("const { join } = require('path'); return join('a', 'b')", 200, "text/plain; charset=utf-8", "a/b"),
        ("const fs = require('fs'); const shared = 1; return typeof fs.readFileSync", 200, "text/plain; charset=utf-8", "function"),
        ("async function* g() { yield 'a'; yield 'b' }\nreturn g()", 200, "text/plain; charset=utf-8", "ab"),
        ("const x = await Promise.resolve(5)\nif (x) return x", 200, "application/json", "5"),
        ("throw new Error('no\\nway')", 500, "application/json", ""),
        ("res.setHeader('x-a', '1'); return new Response('x')", 200, "text/plain;charset=UTF-8", "x"),
    ]
    .into_iter()
    .enumerate()
    {
        bench.put(&format!("form{nth}.ts"), code);
        let answer = bench.get(&format!("/form{nth}")).await;
        assert_eq!(answer.status.as_u16(), status, "{code}: {}", answer.text);
        let its = answer.headers.get("content-type").map_or("", |it| it.to_str().unwrap());
        assert_eq!(its, kind, "{code}");
        if !text.is_empty() {
            assert_eq!(answer.text, text, "{code}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_sees_its_request() {
    let bench = Bench::new();
    bench.put("users/[id].ts", "return { p: metadata.parameters, r: req.params, q: metadata.query, u: req.url, h: req.headers['x-own'] ?? null, edge: Object.keys(req.headers).filter(n => n.startsWith('x-hoody')) , ip: req.ip }");
    let request = Request::get("/users/a%20b?x=1&x=2&id=other")
        .header("x-own", "yes")
        .header("x-hoody-exec-call", "%7B%22method%22%3A%22EVIL%22%7D")
        .header("x-hoody-edge-client", "192.0.2.7")
        .header("x-hoody-edge-user", "ann")
        .body(Body::empty())
        .unwrap();
    let seen = bench.send(request).await.expect(200).json();
    assert_eq!(
        seen,
        json!({
            "p": { "id": "a b", "x": "2" }, "r": { "id": "a b" }, "q": { "id": "a b", "x": "2" },
            "u": "/users/a%20b?x=1&x=2&id=other", "h": "yes", "edge": ["x-hoody-edge-user"], "ip": "192.0.2.7",
        })
    );
    bench.put("body.ts", "return { b: req.body, raw: req.rawBody?.length ?? null, files: (req.files ?? []).map(f => [f.fieldName, f.filename, f.size, f.data.toString()]) }");
    let send = |kind: &str, body: &str| {
        let request = Request::post("/body")
            .header("content-type", kind)
            .body(Body::from(body.to_owned()));
        let request = request.unwrap();
        let bench = &bench;
        async move { bench.send(request).await }
    };
    assert_eq!(
        send("application/json", r#"{"a": 1}"#).await.json()["b"],
        json!({ "a": 1 })
    );
    assert_eq!(send("application/json", "").await.json()["b"], Value::Null);
    assert_eq!(
        send("application/json", "{").await.expect(400).json()["code"],
        "INVALID_JSON"
    );
    assert_eq!(
        send("application/x-www-form-urlencoded", "a=1&b=x+y")
            .await
            .json()["b"],
        json!({ "a": "1", "b": "x y" })
    );
    assert_eq!(send("text/plain", "hi").await.json()["b"], "hi");
    assert_eq!(
        send("application/octet-stream", "hi").await.json()["raw"],
        2
    );
    let form = "--X\r\ncontent-disposition: form-data; name=\"t\"\r\n\r\nnotes\r\n--X\r\ncontent-disposition: form-data; name=\"d\"; filename=\"a.txt\"\r\n\r\nhello\r\n--X--\r\n";
    let form = send("multipart/form-data; boundary=X", form).await.json();
    assert_eq!(form["b"], json!({ "t": "notes" }));
    assert_eq!(form["files"], json!([["d", "a.txt", 5, "hello"]]));
    bench.put(
        "raw.ts",
        "// @rawBody\nlet n = 0; for await (const part of req) n += part.length; return { n }",
    );
    let large = Request::post("/raw")
        .body(Body::from(vec![1u8; 3 << 20]))
        .unwrap();
    assert_eq!(bench.send(large).await.expect(200).json()["n"], 3 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_is_saved_answers_anew_at_once() {
    let bench = Bench::new();
    bench.put("lib/help.ts", "export const word: string = 'one'");
    bench.put("hot.ts", "import { word } from './lib/help.ts'\nglobalThis.count = (globalThis.count ?? 0) + 1\nreturn word + globalThis.count");
    assert_eq!(bench.get("/hot").await.text, "one1");
    assert_eq!(
        bench.get("/hot").await.text,
        "one1",
        "serverless keeps nothing in the global scope"
    );
    bench.put("lib/help.ts", "export const word: string = 'two'");
    assert_eq!(
        bench.get("/hot").await.text,
        "two1",
        "what it imports counts as well"
    );
    for nth in 0..6 {
        bench.put("hot.ts", &format!("// @mode worker\nglobalThis.n = (globalThis.n ?? 0) + 1\nreturn '{nth}:' + globalThis.n"));
        assert_eq!(bench.get("/hot").await.text, format!("{nth}:1"));
        assert_eq!(bench.get("/hot").await.text, format!("{nth}:2"));
    }
    bench.put("hot.env", "A=1\nB=\"two words\"");
    bench.put("_default.env", "A=0\nC=3");
    bench.put(
        "hot.ts",
        "return [process.env.A, process.env.B, process.env.C]",
    );
    assert_eq!(
        bench.get("/hot").await.json(),
        json!(["1", "two words", "3"])
    );
    bench.put(
        "pre.ts",
        "if (req.headers['x-stop']) { res.status(401); return { error: 'no' } }\nreq.user = 'ann'",
    );
    bench.put(
        "post.js",
        "if (res.statusCode >= 400) return;\nreturn { data: mainResult }",
    );
    bench.put("hot.ts", "return { by: req.user }");
    assert_eq!(
        bench.get("/hot").await.json(),
        json!({ "data": { "by": "ann" } })
    );
    let stopped = Request::get("/hot")
        .header("x-stop", "1")
        .body(Body::empty())
        .unwrap();
    assert_eq!(
        bench.send(stopped).await.expect(401).json(),
        json!({ "error": "no" })
    );
    std::fs::remove_file(bench.home.path().join("scripts/default/1/hot.ts")).unwrap();
    bench.get("/hot").await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_being_written_is_waited_for() {
    use std::io::Write;
    let bench = Bench::new();
    let path = bench.home.path().join("scripts/default/1/slow.ts");
    bench.put("slow.ts", "return 1");
    bench.get("/slow").await.expect(200);
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(b"return { a: ").unwrap();
    let writer = tokio::task::spawn_blocking(move || {
        std::thread::sleep(std::time::Duration::from_millis(120));
        file.write_all(b"2 }").unwrap();
    });
    assert_eq!(
        bench.get("/slow").await.expect(200).json(),
        json!({ "a": 2 })
    );
    writer.await.unwrap();
    bench.put("slow.ts", "return {{{");
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    let broken = bench.get("/slow").await.expect(500).json();
    assert_eq!(broken["code"], "SCRIPT_INVALID");
    assert!(
        broken["error"].as_str().unwrap().contains("slow.ts"),
        "{broken}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_share_what_is_said_to_be_shared() {
    let bench = Bench::new();
    bench.put("a.ts", "shared.n = (shared.n ?? 0) + 1; shared.list ??= []; shared.list.push(shared.n); return shared.n");
    bench.put(
        "b.ts",
        "return { n: shared.n, list: shared.list, keys: Object.keys(shared) }",
    );
    bench.get("/b").await.expect(200);
    for nth in 1..=20 {
        assert_eq!(bench.get("/a").await.json(), nth);
        let seen = bench.get("/b").await.json();
        assert_eq!(seen["n"], nth, "what one answered with, the other has");
        assert_eq!(seen["list"].as_array().unwrap().len(), nth);
    }
    let state = |path: &str, body: Value| {
        let path = format!("/api/v1/exec/shared-state/{path}");
        let bench = &bench;
        async move { bench.post(&path, body).await.expect(200).json() }
    };
    let got = state("get", json!({ "hostname": "default", "path": "list.0" })).await;
    assert_eq!((&got["exists"], &got["state"]), (&json!(true), &json!(1)));
    state(
        "set",
        json!({ "hostname": "default", "path": "n", "value": 100 }),
    )
    .await;
    assert_eq!(bench.get("/a").await.json(), 101);
    let cleared = state("clear", json!({ "hostname": "default" })).await;
    assert_eq!(cleared["count"], 2);
    assert_eq!(bench.get("/b").await.json()["keys"], json!([]));
    assert_eq!(
        state("get", json!({ "hostname": "default" })).await["exists"],
        false
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn directives_rule_who_may_ask_and_from_where() {
    let bench = Bench::new();
    bench.put(
        "closed.ts",
        "// @token s3cret\n// @token other\nreturn 'in'",
    );
    bench.get("/closed").await.expect(401);
    bench.get("/closed?token=wrong").await.expect(401);
    bench.get("/closed?token=other").await.expect(200);
    let with = Request::get("/closed")
        .header("authorization", "Bearer s3cret")
        .body(Body::empty())
        .unwrap();
    bench.send(with).await.expect(200);
    let read = bench
        .get("/api/v1/exec/scripts/read?path=closed.ts")
        .await
        .expect(200);
    assert!(!read.text.contains("s3cret") && read.text.contains("[REDACTED]"));
    for log in ["access/access.log", "exec.log"] {
        let text = bench.log(log).await;
        assert!(
            !text.contains("other") && !text.contains("s3cret"),
            "{text}"
        );
    }
    bench.put("off.ts", "// @enabled false\nreturn 1");
    bench.get("/off").await.expect(404);
    let origin = |path: &str, method: &str| {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("origin", "https://app.example");
        if method == "OPTIONS" {
            request = request.header("access-control-request-method", "PUT");
        }
        let request = request.body(Body::empty()).unwrap();
        let bench = &bench;
        async move {
            let answer = bench.send(request).await;
            let header = |name: &str| {
                answer
                    .headers
                    .get(name)
                    .map(|it| it.to_str().unwrap().to_owned())
            };
            (
                answer.status.as_u16(),
                header("access-control-allow-origin"),
                header("access-control-allow-credentials"),
            )
        }
    };
    let app = || Some("https://app.example".to_owned());
    let yes = || Some("true".to_owned());
    for (cors, allowed, credentials) in [
        ("", app(), yes()),
        ("// @cors *\n", app(), None),
        (
            "// @cors https://app.example\n// @cors-credentials true\n",
            app(),
            yes(),
        ),
        ("// @cors https://other.example\n", None, None),
        ("// @cors none\n", None, None),
    ] {
        bench.put("cors.ts", &format!("{cors}return 1"));
        assert_eq!(
            origin("/cors", "GET").await,
            (200, allowed.clone(), credentials.clone()),
            "{cors}"
        );
        assert_eq!(
            origin("/cors", "OPTIONS").await,
            (204, allowed, credentials),
            "{cors}"
        );
    }
    bench.put("guide.md", "# Guide");
    assert_eq!(bench.get("/guide.md").await.expect(200).text, "# Guide");
    bench.put("guide.ts", "// @token x\nreturn 1");
    bench.get("/guide.md").await.expect(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_scripts_say_is_kept_with_whose_request_it_was() {
    let bench = Bench::new();
    bench.put(
        "talk.ts",
        "console.log('hello', { a: 1 }); console.debug('quiet'); console.error('bad'); return 1",
    );
    let answer = bench.get("/talk?key=hidden").await.expect(200);
    let id = answer.headers["x-execution-id"]
        .to_str()
        .unwrap()
        .to_owned();
    bench
        .until("it is written", async || {
            bench.log("exec.log").await.contains("bad")
        })
        .await;
    let read = bench
        .post("/api/v1/exec/logs/read", json!({ "executionId": id }))
        .await
        .expect(200)
        .json();
    assert_eq!(read["returnedLines"], 2, "{read}");
    let text = bench.log("exec.log").await;
    assert!(
        text.contains("hello { a: 1 }") && !text.contains("quiet"),
        "{text}"
    );
    let access = bench.log("access/access.log").await;
    assert!(
        access.contains("GET /talk?key=… 200") && !access.contains("hidden"),
        "{access}"
    );
    let found = bench
        .post(
            "/api/v1/exec/logs/search",
            json!({ "regex": "hello.*a: 1" }),
        )
        .await
        .json();
    assert_eq!(found["matchesFound"], 1);
    let stats = bench.get("/api/v1/exec/monitor/stats").await.json();
    assert_eq!(
        (&stats["requests"]["total"], &stats["cache"]["vms"]),
        (&json!(1), &json!(1))
    );
    let one = bench
        .post(
            "/api/v1/exec/monitor/script-performance",
            json!({ "scriptPath": "default/1/talk.ts" }),
        )
        .await;
    assert_eq!(one.json()["metrics"]["http"]["success"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_run_by_themselves() {
    let bench = Bench::new();
    let write = json!({ "path": "tick.ts", "content": "// @schedule */5 * * * *\n// @token x\nshared.runs = (shared.runs ?? 0) + 1\nreturn { m: metadata.method, runs: shared.runs }" });
    let written = bench
        .post("/api/v1/exec/scripts/write", write)
        .await
        .expect(200)
        .json();
    assert_eq!(written["schedule"]["action"], "registered");
    let list = bench.get("/api/v1/exec/schedules/list").await.json();
    assert_eq!(list["schedules"][0]["scriptRel"], "default/1/tick.ts");
    assert!(list["schedules"][0]["nextFire"].is_string());
    assert!(Exec::wants_to_run(&bench.home.path().join("state")));
    let trigger = |force: bool| {
        bench.post(
            "/api/v1/exec/schedules/trigger",
            json!({ "scriptPath": "tick.ts", "force": force }),
        )
    };
    trigger(false).await.expect(403);
    let ran = trigger(true).await.expect(200).json();
    assert_eq!(
        (&ran["triggered"], &ran["status"]),
        (&json!(true), &json!("ok")),
        "{ran}"
    );
    let history = bench.get("/api/v1/exec/schedules/history").await.json();
    assert_eq!(
        history["entries"][0]["returnPreview"],
        r#"{"m":"SCHEDULE","runs":1}"#
    );
    bench.put("other.ts", "// @schedule @daily\nreturn 1");
    bench.put(
        "socket.ts",
        "// @schedule @daily\n// @mode worker\n// @websocket\n",
    );
    let reload = |dry: bool| bench.post("/api/v1/exec/schedules/reload", json!({ "dry_run": dry }));
    assert_eq!(
        reload(true).await.json()["added"],
        json!(["default/1/other.ts"])
    );
    let reloaded = reload(false).await.json();
    assert_eq!(
        (
            &reloaded["kept"],
            reloaded["failed"].as_array().unwrap().len()
        ),
        (&json!(["default/1/tick.ts"]), 1)
    );
    for path in ["tick.ts", "other.ts"] {
        let path = format!("/api/v1/exec/scripts/delete?path={path}&confirm=true");
        bench
            .call(http::Method::DELETE, &path, Value::Null)
            .await
            .expect(200);
    }
    assert!(!Exec::wants_to_run(&bench.home.path().join("state")));
}

use crate::Exec;

#[tokio::test(flavor = "multi_thread")]
async fn streams_come_as_they_are_written_and_end_with_their_reader() {
    use http_body_util::BodyExt;
    let bench = Bench::new();
    bench.put("sse.ts", "res.type('text/event-stream'); let n = 0\nconst t = setInterval(() => res.write(`data: ${++n}\\n\\n`), 20)\nres.on('close', () => { clearInterval(t); shared.closed = true })\nres.write(': hi\\n\\n')\nmodule.exports = (req, res) => {}");
    let request = Request::get("/sse").body(Body::empty()).unwrap();
    let mut body = bench.respond(request).await.into_body();
    let mut text = String::new();
    while !text.contains("data: 3") {
        let frame = body.frame().await.unwrap().unwrap();
        text.push_str(&String::from_utf8_lossy(frame.data_ref().unwrap()));
    }
    let active = bench
        .get("/api/v1/exec/monitor/active-requests")
        .await
        .json();
    assert_eq!(active["active"][0]["scriptPath"], "default/1/sse.ts");
    drop(body);
    let state = json!({ "hostname": "default", "path": "closed" });
    bench
        .until("the script hears that its reader left", async || {
            bench
                .post("/api/v1/exec/shared-state/get", state.clone())
                .await
                .json()["state"]
                == true
        })
        .await;
    let active = bench
        .get("/api/v1/exec/monitor/active-requests")
        .await
        .json();
    assert_eq!(active["count"], 0);
    bench.put(
        "wait.ts",
        "await new Promise(r => req.signal.addEventListener('abort', r)); shared.left = true",
    );
    let request = Request::get("/wait").body(Body::empty()).unwrap();
    let waiting = tokio::time::timeout(
        std::time::Duration::from_millis(600),
        bench.respond(request),
    )
    .await;
    assert!(waiting.is_err(), "it waits");
    let state = json!({ "hostname": "default", "path": "left" });
    bench
        .until("the script hears that its caller left", async || {
            bench
                .post("/api/v1/exec/shared-state/get", state.clone())
                .await
                .json()["state"]
                == true
        })
        .await;
}
