//! The hub's image registry on its own port.
//!
//! In: HTTPS connections. Out: the OCI distribution API, served by `limpet-registry`. Who may do what is said here:
//! nodes pull; others need a right to the path `/registry/<repository>` in RBAC (get, put, delete), which
//! cluster administrators have. Identity: a client certificate of the hub, or a ServiceAccount token as bearer token
//! or as the password of basic authentication.
//! Never: serves a removed node, or somebody who is nobody.

use crate::{
    api::Api,
    auth::{Asked, Authorizer, User, user_of_token, x509},
    enroll::Enroll,
    hub::HubError,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, Request, header::AUTHORIZATION};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use limpet_registry::{Action, Allow, Identity, Registry};
use std::{convert::Infallible, path::Path, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

const CONNECTIONS_MAX: usize = 1024;
/// Longer than a board waits for a connection: giving up is the caller's.
const HANDSHAKE: Duration = Duration::from_secs(30);
const HEADERS: Duration = Duration::from_secs(30);
const HEADER_BYTES_MAX: usize = 64 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often blobs that nobody names any more are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(6 * 3600);

type Tls = watch::Receiver<Arc<rustls::ServerConfig>>;

/// What one connection needs.
struct Door {
    registry: Registry,
    api: Arc<Api>,
    enroll: Arc<Enroll>,
}

/// Opens the registry and serves it until the process ends.
pub(crate) fn start(
    data_dir: &Path,
    listener: TcpListener,
    tls: Tls,
    api: Arc<Api>,
    enroll: Arc<Enroll>,
) -> Result<(), HubError> {
    let registry = Registry::open(data_dir, allow(api.authorizer.clone()))
        .map_err(|source| HubError::Io { what: "open the image registry", source })?;
    tokio::spawn(sweep(registry.clone()));
    let door = Arc::new(Door { registry, api, enroll });
    tokio::spawn(accept(listener, tls, door));
    Ok(())
}

fn allow(authorizer: Authorizer) -> Allow {
    Arc::new(move |identity, action, repository| {
        let Some(identity) = identity else { return false };
        let user = User { name: identity.user.clone(), groups: identity.groups.clone(), ..User::default() };
        if user.node().is_some() {
            return action == Action::Pull;
        }
        let verb = match action {
            Action::Pull | Action::Catalog => "get",
            Action::Push => "put",
            Action::Delete => "delete",
        };
        let path = format!("/registry/{repository}");
        authorizer.decide(&user, &Asked { verb, path: Some(&path), ..Asked::default() }).is_allowed()
    })
}

async fn sweep(registry: Registry) {
    let mut turns = tokio::time::interval(SWEEP_EVERY);
    loop {
        turns.tick().await;
        if let Err(error) = registry.sweep().await {
            tracing::warn!(%error, "the image registry could not be swept");
        }
    }
}

async fn accept(listener: TcpListener, tls: Tls, door: Arc<Door>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(seat) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, _)) => {
                let acceptor = TlsAcceptor::from(tls.borrow().clone());
                tokio::spawn(connection(socket, acceptor, Arc::clone(&door), seat));
            }
            // Out of file descriptors: others must be able to end meanwhile.
            Err(error) => {
                tracing::warn!(%error, "the registry cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(socket: TcpStream, acceptor: TlsAcceptor, door: Arc<Door>, _seat: OwnedSemaphorePermit) {
    let _ = socket.set_nodelay(true);
    let Ok(Ok(stream)) = timeout(HANDSHAKE, acceptor.accept(socket)).await else { return };
    let leaf = stream.get_ref().1.peer_certificates().and_then(|c| c.first()).cloned();
    let user = leaf.as_ref().and_then(|leaf| x509::user(leaf));
    if let (Some(node), Some(leaf)) = (user.as_ref().and_then(User::node), &leaf)
        && let Err(error) = door.enroll.admit(node, leaf)
    {
        tracing::warn!(node, "the registry refuses a node: {error}");
        return;
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let (door, user) = (Arc::clone(&door), user.clone());
        async move {
            let user = user.or_else(|| by_token(&door.api, request.headers()));
            let identity = user.map(|u| Identity { user: u.name, groups: u.groups });
            Ok::<_, Infallible>(door.registry.handle(request, identity).await)
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(HEADER_BYTES_MAX);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "registry connection ended");
    }
}

fn by_token(api: &Api, headers: &HeaderMap) -> Option<User> {
    let (scheme, rest) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = match scheme.to_ascii_lowercase().as_str() {
        "bearer" => rest.trim().to_string(),
        "basic" => {
            let pair = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
            pair.split_once(':')?.1.to_string()
        }
        _ => return None,
    };
    user_of_token(&api.tokens, &token, api.now()).ok()
}
