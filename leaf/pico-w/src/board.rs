//! What is on a Pico W: a light and the processor's own thermometer.
//!
//! In: the key `led` (on, off, blink; nothing: shows how the link stands). Out: `temperature_celsius`. Never: floating point.

use alloc::{rc::Rc, string::{String, ToString}, vec, vec::Vec};
use core::cell::Cell;
use embassy_rp::adc::{Adc, Blocking, Channel};
use embassy_time::{Duration, Timer};
use limpet_leaf::{App, Condition, Config, Reading, State};

/// How the light goes: milliseconds on and off.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Rhythm(u64, u64);

const OFF: Rhythm = Rhythm(0, 1000);
const ON: Rhythm = Rhythm(1000, 0);
const BLINK: Rhythm = Rhythm(500, 500);
/// Connecting or offline: one short flash. Waiting for somebody: hurried.
const SEARCHING: Rhythm = Rhythm(50, 1950);
const WAITING: Rhythm = Rhythm(100, 100);

pub struct Pico {
    adc: Adc<'static, Blocking>,
    warmth: Channel<'static>,
    /// What the configuration says; nothing: the link's state is shown.
    told: Option<Rhythm>,
    link: Rhythm,
    shown: Rc<Cell<Rhythm>>,
}

/// The light's side: the radio's chip holds it, so that switching it has to wait for the radio.
pub struct Light {
    shown: Rc<Cell<Rhythm>>,
    on: Cell<bool>,
}

impl Light {
    /// Waits for the next change.
    pub async fn next(&self) -> bool {
        loop {
            let Rhythm(on_ms, off_ms) = self.shown.get();
            let next = !self.on.get();
            self.on.set(next);
            let lasts = if next { on_ms } else { off_ms };
            if lasts > 0 {
                // The one before has lasted long enough when this one begins.
                Timer::after(Duration::from_millis(if next { off_ms } else { on_ms })).await;
                return next;
            }
        }
    }
}

impl Pico {
    pub fn new(adc: Adc<'static, Blocking>, warmth: Channel<'static>) -> Pico {
        Pico { adc, warmth, told: None, link: SEARCHING, shown: Rc::new(Cell::new(SEARCHING)) }
    }

    pub fn light(&self) -> Light {
        Light { shown: self.shown.clone(), on: Cell::new(false) }
    }

    fn show(&self) {
        self.shown.set(self.told.unwrap_or(self.link));
    }
}

impl App for Pico {
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        let told = match config.get("led") {
            None => None,
            Some("on") => Some(ON),
            Some("off") => Some(OFF),
            Some("blink") => Some(BLINK),
            Some(_) => return Err("led is on, off or blink".to_string()),
        };
        self.told = told;
        self.show();
        Ok(())
    }

    fn measure(&mut self) -> (Vec<Reading>, Vec<Condition>) {
        let Ok(raw) = self.adc.blocking_read(&mut self.warmth) else { return (Vec::new(), Vec::new()) };
        // RP2040 datasheet, 4.9.5: 27 degrees at 706 mV, 1.721 mV less for each degree more; 3.3 V in 4096 steps.
        let microvolts = i64::from(raw) * 3_300_000 / 4096;
        let milli = 27_000 - (microvolts - 706_000) * 1000 / 1721;
        (vec![Reading::new("temperature_celsius", milli)], Vec::new())
    }

    fn state(&mut self, state: State<'_>) {
        self.link = match state {
            State::Ready => ON,
            State::Waiting(_) => WAITING,
            State::Connecting | State::Offline => SEARCHING,
        };
        self.show();
    }
}
