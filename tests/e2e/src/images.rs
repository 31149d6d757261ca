//! Images for tests, made here, and pushing them to a registry with curl.
//!
//! In: programs of this machine. Out: images in a registry. Never: an image from the internet.

use crate::process::run;
use crate::{Hub, Kubectl, Result};
use base64::Engine as _;
use limpet_oci::builder::{Attributes, Blob, Image, Layer, image};
use limpet_oci::config::Execution;
use limpet_oci::{Platform, manifest};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A registry and how to be let in.
pub struct Target {
    pub url: String,
    /// CA, certificate and key, for TLS with a client certificate.
    pub tls: Option<(PathBuf, PathBuf, PathBuf)>,
    /// `user:password`
    pub user: Option<String>,
    /// The CA of a registry that wants no certificate.
    pub ca: Option<PathBuf>,
    pub work: PathBuf,
}

impl Target {
    /// The hub's own registry, with the administrator's certificate out of the kubeconfig.
    pub fn hub(hub: &Hub, work: &Path) -> Result<Target> {
        let text = Kubectl::new(&hub.kubeconfig())?.say("config view --raw -o json")?;
        let parsed: serde_json::Value = serde_json::from_str(&text).map_err(|e| format!("kubeconfig: {e}"))?;
        let cluster = &parsed["clusters"][0]["cluster"];
        let user = &parsed["users"][0]["user"];
        let keep = |value: &serde_json::Value, name: &str| -> Result<PathBuf> {
            let bytes = decode_base64(value.as_str().unwrap_or_default())?;
            let path = work.join(name);
            fs::write(&path, bytes).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
            Ok(path)
        };
        let tls = (
            keep(&cluster["certificate-authority-data"], "registry-ca.pem")?,
            keep(&user["client-certificate-data"], "registry-cert.pem")?,
            keep(&user["client-key-data"], "registry-key.pem")?,
        );
        let url = format!("https://{}:5000", hub.address);
        Ok(Target { url, tls: Some(tls), user: None, ca: None, work: work.to_path_buf() })
    }

    pub fn plain(url: &str, work: &Path) -> Target {
        Target { url: url.to_string(), tls: None, user: None, ca: None, work: work.to_path_buf() }
    }

    pub fn with_user(self, user: &str) -> Target {
        Target { user: Some(user.to_string()), ..self }
    }

    pub fn with_ca(self, ca: &Path) -> Target {
        Target { ca: Some(ca.to_path_buf()), ..self }
    }

    pub fn push(&self, repository: &str, tag: &str, image: &Image) -> Result<()> {
        for blob in image.layers.iter().chain([&image.config]) {
            self.push_blob(repository, blob)?;
        }
        self.push_manifest(repository, tag, manifest::OCI_MANIFEST, &image.manifest.bytes)
    }

    /// A manifest or an index, by a tag or its digest.
    pub fn push_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) -> Result<()> {
        let kind = format!("Content-Type: {media_type}");
        let path = format!("/v2/{repository}/manifests/{tag}");
        self.send(&["-X", "PUT", "-H", &kind], &path, bytes, 201)
    }

    pub fn push_blob(&self, repository: &str, blob: &Blob) -> Result<()> {
        let begin = format!("{}/v2/{repository}/blobs/uploads/", self.url);
        let head = self.curl(&["-X", "POST", "-D", "-", "-o", "/dev/null", &begin])?;
        let location = head.lines().find_map(|l| l.to_ascii_lowercase().starts_with("location:").then(|| &l[9..]));
        let location = location.ok_or_else(|| format!("{begin} names no place to upload to:\n{head}"))?.trim();
        let path = location.strip_prefix(&self.url).unwrap_or(location);
        let join = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{join}digest={}", blob.descriptor.digest);
        self.send(&["-X", "PUT", "-H", "Content-Type: application/octet-stream"], &path, &blob.bytes, 201)
    }

    fn send(&self, words: &[&str], path: &str, body: &[u8], want: u16) -> Result<()> {
        let file = self.work.join("upload");
        fs::write(&file, body).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
        let data = format!("@{}", file.display());
        let url = format!("{}{path}", self.url);
        let tail = ["--data-binary", &data, "-w", "\n%{http_code}", &url];
        let words: Vec<&str> = words.iter().copied().chain(tail).collect();
        let answer = self.curl(&words)?;
        match answer.rsplit('\n').next() {
            Some(code) if code == want.to_string() => Ok(()),
            _ => Err(format!("PUT {path}: {answer}")),
        }
    }

    fn curl(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "120"]);
        if crate::wait::patience() > 1 {
            // On a machine so slow, a handshake may take longer than a server waits for it.
            command.args(["--retry", "5", "--retry-all-errors"]);
        }
        if let Some((ca, certificate, key)) = &self.tls {
            command.arg("--cacert").arg(ca).arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        if let Some(ca) = &self.ca {
            command.arg("--cacert").arg(ca);
        }
        if let Some(user) = &self.user {
            command.arg("--user").arg(user);
        }
        run(command.args(words))?.ok("curl")
    }
}

