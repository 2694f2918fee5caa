//! The service over HTTP, beside the packaged shell of SQLite, in the same run.
//!
//! `cargo bench -p sqlite --bench peer` prints medians and ratios and writes
//! `benches/results/sqlite.json`. The shell is kept open and asked through a pipe, with the same
//! settings (a log that is written ahead, `synchronous = NORMAL`), so what differs is HTTP, JSON,
//! the guard and the history. The two take turns, so that a busy machine is busy for both.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The shell, kept open.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Shell {
    fn open(path: &Path) -> Shell {
        let mut child = Command::new("sqlite3")
            .args(["-batch", "-noheader"])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sqlite3 is installed: apt-get install -y sqlite3");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut shell = Shell {
            child,
            input,
            output,
        };
        shell.ask("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;");
        shell
    }

    /// Run statements and read what comes of them. How many lines.
    fn ask(&mut self, sql: &str) -> usize {
        const END: &str = "--end--";
        writeln!(self.input, "{sql}\nSELECT '{END}';").expect("the shell reads");
        self.input.flush().expect("the shell reads");
        let mut lines = 0;
        let mut line = String::new();
        loop {
            line.clear();
            self.output.read_line(&mut line).expect("the shell answers");
            if line.trim_end() == END {
                return lines;
            }
            lines += 1;
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection to the service, kept open.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("the service listens");
        stream.set_nodelay(true).expect("a socket");
        Client {
            stream: BufReader::new(stream),
        }
    }

    /// Ask, and read all of the answer. Its bytes.
    fn ask(&mut self, method: &str, path: &str, body: &str) -> usize {
        let head = format!(
            "{method} /api/v1/sqlite{path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let socket = self.stream.get_mut();
        let mut request = head.into_bytes();
        request.extend_from_slice(body.as_bytes());
        socket.write_all(&request).expect("it is sent");
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("an answer");
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        let mut length = None;
        loop {
            line.clear();
            self.stream.read_line(&mut line).expect("a header");
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length: ") {
                length = value.parse::<usize>().ok();
            }
        }
        let Some(length) = length else {
            return self.chunks();
        };
        let mut body = vec![0; length];
        std::io::Read::read_exact(&mut self.stream, &mut body).expect("a whole answer");
        length
    }

    fn chunks(&mut self) -> usize {
        let mut bytes = 0;
        let mut line = String::new();
        let mut chunk = Vec::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line).expect("a chunk");
            let size = usize::from_str_radix(line.trim(), 16).expect("its size");
            chunk.resize(size + 2, 0);
            std::io::Read::read_exact(&mut self.stream, &mut chunk).expect("a whole chunk");
            if size == 0 {
                return bytes;
            }
            bytes += size;
        }
    }

    fn run(&mut self, transaction: &Value) -> usize {
        let body = json!({ "resultFormat": "list", "transaction": transaction }).to_string();
        self.ask("POST", "/db?db=app", &body)
    }
}

fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort();
    samples[samples.len() / 2]
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// What was measured: of the service and of the shell.
#[derive(Default)]
struct Results(serde_json::Map<String, Value>);

impl Results {
    /// The two take turns.
    fn compare(
        &mut self,
        name: &str,
        count: usize,
        mut service: impl FnMut(usize),
        mut shell: impl FnMut(usize),
    ) {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for n in 0..count + 2 {
            let (one, other) = (timed(|| service(n)), timed(|| shell(n)));
            // the first two are not counted: caches are cold
            if n >= 2 {
                ours.push(one);
                theirs.push(other);
            }
        }
        let millis = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let (ours, theirs) = (millis(median(ours)), millis(median(theirs)));
        let ratio = (ours / theirs * 100.0).round() / 100.0;
        println!(
            "{name:<44} service {ours:>9.3} ms   shell {theirs:>9.3} ms   ratio {ratio:>6.2}   n {count}"
        );
        let result =
            json!({ "service_ms": ours, "shell_ms": theirs, "ratio": ratio, "samples": count });
        self.0.insert(name.replace(' ', "_"), result);
    }
}

fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let of = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split(':').nth(1))
            .map(|value| value.trim().to_owned())
    };
    json!({
        "build": if cfg!(debug_assertions) { "unoptimized" } else { "optimized" },
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load": read("/proc/loadavg").split(' ').next(),
        "memory": of(&read("/proc/meminfo"), "MemTotal"),
        "processor": of(&read("/proc/cpuinfo"), "model name"),
        "shell": Command::new("sqlite3").arg("--version").output().ok().map(|it| {
            String::from_utf8_lossy(&it.stdout).split(' ').next().unwrap_or_default().to_owned()
        }),
    })
}

