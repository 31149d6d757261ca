//! Rules for probes and for what happens after a container's start and before its end (`validateProbe`, `validateLifecycle`).
//!
//! In: a container, its path, the pod's grace period. Out: field errors. Never: runs a handler.

use serde_json::Value;

use crate::field::FieldError;
use crate::kinds::fill::{list, text};
use crate::kinds::rules::{Errors, join, not_negative, one_of, positive, required};
use crate::names;

pub fn lifecycle(spec: &Value, container: &Value, path: &str, errors: &mut Errors) {
    let (lifecycle, path) = (&container["lifecycle"], join(path, "lifecycle"));
    for hook in ["postStart", "preStop"] {
        if lifecycle[hook].is_object() {
            handler(spec, &lifecycle[hook], &join(&path, hook), errors);
        }
    }
    let signal = text(lifecycle, "stopSignal");
    if signal.is_empty() {
        return;
    }
    let at = join(&path, "stopSignal");
    if text(&spec["os"], "name").is_empty() {
        let words = "may not be set for containers with empty `spec.os.name`";
        errors.push(FieldError::forbidden(at, words));
    } else if !is_signal(signal) {
        errors.push(FieldError::not_supported(at, signal, &[]));
    }
}

fn is_signal(name: &str) -> bool {
    const PLAIN: [&str; 35] = [
        "SIGABRT", "SIGALRM", "SIGBUS", "SIGCHLD", "SIGCLD", "SIGCONT", "SIGFPE", "SIGHUP", "SIGILL", "SIGINT", "SIGIO",
        "SIGIOT", "SIGKILL", "SIGPIPE", "SIGPOLL", "SIGPROF", "SIGPWR", "SIGQUIT", "SIGSEGV", "SIGSTKFLT", "SIGSTOP",
        "SIGSYS", "SIGTERM", "SIGTRAP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGUSR1", "SIGUSR2", "SIGVTALRM",
        "SIGWINCH", "SIGXCPU", "SIGXFSZ", "SIGRTMIN",
    ];
    let within = |start: &str, max: u32| {
        let number = name.strip_prefix(start).and_then(|digits| digits.parse::<u32>().ok());
        number.is_some_and(|number| (1..=max).contains(&number))
    };
    PLAIN.contains(&name) || name == "SIGRTMAX" || within("SIGRTMIN+", 15) || within("SIGRTMAX-", 14)
}

pub fn probes(spec: &Value, container: &Value, path: &str, errors: &mut Errors) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = &container[name];
        if !probe.is_object() {
            continue;
        }
        let path = join(path, name);
        handler(spec, probe, &path, errors);
        let counts = ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
        for field in counts {
            not_negative(probe, field, &path, errors);
        }
        if name == "readinessProbe" {
            if !probe["terminationGracePeriodSeconds"].is_null() {
                let seconds = probe["terminationGracePeriodSeconds"].clone();
                let words = "must not be set for readinessProbes";
                errors.push(FieldError::invalid(join(&path, "terminationGracePeriodSeconds"), seconds, words));
            }
            continue;
        }
        positive(probe, "terminationGracePeriodSeconds", &path, errors);
        let successes = probe["successThreshold"].as_i64().unwrap_or(1);
        if successes != 1 {
            errors.push(FieldError::invalid(join(&path, "successThreshold"), successes, "must be 1"));
        }
    }
}

/// Exactly one way.
fn handler(spec: &Value, handler: &Value, path: &str, errors: &mut Errors) {
    let kinds: Vec<&str> =
        ["exec", "httpGet", "tcpSocket", "grpc", "sleep"].into_iter().filter(|kind| handler[*kind].is_object()).collect();
    let Some(first) = kinds.first() else {
        errors.push(FieldError::required(path, "must specify a handler type"));
        return;
    };
    for extra in kinds.iter().skip(1) {
        errors.push(FieldError::forbidden(join(path, extra), "may not specify more than 1 handler type"));
    }
    let (action, whole, path) = (&handler[*first], path, join(path, first));
    match *first {
        "exec" if list(action, "command").is_empty() => {
            errors.push(FieldError::required(join(&path, "command"), ""));
        }
        "httpGet" => {
            _ = required(action, "path", &path, errors);
            port(&action["port"], &join(&path, "port"), errors);
            one_of(action, "scheme", &path, &["HTTP", "HTTPS"], errors);
            for header in list(action, "httpHeaders") {
                let name = text(header, "name");
                if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                    let words = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. \
                                 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
                    errors.push(FieldError::invalid(join(&path, "httpHeaders"), name, words));
                }
            }
        }
        "tcpSocket" | "grpc" => port(&action["port"], &join(&path, "port"), errors),
        "sleep" => {
            let (seconds, grace) = (action["seconds"].as_i64().unwrap_or(0), spec["terminationGracePeriodSeconds"].as_i64());
            let grace = grace.unwrap_or(0);
            if seconds < 0 || seconds > grace {
                let words = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                errors.push(FieldError::invalid(whole, seconds, words));
            }
        }
        _ => {}
    }
}

fn port(port: &Value, path: &str, errors: &mut Errors) {
    let wrong = match port {
        Value::String(name) => names::port_name(name),
        other => names::port_number(other.as_i64().unwrap_or(0)),
    };
    let shown = if port.is_null() { Value::from(0) } else { port.clone() };
    errors.extend(wrong.into_iter().map(|words| FieldError::invalid(path, shown.clone(), words)));
}
