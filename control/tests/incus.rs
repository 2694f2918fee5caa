//! Real machines on an engine project of their own: `control/tests/incus.sh` makes one and runs these.
//!
//! `HOODY_ENGINE` is the name that `engine.sh start` and `build.sh --import` were given. They make
//! machines with random ids and leave nothing.

#![allow(clippy::unwrap_used)] // a test that panics has failed

mod far;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::firewall::{Action, Filter, Filters, Kind};
use control::relay::{self, Credentials, Kind as By, Reach, Upstream};
use control::runtime::incus::{Incus, RELAY, RELAY_NAMES, Settings};
use control::runtime::{
    Egress, Limits, Machine, NoDirectory, Observed, Policy, Power, Runtime, RuntimeError, Share,
    Shares, Source,
};
use far::Far;
use routes::Id;

/// Stands in for the kit: a socket that accepts, nothing else.
const STAND_IN: &str = r#"#!/usr/bin/python3
import os, socket
at = "/hoody/run/kit.sock"
if os.path.lexists(at):
    os.unlink(at)
server = socket.socket(socket.AF_UNIX)
server.bind(at)
server.listen(16)
to = os.environ.get("NOTIFY_SOCKET")
if to:
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.sendto(b"READY=1", "\0" + to[1:] if to[0] == "@" else to)
while True:
    server.accept()[0].close()
"#;
/// Stands in for the kit of a machine that is kept ready: it becomes whom the host says.
const STAND_IN_TO_BE: &str = r#"#!/usr/bin/python3
import json, os, socket
at = "/hoody/run/kit.sock"
if os.path.lexists(at):
    os.unlink(at)
server = socket.socket(socket.AF_UNIX)
server.bind(at)
server.listen(16)
to = os.environ.get("NOTIFY_SOCKET")
if to:
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.sendto(b"READY=1", "\0" + to[1:] if to[0] == "@" else to)
while True:
    asker = server.accept()[0]
    said = asker.makefile("rwb")
    line = said.readline()
    if not line:
        asker.close()
        continue
    length = 0
    while True:
        header = said.readline().decode().strip().lower()
        if not header:
            break
        if header.startswith("content-length:"):
            length = int(header.split(":")[1])
    asked = said.read(length)
    if not line.startswith(b"POST /identity "):
        said.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
    elif os.path.exists("/etc/refuse"):
        said.write(b"HTTP/1.1 500 No\r\ncontent-length: 6\r\n\r\nI wont")
    else:
        asked = json.loads(asked)
        for file in asked["files"]:
            if file["text"] is None:
                os.makedirs(file["path"], exist_ok=True)
            else:
                open(file["path"], "w").write(file["text"])
            os.chown(file["path"], file["owner"], file["owner"])
            os.chmod(file["path"], file["mode"])
        socket.sethostname(asked["hostname"])
        said.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    said.flush()
    asker.close()
"#;
const GRACE: Duration = Duration::from_secs(30);
const READY: Duration = Duration::from_secs(60);

/// An engine with directories of this test's own.
struct Rig {
    engine: Arc<Incus>,
    directory: tempfile::TempDir,
}