fn main() {
    // asked by a runner of tests what there is: nothing
    if std::env::args().any(|it| it == "--list" || it == "--test") {
        return;
    }
    let place = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let root = place.path().join("root");
    std::fs::create_dir(&root).expect("a directory");
    let config = sqlite::Config::new(root, place.path().join("state"));
    let router = sqlite::api(&sqlite::Sqlite::new(config)).router();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    runtime.spawn(async move { axum::serve(listener, router).await });

    let mut client = Client::connect(address);
    client.ask("POST", "/db/create?path=app&init_kv=true", "");
    let mut shell = Shell::open(&place.path().join("peer.db"));
    let make = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, x REAL); CREATE TABLE kv (key TEXT PRIMARY KEY, value);";
    let items: Vec<_> = make
        .split_terminator(';')
        .map(|sql| json!({ "statement": sql }))
        .collect();
    client.run(&items.into());
    shell.ask(make);

    let mut results = Results::default();
    let (client, shell) = (
        std::cell::RefCell::new(client),
        std::cell::RefCell::new(shell),
    );
    results.compare(
        "insert one row",
        2_000,
        |n| {
            let insert = json!([{ "statement": "INSERT INTO t (name, x) VALUES (?, ?)", "values": [format!("name {n}"), 0.5] }]);
            client.borrow_mut().run(&insert);
        },
        |n| {
            shell.borrow_mut().ask(&format!("INSERT INTO t (name, x) VALUES ('name {n}', 0.5);"));
        },
    );
    results.compare(
        "read one row by its key",
        2_000,
        |n| {
            let select =
                json!([{ "query": "SELECT * FROM t WHERE id = ?", "values": [n % 1000 + 1] }]);
            client.borrow_mut().run(&select);
        },
        |n| {
            shell
                .borrow_mut()
                .ask(&format!("SELECT * FROM t WHERE id = {};", n % 1000 + 1));
        },
    );
    results.compare(
        "insert 10000 rows",
        20,
        |n| {
            let rows: Vec<_> = (0..10_000).map(|i| json!([format!("row {n} {i}"), 1.25])).collect();
            client.borrow_mut().run(&json!([{ "statement": "INSERT INTO t (name, x) VALUES (?, ?)", "valuesBatch": rows }]));
        },
        |n| {
            let mut sql = String::from("BEGIN;\n");
            for i in 0..10_000 {
                sql.push_str(&format!("INSERT INTO t (name, x) VALUES ('row {n} {i}', 1.25);\n"));
            }
            sql.push_str("COMMIT;");
            shell.borrow_mut().ask(&sql);
        },
    );
    results.compare(
        "read 10000 rows",
        30,
        |_| {
            client
                .borrow_mut()
                .run(&json!([{ "query": "SELECT * FROM t LIMIT 10000" }]));
        },
        |_| {
            assert_eq!(
                shell.borrow_mut().ask("SELECT * FROM t LIMIT 10000;"),
                10_000
            );
        },
    );
    results.compare(
        "put a key",
        1_000,
        |n| {
            client.borrow_mut().ask("PUT", &format!("/kv/key{}?db=app", n % 100), "{\"a\":1}");
        },
        |n| {
            shell.borrow_mut().ask(&format!("INSERT INTO kv VALUES ('key{}', '{{\"a\":1}}') ON CONFLICT DO UPDATE SET value = excluded.value;", n % 100));
        },
    );
    results.compare(
        "get a key",
        2_000,
        |n| {
            client
                .borrow_mut()
                .ask("GET", &format!("/kv/key{}?db=app", n % 100), "");
        },
        |n| {
            shell.borrow_mut().ask(&format!(
                "SELECT value FROM kv WHERE key = 'key{}';",
                n % 100
            ));
        },
    );
    results.compare(
        "dump as SQL",
        5,
        |_| {
            assert!(
                client
                    .borrow_mut()
                    .ask("GET", "/export?db=app&format=sql", "")
                    > 1_000_000
            );
        },
        |_| {
            shell.borrow_mut().ask(".dump");
        },
    );
    let copy = place.path().join("copy.db");
    results.compare(
        "back up",
        5,
        |_| {
            client
                .borrow_mut()
                .ask("GET", "/export?db=app&format=sqlite", "");
        },
        |_| {
            shell
                .borrow_mut()
                .ask(&format!(".backup {}", copy.display()));
        },
    );
    drop(shell);
    let whole = json!({ "machine": machine(), "result": results.0 });
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../benches/results/sqlite.json");
    std::fs::write(&path, format!("{whole:#}\n")).expect("the result can be written");
    println!("written to {}", path.display());
    runtime.shutdown_background();
}
