//! How fast images may come: a board's link is also its pods'.
//!
//! In: bytes that arrived, of all pulls together. Out: a wait. Never: a burst saved up from a quiet time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug, Default)]
pub struct Pace {
    bytes_per_second: Option<u64>,
    free_at: Mutex<Option<Instant>>,
}

impl Pace {
    pub fn new(bytes_per_second: Option<u64>) -> Pace {
        Pace { bytes_per_second: bytes_per_second.filter(|n| *n > 0), free_at: Mutex::new(None) }
    }

    /// Waits until these bytes have had their time. The socket's buffer then slows the sender down.
    pub async fn take(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_second else { return };
        let now = Instant::now();
        let until = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = free_at.filter(|at| *at > now).unwrap_or(now);
            let end = begin + Duration::from_micros((bytes as u64).saturating_mul(1_000_000) / rate);
            *free_at = Some(end);
            end
        };
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Never faster than the rate; how much slower is the machine's affair.
    #[tokio::test]
    async fn all_pulls_together_keep_the_rate() {
        let pace = Pace::new(Some(1_000_000));
        let begun = Instant::now();
        tokio::join!(pace.take(10_000), pace.take(20_000), pace.take(10_000));
        assert!(begun.elapsed().as_millis() >= 40);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let begun = Instant::now();
        pace.take(20_000).await;
        assert!(begun.elapsed().as_millis() >= 20, "a quiet time is not made up for");
        Pace::new(None).take(usize::MAX).await;
        Pace::new(Some(0)).take(usize::MAX).await;
    }
}
