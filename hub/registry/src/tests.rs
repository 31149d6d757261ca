//! The service as clients see it: push, pull, list, delete, and everything that must be refused.
//!
//! In: requests made here. Out: statuses, headers, bodies, and files on disk.

use super::*;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use limpet_oci::builder::{self, Layer};
use limpet_oci::config::Execution;
use limpet_oci::{Digest, Platform, manifest};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

struct World {
    registry: Registry,
    dir: PathBuf,
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_string()
    }
}

/// admin may everything, a node may pull, everybody may pull from `public/`.
fn allow() -> Allow {
    Arc::new(|identity, action, repository| match (identity.map(|i| i.user.as_str()), action) {
        (Some("admin"), _) => true,
        (Some("node"), Action::Pull) => true,
        (_, Action::Pull) => repository.starts_with("public/"),
        _ => false,
    })
}

impl World {
    fn new() -> World {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("limpet-registry-{}-{n}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        World { registry: Registry::open(&dir, allow()).unwrap(), dir }
    }

    async fn ask(&self, user: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        let identity = (!user.is_empty()).then(|| Identity { user: user.to_string(), groups: Vec::new() });
        let (head, body) = self.registry.handle(request, identity).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: head.status, headers: head.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("admin", "GET", path, &[], b"").await
    }

    async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Answer {
        let path = format!("/v2/{repository}/blobs/uploads/?digest={}", Digest::of(bytes));
        self.ask("admin", "POST", &path, &[], bytes).await
    }

    async fn push(&self, repository: &str, tag: &str, image: &builder::Image) {
        for blob in image.layers.iter().chain([&image.config]) {
            assert_eq!(self.push_blob(repository, &blob.bytes).await.status, StatusCode::CREATED);
        }
        let path = format!("/v2/{repository}/manifests/{tag}");
        let headers = [("content-type", manifest::OCI_MANIFEST)];
        let put = self.ask("admin", "PUT", &path, &headers, &image.manifest.bytes).await;
        assert_eq!(put.status, StatusCode::CREATED, "{}", String::from_utf8_lossy(&put.body));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn image(text: &str) -> builder::Image {
    let layer = Layer::new().file("app", 0o755, text.as_bytes());
    builder::image(&Platform::new("linux", "amd64", None), Execution::default(), vec![layer]).unwrap()
}

#[tokio::test]
async fn push_pull_and_again_after_a_restart() {
    let mut world = World::new();
    let image = image("one");
    world.push("team/app", "v1", &image).await;
    world.registry = Registry::open(&world.dir, allow()).unwrap();
    let by_tag = world.get("/v2/team/app/manifests/v1").await;
    assert_eq!(by_tag.body, image.manifest.bytes);
    assert_eq!(by_tag.header("content-type"), manifest::OCI_MANIFEST);
    let digest = image.manifest.descriptor.digest.to_string();
    assert_eq!(by_tag.header("docker-content-digest"), digest);
    let head = world.ask("node", "HEAD", &format!("/v2/team/app/manifests/{digest}"), &[], b"").await;
    assert_eq!(head.header("content-length"), image.manifest.bytes.len().to_string());
    assert!(head.body.is_empty());
    let layer = &image.layers[0];
    let path = format!("/v2/team/app/blobs/{}", layer.descriptor.digest);
    assert_eq!(world.get(&path).await.body, layer.bytes);
    let part = world.ask("node", "GET", &path, &[("range", "bytes=10-")], b"").await;
    assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &layer.bytes[10..]));
    assert_eq!(part.header("content-range"), format!("bytes 10-{}/{}", layer.bytes.len() - 1, layer.bytes.len()));
    let past = world.ask("node", "GET", &path, &[("range", "bytes=99999999-")], b"").await;
    assert_eq!(past.status, StatusCode::RANGE_NOT_SATISFIABLE);
    let head = world.ask("node", "HEAD", &path, &[], b"").await;
    assert_eq!((head.status, head.header("content-length")), (StatusCode::OK, layer.bytes.len().to_string().as_str()));
}

#[tokio::test]
async fn uploads_in_chunks() {
    let world = World::new();
    let begun = world.ask("admin", "POST", "/v2/a/blobs/uploads/", &[], b"").await;
    assert_eq!(begun.status, StatusCode::ACCEPTED);
    let location = begun.header("location").to_string();
    let chunk = |range: &'static str| [("content-range", range)];
    let first = world.ask("admin", "PATCH", &location, &chunk("0-4"), b"hello").await;
    assert_eq!((first.status, first.header("range")), (StatusCode::ACCEPTED, "0-4"));
    let gap = world.ask("admin", "PATCH", &location, &chunk("9-12"), b"gap!").await;
    assert_eq!((gap.status, gap.header("range")), (StatusCode::RANGE_NOT_SATISFIABLE, "0-4"));
    let status = world.ask("admin", "GET", &location, &[], b"").await;
    assert_eq!((status.status, status.header("range")), (StatusCode::NO_CONTENT, "0-4"));
    let other_repository = location.replace("/a/", "/b/");
    assert_eq!(world.ask("admin", "GET", &other_repository, &[], b"").await.code(), "BLOB_UPLOAD_UNKNOWN");
    let end = format!("{location}?digest={}", Digest::of(b"hello world"));
    let put = world.ask("admin", "PUT", &end, &chunk("5-10"), b" world").await;
    assert_eq!(put.status, StatusCode::CREATED, "{}", String::from_utf8_lossy(&put.body));
    assert_eq!(world.get(put.header("location")).await.body, b"hello world");
    assert_eq!(world.ask("admin", "GET", &location, &[], b"").await.code(), "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(std::fs::read_dir(world.dir.join("registry/uploads")).unwrap().count(), 0);
}

#[tokio::test]
async fn wrong_content_is_not_kept() {
    let world = World::new();
    let path = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(b"right"));
    let wrong = world.ask("admin", "POST", &path, &[], b"wrong").await;
    assert_eq!((wrong.status, wrong.code().as_str()), (StatusCode::BAD_REQUEST, "DIGEST_INVALID"));
    assert_eq!(world.get(&format!("/v2/a/blobs/{}", Digest::of(b"right"))).await.code(), "BLOB_UNKNOWN");
    assert_eq!(world.get(&format!("/v2/a/blobs/{}", Digest::of(b"wrong"))).await.code(), "BLOB_UNKNOWN");
    let begun = world.ask("admin", "POST", "/v2/a/blobs/uploads/", &[], b"").await;
    let gone = world.ask("admin", "DELETE", begun.header("location"), &[], b"").await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(std::fs::read_dir(world.dir.join("registry/uploads")).unwrap().count(), 0);
    let image = image("one");
    for (body, reference, code) in [
        (&image.manifest.bytes[..], "v1", "MANIFEST_BLOB_UNKNOWN"),
        (b"{}", "v1", "MANIFEST_INVALID"),
        (b"", "v1", "MANIFEST_INVALID"),
        (&image.manifest.bytes[..], "-bad", "MANIFEST_INVALID"),
        (&image.manifest.bytes[..], "sha256:00", "DIGEST_INVALID"),
        (&vec![b' '; 5 << 20], "v1", "SIZE_INVALID"),
    ] {
        let put = world.ask("admin", "PUT", &format!("/v2/a/manifests/{reference}"), &[], body).await;
        assert_eq!(put.code(), code, "{reference}");
    }
    let pinned = format!("/v2/a/manifests/{}", Digest::of(b"other"));
    assert_eq!(world.ask("admin", "PUT", &pinned, &[], &image.manifest.bytes).await.code(), "DIGEST_INVALID");
    assert_eq!(world.get("/v2/a/tags/list").await.code(), "NAME_UNKNOWN");
}

#[tokio::test]
async fn the_callback_decides() {
    let world = World::new();
    world.push("team/app", "v1", &image("one")).await;
    world.push("public/app", "v1", &image("one")).await;
    for (user, method, path, status) in [
        ("", "GET", "/v2/", 401),
        ("node", "GET", "/v2/", 200),
        ("", "GET", "/v2/team/app/manifests/v1", 401),
        ("", "GET", "/v2/public/app/manifests/v1", 200),
        ("node", "GET", "/v2/team/app/manifests/v1", 200),
        ("node", "PUT", "/v2/team/app/manifests/v1", 403),
        ("node", "DELETE", "/v2/team/app/manifests/v1", 403),
        ("node", "POST", "/v2/team/app/blobs/uploads/", 403),
        ("", "POST", "/v2/public/app/blobs/uploads/", 401),
        ("", "GET", "/v2/_catalog", 401),
        ("node", "GET", "/v2/_catalog", 403),
        ("admin", "POST", "/v2/_catalog", 405),
        ("admin", "PATCH", "/v2/a/manifests/x", 405),
        ("admin", "GET", "/v2/../../etc/passwd/manifests/x", 400),
        ("admin", "GET", "/v2/a/blobs/sha256:..", 400),
        ("admin", "GET", "/elsewhere", 404),
    ] {
        let answer = world.ask(user, method, path, &[], b"").await;
        assert_eq!(answer.status.as_u16(), status, "{user} {method} {path}");
        assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401, "{user} {method} {path}");
    }
    // A blob of a private repository is not seen by way of a public one, and cannot be mounted by who may not pull it.
    let secret = Digest::of(b"secret");
    world.push_blob("team/app", b"secret").await;
    assert_eq!(world.ask("", "GET", &format!("/v2/public/app/blobs/{secret}"), &[], b"").await.code(), "BLOB_UNKNOWN");
}

