//! What is on the bench: a light that a ConfigMap switches, and a sensor that counts.
//!
//! In: the keys `led` (on, off, blink) and `fault` (any text). Out: a line for each change; readings. Never: waits.

use limpet_leaf::{App, Condition, Config, Reading, State};
use std::time::Instant;

pub struct Bench {
    led: String,
    fault: Option<String>,
    asked: i64,
    since: Instant,
}

impl Default for Bench {
    fn default() -> Bench {
        Bench { led: "off".into(), fault: None, asked: 0, since: Instant::now() }
    }
}

impl App for Bench {
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        let led = config.get("led").unwrap_or("off");
        if !["on", "off", "blink"].contains(&led) {
            return Err(format!("led is on, off or blink, not {led:?}"));
        }
        eprintln!("led {led} (revision {})", config.generation);
        (self.led, self.fault) = (led.into(), config.get("fault").map(String::from));
        Ok(())
    }

    fn measure(&mut self) -> (Vec<Reading>, Vec<Condition>) {
        self.asked += 1;
        let led = if self.led == "off" { 0 } else { 1000 };
        let uptime = i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX);
        let readings = vec![
            Reading::new("led", led),
            Reading::new("measurements_total", self.asked.saturating_mul(1000)),
            Reading::new("uptime_seconds", uptime),
        ];
        let fault = self.fault.clone();
        let (reason, message) = match &fault {
            Some(text) => ("Told", text.clone()),
            None => ("NoFault", "all sensors answer".to_string()),
        };
        let condition = Condition { kind: "SensorFault".into(), holds: fault.is_some(), reason: reason.into(), message };
        (readings, vec![condition])
    }

    fn state(&mut self, state: State<'_>) {
        eprintln!("state {state:?}");
    }
}
