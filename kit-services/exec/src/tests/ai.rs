//! Models, by a stand-in for their endpoint, and code that they write.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Bench;

/// What the stand-in was asked.
#[derive(Clone, Default)]
struct Asked {
    count: Arc<AtomicUsize>,
    last: Arc<std::sync::Mutex<Value>>,
}

const HANDLER: &str = "({ query }) => ({ sum: Number(query.a) + Number(query.b) })";

async fn answer(State(asked): State<Asked>, request: Request) -> Response {
    asked.count.fetch_add(1, Ordering::SeqCst);
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let mut seen: Value = serde_json::from_slice(&bytes).unwrap();
    let header = |name: &str| {
        parts
            .headers
            .get(name)
            .map(|it| it.to_str().unwrap().to_owned())
    };
    seen["key"] = json!(header("authorization").or_else(|| header("x-api-key")));
    seen["path"] = json!(parts.uri.path());
    let words = seen.to_string();
    *asked.last.lock().unwrap() = seen.clone();
    let text = match () {
        () if words.contains("write the handler") || words.contains("Write the handler") => HANDLER,
        () if words.contains("JSON value") => "```json\n{\"name\":\"x\"}\n```",
        () if words.contains("refuse") => {
            return (axum::http::StatusCode::TOO_MANY_REQUESTS, "slow down").into_response();
        }
        () => "hello there",
    };
    if seen["stream"] == true {
        let parts = text
            .split_inclusive(' ')
            .map(|part| match parts.uri.path() {
                "/v1/messages" => format!(
                    "data: {}\n\n",
                    json!({ "type": "content_block_delta", "delta": { "text": part } })
                ),
                _ => format!(
                    "data: {}\n\n",
                    json!({ "choices": [{ "delta": { "content": part } }] })
                ),
            });
        let events: String = parts.chain(["data: [DONE]\n\n".to_owned()]).collect();
        return ([("content-type", "text/event-stream")], events).into_response();
    }
    axum::Json(match parts.uri.path() {
        "/v1/messages" => json!({ "content": [{ "type": "text", "text": text }], "stop_reason": "end_turn", "usage": { "input_tokens": 3, "output_tokens": 2 } }),
        _ => json!({ "choices": [{ "message": { "content": text }, "finish_reason": "stop" }], "usage": { "prompt_tokens": 3, "completion_tokens": 2 } }),
    })
    .into_response()
}

