//! The store against a small registry in this process that can misbehave on command.
//!
//! In: images made by `limpet_oci::builder`. Out: what `ensure` says and what the server saw.

use super::*;
use limpet_oci::builder::{self, Blob, Layer};
use limpet_oci::config::Execution;
use limpet_oci::{Digest, Platform, manifest};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

mod card;
mod collection;
mod shared;
mod deltas;
mod hostile;
mod signatures;

pub fn scratch(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("limpet-images-{}-{name}-{n}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// What the server does beside answering.
#[derive(Default, Clone)]
struct Manners {
    /// Bodies of blobs end after so many bytes, this many times.
    cut_after: Option<usize>,
    cuts_left: u32,
    /// Basic credentials that it asks for.
    basic: Option<&'static str>,
    /// Token server's address to send people to.
    realm: Option<String>,
    /// Blobs are redirected there.
    redirect: Option<String>,
    /// Ranges are ignored.
    no_ranges: bool,
    broken: bool,
    /// It says that it has recipes of layers.
    recipes: bool,
    /// What it does instead of answering, to requests with this in their path.
    rude: Option<(&'static str, Rude)>,
}

/// Ways of a server that means no good.
#[derive(Clone)]
enum Rude {
    /// These bytes, and then the connection ends.
    Bytes(Vec<u8>),
    /// These, and then those again and again for as long as somebody takes them, with so many milliseconds between.
    Endless(Vec<u8>, Vec<u8>, u64),
}

impl Rude {
    fn act(&self, stream: &mut TcpStream) {
        let (Rude::Bytes(head) | Rude::Endless(head, ..)) = self;
        let mut good = stream.write_all(head).is_ok();
        if let Rude::Endless(_, piece, pause_ms) = self {
            while good {
                good = stream.write_all(piece).is_ok();
                std::thread::sleep(std::time::Duration::from_millis(*pause_ms));
            }
        }
    }
}

#[derive(Default)]
struct State {
    content: BTreeMap<String, (String, Vec<u8>)>,
    manners: Manners,
    seen: Vec<String>,
}

#[derive(Clone)]
struct Server {
    state: Arc<Mutex<State>>,
    port: u16,
}

impl Server {
    fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server { state: Arc::default(), port: listener.local_addr().unwrap().port() };
        let state = server.state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        server
    }

    fn name(&self, rest: &str) -> String {
        format!("127.0.0.1:{}/{rest}", self.port)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn manners(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.state.lock().unwrap().manners);
    }

    fn put(&self, path: &str, media_type: &str, bytes: &[u8]) {
        self.state.lock().unwrap().content.insert(path.to_string(), (media_type.to_string(), bytes.to_vec()));
    }

    fn push(&self, repository: &str, tag: &str, image: &builder::Image) {
        self.blobs(repository, image);
        let bytes = &image.manifest.bytes;
        self.put(&format!("/v2/{repository}/manifests/{tag}"), manifest::OCI_MANIFEST, bytes);
    }

    fn blobs(&self, repository: &str, image: &builder::Image) {
        for blob in image.layers.iter().chain([&image.config]) {
            let path = format!("/v2/{repository}/blobs/{}", blob.descriptor.digest);
            self.put(&path, "application/octet-stream", &blob.bytes);
        }
        let path = format!("/v2/{repository}/manifests/{}", image.manifest.descriptor.digest);
        self.put(&path, manifest::OCI_MANIFEST, &image.manifest.bytes);
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if line == "\r\n" => break,
                Ok(_) => head.push(line.trim_end().to_string()),
            }
        }
        let rude = state.lock().unwrap().manners.rude.clone().filter(|(path, _)| head[0].contains(path));
        if let Some((_, rude)) = rude {
            state.lock().unwrap().seen.push(head[0].clone());
            return rude.act(&mut writer);
        }
        let (answer, close) = respond(&head, &mut state.lock().unwrap());
        if writer.write_all(&answer).is_err() || close {
            return;
        }
    }
}

