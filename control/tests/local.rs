//! Machines that are processes of this host.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::runtime::local::{Local, LocalError, Settings};
use control::runtime::{Limits, Machine, Observed, Power, Runtime, RuntimeError, Source};
use routes::Id;
use tempfile::TempDir;

const GRACE: Duration = Duration::from_secs(5);

/// A kit that listens, starts a child in a session of its own, and writes down its environment.
const KIT: &str = r#"#!/usr/bin/perl
use strict; use warnings;
use IO::Socket::UNIX;
my %args = (@ARGV[0..3]);
open(my $out, '>', "$args{'--home'}/environment") or die "write: $!";
print $out "$_=$ENV{$_}\n" for sort keys %ENV;
close $out;
# Whoever sees the socket may look for the rest.
my $listener = IO::Socket::UNIX->new(Local => $args{'--socket'}, Listen => 5) or die "listen: $!";
if (fork() == 0) { exec('setsid', 'sleep', '1000'); }
$SIG{TERM} = sub { exit 0 } unless $ENV{STUBBORN};
$SIG{TERM} = 'IGNORE' if $ENV{STUBBORN};
while (1) { my $one = $listener->accept(); close $one if $one; }
"#;

struct Host {
    directory: TempDir,
    kitd: PathBuf,
    /// Whether to use bubblewrap where there is one.
    wrapped: bool,
    /// Unlike that of any other test: the mark of processes is for the whole host.
    id: Id,
}

impl Host {
    fn new(wrapped: bool) -> Host {
        let directory = tempfile::tempdir().unwrap();
        let kitd = directory.path().join("kitd");
        std::fs::write(&kitd, KIT).unwrap();
        std::fs::set_permissions(&kitd, std::fs::Permissions::from_mode(0o755)).unwrap();
        Host {
            directory,
            kitd,
            wrapped,
            id: control::words::id(),
        }
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::new(self.directory.path().join("containers"), &self.kitd);
        settings.hidden = vec![self.directory.path().to_owned()];
        settings.bubblewrap = settings.bubblewrap.filter(|_| self.wrapped);
        settings
    }

    async fn open(&self) -> Local {
        Local::open(self.settings()).await.unwrap()
    }

    fn machine(&self) -> PathBuf {
        self.directory
            .path()
            .join("containers")
            .join(self.id.to_string())
    }
}

fn machine(id: Id, environment: &[(&str, &str)]) -> Machine {
    Machine {
        id,
        project: Id([1; 12]),
        hostname: "web".to_owned(),
        image: None,
        environment: environment
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ssh_public_key: None,
        kit: true,
        autostart: true,
        ramdisk: false,
        kvm: false,
        limits: Limits::default(),
    }
}

async fn seen(local: &Local, id: Id) -> Observed {
    local
        .observe_one(id)
        .await
        .unwrap()
        .expect("there is something")
}

