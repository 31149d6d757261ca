//! Files for a Mosquitto at which hub and boards meet.
//!
//! In: the hub's data directory, the broker's names. Out: a directory with `mosquitto.conf`, `limpet.acl`, the broker's
//! certificate
//! and key, the CA that signed it (whose key is kept nowhere), and the hub's CA, which signs boards.
//! Never: a certificate of the hub's own CA for the broker: it would be one more that boards believe.

use super::OperateError;
use crate::meeting::acl;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::{
    fs::{self, OpenOptions},
    io::{Error, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

const DAYS: u64 = 3650;

pub struct Made {
    pub config: PathBuf,
    pub ca: PathBuf,
    /// `host:port`
    pub address: String,
}

/// Refuses to overwrite a key.
pub fn setup(data_dir: &Path, out: &Path, hosts: &[String], port: u16) -> Result<Made, OperateError> {
    let hub_ca = fs::read_to_string(data_dir.join("pki/ca.crt")).map_err(|_| OperateError::NoHub(data_dir.into()))?;
    fs::create_dir_all(out)?;
    // Mosquitto wants whole paths.
    let out = fs::canonicalize(out)?;
    let path = |name: &str| out.join(name);
    let made = |e: rcgen::Error| OperateError::Io(Error::other(e.to_string()));
    let (ca_pem, certificate_pem, key_pem) = certificate(hosts).map_err(made)?;
    write(&path("broker.key"), &key_pem, 0o600)?;
    write(&path("broker.crt"), &certificate_pem, 0o644)?;
    write(&path("broker-ca.crt"), &ca_pem, 0o644)?;
    fs::write(path("boards-ca.crt"), hub_ca)?;
    let rights = acl::text(acl::Format::Mosquitto, acl::HUB_USER, None).map_err(|e| OperateError::Io(Error::other(e)))?;
    fs::write(path("limpet.acl"), rights)?;
    fs::write(path("mosquitto.conf"), config(&out, port))?;
    let host = hosts.first().map_or("", String::as_str);
    let host = if host.contains(':') { format!("[{host}]") } else { host.into() };
    Ok(Made { config: path("mosquitto.conf"), ca: path("broker-ca.crt"), address: format!("{host}:{port}") })
}

/// CA, certificate, key: PEM.
fn certificate(hosts: &[String]) -> Result<(String, String, String), rcgen::Error> {
    let now = SystemTime::now();
    let authority = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "limpet-broker-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    crate::pki::set_life(&mut params, DAYS, now);
    let ca_pem = params.self_signed(&authority)?.pem();
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, authority)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(hosts.to_vec())?;
    params.distinguished_name.push(DnType::CommonName, "limpet-broker");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    crate::pki::set_life(&mut params, DAYS, now);
    Ok((ca_pem, params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
}

fn write(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let named = |e: Error| Error::new(e.kind(), format!("{}: {e}", path.display()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(named)?;
    file.write_all(text.as_bytes()).map_err(named)
}

fn config(out: &Path, port: u16) -> String {
    let at = |name: &str| out.join(name).display().to_string();
    format!(
        "# A broker for a Limpet hub and its boards. Who connects shows a certificate of the hub's CA, and is who it says.\n\
         listener {port}\n\
         certfile {}\nkeyfile {}\ncafile {}\n\
         require_certificate true\nuse_identity_as_username true\nallow_anonymous false\n\
         acl_file {}\n\n\
         # Nothing has to be kept: hub and boards compare what they know whenever they meet.\n\
         persistence false\nretain_available false\n\
         # The largest message of the link is 33 KB; 16 of them may be under way to one board.\n\
         message_size_limit 65536\nmax_queued_messages 10000\n",
        at("broker.crt"),
        at("broker.key"),
        at("boards-ca.crt"),
        at("limpet.acl")
    )
}
