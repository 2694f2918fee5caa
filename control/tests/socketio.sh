#!/usr/bin/env bash
# Run the tests of tests/socketio.rs with the usual client of Socket.IO, from npm.
set -euo pipefail
cd "$(dirname "$0")/../.."

modules="$(mktemp -d /var/tmp/hoody-socketio.XXXXXX)"
trap 'rm -rf --one-file-system "$modules"' EXIT
npm install --prefix "$modules" --no-audit --no-fund --ignore-scripts socket.io-client@4.8.1
SOCKETIO_MODULES="$modules" cargo nextest run --workspace --test socketio "$@"
