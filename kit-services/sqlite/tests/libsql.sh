#!/usr/bin/env bash
# The usual client of libsql, from npm, on a kit: over HTTP and over WebSockets.
#   libsql.sh [URL]    on the kit whose sqlite service answers there; else on one that is built
set -euo pipefail
cd "$(dirname "$0")/../../.."

modules="$(mktemp -d /var/tmp/hoody-libsql.XXXXXX)"
kit=""
finish() {
    if [ -n "$kit" ]; then kill "$kit" 2>/dev/null || true; wait "$kit" 2>/dev/null || true; fi
    rm -rf --one-file-system "$modules"
}
trap finish EXIT
npm install --prefix "$modules" --no-audit --no-fund --ignore-scripts --silent @libsql/client@0.18.0 ws@8
cp kit-services/sqlite/tests/libsql.mjs "$modules/"

url="${1:-}"
if [ -z "$url" ]; then
    cargo build -q -p kitd
    target="${CARGO_TARGET_DIR:-target}"
    tail -f /dev/null | node kit-services/ui/test/kit.mjs --kitd "$target/debug/kitd" --service sqlite > "$modules/url" &
    kit=$!
    for _ in $(seq 200); do [ -s "$modules/url" ] && break; sleep 0.05; done
    url="$(cat "$modules/url")"
fi
node "$modules/libsql.mjs" "$url"