fn respond(head: &[String], state: &mut State) -> (Vec<u8>, bool) {
    let mut words = head[0].split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap().to_string());
    let header = |name: &str| {
        let prefix = format!("{name}: ");
        head.iter().find_map(|l| l.to_ascii_lowercase().starts_with(&prefix).then(|| l[prefix.len()..].to_string()))
    };
    let authorization = header("authorization").unwrap_or_default();
    let range = header("range").unwrap_or_default();
    state.seen.push([method, &path, &authorization, &range].join(" ").trim_end().to_string());
    let manners = state.manners.clone();
    let plain = |status: &str, extra: &str| {
        (format!("HTTP/1.1 {status}\r\n{extra}Content-Length: 0\r\n\r\n").into_bytes(), false)
    };
    if manners.broken {
        return plain("503 Unavailable", "");
    }
    if path.starts_with("/token") {
        let body = r#"{"token":"good"}"#;
        return (format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes(), false);
    }
    if let Some(realm) = manners.realm.as_ref().filter(|_| authorization != "Bearer good") {
        let ask = format!("WWW-Authenticate: Bearer realm=\"{realm}/token\",service=\"s\"\r\n");
        return plain("401 Unauthorized", &ask);
    }
    if manners.basic.is_some_and(|basic| authorization != format!("Basic {basic}")) {
        return plain("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n");
    }
    if let Some(to) = manners.redirect.as_ref().filter(|_| path.contains("/blobs/")) {
        return plain("307 Temporary Redirect", &format!("Location: {to}{path}\r\n"));
    }
    let Some((media_type, bytes)) = state.content.get(&path) else { return plain("404 Not Found", "") };
    let range = range.strip_prefix("bytes=").filter(|_| !manners.no_ranges).and_then(|r| r.split_once('-'));
    let range = range.and_then(|(first, last)| {
        let last = last.parse().map_or(bytes.len() - 1, |last: usize| last.min(bytes.len() - 1));
        Some((first.parse::<usize>().ok()?, last))
    });
    if range.is_some_and(|(first, last)| first > last || first >= bytes.len()) {
        return plain("416 Range Not Satisfiable", "");
    }
    let status = match range {
        None => "200 OK".to_string(),
        Some((first, last)) => format!("206 Partial Content\r\nContent-Range: bytes {first}-{last}/{}", bytes.len()),
    };
    let status = match manners.recipes && path.contains("/manifests/") {
        true => status + "\r\nLimpet-Recipes: 1",
        false => status,
    };
    let body = range.map_or(&bytes[..], |(first, last)| &bytes[first..=last]);
    let digest = Digest::of(bytes);
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nDocker-Content-Digest: {digest}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    if method == "HEAD" {
        return (answer, false);
    }
    let cut = manners.cut_after.filter(|cut| manners.cuts_left > 0 && *cut < body.len());
    if let Some(cut) = cut.filter(|_| path.contains("/blobs/")) {
        state.manners.cuts_left -= 1;
        answer.extend_from_slice(&body[..cut]);
        return (answer, true);
    }
    answer.extend_from_slice(body);
    (answer, false)
}

/// Bytes that gzip cannot make much smaller.
fn noise(count: usize, mut seed: u64) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 40) as u8
    };
    (0..count).map(|_| next()).collect()
}

fn image_with(text: &str) -> builder::Image {
    let run = Execution { entrypoint: vec!["/app".to_string()], ..Execution::default() };
    let base = Layer::new().directory("etc", 0o755).file("etc/base", 0o644, &noise(300_000, 1));
    let top = Layer::new().file("app", 0o755, text.as_bytes());
    builder::image(&Platform::new("linux", "amd64", None), run, vec![base, top]).unwrap()
}

pub(super) struct World {
    pub(super) store: Store,
    dir: PathBuf,
}

impl World {
    pub(super) fn new(registries: RegistryOptions) -> World {
        let dir = scratch("store");
        World { store: World::open(&dir, registries), dir }
    }

