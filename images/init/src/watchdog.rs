//! The board's watchdog: fed by the main loop, so that a board that hangs restarts itself.
//!
//! In: nothing. Out: a fed watchdog, where there is one. Never: disarmed.

use std::{fs::File, io::Write};

pub struct Watchdog(Option<File>);

impl Watchdog {
    /// Opening arms it, with its driver's time. `limpet.watchdog=0` on the command line leaves it alone: for looking for faults,
    /// and for emulators whose watchdog bites at once.
    pub fn open(word: Option<&str>) -> Watchdog {
        let wanted = word != Some("0");
        Watchdog(wanted.then(|| std::fs::OpenOptions::new().write(true).open("/dev/watchdog").ok()).flatten())
    }

    pub fn feed(&mut self) {
        if let Some(file) = &mut self.0 {
            // Any byte but 'V', which would disarm it.
            let _ = file.write_all(b".");
        }
    }
}
