//! `limpet node add`: makes a machine that runs already a node.
//!
//! In: user@host, what the node needs to know. Out: the agent as a service there, over the system's own ssh.
//! Never: a shell line from data: every remote command is fixed, data travels on stdin.

use super::{Outcome, node_args::NodeArgs};
use crate::agents;
use limpet_device::provision::install_script;
use std::{
    io::Write,
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

const PROBE: &str = "uname -m && id -u && uname -n";
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
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = ssh.spawn().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => "there is no ssh on this machine; install an SSH client".to_string(),
            _ => format!("cannot start ssh: {e}"),
        })?;
        let mut stdin = child.stdin.take();
        let wrote = stdin.as_mut().map_or(Ok(()), |s| s.write_all(input));
        drop(stdin);
        let out = child.wait_with_output().map_err(|e| format!("ssh: {e}"))?;
        match (out.status.code(), wrote) {
            // The far side may close its stdin early and be done all the same.
            (Some(0), Ok(())) => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
            (Some(255), _) => Err(format!("ssh does not reach {}; try `ssh {}` by hand", self.host, self.host)),
            (Some(code), _) => Err(format!("{}: the step failed with code {code}; what it said is above", self.host)),
            (None, _) => Err(format!("{}: the connection was cut; run the same command again", self.host)),
        }
    }
}

pub fn add(args: &AddArgs) -> Outcome {
    let (host, port, node) = (args.host.as_str(), args.port, &args.node);
    if host.is_empty() || host.starts_with('-') || host.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("{host:?} is not user@host"));
    }
    let remote = Remote { host, port };
    let probed = remote.run(PROBE, b"")?;
    let mut lines = probed.lines().map(str::trim);
    let (machine, user, own_name) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let known = MACHINES.iter().find(|(name, _)| *name == machine);
    let (_, target) = known.ok_or_else(|| format!("{host} is a {machine:?}: there is no agent for that processor"))?;
    let name = node.names(1, None).unwrap_or_else(|_| vec![own_name.to_lowercase()]).remove(0);
    let agent = agents::find(target, node.agent.as_deref())?;
    // Everything else is known to be right before a token is made.
    install_script(&name, None).map_err(|e| format!("{e}; give another with --name"))?;
    let token = node.token(&name)?;
    if token.is_none() {
        eprintln!("without --data-dir or --token-file the machine can only become a node that it was before");
    }
    let script = install_script(&name, token.as_deref()).map_err(|e| e.to_string())?;
    let how = usize::from(user != "0");
    remote.run(SEND[how], &agent)?;
    let said = remote.run(INSTALL[how], script.as_bytes())?;
    print!("{said}");
    println!("{host} is the node {name} now; `kubectl get nodes` shows it as soon as it has reached the hub");
    Ok(())
}
