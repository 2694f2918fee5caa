//! Scripts that do harm, and requests that do.

use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::{Method, Request};
use serde_json::{Value, json};

use super::Bench;

/// A neighbour that has to go on, whatever happens.
async fn neighbour(bench: &Bench) {
    let answer = bench.get("/good").await.expect(200);
    assert_eq!(answer.text, "good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_ends_its_process_ends_alone() {
    let bench = Bench::new();
    bench.put("good.ts", "// @mode worker\nglobalThis.born ??= Math.random(); shared.born ??= globalThis.born; if (shared.born !== globalThis.born) throw new Error('it was started anew'); return 'good'");
    neighbour(&bench).await;
    for (name, code, status, words) in [
        (
            "loop",
            "// @timeout 300\nwhile (true) {}",
            504,
            "did not answer within 300 ms",
        ),
        (
            "later",
            "// @timeout 300\nsetTimeout(() => { while (true) {} }, 1); await new Promise(() => {})",
            504,
            "300 ms",
        ),
        (
            "heap",
            "// @timeout 60000\nconst a = []; while (true) a.push(new Array(100000).fill(a.length))",
            502,
            "heap was full",
        ),
        (
            "buffers",
            "// @timeout 60000\nglobalThis.a = []; while (true) { globalThis.a.push(new Uint8Array(32 << 20).fill(1)); await new Promise(r => setTimeout(r, 30)) }",
            502,
            "memory",
        ),
        ("exit", "Deno.exit(3)", 502, "exited with code 3"),
        ("exit2", "process.exit(0)", 502, "exited with code 0"),
        (
            "kill",
            "process.kill(process.pid, 'SIGKILL')",
            502,
            "signal 9",
        ),
        ("deep", "const f = () => f() + 1; f()", 500, "call stack"),
        (
            "reject",
            "Promise.reject(new Error('nobody')); await new Promise(r => setTimeout(r, 20)); return 'on'",
            200,
            "on",
        ),
        (
            "throw",
            "setTimeout(() => { throw new Error('late') }, 1); await new Promise(r => setTimeout(r, 30)); return 'on'",
            200,
            "on",
        ),
    ] {
        bench.put(&format!("{name}.ts"), code);
        let begun = Instant::now();
        let answer = bench.get(&format!("/{name}")).await;
        assert_eq!(answer.status.as_u16(), status, "{name}: {}", answer.text);
        assert!(answer.text.contains(words), "{name}: {}", answer.text);
        assert!(begun.elapsed() < Duration::from_secs(30), "{name}");
        neighbour(&bench).await;
    }
    // what ended answers anew, once it is mended
    bench.put("loop.ts", "return 'mended'");
    bench
        .until("the loop is over", async || {
            bench.get("/loop").await.text == "mended"
        })
        .await;
    let text = bench.log("exec.log").await;
    assert!(
        text.contains("nobody handled it") && text.contains("nothing caught"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_script_started_ends_with_it() {
    let bench = Bench::new();
    let mark = bench.home.path().join("mark");
    let code = format!(
        "// @timeout 500\nnew Deno.Command('sh', {{ args: ['-c', 'sleep 2; echo alive > {}'] }}).spawn(); while (true) {{}}",
        mark.display()
    );
    bench.put("child.ts", &code);
    bench.get("/child").await.expect(504);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!mark.exists(), "its children are of its session");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_ends_again_and_again_is_left_alone_for_a_while() {
    let bench = Bench::new();
    bench.put("crash.ts", "Deno.exit(1)");
    let mut refused = 0;
    for _ in 0..10 {
        let answer = bench.get("/crash").await;
        match answer.status.as_u16() {
            502 => {}
            503 => {
                refused += 1;
                assert!(answer.headers.contains_key("retry-after"));
                assert_eq!(answer.json()["code"], "SCRIPT_CRASHES");
            }
            other => panic!("{other}: {}", answer.text),
        }
    }
    assert!(refused >= 3, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_under_way_hear_that_their_script_ended_and_others_do_not() {
    let bench = Bench::new();
    bench.put("shared.ts", "if (metadata.query.die) Deno.exit(9); await new Promise(r => setTimeout(r, 3000)); return 1");
    bench.put("good.ts", "return 'good'");
    neighbour(&bench).await;
    bench.put("warm.ts", "return 1");
    let waiting = async {
        let some = (0..8).map(|_| bench.get("/shared"));
        futures::future::join_all(some).await
    };
    let killing = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        bench.get("/shared?die=1").await
    };
    let (waited, killed) = tokio::join!(waiting, killing);
    for answer in waited.into_iter().chain([killed]) {
        assert_eq!(answer.status.as_u16(), 502, "{}", answer.text);
        assert_eq!(answer.json()["code"], "SCRIPT_ENDED");
        assert!(
            answer.text.contains("exited with code 9"),
            "{}",
            answer.text
        );
    }
    neighbour(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_is_deleted_or_replaced_while_it_runs_ends_what_it_is_at() {
    let bench = Bench::new();
    bench.put("run.ts", "if (metadata.query.quick) return 1; await new Promise(r => setTimeout(r, 1500)); return 'old'");
    bench.get("/run?quick=1").await.expect(200);
    let old = bench.get("/run");
    let change = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        bench.put("run.ts", "return 'new'");
        bench.get("/run").await.text
    };
    let (old, new) = tokio::join!(old, change);
    assert_eq!((old.text.as_str(), new.as_str()), ("old", "new"));
    bench.put("run.ts", "if (metadata.query.quick) return 1; await new Promise(r => setTimeout(r, 1500)); return 'last'");
    bench.get("/run?quick=1").await.expect(200);
    let last = bench.get("/run");
    let delete = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let path = "/api/v1/exec/scripts/delete?path=run.ts&confirm=true";
        bench
            .call(Method::DELETE, path, Value::Null)
            .await
            .expect(200);
        bench.get("/run").await.status.as_u16()
    };
    let (last, gone) = tokio::join!(last, delete);
    assert_eq!((last.text.as_str(), gone), ("last", 404));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_has_so_many_requests_at_once() {
    let bench = Bench::new();
    bench.put(
        "one.ts",
        "// @concurrent 2\nawait new Promise(r => setTimeout(r, 500)); return 1",
    );
    let answers = futures::future::join_all((0..10).map(|_| bench.get("/one"))).await;
    let of = |status: u16| {
        answers
            .iter()
            .filter(|it| it.status.as_u16() == status)
            .count()
    };
    assert_eq!((of(200), of(503)), (2, 8));
    let refused = answers.iter().find(|it| it.status.as_u16() == 503).unwrap();
    assert!(refused.headers.contains_key("retry-after") && refused.text.contains("@concurrent"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_bounded_and_slow_ones_are_not_waited_for() {
    let bench = Bench::new();
    bench.put("body.ts", "// @timeout 700\nreturn req.body.length");
    let declared = Request::post("/body").header("content-length", (33u64 << 20).to_string());
    let declared = declared.body(Body::from(vec![0u8; 33 << 20])).unwrap();
    assert_eq!(
        bench.send(declared).await.expect(413).json()["code"],
        "BODY_TOO_LARGE"
    );
    let parts =
        stream::iter((0..40).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![0u8; 1 << 20]))));
    let undeclared = Request::post("/body")
        .body(Body::from_stream(parts))
        .unwrap();
    bench.send(undeclared).await.expect(413);
    let slow = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
    });
    let slow = Request::post("/body")
        .body(Body::from_stream(slow))
        .unwrap();
    bench.send(slow).await.expect(504);
    let broken = stream::iter([
        Ok(Bytes::from_static(b"x")),
        Err(std::io::Error::other("gone")),
    ]);
    let broken = Request::post("/body")
        .body(Body::from_stream(broken))
        .unwrap();
    bench.send(broken).await.expect(400);
    let fine = Request::post("/body").body(Body::from("abc")).unwrap();
    assert_eq!(bench.send(fine).await.expect(200).json(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_slow_holds_nobody_up_and_a_huge_answer_is_not_gathered() {
    use http_body_util::BodyExt;
    let bench = Bench::new();
    bench.put("huge.ts", "const part = new Uint8Array(1 << 20); let sent = 0\nreturn new Response(new ReadableStream({ pull(c) { shared.sent = ++sent; c.enqueue(part) } }))");
    bench.put("good.ts", "return 'good'");
    let request = Request::get("/huge").body(Body::empty()).unwrap();
    let mut body = bench.respond(request).await.into_body();
    for _ in 0..4 {
        body.frame().await.unwrap().unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    neighbour(&bench).await;
    let state = bench
        .post(
            "/api/v1/exec/shared-state/get",
            json!({ "hostname": "default", "path": "sent" }),
        )
        .await;
    let sent = state.json()["state"].as_u64().unwrap();
    assert!(sent < 64, "the script is made to wait: {sent} MiB");
    drop(body);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_lead_nowhere_but_to_scripts() {
    let bench = Bench::new();
    bench.put("good.ts", "return 'good'");
    let scripts = bench.home.path().join("scripts/default/1");
    std::fs::write(bench.home.path().join("secret.ts"), "return 'secret'").unwrap();
    std::os::unix::fs::symlink(bench.home.path().join("secret.ts"), scripts.join("link.ts"))
        .unwrap();
    std::os::unix::fs::symlink(bench.home.path(), scripts.join("out")).unwrap();
    for path in [
        "/link",
        "/out/secret",
        "/..%2f..%2f..%2fsecret",
        "/%2e%2e/%2e%2e/secret",
        "/good%00.ts",
        "/.hoody-cache/x",
        "/node_modules/x",
        "/good.ts%2f..",
        "/%ff",
        "/_hoody/templates/x",
    ] {
        let answer = bench.get(path).await;
        assert!(
            matches!(answer.status.as_u16(), 400 | 404),
            "{path}: {}",
            answer.text
        );
        assert!(!answer.text.contains("secret'"), "{path}");
    }
    for path in [
        "../secret.ts",
        "link.ts",
        "out/secret.ts",
        "a/../../secret.ts",
        "/etc/passwd",
        "x\0y",
        ".hoody-cache/x.mjs",
    ] {
        let encoded =
            percent_encoding::utf8_percent_encode(path, percent_encoding::NON_ALPHANUMERIC);
        let read = bench
            .get(&format!("/api/v1/exec/scripts/read?path={encoded}"))
            .await;
        assert!(
            matches!(read.status.as_u16(), 400 | 403 | 404),
            "{path}: {}",
            read.text
        );
        let write = bench
            .post(
                "/api/v1/exec/scripts/write",
                json!({ "path": path, "content": "return 1" }),
            )
            .await;
        let inside = path == "/etc/passwd"; // below the scripts, like every path
        assert_eq!(
            write.status.as_u16() == 200,
            inside,
            "{path}: {}",
            write.text
        );
        let moved = bench
            .post(
                "/api/v1/exec/scripts/move",
                json!({ "from": "good.ts", "to": path }),
            )
            .await;
        assert_ne!(moved.status.as_u16(), 200, "{path}");
        let delete = format!("/api/v1/exec/scripts/delete?path={encoded}&confirm=true");
        let deleted = bench.call(Method::DELETE, &delete, Value::Null).await;
        assert_eq!(
            deleted.status.as_u16() == 200,
            inside,
            "{path}: {}",
            deleted.text
        );
    }
    assert!(!std::path::Path::new("/etc/passwd.draft").exists());
    assert_eq!(
        std::fs::read_to_string(bench.home.path().join("secret.ts")).unwrap(),
        "return 'secret'"
    );
    for wrong in [
        "-g",
        "file:../x",
        "https://evil.example/x.tgz",
        "a;touch x",
        "--allow-scripts",
    ] {
        bench
            .post(
                "/api/v1/exec/dependencies/install",
                json!({ "modules": [wrong] }),
            )
            .await
            .expect(400);
        bench
            .post(
                "/api/v1/exec/package/install",
                json!({ "packages": [wrong] }),
            )
            .await
            .expect(400);
    }
    neighbour(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_is_hard_to_read_is_refused_and_costs_nobody_else_anything() {
    let bench = Bench::new();
    bench.put("good.ts", "return 'good'");
    let deep = format!("{}1{}", "(".repeat(200_000), ")".repeat(200_000));
    let arrows = "a=>".repeat(100_000) + "1";
    for code in [
        deep.as_str(),
        &arrows,
        "return {{{",
        "const x: = 3",
        "\u{0}",
    ] {
        let seen = bench
            .post("/api/v1/exec/validate/syntax", json!({ "code": code }))
            .await;
        let refused = seen.status.as_u16() == 400 || seen.json()["valid"] == false;
        assert!(refused, "{}: {}", &code[..code.len().min(20)], seen.text);
        let write = bench
            .post(
                "/api/v1/exec/scripts/write",
                json!({ "path": "x.ts", "content": code }),
            )
            .await;
        assert_eq!(write.status.as_u16(), 400, "{}", write.text);
    }
    let fine = bench
        .post(
            "/api/v1/exec/validate/syntax",
            json!({ "code": "return 1" }),
        )
        .await;
    assert_eq!(fine.expect(200).json()["valid"], true);
    neighbour(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_scripts_than_processes_take_turns() {
    let bench = Bench::new();
    let many = crate::pool::PROCESSES + 8;
    for nth in 0..many {
        bench.put(&format!("many{nth}.ts"), &format!("return {nth}"));
    }
    for nth in 0..many {
        assert_eq!(
            bench.get(&format!("/many{nth}")).await.expect(200).json(),
            nth
        );
    }
    let stats = bench.get("/api/v1/exec/monitor/stats").await.json();
    let processes = usize::try_from(stats["cache"]["vms"].as_u64().unwrap()).unwrap();
    assert!(processes <= crate::pool::PROCESSES, "{processes}");
    assert_eq!(bench.get("/many0").await.expect(200).json(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn words_without_end_are_dropped_and_counted() {
    let bench = Bench::new();
    bench.put(
        "loud.ts",
        "for (let i = 0; i < 200000; i++) console.log('x'.repeat(100)); return 'done'",
    );
    assert_eq!(bench.get("/loud").await.expect(200).text, "done");
    bench
        .until("it is told", async || {
            bench.log("exec.log").await.contains("lines were dropped")
        })
        .await;
    let files = bench.get("/api/v1/exec/logs/list").await.json();
    let size: u64 = files["logs"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|it| it["size"].as_u64())
        .sum();
    assert!(size < 16 << 20, "{size}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_service_ends_processes_and_nothing_else() {
    let bench = Bench::new();
    bench.put("good.ts", "// @mode worker\nglobalThis.n = (globalThis.n ?? 0) + 1; shared.n = globalThis.n; return 'good'");
    neighbour(&bench).await;
    neighbour(&bench).await;
    bench
        .post(
            "/api/v1/exec/system/restart",
            json!({ "graceful": true, "drainTimeoutMs": 1000 }),
        )
        .await
        .expect(200);
    bench
        .until("it is over", async || {
            bench.get("/api/v1/exec/system/restart-status").await.json()["restartReady"] == true
        })
        .await;
    neighbour(&bench).await;
    let state = bench
        .post(
            "/api/v1/exec/shared-state/get",
            json!({ "hostname": "default" }),
        )
        .await
        .json();
    assert_eq!(
        state["state"]["n"], 1,
        "a new process, and the state is kept"
    );
}
