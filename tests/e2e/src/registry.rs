//! Debian's docker-registry, as a registry that is not ours.
//!
//! In: a slot, an address. Out: its URL; gone when dropped. Never: a registry on the internet.

use crate::process::{Daemon, run, which};
use crate::{Result, Slot, until};
use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::time::Duration;

pub struct Registry {
    /// `10.213.1.1:5001`
    pub host: String,
    process: Daemon,
}

impl Registry {
    pub fn start(slot: &Slot, address: &str, port: u16) -> Result<Registry> {
        let program = which("docker-registry").ok_or("needs docker-registry: run `cargo xtask setup`")?;
        let host = format!("{address}:{port}");
        let dir = slot.dir().join(format!("registry-{port}"));
        let config = slot.dir().join(format!("registry-{port}.yml"));
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"{host}\"}}\n",
            dir.display()
        );
        fs::write(&config, text).map_err(|e| format!("cannot write {}: {e}", config.display()))?;
        let words: [&OsStr; 3] = [program.as_os_str(), "serve".as_ref(), config.as_os_str()];
        let (key, value) = slot.mark();
        let log = slot.dir().join(format!("registry-{port}.log"));
        let process = Daemon::start(&words, &[(key, &value)], &log)?;
        let mut registry = Registry { host, process };
        until("docker-registry", Duration::from_secs(20), || {
            registry.process.check()?;
            let url = format!("http://{}/v2/", registry.host);
            run(Command::new("curl").args(["--silent", "--fail", "--noproxy", "*", &url]))?.ok("curl").map(|_| ())
        })?;
        Ok(registry)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.host)
    }
}