#[tokio::test]
async fn mounts_tags_catalog_and_deletion() {
    let world = World::new();
    let image = image("one");
    world.push("a", "v1", &image).await;
    let layer = image.layers[0].descriptor.digest.to_string();
    let mount = format!("/v2/b/blobs/uploads/?mount={layer}&from=a");
    let mounted = world.ask("admin", "POST", &mount, &[], b"").await;
    assert_eq!(mounted.status, StatusCode::CREATED);
    assert_eq!(world.get(mounted.header("location")).await.body, image.layers[0].bytes);
    let not_there = format!("/v2/b/blobs/uploads/?mount={}&from=a", Digest::of(b"nothing"));
    assert_eq!(world.ask("admin", "POST", &not_there, &[], b"").await.status, StatusCode::ACCEPTED);

    for tag in ["v2", "v3", "v10"] {
        world.push("a", tag, &image).await;
    }
    let page = world.get("/v2/a/tags/list?n=2").await;
    assert_eq!(page.json()["tags"], serde_json::json!(["v1", "v10"]));
    assert_eq!(page.header("link"), "</v2/a/tags/list?n=2&last=v10>; rel=\"next\"");
    let rest = world.get("/v2/a/tags/list?n=9&last=v10").await;
    assert_eq!(rest.json()["tags"], serde_json::json!(["v2", "v3"]));
    world.push("x/y/z", "v1", &image).await;
    assert_eq!(world.get("/v2/_catalog").await.json()["repositories"], serde_json::json!(["a", "b", "x/y/z"]));

    let delete = |path: String| async move { path };
    let tag = delete("/v2/a/manifests/v2".to_string()).await;
    assert_eq!(world.ask("admin", "DELETE", &tag, &[], b"").await.status, StatusCode::ACCEPTED);
    assert_eq!(world.get("/v2/a/manifests/v2").await.code(), "MANIFEST_UNKNOWN");
    assert_eq!(world.get("/v2/a/manifests/v3").await.status, StatusCode::OK);
    let all = format!("/v2/a/manifests/{}", image.manifest.descriptor.digest);
    assert_eq!(world.ask("admin", "DELETE", &all, &[], b"").await.status, StatusCode::ACCEPTED);
    assert_eq!(world.get("/v2/a/tags/list").await.json()["tags"], serde_json::json!([]));
    // Content stays as long as somebody has it.
    assert_eq!(world.registry.sweep().await.unwrap().blobs, 0);
    for repository in ["a", "b", "x/y/z"] {
        let path = format!("/v2/{repository}/blobs/{layer}");
        assert_eq!(world.ask("admin", "DELETE", &path, &[], b"").await.status, StatusCode::ACCEPTED);
    }
    assert_eq!(world.registry.sweep().await.unwrap().blobs, 1);
}

