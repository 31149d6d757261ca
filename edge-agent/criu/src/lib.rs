//! The crate `rust-criu` for everything that this workspace links: the container library asks CRIU for checkpoints with it,
//! which the agent never wants. The real one brings a compiler for protocol buffers, for each build.
//!
//! In: the container library's calls. Out: one error, before it has done anything. Never: a checkpoint.

use std::os::fd::RawFd;

/// What CRIU would do with groups; a field of the container library's options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgMode {
    DEFAULT,
}

/// Nobody retries: another build of the agent would be needed.
#[derive(Debug, thiserror::Error)]
pub enum CriuError {
    #[error("this agent is built without checkpoints of containers")]
    Absent,
}

/// There is none, so what it could be told is never told.
#[derive(Debug)]
pub enum Criu {}

macro_rules! told {
    ($($name:ident($($kind:ty),*);)*) => {
        /// Of CRIU's options those that the container library sets.
        impl Criu {
            $(pub fn $name(&mut self, $(_: $kind),*) {
                match *self {}
            })*
        }
    };
}

told! {
    add_external(String);
    cgroups_mode(CgMode);
    set_ext_unix_sk(bool);
    set_external_mount(String, String);
    set_file_locks(bool);
    set_images_dir_fd(RawFd);
    set_leave_running(bool);
    set_link_remap(bool);
    set_log_file(String);
    set_log_level(i32);
    set_manage_cgroups(bool);
    set_orphan_pts_master(bool);
    set_pid(i32);
    set_root(String);
    set_shell_job(bool);
    set_tcp_established(bool);
    set_work_dir_fd(RawFd);
}

impl Criu {
    pub fn new() -> Result<Criu, CriuError> {
        Err(CriuError::Absent)
    }

    pub fn get_criu_version(&mut self) -> Result<u32, CriuError> {
        match *self {}
    }

    pub fn dump(&mut self) -> Result<(), CriuError> {
        match *self {}
    }
}

/// The name by which a restored container would find a namespace again.
pub fn criu_ns_to_key(namespace: &str) -> String {
    namespace.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_a_checkpoint_hears_why_there_is_none() {
        let why = Criu::new().unwrap_err().to_string();
        assert!(why.contains("without checkpoints"), "{why}");
    }
}
