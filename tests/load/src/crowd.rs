//! Many clients that do the same at the same time.
//!
//! In: connections, a number of operations, and what one operation asks. Out: how long each took, and how long all.
//! Never: an operation that failed among those that are counted.

use crate::{connection::Connection, proc::Server};
use std::time::{Duration, Instant};

/// What a crowd's work came to.
pub struct Took {
    pub whole: Duration,
    /// Of each operation, sorted.
    pub each: Vec<Duration>,
    /// Processor time of the server and of this program.
    pub server_cpu: Option<Duration>,
    pub own_cpu: Duration,
}

impl Took {
    pub fn rate(&self) -> f64 {
        self.each.len() as f64 / self.whole.as_secs_f64()
    }

    /// The time that so great a part of the operations stayed within, in milliseconds.
    pub fn ms(&self, part: f64) -> f64 {
        quantile(&self.each, part)
    }

    pub fn words(&self) -> String {
        let per = |cpu: Duration| cpu.as_secs_f64() * 1e6 / self.each.len().max(1) as f64;
        let server = self.server_cpu.map(|cpu| format!("; {:.0} µs of its CPU each", per(cpu))).unwrap_or_default();
        let (p50, p99) = (self.ms(0.5), self.ms(0.99));
        format!("{:.0}/s; p50 {p50:.2} ms, p99 {p99:.2} ms{server} (of the client's {:.0})", self.rate(), per(self.own_cpu))
    }
}

/// Of sorted times, in milliseconds.
pub fn quantile(sorted: &[Duration], part: f64) -> f64 {
    let at = ((sorted.len() as f64 - 1.0) * part).round().max(0.0) as usize;
    sorted.get(at).map_or(f64::NAN, |t| t.as_secs_f64() * 1e3)
}

/// Does operations 0..count, client `i` those with the remainder `i`.
pub async fn run<F>(connections: Vec<Connection>, count: usize, server: &Server, one: F) -> Result<Took, String>
where
    F: AsyncOperation,
{
    let clients = connections.len();
    let (server_before, own_before) = (server.cpu(), Server::own().cpu());
    let begin = Instant::now();
    let mut tasks = Vec::with_capacity(clients);
    for (at, mut connection) in connections.into_iter().enumerate() {
        let one = one.clone();
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::with_capacity(count / clients + 1);
            for number in (at..count).step_by(clients) {
                let begin = Instant::now();
                one.call(&mut connection, number).await?;
                times.push(begin.elapsed());
            }
            Ok::<_, String>(times)
        }));
    }
    let mut each = Vec::with_capacity(count);
    for task in tasks {
        each.extend(task.await.map_err(|e| e.to_string())??);
    }
    let whole = begin.elapsed();
    each.sort_unstable();
    let spent = |before: Option<Duration>, after: Option<Duration>| Some(after?.saturating_sub(before?));
    let server_cpu = spent(server_before, server.cpu());
    let own_cpu = spent(own_before, Server::own().cpu()).unwrap_or_default();
    Ok(Took { whole, each, server_cpu, own_cpu })
}

/// One operation of a client.
pub trait AsyncOperation: Clone + Send + 'static {
    fn call(&self, connection: &mut Connection, number: usize) -> impl Future<Output = Result<(), String>> + Send;
}
