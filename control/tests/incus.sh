#!/usr/bin/env bash
# Run the tests of tests/incus.rs on an engine project of their own, removed afterwards.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly NAME=hoodyengine
state="$(mktemp -d /var/tmp/hoody-engine.XXXXXX)"
engine() { hoody/setup/engine.sh "$1" --name "$NAME" --state "$state"; }

remove() {
  code=$?
  engine purge || { echo 'the engine project was not removed' >&2; code=1; }
  rm -rf --one-file-system "$state"
  exit "$code"
}
trap remove EXIT

engine start
control/image/build.sh --cache "${HOODY_CACHE:-/var/cache/hoody}/images" --import "$NAME"
HOODY_ENGINE="$NAME" cargo nextest run --profile e2e --workspace --test incus "$@"
