//! `limpet node add user@host`: a machine that runs already, reached over Debian's own sshd, becomes a node.
//!
//! In: a network namespace with a root of its own over this machine's files, sshd in it. systemd cannot run there: a stand-in for
//! systemctl starts what the unit says; the unit itself is judged by systemd-analyze. Out: the machine as a Node; sentences.

use limpet_e2e::process::{Daemon, Output, run, sh, tail};
use limpet_e2e::world::is_ready;
use limpet_e2e::{Binaries, Result, World, net, process, until, wait};
use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// `restart` starts ExecStart with the environment file's variables; everything is noted.
const SYSTEMCTL: &str = r#"#!/bin/sh
set -eu
echo "$*" >> /var/log/systemctl
case $1 in
restart)
    unit=/etc/systemd/system/$2.service
    if [ -e /etc/limpet/agent.env ]; then set -a; . /etc/limpet/agent.env; set +a; fi
    command=$(sed -n 's/^ExecStart=//p' "$unit")
    setsid $command > /var/log/limpet-agent 2>&1 < /dev/null &
    ;;
esac
"#;

struct Machine {
    dir: PathBuf,
    address: String,
    _sshd: Daemon,
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let wrong = |e: std::io::Error| format!("{}: {e}", path.display());
    fs::create_dir_all(path.parent().unwrap_or(path)).map_err(wrong)?;
    fs::write(path, text).map_err(wrong)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(wrong)
}

impl Machine {
    /// What the machine changes goes to `upper`; sshd is its first process.
    fn start(world: &World) -> Result<Machine> {
        let address = net::board(&world.slot, 1)?;
        let dir = world.slot.dir().join("machine");
        let upper = dir.join("upper");
        for folder in ["upper", "work", "root"] {
            fs::create_dir_all(dir.join(folder)).map_err(|e| format!("{}: {e}", dir.display()))?;
        }
        write(&upper.join("usr/bin/systemctl"), SYSTEMCTL, 0o755)?;
        // A user whose sudo wants a password.
        let users = fs::read_to_string("/etc/passwd").map_err(|e| e.to_string())?;
        write(&upper.join("etc/passwd"), &format!("{users}asker:x:4321:4321::/tmp:/bin/sh\n"), 0o644)?;
        write(&upper.join("usr/bin/sudo"), "#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n", 0o755)?;
        let cgroup = format!("{{\"cgroupParent\": \"{}\", \"reconnectSecondsMax\": 2}}", world.slot.cgroup(1));
        write(&upper.join("etc/limpet/agent.json"), &cgroup, 0o600)?;
        for key in ["host", "user"] {
            let file = dir.join(key);
            sh("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", &file.to_string_lossy()])?;
        }
        let key = fs::read_to_string(dir.join("user.pub")).map_err(|e| e.to_string())?;
        // Others log in with it, too.
        write(&upper.join("etc/limpet-test/authorized_keys"), &key, 0o644)?;
        let host_key = fs::read_to_string(dir.join("host")).map_err(|e| e.to_string())?;
        write(&upper.join("etc/limpet-test/host"), &host_key, 0o600)?;
        let config = "HostKey /etc/limpet-test/host\nAuthorizedKeysFile /etc/limpet-test/authorized_keys\nPermitRootLogin yes\n\
            PasswordAuthentication no\nUsePAM no\nStrictModes no\nPidFile none\n";
        write(&upper.join("etc/limpet-test/sshd_config"), config, 0o600)?;
        let script = r#"set -eu
            mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
            for d in proc dev sys; do mount --rbind "/$d" "$1/root/$d"; done
            mount -t tmpfs run "$1/root/run"; mount -t tmpfs lib "$1/root/var/lib/limpet" 2>/dev/null ||
                { mkdir -p "$1/root/var/lib/limpet"; mount -t tmpfs lib "$1/root/var/lib/limpet"; }
            mkdir -p "$1/root/run/sshd" "$1/root/run/systemd/system"
            exec chroot "$1/root" /usr/sbin/sshd -D -e -f /etc/limpet-test/sshd_config"#;
        let place = dir.to_string_lossy().into_owned();
        let net = format!("--net=/run/netns/{}", world.slot.namespace(1));
        let apart = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];
        let words = ["nsenter", &net].into_iter().chain(apart).chain(["sh", "-c", script, "sh", &place]);
        let words: Vec<&OsStr> = words.map(OsStr::new).collect();
        let mark = world.slot.mark();
        let sshd = Daemon::start(&words, &[(mark.0, &mark.1)], &dir.join("sshd.log"))?;
        let host_pub = fs::read_to_string(dir.join("host.pub")).map_err(|e| e.to_string())?;
        write(&dir.join("known_hosts"), &format!("{address} {host_pub}"), 0o600)?;
        write(&dir.join("ssh_config"), &format!(
            "Host asker\n User asker\nHost machine\n User root\nHost asker machine\n HostName {address}\n IdentityFile {place}/user\n IdentitiesOnly yes\n\
             Host * \n UserKnownHostsFile {place}/known_hosts\n StrictHostKeyChecking yes\n BatchMode yes\n"), 0o600)?;
        // `limpet` asks for `ssh`: one that knows this file stands before it on PATH.
        write(&dir.join("bin/ssh"), &format!("#!/bin/sh\nexec /usr/bin/ssh -F {place}/ssh_config \"$@\"\n"), 0o755)?;
        let machine = Machine { dir, address, _sshd: sshd };
        until("sshd", Duration::from_secs(30), || {
            let out = machine.ssh("true")?;
            wait::yes(out.code == 0, || format!("{out:?}\n{}", tail(&machine.dir.join("sshd.log"), 1000)))
        })?;
        Ok(machine)
    }

    fn ssh(&self, command: &str) -> Result<Output> {
        run(Command::new(self.dir.join("bin/ssh")).args(["machine", command]))
    }

    fn add(&self, world: &World, words: &[&str]) -> Result<Output> {
        let path = format!("{}:{}", self.dir.join("bin").display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(&world.binaries.hub);
        command.args(["node", "add"]).arg("--agent").arg(&world.binaries.agent).arg("--data-dir").arg(&world.hub.dir);
        run(command.args(words).env("PATH", path))
    }
}

