//! The store and its card: what is only looked at leaves no trace there, and what the card has spoiled comes anew.
//!
//! In: a pulled image; times of access made old, files made wrong. Out: which files were read or changed, what `ensure` says.

use super::*;

/// Makes the times of access of all below it two days old, so that `relatime` writes down the next.
fn age(dir: &std::path::Path) {
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 86_400);
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let times = std::fs::FileTimes::new().set_accessed(old);
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => age(&entry.path()),
            kind if kind.is_file() => std::fs::File::open(entry.path()).unwrap().set_times(times).unwrap(),
            _ => {}
        }
    }
}

/// Files below it that were read since they were made old.
fn read_since(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let day = std::time::Duration::from_secs(86_400);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let about = entry.metadata().unwrap();
        if about.is_dir() {
            found.extend(read_since(&entry.path()));
        } else if about.is_file() && about.accessed().unwrap().elapsed().unwrap_or_default() < day {
            found.push(entry.path());
        }
    }
    found
}

#[tokio::test]
async fn looking_for_an_image_leaves_no_time_of_access_on_the_card() {
    let server = Server::start();
    server.push("demo/app", "1", &image_with("one"));
    let world = World::new(RegistryOptions::default());
    let name = server.name("demo/app:1");
    world.store.ensure(&want(&name, Policy::IfNotPresent)).await.unwrap();
    age(&world.dir);
    assert_eq!(read_since(&world.dir), Vec::<std::path::PathBuf>::new());
    assert!(world.store.find(&name).is_some());
    world.store.ensure(&want(&name, Policy::IfNotPresent)).await.unwrap();
    world.store.ensure(&want(&name, Policy::Always)).await.unwrap();
    assert_eq!(read_since(&world.dir), Vec::<std::path::PathBuf>::new());
    // The file system under the test notes times of access at all, or nothing was shown.
    let file = world.dir.join("index");
    std::fs::read(&file).unwrap();
    if read_since(&world.dir) != [file] {
        println!("skipped: no times of access on {}", world.dir.display());
    }
}

#[tokio::test]
async fn who_only_looks_leaves_a_pull_under_way_alone() {
    let server = Server::start();
    server.push("demo/app", "1", &image_with("one"));
    let world = World::new(RegistryOptions::default());
    let name = server.name("demo/app:1");
    world.store.ensure(&want(&name, Policy::IfNotPresent)).await.unwrap();
    let half = world.dir.join("tmp/1-1");
    std::fs::create_dir(&half).unwrap();
    let names: Vec<String> = listed(&world.dir).into_iter().flat_map(|image| image.names).collect();
    assert!(names.contains(&name), "{names:?}");
    assert!(half.is_dir());
    let nowhere = world.dir.join("nowhere");
    assert!(listed(&nowhere).is_empty() && !nowhere.exists());
}

#[tokio::test]
async fn what_a_bad_card_has_spoiled_comes_anew() {
    let server = Server::start();
    server.push("demo/app", "1", &image_with("one"));
    let world = World::new(RegistryOptions::default());
    let name = server.name("demo/app:1");
    let image = world.store.ensure(&want(&name, Policy::IfNotPresent)).await.unwrap();
    let layer = image.layers[1].parent().unwrap();
    for spoil in [|meta: &std::path::Path| std::fs::write(meta, b""), |meta: &std::path::Path| std::fs::remove_file(meta)] {
        spoil(&layer.join("meta")).unwrap();
        std::fs::write(layer.join("fs/app"), b"rubbish").unwrap();
        assert!(world.store.find(&name).is_none());
        let again = world.store.ensure(&want(&name, Policy::IfNotPresent)).await.unwrap();
        assert!(again.pulled);
        assert_eq!(std::fs::read(again.layers[1].join("app")).unwrap(), b"one");
    }
    for blob in std::fs::read_dir(world.dir.join("blobs")).unwrap() {
        std::fs::write(blob.unwrap().path(), b"{}").unwrap();
    }
    assert!(world.store.find(&name).is_none());
    assert!(world.store.ensure(&want(&name, Policy::IfNotPresent)).await.unwrap().pulled);
    assert!(world.store.find(&name).is_some());
    // What was there may be at work still; it goes when the agent starts.
    assert_eq!(std::fs::read_dir(world.dir.join("tmp")).unwrap().count(), 2);
    World::open(&world.dir, RegistryOptions::default());
    assert_eq!(std::fs::read_dir(world.dir.join("tmp")).unwrap().count(), 0);
}
