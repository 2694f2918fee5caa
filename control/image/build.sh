#!/usr/bin/env bash
# The base image: a Debian 13 machine that boots fast. Built once and kept by the hash of its
# recipe (this file, files/, and the host's own certificate authorities).
#
#   build.sh --cache DIR                 build where it is missing
#   build.sh --cache DIR --import NAME   also import it into the Incus project NAME
#   build.sh --cache DIR --print         print where the built image is or would be
set -euo pipefail
cd "$(dirname "$0")"

readonly ALIAS=debian-13
readonly MIRROR=http://deb.debian.org/debian
readonly PACKAGES=systemd,systemd-sysv,dbus,libpam-systemd,sudo,ca-certificates,procps,iproute2,iputils-ping,\
bash,bash-completion,coreutils,curl,wget,git,python3,nano,less,vim-tiny,sqlite3,jq,ripgrep,tmux,cron,\
openssh-server,openssh-client,nftables,libnss-myhostname,fuse3,bubblewrap,apt,init,man-db,file,xz-utils,\
zstd,unzip,rsync,lsof,psmisc,netbase,locales

say() { printf 'image: %s\n' "$*"; }
die() { printf 'image: %s\n' "$*" >&2; exit 1; }

cache= project= print=
while [ $# -gt 0 ]; do
  case "$1" in
    --cache) cache="$2"; shift 2 ;;
    --import) project="$2"; shift 2 ;;
    --print) print=1; shift ;;
    *) die "unknown option $1" ;;
  esac
done
[ -n "$cache" ] || die "--cache DIR is needed"

extra_authorities() { find /usr/local/share/ca-certificates -name '*.crt' -type f 2>/dev/null | LC_ALL=C sort; }
recipe_hash() {
  {
    dpkg --print-architecture
    cat build.sh
    find files -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    find files -type f -perm -u+x | LC_ALL=C sort
    extra_authorities | xargs -r cat
    printf '%s\n' "${http_proxy:-}" "${https_proxy:-}"
  } | sha256sum | cut -c1-20
}

hash="$(recipe_hash)"
built="$cache/$hash"
if [ -n "$print" ]; then
  echo "$built"
  exit
fi

build() {
  command -v mmdebstrap >/dev/null || die "mmdebstrap is missing; hoody/setup/packages.sh installs it"
  mkdir -p "$cache"
  local work; work="$(mktemp -d "$cache/build.XXXXXX")"
  trap 'rm -rf "$work"' EXIT
  say "building Debian 13 ($hash); one to four minutes, once"
  local certificate hooks=()
  while read -r certificate; do
    hooks+=(--essential-hook="mkdir -p \"\$1/usr/local/share/ca-certificates\" && cp '$certificate' \"\$1/usr/local/share/ca-certificates/\"")
  done < <(extra_authorities)
  local keyring=()
  [ -f /usr/share/keyrings/debian-archive-keyring.gpg ] && keyring=(--keyring=/usr/share/keyrings)
  mmdebstrap --variant=minbase --format=tar "${keyring[@]}" \
    --aptopt='Acquire::Retries "3"' --aptopt='Apt::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-include=/usr/share/locale/locale.alias' \
    --include="$PACKAGES" "${hooks[@]}" \
    --customize-hook="cp -a files/. \"\$1/\" && chown -R 0:0 \"\$1/etc/systemd\" \"\$1/usr/local/lib/hoody\"" \
    --customize-hook="chroot \"\$1\" bash /usr/local/lib/hoody/finish" \
    trixie "$work/rootfs.tar" \
    "deb $MIRROR trixie main" "deb $MIRROR trixie-updates main" \
    "deb http://deb.debian.org/debian-security trixie-security main" \
    > "$work/log" 2>&1 &
  local builder=$! waited=0
  while kill -0 "$builder" 2>/dev/null; do
    sleep 1
    waited=$((waited + 1))
    [ $((waited % 10)) -ne 0 ] || say "$waited s: $(tail -n 1 "$work/log" | cut -c1-100)"
  done
  wait "$builder" || { tail -n 30 "$work/log" >&2; die "mmdebstrap failed; its log is above"; }
  cat > "$work/metadata.yaml" <<METADATA
architecture: $(uname -m)
creation_date: $(date +%s)
properties:
  description: Debian 13 (trixie), a whole machine
  os: Debian
  release: trixie
  recipe: "$hash"
templates:
  /etc/hostname:
    when: [create, copy, rename]
    template: hostname.tpl
  /etc/hosts:
    when: [create, copy, rename]
    template: hosts.tpl
METADATA
  mkdir "$work/templates"
  echo '{{ config_get("user.hostname", container.name) }}' > "$work/templates/hostname.tpl"
  printf '127.0.0.1 localhost\n127.0.1.1 {{ config_get("user.hostname", container.name) }}\n::1 localhost ip6-localhost ip6-loopback\n' > "$work/templates/hosts.tpl"
  tar -C "$work" -cf "$work/meta.tar" metadata.yaml templates
  say "compressing"
  zstd -q -T0 -3 --rm "$work/rootfs.tar" -o "$work/rootfs.tar.zst"
  rm -rf "$work/metadata.yaml" "$work/templates"
  chmod 755 "$work"
  mv -T "$work" "$built" 2>/dev/null || [ -f "$built/rootfs.tar.zst" ] || die "could not keep the image in $built"
  trap - EXIT
  say "built in $waited s, $(du -h "$built/rootfs.tar.zst" | cut -f1)"
}

# Import it under the alias where the alias does not have this recipe yet.
import() {
  local incus=(incus --project "$project") old
  old="$("${incus[@]}" image list -f json | jq -r --arg alias "$ALIAS" \
    '.[] | select(any(.aliases[]?; .name == $alias)) | .fingerprint + " " + (.properties.recipe // "")')"
  [ "${old#* }" != "$hash" ] || return 0
  say "importing into the project $project"
  "${incus[@]}" image import "$built/meta.tar" "$built/rootfs.tar.zst" --alias "$ALIAS-$hash" >/dev/null
  if [ -n "$old" ]; then
    "${incus[@]}" image alias delete "$ALIAS" >/dev/null
    "${incus[@]}" image delete "${old%% *}" >/dev/null # machines made from it keep what they need
  fi
  "${incus[@]}" image alias create "$ALIAS" "$("${incus[@]}" image list -f json | jq -r --arg hash "$hash" \
    '[.[] | select(.properties.recipe == $hash)][0].fingerprint')" >/dev/null
  "${incus[@]}" image alias delete "$ALIAS-$hash" >/dev/null
}

[ -f "$built/rootfs.tar.zst" ] || build
[ -z "$project" ] || import
