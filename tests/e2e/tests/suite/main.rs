//! What Kubernetes' conformance suite asks of a node with running pods, in own words (docs/CONFORMANCE.md, by its names).
//!
//! In: worlds with one board and many small pods. Out: what the pods see, and what becomes of them.

mod containers;
mod living;
mod network;
mod rules;
mod volumes;
mod workloads;

use limpet_e2e::world::test;
use serde_json::json;

#[test]
fn volumes() {
    test(1, &json!({}), |world| {
        volumes::objects(world)?;
        volumes::files_of_objects(world)?;
        volumes::changes(world)?;
        volumes::downward(world)?;
        volumes::empty_directories(world)?;
        volumes::many_at_once(world)?;
        volumes::images(world)
    });
}

#[test]
fn containers() {
    test(1, &json!({"restartBackOffSecondsFirst": 1, "restartBackOffSecondsMax": 2}), |world| {
        containers::commands(world)?;
        containers::variables(world)?;
        containers::prefixes(world)?;
        containers::init_containers(world)?;
        containers::last_words(world)?;
        containers::probes(world)?;
        containers::hosts_files(world)?;
        containers::probes_on_the_boards_network(world)?;
        containers::failed_starts(world)?;
        containers::users(world)
    });
}

#[test]
fn rules() {
    test(1, &json!({}), |world| {
        rules::thresholds(world)?;
        rules::graces(world)?;
        rules::sidecars(world)?;
        rules::waits(world)
    });
}

#[test]
fn workloads() {
    test(1, &json!({"restartBackOffSecondsFirst": 1, "restartBackOffSecondsMax": 2}), |world| {
        workloads::deployments(world)?;
        workloads::stateful_sets(world)?;
        workloads::daemon_sets(world)?;
        workloads::jobs(world)?;
        workloads::placement(world)
    });
}

#[test]
fn network() {
    test(1, &json!({}), |world| {
        network::services(world)?;
        network::accounts(world)?;
        living::resizes(world)?;
        living::generations(world)
    });
}