/// As kubeconfigs and Secrets have it.
/// As in join tokens.
pub fn decode_base64url(text: &str) -> Result<Vec<u8>> {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text.trim()).map_err(|e| format!("not base64url: {e}"))
}

pub fn decode_base64(text: &str) -> Result<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text).map_err(|e| format!("not base64: {e}"))
}

/// The demo's web server and nothing else.
pub fn demo_web(program: &Path) -> Result<Image> {
    let bytes = fs::read(program).map_err(|e| format!("cannot read {}: {e}", program.display()))?;
    let layer = base().file("demo-web", 0o755, &bytes);
    let run = Execution {
        entrypoint: vec!["/demo-web".to_string()],
        user: "65532:65532".to_string(),
        env: vec!["PATH=/".to_string()],
        exposed_ports: vec!["8080/tcp".to_string()],
        ..Execution::default()
    };
    finish(run, vec![layer])
}

/// A small Unix: this machine's static busybox with links for its applets.
pub fn busybox() -> Result<Image> {
    let path = Path::new("/bin/busybox");
    let bytes = fs::read(path).map_err(|e| format!("cannot read {}: {e}: run `cargo xtask setup`", path.display()))?;
    busybox_of(&Platform::host(), &bytes, base())
}

/// The same for another architecture, with more in it; the applets are those of this machine's.
pub fn busybox_of(platform: &Platform, bytes: &[u8], more: Layer) -> Result<Image> {
    let list = run(Command::new("/bin/busybox").arg("--list"))?.ok("busybox --list")?;
    let mut layer = more.directory("bin", 0o755).file("bin/busybox", 0o755, bytes);
    for applet in list.lines().filter(|a| *a != "busybox") {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    let run = Execution {
        cmd: vec!["sh".to_string()],
        env: vec!["PATH=/bin".to_string()],
        ..Execution::default()
    };
    image(platform, run, vec![layer]).map_err(|e| format!("cannot make the image: {e}"))
}

/// What every image has.
pub fn base() -> Layer {
    let tmp = Attributes { type_flag: b'5', mode: 0o1777, ..Attributes::default() };
    Layer::new()
        .directory("etc", 0o755)
        .file("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
        .file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")
        .entry("tmp", b"", &tmp)
}

fn finish(run: Execution, layers: Vec<Layer>) -> Result<Image> {
    image(&Platform::host(), run, layers).map_err(|e| format!("cannot make the image: {e}"))
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).take(length / 8).flatten().collect()
}

/// An application of files of a megabyte in one layer; the seeds say which version of each.
pub fn application(seeds: &[u64]) -> Result<Image> {
    layered(seeds, seeds.len())
}

/// The same, so many files in a layer.
pub fn layered(seeds: &[u64], in_a_layer: usize) -> Result<Image> {
    let busybox = fs::read("/bin/busybox").map_err(|e| e.to_string())?;
    let mut base = Layer::new().file("bin/busybox", 0o755, &busybox).symlink("bin/sh", "busybox");
    for applet in ["sleep", "cat", "sha256sum", "cut"] {
        base = base.symlink(&format!("bin/{applet}"), "busybox");
    }
    let files: Vec<_> = seeds.iter().enumerate().collect();
    let one = |layer: Layer, (n, seed): &(usize, &u64)| layer.file(&format!("app/{n}"), 0o644, &noise(**seed, 1 << 20));
    let app = files.chunks(in_a_layer).map(|some| some.iter().fold(Layer::new(), one));
    let run = Execution { env: vec!["PATH=/bin".into()], ..Execution::default() };
    finish(run, [base].into_iter().chain(app).collect())
}
