//! What is removed when there is no room, and what never is.

use super::*;

#[tokio::test]
async fn collection_keeps_what_is_wanted() {
    let server = Server::start();
    server.push("a", "1", &image_with("one"));
    server.push("b", "1", &image_with("two"));
    let world = World::new(RegistryOptions::default());
    let (a, b) = (server.name("a:1"), server.name("b:1"));
    world.store.ensure(&want(&a, Policy::IfNotPresent)).await.unwrap();
    let kept = world.store.ensure(&want(&b, Policy::IfNotPresent)).await.unwrap();
    let orphan = world.dir.join("layers").join("0".repeat(32));
    std::fs::create_dir_all(&orphan).unwrap();
    // A pod waits for an image: files of no image may be a part of it.
    let keep = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    let all = world.store.collect(&keep(&[&a, &kept.id, "waiting.example/x"])).await.unwrap();
    assert_eq!((all.images, all.layers), (0, 0));
    assert!(orphan.exists());
    let one = world.store.collect(&keep(&[&kept.id])).await.unwrap();
    assert_eq!((one.images, one.layers, orphan.exists()), (1, 2, false), "its own layer and the orphan");
    assert!(world.store.find(&a).is_none());
    assert!(world.store.find(&b).unwrap().layers.iter().all(|l| l.is_dir()));
    // A layer that vanished makes the image absent, and the next pull heals it.
    std::fs::remove_dir_all(kept.layers[1].parent().unwrap()).unwrap();
    assert!(world.store.find(&b).is_none());
    world.store.ensure(&want(&b, Policy::IfNotPresent)).await.unwrap();
    assert!(world.store.find(&b).is_some());
}

/// What no registry has stays, however full the disk: there is no other copy.
#[tokio::test]
async fn collection_keeps_what_could_not_be_pulled_again() {
    let server = Server::start();
    for name in ["gone", "private", "there"] {
        server.push(name, "1", &image_with(name));
    }
    let world = World::new(RegistryOptions::default());
    for name in ["gone", "private", "there"] {
        world.store.ensure(&want(&server.name(&format!("{name}:1")), Policy::IfNotPresent)).await.unwrap();
    }
    server.manners(|m| m.broken = true);
    let away = world.store.collect(&BTreeSet::new()).await.unwrap();
    assert_eq!((away.images, away.last_of_their_kind), (0, 3), "a registry that is away confirms nothing");
    server.manners(|m| m.broken = false);
    server.state.lock().unwrap().content.retain(|path, _| !path.starts_with("/v2/gone/"));
    let some = world.store.collect(&BTreeSet::new()).await.unwrap();
    assert_eq!((some.images, some.last_of_their_kind), (2, 1));
    let gone = world.store.find(&server.name("gone:1")).unwrap();
    assert!(gone.layers.iter().all(|l| l.is_dir()), "with all its layers");
    // A registry that asks who wants to know has it for those who may.
    world.store.ensure(&want(&server.name("private:1"), Policy::IfNotPresent)).await.unwrap();
    server.manners(|m| m.basic = Some("eDp5"));
    let private = world.store.collect(&BTreeSet::from([server.name("gone:1")])).await.unwrap();
    assert_eq!((private.images, private.last_of_their_kind), (1, 0));
}

/// A disk that fills: one after the other in the order given, no more than is needed, and past the one that has no registry.
#[tokio::test]
async fn collection_ends_when_there_is_room() {
    let server = Server::start();
    let world = World::new(RegistryOptions::default());
    let mut ids = Vec::new();
    for name in ["pod", "gone", "b", "a", "c"] {
        server.push(name, "1", &image_with(name));
        ids.push(world.store.ensure(&want(&server.name(&format!("{name}:1")), Policy::IfNotPresent)).await.unwrap().id);
    }
    server.state.lock().unwrap().content.retain(|path, _| !path.starts_with("/v2/gone/"));
    let there = || ["pod", "gone", "b", "a", "c"].map(|name| world.store.find(&server.name(&format!("{name}:1"))).is_some());
    let keep = BTreeSet::from([server.name("pod:1")]);
    let order = || ids[1..].to_vec();
    let none = world.store.collect_until(&keep, order(), || true).await.unwrap();
    assert_eq!((none.images, there()), (0, [true; 5]));
    let two = world.store.collect_until(&keep, order(), || there()[3..] == [false, true]).await.unwrap();
    assert_eq!((two.images, two.last_of_their_kind, two.busy), (2, 1, false));
    assert_eq!(there(), [true, true, false, false, true]);
    let left = vec![ids[1].clone(), ids[4].clone()];
    let all = world.store.collect_until(&keep, left, || false).await.unwrap();
    assert_eq!((all.images, all.last_of_their_kind), (1, 1));
    assert_eq!(there(), [true, true, false, false, false]);
}
