//! What the URLs of exec, attach and port-forward ask for.
//!
//! In: a look-up of query parameters (decoded). Out: typed requests, or a metav1.Status.
//! Never: knows pods; the caller fills in the container when the client named none.

use limpet_objects::status::Status;
use limpet_protocol::StreamKind;

use super::limits::{COMMAND_WORDS_MAX, PORTS_MAX};

/// All values of one query parameter.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Vec<String>;

/// Upstream's PodExecOptions and PodAttachOptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Empty: the caller decides.
    pub container: String,
    /// None for attach.
    pub command: Option<Vec<String>>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl ExecRequest {
    pub fn exec(query: Lookup<'_>) -> Result<ExecRequest, Status> {
        let command = query("command");
        let mut request = streams(query, false)?;
        if command.is_empty() {
            return Err(Status::bad_request("you must specify at least one command for the container"));
        }
        if command.len() > COMMAND_WORDS_MAX {
            return Err(Status::bad_request(format!("the command has more than {COMMAND_WORDS_MAX} words")));
        }
        request.command = Some(command);
        Ok(request)
    }

    /// `stdout` and `stderr` are on unless they are switched off, as documented for PodAttachOptions.
    pub fn attach(query: Lookup<'_>) -> Result<ExecRequest, Status> {
        streams(query, true)
    }

    pub(super) fn kind(&self) -> StreamKind {
        let ExecRequest { container, command, stdin, stdout, stderr, tty } = self.clone();
        match command {
            Some(command) => StreamKind::Exec { container, command, stdin, stdout, stderr, tty },
            None => StreamKind::Attach { container, stdin, stdout, stderr, tty },
        }
    }
}

fn streams(query: Lookup<'_>, default: bool) -> Result<ExecRequest, Status> {
    let tty = flag(query, "tty", false);
    let request = ExecRequest {
        container: query("container").into_iter().next().unwrap_or_default(),
        command: None,
        stdin: flag(query, "stdin", false),
        stdout: flag(query, "stdout", default),
        // A terminal has one output.
        stderr: flag(query, "stderr", default) && !tty,
        tty,
    };
    if !request.stdin && !request.stdout && !request.stderr {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(request)
}

/// Upstream's conversion: absent is the default, `0` and `false` are false, everything else is true.
fn flag(query: Lookup<'_>, name: &str, default: bool) -> bool {
    match query(name).first() {
        None => default,
        Some(value) => !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"),
    }
}

/// `ports=80&ports=443` or `ports=80,443`; none for the SPDY protocols, where each stream names its port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortForwardRequest {
    pub ports: Vec<u16>,
}

impl PortForwardRequest {
    pub fn read(query: Lookup<'_>) -> Result<PortForwardRequest, Status> {
        let mut ports = Vec::new();
        for text in query("ports").iter().flat_map(|v| v.split(',')).filter(|t| !t.is_empty()) {
            match text.trim().parse::<u16>() {
                Ok(port) if port > 0 => ports.push(port),
                _ => {
                    return Err(Status::bad_request(format!(
                        "invalid port {text:?}: must be a number from 1 to 65535"
                    )));
                }
            }
            if ports.len() > PORTS_MAX {
                return Err(Status::bad_request(format!("more than {PORTS_MAX} ports in one request")));
            }
        }
        Ok(PortForwardRequest { ports })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(query: &str, read: fn(Lookup<'_>) -> Result<T, Status>) -> Result<T, String> {
        let pairs: Vec<(&str, &str)> = query.split('&').filter_map(|p| p.split_once('=')).collect();
        let all = |key: &str| pairs.iter().filter(|(k, _)| *k == key).map(|(_, v)| v.to_string()).collect();
        read(&all).map_err(|s| s.message)
    }

    #[test]
    fn exec_and_attach() {
        let exec = run("command=ls&command=-l&stdout=true&stdin=1&container=c", ExecRequest::exec).unwrap();
        assert_eq!(exec.command.as_deref(), Some(&["ls".to_string(), "-l".to_string()][..]));
        assert_eq!(
            (exec.stdin, exec.stdout, exec.stderr, exec.tty, exec.container.as_str()),
            (true, true, false, false, "c")
        );
        let tty = run("command=sh&stdin=true&stdout=true&stderr=true&tty=true", ExecRequest::exec).unwrap();
        assert!(tty.tty && !tty.stderr);
        let none = "you must specify at least 1 of stdin, stdout, stderr";
        assert_eq!(run("command=ls", ExecRequest::exec), Err(none.into()));
        assert_eq!(run("command=ls&stdout=false&stdin=0", ExecRequest::exec), Err(none.into()));
        assert!(run("stdout=true", ExecRequest::exec).is_err());
        let attach = run("container=c", ExecRequest::attach).unwrap();
        assert!(attach.stdout && attach.stderr && !attach.stdin && attach.command.is_none());
    }

    #[test]
    fn ports() {
        assert_eq!(
            run("ports=80&ports=443,8080", PortForwardRequest::read).map(|r| r.ports),
            Ok(vec![80, 443, 8080])
        );
        assert_eq!(run("", PortForwardRequest::read).map(|r| r.ports), Ok(vec![]));
        for bad in ["ports=0", "ports=x", "ports=70000", "ports=-1"] {
            assert!(run(bad, PortForwardRequest::read).is_err());
        }
    }
}
