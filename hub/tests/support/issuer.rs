//! An HTTPS server for tests: an OpenID issuer, or a webhook.
//!
//! In: answers by path. Out: its URL, its authority, how often each path was asked. It ends with the test's process.
//! Never: a real issuer.
#![allow(dead_code, clippy::unwrap_used)]

use limpet_hub::{auth::jwt::Signer, pki::Pki};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::SystemTime,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

type Answers = Arc<Mutex<HashMap<String, (Value, Vec<Value>)>>>;

pub struct Https {
    pub url: String,
    /// PEM.
    pub ca: String,
    answers: Answers,
}

/// A new key that signs with ES256.
pub fn signer() -> Signer {
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    Signer::new(key.as_ref()).unwrap()
}

impl Https {
    pub fn start() -> Https {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path(), &[], SystemTime::now()).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(pki.https_config(&["http/1.1"]).unwrap()));
        let answers: Answers = Arc::default();
        let (sender, address) = std::sync::mpsc::channel();
        let own = Arc::clone(&answers);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                while let Ok((socket, _)) = listener.accept().await {
                    let (acceptor, answers) = (acceptor.clone(), Arc::clone(&own));
                    tokio::spawn(async move { serve(acceptor.accept(socket).await?, &answers).await });
                }
            });
        });
        let url = format!("https://{}", address.recv().unwrap());
        Https { url, ca: pki.ca_pem().to_owned(), answers }
    }

    pub fn answer(&self, path: &str, value: Value) {
        self.answers.lock().unwrap().entry(path.to_owned()).or_default().0 = value;
    }

    pub fn asked(&self, path: &str) -> usize {
        self.bodies(path).len()
    }

    /// What was sent to a path, in order.
    pub fn bodies(&self, path: &str) -> Vec<Value> {
        self.answers.lock().unwrap().get(path).map(|(_, bodies)| bodies.clone()).unwrap_or_default()
    }

    /// As an issuer whose key this is.
    pub fn serve_keys(&self, signer: &Signer) {
        let document = json!({"issuer": self.url, "jwks_uri": format!("{}/keys", self.url)});
        self.answer("/.well-known/openid-configuration", document);
        self.answer("/keys", signer.jwks());
    }
}

async fn serve(
    mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    answers: &Answers,
) -> std::io::Result<()> {
    let mut read = Vec::new();
    let end = loop {
        let mut piece = [0; 4096];
        let size = stream.read(&mut piece).await?;
        read.extend_from_slice(&piece[..size]);
        let end = read.windows(4).position(|part| part == b"\r\n\r\n");
        if end.is_some() || size == 0 {
            break end.unwrap_or(0);
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    let path = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let mut body = read.get(end + 4..).unwrap_or_default().to_vec();
    let missing = usize::saturating_sub(length.unwrap_or(0), body.len());
    let mut rest = vec![0; missing];
    stream.read_exact(&mut rest).await?;
    body.append(&mut rest);
    let answer = {
        let mut answers = answers.lock().unwrap();
        let (answer, bodies) = answers.entry(path).or_default();
        bodies.push(serde_json::from_slice(&body).unwrap_or_default());
        answer.to_string()
    };
    let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}", answer.len());
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}
