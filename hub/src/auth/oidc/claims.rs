//! From the claims of a token to a user.
//!
//! In: claims that an issuer signed, the rules of that issuer, the time. Out: the user, or why there is none.
//! Never: reads a clock; looks at a signature; spends more on expressions than `COST_MAX`.

use super::config::{Rules, Source};
use crate::auth::user::{AUTHENTICATED, User};
use limpet_cel::{Meter, Program, Value as Cel};
use serde_json::{Value, json};

/// What all expressions of one token may cost together, as upstream's.
const COST_MAX: u64 = 10_000_000;
/// Clocks may differ by so much where a token is not valid yet.
const NOT_BEFORE_LEEWAY_S: i64 = 300;
const GROUPS_MAX: usize = 10_000;

/// The user whose claims these are.
pub fn user(claims: &Value, rules: &Rules, second: i64) -> Result<User, String> {
    times(claims, second)?;
    let audience = &claims["aud"];
    let has = |wanted: &String| audience == wanted || audience.as_array().is_some_and(|all| all.iter().any(|a| a == wanted));
    if !rules.audiences.iter().any(has) {
        return Err(format!("expected audience in {:?} got {audience}", rules.audiences));
    }
    for (claim, wanted) in &rules.required {
        if claims[claim] != wanted.as_str() {
            return Err(format!("claim {claim} value does not match"));
        }
    }
    let mut meter = Meter::new(COST_MAX);
    let variables = [("claims", Cel::from_json(claims))];
    let mut run = |program: &Program| program.run(&variables, &mut meter).map_err(|why| why.to_string());
    for (program, message) in &rules.claim_rules {
        if !matches!(run(program)?, Cel::Bool(true)) {
            return Err(message.clone());
        }
    }
    let name = match &rules.username {
        Source::Nothing => return Err("no claim is the user's name".into()),
        Source::Expression(program) => one(run(program)?)?,
        Source::Claim { name, prefix } => {
            let text = claims[name].as_str().ok_or_else(|| format!("parse username claims {name:?}: claim not present"))?;
            let verified = &claims["email_verified"];
            if name == "email" && !rules.reads_email_verified && !verified.is_null() && *verified != true {
                return Err("oidc: email not verified".into());
            }
            format!("{prefix}{text}")
        }
    };
    if name.is_empty() {
        return Err("the user's name is empty".into());
    }
    let mut groups = match &rules.groups {
        Source::Nothing => Vec::new(),
        Source::Expression(program) => many(run(program)?)?,
        Source::Claim { name, prefix } => match &claims[name] {
            Value::Null => Vec::new(),
            Value::String(group) => vec![format!("{prefix}{group}")],
            Value::Array(all) if all.iter().all(Value::is_string) => {
                all.iter().filter_map(Value::as_str).map(|group| format!("{prefix}{group}")).collect()
            }
            _ => return Err(format!("parse groups claim {name:?}: neither a string nor a list of strings")),
        },
    };
    if groups.len() > GROUPS_MAX {
        return Err(format!("more than {GROUPS_MAX} groups"));
    }
    let uid = match &rules.uid {
        Source::Nothing => String::new(),
        Source::Expression(program) => one(run(program)?)?,
        Source::Claim { name, .. } => claims[name].as_str().ok_or_else(|| format!("claim {name:?} not present"))?.to_owned(),
    };
    let mut user = User { name, uid, ..User::default() };
    for (key, program) in &rules.extra {
        let values: Vec<String> = many(run(program)?)?.into_iter().filter(|value| !value.is_empty()).collect();
        if !values.is_empty() {
            user.extra.insert(key.clone(), values);
        }
    }
    if let Some(id) = claims["jti"].as_str().filter(|id| !id.is_empty()) {
        user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("JTI={id}")]);
    }
    user.groups.append(&mut groups);
    judged(&user, rules, &mut meter)?;
    if !user.in_group(AUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    Ok(user)
}

fn times(claims: &Value, second: i64) -> Result<(), String> {
    let number = |name: &str| claims[name].as_i64().or_else(|| claims[name].as_f64().map(|n| n as i64));
    let ends = number("exp").ok_or("the token has no end (exp)")?;
    if ends <= second {
        return Err(format!("oidc: token is expired (Token Expiry: {ends})"));
    }
    match number("nbf") {
        Some(begins) if begins > second + NOT_BEFORE_LEEWAY_S => Err(format!("the token is not valid before {begins}")),
        _ => Ok(()),
    }
}

fn judged(user: &User, rules: &Rules, meter: &mut Meter) -> Result<(), String> {
    if rules.user_rules.is_empty() {
        return Ok(());
    }
    let shown = json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra});
    let variables = [("user", Cel::from_json(&shown))];
    for (program, message) in &rules.user_rules {
        if !matches!(program.run(&variables, meter).map_err(|why| why.to_string())?, Cel::Bool(true)) {
            return Err(message.clone());
        }
    }
    Ok(())
}

fn one(value: Cel) -> Result<String, String> {
    match value {
        Cel::String(text) => Ok(text.to_string()),
        other => Err(format!("an expression gave {} instead of a string", other.type_name())),
    }
}

fn many(value: Cel) -> Result<Vec<String>, String> {
    match value {
        Cel::Null => Ok(Vec::new()),
        Cel::String(text) if text.is_empty() => Ok(Vec::new()),
        Cel::String(text) => Ok(vec![text.to_string()]),
        Cel::List(items, _) => items.iter().cloned().map(one).collect(),
        other => Err(format!("an expression gave {} instead of strings", other.type_name())),
    }
}

#[cfg(test)]
mod tests;
