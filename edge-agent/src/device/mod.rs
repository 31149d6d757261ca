//! What this board is: its size, its names, its addresses, its clock.
//!
//! In: /proc, /sys, /etc, uname. Out: facts for the node's status and for plans.
//! Never: changes anything on the device but its AppArmor profile; fails because one fact is missing.

mod armor;
pub mod board;
pub mod cdi;
pub mod cgroups;
pub mod clock;
mod facts;
mod left;
pub mod machine;
pub mod memory;
pub mod pressure;
pub mod unnoted;

pub use clock::Clock;
pub use armor::{DEFAULT as APP_ARMOR_DEFAULT, app_armor, app_armor_profiles, load_app_armor};
pub use left::{disk_use, left};
pub use facts::{boot_id, disk_bytes, hardware, host_file, node_facts, node_name_from_host, primary_ips};
