//! ServiceAccount tokens that nodes need for their pods.
//!
//! In: a `TokenWanted`. Out: the token's item body, issued by the API's own TokenRequest, bound to the pod.
//! Never: signs anything itself.

use super::Api;
use limpet_hub_core::nodes::desired::TokenWanted;
use limpet_objects::status::Status;
use serde_json::{Value, json};

/// `{"token","expirationTimestamp","audience"}`, or why not.
pub(super) async fn issue(api: &dyn Api, wanted: &TokenWanted) -> Result<Vec<u8>, Status> {
    let mut spec = json!({
        "expirationSeconds": wanted.expiration_s,
        "boundObjectRef": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": wanted.pod_name,
            "uid": wanted.pod_uid,
        },
    });
    if !wanted.audience.is_empty() {
        spec["audiences"] = json!([wanted.audience]);
    }
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let answer = api.token(wanted.namespace.clone(), wanted.service_account.clone(), request).await?;
    let token = &answer["status"]["token"];
    if !token.is_string() {
        return Err(Status::internal("the token request was answered without a token"));
    }
    let body: Value = json!({
        "token": token,
        "expirationTimestamp": answer["status"]["expirationTimestamp"],
        "audience": wanted.audience,
    });
    Ok(body.to_string().into_bytes())
}
