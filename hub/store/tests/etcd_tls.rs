//! An etcd of three members behind TLS with client certificates: any one of them may die.
//!
//! In: etcd, certificates made here. Out: assertions: nothing lost, nothing twice; who is not known is refused in a sentence.
//! Never: waits for time to pass.

#![allow(clippy::unwrap_used)]

mod support;

use limpet_store::*;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use support::{
    etcd::{address, two_ports},
    put,
};

const PATIENCE: Duration = Duration::from_secs(90);

/// An authority, a server's and a client's certificate in `dir`.
fn papers(dir: &Path) {
    let authority = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(dir.join("ca.crt"), params.self_signed(&authority).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, authority);
    // etcd's own gateway connects to it with the server's certificate.
    let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    for (name, usages) in [("server", usages), ("client", vec![ExtendedKeyUsagePurpose::ClientAuth])] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![address().to_string(), "127.0.0.1".into(), "localhost".into()]).unwrap();
        params.extended_key_usages = usages;
        std::fs::write(dir.join(format!("{name}.crt")), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

struct Members {
    dir: PathBuf,
    ports: Vec<(u16, u16)>,
    children: Vec<Child>,
}

impl Members {
    /// `None`, and says so, without etcd.
    fn start(dir: &Path) -> Option<Members> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: etcd is not installed (cargo xtask setup)");
            return None;
        }
        papers(dir);
        let ports = (0..3).map(|_| two_ports()).map(|port| (port, port + 1)).collect();
        let mut members = Members { dir: dir.into(), ports, children: Vec::new() };
        for at in 0..3 {
            let child = members.run(at);
            members.children.push(child);
        }
        (0..3).for_each(|at| members.wait(at));
        Some(members)
    }

    fn run(&self, at: usize) -> Child {
        let (own, (client, peer)) = (address(), self.ports[at]);
        let peers: Vec<String> =
            self.ports.iter().enumerate().map(|(n, (_, peer))| format!("m{n}=http://{own}:{peer}")).collect();
        let client = format!("https://{own}:{client}");
        let peer = format!("http://{own}:{peer}");
        Command::new("etcd")
            .args(["--name", &format!("m{at}"), "--initial-cluster", &peers.join(",")])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer, "--client-cert-auth"])
            .arg(format!("--data-dir={}", self.dir.join(format!("m{at}")).display()))
            .arg(format!("--cert-file={}", self.dir.join("server.crt").display()))
            .arg(format!("--key-file={}", self.dir.join("server.key").display()))
            .arg(format!("--trusted-ca-file={}", self.dir.join("ca.crt").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn wait(&self, at: usize) {
        let ends = Instant::now() + PATIENCE;
        while TcpStream::connect((address(), self.ports[at].0)).is_err() {
            assert!(Instant::now() < ends, "member {at} does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self, at: usize) {
        self.children[at].kill().unwrap();
        self.children[at].wait().unwrap();
    }

    fn again(&mut self, at: usize) {
        self.children[at] = self.run(at);
        self.wait(at);
    }

    fn url(&self) -> String {
        let own = address();
        let all: Vec<String> = self.ports.iter().map(|(client, _)| format!("{own}:{client}")).collect();
        format!("etcd://{}", all.join(","))
    }

    fn files(&self) -> EtcdFiles {
        let at = |name: &str| Some(self.dir.join(name));
        EtcdFiles { ca: at("ca.crt"), cert: at("client.crt"), key: at("client.key") }
    }

    async fn connect(&self, writer: &str, files: &EtcdFiles) -> Result<Store, StoreError> {
        let options = EtcdOptions::new(&self.url(), files, "/limpet", writer).unwrap();
        Store::connect(&self.dir.join(writer), options, Options::default()).await
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Creates; while no majority answers it is tried again. Whether it was made before is looked up, as users must.
async fn create(store: &Store, name: &str) -> Record {
    let ends = Instant::now() + PATIENCE;
    loop {
        match store.write(put("/pods", "d", name, Expect::Absent, "1")).await {
            Ok(record) => return record,
            Err(StoreError::Away(_)) => {}
            Err(StoreError::Doubt(_)) => {
                store.catch_up().await.unwrap();
                if let Some(found) = store.get(&Key::new("/pods", "d", name)) {
                    return found;
                }
            }
            Err(other) => panic!("{name}: {other}"),
        }
        assert!(Instant::now() < ends, "{name}: no write goes through");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_member_may_die_and_strangers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut members) = Members::start(dir.path()) else { return };
    let a = members.connect("hub-a", &members.files()).await.unwrap();
    let b = members.connect("hub-b", &members.files()).await.unwrap();
    let mut made = Vec::new();
    for at in 0..3 {
        for i in 0..10 {
            made.push(create(&a, &format!("before-{at}-{i}")).await);
        }
        members.kill(at);
        for i in 0..10 {
            made.push(create(if i % 2 == 0 { &a } else { &b }, &format!("without-{at}-{i}")).await);
        }
        members.again(at);
    }
    for store in [&a, &b] {
        store.catch_up().await.unwrap();
        assert_eq!(store.count("/pods"), made.len());
        for record in &made {
            assert_eq!(store.get(&record.key).as_ref(), Some(record));
        }
    }
    // Two of three: no majority, nothing is acknowledged, reads of what is known go on.
    members.kill(0);
    members.kill(1);
    let refused = a.write(put("/pods", "d", "minority", Expect::Absent, "1")).await;
    assert!(matches!(refused, Err(StoreError::Away(_) | StoreError::Doubt(_))), "{refused:?}");
    assert_eq!(a.get(&made[0].key).as_ref(), Some(&made[0]));
    members.again(0);
    members.again(1);
    create(&a, "after").await;
    // Without a certificate, or with another authority's, there is no hub.
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    papers(&other);
    let nobody = EtcdFiles { cert: None, key: None, ..members.files() };
    let stranger = EtcdFiles { cert: Some(other.join("client.crt")), key: Some(other.join("client.key")), ..members.files() };
    let deceived = EtcdFiles { ca: Some(other.join("ca.crt")), ..members.files() };
    let (nobody, stranger, deceived) = tokio::join!(
        members.connect("nobody", &nobody),
        members.connect("stranger", &stranger),
        members.connect("deceived", &deceived),
    );
    for refused in [nobody, stranger, deceived] {
        let told = refused.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(told.contains(&address().to_string()), "{told}");
    }
}
