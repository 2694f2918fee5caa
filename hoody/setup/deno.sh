#!/usr/bin/env bash
# The runtime of scripts: Deno and a parser, from npm, at pinned versions whose contents are checked.
# Built once in the cache, a directory for each version; every container sees it read-only.
#
#   deno.sh --cache DIR           install where it is missing, and print where it is
#   deno.sh --cache DIR --print   print where it is or would be
set -euo pipefail

readonly DENO=2.9.6
readonly ACORN=8.19.0
readonly REGISTRY="${npm_config_registry:-${NPM_CONFIG_REGISTRY:-https://registry.npmjs.org}}"

say() { printf 'deno: %s\n' "$*" >&2; }
die() { printf 'deno: %s\n' "$*" >&2; exit 1; }

cache= print=
while [ $# -gt 0 ]; do
  case "$1" in
    --cache) cache="${2:-}"; shift 2 || die "--cache has no value" ;;
    --print) print=1; shift ;;
    *) die "unknown option $1" ;;
  esac
done
[ -n "$cache" ] || die "--cache DIR is needed"

# SHA-512 of the packages, as npm publishes them (base64).
case "$(uname -m)" in
  x86_64)
    package=linux-x64-glibc
    sum=3md4TKLCuzsLDmfOoC5KN7NAZaxSVkMgm64vg6foD00JBADCpYS2/5QqXfzgnP5ZQz3iLP9vBQJtEgc116OAoQ== ;;
  aarch64)
    package=linux-arm64-glibc
    sum=poqhoH9B3nYloigEMPT5t8HY+wBeiuea1An5Q7fqgJzP0SYmWsoS/oUnWO/pEiA4ofzIBy1Elt/in58xKtxEoQ== ;;
  *) die "there is no Deno for $(uname -m)" ;;
esac
acorn_sum=oJlA3XiRm7Cyk6qFD2Jn8ak9B7jSy0qy00ADO3+8dpT0LSjFihQYv4C02LFCSYJV3Q37xYwwRy5m+IpIiUzqWw==

built="$cache/deno-$DENO-$ACORN"
if [ -n "$print" ]; then
  echo "$built"
  exit
fi
if [ -x "$built/deno" ] && [ -f "$built/acorn.mjs" ]; then
  echo "$built"
  exit
fi

command -v curl >/dev/null || die "curl is missing; hoody/setup/packages.sh installs it"
mkdir -p "$cache"
work="$(mktemp -d "$cache/deno.XXXXXX")"
trap 'rm -rf "$work"' EXIT

# fetch PACKAGE FILE VERSION SUM INTO
fetch() {
  local url="${REGISTRY%/}/$1/-/$2-$3.tgz" got
  curl -fsSL --retry 3 --max-time 600 -o "$work/package.tgz" "$url" || die "could not fetch $url"
  got="$(python3 -c 'import base64, hashlib, sys; print(base64.b64encode(hashlib.sha512(open(sys.argv[1], "rb").read()).digest()).decode())' "$work/package.tgz")"
  [ "$got" = "$4" ] || die "$url is not what was published: its SHA-512 is $got"
  mkdir -p "$work/$5"
  tar -C "$work/$5" --no-same-owner -xzf "$work/package.tgz"
  rm "$work/package.tgz"
}

say "fetching Deno $DENO; 42 MB, once"
fetch "@deno/$package" "$package" "$DENO" "$sum" one
fetch acorn acorn "$ACORN" "$acorn_sum" two
mkdir "$work/tree"
install -m 755 "$work/one/package/deno" "$work/tree/deno"
install -m 644 "$work/two/package/dist/acorn.mjs" "$work/tree/acorn.mjs"
install -m 644 "$work/two/package/LICENSE" "$work/tree/acorn.LICENSE"
"$work/tree/deno" --version >/dev/null || die "Deno does not run on this machine"
chmod 755 "$work/tree"
mv -T "$work/tree" "$built" 2>/dev/null || [ -x "$built/deno" ] || die "could not keep it in $built"
say "installed in $built"
echo "$built"
