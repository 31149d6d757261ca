//! The network, the hub, the certificates.
//!
//! In: the identity that the join left, routes, a few seconds of connecting. Out: findings.

use super::{Finding, finding, wish};
use crate::{
    agent::Paths,
    device::{self, Clock},
    link::{Identity, identity, join, tls},
};
use std::{sync::Arc, time::Duration};

const PATIENCE: Duration = Duration::from_secs(5);

pub fn look(paths: &Paths) -> Vec<Finding> {
    let found = match identity::load(&paths.data) {
        Ok(found) => found,
        Err(e) => {
            let remedy = "remove DATA/identity and join again with a new token; the hub keeps the node's pods";
            let mut all = network(&[]);
            all.push(finding("hub", false, format!("the identity on disk cannot be read: {e}"), remedy));
            return all;
        }
    };
    let Some(identity) = found else {
        let mut all = network(&[]);
        let remedy = "start it with `limpet-agent --join TOKEN`; `limpet token create` at the hub makes one";
        all.push(wish("hub", false, "this board has not joined a hub yet", remedy));
        return all;
    };
    let mut all = network(identity.answer.meets_at().0);
    all.extend(reach(&identity));
    all.extend(certificate(&identity));
    all
}

fn network(hubs: &[String]) -> Vec<Finding> {
    let ips = device::primary_ips(hubs);
    let what = match ips.is_empty() {
        true => "the board has no network address".to_string(),
        false => format!("the board is reached at {}", ips.join(", ")),
    };
    let remedy = "plug in a cable or set up Wi-Fi; pods that are here run on without";
    vec![wish("network", !ips.is_empty(), what, remedy)]
}

/// Tries each address of the hub with TLS, as the agent itself would.
fn reach(identity: &Identity) -> Vec<Finding> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return Vec::new() };
    let remedy = "see that the hub runs and that no firewall stands between; pods that are here run on meanwhile";
    let (targets, ca_pem) = identity.answer.meets_at();
    let who = if identity.answer.broker.is_some() { "the broker" } else { "the hub" };
    let tries = targets.iter().map(|target| {
        let result = runtime.block_on(async { tokio::time::timeout(PATIENCE, greet(target, ca_pem)).await });
        let (good, what) = match result {
            Ok(Ok(())) => (true, format!("{who} answers at {target}")),
            Ok(Err(why)) => (false, format!("{who} does not answer at {target}: {why}")),
            Err(_) => (false, format!("{who} does not answer at {target}: no answer in {} s", PATIENCE.as_secs())),
        };
        wish("hub", good, what, remedy)
    });
    tries.collect()
}

async fn greet(target: &str, ca_pem: &str) -> Result<(), String> {
    let config = tls::with_ca(ca_pem, &Clock::new()).map_err(|e| e.to_string())?;
    let tcp = tokio::net::TcpStream::connect(target).await.map_err(|e| e.to_string())?;
    let host = crate::link::http::host_of(target).to_string();
    let name = rustls::pki_types::ServerName::try_from(host).map_err(|e| e.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(name, tcp).await.map(|_| ()).map_err(|e| e.to_string())
}

fn certificate(identity: &Identity) -> Vec<Finding> {
    let name = &identity.answer.node_name;
    let Some((before, after)) = join::validity(identity) else {
        let remedy = "remove DATA/identity and join again with a new token";
        return vec![finding("certificates", false, "the node's certificate cannot be read", remedy)];
    };
    let now = Clock::new().wall_ms();
    let text = limpet_agent_core::clock::rfc3339;
    let until = format!("node {name}: certificate from {} to {}", text(before), text(after));
    let (good, remedy) = match now {
        n if n < before => (false, "the clock is behind: the agent goes on from the last good time it knows"),
        n if n > after => (false, "it has run out: the agent renews it by its key as soon as it reaches the hub"),
        _ => (true, ""),
    };
    vec![wish("certificates", good, until, remedy)]
}
