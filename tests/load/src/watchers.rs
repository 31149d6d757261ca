//! One write, and many who watch: how long until the last of them has its event.
//!
//! In: a number of watchers, each on a connection of its own (over HTTP/2, a hundred on one). Out: the middle and the
//! worst of several writes, from before the request is sent. Never: a write before the last one was seen by all.

use crate::{
    access::Access,
    connection::{Ask, Connection},
    crowd::quantile,
    figures::Figures,
    objects,
    proc::Server,
    writes::Place,
};
use http::Method;
use http_body_util::BodyExt;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const ROUNDS: usize = 31;
const PATIENCE: Duration = Duration::from_secs(30);
const OBJECT: usize = 999_999;

pub async fn run(
    access: &Access,
    server: &Server,
    place: &Place,
    count: usize,
    figures: &mut Figures,
) -> Result<(), String> {
    let what = format!("a write to the last of {count} watchers");
    if count == 0 || !figures.wants(&what) {
        return Ok(());
    }
    let path = place.path("configmaps");
    let mut writer = Connection::open(access).await?;
    let (seen, mut told) = mpsc::unbounded_channel();
    let selector = format!("metadata.name%3D{}", objects::name(OBJECT));
    let revision = revision(&mut writer, &path).await?;
    let url = format!("{path}?watch=1&resourceVersion={revision}&fieldSelector={selector}");
    let mut tasks = Vec::new();
    for mut connection in Connection::many(access, count).await? {
        let answer = connection.send(Ask::get(&url)).await?;
        if answer.status() != 200 {
            return Err(format!("a watch is refused: {}", answer.status()));
        }
        let (seen, mut body) = (seen.clone(), answer.into_body());
        tasks.push(tokio::spawn(async move {
            // The connection lives as long as its watch.
            let _connection = connection;
            while let Some(Ok(frame)) = body.frame().await {
                // An event is one line, and each is awaited before the next is written.
                if frame.data_ref().is_some_and(|data| data.ends_with(b"\n")) && seen.send(Instant::now()).is_err() {
                    return;
                }
            }
        }));
    }
    figures.memory(&format!("memory with {count} watchers"), server, "");
    let mut times = Vec::new();
    let before = server.cpu();
    for round in 0..ROUNDS {
        let begin = Instant::now();
        write(&mut writer, &path, round).await?;
        let mut last = begin;
        for at in 0..count {
            let heard = tokio::time::timeout(PATIENCE, told.recv()).await;
            last = last.max(heard.ok().flatten().ok_or_else(|| format!("only {at} of {count} watchers heard"))?);
        }
        times.push(last - begin);
    }
    let cpu = server.cpu().zip(before).map(|(after, before)| (after - before).as_secs_f64() * 1e3 / ROUNDS as f64);
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let path = format!("{path}/{}", objects::name(OBJECT));
    writer.ask(Ask::new(Method::DELETE, &path, "")).await?;
    times.sort_unstable();
    let cpu = cpu.map(|ms| format!("; {ms:.1} ms of its CPU")).unwrap_or_default();
    let (p50, worst) = (quantile(&times, 0.5), quantile(&times, 1.0));
    let mark = if count == 1000 { "p50 ≤ 20 ms" } else { "" };
    figures.say(what, format!("p50 {p50:.1} ms, worst {worst:.1} ms{cpu}"), mark);
    Ok(())
}

async fn revision(writer: &mut Connection, path: &str) -> Result<String, String> {
    let page = writer.ask(Ask::get(&format!("{path}?limit=1"))).await?;
    let list: serde_json::Value = serde_json::from_slice(&page).map_err(|e| e.to_string())?;
    list["metadata"]["resourceVersion"].as_str().map(Into::into).ok_or_else(|| "the list has no revision".into())
}

async fn write(writer: &mut Connection, path: &str, round: usize) -> Result<(), String> {
    if round == 0 {
        return writer.ask(Ask::new(Method::POST, path, objects::config_map(OBJECT, 0))).await.map(drop);
    }
    let path = format!("{path}/{}", objects::name(OBJECT));
    let patch = json!({"data": {"generation": round.to_string()}}).to_string();
    let mut ask = Ask::new(Method::PATCH, &path, patch);
    ask.content_type = "application/merge-patch+json";
    writer.ask(ask).await.map(drop)
}
