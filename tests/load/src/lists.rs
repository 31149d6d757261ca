//! Lists of all pods in every form that clients ask for.
//!
//! In: a namespace full of pods. Out: the middle of several times from the request to the last byte, and the bytes.
//! Never: a list that was not the whole one.

use crate::{
    access::Access,
    connection::{Ask, Connection},
    crowd::quantile,
    figures::Figures,
    proc::Server,
    writes::Place,
};
use http_body_util::BodyExt;
use serde_json::Value;
use std::time::{Duration, Instant};

const ROUNDS: u32 = 11;
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const PARTIAL: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const PAGE: usize = 500;

struct Form {
    name: &'static str,
    accept: &'static str,
    gzip: bool,
    paged: bool,
    mark: &'static str,
}

const FORMS: [Form; 6] = [
    Form { name: "JSON", accept: "application/json", gzip: false, paged: false, mark: "≤ 40 ms" },
    Form { name: "JSON, gzip", accept: "application/json", gzip: true, paged: false, mark: "≤ 80 ms" },
    Form { name: "JSON in pages of 500", accept: "application/json", gzip: false, paged: true, mark: "" },
    Form { name: "Table", accept: TABLE, gzip: true, paged: false, mark: "" },
    Form { name: "metadata only", accept: PARTIAL, gzip: true, paged: false, mark: "" },
    Form { name: "protobuf", accept: PROTOBUF, gzip: false, paged: false, mark: "" },
];

pub async fn run(
    access: &Access,
    server: &Server,
    place: &Place,
    pods: usize,
    figures: &mut Figures,
) -> Result<(), String> {
    let mut connection = Connection::open(access).await?;
    let path = place.path("pods");
    for form in &FORMS {
        let what = format!("LIST of {pods} pods, {}", form.name);
        if !figures.wants(&what) {
            continue;
        }
        let (mut times, mut bytes) = (Vec::new(), 0);
        let before = server.cpu();
        for _ in 0..ROUNDS {
            let begin = Instant::now();
            bytes = match form.paged {
                true => pages(&mut connection, &path, pods).await?,
                false => whole(&mut connection, &path, form).await?,
            };
            times.push(begin.elapsed());
        }
        times.sort_unstable();
        let cpu = server.cpu().zip(before).map(|(after, before)| (after - before) / ROUNDS);
        let cpu = cpu.map(|cpu: Duration| format!("; {:.1} ms of its CPU", cpu.as_secs_f64() * 1e3)).unwrap_or_default();
        let (p50, worst) = (quantile(&times, 0.5), quantile(&times, 1.0));
        let mb = bytes as f64 / 1e6;
        figures.say(what, format!("p50 {p50:.1} ms, worst {worst:.1} ms, {mb:.2} MB{cpu}"), form.mark);
    }
    Ok(())
}

/// Bytes of the whole answer, which are not kept.
async fn whole(connection: &mut Connection, path: &str, form: &Form) -> Result<usize, String> {
    let mut ask = Ask::get(path);
    (ask.accept, ask.gzip) = (form.accept, form.gzip);
    let answer = connection.send(ask).await?;
    if answer.status() != 200 {
        return Err(format!("LIST as {}: {}", form.name, answer.status()));
    }
    let (mut body, mut bytes) = (answer.into_body(), 0);
    while let Some(frame) = body.frame().await {
        bytes += frame.map_err(|e| e.to_string())?.data_ref().map_or(0, |data| data.len());
    }
    Ok(bytes)
}

async fn pages(connection: &mut Connection, path: &str, pods: usize) -> Result<usize, String> {
    let (mut bytes, mut seen, mut token) = (0, 0, String::new());
    loop {
        let url = format!("{path}?limit={PAGE}&continue={token}");
        let page = connection.ask(Ask::get(&url)).await?;
        bytes += page.len();
        seen += PAGE;
        // The token is in the metadata, which comes first or last; the client's parser is not what is measured.
        match token_of(&page)? {
            Some(next) => token = next,
            None => break,
        }
    }
    if seen < pods { Err(format!("the pages end after {seen} pods")) } else { Ok(bytes) }
}

fn token_of(page: &[u8]) -> Result<Option<String>, String> {
    let text = String::from_utf8_lossy(&page[..page.len().min(400)]);
    if let Some((_, rest)) = text.split_once("\"continue\":\"") {
        return Ok(rest.split('"').next().map(Into::into));
    }
    let list: Value = serde_json::from_slice(page).map_err(|e| e.to_string())?;
    Ok(list["metadata"]["continue"].as_str().filter(|t| !t.is_empty()).map(Into::into))
}
