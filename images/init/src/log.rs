//! Lines for whoever looks at the console, and into the kernel's log.
//!
//! In: a sentence. Out: /dev/kmsg, which the kernel also prints. Never: a file on the card.

use std::{fs::OpenOptions, io::Write};

pub fn line(text: &str) {
    // 3 is an error: the level that `loglevel=4` still prints.
    let message = format!("<3>limpet: {text}\n");
    match OpenOptions::new().write(true).open("/dev/kmsg") {
        Ok(mut kmsg) => drop(kmsg.write_all(message.as_bytes())),
        Err(_) => eprintln!("limpet: {text}"),
    }
}

macro_rules! say {
    ($($word:tt)*) => { $crate::log::line(&format!($($word)*)) };
}
pub(crate) use say;
