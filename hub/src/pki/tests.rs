//! What the PKI promises, against files in a folder of its own.

use super::*;
use std::time::UNIX_EPOCH;

fn folder(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("limpet-pki-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

fn day(n: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000 + n * 86_400)
}

#[test]
fn a_second_start_keeps_the_keys_and_a_new_name_renews_the_server() {
    let dir = folder("restart");
    let first = Pki::open(&dir, &["hub.example".into()], day(0)).unwrap();
    let again = Pki::open(&dir, &["hub.example".into()], day(1)).unwrap();
    assert_eq!(first.ca_sha256(), again.ca_sha256());
    assert_eq!(first.server_pem, again.server_pem);
    assert_eq!(first.token_key_der, again.token_key_der);
    let renamed = Pki::open(&dir, &["192.0.2.7".into()], day(1)).unwrap();
    assert_ne!(again.server_pem, renamed.server_pem);
    let old = Pki::open(&dir, &["192.0.2.7".into()], day(380)).unwrap();
    assert_ne!(old.server_pem, renamed.server_pem, "renewed before it ends");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn keys_are_private_and_the_kubeconfig_is_whole() {
    use std::os::unix::fs::PermissionsExt;
    let dir = folder("private");
    let pki = Pki::open(&dir, &[], day(0)).unwrap();
    let path = dir.join("admin.kubeconfig");
    pki.write_admin_kubeconfig(&path, "limpet", "https://127.0.0.1:6443", day(0)).unwrap();
    for file in ["ca.key", "server.key", "sa.key", "admin.key", "admin.kubeconfig"] {
        let mode = std::fs::metadata(dir.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("current-context: \"limpet\"") && text.contains("client-key-data: "));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_request_gets_the_name_that_the_hub_decides() {
    let dir = folder("csr");
    let pki = Pki::open(&dir, &[], day(0)).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut wish = CertificateParams::new(vec!["evil.example".to_string()]).unwrap();
    wish.distinguished_name.push(DnType::CommonName, "system:admin");
    wish.distinguished_name.push(DnType::OrganizationName, "system:masters");
    let csr = wish.serialize_request(&key).unwrap().pem().unwrap();
    let pem = pki.sign_request(&csr, &Subject::node("pi-1"), NODE_DAYS, day(0)).unwrap();
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (_, cert) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert_eq!(cert.subject().to_string(), "CN=system:node:pi-1, O=system:nodes");
    assert!(cert.subject_alternative_name().unwrap().is_none());
    assert!(pki.sign_request("nonsense", &Subject::node("x"), 1, day(0)).is_err());
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_lost_ca_key_is_told_and_nothing_is_overwritten() {
    let dir = folder("lost");
    Pki::open(&dir, &[], day(0)).unwrap();
    std::fs::remove_file(dir.join("ca.key")).unwrap();
    let error = Pki::open(&dir, &[], day(0)).err().unwrap().to_string();
    assert!(error.contains("ca.key") && error.contains("backup"), "{error}");
    assert!(dir.join("ca.crt").exists() && !dir.join("ca.key").exists());
    std::fs::remove_dir_all(&dir).unwrap();
}
