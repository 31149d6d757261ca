//! What systemd-boot finds on the system's partition.
//!
//! In: a plan, a version. Out: small files. Pure.
//! Never: a menu, an editor, a wait: whoever has the keyboard of a board does not own it.

use crate::plan::Plan;

pub const LOADER: &str = "timeout 0\neditor no\nauto-entries no\n";
/// As firmware looks for it on a drive that it does not know: (architecture, name on the partition, name in the package).
pub const EFI: [(&str, &str, &str); 2] = [
    ("amd64", "EFI/BOOT/BOOTX64.EFI", "usr/lib/systemd/boot/efi/systemd-bootx64.efi"),
    ("arm64", "EFI/BOOT/BOOTAA64.EFI", "usr/lib/systemd/boot/efi/systemd-bootaa64.efi"),
];

/// Mirrored by `limpet-init`'s slots.rs.
pub fn entry(slot: &str, version: &str, plan: &Plan) -> String {
    format!(
        "title Limpet OS {version}\nsort-key limpet\nversion {version}\nlinux /limpet/{slot}/linux\ninitrd /limpet/{slot}/initrd\n\
         options {} limpet.slot={slot} limpet.version={version}\n",
        plan.kernel_command_line
    )
}
