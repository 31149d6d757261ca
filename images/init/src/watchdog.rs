//! The board's watchdog: fed by the main loop, so that a board that hangs restarts itself.
//!
//! In: nothing. Out: a fed watchdog, where there is one. Never: disarmed.

use std::{fs::File, io::Write};

pub struct Watchdog(Option<File>);

impl Watchdog {
    /// Opening arms it, with the time that its driver was given on the command line.
    pub fn open() -> Watchdog {
        Watchdog(std::fs::OpenOptions::new().write(true).open("/dev/watchdog").ok())
    }

    pub fn feed(&mut self) {
        if let Some(file) = &mut self.0 {
            // Any byte but 'V', which would disarm it.
            let _ = file.write_all(b".");
        }
    }
}