#[tokio::test]
async fn referrers_of_a_manifest() {
    let world = World::new();
    let image = image("one");
    world.push("a", "v1", &image).await;
    world.push_blob("a", b"{}").await;
    let subject = serde_json::to_value(&image.manifest.descriptor).unwrap();
    let signature = serde_json::json!({
        "schemaVersion": 2, "mediaType": manifest::OCI_MANIFEST, "artifactType": "application/x-signature",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}"), "size": 2},
        "layers": [], "subject": subject, "annotations": {"by": "me"},
    });
    let put = world.ask("admin", "PUT", "/v2/a/manifests/sig", &[], signature.to_string().as_bytes()).await;
    let digest = image.manifest.descriptor.digest.to_string();
    assert_eq!((put.status, put.header("oci-subject")), (StatusCode::CREATED, digest.as_str()));
    let list = world.get(&format!("/v2/a/referrers/{digest}")).await;
    assert_eq!(list.header("content-type"), manifest::OCI_INDEX);
    assert_eq!(list.json()["manifests"][0]["artifactType"], "application/x-signature");
    assert_eq!(list.json()["manifests"][0]["annotations"]["by"], "me");
    let none = world.get(&format!("/v2/a/referrers/{digest}?artifactType=x")).await;
    assert_eq!((none.json()["manifests"].as_array().unwrap().len(), none.header("oci-filters-applied")), (0, "artifactType"));
    let unknown = world.get(&format!("/v2/a/referrers/{}", Digest::of(b"?"))).await;
    assert_eq!((unknown.status, unknown.json()["manifests"].as_array().unwrap().len()), (StatusCode::OK, 0));
    let sig = Digest::of(signature.to_string().as_bytes());
    world.ask("admin", "DELETE", &format!("/v2/a/manifests/{sig}"), &[], b"").await;
    assert_eq!(world.get(&format!("/v2/a/referrers/{digest}")).await.json()["manifests"], serde_json::json!([]));
}