impl Rig {
    async fn start() -> Rig {
        let name = std::env::var("HOODY_ENGINE").expect("HOODY_ENGINE names an engine");
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open.clone()).unwrap();
        let kit = directory.path().join("kit/bin");
        std::fs::create_dir_all(&kit).unwrap();
        std::fs::write(kit.join("kitd"), STAND_IN).unwrap();
        std::fs::set_permissions(kit.join("kitd"), open).unwrap();
        let engine = Incus::connect(Settings {
            socket: "/var/lib/incus/unix.socket".into(),
            name,
            containers: directory.path().join("containers"),
            kit: directory.path().join("kit"),
            relay: directory.path().join("relay.sock"),
        })
        .await
        .unwrap();
        engine.enforce(BTreeMap::new()).await.unwrap();
        Rig { engine, directory }
    }

    /// With another kit for the machines that are made from now on.
    fn with_kit(self, program: &str) -> Rig {
        let kitd = self.directory.path().join("kit/bin/kitd");
        std::fs::write(kitd, program).unwrap();
        self
    }

    /// Have one ready as a pool does, and hold it still. What tells it from others.
    async fn keep_ready(&self, machine: &Machine) -> (Observed, String) {
        let id = machine.id;
        self.engine.create(machine).await.unwrap();
        self.engine.start(id).await.unwrap();
        if machine.kit {
            self.ready(id).await;
        }
        self.engine.settle(id).await.unwrap();
        let who = self.who_is(id).await;
        self.engine.freeze(id).await.unwrap();
        (self.see(id).await, who)
    }

    /// What tells a machine from others, a line each.
    async fn who_is(&self, id: Id) -> String {
        let line = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub /sys/class/net/eth0/address
            ip -4 -brief address show eth0 | sed 's,@[^ ]*,,' | tr -s ' '
            head -1 /proc/self/uid_map | tr -s ' '
            find /run/log/journal /var/log/journal -mindepth 1 -maxdepth 1 -type d -printf '%f\\n' | sort -u
            sha256sum /etc/ssh/ssh_host_ed25519_key | cut -c-64";
        self.sh(id, line).await
    }

    /// The same engine, as a control that begins anew has it.
    async fn again(&self) -> Arc<Incus> {
        let at = self.directory.path();
        let engine = Incus::connect(Settings {
            socket: "/var/lib/incus/unix.socket".into(),
            name: std::env::var("HOODY_ENGINE").unwrap(),
            containers: at.join("containers"),
            kit: at.join("kit"),
            relay: at.join("relay.sock"),
        })
        .await
        .unwrap();
        engine.enforce(BTreeMap::new()).await.unwrap();
        engine
    }

    /// Make a machine, turn it on, and wait until its kit is there.
    async fn turn_on(&self, machine: &Machine) -> Observed {
        self.engine.create(machine).await.unwrap();
        self.engine.start(machine.id).await.unwrap();
        self.ready(machine.id).await
    }

    async fn see(&self, id: Id) -> Observed {
        self.engine
            .observe_one(id)
            .await
            .unwrap()
            .expect("it is there")
    }

    async fn ready(&self, id: Id) -> Observed {
        let begun = Instant::now();
        loop {
            let seen = self.see(id).await;
            if seen.ready {
                return seen;
            }
            assert!(begun.elapsed() < READY, "not ready: {seen:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What a shell in the machine prints.
    async fn sh(&self, id: Id, line: &str) -> String {
        let ran = self.engine.exec(id, &["bash", "-c", line]).await.unwrap();
        let text = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
        assert_eq!(
            ran.code,
            0,
            "{line}: {text} {}",
            String::from_utf8_lossy(&ran.stderr)
        );
        text
    }

    /// Nothing of it is left, in the engine or beside it.
    async fn is_gone(&self, id: Id) {
        assert_eq!(self.engine.observe_one(id).await.unwrap(), None);
        let directory = self
            .directory
            .path()
            .join("containers")
            .join(id.to_string());
        assert!(!directory.exists(), "{} is left", directory.display());
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(&id.to_string()), "a mount is left");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let shares = self.directory.path().join("shares");
        Command::new("umount").arg("-l").arg(&shares).output().ok(); // there may be none
    }
}

fn machine() -> Machine {
    Machine {
        id: Id(rand::random()),
        project: Id(rand::random()),
        hostname: "web".to_owned(),
        image: None,
        environment: vec![("GREETING".to_owned(), "hello \"you\"".to_owned())],
        ssh_public_key: Some("ssh-ed25519 AAAA me@here".to_owned()),
        kit: true,
        autostart: true,
        ramdisk: true,
        kvm: false,
        limits: Limits {
            memory: Some(512 << 20),
            ..Limits::default()
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_goes_through_all_its_states() {
    let rig = Rig::start().await;
    let engine = &rig.engine;
    let machine = machine();
    let id = machine.id;

    let begun = Instant::now();
    engine.create(&machine).await.unwrap();
    let created = begun.elapsed();
    engine.create(&machine).await.unwrap(); // again changes nothing
    let off = rig.see(id).await;
    assert_eq!((off.power, off.ready), (Power::Off, false));

    let begun = Instant::now();
    engine.start(id).await.unwrap();
    let started = begun.elapsed();
    let on = rig.ready(id).await;
    println!(
        "create {created:?}, start {started:?}, first socket {:?}",
        begun.elapsed()
    );
    engine.start(id).await.unwrap();
    assert_eq!(
        on.incarnation,
        rig.see(id).await.incarnation,
        "it was on already"
    );
    let shared = std::fs::metadata(&on.directory).unwrap();
    assert_eq!(shared.uid(), on.owners.base);
    assert_eq!(shared.mode() & 0o777, 0o700);

    // settled before anything is asked of systemd
    let state = rig
        .sh(
            id,
            "systemctl is-system-running --wait; systemctl --failed --no-legend",
        )
        .await;
    assert_eq!(state, "running");
    assert_eq!(
        rig.sh(id, "hostname; su - user -c 'echo $GREETING'").await,
        "web\nhello \"you\""
    );
    assert_eq!(
        rig.sh(id, "cat /root/.ssh/authorized_keys").await,
        "ssh-ed25519 AAAA me@here"
    );
    assert_eq!(
        rig.sh(id, "stat -c '%U %a' /home/user/.ssh/authorized_keys")
            .await,
        "user 600"
    );
    let address = on.address.unwrap().to_string();
    assert!(
        rig.sh(id, "ip -4 -brief address show eth0")
            .await
            .contains(&address)
    );
    assert!(engine.usage(id).await.unwrap().memory > 0);

    engine.freeze(id).await.unwrap();
    engine.freeze(id).await.unwrap();
    assert_eq!(rig.see(id).await.power, Power::Frozen);
    engine.thaw(id).await.unwrap();
    engine.thaw(id).await.unwrap();
    assert_eq!(rig.see(id).await.power, Power::On);
    for _ in 0..5 {
        let begun = Instant::now();
        engine.freeze(id).await.unwrap();
        let frozen = begun.elapsed();
        engine.thaw(id).await.unwrap();
        println!(
            "frozen in {frozen:?}, thawed in {:?}",
            begun.elapsed() - frozen
        );
    }
    // A control that held it still and was killed before the engine knew.
    let name = std::env::var("HOODY_ENGINE").unwrap();
    let freezer = format!("/sys/fs/cgroup/freezer/lxc.payload.{name}_c-{id}/freezer.state");
    if Path::new(&freezer).exists() {
        std::fs::write(&freezer, "FROZEN").unwrap();
        assert_eq!(rig.see(id).await.power, Power::Frozen);
        engine.thaw(id).await.unwrap();
        assert_eq!(rig.see(id).await.power, Power::On);
        std::fs::write(&freezer, "FROZEN").unwrap();
        engine.freeze(id).await.unwrap();
        assert_eq!(rig.see(id).await.power, Power::Frozen);
        engine.thaw(id).await.unwrap();
        assert_eq!(rig.sh(id, "echo still here").await, "still here");
    }

    engine.stop(id, GRACE).await.unwrap();
    engine.stop(id, GRACE).await.unwrap();
    assert_eq!(rig.see(id).await.power, Power::Off);
    let begun = Instant::now();
    engine.start(id).await.unwrap();
    let again = rig.ready(id).await;
    println!("from stopped to its socket {:?}", begun.elapsed());
    assert!(
        again.incarnation > on.incarnation,
        "another start, another incarnation"
    );
    assert_eq!(again.address, on.address);
    engine.freeze(id).await.unwrap();
    engine.kill(id).await.unwrap();
    assert_eq!(
        rig.see(id).await.power,
        Power::Off,
        "a frozen one can be killed"
    );

    engine.delete(id).await.unwrap();
    engine.delete(id).await.unwrap();
    rig.is_gone(id).await;
    assert!(matches!(
        engine.start(id).await,
        Err(RuntimeError::NoMachine(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_reboots_itself_counts_as_started_again() {
    let rig = Rig::start().await;
    let machine = machine();
    let id = machine.id;
    let before = rig.turn_on(&machine).await;
    let mut changes = rig.engine.changes();
    rig.sh(id, "systemctl reboot --no-block").await;
    let begun = Instant::now();
    loop {
        let seen = rig.see(id).await;
        if seen.ready && seen.incarnation > before.incarnation {
            break;
        }
        assert!(begun.elapsed() < READY, "{seen:?} after {before:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let told = tokio::time::timeout(Duration::from_secs(5), changes.recv()).await;
    assert_eq!(told.unwrap().unwrap(), id);
    rig.engine.delete(id).await.unwrap();
    rig.is_gone(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_made_at_once_share_nothing() {
    let rig = Rig::start().await;
    let machines: Vec<Machine> = (0..6).map(|_| machine()).collect();
    let making = machines.iter().map(|machine| rig.engine.create(machine));
    for made in futures::future::join_all(making).await {
        made.unwrap();
    }
    let all = rig.engine.observe().await.unwrap();
    let mut addresses = Vec::new();
    let mut bases = Vec::new();
    for machine in &machines {
        let seen = all
            .iter()
            .find(|seen| seen.id == machine.id)
            .expect("it is listed");
        addresses.push(seen.address.expect("it has one"));
        bases.push(seen.owners.base);
    }
    for list in [
        &mut bases,
        &mut addresses.into_iter().map(u32::from).collect(),
    ] {
        list.sort_unstable();
        list.dedup();
        assert_eq!(list.len(), machines.len(), "something is shared: {list:?}");
    }
    for machine in &machines {
        rig.engine.delete(machine.id).await.unwrap();
        rig.is_gone(machine.id).await;
    }
}

/// Makes subvolumes, one with bits set that the kernel does not look at, and says what is there.
const SUBVOLUMES: &str = r#"python3 - <<'PYTHON'
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
call = 16 if os.uname().machine == "x86_64" else 29
at = os.open("/home/user", os.O_RDONLY)
for number, place in [(0x5000940e, 8), (0x50009418, 56), (0x15000940e, 8)]:
    asked = ctypes.create_string_buffer(4096)
    name = b"sub%x" % number
    asked[place:place + len(name)] = name
    libc.syscall(call, at, ctypes.c_ulong(number), asked)
print(*os.listdir("/home/user"))
PYTHON"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_makes_no_disk_beside_its_own() {
    let rig = Rig::start().await;
    let machine = machine();
    rig.turn_on(&machine).await;
    let made = rig.sh(machine.id, SUBVOLUMES).await;
    assert!(!made.contains("sub"), "{made}");
    rig.engine.delete(machine.id).await.unwrap();
    rig.is_gone(machine.id).await;
}

/// Forks until it is stopped, up to far above the limit, and cleans up.
const FORKS: &str = r"python3 - <<'PYTHON'
import os, signal, time
children = []
try:
    while len(children) < 1000:
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        children.append(child)
    print('not stopped')
except BlockingIOError:
    print('stopped')
for child in children:
    os.kill(child, signal.SIGKILL)
PYTHON";

#[tokio::test(flavor = "multi_thread")]
async fn an_update_leaves_what_users_wrote() {
    let rig = Rig::start().await;
    let mut machine = machine();
    let id = machine.id;
    rig.turn_on(&machine).await;
    rig.sh(id, "echo mine >> /root/.ssh/authorized_keys").await;
    machine.limits.memory = Some(256 << 20);
    machine.limits.disk = Some(4 << 30);
    machine.limits.processes = Some(500);
    rig.engine.update(&machine).await.unwrap();
    assert_eq!(
        rig.engine.usage(id).await.unwrap().memory_limit,
        Some(256 << 20)
    );
    assert_eq!(rig.sh(id, FORKS).await, "stopped");
    assert!(
        rig.sh(id, "cat /root/.ssh/authorized_keys")
            .await
            .ends_with("mine")
    );
    machine.environment = vec![("GREETING".to_owned(), "bye".to_owned())];
    rig.engine.update(&machine).await.unwrap();
    let keys = rig.sh(id, "cat /root/.ssh/authorized_keys").await;
    assert!(
        keys.ends_with("mine"),
        "a variable is no reason to touch keys: {keys}"
    );
    assert_eq!(
        rig.sh(id, ". /etc/environment; echo $GREETING").await,
        "bye"
    );
    rig.engine.delete(id).await.unwrap();
    rig.is_gone(id).await;
}

/// Processor time that two loops in a machine get of two seconds.
async fn busy(rig: &Rig, id: Id) -> Duration {
    let before = rig.engine.usage(id).await.unwrap().cpu_time;
    let loops =
        "timeout 2 sh -c 'while :; do :; done' & timeout 2 sh -c 'while :; do :; done'; wait";
    rig.sh(id, loops).await;
    rig.engine.usage(id).await.unwrap().cpu_time - before
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_for_what_runs() {
    let rig = Rig::start().await;
    let mut machine = machine();
    let id = machine.id;
    rig.turn_on(&machine).await;
    let all = rig.sh(id, "nproc").await;
    machine.limits.cpu = Some(1000);
    rig.engine.update(&machine).await.unwrap();
    assert_eq!(rig.sh(id, "nproc").await, "1");
    // Part of one: 10 ms of each 100.
    machine.limits.cpu = Some(100);
    rig.engine.update(&machine).await.unwrap();
    let held = busy(&rig, id).await;
    machine.limits.cpu = None;
    rig.engine.update(&machine).await.unwrap();
    // The engine spreads its machines over the processors a moment later.
    for _ in 0..100 {
        if rig.sh(id, "nproc").await == all {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(rig.sh(id, "nproc").await, all);
    let free = busy(&rig, id).await;
    assert!(
        held < Duration::from_millis(400) && free > held,
        "{held:?} of a tenth, {free:?} of all"
    );

    // Files that the kernel keeps at hand make way, memory that a program holds does not.
    rig.sh(
        id,
        "dd if=/dev/zero of=/root/file bs=1M count=300 status=none; cat /root/file >/dev/null",
    )
    .await;
    machine.limits.memory = Some(300 << 20);
    rig.engine.update(&machine).await.unwrap();
    let holds = "import time; x = bytearray(b'1' * (120 << 20)); time.sleep(600)";
    rig.sh(
        id,
        &format!("systemd-run --quiet --unit=holds python3 -c \"{holds}\""),
    )
    .await;
    let mut held = 0;
    for _ in 0..200 {
        held = rig.engine.usage(id).await.unwrap().memory_held.unwrap();
        if held > 120 << 20 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(held > 120 << 20, "{held}");
    machine.limits.memory = Some(100 << 20);
    let said = rig.engine.update(&machine).await.unwrap_err();
    assert!(
        matches!(said, RuntimeError::Transient { .. }),
        "once there is room it is so: {said:?}"
    );
    rig.sh(id, "systemctl stop holds").await;
    rig.engine.update(&machine).await.unwrap();
    let usage = rig.engine.usage(id).await.unwrap();
    assert_eq!(usage.memory_limit, Some(100 << 20));
    rig.engine.delete(id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_is_seen_and_removed() {
    let rig = Rig::start().await;
    // the first act of a creation, and no more
    let id = Id(rand::random());
    let directory = rig.directory.path().join("containers").join(id.to_string());
    std::fs::create_dir_all(&directory).unwrap();
    assert_eq!(rig.see(id).await.power, Power::Remains);
    rig.engine.delete(id).await.unwrap();
    rig.is_gone(id).await;
    // an image that is not there leaves nothing in the engine
    let mut machine = machine();
    machine.image = Some("no-such-image".to_owned());
    let refused = rig.engine.create(&machine).await;
    assert!(
        matches!(refused, Err(RuntimeError::NoImage(_))),
        "{refused:?}"
    );
    rig.engine.delete(machine.id).await.unwrap();
    rig.is_gone(machine.id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_cannot_lay_hands_on_its_kit_or_its_host() {
    let rig = Rig::start().await;
    let machine = machine();
    let id = machine.id;
    let on = rig.turn_on(&machine).await;
    let attack = "
        mount -o remount,bind,rw /opt/hoody && echo remounted; touch /opt/hoody/evil && echo wrote
        echo evil >> /opt/hoody/bin/kitd && echo changed; chmod 777 /opt/hoody && echo opened
        unshare -Urm bash -c 'mount -o remount,bind,rw /opt/hoody && echo nested' ; true";
    assert_eq!(
        rig.sh(id, &format!("{{ {attack}; }} 2>/dev/null")).await,
        ""
    );
    assert!(Path::new(&rig.directory.path().join("kit/bin/kitd")).exists());
    // its directory takes no more than it may
    rig.sh(
        id,
        "for n in $(seq 100); do : > /hoody/run/$n || break; done; true",
    )
    .await;
    assert!(std::fs::read_dir(&on.directory).unwrap().count() < 64);
    rig.sh(
        id,
        "head -c 4M /dev/zero > /hoody/run/1; test $(stat -c %s /hoody/run/1) -le 1048576",
    )
    .await;
    assert_eq!(
        rig.sh(id, "test -e /dev/incus/sock && echo there; true")
            .await,
        ""
    );
    // what stands in the socket's place when it starts again is gone, and nothing it led to
    rig.sh(
        id,
        "systemctl stop hoody-kit; rm -f /hoody/run/*; ln -s /etc/hostname /hoody/run/kit.sock",
    )
    .await;
    assert!(!rig.see(id).await.ready);
    rig.engine.kill(id).await.unwrap();
    rig.engine.start(id).await.unwrap();
    rig.ready(id).await;
    rig.engine.delete(id).await.unwrap();
    rig.is_gone(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_machine_left_in_its_share_is_gone_with_its_next_start() {
    let rig = Rig::start().await;
    let machine = machine();
    let id = machine.id;
    rig.turn_on(&machine).await;
    let mess = "systemctl stop hoody-kit; rm -f /hoody/run/kit.sock; mkdir /hoody/run/kit.sock; touch /hoody/run/kit.sock/x; \
        i=0; while touch /hoody/run/f$i 2>/dev/null; do i=$((i+1)); done; echo $i";
    assert_ne!(rig.sh(id, mess).await, "0");
    rig.engine.kill(id).await.unwrap();
    rig.engine.start(id).await.unwrap();
    rig.ready(id).await;
    rig.engine.delete(id).await.unwrap();
    rig.is_gone(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_fills_its_disk_fills_nobody_elses() {
    let rig = Rig::start().await;
    let (mut one, other) = (machine(), machine());
    one.limits.disk = Some(1 << 30);
    rig.turn_on(&one).await;
    rig.turn_on(&other).await;
    let said = rig
        .sh(one.id, "fallocate -l 3G /root/fill 2>&1; true")
        .await;
    assert!(said.contains("quota exceeded"), "{said}");
    rig.sh(
        other.id,
        "dd if=/dev/urandom of=/root/mine bs=1M count=64 conv=fsync status=none",
    )
    .await;

    // Nobody is locked out of a machine that is full: it starts, and is as bounded as before.
    // Asked without the engine's records, which would have to be written to the same disk.
    let ask = |line: &str| {
        let name = std::env::var("HOODY_ENGINE").unwrap();
        let machine = format!("c-{}", one.id);
        let ran = std::process::Command::new("incus")
            .args(["--project", &name, "exec", &machine, "--", "sh", "-c", line])
            .output()
            .unwrap();
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    let fill = "dd if=/dev/urandom of=/root/more bs=1M count=2000 conv=fsync 2>&1; sync";
    let said = ask(fill);
    assert!(said.contains("quota exceeded"), "{said}");
    rig.engine.kill(one.id).await.unwrap();
    rig.engine.start(one.id).await.unwrap();
    rig.ready(one.id).await;
    let said = ask("dd if=/dev/urandom of=/root/x bs=1M count=100 conv=fsync 2>&1");
    assert!(said.contains("quota exceeded"), "{said}");
    let said = ask("rm /root/more /root/x; sync; echo there > /root/x && cat /root/x");
    assert_eq!(said, "there\n");
    for machine in [&one, &other] {
        rig.engine.delete(machine.id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_arrive_as_they_were_given() {
    let rig = Rig::start().await;
    let values = [
        "a\"b",
        "back\\slash",
        "end\\",
        "a#b",
        " padded ",
        "it's $HOME `x`",
    ];
    let environment = values.iter().enumerate();
    let machine = Machine {
        environment: environment
            .map(|(at, value)| (format!("V{at}"), (*value).to_owned()))
            .collect(),
        ..machine()
    };
    let id = machine.id;
    rig.turn_on(&machine).await;
    let seen = rig
        .sh(
            id,
            "su - user -c 'env -0' | tr '\\0' '\\n' | grep ^V; echo end",
        )
        .await;
    for (at, value) in values.iter().enumerate() {
        assert!(
            seen.lines().any(|line| line == format!("V{at}={value}")),
            "{value:?}: {seen}"
        );
    }
    rig.engine.delete(id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_does_not_reach_what_clouds_keep_beside_it() {
    let rig = Rig::start().await;
    let machine = machine();
    let id = machine.id;
    rig.turn_on(&machine).await;
    let ask = "timeout 3 bash -c 'exec 3<>/dev/tcp/169.254.169.254/80' 2>/dev/null && echo open || echo shut";
    assert_eq!(rig.sh(id, ask).await, "shut");
    let rules = std::process::Command::new("nft")
        .args(["list", "ruleset"])
        .output()
        .unwrap();
    let rules = String::from_utf8(rules.stdout).unwrap();
    let name = std::env::var("HOODY_ENGINE").unwrap();
    assert!(
        rules.contains(&format!("iifname \"{name}0\" ip daddr 169.254.0.0/16 drop")),
        "{rules}"
    );
    rig.engine.delete(id).await.unwrap();
}

/// What tells a machine from others, as it says itself.
/// What tells it from others. Its host keys are made while it starts, after the kit is there.
const WHO: &str = "until [ -s /etc/ssh/ssh_host_ed25519_key.pub ]; do sleep 0.05; done; \
    cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub; hostname";

/// What the engine has beside the machine, by the name of its kind.
fn engine_says(path: &str) -> String {
    let name = std::env::var("HOODY_ENGINE").unwrap();
    let asked = format!("{path}?project={name}");
    let said = std::process::Command::new("incus")
        .args(["query", &asked])
        .output()
        .unwrap();
    String::from_utf8(said.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_a_running_machine_brings_back_its_files() {
    let rig = Rig::start().await;
    let mut machine = machine();
    let id = machine.id;
    let before = rig.turn_on(&machine).await;
    rig.sh(id, "echo old > /root/page").await;
    let begun = Instant::now();
    let size = rig.engine.snapshot(id, "snap-1").await.unwrap();
    println!("snapshot {:?}, {size:?} bytes", begun.elapsed());
    assert_eq!(rig.see(id).await.power, Power::On, "it was not stopped");
    rig.engine.snapshot(id, "snap-1").await.unwrap(); // as after a crash
    let who = rig.sh(id, WHO).await;
    rig.sh(id, "rm /root/page; echo new > /root/other").await;
    machine.environment = vec![("GREETING".to_owned(), "later".to_owned())];
    rig.engine.update(&machine).await.unwrap();

    rig.engine.kill(id).await.unwrap();
    let begun = Instant::now();
    rig.engine.restore(id, "snap-1").await.unwrap();
    println!("restore {:?}", begun.elapsed());
    rig.engine.restore(id, "snap-1").await.unwrap();
    rig.engine.update(&machine).await.unwrap();
    rig.engine.start(id).await.unwrap();
    let after = rig.ready(id).await;
    assert_eq!(after.address, before.address);
    assert!(after.incarnation > before.incarnation);
    assert_eq!(
        rig.sh(id, "cat /root/page; ls /root/other 2>/dev/null; true")
            .await,
        "old"
    );
    assert_eq!(rig.sh(id, WHO).await, who);
    assert_eq!(
        rig.sh(id, ". /etc/environment; echo $GREETING").await,
        "later"
    );
    let none = rig.engine.restore(id, "snap-2").await;
    assert!(
        matches!(none, Err(RuntimeError::NoSnapshot { .. })),
        "{none:?}"
    );

    rig.engine.drop_snapshot(id, "snap-1").await.unwrap();
    rig.engine.drop_snapshot(id, "snap-1").await.unwrap();
    let path = format!("/1.0/instances/c-{id}/snapshots");
    assert_eq!(engine_says(&path).trim(), "[]");
    rig.engine.snapshot(id, "snap-3").await.unwrap();
    rig.engine.delete(id).await.unwrap();
    rig.is_gone(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_running_machine_is_another_with_its_files() {
    let rig = Rig::start().await;
    let one = machine();
    let mut two = Machine {
        hostname: "twin".to_owned(),
        ssh_public_key: None,
        ..machine()
    };
    two.environment = vec![("GREETING".to_owned(), "twin".to_owned())];
    let on = rig.turn_on(&one).await;
    // links where the copy's own files go: nothing is written through them
    rig.sh(
        one.id,
        "echo mine > /root/page; mkdir -p /var/lib/systemd; echo kept > /root/victim; \
         ln -sf /root/victim /var/lib/systemd/random-seed",
    )
    .await;
    let source = Source {
        id: one.id,
        snapshot: None,
    };
    let begun = Instant::now();
    rig.engine.copy(&two, &source).await.unwrap();
    println!("copy {:?}", begun.elapsed());
    rig.engine.copy(&two, &source).await.unwrap(); // again changes nothing
    assert_eq!(rig.see(two.id).await.power, Power::Off);
    assert_eq!(rig.see(one.id).await, on, "the source goes on");
    rig.engine.start(two.id).await.unwrap();
    let twin = rig.ready(two.id).await;
    assert_ne!((twin.address, twin.owners), (on.address, on.owners));
    assert_ne!(twin.owners.base, on.owners.base);
    assert_ne!(twin.directory, on.directory);
    let (first, second) = (rig.sh(one.id, WHO).await, rig.sh(two.id, WHO).await);
    for (first, second) in first.lines().zip(second.lines()) {
        assert_ne!(first, second, "something tells them not apart");
        assert!(!second.is_empty());
    }
    let mac = "cat /sys/class/net/eth0/address";
    assert_ne!(rig.sh(one.id, mac).await, rig.sh(two.id, mac).await);
    assert!(second.ends_with("twin"), "{second}");
    assert_eq!(
        rig.sh(two.id, "cat /root/page /root/victim").await,
        "mine\nkept"
    );
    assert_eq!(
        rig.sh(two.id, ". /etc/environment; echo $GREETING").await,
        "twin"
    );
    assert_eq!(
        rig.sh(two.id, "systemctl is-system-running --wait; true")
            .await,
        "running"
    );

    // of a machine that is not there
    let gone = Source {
        id: Id(rand::random()),
        snapshot: None,
    };
    let none = rig.engine.copy(&machine(), &gone).await;
    assert!(
        matches!(none, Err(RuntimeError::NoMachine(id)) if id == gone.id),
        "{none:?}"
    );
    for id in [one.id, two.id] {
        rig.engine.delete(id).await.unwrap();
        rig.is_gone(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_carries_a_change_and_keeps_the_identity() {
    let rig = Rig::start().await;
    let one = machine();
    let two = Machine {
        hostname: "twin".to_owned(),
        environment: vec![("GREETING".to_owned(), "twin".to_owned())],
        ..machine()
    };
    rig.turn_on(&one).await;
    rig.sh(one.id, "echo 1 > /root/page; echo x > /root/goes")
        .await;
    rig.engine.snapshot(one.id, "snap-1").await.unwrap();
    rig.sh(one.id, "echo 2 > /root/page").await;
    let source = Source {
        id: one.id,
        snapshot: Some("snap-1".to_owned()),
    };
    rig.engine.copy(&two, &source).await.unwrap();
    rig.engine.start(two.id).await.unwrap();
    let before = rig.ready(two.id).await;
    let who = rig.sh(two.id, WHO).await;
    assert_eq!(rig.sh(two.id, "cat /root/page").await, "1");
    rig.engine.kill(two.id).await.unwrap();

    rig.sh(one.id, "echo 3 > /root/page; rm /root/goes").await;
    let begun = Instant::now();
    rig.engine.sync(&two, one.id).await.unwrap();
    println!("sync {:?}", begun.elapsed());
    rig.engine.sync(&two, one.id).await.unwrap(); // as after a crash
    rig.engine.update(&two).await.unwrap();
    rig.engine.start(two.id).await.unwrap();
    let after = rig.ready(two.id).await;
    assert_eq!(
        (after.address, after.owners),
        (before.address, before.owners)
    );
    assert_eq!(rig.sh(two.id, WHO).await, who);
    assert_eq!(
        rig.sh(two.id, "cat /root/page; ls /root/goes 2>/dev/null; true")
            .await,
        "3"
    );
    assert_eq!(
        rig.sh(two.id, ". /etc/environment; echo $GREETING").await,
        "twin"
    );
    let path = format!("/1.0/instances/c-{}/snapshots", one.id);
    assert!(engine_says(&path).contains("snap-1") && !engine_says(&path).contains("sync-"));
    let path = format!("/1.0/instances/c-{}", two.id);
    assert!(
        !engine_says(&path).contains("user.hoody.identity"),
        "its keys stay inside"
    );
    for id in [one.id, two.id] {
        rig.engine.delete(id).await.unwrap();
        rig.is_gone(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_broke_off_leaves_nobody_with_anothers_identity() {
    let rig = Rig::start().await;
    let (one, two) = (machine(), machine());
    let source = Source {
        id: one.id,
        snapshot: None,
    };
    rig.engine.create(&one).await.unwrap();
    rig.engine.copy(&two, &source).await.unwrap();
    rig.engine.start(two.id).await.unwrap();
    rig.ready(two.id).await;
    let who = rig.sh(two.id, WHO).await;
    rig.engine.kill(two.id).await.unwrap();
    rig.engine.delete(one.id).await.unwrap();
    let broken = rig.engine.sync(&two, one.id).await;
    assert!(
        matches!(broken, Err(RuntimeError::NoMachine(id)) if id == one.id),
        "{broken:?}"
    );
    // what it would have brought over already
    let name = std::env::var("HOODY_ENGINE").unwrap();
    let strange = rig.directory.path().join("machine-id");
    std::fs::write(&strange, format!("{}\n", "0123".repeat(8))).unwrap();
    let pushed = std::process::Command::new("incus")
        .args(["--project", &name, "file", "push"])
        .arg(&strange)
        .arg(format!("c-{}/etc/machine-id", two.id))
        .status()
        .unwrap();
    assert!(pushed.success());
    rig.engine.start(two.id).await.unwrap();
    rig.ready(two.id).await;
    assert_eq!(rig.sh(two.id, WHO).await, who);
    let path = format!("/1.0/instances/c-{}", two.id);
    assert!(!engine_says(&path).contains("user.hoody.identity"));
    rig.engine.delete(two.id).await.unwrap();
    rig.is_gone(two.id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_in_memory_outlives_restarts_and_goes_with_its_machine() {
    let rig = Rig::start().await;
    let machine = machine(); // 512 MiB
    let id = machine.id;
    rig.turn_on(&machine).await;
    let size = "df --output=size --block-size=1M /ramdisk | tail -1";
    assert_eq!(rig.sh(id, size).await, "256");
    rig.sh(id, "findmnt -no FSTYPE /ramdisk | grep -x tmpfs")
        .await;
    // Its users write there, and what they write counts as the machine's memory.
    let before = rig.engine.usage(id).await.unwrap().memory;
    rig.sh(id, "su user -c 'head -c 128M /dev/urandom > /ramdisk/kept'")
        .await;
    let after = rig.engine.usage(id).await.unwrap().memory;
    assert!(after >= before + (100 << 20), "{before} {after}");
    // No more than its size, whoever writes.
    rig.sh(
        id,
        "! head -c 300M /dev/zero > /ramdisk/more 2>/dev/null; rm /ramdisk/more",
    )
    .await;
    let sum = rig.sh(id, "sha256sum /ramdisk/kept").await;

    rig.engine.stop(id, GRACE).await.unwrap();
    rig.engine.start(id).await.unwrap();
    rig.ready(id).await;
    assert_eq!(rig.sh(id, "sha256sum /ramdisk/kept").await, sum);
    // The bound follows the machine's, while it runs.
    let larger = Machine {
        limits: Limits {
            memory: Some(1 << 30),
            ..machine.limits
        },
        ..machine.clone()
    };
    rig.engine.update(&larger).await.unwrap();
    assert_eq!(rig.sh(id, size).await, "512");
    // It cannot shrink below what is on it; what is there stays.
    let smaller = Machine {
        limits: Limits {
            memory: Some(200 << 20),
            ..machine.limits
        },
        ..machine.clone()
    };
    rig.engine.update(&smaller).await.unwrap();
    assert_eq!(rig.sh(id, "sha256sum /ramdisk/kept").await, sum);

    rig.engine.delete(id).await.unwrap();
    rig.is_gone(id).await;
    let left = rig.directory.path().join("ramdisks").join(id.to_string());
    assert!(!left.exists(), "{} is left", left.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn kvm_is_given_and_taken_while_it_runs() {
    let rig = Rig::start().await;
    if !rig.engine.has_kvm() {
        return; // the host has none to give
    }
    let machine = machine();
    let id = machine.id;
    rig.turn_on(&machine).await;
    rig.sh(id, "! test -e /dev/kvm").await;
    let with = Machine {
        kvm: true,
        ..machine.clone()
    };
    rig.engine.update(&with).await.unwrap();
    // KVM_GET_API_VERSION (0xAE00) answers 12 since 2007.
    let ask = "python3 -c 'import fcntl; print(fcntl.ioctl(open(\"/dev/kvm\"), 0xAE00))'";
    let asked = format!("su user -c {}", shell_quoted(ask));
    assert_eq!(rig.sh(id, &asked).await, "12");
    rig.engine.update(&machine).await.unwrap();
    rig.sh(id, "! test -e /dev/kvm").await;
    assert!(rig.see(id).await.ready, "the rest is as it was");
    rig.engine.delete(id).await.unwrap();
    rig.is_gone(id).await;
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Who the far end sees when the machine calls it; nobody where it does not get there.
async fn seen_as(rig: &Rig, id: Id, far: &Far, port: u16) -> String {
    let ask = format!(
        "timeout 2 bash -c 'exec 3<>/dev/tcp/{}/{port} && head -n 1 <&3' 2>/dev/null || echo nobody",
        far.address
    );
    rig.sh(id, &ask).await
}

/// Send datagrams; the number that arrived.
async fn datagrams(rig: &Rig, id: Id, far: &Far) -> usize {
    let before = far.got();
    let (to, port) = (far.address, far::DATAGRAMS);
    let send = format!(
        "for n in 1 2 3; do echo $n > /dev/udp/{to}/{port}; sleep 0.05; done 2>/dev/null; true"
    );
    rig.sh(id, &send).await;
    far.got() - before
}

async fn resolves(rig: &Rig, id: Id) -> bool {
    let ask = "timeout 5 getent ahostsv4 only.there.test | head -n 1; true";
    rig.sh(id, ask).await.starts_with(&far::NAMED.to_string())
}

fn only(id: Id, egress: Egress) -> BTreeMap<Id, Policy> {
    let filters = Filters::default();
    BTreeMap::from([(id, Policy { egress, filters })])
}

fn through(kind: By, far: &Far, password: &str) -> Egress {
    Egress::Proxied(Upstream {
        kind,
        host: far.address.to_string(),
        port: match kind {
            By::Socks5 => far::SOCKS,
            By::Http => far::CONNECT,
        },
        credentials: Some(Credentials {
            user: far::USER.to_owned(),
            password: password.to_owned(),
        }),
        dns: vec![far.address],
    })
}

/// The name of the node's tables.
fn table() -> String {
    format!("{}_machines", std::env::var("HOODY_ENGINE").unwrap())
}

fn nft(words: &str) -> String {
    let ran = std::process::Command::new("nft")
        .args(words.split(' '))
        .output()
        .unwrap();
    String::from_utf8(ran.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_machine_reaches_nothing_whatever_its_root_does() {
    let (rig, far) = (Rig::start().await, Far::start());
    let (machine, other) = (machine(), machine());
    let (id, free) = (machine.id, other.id);
    rig.turn_on(&machine).await;
    let frees = rig.turn_on(&other).await.address.unwrap();
    assert_eq!(
        seen_as(&rig, id, &far, far::WHO).await,
        far.near.to_string()
    );
    assert!(datagrams(&rig, id, &far).await > 0);
    // something that goes on, and something that begins with the machine
    let (to, ticks, udp) = (far.address, far::TICKS, far::DATAGRAMS);
    let begin = format!(
        "systemd-run -q bash -c 'exec 3<>/dev/tcp/{to}/{ticks}; cat <&3 > /root/ticks'
        printf '%s\n' '[Service]' \"ExecStart=/bin/bash -c 'while :; do echo leak > /dev/udp/{to}/{udp}; sleep 0.01; done'\" Restart=always RestartSec=0 '[Install]' WantedBy=sysinit.target > /etc/systemd/system/leak.service
        systemctl daemon-reload; systemctl -q enable leak.service
        until [ -s /root/ticks ]; do sleep 0.05; done"
    );
    rig.sh(id, &begin).await;

    rig.engine.enforce(only(id, Egress::Blocked)).await.unwrap();
    assert_eq!(seen_as(&rig, id, &far, far::WHO).await, "nobody");
    assert_eq!(datagrams(&rig, id, &far).await, 0);
    let ticks = "stat -c %s /root/ticks";
    let then = rig.sh(id, ticks).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rig.sh(id, ticks).await, then, "what went on ended");
    assert_eq!(
        seen_as(&rig, free, &far, far::WHO).await,
        far.near.to_string()
    );
    // names are a way out as well
    let gateway = rig.engine.network().gateway;
    let name = format!("printf '\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\1a\\0\\0\\1\\0\\1' > /tmp/q
        timeout 2 bash -c 'exec 3<>/dev/udp/{gateway}/53; cat /tmp/q >&3; head -c 1 <&3 | wc -c' || echo none");
    assert_eq!(rig.sh(id, &name).await, "none");
    assert_eq!(rig.sh(free, &name).await, "1");

    // its root's own filter, and the address and the hardware address of one that may
    let mac = rig.sh(free, "cat /sys/class/net/eth0/address").await;
    let attack = format!(
        "nft flush ruleset 2>/dev/null; iptables -F 2>/dev/null
        send() {{ python3 -c 'import socket,sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 0))
s.sendto(b\"x\", (\"{to}\", {udp}))' $1; sleep 0.1; }}
        ip addr add {frees}/32 dev eth0; send {frees}
        ip link set eth0 down; ip link set eth0 address {mac}; ip link set eth0 up
        ip addr add {frees}/20 dev eth0; ip route add default via {gateway}; send {frees}; true"
    );
    let before = far.got();
    rig.sh(id, &format!("{{ {attack} ; }} 2>&1")).await;
    assert_eq!(far.got(), before);

    // from its first packet on, after a restart
    rig.engine.kill(id).await.unwrap();
    rig.engine.start(id).await.unwrap();
    rig.ready(id).await;
    assert_eq!(
        rig.sh(id, "systemctl is-active leak.service").await,
        "active"
    );
    assert_eq!(seen_as(&rig, id, &far, far::WHO).await, "nobody");
    assert_eq!(far.got(), before);
    // the leak is one where nothing is held back
    nft(&format!("flush table inet {}", table()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(far.got() > before, "the test would see it");
    rig.engine.enforce(only(id, Egress::Blocked)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = far.got();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(far.got(), before, "what somebody undid is repaired");

    let address = rig.see(id).await.address.unwrap().to_string();
    assert!(nft(&format!("list table inet {}", table())).contains(&address));
    for machine in [id, free] {
        rig.engine.delete(machine).await.unwrap();
        rig.is_gone(machine).await;
    }
    let left = nft(&format!("list table inet {}", table()));
    assert!(!left.contains(&address), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_leaves_by_its_proxy_alone() {
    let (rig, far) = (Rig::start().await, Far::start());
    let machine = machine();
    let id = machine.id;
    rig.turn_on(&machine).await;
    let settings = relay::Settings {
        address: rig.engine.network().gateway,
        port: RELAY,
        names: RELAY_NAMES,
        socket: rig.directory.path().join("relay.sock"),
        reach: Reach::Beyond,
    };
    let serve = || tokio::spawn(relay::serve(settings.clone(), std::future::pending()));
    let relaying = serve();
    let proxied = || far.proxied.load(std::sync::atomic::Ordering::SeqCst);
    let itself = far.address.to_string();
    for kind in [By::Socks5, By::Http] {
        let before = proxied();
        rig.engine
            .enforce(only(id, through(kind, &far, far::PASSWORD)))
            .await
            .unwrap();
        assert_eq!(seen_as(&rig, id, &far, far::WHO).await, itself, "{kind:?}");
        assert_eq!(proxied(), before + 1);
        assert!(resolves(&rig, id).await, "{kind:?}");
        assert!(proxied() > before + 1, "names go the same way");
        assert_eq!(datagrams(&rig, id, &far).await, 0, "{kind:?}");
        let ping = format!("ping -c 1 -W 1 {itself} > /dev/null 2>&1 && echo through; true");
        assert_eq!(rig.sh(id, &ping).await, "");
    }
    // a restart of the machine, a wrong password, and a relay that is away
    rig.engine.kill(id).await.unwrap();
    rig.engine.start(id).await.unwrap();
    rig.ready(id).await;
    assert_eq!(seen_as(&rig, id, &far, far::WHO).await, itself);
    rig.engine
        .enforce(only(id, through(By::Socks5, &far, "wrong")))
        .await
        .unwrap();
    assert_eq!(seen_as(&rig, id, &far, far::WHO).await, "");
    // what a proxy of the host's would be
    let mut inward = through(By::Socks5, &far, far::PASSWORD);
    if let Egress::Proxied(upstream) = &mut inward {
        upstream.host = far.near.to_string();
    }
    let trap = std::net::TcpListener::bind((far.near, far::SOCKS)).unwrap();
    trap.set_nonblocking(true).unwrap();
    rig.engine.enforce(only(id, inward)).await.unwrap();
    assert_eq!(seen_as(&rig, id, &far, far::WHO).await, "");
    assert!(trap.accept().is_err(), "the host is no proxy");

    rig.engine
        .enforce(only(id, through(By::Socks5, &far, far::PASSWORD)))
        .await
        .unwrap();
    assert_eq!(seen_as(&rig, id, &far, far::WHO).await, itself);
    relaying.abort();
    relaying.await.ok();
    assert_eq!(seen_as(&rig, id, &far, far::WHO).await, "nobody");
    assert_eq!(datagrams(&rig, id, &far).await, 0);
    let relaying = serve();
    let begun = Instant::now();
    while seen_as(&rig, id, &far, far::WHO).await != itself {
        assert!(begun.elapsed() < READY, "it is told again");
    }

    rig.engine.enforce(BTreeMap::new()).await.unwrap();
    assert_eq!(
        seen_as(&rig, id, &far, far::WHO).await,
        far.near.to_string()
    );
    assert!(datagrams(&rig, id, &far).await > 0);
    // nobody else uses the relay
    let address = rig.engine.network().gateway;
    let ask = format!(
        "timeout 2 bash -c 'exec 3<>/dev/tcp/{address}/{RELAY}' 2>/dev/null && echo open || echo shut"
    );
    assert_eq!(rig.sh(id, &ask).await, "shut");
    relaying.abort();
    rig.engine.delete(id).await.unwrap();
    rig.is_gone(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_rule_that_fits_decides() {
    let (rig, far) = (Rig::start().await, Far::start());
    let machine = machine();
    let id = machine.id;
    let address = rig.turn_on(&machine).await.address.unwrap();
    let tcp = |action, port: u16, peers: Vec<ipnet::Ipv4Net>| Filter {
        action,
        kind: Kind::Tcp {
            from: vec![],
            to: vec![port..=port],
        },
        peers,
    };
    let enforce = async |filters: Filters| {
        let egress = Egress::Direct;
        let policies = BTreeMap::from([(id, Policy { egress, filters })]);
        rig.engine.enforce(policies).await.unwrap();
    };
    let (net, near) = (far.address.into(), far.near.to_string());
    enforce(Filters {
        egress: vec![
            tcp(Action::Allow, far::WHO, vec![net]),
            tcp(Action::Drop, far::WHO, vec![]),
            tcp(Action::Drop, far::TICKS, vec![net]),
        ],
        ingress: vec![],
    })
    .await;
    assert_eq!(seen_as(&rig, id, &far, far::WHO).await, near);
    assert_eq!(seen_as(&rig, id, &far, far::TICKS).await, "nobody");
    assert!(datagrams(&rig, id, &far).await > 0);
    enforce(Filters {
        egress: vec![
            tcp(Action::Drop, far::WHO, vec![]),
            tcp(Action::Allow, far::WHO, vec![net]),
            tcp(Action::Reject, far::TICKS, vec![net]),
        ],
        ingress: vec![],
    })
    .await;
    assert_eq!(seen_as(&rig, id, &far, far::WHO).await, "nobody");
    let ask = format!(
        "timeout 5 bash -c 'exec 3<>/dev/tcp/{}/{}' 2>&1; true",
        far.address,
        far::TICKS
    );
    let said = rig.sh(id, &ask).await;
    assert!(said.contains("refused"), "{said}");

    let serve = "systemd-run -q python3 -c 'import socket
s = socket.create_server((\"\", 8000))
while True: s.accept()[0].close()'; until grep -q 1F40 /proc/net/tcp; do sleep 0.05; done";
    rig.sh(id, serve).await;
    let reached = || {
        let patience = Duration::from_secs(1);
        std::net::TcpStream::connect_timeout(&(address, 8000).into(), patience).is_ok()
    };
    assert!(reached());
    let from = rig.engine.network().gateway.into();
    enforce(Filters {
        ingress: vec![tcp(Action::Drop, 8000, vec![from])],
        egress: vec![],
    })
    .await;
    assert!(!reached());
    assert_eq!(
        seen_as(&rig, id, &far, far::WHO).await,
        near,
        "answers come in"
    );
    // blocked on its way out, it still answers
    rig.engine.enforce(only(id, Egress::Blocked)).await.unwrap();
    assert!(reached());
    rig.engine.delete(id).await.unwrap();
    rig.is_gone(id).await;
}

/// A machine as a pool makes it.
fn nobodys(kit: bool) -> Machine {
    Machine {
        project: Id([0; 12]),
        hostname: "computer".to_owned(),
        environment: Vec::new(),
        ssh_public_key: None,
        autostart: false,
        kit,
        ..machine()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_were_kept_ready_become_those_of_two() {
    let rig = Rig::start().await.with_kit(STAND_IN_TO_BE);
    let engine = &rig.engine;
    let edition = engine.edition("debian-13").await.unwrap();
    assert!(matches!(
        engine.edition("windows-11").await,
        Err(RuntimeError::NoImage(_))
    ));
    let mut before = Vec::new();
    for _ in 0..2 {
        let ready = nobodys(true);
        let (seen, who) = rig.keep_ready(&ready).await;
        assert_eq!(seen.power, Power::Frozen);
        assert!(engine.usage(ready.id).await.unwrap().memory > 1 << 20);
        before.push((ready, seen, who));
    }
    // The disks are those of no other, and nothing on them is the same that must not be.
    for line in 0.. {
        let [one, other] = [&before[0].2, &before[1].2].map(|who| who.lines().nth(line));
        let (Some(one), Some(other)) = (one, other) else {
            assert!(line >= 7, "too little was compared: {}", before[0].2);
            break;
        };
        assert_ne!(one, other, "line {line}");
    }
    let mut owned = Vec::new();
    for (number, (ready, seen, who)) in before.iter().enumerate() {
        let claimed = Machine {
            id: ready.id,
            hostname: format!("web-{number}"),
            environment: vec![("GREETING".to_owned(), format!("hello {number}"))],
            ssh_public_key: Some(format!("ssh-ed25519 AAAA{number} me@here")),
            ..machine()
        };
        let begun = Instant::now();
        let now = engine.claim(&claimed, seen).await.unwrap();
        println!("claimed in {:?}", begun.elapsed());
        assert_eq!((now.power, now.ready), (Power::On, true));
        assert_eq!((now.address, now.owners), (seen.address, seen.owners));
        let begun = Instant::now();
        if number == 0 {
            // The first control was killed before the engine knew: asked again, the same again.
            engine.claim(&claimed, &now).await.unwrap();
        }
        engine.adopt(&claimed, true).await.unwrap();
        println!("adopted in {:?}", begun.elapsed());
        engine.adopt(&claimed, true).await.unwrap();
        let seen = rig.see(ready.id).await;
        assert_eq!((seen.power, seen.ready), (Power::On, true));
        let id = ready.id;
        assert_eq!(
            rig.sh(
                id,
                "hostname; cat /etc/hostname; su - user -c 'echo $GREETING'"
            )
            .await,
            format!("web-{number}\nweb-{number}\nhello {number}")
        );
        let keys = "cat /root/.ssh/authorized_keys /home/user/.ssh/authorized_keys; stat -c '%U %a' /home/user/.ssh";
        assert_eq!(
            rig.sh(id, keys).await,
            format!("ssh-ed25519 AAAA{number} me@here\nssh-ed25519 AAAA{number} me@here\nuser 700")
        );
        // It is who it was born as, which nobody else ever was; of the pool it says nothing.
        assert_eq!(&rig.who_is(id).await, who);
        let left =
            "grep -rsl computer /etc/hostname /etc/hosts /etc/environment /hoody /ramdisk || true";
        assert_eq!(rig.sh(id, left).await, "");
        assert_eq!(
            rig.sh(id, "ls /hoody/run; ls -A /ramdisk").await,
            "kit.sock"
        );
        assert_eq!(rig.sh(id, "getent hosts $(hostname) | wc -l").await, "1");
        owned.push(claimed);
    }
    // The engine knows all of it: an update that changes nothing writes nothing.
    let id = owned[0].id;
    rig.sh(id, "echo mine >> /etc/environment").await;
    engine.update(&owned[0]).await.unwrap();
    assert!(rig.sh(id, "cat /etc/environment").await.contains("mine"));
    // A start of its own leaves it who it is.
    engine.stop(id, GRACE).await.unwrap();
    engine.start(id).await.unwrap();
    rig.ready(id).await;
    assert_eq!(rig.sh(id, "hostname").await, "web-0");
    assert_eq!(rig.who_is(id).await, before[0].2);
    // Another kit is another edition.
    let kitd = rig.directory.path().join("kit/bin/kitd");
    std::fs::write(&kitd, STAND_IN).unwrap();
    assert_ne!(engine.edition("debian-13").await.unwrap(), edition);
    for machine in &owned {
        engine.delete(machine.id).await.unwrap();
        rig.is_gone(machine.id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_cannot_be_ends_in_words() {
    let rig = Rig::start().await.with_kit(STAND_IN_TO_BE);
    let engine = &rig.engine;
    let ready = nobodys(true);
    let id = ready.id;
    engine.create(&ready).await.unwrap();
    engine.start(id).await.unwrap();
    let on = rig.ready(id).await;
    rig.sh(id, "touch /etc/refuse").await;
    let claimed = Machine { id, ..machine() };
    let refused = engine.claim(&claimed, &on).await;
    let Err(RuntimeError::Permanent { reason, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(reason.contains("I wont"), "{reason}");
    rig.sh(id, "systemctl stop hoody-kit; rm -f /hoody/run/kit.sock")
        .await;
    assert!(matches!(
        engine.claim(&claimed, &on).await,
        Err(RuntimeError::Permanent { .. })
    ));
    engine.delete(id).await.unwrap();
    rig.is_gone(id).await;
}

/// Without a kit the engine does all of it; with `/dev/kvm` a part.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_a_kit_is_claimed_too() {
    let rig = Rig::start().await;
    let engine = &rig.engine;
    let ready = nobodys(false);
    let id = ready.id;
    let (seen, who) = rig.keep_ready(&ready).await;
    assert_eq!(seen.power, Power::Frozen);
    let claimed = Machine {
        id,
        kit: false,
        kvm: engine.has_kvm(),
        ..machine()
    };
    engine.claim(&claimed, &seen).await.unwrap();
    let kvm = if claimed.kvm { "kvm" } else { "" };
    assert_eq!(
        rig.sh(
            id,
            "hostname; su - user -c 'echo $GREETING'; ls /dev | grep '^kvm$' || true"
        )
        .await,
        format!("web\nhello \"you\"\n{kvm}").trim()
    );
    engine.adopt(&claimed, true).await.unwrap();
    assert_eq!(rig.who_is(id).await, who);
    engine.delete(id).await.unwrap();
    rig.is_gone(id).await;
}

/// What root in a machine does to write to what it was given to read; prints what worked.
const ATTACK: &str = r#"
at=$1; tried=/root/attack; mkdir -p $tried
won() { touch "$1/written" 2>/dev/null && echo "$2"; rm -f "$1/written" 2>/dev/null; }
won $at plainly
mount -o remount,bind,rw $at 2>/dev/null && echo remounted; won $at remount
mount -o remount,rw $at 2>/dev/null && echo remounted-whole; won $at remount-whole
mount --bind $at $tried && { mount -o remount,bind,rw $tried 2>/dev/null && echo bind-remounted; won $tried bind; umount $tried; }
mount --rbind $at $tried && { mount -o remount,bind,rw $tried 2>/dev/null && echo rbind-remounted; won $tried rbind; umount -l $tried; }
mount --make-private $at; mount -o remount,bind,rw $at 2>/dev/null && echo private-remounted; won $at private
mount --make-shared $at
mount --move $at $tried 2>/dev/null && { mount -o remount,bind,rw $tried 2>/dev/null && echo moved; won $tried move; mount --move $tried $at; }
unshare --mount bash -c "mount -o remount,bind,rw $at; touch $at/written" 2>/dev/null && echo namespace
unshare --user --map-root-user --mount bash -c "mount -o remount,bind,rw $at; touch $at/written" 2>/dev/null && echo user-namespace
unshare --user --map-root-user --mount bash -c "mount --bind $at $tried; mount -o remount,bind,rw $tried; touch $tried/written" 2>/dev/null && echo user-namespace-bind
mkdir -p /root/upper /root/work
mount -t overlay overlay -o lowerdir=$at,upperdir=/root/upper,workdir=/root/work $tried 2>/dev/null && { rm -f $tried/file; umount $tried; test -e $at/file || echo overlay; }
python3 - $at <<'PYTHON'
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
at = sys.argv[1].encode()
class Attributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]
# the mount itself, and a copy of it that is nowhere
clear = Attributes(0, 1, 0, 0)
if libc.syscall(442, -100, at, 0, ctypes.byref(clear), 32) == 0:
    print("mount_setattr")
tree = libc.syscall(428, -100, at, 1)
if tree >= 0 and libc.syscall(442, tree, b"", 0x1000, ctypes.byref(clear), 32) == 0:
    print("open_tree")
try:
    os.close(os.open(os.path.join(sys.argv[1], "file"), os.O_RDWR))
    print("opened for writing")
except OSError:
    pass
try:
    os.open("/proc/self/fd/%d/written" % os.open(sys.argv[1], os.O_RDONLY), os.O_CREAT | os.O_WRONLY)
    print("by descriptor")
except OSError:
    pass
PYTHON
chmod 777 $at/file 2>/dev/null && echo chmod; chown 5 $at/file 2>/dev/null && echo chown
rm -f $at/file 2>/dev/null; test -e $at/file || echo removed
cat $at/file
"#;

/// One share, by its name.
fn seen(target: &Machine, shares: &[(&str, &Machine, &str, bool)]) -> Shares {
    let seen = shares.iter().map(|(name, source, path, writable)| {
        let share = Share {
            id: Id(rand::random()),
            source: source.id,
            path: (*path).to_owned(),
            writable: *writable,
        };
        ((*name).to_owned(), share)
    });
    Shares::from([(target.id, seen.collect())])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shared_for_reading_withstands_root() {
    let rig = Rig::start().await;
    let (source, target) = (machine(), machine());
    rig.turn_on(&source).await;
    rig.turn_on(&target).await;
    let root = rig.directory.path().join("attack.sh");
    std::fs::write(&root, ATTACK).unwrap();
    rig.sh(source.id, "mkdir /srv/data; echo kept > /srv/data/file")
        .await;
    let shares = seen(
        &target,
        &[
            ("data", &source, "/srv/data", false),
            ("open", &source, "/srv/data", true),
        ],
    );
    let share = async |engine: &Incus| {
        let unshared = engine.share(shares.clone()).await.unwrap();
        assert_eq!(unshared, []);
    };
    let attack = async |when: &str| {
        let ran = rig
            .engine
            .exec(
                target.id,
                &["bash", "-c", ATTACK, "attack", "/hoody/shares/data"],
            )
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert_eq!(said.trim(), "kept", "{when}: {said}");
    };
    // It can be written where it is meant to be, so that the attack would show.
    let is_open = async || {
        rig.sh(
            target.id,
            "echo more > /hoody/shares/open/w; cat /hoody/shares/data/w; rm /hoody/shares/open/w",
        )
        .await
    };
    share(&rig.engine).await;
    assert_eq!(is_open().await, "more");
    attack("while it runs").await;
    // The attack is one: what may be written falls to it.
    let open = ["bash", "-c", ATTACK, "attack", "/hoody/shares/open"];
    let ran = rig.engine.exec(target.id, &open).await.unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    for way in [
        "plainly",
        "bind",
        "user-namespace",
        "opened for writing",
        "removed",
    ] {
        assert!(said.contains(way), "{way}: {said}");
    }
    rig.sh(source.id, "rm -f /srv/data/*; echo kept > /srv/data/file")
        .await;
    share(&rig.engine).await; // again changes nothing
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let below = format!("shares/{}/", target.id);
    assert_eq!(mounts.matches(&below).count(), 2, "{mounts}");

    rig.engine.stop(target.id, GRACE).await.unwrap();
    rig.engine.start(target.id).await.unwrap();
    rig.ready(target.id).await;
    assert_eq!(is_open().await, "more");
    attack("after its restart").await;

    rig.engine.kill(source.id).await.unwrap();
    attack("while the source is off").await;
    rig.engine.start(source.id).await.unwrap();
    rig.ready(source.id).await;
    share(&rig.engine).await;
    attack("after a restart of the source").await;

    let engine = rig.again().await;
    share(&engine).await;
    attack("after a restart of control").await;

    // What a boot of the host leaves: nothing is mounted, nothing runs.
    for id in [source.id, target.id] {
        engine.kill(id).await.unwrap();
    }
    let shares_at = rig.directory.path().join("shares");
    let taken = Command::new("umount").arg("-l").arg(&shares_at).status();
    assert!(taken.unwrap().success());
    let engine = rig.again().await;
    share(&engine).await;
    for id in [source.id, target.id] {
        engine.start(id).await.unwrap();
        rig.ready(id).await;
    }
    assert_eq!(is_open().await, "more");
    attack("after a boot of the host").await;

    // Withdrawn, it is gone at once, from a machine that runs and from its next start.
    assert_eq!(engine.share(Shares::new()).await.unwrap(), []);
    assert_eq!(rig.sh(target.id, "ls /hoody/shares").await, "");
    for id in [target.id, source.id] {
        engine.delete(id).await.unwrap();
        rig.is_gone(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_to_a_share_is_owned_alike_and_counts_as_its_sources() {
    let rig = Rig::start().await;
    let (mut source, mut target) = (machine(), machine());
    for one in [&mut source, &mut target] {
        one.limits.disk = Some(4 << 30);
    }
    rig.turn_on(&source).await;
    rig.turn_on(&target).await;
    rig.sh(
        source.id,
        "install -d -o user -g user '/srv/with blank'; cd /srv/with*; echo hi > file; chown user:user file; \
         cp /usr/bin/id .; chmod 4755 id",
    )
    .await;
    let shares = seen(&target, &[("data", &source, "/srv/with blank", true)]);
    assert_eq!(rig.engine.share(shares.clone()).await.unwrap(), []);
    let wrote = "cd /hoody/shares/data; su user -c 'cat file; echo more > mine; mkdir ours'; \
                 touch roots given; chown user given; su user -c './id -u'";
    // what is set to run as root does not
    assert_eq!(rig.sh(target.id, wrote).await, "hi\n1000");
    let owners = "cd /srv/with*; stat -c '%n %u:%g' mine ours roots given; cat mine";
    assert_eq!(
        rig.sh(source.id, owners).await,
        "mine 1000:1000\nours 1000:1000\nroots 0:0\ngiven 1000:0\nmore"
    );
    let nobody = "cd /hoody/shares/data; su user -c 'echo x >> roots' 2>&1 | grep -o denied";
    assert_eq!(rig.sh(target.id, nobody).await, "denied");
    assert_eq!(
        rig.engine.share(shares.clone()).await.unwrap(),
        [],
        "it is as it should be"
    );

    const MUCH: u64 = 64 << 20;
    let used = async |of: &Machine| rig.engine.usage(of.id).await.unwrap().disk.unwrap();
    let before = (used(&source).await, used(&target).await);
    let write = format!("head -c {MUCH} /dev/urandom > /hoody/shares/data/much; sync");
    rig.sh(target.id, &write).await;
    let begun = Instant::now();
    // Trees of the file system shrink meanwhile: most of it has to be counted.
    while used(&source).await < before.0 + MUCH / 2 {
        assert!(begun.elapsed() < READY, "nobody counts what was written");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(used(&target).await < before.1 + MUCH / 2);

    // the disk is there while the machine is off
    rig.engine.kill(source.id).await.unwrap();
    assert_eq!(
        rig.sh(target.id, "cat /hoody/shares/data/mine").await,
        "more"
    );
    for id in [target.id, source.id] {
        rig.engine.delete(id).await.unwrap();
        rig.is_gone(id).await;
    }
}

/// Puts a link in the place of a directory and back, as fast as it can, for a while.
const SWAP: &str = r"python3 - <<'PYTHON'
import os, time
os.chdir('/srv')
until = time.time() + 8
while time.time() < until:
    os.rename('swapped', 'aside'); os.rename('link', 'swapped')
    os.rename('swapped', 'link'); os.rename('aside', 'swapped')
PYTHON";

#[tokio::test(flavor = "multi_thread")]
async fn a_share_does_not_lead_out_of_itself() {
    let rig = Rig::start().await;
    let (source, target) = (machine(), machine());
    rig.turn_on(&source).await;
    rig.turn_on(&target).await;
    rig.sh(
        source.id,
        "cd /srv; mkdir -p real/in swapped; ln -s / link; ln -s real way; echo secret > secret; \
         ln -s /etc/hostname real/name; ln -s ../../../../../../../../srv/secret real/up; \
         echo source > /etc/hostname",
    )
    .await;
    let look = async |path: &str| rig.engine.directory(source.id, path).await;
    let of = |why: fn(String) -> NoDirectory, path: &str| Err(why(path.to_owned()));
    assert_eq!(look("/srv/real/in").await, Ok(()));
    assert_eq!(look("/").await, Ok(()));
    for (path, why) in [
        ("/srv/link", of(NoDirectory::Link, "/srv/link")),
        ("/srv/link/etc", of(NoDirectory::Link, "/srv/link/etc")),
        ("/srv/way/in", of(NoDirectory::Link, "/srv/way/in")),
        ("/srv/secret", of(NoDirectory::NotOne, "/srv/secret")),
        ("/srv/secret/x", of(NoDirectory::NotOne, "/srv/secret/x")),
        ("/srv/none", of(NoDirectory::Missing, "/srv/none")),
        // what its kernel shows there is not on its disk
        ("/proc/1", of(NoDirectory::Missing, "/proc/1")),
    ] {
        assert_eq!(look(path).await, why, "{path}");
    }
    // the API takes no `..`; here it does not lead above the disk
    assert!(look("/srv/../../..").await.is_err());
    let nobody = machine();
    assert_eq!(
        rig.engine.directory(nobody.id, "/srv").await,
        Err(NoDirectory::NotMade(nobody.id))
    );

    // links in it lead to what is there in who looks
    let shares = seen(&target, &[("real", &source, "/srv/real", true)]);
    assert_eq!(rig.engine.share(shares).await.unwrap(), []);
    let links = "cd /hoody/shares/real; cat name; cat up 2>&1 | grep -o 'No such file'; cd ..; ls";
    assert_eq!(rig.sh(target.id, links).await, "web\nNo such file\nreal");
    // a directory that is moved out under who is in it shows nothing of where it is
    let waits = "cd /hoody/shares/real/in; touch ready; until [ -e moved ]; do sleep 0.05; done; \
                 ls .. 2>&1; ls ../.. 2>&1; cat ../secret 2>&1; true";
    let moves =
        "cd /srv; until [ -e real/in/ready ]; do sleep 0.05; done; mv real/in out; touch out/moved";
    let (saw, _) = tokio::join!(rig.sh(target.id, waits), rig.sh(source.id, moves));
    assert!(
        !saw.contains("secret\n") && !saw.ends_with("secret") && !saw.contains("swapped"),
        "{saw}"
    );

    // a link in its place between the look and the mount
    let swapping = rig.sh(source.id, SWAP);
    let sharing = async {
        let begun = Instant::now();
        let (mut seen_it, mut links) = (0, 0);
        let host = format!("_c-{}/rootfs/srv/", source.id);
        while begun.elapsed() < Duration::from_secs(7) {
            let shares = seen(&target, &[("swapped", &source, "/srv/swapped", true)]);
            let unshared = rig.engine.share(shares).await.unwrap();
            match unshared.first().map(|unshared| &unshared.why) {
                None => seen_it += 1,
                Some(NoDirectory::Link(_)) => links += 1,
                // swapped once more before it was known what it is
                Some(NoDirectory::Missing(_) | NoDirectory::NotOne(_)) => {}
                Some(other) => panic!("{other}"),
            }
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            for line in mounts.lines() {
                if line.contains(&format!("/{}/swapped", target.id)) {
                    let from = line.split(' ').nth(3).unwrap();
                    assert!(from.contains(&host), "{line}");
                }
            }
            rig.engine.share(Shares::new()).await.unwrap();
        }
        (seen_it, links)
    };
    let (_, (seen_it, links)) = tokio::join!(swapping, sharing);
    println!("seen {seen_it} times, a link {links} times");
    assert!(seen_it > 0 && links > 0, "nothing was swapped");
    for id in [target.id, source.id] {
        rig.engine.delete(id).await.unwrap();
        rig.is_gone(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_follows_its_source_and_goes_with_it() {
    let rig = Rig::start().await;
    let (source, target) = (machine(), machine());
    rig.turn_on(&source).await;
    rig.turn_on(&target).await;
    rig.sh(source.id, "mkdir /srv/data; echo first > /srv/data/file")
        .await;
    let shares = seen(&target, &[("data", &source, "/srv/data", false)]);
    let share = async || rig.engine.share(shares.clone()).await.unwrap();
    let file = async || rig.sh(target.id, "cat /hoody/shares/data/file").await;
    assert_eq!(share().await, []);
    assert_eq!(file().await, "first");

    // another directory in its place
    rig.sh(
        source.id,
        "mv /srv/data /srv/old; mkdir /srv/data; echo second > /srv/data/file",
    )
    .await;
    assert_eq!(share().await, []);
    assert_eq!(file().await, "second");

    // another disk
    rig.engine.snapshot(source.id, "snap").await.unwrap();
    rig.sh(source.id, "echo third > /srv/data/file").await;
    assert_eq!(file().await, "third");
    rig.engine.kill(source.id).await.unwrap();
    rig.engine.restore(source.id, "snap").await.unwrap();
    assert_eq!(share().await, []);
    assert_eq!(file().await, "second");
    rig.engine.start(source.id).await.unwrap();
    rig.ready(source.id).await;
    rig.sh(source.id, "echo fourth > /srv/data/file").await;
    assert_eq!(file().await, "fourth");

    // other users' ids of who looks
    rig.engine.snapshot(target.id, "snap").await.unwrap();
    rig.engine.kill(target.id).await.unwrap();
    rig.engine.restore(target.id, "snap").await.unwrap();
    // and no device, as of a machine that was made before there were shares
    let name = std::env::var("HOODY_ENGINE").unwrap();
    let of = format!("c-{}", target.id);
    let removed = Command::new("incus")
        .args([
            "--project",
            &name,
            "config",
            "device",
            "remove",
            &of,
            "shares",
        ])
        .output()
        .unwrap();
    assert!(removed.status.success(), "{removed:?}");
    rig.engine.start(target.id).await.unwrap();
    rig.ready(target.id).await;
    assert_eq!(share().await, []);
    let owner = "cat /hoody/shares/data/file; stat -c %U /hoody/shares/data/file";
    assert_eq!(rig.sh(target.id, owner).await, "fourth\nroot");

    // a copy is offered nothing
    let copy = machine();
    let from = Source {
        id: target.id,
        snapshot: None,
    };
    rig.engine.copy(&copy, &from).await.unwrap();
    rig.engine.start(copy.id).await.unwrap();
    rig.ready(copy.id).await;
    assert_eq!(rig.sh(copy.id, "ls /hoody/shares").await, "");
    assert_eq!(file().await, "fourth");
    rig.engine.delete(copy.id).await.unwrap();
    rig.is_gone(copy.id).await;

    // a link in its place is not followed, and the directory is not seen any more
    rig.sh(source.id, "rm -r /srv/data; ln -s / /srv/data")
        .await;
    let unshared = share().await;
    assert_eq!(
        unshared[0].why,
        NoDirectory::Link("/srv/data".to_owned()),
        "{unshared:?}"
    );
    assert_eq!(rig.sh(target.id, "ls /hoody/shares").await, "");
    rig.sh(source.id, "rm /srv/data; mv /srv/old /srv/data")
        .await;
    assert_eq!(share().await, []);
    assert_eq!(file().await, "first");

    rig.engine.delete(source.id).await.unwrap();
    rig.is_gone(source.id).await;
    assert_eq!(rig.sh(target.id, "ls /hoody/shares").await, "");
    assert_eq!(share().await[0].why, NoDirectory::NotMade(source.id));
    rig.engine.delete(target.id).await.unwrap();
    rig.is_gone(target.id).await;
}
