//! `limpet node add`: makes a machine that runs already a node.
//!
//! In: user@host, what the node needs to know. Out: the agent as a service there, over the system's own ssh; or why not, before
//! anything is changed there and before a token is made.
//! Never: a shell line from data: every remote command is fixed, data travels on stdin; more of an answer than its bound.

use super::{Outcome, node_args::NodeArgs};
use crate::agents;
use limpet_device::provision::install_script;
use serde_json::Value;
use std::{
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
};

#[derive(clap::Args)]
pub struct AddArgs {
    /// user@host, or a name of ~/.ssh/config
    host: String,
    /// SSH port
    #[arg(long, short)]
    port: Option<u16>,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(clap::Args)]
pub struct ScriptArgs {
    #[command(flatten)]
    node: NodeArgs,
}

pub fn script(args: &ScriptArgs) -> Outcome {
    let name = args.node.names(1, None)?.remove(0);
    print!("{}", install_script(&name, args.node.token(&name)?.as_deref()).map_err(|e| e.to_string())?);
    Ok(())
}

/// What `uname -m` says, and the static binary for it. A Pi Zero says armv6l.
const MACHINES: [(&str, &str); 6] = [
    ("aarch64", "aarch64-unknown-linux-musl"),
    ("x86_64", "x86_64-unknown-linux-musl"),
    ("armv7l", "armv7-unknown-linux-musleabihf"),
    // 32-bit programs on a 64-bit processor.
    ("armv8l", "armv7-unknown-linux-musleabihf"),
    ("armv6l", "arm-unknown-linux-musleabihf"),
    ("riscv64", "riscv64gc-unknown-linux-musl"),
];

/// What is needed is asked for in one go; a line each, the answer to an earlier join last.
const PROBE: &str = r#"uname -s; uname -m; uname -n
as=
if [ "$(id -u)" = 0 ]; then echo root
elif ! command -v sudo > /dev/null 2>&1; then echo none
elif sudo -n true 2> /dev/null; then echo sudo; as='sudo -n'
else echo asks
fi
if [ -d /run/systemd/system ]; then echo systemd; else echo other; fi
$as head -c 100000 /var/lib/limpet/identity/identity.json 2> /dev/null || :
"#;
const ANSWER_BYTES_MAX: u64 = 128 * 1024;
/// Of what ssh says, as much is looked at.
const SAID_BYTES_MAX: usize = 8 * 1024;
/// `cat` with the rights of root, whoever logs in.
const SEND: [&str; 2] =
    ["cat > /usr/local/bin/limpet-agent.new", "sudo -n sh -c 'cat > /usr/local/bin/limpet-agent.new'"];
const INSTALL: [&str; 2] = ["sh -s", "sudo -n sh -s"];

struct Remote<'a> {
    host: &'a str,
    port: Option<u16>,
}

impl Remote<'_> {
    /// Runs one of the fixed commands with `input` on its stdin.
    fn run(&self, command: &str, input: &[u8]) -> Result<String, String> {
        let mut ssh = Command::new("ssh");
        if let Some(port) = self.port {
            ssh.args(["-p", &port.to_string()]);
        }
        // `--` ends options: a host that begins with a dash is a host.
        ssh.args(["-o", "ConnectTimeout=15", "-T", "--", self.host, command]);
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = ssh.spawn().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => "there is no ssh on this machine; install an SSH client".to_string(),
            _ => format!("cannot start ssh: {e}"),
        })?;
        let said = child.stderr.take().map(|from| std::thread::spawn(|| passed_on(from)));
        let mut stdin = child.stdin.take();
        let wrote = stdin.as_mut().map_or(Ok(()), |s| s.write_all(input));
        drop(stdin);
        let mut answer = Vec::new();
        let read = child.stdout.take().map_or(Ok(0), |from| from.take(ANSWER_BYTES_MAX).read_to_end(&mut answer));
        read.map_err(|e| format!("ssh: {e}"))?;
        let status = child.wait().map_err(|e| format!("ssh: {e}"))?;
        let said = said.and_then(|thread| thread.join().ok()).unwrap_or_default();
        match (status.code(), wrote) {
            // The far side may close its stdin early and be done all the same.
            (Some(0), Ok(())) => Ok(String::from_utf8_lossy(&answer).into_owned()),
            (Some(255), _) => Err(self.unreached(&said)),
            (Some(code), _) => Err(format!("{}: the step failed with code {code}; what it said is above", self.host)),
            (None, _) => Err(format!("{}: the connection was cut; run the same command again", self.host)),
        }
    }

    /// ssh has one code for everything; its words are the same everywhere.
    fn unreached(&self, said: &str) -> String {
        let (host, says) = (self.host, |words: &[&str]| words.iter().any(|w| said.contains(w)));
        if says(&["Permission denied", "Too many authentication failures"]) {
            format!("{host} does not let you in: give it your key with `ssh-copy-id {host}`, and run this again")
        } else if says(&["Host key verification failed"]) {
            format!("{host} does not show the key that this machine knows it by, or none is known yet: log in once with `ssh {host}`")
        } else if says(&["Could not resolve hostname"]) {
            format!("nobody knows a machine {host}: look at its name, or give its address")
        } else if says(&["Connection refused", "timed out", "No route to host", "Network is unreachable"]) {
            let port = self.port.unwrap_or(22);
            format!("nothing answers at {host}, port {port}: is the machine on, and its SSH server?")
        } else {
            format!("ssh does not reach {host}; try `ssh {host}` by hand")
        }
    }
}