fn life(world: &mut World) -> Result<()> {
    let machine = Machine::start(world)?;
    let refused = |out: Output, words: &str| wait::yes(out.code != 0 && out.stderr.contains(words), || format!("{out:?}"));
    // Whoever cannot be reached, or is not a machine for this, is told so before a token is made.
    refused(machine.add(world, &["--name", "shed", &format!("nobody-there@{}", machine.address)])?, "does not let you in")?;
    refused(machine.add(world, &["--name", "shed", "-p", "9", "machine"])?, "nothing answers at machine, port 9")?;
    refused(machine.add(world, &["--name", "shed", "asker"])?, "asks for a password")?;
    machine.ssh("mv /run/systemd/system /run/systemd/away")?.ok("mv")?;
    refused(machine.add(world, &["--name", "shed", "machine"])?, "does not run systemd")?;
    // An earlier try to join made the key and got no further.
    machine.ssh("mv /run/systemd/away /run/systemd/system && mkdir -p -m 0700 /var/lib/limpet/identity")?.ok("mv")?;
    refused(machine.add(world, &["--name", "Not A Name", "machine"])?, "Not A Name")?;
    refused(machine.add(world, &["--name", "shed", "--", "-oProxyCommand=touch"])?, "not user@host")?;
    let tokens = world.hub.operate(&["token", "list"])?;
    wait::yes(!tokens.contains("shed"), || tokens.clone())?;

    let added = machine.add(world, &["--name", "shed", "machine"])?.ok("limpet node add")?;
    wait::yes(added.contains("is the node shed now"), || added.clone())?;
    until("the machine Ready", Duration::from_secs(90), || {
        let nodes = world.kubectl.items("get nodes")?;
        let ready = nodes.iter().any(|n| n["metadata"]["name"] == "shed" && is_ready(n));
        wait::yes(ready, || machine.ssh("cat /var/log/limpet-agent").map(|o| o.stdout).unwrap_or_default())
    })?;
    let calls = machine.ssh("cat /var/log/systemctl")?.ok("cat")?;
    wait::yes(calls == "daemon-reload\nenable limpet-agent\nrestart limpet-agent\n", || calls.clone())?;
    // The token is nobody's to read, and is on no command line.
    let kept = machine.ssh("stat -c %a /etc/limpet/agent.env; cat /proc/*/cmdline | tr '\\0' ' '")?.ok("stat")?;
    wait::yes(kept.starts_with("600\n") && !kept.contains("limpet1."), || kept.clone())?;
    if process::which("systemd-analyze").is_some() {
        let unit = machine.dir.join("upper/etc/systemd/system/limpet-agent.service");
        let out = run(Command::new("systemd-analyze").arg("verify").arg(&unit))?;
        // That the program is not at its place on this machine is no fault of the unit.
        let is_fault = |l: &&str| l.contains("limpet-agent") && !l.contains("is not executable");
        let faults: Vec<&str> = out.stderr.lines().filter(is_fault).collect();
        wait::yes(faults.is_empty(), || format!("{faults:?}"))?;
    }
    // A second time changes nothing that is right: the same identity, whatever the token.
    refused(machine.add(world, &["--name", "barn", "machine"])?, "is the node \"shed\" already")?;
    let before = machine.ssh("sha256sum /var/lib/limpet/identity/node.key")?.ok("sum")?;
    machine.ssh("kill $(pidof limpet-agent)")?;
    let again = machine.add(world, &["machine"])?.ok("limpet node add, again")?;
    wait::yes(again.contains("was the node shed before and stays it"), || again.clone())?;
    let tokens = world.hub.operate(&["token", "list"])?;
    wait::yes(tokens.lines().filter(|line| line.contains("shed")).count() == 1, || format!("a token for nothing:\n{tokens}"))?;
    let after = machine.ssh("sha256sum /var/lib/limpet/identity/node.key")?.ok("sum")?;
    wait::yes(before == after, || format!("{before} {after}"))
}

#[test]
fn a_machine_that_runs_already_becomes_a_node_over_ssh() {
    let sshd = Path::new("/usr/sbin/sshd").is_file();
    if let Some(why) = limpet_e2e::missing().or((!sshd).then(|| "needs sshd: run `cargo xtask setup`".into())) {
        println!("skipped: {why}");
        return;
    }
    let done = Binaries::build("dev").and_then(|binaries| {
        let mut world = World::new(&binaries, 0)?;
        life(&mut world).map_err(|why| {
            format!("{why}\n--- sshd\n{}\n{}", tail(&world.slot.dir().join("machine/sshd.log"), 2000), world.logs())
        })
    });
    if let Err(why) = done {
        panic!("{why}");
    }
}
