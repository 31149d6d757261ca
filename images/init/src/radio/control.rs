//! The supplicant's control socket: datagrams of text.
//!
//! In: a path. Out: answers, and events as they happen. What networks in reach say of themselves is in them: bounded here,
//! doubted in sight.rs. Never: a wait without an end.

use std::{
    io,
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

/// The supplicant's own bound for an answer.
const MESSAGE_BYTES_MAX: usize = 8192;
const ANSWER: Duration = Duration::from_secs(2);
/// Events that are kept while an answer is waited for.
const KEPT_MAX: usize = 100;

pub struct Control {
    socket: UnixDatagram,
    kept: Vec<String>,
}

impl Control {
    pub fn open(path: &str, own: &str) -> io::Result<Control> {
        let _ = std::fs::remove_file(own);
        let socket = UnixDatagram::bind(own)?;
        socket.connect(path)?;
        let mut control = Control { socket, kept: Vec::new() };
        match control.ask("ATTACH").as_deref() {
            Some("OK") => Ok(control),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn receive(&self, wait: Duration) -> Option<String> {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        self.socket.set_read_timeout(Some(wait.max(Duration::from_millis(1)))).ok()?;
        let n = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..n]).trim_end().to_string())
    }

    pub fn ask(&mut self, question: &str) -> Option<String> {
        self.socket.send(question.as_bytes()).ok()?;
        let begun = Instant::now();
        while let Some(left) = ANSWER.checked_sub(begun.elapsed()) {
            match self.receive(left)? {
                event if is_event(&event) && self.kept.len() < KEPT_MAX => self.kept.push(event),
                event if is_event(&event) => {}
                answer => return Some(answer),
            }
        }
        None
    }

    /// What happened; waits for something at most so long.
    pub fn events(&mut self, wait: Duration) -> Vec<String> {
        let mut all = std::mem::take(&mut self.kept);
        if all.is_empty() {
            all.extend(self.receive(wait));
        }
        while all.len() < KEPT_MAX
            && let Some(more) = self.receive(Duration::ZERO)
        {
            all.push(more);
        }
        all.retain(|e| is_event(e));
        all
    }
}

/// `<3>CTRL-EVENT-…`
fn is_event(text: &str) -> bool {
    text.starts_with('<')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_events() {
        let dir = tempfile::tempdir().unwrap();
        let (path, own) = (dir.path().join("c"), dir.path().join("own"));
        let other = UnixDatagram::bind(&path).unwrap();
        let (path, own) = (path.to_str().unwrap().to_string(), own.to_str().unwrap().to_string());
        let to = own.clone();
        let server = std::thread::spawn(move || {
            let mut asked = Vec::new();
            let mut buffer = [0; 100];
            for _ in 0..2 {
                let n = other.recv(&mut buffer).unwrap();
                asked.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
                other.send_to(b"<3>CTRL-EVENT-SCAN-STARTED ", &to).unwrap();
                other.send_to(b"OK\n", &to).unwrap();
            }
            asked
        });
        let mut control = Control::open(&path, &own).unwrap();
        assert_eq!(control.ask("STATUS").as_deref(), Some("OK"));
        assert_eq!(server.join().unwrap(), ["ATTACH", "STATUS"]);
        assert_eq!(control.events(Duration::ZERO), ["<3>CTRL-EVENT-SCAN-STARTED"; 2]);
        assert!(control.events(Duration::ZERO).is_empty());
    }
}