#[tokio::test]
async fn recipes_of_layers() {
    let world = World::new();
    let mut noise = vec![0u8; 3 << 20];
    let mut state = 88172645463325252u64;
    for chunk in noise.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes());
    }
    let layer = builder::gzip(&Layer::new().file("big", 0o644, &noise).tar());
    let digest = Digest::of(&layer);
    world.push_blob("app", &layer).await;
    let at = |part: &str| format!("/v2/app/_limpet/{part}/{digest}");
    assert_eq!(world.ask("node", "GET", &at("pack"), &[], b"").await.status, StatusCode::NOT_FOUND, "the recipe comes first");
    assert_eq!(world.ask("nobody", "GET", &at("recipe"), &[], b"").await.status, StatusCode::FORBIDDEN);
    let other = format!("/v2/other/_limpet/recipe/{digest}");
    assert_eq!(world.ask("node", "GET", &other, &[], b"").await.status, StatusCode::NOT_FOUND, "not of this repository");
    let answer = world.ask("node", "GET", &at("recipe"), &[], b"").await;
    assert_eq!(answer.status, StatusCode::OK);
    let recipe = limpet_oci::delta::Recipe::decode(&answer.body).unwrap();
    let last = recipe.packed().last().unwrap();
    let range = format!("bytes={}-{}", last.offset, last.offset + u64::from(last.packed) - 1);
    let answer = world.ask("node", "GET", &at("pack"), &[("Range", &range)], b"").await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::PARTIAL_CONTENT, last.packed as usize));
    // What is no layer, or small, has none; that costs the work once.
    for bytes in [noise.clone(), b"small".to_vec()] {
        let mut bytes = bytes;
        bytes.splice(..0, [0x1f, 0x8b]);
        world.push_blob("app", &bytes).await;
        let path = format!("/v2/app/_limpet/recipe/{}", Digest::of(&bytes));
        for _ in 0..2 {
            assert_eq!(world.ask("node", "GET", &path, &[], b"").await.status, StatusCode::NOT_FOUND);
        }
    }
    let files = || std::fs::read_dir(world.dir.join("registry/recipes")).unwrap().count();
    assert_eq!(files(), 3);
    world.ask("admin", "DELETE", &format!("/v2/app/blobs/{digest}"), &[], b"").await;
    world.registry.sweep().await.unwrap();
    assert_eq!(files(), 1, "recipes go with their blobs");
}

/// A fleet that asks at once for a recipe that is not made yet gets it, and other requests are answered meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_ask_for_a_recipe_at_once() {
    let world = Arc::new(World::new());
    let numbers = (0..500_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes());
    let layer = Layer::new().file("big", 0o644, &numbers.collect::<Vec<_>>()).tar();
    let digest = Digest::of(&layer);
    world.push_blob("app", &layer).await;
    let path = format!("/v2/app/_limpet/recipe/{digest}");
    let asks: Vec<_> = (0..600)
        .map(|_| {
            let (world, path) = (world.clone(), path.clone());
            tokio::spawn(async move { world.ask("node", "GET", &path, &[], b"").await.status })
        })
        .collect();
    assert_eq!(world.get("/v2/app/tags/list").await.status, StatusCode::OK);
    for ask in asks {
        assert_eq!(ask.await.unwrap(), StatusCode::OK);
    }
    assert_eq!(std::fs::read_dir(world.dir.join("registry/recipes")).unwrap().count(), 2);
}
