//! Fields of a pod, one after the other: what they say is what its programs see (docs/FIELDS.md has the list).
//!
//! In: worlds with one board. Out: files, namespaces, mounts, statuses and Events, as containers and kubectl see them.

mod files;
mod life;
mod names;
mod pages;
mod rights;
mod sources;

use limpet_e2e::world::test;
use serde_json::json;

#[test]
fn what_a_pod_sees() {
    test(1, &json!({}), |world| {
        names::names(world)?;
        names::namespaces(world)?;
        sources::variables(world)?;
        sources::optional_and_immutable(world)
    });
}

#[test]
fn what_a_pod_mounts() {
    // Before the agent counts them: a few large pages for a volume.
    let pages = pages::LargePages::reserve();
    test(1, &json!({"restartBackOffSecondsFirst": 1, "restartBackOffSecondsMax": 1}), |world| {
        files::read_only_below(world)?;
        files::travelling(world)?;
        files::paths_in_volumes(world)?;
        files::paths_of_the_board(world)?;
        files::groups(world)?;
        files::local(world)?;
        files::in_memory(world)?;
        files::blocks(world)?;
        pages::large_pages(world, &pages)
    });
}

#[test]
fn how_a_pod_lives() {
    test(1, &json!({"restartBackOffSecondsFirst": 1, "restartBackOffSecondsMax": 2}), |world| {
        life::probes(world)?;
        life::hooks(world)?;
        life::restarts(world)?;
        life::sizes(world)?;
        life::sizes_of_the_whole(world)?;
        life::ports(world)
    });
}

#[test]
fn what_a_pod_may_do() {
    test(1, &json!({"podPidsLimit": 40}), |world| {
        rights::powers(world)?;
        rights::walls(world)?;
        rights::profiles(world)?;
        rights::shares(world)?;
        rights::refusals(world)
    });
}
