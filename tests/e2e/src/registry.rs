//! Debian's docker-registry, as a registry that is not ours.
//!
//! In: a slot, an address. Out: its URL; gone when dropped. Never: a registry on the internet.

use crate::process::{Daemon, run, which};
use crate::{Result, Slot, until};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub struct Registry {
    /// `10.213.1.1:5001`
    pub host: String,
    scheme: &'static str,
    process: Daemon,
}

/// How a registry lets people in; by default anybody, over http.
#[derive(Default)]
pub struct Door<'a> {
    /// Lines as `htpasswd -B` writes them.
    pub passwords: Option<&'a str>,
    /// Files with a certificate and its key: https.
    pub tls: Option<(&'a Path, &'a Path)>,
}

impl Registry {
    pub fn start(slot: &Slot, address: &str, port: u16) -> Result<Registry> {
        Registry::with(slot, address, port, &Door::default())
    }

    pub fn with(slot: &Slot, address: &str, port: u16, door: &Door<'_>) -> Result<Registry> {
        let program = which("docker-registry").ok_or("needs docker-registry: run `cargo xtask setup`")?;
        let host = format!("{address}:{port}");
        let dir = slot.dir().join(format!("registry-{port}"));
        let config = slot.dir().join(format!("registry-{port}.yml"));
        let tls = door.tls.map(|(certificate, key)| {
            format!(", tls: {{certificate: \"{}\", key: \"{}\"}}", certificate.display(), key.display())
        });
        let mut text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"{host}\"{}}}\n",
            dir.display(),
            tls.unwrap_or_default()
        );
        if let Some(passwords) = door.passwords {
            let file = slot.dir().join(format!("registry-{port}.passwords"));
            fs::write(&file, passwords).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
            text += &format!("auth: {{htpasswd: {{realm: test, path: \"{}\"}}}}\n", file.display());
        }
        fs::write(&config, text).map_err(|e| format!("cannot write {}: {e}", config.display()))?;
        let words: [&OsStr; 3] = [program.as_os_str(), "serve".as_ref(), config.as_os_str()];
        let (key, value) = slot.mark();
        let log = slot.dir().join(format!("registry-{port}.log"));
        let process = Daemon::start(&words, &[(key, &value)], &log)?;
        let scheme = if door.tls.is_some() { "https" } else { "http" };
        let mut registry = Registry { host, scheme, process };
        until("docker-registry", Duration::from_secs(20), || {
            registry.process.check()?;
            // Whoever asks who we are is there, too.
            let url = format!("{}/v2/", registry.url());
            run(Command::new("curl").args(["--silent", "--insecure", "--noproxy", "*", &url]))?.ok("curl").map(|_| ())
        })?;
        Ok(registry)
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.host)
    }
}
