//! Tokens that a webhook knows: TokenReview.
//!
//! In: a token that nobody here knows. Out: the user that the webhook names; answers are kept for a while.
//! Source: the Kubernetes page "Authenticating", "Webhook Token Authentication". Never: keeps a token itself.

use super::{
    answers::Answers,
    user::{AUTHENTICATED, User},
};
use crate::{api::object, webhook::{client::Client, kubeconfig}};
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{path::Path, time::Duration};

const CALL_TIME: Duration = Duration::from_secs(30);
/// How long a refusal is kept, as upstream.
const REFUSED_TTL: Duration = Duration::from_secs(10);

type Known = Result<(User, Vec<String>), String>;

pub struct TokenWebhook {
    client: Client,
    known: Answers<[u8; 32], Known>,
    ttl: Duration,
}

impl TokenWebhook {
    pub fn open(path: &Path, ttl: Duration) -> Result<TokenWebhook, String> {
        Ok(TokenWebhook { client: kubeconfig::client(path)?, known: Answers::default(), ttl })
    }

    /// `audiences` are those that are asked for, never none; `own` are the hub's, which a webhook means that names none.
    pub async fn user(&self, token: &str, audiences: &[String], own: &[String]) -> Known {
        let mut hash = Sha256::new_with_prefix(token);
        for audience in audiences {
            hash.update([0]);
            hash.update(audience);
        }
        let key: [u8; 32] = hash.finalize().into();
        if let Some(known) = self.known.get(&key) {
            return known;
        }
        let review = json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1",
            "spec": {"token": token, "audiences": audiences}});
        // A webhook that cannot be reached is asked again by the next.
        let answer = self.client.post(Bytes::from(review.to_string()), CALL_TIME).await;
        let answer = answer.map_err(|why| format!("the token webhook: {why}"))?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|why| format!("the token webhook: {why}"))?;
        let known = read(&answer["status"], audiences, own);
        self.known.keep(key, known.clone(), if known.is_ok() { self.ttl } else { REFUSED_TTL });
        known
    }
}

fn read(status: &Value, audiences: &[String], own: &[String]) -> Known {
    if status["authenticated"] != true {
        let why = status["error"].as_str().filter(|why| !why.is_empty());
        return Err(why.unwrap_or("the webhook does not know the token").to_owned());
    }
    let text = |field: &str| status["user"][field].as_str().unwrap_or_default().to_owned();
    let mut user = User { name: text("username"), uid: text("uid"), ..User::default() };
    if user.name.is_empty() {
        return Err("the webhook named no user".into());
    }
    user.groups = object::strings(&status["user"]["groups"]).map(str::to_owned).collect();
    if !user.in_group(AUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    for (key, values) in status["user"]["extra"].as_object().into_iter().flatten() {
        user.extra.insert(key.clone(), object::strings(values).map(str::to_owned).collect());
    }
    let named: Vec<String> = object::strings(&status["audiences"]).map(str::to_owned).collect();
    let named = if named.is_empty() { own } else { &named[..] };
    let shared: Vec<String> = audiences.iter().filter(|wanted| named.contains(wanted)).cloned().collect();
    if shared.is_empty() {
        return Err("the token is for other audiences".into());
    }
    Ok((user, shared))
}
