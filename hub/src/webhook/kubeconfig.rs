//! Files in kubeconfig's form that name a webhook.
//!
//! In: the path of such a file. Out: a client of its current context's cluster, as its user.
//! Source: the Kubernetes pages "Webhook Mode" and "Auditing". Never: runs a credential plugin, or skips TLS checks.

use super::{
    client::{Client, Credentials},
    tls::{self, Own},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use http::HeaderValue;
use serde_json::Value;
use std::path::Path;

/// The error begins with the file's name.
pub fn client(path: &Path) -> Result<Client, String> {
    let wrong = |why: String| format!("{}: {why}", path.display());
    let text = std::fs::read_to_string(path).map_err(|why| wrong(format!("cannot be read: {why}")))?;
    let value: Value = serde_saphyr::from_str(&text).map_err(|why| wrong(format!("is not YAML: {why}")))?;
    parse(&value, path.parent().unwrap_or(Path::new("."))).map_err(wrong)
}

/// `dir` is where relative names of files begin.
fn parse(value: &Value, dir: &Path) -> Result<Client, String> {
    let context = match value["current-context"].as_str().unwrap_or_default() {
        "" => value["contexts"][0]["context"].clone(),
        name => named(value, "contexts", name)?["context"].clone(),
    };
    let cluster = match context["cluster"].as_str() {
        Some(name) => named(value, "clusters", name)?["cluster"].clone(),
        None => value["clusters"][0]["cluster"].clone(),
    };
    let user = match context["user"].as_str() {
        Some(name) => named(value, "users", name)?["user"].clone(),
        None => Value::Null,
    };
    let server = cluster["server"].as_str().ok_or("the cluster has no server")?;
    if cluster["insecure-skip-tls-verify"] == true {
        return Err("insecure-skip-tls-verify is not supported: name the authority (certificate-authority)".into());
    }
    for plugin in ["exec", "auth-provider"] {
        if !user[plugin].is_null() {
            return Err(format!("users.{plugin} is not supported: use a token, a tokenFile or a certificate"));
        }
    }
    let roots = match bytes(&cluster, "certificate-authority", dir)? {
        Some(pem) => tls::roots(&pem).map_err(|why| format!("certificate-authority: {why}"))?,
        None if server.starts_with("https:") => tls::system_roots()?,
        None => rustls::RootCertStore::empty(),
    };
    let (chain, key) = (bytes(&user, "client-certificate", dir)?, bytes(&user, "client-key", dir)?);
    let own = chain.zip(key).map(|(chain, key)| Own { chain, key });
    let connector = tls::connector(roots, own.as_ref())?;
    Client::new(server, connector, cluster["tls-server-name"].as_str(), credentials(&user, dir)?)
}

fn named<'a>(value: &'a Value, list: &str, name: &str) -> Result<&'a Value, String> {
    let found = value[list].as_array().into_iter().flatten().find(|one| one["name"] == name);
    found.ok_or_else(|| format!("{list} has no {name:?}"))
}

/// `<field>-data` in base64, or the file that `<field>` names.
fn bytes(value: &Value, field: &str, dir: &Path) -> Result<Option<Vec<u8>>, String> {
    if let Some(data) = value[format!("{field}-data")].as_str() {
        return BASE64.decode(data).map(Some).map_err(|why| format!("{field}-data: {why}"));
    }
    let Some(name) = value[field].as_str() else { return Ok(None) };
    std::fs::read(dir.join(name)).map(Some).map_err(|why| format!("{field}: {name}: {why}"))
}

fn credentials(user: &Value, dir: &Path) -> Result<Credentials, String> {
    let fixed = |text: String| {
        let mut value = HeaderValue::from_str(&text).map_err(|_| "the credentials hold control characters")?;
        value.set_sensitive(true);
        Ok::<_, String>(Credentials::Fixed(value))
    };
    if let Some(token) = user["token"].as_str() {
        return fixed(format!("Bearer {token}"));
    }
    if let Some(file) = user["tokenFile"].as_str() {
        return Ok(Credentials::TokenFile(dir.join(file)));
    }
    match (user["username"].as_str(), user["password"].as_str()) {
        (Some(name), Some(password)) => fixed(format!("Basic {}", BASE64.encode(format!("{name}:{password}")))),
        _ => Ok(Credentials::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_wrong_is_said() {
        let dir = Path::new("/nowhere");
        let of = |cluster: Value, user: Value| {
            parse(&json!({"clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}], "current-context": "x"}), dir)
        };
        let plain = json!({"server": "http://127.0.0.1:1"});
        assert!(of(plain.clone(), json!({"token": "t"})).is_ok());
        assert!(of(plain.clone(), json!({"username": "a", "password": "b"})).is_ok());
        for (cluster, user, words) in [
            (json!({}), json!({}), "no server"),
            (json!({"server": "x"}), json!({}), "must begin with https"),
            (json!({"server": "http://x", "insecure-skip-tls-verify": true}), json!({}), "name the authority"),
            (json!({"server": "https://x", "certificate-authority": "ca"}), json!({}), "certificate-authority: ca"),
            (json!({"server": "https://x", "certificate-authority-data": "?"}), json!({}), "certificate-authority-data"),
            (plain.clone(), json!({"exec": {}}), "users.exec is not supported"),
            (plain, json!({"token": "a\nb"}), "control characters"),
        ] {
            let why = of(cluster, user).err().unwrap();
            assert!(why.contains(words), "{why}");
        }
        let why = parse(&json!({"current-context": "y", "contexts": []}), dir).err().unwrap();
        assert_eq!(why, "contexts has no \"y\"");
    }
}
