//! What the demo deploys: a web server of a few hundred kilobytes that shows which pod answers, from which node, and what its
//! ConfigMap says right now.
//!
//! In: HTTP requests, environment (POD_NAME, NODE_NAME, MESSAGE_FILE, PORT). Out: pages, one log line a request.
//! `demo-web cat FILE…`, `env`, `hostname` and `sleep SECONDS` stand in for a shell in an image that has none.
//! Never: needs anything else in the image.

mod http;
mod page;
mod serve;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "usage: demo-web [serve] | cat FILE... | env | hostname | sleep SECONDS | echo WORD... | exit CODE";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [] | ["serve"] => serve::run(),
        ["cat", files @ ..] if !files.is_empty() => tools::cat(files),
        ["env"] => tools::env(),
        ["hostname"] => tools::hostname(),
        ["sleep", seconds] => tools::sleep(seconds),
        ["echo", words @ ..] => tools::echo(words),
        ["exit", code] => return ExitCode::from(code.parse::<u8>().unwrap_or(1)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("demo-web: {e}");
            ExitCode::FAILURE
        }
    }
}