    fn open(dir: &std::path::Path, registries: RegistryOptions) -> Store {
        let platform = Platform::new("linux", "amd64", None);
        let (pulls_at_once, trust) = (None, Vec::new());
        Store::open(Options { dir: dir.to_path_buf(), platform, program: None, registries, pulls_at_once, trust }).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn want(image: &str, policy: Policy) -> Want {
    Want { image: image.to_string(), policy, pull_secrets: Vec::new() }
}

fn count(seen: &[String], what: &str) -> usize {
    seen.iter().filter(|s| s.contains(what)).count()
}

#[tokio::test]
async fn a_pull_gives_layers_and_config_and_is_kept() {
    let server = Server::start();
    server.push("demo/app", "1", &image_with("one"));
    let world = World::new(RegistryOptions::default());
    let name = server.name("demo/app:1");
    let never = world.store.ensure(&want(&name, Policy::Never)).await.unwrap_err();
    assert_eq!(never.reason(), "ErrImageNeverPull");
    let image = world.store.ensure(&want(&name, Policy::IfNotPresent)).await.unwrap();
    assert!(image.pulled);
    assert_eq!(image.config.config.entrypoint, ["/app"]);
    assert_eq!(image.layers.len(), 2);
    assert_eq!(std::fs::read(image.layers[1].join("app")).unwrap(), b"one");
    assert!(image.layers[0].join("etc/base").is_file());
    assert!(image.repo_digest.starts_with(&format!("{}@sha256:", server.name("demo/app"))));
    server.seen();

    let again = world.store.ensure(&want(&name, Policy::IfNotPresent)).await.unwrap();
    assert!(!again.pulled);
    assert_eq!(server.seen(), Vec::<String>::new());
    // A new process finds it without a network; a pull under another tag fetches no layer.
    let reopened = World::open(&world.dir, RegistryOptions::default());
    assert_eq!(reopened.find(&name).unwrap().layers, image.layers);
    server.push("demo/app", "2", &image_with("two"));
    reopened.ensure(&want(&server.name("demo/app:2"), Policy::IfNotPresent)).await.unwrap();
    assert_eq!(count(&server.seen(), "/blobs/"), 2, "one layer and one config are new");
    assert_eq!(reopened.list().len(), 2);
    assert!(std::fs::read_dir(world.dir.join("partial")).unwrap().next().is_none());
    assert!(std::fs::read_dir(world.dir.join("tmp")).unwrap().next().is_none());
}

#[tokio::test]
async fn always_asks_and_believes_the_registry_but_not_silence() {
    let server = Server::start();
    server.push("app", "latest", &image_with("one"));
    let world = World::new(RegistryOptions::default());
    let name = server.name("app");
    world.store.ensure(&want(&name, Policy::Always)).await.unwrap();
    server.seen();
    let same = world.store.ensure(&want(&name, Policy::Always)).await.unwrap();
    assert!(!same.pulled);
    assert_eq!(server.seen().len(), 1, "one HEAD");
    server.push("app", "latest", &image_with("two"));
    let new = world.store.ensure(&want(&name, Policy::Always)).await.unwrap();
    assert!(new.pulled);
    assert_eq!(std::fs::read(new.layers[1].join("app")).unwrap(), b"two");
    // Out of reach: what is here is used. A clear no: it is not.
    server.manners(|m| m.broken = true);
    let offline = world.store.ensure(&want(&name, Policy::Always)).await.unwrap();
    assert!(offline.unverified && offline.id == new.id);
    server.manners(|m| {
        m.broken = false;
        m.basic = Some("eDp5");
    });
    let refused = world.store.ensure(&want(&name, Policy::Always)).await.unwrap_err();
    assert_eq!(refused.reason(), "ErrImagePull");
}

#[tokio::test]
async fn an_interrupted_download_goes_on_where_it_ended() {
    let server = Server::start();
    let image = image_with("one");
    server.push("app", "1", &image);
    let name = server.name("app:1");
    server.manners(|m| (m.cut_after, m.cuts_left) = (Some(100_000), 2));
    let world = World::new(RegistryOptions::default());
    world.store.ensure(&want(&name, Policy::IfNotPresent)).await.unwrap();
    let seen = server.seen();
    assert_eq!((count(&seen, "bytes=100000-"), count(&seen, "bytes=200000-")), (1, 1), "{seen:?}");
    // Across a restart of the agent: the file of the first attempt is continued, if the server can.
    for (no_ranges, requests) in [(false, "bytes=5000-"), (true, "bytes=5000-")] {
        server.manners(|m| m.no_ranges = no_ranges);
        let world = World::new(RegistryOptions::default());
        let digest = &image.layers[0].descriptor.digest;
        let partial = world.dir.join("partial").join(format!("sha256-{}", digest.hex()));
        std::fs::write(&partial, &image.layers[0].bytes[..5000]).unwrap();
        let store = World::open(&world.dir, RegistryOptions::default());
        store.ensure(&want(&name, Policy::IfNotPresent)).await.unwrap();
        assert_eq!(count(&server.seen(), requests), 1);
    }
    // Rubbish in the partial file: seen by the digest, fetched again.
    server.manners(|m| m.no_ranges = false);
    let world = World::new(RegistryOptions::default());
    let digest = &image.layers[0].descriptor.digest;
    std::fs::write(world.dir.join("partial").join(format!("sha256-{}", digest.hex())), [7; 5000]).unwrap();
    world.store.ensure(&want(&name, Policy::IfNotPresent)).await.unwrap();
}

/// Whatever byte the cut comes at, with a new process after it: the rest is asked for, and nothing twice.
#[tokio::test]
async fn a_cut_at_any_byte_is_continued() {
    let server = Server::start();
    let run = Execution { entrypoint: vec!["/app".to_string()], ..Execution::default() };
    let layer = Layer::new().file("app", 0o755, &noise(150, 3));
    let image = builder::image(&Platform::new("linux", "amd64", None), run, vec![layer]).unwrap();
    server.push("app", "1", &image);
    let name = server.name("app:1");
    let length = image.layers[0].bytes.len();
    let digest = &image.layers[0].descriptor.digest;
    assert!(length > 200, "{length}");
    for cut in 0..length {
        let world = World::new(RegistryOptions::default());
        let partial = world.dir.join("partial").join(format!("sha256-{}", digest.hex()));
        std::fs::write(&partial, &image.layers[0].bytes[..cut]).unwrap();
        let store = World::open(&world.dir, RegistryOptions::default());
        server.seen();
        store.ensure(&want(&name, Policy::IfNotPresent)).await.unwrap();
        let seen = server.seen();
        let asked: Vec<_> = seen.iter().filter(|line| line.contains(digest.hex())).collect();
        assert_eq!(asked.len(), 1, "{cut}: {seen:?}");
        let range = format!("bytes={cut}-");
        assert!(if cut == 0 { !asked[0].contains("bytes=") } else { asked[0].ends_with(&range) }, "{cut}: {asked:?}");
    }
}

#[tokio::test]
async fn credentials_go_only_where_they_belong() {
    let server = Server::start();
    let other = Server::start();
    let image = image_with("one");
    server.push("team/app", "1", &image);
    other.blobs("team/app", &image);
    let name = server.name("team/app:1");
    let secret = format!(r#"{{"auths":{{"127.0.0.1:{}":{{"username":"u","password":"p"}}}}}}"#, server.port);
    let wanted = Want { pull_secrets: vec![secret.into_bytes()], ..want(&name, Policy::IfNotPresent) };

    server.manners(|m| m.basic = Some("dTpw"));
    let world = World::new(RegistryOptions::default());
    let without = world.store.ensure(&want(&name, Policy::IfNotPresent)).await.unwrap_err();
    assert!(without.to_string().contains("pull secret"), "{without}");
    world.store.ensure(&wanted).await.unwrap();

    // Redirected to another host: the blob arrives, the password does not.
    let world = World::new(RegistryOptions::default());
    server.manners(|m| m.redirect = Some(other.url()));
    world.store.ensure(&wanted).await.unwrap();
    let seen = other.seen();
    assert!(count(&seen, "/blobs/") == 3 && count(&seen, "Basic") == 0, "{seen:?}");

    // A token server: it gets the password, the registry the token.
    let world = World::new(RegistryOptions::default());
    server.manners(|m| *m = Manners { realm: Some(other.url()), ..Manners::default() });
    server.seen();
    world.store.ensure(&wanted).await.unwrap();
    let asked = other.seen();
    assert!(asked[0].starts_with("GET /token?service=s&scope=repository%3Ateam%2Fapp%3Apull Basic dTpw"), "{asked:?}");
    assert_eq!(count(&server.seen(), "Basic"), 0);

    // Redirects without end.
    let world = World::new(RegistryOptions::default());
    server.manners(|m| *m = Manners { basic: Some("dTpw"), redirect: Some(String::new()), ..Manners::default() });
    let endless = world.store.ensure(&wanted).await.unwrap_err();
    assert!(endless.to_string().contains("redirects"), "{endless}");
}

#[tokio::test]
async fn mirrors_are_asked_first_and_the_registry_after_them() {
    let mirror = Server::start();
    let server = Server::start();
    server.push("app", "1", &image_with("one"));
    let mirrors = BTreeMap::from([(
        format!("127.0.0.1:{}", server.port),
        vec!["http://127.0.0.1:1".to_string(), mirror.url()],
    )]);
    let world = World::new(RegistryOptions { mirrors, ..RegistryOptions::default() });
    let name = server.name("app:1");
    world.store.ensure(&want(&name, Policy::IfNotPresent)).await.unwrap();
    assert_eq!(count(&mirror.seen(), "/manifests/1"), 1);
    world.store.collect(&BTreeSet::new()).await.unwrap();
    mirror.push("app", "1", &image_with("one"));
    server.manners(|m| m.broken = true);
    world.store.ensure(&want(&name, Policy::IfNotPresent)).await.unwrap();
}

#[tokio::test]
async fn an_index_leads_to_this_machines_image() {
    let server = Server::start();
    let amd = image_with("amd64");
    let arm = image_with("arm64");
    server.blobs("app", &amd);
    server.blobs("app", &arm);
    let entry = |image: &builder::Image, arch: &str| {
        let mut descriptor = image.manifest.descriptor.clone();
        descriptor.platform = Some(Platform::new("linux", arch, None));
        descriptor
    };
    let index = limpet_oci::Index {
        schema_version: 2,
        media_type: Some(manifest::OCI_INDEX.to_string()),
        manifests: vec![entry(&arm, "arm64"), entry(&amd, "amd64")],
        subject: None,
        artifact_type: None,
        annotations: BTreeMap::new(),
    };
    let index = Blob::new(manifest::OCI_INDEX, serde_json::to_vec(&index).unwrap());
    server.put("/v2/app/manifests/1", manifest::OCI_INDEX, &index.bytes);
    let by_digest = format!("app@{}", index.descriptor.digest);
    server.put(&format!("/v2/app/manifests/{}", index.descriptor.digest), manifest::OCI_INDEX, &index.bytes);
    let world = World::new(RegistryOptions::default());
    let image = world.store.ensure(&want(&server.name("app:1"), Policy::IfNotPresent)).await.unwrap();
    assert_eq!(std::fs::read(image.layers[1].join("app")).unwrap(), b"amd64");
    // The digest of the index, which people copy from `docker pull`, names it too, and is what the status shows.
    assert_eq!(image.repo_digest, server.name(&by_digest));
    assert!(world.store.find(&server.name(&by_digest)).is_some());
    assert!(world.store.find(&server.name(&format!("app@{}", amd.manifest.descriptor.digest))).is_some());
}

#[tokio::test]
async fn two_pods_share_one_download() {
    let server = Server::start();
    server.push("app", "1", &image_with("one"));
    let world = World::new(RegistryOptions::default());
    let wanted = want(&server.name("app:1"), Policy::IfNotPresent);
    let (one, two) = tokio::join!(world.store.ensure(&wanted), world.store.ensure(&wanted));
    assert_eq!(one.unwrap().layers, two.unwrap().layers);
    assert_eq!(count(&server.seen(), "/blobs/"), 3);
}
