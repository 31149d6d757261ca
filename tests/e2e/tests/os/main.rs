//! Limpet OS from the builder to a Ready node on emulated boards, through power cuts and updates.
//!
//! In: `limpet image build`, `limpet flash`, QEMU; a board's static binaries: those of `cargo xtask dist`, and for this machine's
//! own processor, where there are none, some that are built here. Out: what kubectl and the serial console show.
//! Never: KVM, or a judgement about an emulated second: times are printed, not judged.

mod life;
mod node;
mod power;
mod world;

use world::{AMD64, ARM64, run};

/// What the processor that most boards have could spoil, and no more: each of its seconds is dear where it is emulated.
#[test]
fn from_an_image_to_a_pod_that_outlives_a_power_cut_on_arm64() {
    run(&ARM64, life::short);
}

/// Everything, on the same.
#[test]
fn from_an_image_to_a_node_through_power_cuts_and_updates_on_arm64() {
    run(&ARM64, life::all);
}

/// The same on this machine's own processor, at each push: a power cut, and updates that are refused, taken and left.
#[test]
fn from_an_image_to_a_node_through_power_cuts_and_updates_on_x86_64() {
    run(&AMD64, life::all);
}

/// What a person has who writes a card today and plugs the hub in tomorrow.
#[test]
fn a_board_that_was_on_before_its_hub_joins_and_takes_the_hubs_updates() {
    run(&AMD64, life::a_late_hub);
}

/// The plug is pulled wherever chance wants it.
#[test]
fn power_cuts_at_random_points_end_in_a_booting_system() {
    let arm = std::env::var("LIMPET_POWER_BOARD").is_ok_and(|board| board == ARM64.board);
    run(if arm { &ARM64 } else { &AMD64 }, power::cuts);
}
