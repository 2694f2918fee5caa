#!/usr/bin/env bash
# Install what a node is built and run with, where it is missing.
#
#   packages.sh build        what the binaries and the pages are built with
#   packages.sh engine       what containers run on
#   packages.sh check        what tests in one process need: a directory to order certificates from, a scanner of TLS
#   packages.sh test         what the other tests need
#   packages.sh bench        what the edge and the names are measured beside and with
#
# Several words may be given. Quiet and quick where nothing is missing. Exit code 3: system
# containers cannot be had on this machine; the reason is printed.
set -euo pipefail

readonly CANNOT=3
readonly BACKPORTS=/etc/apt/sources.list.d/hoody-backports.sources
readonly POLICY=/usr/sbin/policy-rc.d

say() { printf 'packages: %s\n' "$*"; }
die() { printf 'packages: %s\n' "$*" >&2; exit 1; }

BUILD="gcc g++ clang mold cmake pkg-config make git curl ca-certificates"
ENGINE="incus-base dnsmasq-base btrfs-progs nftables uidmap mmdebstrap zstd jq iproute2 python3 curl bubblewrap"
CHECK="litmus pebble sslscan curl python3 bubblewrap rclone fuse3 python3-pyftpdlib"
TEST="nginx-light openssl bubblewrap rclone fuse3 chromium libnss3-tools default-jre-headless curl nghttp2-client bind9-dnsutils knot"
BENCH="nginx-light haproxy caddy wrk nghttp2-client openssl util-linux knot nsd dnsperf python3-terminado"

wanted=
for word in "$@"; do
  case "$word" in
    build)
      wanted="$wanted $BUILD"
      command -v node >/dev/null || wanted="$wanted nodejs"
      command -v npm >/dev/null || wanted="$wanted npm" ;;
    engine) wanted="$wanted $ENGINE" ;;
    check) wanted="$wanted $CHECK" ;;
    test) wanted="$wanted $TEST" ;;
    bench) wanted="$wanted $BENCH" ;;
    *) die "unknown word $word; it is build, engine, check, test or bench" ;;
  esac
done

. /etc/os-release 2>/dev/null || true
missing=
for package in $(printf '%s\n' $wanted | sort -u); do
  state="$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)"
  [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null || {
  say "this is ${PRETTY_NAME:-no Debian}; install these by hand:$missing" >&2
  exit "$CANNOT"
}
[ "$(id -u)" = 0 ] || {
  say "root is needed to install:$missing (run with sudo, or install them yourself)" >&2
  exit "$CANNOT"
}

export DEBIAN_FRONTEND=noninteractive
log="$(mktemp)"
trap 'rm -f "$log"' EXIT

# Run apt-get with a line of progress every ten seconds; its output is shown where it fails.
apt() {
  apt-get -q -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "$@" > "$log" 2>&1 &
  local pid=$! waited=0
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.5
    waited=$((waited + 1))
    [ $((waited % 20)) -ne 0 ] || say "$((waited / 2)) s: $(tail -n 1 "$log" | cut -c1-100)"
  done
  wait "$pid"
}

release=
case " $missing " in
  *" incus-base "*)
    if [ "${VERSION_CODENAME:-}" = bookworm ]; then
      if ! grep -rqs bookworm-backports /etc/apt/sources.list /etc/apt/sources.list.d; then
        say "adding bookworm-backports, which has Incus"
        cat > "$BACKPORTS" <<'SOURCE'
Types: deb
URIs: http://deb.debian.org/debian
Suites: bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCE
      fi
      release=bookworm-backports
    fi ;;
esac

say "updating the package lists"
# one broken source of another vendor must not stop what comes from Debian
apt update || say "some package lists could not be had: $(grep -m 1 '^[EW]:' "$log" || true)"

unknown=
for package in $missing; do
  policy="$(apt-cache ${release:+-t "$release"} policy "$package" 2>/dev/null || true)"
  grep -q 'Candidate: [^(]' <<< "$policy" || unknown="$unknown $package"
done
if [ -n "$unknown" ]; then
  say "not to be had here:$unknown" >&2
  case " $unknown " in
    *" incus-base "*) say "Incus comes with Debian 13, Ubuntu 24.04, and bookworm-backports on Debian 12" >&2; exit "$CANNOT" ;;
  esac
  die "add a package source that has them, then run this again"
fi

say "installing:$missing"

# Servers that are only measured and tested beside ours: they are not to take a node's ports, now or after a
# restart of the machine. Where something forbids all starts already, that stays as it is.
peers= others=
for package in $missing; do
  case "$package" in
    nginx-light|haproxy|caddy|knot|nsd) peers="$peers $package" ;;
    *) others="$others $package" ;;
  esac
done
missing="$others"
if [ -n "$peers" ]; then
  ours=
  if [ ! -e "$POLICY" ]; then
    ours=yes
    trap 'rm -f "$log" "$POLICY"' EXIT
    printf '#!/bin/sh\nexit 101\n' > "$POLICY"
    chmod 755 "$POLICY"
  fi
  # shellcheck disable=SC2086
  apt install -y --no-install-recommends $peers \
    || { tail -n 30 "$log" >&2; die "apt-get could not install them; its last words are above"; }
  for peer in $peers; do
    systemctl --quiet disable "${peer%-light}.service" 2>/dev/null || true # no service manager
  done
  [ -z "$ours" ] || rm -f "$POLICY"
fi

if [ -z "$missing" ]; then
  :
elif [ -n "$release" ]; then
  from_backports= usual=
  for package in $missing; do
    case "$package" in incus-base) from_backports="$package" ;; *) usual="$usual $package" ;; esac
  done
  # shellcheck disable=SC2086
  { [ -z "$usual" ] || apt install -y --no-install-recommends $usual; } \
    && apt install -y --no-install-recommends -t "$release" $from_backports \
    || { tail -n 30 "$log" >&2; die "apt-get could not install them; its last words are above"; }
else
  # shellcheck disable=SC2086
  apt install -y --no-install-recommends $missing \
    || { tail -n 30 "$log" >&2; die "apt-get could not install them; its last words are above"; }
fi
say "done"
