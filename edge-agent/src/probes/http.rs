//! A probe or hook over HTTP.
//!
//! In: where to, headers of the manifest. Out: good (a status from 200 to 399) or not, in kubelet's words.
//! Redirects on the same host are followed, ten at most; one that leads to another host is good as it is (as on a kubelet).
//! Never: looks at certificates; reads more of a page than its beginning.

use super::{plain, target};
use crate::{
    device::Clock,
    link::{
        http::{Body, send},
        tls,
    },
};
use http_body_util::Full;
use hyper::{
    Request, Uri,
    body::Bytes,
    header::{HeaderName, HeaderValue},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const BODY_BYTES_MAX: usize = 10 * 1024;
const REDIRECTS_MAX: usize = 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct To {
    pub host: String,
    pub port: u16,
    /// With its query; a missing slash at the beginning is added.
    pub path: String,
    pub https: bool,
}

impl To {
    fn target(&self) -> String {
        target(&self.host, self.port)
    }

    fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}", self.target(), self.path)
    }

    /// Where `Location` leads from here, when that is on the same host.
    fn redirected(&self, location: &str) -> Option<To> {
        let whole = match location.strip_prefix("//") {
            Some(rest) => format!("{}://{rest}", if self.https { "https" } else { "http" }),
            None => location.to_string(),
        };
        if whole.starts_with('/') || !whole.contains("://") {
            // Without a slash it stands beside what was asked for.
            let beside = self.path.split('?').next().and_then(|p| p.rsplit_once('/')).map_or("", |(dir, _)| dir);
            let path = if whole.starts_with('/') { whole } else { format!("{beside}/{whole}") };
            return Some(To { path, ..self.clone() });
        }
        let uri: Uri = whole.parse().ok()?;
        let https = uri.scheme_str()? == "https";
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |p| p.as_str()).into();
        (host == self.host).then(|| To { host: host.into(), port, path, https })
    }
}

pub(super) async fn get(clock: &Clock, mut to: To, headers: &[(String, String)], timeout: Duration) -> Result<String, String> {
    let begun = Instant::now();
    if !to.path.starts_with('/') {
        to.path.insert(0, '/');
    }
    for _ in 0..=REDIRECTS_MAX {
        let (target, url) = (to.target(), to.url());
        let request = request(&to, headers).map_err(|e| format!("Get \"{url}\": {e}"))?;
        let tls = match to.https {
            true => Some(Arc::new(tls::unverified(clock).map_err(|e| e.to_string())?)),
            false => None,
        };
        let left = timeout.saturating_sub(begun.elapsed());
        let answer = match send((&target, None), tls, request, Body::Beginning(BODY_BYTES_MAX), left).await {
            Ok(answer) => answer,
            Err(e) if e.kind() == std::io::ErrorKind::TimedOut => {
                return Err(format!(
                    "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                ));
            }
            Err(e) => return Err(format!("Get \"{url}\": dial tcp {target}: connect: {}", plain(&e))),
        };
        let leads = matches!(answer.status, 301 | 302 | 303 | 307 | 308).then_some(answer.location).flatten();
        match leads.and_then(|location| to.redirected(&location)) {
            Some(next) => to = next,
            None if (200..400).contains(&answer.status) => return Ok(String::new()),
            None => return Err(format!("HTTP probe failed with statuscode: {}", answer.status)),
        }
    }
    Err(format!("Get \"{}\": stopped after {REDIRECTS_MAX} redirects", to.url()))
}

fn request(to: &To, headers: &[(String, String)]) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let mut request = Request::get(&to.path);
    let target = to.target();
    let usual = [("host", target.as_str()), ("user-agent", "kube-probe/1.36"), ("accept", "*/*")];
    for (name, value) in usual {
        if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name)) {
            request = request.header(name, value);
        }
    }
    for (name, value) in headers {
        request = request.header(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    request.header("connection", "close").body(Full::new(Bytes::new()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// Serves each path with what `page` says of it, and asks for `/`.
    fn probe(page: impl Fn(&str, u16) -> String) -> Result<String, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let serve = async {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.unwrap());
                    }
                    let head = String::from_utf8(head).unwrap();
                    let path = head.split(' ').nth(1).unwrap();
                    // Whoever asked may leave before the end of a long page.
                    let _ = stream.write_all(page(path, port).as_bytes()).await;
                }
            };
            let to = To { host: "127.0.0.1".into(), port, path: String::new(), https: false };
            let clock = Clock::new();
            tokio::select! {
                outcome = get(&clock, to, &[], Duration::from_secs(30)) => outcome,
                () = serve => unreachable!(),
            }
        })
    }

    fn redirect(to: &str) -> String {
        format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
    }

    #[test]
    fn a_long_page_is_a_good_page() {
        let long = "x".repeat(5_000_000);
        let page = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{long}", long.len());
        assert_eq!(probe(|_, _| page.clone()), Ok(String::new()));
        let bad = format!("HTTP/1.1 500 No\r\nContent-Length: {}\r\n\r\n{long}", long.len());
        assert_eq!(probe(|_, _| bad.clone()), Err("HTTP probe failed with statuscode: 500".into()));
    }

    #[test]
    fn redirects_are_followed_on_the_same_host_only() {
        let broken = "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_string();
        let sick = |from: fn(u16) -> String| {
            let broken = broken.clone();
            probe(move |path, port| if path == "/" { redirect(&from(port)) } else { broken.clone() })
        };
        let failed = Err("HTTP probe failed with statuscode: 500".to_string());
        assert_eq!(sick(|_| "/sick".into()), failed);
        assert_eq!(sick(|_| "sick".into()), failed);
        assert_eq!(sick(|port| format!("http://127.0.0.1:{port}/sick")), failed);
        assert_eq!(sick(|_| "http://192.0.2.1/sick".into()), Ok(String::new()), "another host is nobody's business");
        let round = probe(|_, _| redirect("/"));
        assert!(round.as_ref().is_err_and(|e| e.ends_with("stopped after 10 redirects")), "{round:?}");
    }

    #[test]
    fn where_a_redirect_leads() {
        let from = To { host: "10.42.0.2".into(), port: 8080, path: "/a/b?c=d".into(), https: false };
        let leads = |location: &str| from.redirected(location).map(|to| to.url());
        assert_eq!(leads("/x?y").as_deref(), Some("http://10.42.0.2:8080/x?y"));
        assert_eq!(leads("x").as_deref(), Some("http://10.42.0.2:8080/a/x"));
        assert_eq!(leads("https://10.42.0.2/x").as_deref(), Some("https://10.42.0.2:443/x"));
        assert_eq!(leads("http://10.42.0.2:9/").as_deref(), Some("http://10.42.0.2:9/"));
        assert_eq!(leads("//10.42.0.2/x").as_deref(), Some("http://10.42.0.2:80/x"));
        assert_eq!(leads("/x?to=http://other/").as_deref(), Some("http://10.42.0.2:8080/x?to=http://other/"));
        assert_eq!((leads("http://10.42.0.3/"), leads("http://[bad")), (None, None));
    }
}
