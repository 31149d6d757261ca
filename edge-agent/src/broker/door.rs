//! Where a pod's clients come in: a Unix socket, and a port of the pod's own loopback.
//!
//! In: a directory, perhaps a network namespace. Out: a task for each client; all end with the door.
//! Never: more clients at a time than the hall has room for.

use super::{Shared, Whose, client};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};
use tokio::{
    net::{TcpListener, UnixListener},
    task::{JoinHandle, JoinSet},
};

const SOCKET: &str = "mqtt.sock";
const PORT: u16 = 1883;
/// After a failure to let somebody in.
const PAUSE: Duration = Duration::from_millis(500);

/// Ends with its clients when it is dropped.
pub struct Door {
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Door {
    pub fn open(dir: &Path, net: Option<&Path>, shared: &Shared, whose: &Whose) -> io::Result<Door> {
        std::fs::create_dir_all(dir)?;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?;
        let path = dir.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let unix = UnixListener::bind(&path)?;
        // Any user of the container may come; the directory is in no other.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
        let mut door = Door { tasks: vec![tokio::spawn(serve_unix(unix, shared.clone(), whose.clone()))] };
        if let Some(net) = net {
            match listen_inside(net) {
                Ok(tcp) => door.tasks.push(tokio::spawn(serve_tcp(tcp, shared.clone(), whose.clone()))),
                Err(e) => log::warn!("broker: no port {PORT} in the network of pod {}/{}: {e}", whose.namespace, whose.pod),
            }
        }
        Ok(door)
    }
}

async fn serve_unix(listener: UnixListener, shared: Shared, whose: Whose) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                clients.spawn(client::serve(stream, shared.clone(), whose.clone()));
            }
            Some(_) = clients.join_next() => {}
            // Too many files are open, mostly.
            else => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn serve_tcp(listener: TcpListener, shared: Shared, whose: Whose) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                let _ = stream.set_nodelay(true);
                clients.spawn(client::serve(stream, shared.clone(), whose.clone()));
            }
            Some(_) = clients.join_next() => {}
            // Too many files are open, mostly.
            else => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// A listening socket on the loopback of another network namespace. Only a short-lived thread of its own changes its namespace;
/// the socket belongs to where it was made.
fn listen_inside(net: &Path) -> io::Result<TcpListener> {
    let net = std::fs::File::open(net)?;
    let made = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
        nix::sched::setns(net, nix::sched::CloneFlags::CLONE_NEWNET)?;
        std::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)))
    })?;
    let listener = made.join().map_err(|_| io::Error::other("the thread ended badly"))??;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