async fn ready(local: &Local, id: Id) {
    for _ in 0..500 {
        if seen(local, id).await.ready {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the kit never listened");
}

/// Processes that carry the container's mark.
fn processes(root: &Path, id: Id) -> usize {
    let mark = format!("HOODY_CONTAINER={id}");
    let root = root.to_str().unwrap();
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|file| std::fs::read(file.path().join("environ")).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .filter(|text| text.split('\0').any(|entry| entry == mark) && text.contains(root))
        .count()
}

#[tokio::test]
async fn a_plain_process_lives() {
    life(Host::new(false)).await;
}

#[tokio::test]
async fn a_wrapped_process_lives_and_does_not_see_the_state_of_the_node() {
    let host = Host::new(true);
    let id = host.id;
    std::fs::write(host.directory.path().join("secret"), "secret").unwrap();
    let local = host.open().await;
    local.create(&machine(id, &[])).await.unwrap();
    let secret = host.directory.path().join("secret");
    let argv = [
        "sh",
        "-c",
        "cat \"$0\"; touch /usr/mine 2>/dev/null; echo mine > made; cat made",
        secret.to_str().unwrap(),
    ];
    let ran = local.exec(id, &argv).await.unwrap();
    if local.wrapped() {
        assert_eq!(ran.stdout, b"mine\n", "{ran:?}");
        assert!(!Path::new("/usr/mine").exists());
        let ran = local
            .exec(id, &["sh", "-c", "ls /proc | grep -c '^[0-9]'; hostname"])
            .await
            .unwrap();
        let text = String::from_utf8(ran.stdout).unwrap();
        let (processes, name) = text.trim().split_once('\n').unwrap();
        assert!(
            processes.parse::<u32>().unwrap() < 10,
            "it sees its own processes alone: {processes}"
        );
        assert_eq!(name, "web");
    } else {
        std::fs::remove_file("/usr/mine").ok();
    }
    local.delete(id).await.unwrap();
    life(host).await;
}

async fn life(host: Host) {
    let id = host.id;
    let local = host.open().await;
    let mut changes = local.changes();
    assert!(local.observe_one(id).await.unwrap().is_none());
    assert!(matches!(
        local.start(id).await,
        Err(RuntimeError::NoMachine(_))
    ));
    local
        .create(&machine(id, &[("GREETING", "hello")]))
        .await
        .unwrap();
    local
        .create(&machine(id, &[("GREETING", "hello")]))
        .await
        .unwrap(); // again: the same
    assert_eq!(seen(&local, id).await.power, Power::Off);
    local.start(id).await.unwrap();
    ready(&local, id).await;
    let first = seen(&local, id).await;
    assert_eq!(first.power, Power::On);
    assert!(control::ready::answers(&first.directory, first.owners));
    local.start(id).await.unwrap(); // again: it runs on
    assert_eq!(seen(&local, id).await.incarnation, first.incarnation);
    let environment = std::fs::read_to_string(host.machine().join("home/environment")).unwrap();
    assert!(
        environment.contains("GREETING=hello\n")
            && environment.contains(&format!("HOODY_CONTAINER={id}"))
    );
    let names: Vec<&str> = environment
        .lines()
        .filter_map(|line| line.split('=').next())
        .collect();
    assert!(
        !names.iter().any(|name| name.starts_with("CARGO")),
        "nothing of ours leaks in: {names:?}"
    );

    // The process that answers may be there before the one beside it.
    let mut usage = local.usage(id).await.unwrap();
    for _ in 0..500 {
        if usage.processes >= 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        usage = local.usage(id).await.unwrap();
    }
    assert!(usage.processes >= 2 && usage.memory > 0, "{usage:?}");
    let ran = local
        .exec(id, &["sh", "-c", "echo out; echo err >&2; pwd; exit 3"])
        .await
        .unwrap();
    assert_eq!((ran.code, ran.stderr.as_slice()), (3, b"err\n".as_slice()));
    assert!(String::from_utf8(ran.stdout).unwrap().ends_with("/home\n"));

    local.freeze(id).await.unwrap();
    assert_eq!(seen(&local, id).await.power, Power::Frozen);
    local.thaw(id).await.unwrap();
    assert_eq!(seen(&local, id).await.power, Power::On);

    local.stop(id, GRACE).await.unwrap();
    assert_eq!(seen(&local, id).await.power, Power::Off);
    assert_eq!(
        processes(host.directory.path(), id),
        0,
        "the child in its own session ended, too"
    );
    assert_eq!(changes.recv().await.unwrap(), id);
    assert!(!seen(&local, id).await.ready);

    local.start(id).await.unwrap();
    assert!(seen(&local, id).await.incarnation > first.incarnation);
    local.delete(id).await.unwrap();
    local.delete(id).await.unwrap();
    assert!(local.observe_one(id).await.unwrap().is_none());
    assert!(local.observe().await.unwrap().is_empty());
    assert_eq!(processes(host.directory.path(), id), 0);
}

#[tokio::test]
async fn a_machine_outlives_control() {
    let host = Host::new(true);
    let id = host.id;
    let local = host.open().await;
    local.create(&machine(id, &[])).await.unwrap();
    local.start(id).await.unwrap();
    ready(&local, id).await;
    let before = seen(&local, id).await;
    drop(local);
    let local = host.open().await;
    let mut changes = local.changes();
    assert_eq!(seen(&local, id).await, before, "it is the same machine");
    // One whose file was lost is not started twice.
    std::fs::remove_file(host.machine().join("process.json")).unwrap();
    assert_eq!(seen(&local, id).await.power, Power::Off);
    local.start(id).await.unwrap();
    ready(&local, id).await;
    assert!(
        processes(host.directory.path(), id) <= 4,
        "the old one was removed first"
    );
    // A process that merely has the same number is not ours.
    let file = host.machine().join("process.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let other = text.replace("\"started\":", "\"started\":1");
    std::fs::write(&file, other).unwrap();
    assert_eq!(seen(&local, id).await.power, Power::Off);
    std::fs::write(&file, text).unwrap();
    assert_eq!(seen(&local, id).await.power, Power::On);
    local.kill(id).await.unwrap();
    assert_eq!(changes.recv().await.unwrap(), id);
    local.delete(id).await.unwrap();
    assert_eq!(processes(host.directory.path(), id), 0);
}

#[tokio::test]
async fn what_does_not_stop_is_killed() {
    let host = Host::new(false);
    let id = host.id;
    let local = host.open().await;
    local
        .create(&machine(id, &[("STUBBORN", "1")]))
        .await
        .unwrap();
    local.start(id).await.unwrap();
    ready(&local, id).await;
    local.freeze(id).await.unwrap();
    local.stop(id, Duration::from_millis(300)).await.unwrap();
    assert_eq!(seen(&local, id).await.power, Power::Off);
    assert_eq!(processes(host.directory.path(), id), 0);
    local.delete(id).await.unwrap();
}

#[tokio::test]
async fn half_a_machine_is_remains() {
    let host = Host::new(false);
    let id = host.id;
    let local = host.open().await;
    std::fs::create_dir_all(host.machine().join("home")).unwrap();
    assert_eq!(seen(&local, id).await.power, Power::Remains);
    local.delete(id).await.unwrap();
    assert!(local.observe_one(id).await.unwrap().is_none());
    let image = Machine {
        image: Some("debian-13".to_owned()),
        ..machine(id, &[])
    };
    assert!(matches!(
        local.create(&image).await,
        Err(RuntimeError::NoImage(_))
    ));
    let missing = Settings::new(
        host.directory.path().join("x"),
        host.directory.path().join("nothing"),
    );
    assert!(matches!(
        Local::open(missing).await,
        Err(LocalError::NoKit(_))
    ));
}

#[tokio::test]
async fn homes_are_kept_brought_back_and_copied() {
    let host = Host::new(false);
    let (id, twin) = (host.id, control::words::id());
    let local = host.open().await;
    local.create(&machine(id, &[])).await.unwrap();
    local.start(id).await.unwrap();
    ready(&local, id).await;
    let home = |id: Id| {
        let root = host.directory.path().join("containers");
        root.join(id.to_string()).join("home")
    };
    let page = |id: Id| std::fs::read_to_string(home(id).join("page")).unwrap();
    std::fs::write(home(id).join("page"), "old").unwrap();
    std::os::unix::fs::symlink("page", home(id).join("link")).unwrap();
    let size = local.snapshot(id, "one").await.unwrap();
    assert!(size > Some(0));
    assert_eq!(seen(&local, id).await.power, Power::On, "it runs on");
    std::fs::write(home(id).join("page"), "new").unwrap();
    // again, as after a crash: it is what it was
    local.snapshot(id, "one").await.unwrap();

    let source = |snapshot: Option<&str>| Source {
        id,
        snapshot: snapshot.map(str::to_owned),
    };
    local
        .copy(&machine(twin, &[]), &source(Some("one")))
        .await
        .unwrap();
    local
        .copy(&machine(twin, &[]), &source(None))
        .await
        .unwrap(); // again changes nothing
    assert_eq!((page(twin).as_str(), page(id).as_str()), ("old", "new"));
    assert_eq!(seen(&local, twin).await.power, Power::Off);
    assert!(
        std::fs::symlink_metadata(home(twin).join("link"))
            .unwrap()
            .is_symlink()
    );
    std::fs::write(home(twin).join("own"), "x").unwrap();
    local.sync(&machine(twin, &[]), id).await.unwrap();
    assert_eq!(page(twin), "new");
    assert!(!home(twin).join("own").exists());
    assert_eq!(
        seen(&local, id).await.power,
        Power::On,
        "the source runs on"
    );

    local.kill(id).await.unwrap();
    local.restore(id, "one").await.unwrap();
    // a restore that was cut off between two renames
    std::fs::rename(home(id), home(id).with_file_name("home.old")).unwrap();
    local.restore(id, "one").await.unwrap();
    assert_eq!(page(id), "old");
    local.start(id).await.unwrap();
    ready(&local, id).await;
    local.drop_snapshot(id, "one").await.unwrap();
    local.drop_snapshot(id, "one").await.unwrap();
    let none = local.restore(id, "one").await;
    assert!(
        matches!(none, Err(RuntimeError::NoSnapshot { .. })),
        "{none:?}"
    );
    let none = local
        .copy(&machine(Id([9; 12]), &[]), &source(Some("one")))
        .await;
    assert!(
        matches!(none, Err(RuntimeError::NoSnapshot { .. })),
        "{none:?}"
    );
    assert_eq!(seen(&local, Id([9; 12])).await.power, Power::Remains);
    for id in [id, twin, Id([9; 12])] {
        local.delete(id).await.unwrap();
        assert!(local.observe_one(id).await.unwrap().is_none());
    }
}