/// What ssh and the far side say goes to this terminal as it comes; its end is kept.
fn passed_on(mut from: impl Read) -> String {
    let (mut kept, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = from.read(&mut piece) {
        let _ = std::io::stderr().write_all(&piece[..length]);
        kept.extend_from_slice(&piece[..length]);
        let over = kept.len().saturating_sub(SAID_BYTES_MAX);
        kept.drain(..over);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// What the machine is.
#[derive(Debug)]
struct Found {
    target: &'static str,
    host_name: String,
    is_root: bool,
    joined: Option<Joined>,
}

/// Of an earlier join.
#[derive(Debug)]
struct Joined {
    node_name: String,
    ca_pem: String,
    /// Where that hub was.
    api: Option<String>,
}

impl Joined {
    /// As `limpet-agent` keeps it.
    fn parse(text: &str) -> Option<Joined> {
        let answer: Value = serde_json::from_str(text).ok()?;
        let field = |name: &str| answer[name].as_str().map(str::to_string);
        let api = answer["api"][0].as_str().map(str::to_string);
        Some(Joined { node_name: field("node_name")?, ca_pem: field("ca_pem")?, api })
    }
}

impl Found {
    fn parse(host: &str, text: &str) -> Result<Found, String> {
        let mut lines = text.splitn(6, '\n').map(str::trim);
        let mut line = || lines.next().unwrap_or_default();
        let (system, machine, host_name, rights, first, identity) = (line(), line(), line(), line(), line(), line());
        if system != "Linux" {
            return Err(format!("{host} runs {system:?}: a node needs Linux"));
        }
        let known = MACHINES.iter().find(|(name, _)| *name == machine);
        let (_, target) = known.ok_or_else(|| format!("{host} is a {machine:?}: there is no agent for that processor"))?;
        match rights {
            "root" | "sudo" => {}
            "none" => return Err(format!("the user at {host} is not root, and there is no sudo: log in as root, `root@…`")),
            _ => {
                return Err(format!(
                    "sudo at {host} asks for a password, which nobody can type here: log in as root, or let this user do without \
                     (a file in /etc/sudoers.d there: `USER ALL=(ALL) NOPASSWD: ALL`)"
                ));
            }
        }
        if first != "systemd" {
            return Err(format!(
                "{host} does not run systemd: copy limpet-agent there, and have its own first process start it with `--join TOKEN`"
            ));
        }
        let joined = match identity {
            "" => None,
            text => Some(Joined::parse(text).ok_or_else(|| {
                format!("{host}: /var/lib/limpet/identity/identity.json is damaged; remove /var/lib/limpet there, and run this again")
            })?),
        };
        Ok(Found { target, host_name: host_name.to_lowercase(), is_root: rights == "root", joined })
    }
}

/// The machine's name as a node. One that is a node already stays what it is.
fn name_for(host: &str, found: &Found, named: Option<String>, ca: Option<&str>) -> Result<String, String> {
    let Some(joined) = &found.joined else { return Ok(named.unwrap_or_else(|| found.host_name.clone())) };
    let own = &joined.node_name;
    if ca.is_some_and(|ca| ca.trim() != joined.ca_pem.trim()) {
        let hub = joined.api.as_ref().map(|at| format!(" ({at:?})")).unwrap_or_default();
        return Err(format!(
            "{host} is the node {own:?} of another hub{hub}: to take it from there, run `systemctl disable --now limpet-agent; \
             rm -r /var/lib/limpet` on it, then this again"
        ));
    }
    match named {
        Some(name) if name != *own => Err(format!(
            "{host} is the node {own:?} already: leave --name out, or, for another name, first run `systemctl disable --now \
             limpet-agent; rm -r /var/lib/limpet` on it and `limpet node remove` for the old one"
        )),
        _ => Ok(own.clone()),
    }
}

pub fn add(args: &AddArgs) -> Outcome {
    let (host, port, node) = (args.host.as_str(), args.port, &args.node);
    if host.is_empty() || host.starts_with('-') || host.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("{host:?} is not user@host"));
    }
    let remote = Remote { host, port };
    let found = Found::parse(host, &remote.run("sh -s", PROBE.as_bytes())?)?;
    let ca = node.hub().map(|dir| ca_of(&dir)).transpose()?;
    let name = name_for(host, &found, node.names(1, None).ok().map(|mut all| all.remove(0)), ca.as_deref())?;
    let agent = agents::find(found.target, node.agent.as_deref())?;
    // Everything else is known to be right before a token is made.
    install_script(&name, None).map_err(|e| format!("{e}; give another with --name"))?;
    let token = if found.joined.is_some() { None } else { node.token(&name)? };
    if token.is_none() && found.joined.is_none() {
        return Err("say which hub it shall join: --data-dir DIR, or --token-file FILE".into());
    }
    let script = install_script(&name, token.as_deref()).map_err(|e| e.to_string())?;
    let how = usize::from(!found.is_root);
    remote.run(SEND[how], &agent)?;
    let said = remote.run(INSTALL[how], script.as_bytes())?;
    print!("{said}");
    match found.joined {
        Some(_) => println!("{host} was the node {name} before and stays it; it has this agent now"),
        None => println!("{host} is the node {name} now; `kubectl get nodes` shows it as soon as it has reached the hub"),
    }
    Ok(())
}

fn ca_of(hub: &Path) -> Result<String, String> {
    let path = hub.join("pki/ca.crt");
    std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}; --data-dir names the directory of a hub", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: &str = r#"{"node_name":"shed","ca_pem":"CA\n","api":["hub:6443"],"mqtt":[]}"#;

    fn probed(system: &str, machine: &str, rights: &str, first: &str, identity: &str) -> Result<Found, String> {
        Found::parse("pi", &format!("{system}\n{machine}\nShed\n{rights}\n{first}\n{identity}"))
    }

    #[test]
    fn a_machine_that_cannot_be_a_node_is_told() {
        let found = probed("Linux", "aarch64", "sudo", "systemd", "").unwrap();
        assert_eq!((found.target, found.host_name.as_str(), found.is_root), ("aarch64-unknown-linux-musl", "shed", false));
        assert!(found.joined.is_none());
        for (got, says) in [
            (probed("Darwin", "arm64", "root", "other", ""), "needs Linux"),
            (probed("Linux", "mips", "root", "systemd", ""), "no agent for that processor"),
            (probed("Linux", "aarch64", "none", "systemd", ""), "there is no sudo"),
            (probed("Linux", "aarch64", "asks", "systemd", ""), "asks for a password"),
            (probed("Linux", "aarch64", "root", "other", ""), "does not run systemd"),
            (probed("Linux", "aarch64", "root", "systemd", "{"), "identity.json"),
            (Found::parse("pi", ""), "needs Linux"),
        ] {
            let why = got.expect_err(says);
            assert!(why.contains(says) && why.contains("pi"), "{why}");
        }
    }

    #[test]
    fn a_node_stays_the_node_that_it_is() {
        let fresh = probed("Linux", "x86_64", "root", "systemd", "").unwrap();
        assert_eq!(name_for("pi", &fresh, None, Some("CA")), Ok("shed".into()));
        assert_eq!(name_for("pi", &fresh, Some("a".into()), None), Ok("a".into()));
        let node = probed("Linux", "x86_64", "root", "systemd", &IDENTITY.replace("shed", "barn")).unwrap();
        assert_eq!(name_for("pi", &node, None, Some("CA")), Ok("barn".into()));
        assert_eq!(name_for("pi", &node, Some("barn".into()), None), Ok("barn".into()));
        assert!(name_for("pi", &node, Some("a".into()), Some("CA")).unwrap_err().contains("leave --name out"));
        assert!(name_for("pi", &node, None, Some("other")).unwrap_err().contains("of another hub (\"hub:6443\")"));
    }

    #[test]
    fn what_ssh_says_becomes_the_next_step() {
        let remote = Remote { host: "pi", port: None };
        for (said, says) in [
            ("root@pi: Permission denied (publickey).", "ssh-copy-id pi"),
            ("Host key verification failed.", "log in once"),
            ("ssh: Could not resolve hostname pi: Name or service not known", "look at its name"),
            ("ssh: connect to host pi port 22: Connection refused", "port 22: is the machine on"),
            ("kex_exchange_identification: banner line contains invalid characters", "by hand"),
        ] {
            assert!(remote.unreached(said).contains(says), "{said}");
        }
    }
}
