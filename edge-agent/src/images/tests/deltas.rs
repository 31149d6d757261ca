//! Updates by pieces, from servers that have recipes, lie about them, or have none.

use super::*;
use limpet_oci::delta;

/// A layer of 2 MiB, of which one part differs by version.
fn version(seed: u64) -> builder::Image {
    let run = Execution { entrypoint: vec!["/app".to_string()], ..Execution::default() };
    let layer = Layer::new()
        .file("same", 0o644, &noise(1_500_000, 1))
        .file("changed", 0o644, &noise(300_000, seed))
        .file("also-same", 0o755, &noise(300_000, 2));
    builder::image(&Platform::new("linux", "amd64", None), run, vec![layer]).unwrap()
}

/// What a hub makes of it; the pack's bytes.
fn offer(server: &Server, image: &builder::Image, spoil: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>)) -> usize {
    let layer = &image.layers[0];
    let mut pack = Vec::new();
    let (recipe, _) = delta::make(layer.bytes.as_slice(), &mut pack).unwrap();
    let mut recipe = recipe.encode().unwrap();
    spoil(&mut recipe, &mut pack);
    let at = |part: &str| format!("/v2/app/_limpet/{part}/{}", layer.descriptor.digest);
    server.put(&at("recipe"), "application/octet-stream", &recipe);
    server.put(&at("pack"), "application/octet-stream", &pack);
    pack.len()
}

async fn first_version(server: &Server) -> World {
    server.push("app", "1", &version(10));
    let world = World::new(RegistryOptions::default());
    world.store.ensure(&want(&server.name("app:1"), Policy::IfNotPresent)).await.unwrap();
    server.seen();
    world
}

fn blobs_of_layers(seen: &[String], image: &builder::Image) -> usize {
    count(seen, &format!("/blobs/{}", image.layers[0].descriptor.digest))
}

fn clean(world: &World) {
    for dir in ["partial", "tmp"] {
        let left: Vec<_> = std::fs::read_dir(world.dir.join(dir)).unwrap().flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test]
async fn an_update_fetches_pieces_and_no_blob() {
    let server = Server::start();
    server.manners(|m| m.recipes = true);
    let world = first_version(&server).await;
    let second = version(11);
    server.push("app", "2", &second);
    offer(&server, &second, |_, _| {});
    let image = world.store.ensure(&want(&server.name("app:2"), Policy::IfNotPresent)).await.unwrap();
    let seen = server.seen();
    assert_eq!((count(&seen, "/recipe/"), blobs_of_layers(&seen, &second)), (1, 0), "{seen:?}");
    let asked: usize = seen
        .iter()
        .filter_map(|line| line.split_once("bytes=")?.1.split_once('-'))
        .map(|(first, last)| last.parse::<usize>().unwrap() - first.parse::<usize>().unwrap() + 1)
        .sum();
    assert!((300_000..450_000).contains(&asked), "{asked} bytes for a change of 300,000");
    assert_eq!(std::fs::read(image.layers[0].join("changed")).unwrap(), noise(300_000, 11));
    assert_eq!(std::fs::read(image.layers[0].join("same")).unwrap(), noise(1_500_000, 1));
    clean(&world);
    // Another repository's image is no base, and a server that says nothing of recipes is not asked for any.
    server.manners(|m| m.recipes = false);
    let third = version(12);
    server.push("app", "3", &third);
    world.store.ensure(&want(&server.name("app:3"), Policy::IfNotPresent)).await.unwrap();
    let seen = server.seen();
    assert_eq!((count(&seen, "/_limpet/"), blobs_of_layers(&seen, &third)), (0, 1));
}

#[tokio::test]
async fn whatever_is_wrong_with_pieces_the_whole_comes() {
    type Spoil = fn(&mut Vec<u8>, &mut Vec<u8>);
    let wrong: [(&str, Spoil); 7] = [
        ("the pack has other bytes", |_, pack| pack.iter_mut().for_each(|b| *b ^= 0x55)),
        ("one byte of the pack differs", |_, pack| {
            let middle = pack.len() / 2;
            pack.iter_mut().skip(middle - 200_000).step_by(40_000).for_each(|b| *b ^= 1);
        }),
        ("the pack is short", |_, pack| pack.truncate(1000)),
        ("the recipe is no recipe", |recipe, _| *recipe = b"<html>".to_vec()),
        ("the recipe is cut", |recipe, _| recipe.truncate(100)),
        ("the recipe is of another layer", |recipe, pack| {
            pack.clear();
            *recipe = delta::make(Layer::new().file("x", 0o644, b"x").tar().as_slice(), pack).unwrap().0.encode().unwrap();
        }),
        ("the recipe is huge", |recipe, _| *recipe = vec![0; 33 << 20]),
    ];
    for (n, (what, spoil)) in wrong.into_iter().enumerate() {
        let server = Server::start();
        server.manners(|m| m.recipes = true);
        let world = first_version(&server).await;
        let second = version(20 + n as u64);
        server.push("app", "2", &second);
        offer(&server, &second, spoil);
        let image = world.store.ensure(&want(&server.name("app:2"), Policy::IfNotPresent)).await;
        let image = image.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(blobs_of_layers(&server.seen(), &second), 1, "{what}: the blob was fetched");
        let got = std::fs::read(image.layers[0].join("changed")).unwrap();
        assert!(got == noise(300_000, 20 + n as u64), "{what}");
        clean(&world);
    }
    // Nothing in common: the recipe says so, and nothing of the pack is asked for.
    let server = Server::start();
    server.manners(|m| m.recipes = true);
    let world = first_version(&server).await;
    let layer = Layer::new().file("other", 0o644, &noise(2_000_000, 99));
    let platform = Platform::new("linux", "amd64", None);
    let other = builder::image(&platform, Execution::default(), vec![layer]).unwrap();
    server.push("app", "2", &other);
    offer(&server, &other, |_, _| {});
    world.store.ensure(&want(&server.name("app:2"), Policy::IfNotPresent)).await.unwrap();
    let seen = server.seen();
    assert_eq!((count(&seen, "/pack/"), blobs_of_layers(&seen, &other)), (0, 1), "{seen:?}");
}
