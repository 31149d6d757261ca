//! Images that are here because of one pod's credentials, and pods that have others or none.

use super::*;

fn secret(server: &Server, password: &str) -> Vec<u8> {
    format!(r#"{{"auths":{{"127.0.0.1:{}":{{"username":"u","password":"{password}"}}}}}}"#, server.port).into_bytes()
}

#[tokio::test]
async fn a_private_image_is_not_everybodys() {
    let server = Server::start();
    server.push("private", "1", &image_with("private"));
    server.push("public", "1", &image_with("public"));
    let world = World::new(RegistryOptions::default());
    let wanted = |name: &str, policy: Policy, pull_secrets: Vec<Vec<u8>>| {
        Want { pull_secrets, ..want(&server.name(name), policy) }
    };
    // Pulled with a secret that nobody asked for: it is everybody's.
    let ours = secret(&server, "p");
    world.store.ensure(&wanted("public:1", Policy::IfNotPresent, vec![ours.clone()])).await.unwrap();
    server.manners(|m| m.basic = Some("dTpw"));
    // Of two secrets the first is out of date: the second is tried, and that one alone counts as let in.
    let both = vec![secret(&server, "wrong"), ours.clone()];
    world.store.ensure(&wanted("private:1", Policy::IfNotPresent, both)).await.unwrap();
    server.seen();
    world.store.ensure(&wanted("public:1", Policy::IfNotPresent, vec![])).await.unwrap();
    world.store.ensure(&wanted("private:1", Policy::IfNotPresent, vec![ours.clone()])).await.unwrap();
    assert_eq!(server.seen(), Vec::<String>::new(), "nobody is asked about what is known");
    for policy in [Policy::IfNotPresent, Policy::Never, Policy::Always] {
        let error = world.store.ensure(&wanted("private:1", policy, vec![])).await.unwrap_err();
        assert!(error.to_string().contains("pull secret"), "{policy:?}: {error}");
        let wrong = wanted("private:1", policy, vec![secret(&server, "wrong")]);
        let error = world.store.ensure(&wrong).await.unwrap_err();
        assert!(error.to_string().contains("401"), "{policy:?}: {error}");
    }
    // Other credentials that are good, too: tried once, then known, also to the next process.
    server.manners(|m| m.basic = Some("dTpx"));
    let other = secret(&server, "q");
    world.store.ensure(&wanted("private:1", Policy::IfNotPresent, vec![other.clone()])).await.unwrap();
    server.manners(|m| m.broken = true);
    server.seen();
    let store = World::open(&world.dir, RegistryOptions::default());
    for known in [&ours, &other] {
        store.ensure(&wanted("private:1", Policy::IfNotPresent, vec![known.clone()])).await.unwrap();
    }
    assert_eq!(server.seen(), Vec::<String>::new());
    // Offline: a pod that names a secret for this registry starts, one without does not.
    for policy in [Policy::IfNotPresent, Policy::Always] {
        let new = store.ensure(&wanted("private:1", policy, vec![secret(&server, "rotated")])).await.unwrap();
        assert!(new.unverified);
        assert!(store.ensure(&wanted("private:1", policy, vec![])).await.is_err(), "{policy:?}");
        store.ensure(&wanted("public:1", policy, vec![])).await.unwrap();
    }
    // Its owner opens it to all.
    server.manners(|m| *m = Manners::default());
    store.ensure(&wanted("private:1", Policy::Always, vec![])).await.unwrap();
    server.manners(|m| m.broken = true);
    store.ensure(&wanted("private:1", Policy::IfNotPresent, vec![])).await.unwrap();
    let text = std::fs::read_to_string(world.dir.join("index")).unwrap();
    assert!(!text.contains("dTpw") && !text.contains("\"p\""), "credentials are not kept: {text}");
}
