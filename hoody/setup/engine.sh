#!/usr/bin/env bash
# The container engine of a node: Incus, with a project, a storage pool and a bridge of the node's
# own, and the host's firewall towards that bridge.
#
#   engine.sh start  --name NAME --state DIR [--ports HTTP,HTTPS] [--pool-size SIZE] [--merged-by HOODY]
#   engine.sh stop   --name NAME --state DIR
#   engine.sh status --name NAME --state DIR
#   engine.sh purge  --name NAME --state DIR
#
# `--merged-by` has the kernel merge pages of the machines that are the same (KSM): HOODY is the
# program that asks for it and becomes the engine.
#
# Every call may be repeated. `start` is quick where all is there. Exit code 3: this machine
# cannot run system containers, whatever is tried; the reason is printed.
set -euo pipefail

readonly CANNOT=3
readonly INCUSD=/usr/libexec/incus/incusd
readonly SOCKET=/var/lib/incus/unix.socket
readonly USERS=/run/hoody/engine.d          # one file per node that uses a daemon started here
readonly DAEMON_PID=/run/hoody/incusd.pid
readonly DAEMON_LOG=/var/log/incus/incusd.log
readonly READY_SECONDS=60
export PATH="/usr/libexec/incus:/usr/local/sbin:/usr/sbin:/sbin:$PATH"

say() { printf 'engine: %s\n' "$*"; }
die() { printf 'engine: %s\n' "$*" >&2; exit 1; }
cannot() { printf 'engine: no system containers here: %s\n' "$*" >&2; exit "$CANNOT"; }

action="${1:-}"; [ $# -gt 0 ] && shift
name=hoody state=/var/lib/hoody ports=80,443 pool_size= merged_by=
while [ $# -gt 0 ]; do
  case "$1" in
    --name) name="$2" ;;
    --state) state="$2" ;;
    --ports) ports="$2" ;;
    --pool-size) pool_size="$2" ;;
    --merged-by) merged_by="$2" ;;
    *) die "unknown option $1" ;;
  esac
  shift 2 || die "an option has no value"
done
[[ "$name" =~ ^[a-z][a-z0-9]{0,12}$ ]] || die "--name $name: up to 13 lower-case letters and digits, a letter first"
[[ "$ports" =~ ^[0-9]+(,[0-9]+)*$ ]] || die "--ports $ports: numbers with commas between"
bridge="${name}0"
guard="${name}_guard"

