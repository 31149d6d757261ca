//! Images that have to be signed.

use super::*;
use crate::images::signature::{self, Key, tests::Signer};

fn trusting(dir: &std::path::Path, server: &Server, signers: &[&Signer]) -> Store {
    let keys = signers.iter().map(|s| Key::parse(s.pem().as_bytes()).unwrap()).collect();
    let policy = signature::Policy { images: format!("127.0.0.1:{}/signed/*", server.port), cosign_keys: vec![] };
    let platform = Platform::new("linux", "amd64", None);
    let registries = RegistryOptions::default();
    let trust = vec![Trust { policy, keys }];
    let dir = dir.to_path_buf();
    Store::open(Options { dir, platform, program: None, registries, pulls_at_once: Some(1), trust }).unwrap()
}

fn sign(server: &Server, signer: &Signer, digest: &Digest) {
    let (document, payload) = signer.document(digest);
    server.put(&format!("/v2/signed/app/manifests/{}", signature::tag(digest)), manifest::OCI_MANIFEST, &document);
    server.put(&format!("/v2/signed/app/blobs/{}", Digest::of(&payload)), "application/octet-stream", &payload);
}

#[tokio::test]
async fn unsigned_images_are_refused_where_a_policy_says_so() {
    let (ours, other) = (Signer::new(), Signer::new());
    let server = Server::start();
    let image = image_with("one");
    let digest = image.manifest.descriptor.digest.clone();
    server.push("signed/app", "1", &image);
    server.push("free/app", "1", &image);
    let dir = scratch("trust");
    // Pulled while there was no policy yet.
    let before = World::open(&dir, RegistryOptions::default());
    let name = server.name("signed/app:1");
    before.ensure(&want(&name, Policy::IfNotPresent)).await.unwrap();
    let store = trusting(&dir, &server, &[&ours]);
    store.ensure(&want(&server.name("free/app:1"), Policy::IfNotPresent)).await.unwrap();
    let refused = |store: Store, what: &'static str| {
        let name = name.clone();
        async move {
            for policy in [Policy::IfNotPresent, Policy::Always] {
                let error = store.ensure(&want(&name, policy)).await.expect_err(what);
                assert_eq!(error.reason(), "SignatureValidationFailed", "{what}: {error}");
                assert!(error.to_string().contains("cosign sign"), "{error}");
            }
            assert!(store.ensure(&want(&name, Policy::Never)).await.is_err(), "{what}");
        }
    };
    refused(store.clone(), "nothing is signed").await;
    sign(&server, &other, &digest);
    refused(store.clone(), "signed by another key").await;
    // A right signature of another image, under this image's tag.
    let (document, payload) = ours.document(&Digest::of(b"another"));
    server.put(&format!("/v2/signed/app/manifests/{}", signature::tag(&digest)), manifest::OCI_MANIFEST, &document);
    server.put(&format!("/v2/signed/app/blobs/{}", Digest::of(&payload)), "application/octet-stream", &payload);
    refused(store.clone(), "a signature of another image").await;
    // The payload's blob has another content than its digest says.
    sign(&server, &ours, &digest);
    let payload = signature::tests::payload(&digest);
    let path = format!("/v2/signed/app/blobs/{}", Digest::of(&payload));
    server.put(&path, "application/octet-stream", b"{}");
    refused(store.clone(), "the payload was exchanged").await;

    sign(&server, &ours, &digest);
    store.ensure(&want(&name, Policy::IfNotPresent)).await.unwrap();
    // From now on also without a registry, and by a new process.
    server.manners(|m| m.broken = true);
    trusting(&dir, &server, &[&other, &ours]).ensure(&want(&name, Policy::Never)).await.unwrap();
    // A key that is no longer trusted takes its images along.
    let rotated = trusting(&dir, &server, &[&other]);
    assert!(rotated.ensure(&want(&name, Policy::Never)).await.is_err());
    assert_eq!(rotated.ensure(&want(&name, Policy::IfNotPresent)).await.unwrap_err().reason(), "RegistryUnavailable");
    let _ = std::fs::remove_dir_all(dir);
}