async fn model() -> (Asked, String) {
    let asked = Asked::default();
    let router = Router::new().fallback(answer).with_state(asked.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (asked, url)
}

fn with_model(url: &str, kind: &str) -> Bench {
    Bench::with(|config| {
        for (name, value) in [
            ("HOODY_AI_URL", url),
            ("HOODY_AI_KEY", "k-secret"),
            ("HOODY_AI_MODEL", "m-1"),
            ("HOODY_AI_KIND", kind),
        ] {
            config.environment.insert(name.to_owned(), value.to_owned());
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_ask_models_of_both_protocols() {
    for (kind, path, key) in [
        ("openai", "/v1/chat/completions", "Bearer k-secret"),
        ("anthropic", "/v1/messages", "k-secret"),
    ] {
        let (asked, url) = model().await;
        let bench = with_model(&url, kind);
        bench.put(
            "ask.ts",
            "const r = await ai.generate('hi'); return { text: r.text, out: r.usage.outputTokens }",
        );
        bench.put("ask.system.md", "You are brief.");
        assert_eq!(
            bench.get("/ask").await.expect(200).json(),
            json!({ "text": "hello there", "out": 2 })
        );
        let seen = asked.last.lock().unwrap().clone();
        assert_eq!(
            (&seen["path"], &seen["model"], &seen["key"]),
            (&json!(path), &json!("m-1"), &json!(key))
        );
        assert!(seen.to_string().contains("You are brief."), "{seen}");
        bench.put(
            "stream.ts",
            "// @ai-model other/model\n// @ai-key own\nreturn await ai.stream('hi')",
        );
        assert_eq!(bench.get("/stream").await.expect(200).text, "hello there");
        let seen = asked.last.lock().unwrap().clone();
        assert_eq!(seen["model"], "other/model");
        assert!(seen["key"].as_str().unwrap().ends_with("own"));
        bench.put("object.ts", "const { object } = await generateObject({ model: openai('m-2'), schema: { type: 'object' }, prompt: 'x' }); return object");
        assert_eq!(
            bench.get("/object").await.expect(200).json(),
            json!({ "name": "x" })
        );
        assert_eq!(asked.last.lock().unwrap()["model"], "m-2");
        bench.put(
            "refuse.ts",
            "return (await generateText({ model, prompt: 'refuse' })).text",
        );
        let refused = bench.get("/refuse").await.expect(500);
        assert!(
            refused.text.contains("answered 429: slow down"),
            "{}",
            refused.text
        );
        bench.put("off.ts", "// @ai false\nreturn typeof ai + typeof model");
        assert_eq!(bench.get("/off").await.text, "undefinedundefined");
        assert!(!bench.log("exec.log").await.contains("k-secret"));
    }
    let bench = Bench::new();
    bench.put("ask.ts", "return (await ai.generate('hi')).text");
    assert!(
        bench
            .get("/ask")
            .await
            .expect(500)
            .text
            .contains("no model endpoint is configured")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_nobody_wrote_writes_itself_and_is_native_then() {
    let (asked, url) = model().await;
    let bench = with_model(&url, "openai");
    let made = json!({ "name": "self-writing", "variables": { "purpose": "sums" }, "saveFile": true, "outputPath": "[...slug].ts" });
    bench
        .post("/api/v1/exec/templates/generate", made)
        .await
        .expect(200);
    let first = bench.get("/math/add?a=2&b=3").await.expect(200);
    assert_eq!(first.json(), json!({ "sum": 5 }));
    assert_eq!(first.headers["x-written-by"], "model");
    assert_eq!(asked.count.load(Ordering::SeqCst), 1);
    let second = bench.get("/math/add?a=20&b=30").await.expect(200);
    assert_eq!(second.json(), json!({ "sum": 50 }));
    assert!(!second.headers.contains_key("x-written-by"));
    assert_eq!(
        asked.count.load(Ordering::SeqCst),
        1,
        "the model was not asked again"
    );
    let led = bench
        .post("/api/v1/exec/route/resolve", json!({ "path": "/math/add" }))
        .await
        .json();
    assert_eq!(led["scriptPath"], "default/1/math/add.ts");
    for evil in ["/..%2f..%2fx", "/a%20b", "/UPPER", "/pre"] {
        let answer = bench.get(evil).await;
        assert!(
            matches!(answer.status.as_u16(), 400 | 404 | 200),
            "{evil}: {}",
            answer.text
        );
    }
    assert!(
        !bench.home.path().join("x.ts").exists()
            && !bench.home.path().join("scripts/x.ts").exists()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn code_of_others_is_evaluated_where_it_can_do_nothing() {
    let bench = Bench::new();
    let secret = bench.home.path().join("secret");
    std::fs::write(&secret, "s3cret").unwrap();
    bench.put("eval.ts", "try { return { value: await isolate.eval(req.body.code, req.body.globals, { timeout: req.body.timeout }) } } catch (error) { return { error: error.message, code: error.code } }");
    let eval = async |code: &str, globals: Value, timeout: u64| {
        bench
            .post(
                "/eval",
                json!({ "code": code, "globals": globals, "timeout": timeout }),
            )
            .await
            .expect(200)
            .json()
    };
    for (code, globals, value) in [
        ("a + b", json!({ "a": 1, "b": 2 }), json!(3)),
        (
            "const x: number = input.n; return x * 2",
            json!({ "input": { "n": 4 } }),
            json!(8),
        ),
        (
            "(input) => input.n + 1",
            json!({ "input": { "n": 4 } }),
            json!(5),
        ),
        ("await Promise.resolve([1])", json!({}), json!([1])),
        ("undefined", json!({}), Value::Null),
    ] {
        assert_eq!(eval(code, globals, 5000).await["value"], value, "{code}");
    }
    let steal = format!("return Deno.readTextFileSync({:?})", secret.display());
    let spawn = "return new Deno.Command('id').outputSync().code".to_owned();
    let net = "return (await fetch('http://127.0.0.1:1')).status".to_owned();
    for code in [
        steal.as_str(),
        &spawn,
        &net,
        "Deno.env.toObject()",
        "await import('node:fs').then(fs => fs.readFileSync('/etc/passwd', 'utf8'))",
        "Deno.writeTextFileSync('/tmp/x', 'y')",
        "throw new Error('own')",
        "return {{{",
        "Deno.exit(0)",
    ] {
        let said = eval(code, json!({}), 5000).await;
        assert!(
            said["error"].is_string() && said.get("value").is_none(),
            "{code}: {said}"
        );
        assert!(!said.to_string().contains("s3cret"));
    }
    let begun = Instant::now();
    assert_eq!(
        eval("while (true) {}", json!({}), 500).await["code"],
        "EVAL_TIMEOUT"
    );
    let bomb = eval(
        "const a = []; while (true) a.push(new Array(1e5).fill(a.length))",
        json!({}),
        20_000,
    )
    .await;
    assert_eq!(bomb["code"], "EVAL_ENDED", "{bomb}");
    assert!(begun.elapsed() < Duration::from_secs(25));
    let large = eval("return 'x'.repeat(10 << 20)", json!({}), 10_000).await;
    assert_eq!(large["code"], "EVAL_ENDED", "{large}");
    // many at once wait for each other, and all are answered
    let all = futures::future::join_all((0..12).map(|n| {
        let bench = &bench;
        async move {
            bench
                .post("/eval", json!({ "code": "n * n", "globals": { "n": n } }))
                .await
                .json()["value"]
                .clone()
        }
    }));
    assert_eq!(all.await, (0..12).map(|n| json!(n * n)).collect::<Vec<_>>());
}
