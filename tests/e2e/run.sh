#!/usr/bin/env bash
# Run the stories on real containers, on a node of their own that is removed afterwards: another
# state directory, engine project and ports than a node that people use. Arguments go to nextest.
#
# HOODY_BIN names the directory of the binaries to test; E2E_STATE where the node keeps its state; E2E_KEEP=1 leaves the
# node for a look.
set -euo pipefail
cd "$(dirname "$0")/../.."

target="${CARGO_TARGET_DIR:-target}"
bin="${HOODY_BIN:-$target/release}"
hoody="$bin/hoody"
export HOODY_STATE="${E2E_STATE:-/var/tmp/hoody-e2e}"
export HOODY_CONFIG="$HOODY_STATE.profiles"
export HOODY_COMMAND="$hoody"
cache="${HOODY_CACHE:-/var/cache/hoody}"

remove() {
  code=$?
  [ -z "${E2E_KEEP:-}" ] || exit "$code"
  if [ "$code" != 0 ]; then
    for log in control proxy node; do
      printf -- '--- last words of %s\n' "$log"
      tail -n 40 "$HOODY_STATE/logs/$log.log" 2>/dev/null || true
    done
  fi
  "$hoody" purge --yes >/dev/null || { echo 'e2e: purge failed' >&2; code=1; }
  rm -rf "$HOODY_CONFIG"
  [ ! -e "$HOODY_STATE" ] || { echo "e2e: purge left $HOODY_STATE" >&2; code=1; }
  exit "$code"
}
trap remove EXIT

# Two ports that are free now; another node may have any fixed ones.
ports="$(python3 - <<'PYTHON'
import socket
sockets = [socket.socket() for _ in range(2)]
for one in sockets:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in sockets))
PYTHON
)"
read -r http https <<< "$ports"
up=("$hoody" up --node e2e --http "$http" --https "$https" --engine-name hoodye2e --metrics-proxy off
  --metrics-control off --prespawn-pools debian-13=2 --images "$cache/images" --kitd "$bin/kitd" --setup hoody/setup --recipe control/image)
first="$("${up[@]}")"
printf '%s\n' "$first"
again="$("${up[@]}")"
[ "$(grep -v '^Administrator' <<< "$first")" = "$again" ] || { echo "e2e: a second up says: $again" >&2; exit 1; }
try="$(sed -n 's/^Try it *//p' <<< "$first")"
bash -c "$try" | jq -e '.statusCode == 200' >/dev/null || { echo "e2e: this does not work as printed: $try" >&2; exit 1; }

cargo nextest run --profile e2e --workspace --test e2e "$@"
