//! How an exec or attach ended, as clients want to hear it on the error channel.
//!
//! In: the node's last word. Out: a metav1.Status as JSON (v4 and later), or a sentence (before).
//! Never: calls an exit code of 0 an error.

use bytes::Bytes;
use serde_json::json;

/// The error channel's content; None when there is nothing to say.
pub fn report(exit_code: Option<i32>, error: &str, as_status: bool) -> Option<Bytes> {
    let value = match (exit_code, error) {
        (None | Some(0), "") => {
            if !as_status {
                return None;
            }
            json!({"metadata": {}, "status": "Success"})
        }
        (Some(code), "") => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        (_, error) => json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": format!("Internal error occurred: error executing command in container: {error}"),
            "details": {"causes": [{"message": format!("error executing command in container: {error}")}]},
        }),
    };
    if as_status {
        return Some(value.to_string().into());
    }
    Some(value["message"].as_str().unwrap_or_default().to_owned().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends() {
        let text = |code, error, status| {
            report(code, error, status).map(|b| String::from_utf8_lossy(&b).into_owned())
        };
        assert_eq!(text(Some(0), "", true).as_deref(), Some(r#"{"metadata":{},"status":"Success"}"#));
        assert_eq!(text(Some(0), "", false), None);
        assert_eq!(text(None, "", true).as_deref(), Some(r#"{"metadata":{},"status":"Success"}"#));
        let failed: serde_json::Value = serde_json::from_str(&text(Some(3), "", true).unwrap()).unwrap();
        assert_eq!(failed["details"]["causes"][0], json!({"reason":"ExitCode","message":"3"}));
        assert_eq!(failed["reason"], "NonZeroExitCode");
        assert_eq!(
            text(Some(3), "", false).as_deref(),
            Some("command terminated with non-zero exit code: exit status 3")
        );
        assert!(
            text(None, "no such file", true)
                .unwrap()
                .contains("error executing command in container: no such file")
        );
    }
}
