//! Where plugins register, and a watch over each that did; how a socket of kubelet's is opened, also for `lister`.
//!
//! In: calls of `v1beta1.Registration`, lists of devices. Out: a table that is up to date.
//! As kubelet does: sockets that are there when the agent begins are removed, by which plugins notice that they have to
//! register again.
//! Never: the place of another kubelet that answers there; a socket outside of the directory.

use super::{ANSWER_TIMEOUT, Plugins, SERVICE, messages, table::Plugin};
use crate::grpc::{self, Answer, Answering, INVALID_ARGUMENT, UNIMPLEMENTED};
use std::{
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::UnixListener,
    task::JoinSet,
    time::{sleep, timeout},
};

const SOCKET: &str = "kubelet.sock";
pub const VERSION: &str = "v1beta1";
/// Plugins that register at one moment, and others that ask.
const GUESTS_MAX: usize = 16;
/// Nobody needs longer to register; who asks again and again connects again.
const VISIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);
/// A plugin that is updated comes back within this time; then its devices are counted no more (kubelet's grace period).
const GRACE: Duration = Duration::from_secs(300);

pub fn open(plugins: Plugins, dir: &Path) -> Result<(), String> {
    let listener = bind(dir).map_err(|why| format!("device plugins: {why}"))?;
    listen(listener, move |path, message| Box::pin(std::future::ready(plugins.answer(path, message))));
    Ok(())
}

/// A socket of a kubelet's, which root alone may talk to: what a plugin says is mounted into containers.
pub fn bind(dir: &Path) -> Result<UnixListener, String> {
    let place = dir.join(SOCKET);
    let wrong = |e: io::Error| format!("{}: {e}", dir.display());
    if std::os::unix::net::UnixStream::connect(&place).is_ok() {
        return Err(format!("a kubelet answers at {} already; this agent does not", place.display()));
    }
    std::fs::create_dir_all(dir).map_err(wrong)?;
    for entry in std::fs::read_dir(dir).map_err(wrong)?.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_socket()) {
            std::fs::remove_file(entry.path()).map_err(wrong)?;
        }
    }
    let listener = UnixListener::bind(&place).map_err(wrong)?;
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o600)).map_err(wrong)?;
    Ok(listener)
}

/// Answers whoever comes, for as long as the agent lives.
pub fn listen(listener: UnixListener, answer: impl Fn(&str, &[u8]) -> Answering + Send + Sync + 'static) {
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        let mut guests = JoinSet::new();
        loop {
            tokio::select! {
                Ok((stream, _)) = listener.accept(), if guests.len() < GUESTS_MAX => {
                    let answer = answer.clone();
                    guests.spawn(async move {
                        // It ends when the guest hangs up, with nothing to tell.
                        let _ = timeout(VISIT, grpc::serve(Box::new(stream), &*answer)).await;
                    });
                }
                Some(_) = guests.join_next() => {}
                // Too many files are open, mostly.
                else => sleep(PAUSE).await,
            }
        }
    });
}

impl Plugins {
    fn answer(&self, path: &str, message: &[u8]) -> Answer {
        if path != "/v1beta1.Registration/Register" {
            return Err((UNIMPLEMENTED, format!("unknown method {path}")));
        }
        let request = messages::register(message).ok_or((INVALID_ARGUMENT, "not a RegisterRequest".to_string()))?;
        self.register(&request).map(|()| Vec::new()).map_err(|why| {
            log::warn!("device plugin {} of {}: refused: {why}", request.endpoint, request.resource);
            (INVALID_ARGUMENT, why)
        })
    }

    fn register(&self, request: &messages::Register) -> Result<(), String> {
        let endpoint = request.endpoint.clone();
        if request.version != VERSION {
            return Err(format!("requested API version {:?} is not supported by this agent: {VERSION} is", request.version));
        }
        if endpoint.is_empty() || endpoint.len() > 100 || endpoint.contains('/') || endpoint == SOCKET || endpoint == ".." {
            return Err(format!("the endpoint {endpoint:?} must be the name of a socket beside {SOCKET}"));
        }
        self.accept(&request.resource, endpoint, request.options)
    }

    /// From now on this plugin answers for the resource. The error is for the plugin.
    pub fn accept(&self, resource: &str, endpoint: String, options: Option<messages::Options>) -> Result<(), String> {
        let plugin = Plugin { endpoint: endpoint.clone(), ..Plugin::default() };
        let (generation, is_new) = self.table().register(resource, plugin)?;
        if is_new {
            self.remember();
        }
        log::info!("device plugin {endpoint} offers {resource}");
        let (plugins, resource) = (self.clone(), resource.to_string());
        tokio::spawn(async move { plugins.watch(&resource, &endpoint, generation, options).await });
        Ok(())
    }

    /// Until the plugin's list ends, or another registration of its resource has come.
    async fn watch(&self, resource: &str, endpoint: &str, generation: u64, options: Option<messages::Options>) {
        let why = match self.listen_to(resource, endpoint, generation, options).await {
            Ok(()) => "its list ended".to_string(),
            Err(why) => why,
        };
        if self.table().lost(resource, generation) {
            log::warn!("device plugin {endpoint} of {resource} has gone: {why}");
            self.0.changed.notify_one();
            sleep(GRACE).await;
            if self.table().forget_devices(resource, generation) {
                self.0.changed.notify_one();
            }
        }
    }

    async fn listen_to(
        &self,
        resource: &str,
        endpoint: &str,
        generation: u64,
        options: Option<messages::Options>,
    ) -> Result<(), String> {
        let options = match options {
            Some(options) => options,
            None => messages::options(&self.unary(endpoint, "GetDevicePluginOptions", &[]).await?)
                .ok_or("its options are no DevicePluginOptions")?,
        };
        self.table().options(resource, generation, options.pre_start, options.preferred);
        let begun = timeout(ANSWER_TIMEOUT, self.call(endpoint, &format!("{SERVICE}/ListAndWatch"), &[])).await;
        let mut call = begun.map_err(|_| "it cannot be reached".to_string())?.map_err(|e| e.to_string())?;
        while let Some(message) = call.next().await? {
            let devices = messages::devices(&message).ok_or("its list is no ListAndWatchResponse, or has too many devices")?;
            if !self.table().is_current(resource, generation) {
                return Err("another plugin has its resource now".into());
            }
            let healthy = devices.values().filter(|healthy| **healthy).count();
            log::info!("device plugin {endpoint}: {healthy} of {} devices of {resource} are healthy", devices.len());
            if self.table().listed(resource, generation, devices) {
                self.0.changed.notify_one();
            }
        }
        Ok(())
    }
}

/// For tests of what answers there.
#[cfg(test)]
pub async fn connect(dir: &Path) -> io::Result<tokio::net::UnixStream> {
    tokio::net::UnixStream::connect(dir.join(SOCKET)).await
}
