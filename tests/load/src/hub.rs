//! A hub that is started to be measured.
//!
//! In: the path of a `limpet` binary. Out: a running hub with an empty data directory, and how long it took to be ready.
//! Never: a hub that outlives this program, or a port that somebody else may have.

use crate::{
    access::Access,
    connection::{Ask, Connection},
};
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Hub {
    child: Child,
    program: PathBuf,
    /// Of the API and of MQTT: the same after a restart.
    ports: (u16, u16),
    dir: tempfile::TempDir,
}

impl Hub {
    /// The first start, which makes keys.
    pub async fn start(program: &Path) -> Result<(Hub, Access, Duration), String> {
        let dir = tempfile::tempdir().map_err(|e| format!("cannot make a directory: {e}"))?;
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| e.to_string());
        let ports = (free()?.port(), free()?.port());
        let begin = Instant::now();
        let child = spawn(program, dir.path(), ports)?;
        let mut hub = Hub { child, program: program.into(), ports, dir };
        let access = loop {
            if let Ok(access) = Access::kubeconfig(&hub.dir.path().join("admin.kubeconfig")) {
                break access;
            }
            hub.alive(begin)?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        hub.ready(&access, begin).await?;
        Ok((hub, access, begin.elapsed()))
    }

    /// Stops it and starts it again on the same data.
    pub async fn again(mut self, access: Access) -> Result<(Hub, Access, Duration), String> {
        self.end()?;
        let begin = Instant::now();
        self.begin()?;
        self.ready(&access, begin).await?;
        Ok((self, access, begin.elapsed()))
    }

    /// Kills it as a power cut would.
    pub fn kill(&mut self) -> Result<(), String> {
        self.child.kill().and_then(|()| self.child.wait()).map(drop).map_err(|e| format!("cannot kill the hub: {e}"))
    }

    /// Starts it anew; it is not ready yet.
    pub fn begin(&mut self) -> Result<(), String> {
        self.child = spawn(&self.program, self.dir.path(), self.ports)?;
        Ok(())
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn stop(mut self) -> Result<(), String> {
        self.end()
    }

    fn end(&mut self) -> Result<(), String> {
        let told = Command::new("kill").arg(self.child.id().to_string()).status();
        told.map_err(|e| format!("cannot stop the hub: {e}"))?;
        self.child.wait().map(drop).map_err(|e| format!("cannot wait for the hub: {e}"))
    }

    async fn ready(&mut self, access: &Access, begin: Instant) -> Result<(), String> {
        loop {
            if let Ok(mut connection) = Connection::open(access).await
                && matches!(connection.try_ask(Ask::get("/readyz")).await, Ok((200, _)))
            {
                return Ok(());
            }
            self.alive(begin)?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn alive(&mut self, begin: Instant) -> Result<(), String> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(format!("the hub ended at once: {status}"));
        }
        if begin.elapsed() > PATIENCE { Err("the hub does not become ready".into()) } else { Ok(()) }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // It is ours; when it has ended already there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &Path, dir: &Path, (api, mqtt): (u16, u16)) -> Result<Child, String> {
    let (api, mqtt) = (format!("127.0.0.1:{api}"), format!("127.0.0.1:{mqtt}"));
    let words = ["hub", "--api-listen", &api, "--mqtt-listen", &mqtt, "--registry-listen", "127.0.0.1:0"];
    Command::new(program)
        .args(words)
        .args(["--advertise-host", "127.0.0.1", "--log", "warn", "--data-dir"])
        .arg(dir)
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| format!("cannot start {}: {e}", program.display()))
}
