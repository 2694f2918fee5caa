//! The private authority in the stores of this machine, in a mount namespace of the test's own where
//! those stores are copies.

#![allow(
    clippy::unwrap_used,
    reason = "whatever goes wrong here fails the test"
)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// What is done in the namespace. `$HOODY trust` in all forms, and programs that believe it or do not.
const STORY: &str = r#"
set -euo pipefail
die() { echo "FAILED: $*" >&2; exit 1; }
for directory in /etc/ssl /usr/local/share/ca-certificates /etc/ca-certificates; do
  [ -d "$directory" ] || continue
  cp -a "$directory" "$WORK/copy"
  mount --bind "$WORK/copy" "$directory"
  mv "$WORK/copy" "$WORK/$(basename "$directory")"
done
export HOME="$WORK/home"
mkdir -p "$HOME/.mozilla/firefox/abc.default"
certutil -N --empty-password -d "sql:$HOME/.mozilla/firefox/abc.default"
# a Java with a store of its own
java="$(dirname "$(dirname "$(readlink -f "$(command -v keytool)")")")"
mkdir -p "$WORK/java/bin" "$WORK/java/lib/security"
ln -s "$java/bin/keytool" "$WORK/java/bin/keytool"
cp -L /etc/ssl/certs/java/cacerts "$WORK/java/lib/security/cacerts"
export JAVA_HOME="$WORK/java"

openssl s_server -accept "127.0.0.1:$PORT" -cert "$LEAF" -key "$LEAF" -www >/dev/null 2>&1 &
server=$!
trap 'kill "$server"' EXIT
url="https://api.hoody.localhost:$PORT/"
for _ in $(seq 100); do curl -s -k "$url" >/dev/null && break; sleep 0.1; done

curl_believes() { curl -s --noproxy '*' -o /dev/null "$url"; }
chromium_believes() {
  timeout 60 chromium --headless --no-sandbox --disable-gpu --no-proxy-server --user-data-dir="$(mktemp -d -p "$WORK")" --dump-dom "$url" \
    2>/dev/null | grep -q 's_server'
}
firefox_has() { certutil -L -d "sql:$HOME/.mozilla/firefox/abc.default" | grep -q '^hoody-.* C,,'; }
java_has() { keytool -list -storepass changeit -keystore "$WORK/java/lib/security/cacerts" 2>/dev/null | grep -q '^hoody-'; }
all() { # whether every store says so
  for ask in curl_believes firefox_has java_has chromium_believes; do
    if "$ask"; then [ "$1" = yes ] || die "$2: $ask"; else [ "$1" = no ] || die "$2: not $ask"; fi
  done
}
all no 'nobody was told'
rm -rf "$HOME/.local" "$HOME/.pki" # as where Chromium was never started
"$HOODY" trust --state "$STATE" > "$WORK/said" 2>&1 || die "$(cat "$WORK/said")"
all yes 'it was put in'
"$HOODY" trust --ca-cert "$STATE/pki/ca.crt" > "$WORK/again" 2>&1 || die "$(cat "$WORK/again")"
[ "$(grep -c already "$WORK/again")" -ge 4 ] || die "again: $(cat "$WORK/again")"
for database in "$HOME/.pki/nssdb" "$HOME/.mozilla/firefox/abc.default"; do
  [ "$(certutil -L -d "sql:$database" | grep -c '^hoody-')" = 1 ] || die "it is not in $database once"
done
"$HOODY" trust --remove --state "$STATE" > "$WORK/out" 2>&1 || die "$(cat "$WORK/out")"
all no 'it was taken out'
ls /usr/local/share/ca-certificates | grep -q '^hoody-' && die 'a file is left'
! "$HOODY" trust --ca-cert "$HOODY" 2> "$WORK/wrong" || die 'a program is no certificate'
grep -q 'holds no certificate' "$WORK/wrong" || die "$(cat "$WORK/wrong")"
# a node that goes takes it along
mkdir -p "$STATE/run" "$STATE/containers"
"$HOODY" trust --state "$STATE" > "$WORK/said" 2>&1 || die "$(cat "$WORK/said")"
curl_believes || die 'it was put in once more'
"$HOODY" purge --yes --runtime local --state "$STATE" > "$WORK/purged" 2>&1 || die "$(cat "$WORK/purged")"
all no 'the node is gone'
echo STOOD
"#;

#[test]
fn the_machine_believes_the_authority_until_it_is_told_not_to() {
    let is_there = |name: &str| {
        Command::new("which")
            .arg(name)
            .output()
            .unwrap()
            .status
            .success()
    };
    let needed = [
        "unshare", "certutil", "keytool", "chromium", "openssl", "curl",
    ];
    if !rustix::process::geteuid().is_root() || !needed.iter().all(|name| is_there(name)) {
        eprintln!(
            "not run: this test is root's, and needs {needed:?} (hoody/setup/packages.sh test)"
        );
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let state = work.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let mark = format!("{{\"state\": {state:?}}}");
    std::fs::write(state.join(".hoody"), mark).unwrap();
    let clock = Arc::new(certs::SystemClock);
    certs::Local::open_or_create(&state.join("pki"), "hoody.localhost", "n1", clock).unwrap();
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    drop(socket);
    let story = Command::new("unshare")
        .args(["--mount", "bash", "-c", STORY])
        .env("HOODY", env!("CARGO_BIN_EXE_hoody"))
        .env("WORK", work.path())
        .env("STATE", &state)
        .env("LEAF", leaf(&state.join("pki/leaf")))
        .env("PORT", port.to_string())
        .env_remove("SUDO_UID")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&story.stdout);
    let complained = String::from_utf8_lossy(&story.stderr);
    assert!(said.trim_end().ends_with("STOOD"), "{said}\n{complained}");
}

/// The file of the API's certificate.
fn leaf(leaves: &Path) -> std::path::PathBuf {
    let mut files = std::fs::read_dir(leaves)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_api = |path: &std::path::PathBuf| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("api.")
    };
    files.find(is_api).unwrap()
}