incus_() { command incus --project "$name" "$@"; }
answers() { [ -S "$SOCKET" ] && curl -fsS --max-time 5 --unix-socket "$SOCKET" http://incus/1.0 >/dev/null 2>&1; }

check_host() {
  [ "$(uname -s)" = Linux ] || cannot "this is $(uname -s), not Linux"
  [ "$(id -u)" = 0 ] || cannot "root is needed; run it with sudo"
  [ -x "$INCUSD" ] || cannot "Incus is not installed; hoody/setup/packages.sh installs it"
  unshare --user --map-root-user --mount --pid --fork true 2>/dev/null \
    || cannot "namespaces are not permitted (nested in a restricted container?)"
  grep -q . /proc/cgroups 2>/dev/null || [ -f /sys/fs/cgroup/cgroup.controllers ] \
    || cannot "no control groups are mounted at /sys/fs/cgroup"
}

# Limits of the host that many containers run into.
tune_host() {
  local key want have
  while read -r key want; do
    have="$(cat "/proc/sys/${key//.//}" 2>/dev/null || echo "$want")"
    if [ "$have" -lt "$want" ]; then
      printf '%s' "$want" > "/proc/sys/${key//.//}" || say "could not raise $key to $want"
    fi
  done <<'LIMITS'
fs.inotify.max_user_instances 8192
fs.inotify.max_user_watches 1048576
kernel.keys.maxkeys 4000
kernel.keys.maxbytes 4000000
kernel.pid_max 262144
LIMITS
  for file in /etc/subuid /etc/subgid; do
    grep -q '^root:' "$file" 2>/dev/null || echo 'root:1000000:1000000000' >> "$file"
  done
}

# One at a time: two nodes that come up together start one daemon.
start_daemon() {
  mkdir -p "$USERS"
  exec 9> /run/hoody/engine.lock
  flock 9
  have_daemon
  exec 9>&-
}

# The kernel merges memory of processes that ask for it; it does so slowly, a little at a time.
merge_memory() {
  local ksm=/sys/kernel/mm/ksm drop_in=/etc/systemd/system/incus.service.d/50-hoody-ksm.conf
  if [ -z "$merged_by" ]; then
    if [ -f "$drop_in" ]; then rm "$drop_in"; systemctl daemon-reload; fi
    return
  fi
  [ -w "$ksm/run" ] || die "engine.ksm: this kernel merges no memory ($ksm/run is missing or read-only)"
  [ "$(cat "$ksm/run")" = 1 ] || echo 1 >"$ksm/run"
  if [ -d /run/systemd/system ] && [ ! -f "$drop_in" ]; then
    mkdir -p "$(dirname "$drop_in")"
    printf '[Service]\nMemoryKSM=yes\n' >"$drop_in"
    systemctl daemon-reload
  fi
  if answers && ! pgrep -f "^$INCUSD" | while read -r pid; do
    grep -q '^ksm_merge_any: yes' "/proc/$pid/ksm_stat" 2>/dev/null && echo "$pid"
  done | grep -q .; then
    say "incusd runs already without merging: memory of machines is merged from its next start on"
  fi
}

have_daemon() {
  merge_memory
  if answers; then
    touch "$USERS/$name"
    return
  fi
  if [ -d /run/systemd/system ]; then
    say "starting the Incus service"
    systemctl start incus.socket incus.service
  else
    say "starting incusd (log: $DAEMON_LOG)"
    mkdir -p /var/lib/incus "$(dirname "$DAEMON_LOG")"
    setsid bash -c '
      # machines inherit the limit of open files
      ulimit -n 1048576 2>/dev/null || ulimit -n "$(ulimit -Hn)"
      cd / # it outlives the directory that it was started in, and what it runs works from there
      echo $$ > "$1"
      child=
      trap "[ -n \"\$child\" ] && kill -TERM \$child; wait; rm -f \"$1\"; exit 0" TERM
      while :; do
        ${4:+"$4" merged} "$2" --group=incus-admin --logfile="$3" & child=$!
        wait "$child"
        sleep 1
      done' hoody-engine "$DAEMON_PID" "$INCUSD" "$DAEMON_LOG" "$merged_by" </dev/null >/dev/null 2>&1 9>&- &
  fi
  local waited=0
  until answers; do
    [ "$waited" -lt $((READY_SECONDS * 10)) ] || die "incusd does not answer on $SOCKET after $READY_SECONDS s; see $DAEMON_LOG"
    [ $((waited % 50)) -ne 49 ] || say "waiting for incusd ($((waited / 10)) s)"
    sleep 0.1
    waited=$((waited + 1))
  done
  "$INCUSD" waitready --timeout "$READY_SECONDS" >/dev/null 2>&1 || true
  touch "$USERS/$name"
}

# A private /20 that no route of the host overlaps.
free_subnet() {
  python3 - <<'PYTHON'
import ipaddress, json, subprocess, sys
routes = json.loads(subprocess.run(["ip", "-4", "-j", "route", "show", "table", "all"],
                                   capture_output=True, text=True, check=True).stdout or "[]")
taken = []
for route in routes:
    try:
        taken.append(ipaddress.ip_network(route.get("dst", ""), strict=False))
    except ValueError:
        pass
for second in range(213, 256):
    for third in range(0, 256, 16):
        net = ipaddress.ip_network(f"10.{second}.{third}.0/20")
        if not any(net.overlaps(other) for other in taken):
            print(f"10.{second}.{third}.1/20")
            sys.exit(0)
sys.exit("no free private subnet")
PYTHON
}

make_network() {
  command incus --project default network show "$bridge" >/dev/null 2>&1 && return
  local subnet
  subnet="$(free_subnet)" || die "no private subnet is free for $bridge"
  say "making the bridge $bridge ($subnet)"
  # addresses are given by the node, so there is no DHCP; names of machines are not published
  command incus --project default network create "$bridge" \
    ipv4.address="$subnet" ipv4.nat=true ipv4.dhcp=false ipv6.address=none dns.mode=managed >/dev/null
}

# 64 GiB, or four fifths of what is free where it will be: the file is sparse, and a pool that is
# larger than the disk takes the host down with it.
default_pool_size() {
  local free most=$((64 << 30))
  mkdir -p /var/lib/incus
  free="$(df --output=avail -B1 /var/lib/incus | tail -n 1)"
  free=$((free / 5 * 4))
  [ "$free" -lt "$most" ] || free="$most"
  printf '%sMiB' $((free >> 20))
}

make_pool() {
  command incus storage show "$name" >/dev/null 2>&1 && return
  pool_size="${pool_size:-$(default_pool_size)}"
  local where="$state/pool"
  mkdir -p "$state"
  if [ "$(stat -f -c %T "$state")" = btrfs ]; then
    say "making the storage pool $name (a subvolume of $state)"
    # the subvolume is made by the engine, and only where nothing stands yet
    command incus storage create "$name" btrfs source="$where" >/dev/null && return
  fi
  if modprobe btrfs 2>/dev/null || grep -qw btrfs /proc/filesystems; then
    say "making the storage pool $name (btrfs in a sparse file of $pool_size)"
    if command incus storage create "$name" btrfs size="$pool_size" \
        btrfs.mount_options=noatime,user_subvol_rm_allowed >/dev/null; then
      return
    fi
  fi
  say "WARNING: no btrfs here: containers are whole copies on plain directories; creating and copying them is slow"
  command incus storage create "$name" dir >/dev/null
}

make_project() {
  command incus project show "$name" >/dev/null 2>&1 && return
  say "making the project $name"
  command incus project create "$name" \
    -c features.images=true -c features.profiles=true -c features.storage.volumes=true >/dev/null
}

# What containers reach of the host itself: names, the proxy, and answers to what the host asked.
# They do not reach link-local addresses beyond it, where clouds keep credentials of the host.
# What was turned over to the relay (table ${name}_machines, which control writes) reaches it.
# Nothing is forwarded to them but answers: not from one another, not from another node's containers
# on this machine, not from the networks that the host is on.
make_guard() {
  nft -f - <<RULES
table inet $guard
delete table inet $guard
table inet $guard {
  chain input {
    type filter hook input priority -10; policy accept;
    iifname != "$bridge" return
    ct state established,related accept
    udp dport 53 accept
    tcp dport { 53, $ports } accept
    icmp type echo-request accept
    ct status dnat accept
    drop
  }
  chain forward {
    type filter hook forward priority -10; policy accept;
    iifname "$bridge" ip daddr 169.254.0.0/16 drop
    oifname != "$bridge" return
    iifname "$bridge" drop
    ct state established,related accept
    drop
  }
}
RULES
}

# Disks of machines are bounded by what btrfs counts. Where a large tree is deleted, it stops counting
# for the whole pool until somebody asks for a recount, unless it is told to follow trees of any depth
# (8 levels is the most there are).
count_disks() {
  local pool="/var/lib/incus/storage-pools/$name" uuid groups
  [ "$(stat -f -c %T "$pool" 2>/dev/null)" = btrfs ] || return 0
  btrfs quota enable "$pool" 2>/dev/null || { say "WARNING: disks of machines have no bounds: btrfs quotas cannot be turned on"; return 0; }
  uuid="$(findmnt -n -o UUID --target "$pool" | head -n 1)"
  groups="/sys/fs/btrfs/$uuid/qgroups"
  if [ -w "$groups/drop_subtree_threshold" ]; then echo 8 >"$groups/drop_subtree_threshold"; fi
  if [ "$(cat "$groups/inconsistent" 2>/dev/null)" = 1 ]; then
    say "having btrfs count the disks of machines anew"
    btrfs quota rescan "$pool" >/dev/null 2>&1 || true # one may be under way
  fi
}

start() {
  check_host
  tune_host
  start_daemon
  make_project
  make_pool
  count_disks
  make_network
  make_guard
}

status() {
  answers || { say "incusd does not answer"; return 1; }
  command incus project show "$name" >/dev/null 2>&1 || { say "there is no project $name"; return 1; }
  say "ready: project $name, bridge $bridge, $(incus_ list -f csv -c n | grep -c . || true) machines"
}

stop() {
  rm -f "$USERS/$name"
  [ -f "$DAEMON_PID" ] || return 0
  if [ -n "$(ls -A "$USERS" 2>/dev/null)" ]; then
    return 0
  fi
  local pid; pid="$(cat "$DAEMON_PID")"
  if [ -r "/proc/$pid/cmdline" ] && tr '\0' ' ' < "/proc/$pid/cmdline" | grep -q hoody-engine; then
    say "stopping incusd; machines run on"
    kill -TERM "$pid"
    for _ in $(seq 300); do [ -d "/proc/$pid" ] || break; sleep 0.1; done
  fi
  rm -f "$DAEMON_PID"
}

purge() {
  # what a stopped daemon keeps can only be removed by it
  if ! answers && [ "$(id -u)" = 0 ] && [ -x "$INCUSD" ] && [ -d /var/lib/incus/database ]; then
    start_daemon
  fi
  unmount_below "$state/shares" # disks that machines show one another; none goes while it is seen
  if answers && command incus project show "$name" >/dev/null 2>&1; then
    local machine image
    for machine in $(incus_ list -f csv -c n); do
      say "removing machine $machine"
      # one that is full could not be stopped: the engine writes to its disk
      incus_ config device unset "$machine" root size >/dev/null 2>&1 || true
      incus_ delete --force "$machine"
    done
    for image in $(incus_ image list -f csv -c F); do incus_ image delete "$image"; done
    incus_ profile device remove default root >/dev/null 2>&1 || true
    command incus project delete "$name" >/dev/null
    say "removed the project $name"
  fi
  if answers; then
    if command incus network show "$bridge" >/dev/null 2>&1; then
      command incus network delete "$bridge" >/dev/null
    fi
    if command incus storage show "$name" >/dev/null 2>&1; then
      command incus storage delete "$name" >/dev/null
    fi
    rmdir "$state/pool" 2>/dev/null || true # an empty subvolume, where the pool was one
  fi
  nft delete table inet "$guard" 2>/dev/null || true
  nft delete table inet "${name}_machines" 2>/dev/null || true
  nft delete table bridge "${name}_machines" 2>/dev/null || true
  unmount_below "$state/containers/"
  stop
}

# Take off what is mounted below a directory.
unmount_below() {
  local mounted
  while mounted="$(awk -v below="$1" 'index($2, below) == 1 {print $2; exit}' /proc/self/mounts)"; [ -n "$mounted" ]; do
    umount -l "$mounted"
  done
}

case "$action" in
  start|stop|status|purge) "$action" ;;
  *) die "usage: engine.sh start|stop|status|purge --name NAME --state DIR" ;;
esac
