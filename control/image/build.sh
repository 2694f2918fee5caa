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
openssh-server,openssh-client,nftables,libnss-myhostname,fuse3,rclone,bubblewrap,apt,init,man-db,file,xz-utils,\
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
  # Whoever owns the checkout, and whatever its umask was, root owns the files, and directories that
  # are there stay as they are.
  local overlay="tar -C files --owner=0 --group=0 --mode=u=rwX,go=rX -cf - . | tar -C \"\$1\" --no-overwrite-dir -xf -"
  local keyring=()
  [ -f /usr/share/keyrings/debian-archive-keyring.gpg ] && keyring=(--keyring=/usr/share/keyrings)
  mmdebstrap --variant=minbase --format=tar "${keyring[@]}" \
    --aptopt='Acquire::Retries "3"' --aptopt='Apt::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-include=/usr/share/locale/locale.alias' \
    --include="$PACKAGES" "${hooks[@]}" \
    --customize-hook="$overlay" \
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

# Import it where the project does not have this recipe yet, point the alias to it, and remove what
# it supersedes: machines made from that keep what they need. May stop anywhere and be repeated.
import() {
  local incus=(incus --project "$project") images fingerprint old
  look() {
    images="$("${incus[@]}" image list -f json)"
    fingerprint="$(jq -r --arg hash "$hash" '[.[] | select(.properties.recipe == $hash)][0].fingerprint // ""' <<< "$images")"
  }
  look
  if [ -z "$fingerprint" ]; then
    say "importing into the project $project"
    "${incus[@]}" image import "$built/meta.tar" "$built/rootfs.tar.zst" >/dev/null
    look
  fi
  if ! jq -e --arg alias "$ALIAS" --arg is "$fingerprint" \
      'any(.[]; .fingerprint == $is and any(.aliases[]?; .name == $alias))' <<< "$images" >/dev/null; then
    incus query -X PUT "/1.0/images/aliases/$ALIAS?project=$project" -d "{\"target\": \"$fingerprint\"}" >/dev/null 2>&1 \
      || "${incus[@]}" image alias create "$ALIAS" "$fingerprint" >/dev/null
  fi
  for old in $(jq -r --arg hash "$hash" --arg alias "$ALIAS" \
      '.[] | select(.properties.recipe and .properties.recipe != $hash and all(.aliases[]?; .name == $alias)) | .fingerprint' <<< "$images"); do
    "${incus[@]}" image delete "$old" >/dev/null || say "the superseded image $old stays for now"
  done
}

[ -f "$built/rootfs.tar.zst" ] || build
[ -z "$project" ] || import
