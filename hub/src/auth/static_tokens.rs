//! Tokens from a file: `token,user,uid,"group1,group2"`.
//!
//! In: such a file, read once at the start. Out: the user of a token. Source: the Kubernetes page "Authenticating", "Static
//! token file". Never: keeps the tokens themselves; compares them letter by letter.

use super::user::{AUTHENTICATED, User};
use sha2::{Digest, Sha256};
use std::{collections::HashMap, path::Path};

#[derive(Default)]
pub struct StaticTokens(HashMap<[u8; 32], User>);

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

impl StaticTokens {
    pub fn read(path: &Path) -> Result<StaticTokens, String> {
        let wrong = |why: String| format!("--token-auth-file {}: {why}", path.display());
        let text = std::fs::read_to_string(path).map_err(|why| wrong(why.to_string()))?;
        let mut all = HashMap::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: &str| wrong(format!("line {}: {why}", at + 1));
            let fields = fields(line).ok_or_else(|| wrong("a quote is not closed"))?;
            let [token, name, uid, rest @ ..] = &fields[..] else {
                return Err(wrong("must have at least 3 columns: token, user name, user uid"));
            };
            if token.is_empty() || name.is_empty() {
                return Err(wrong("token and user name must not be empty"));
            }
            let groups = rest.first().map(String::as_str).unwrap_or_default().split(',');
            let mut groups: Vec<String> =
                groups.map(str::trim).filter(|group| !group.is_empty()).map(str::to_owned).collect();
            groups.push(AUTHENTICATED.to_owned());
            let user = User { name: name.clone(), uid: uid.clone(), groups, ..User::default() };
            if all.insert(hash(token), user).is_some() {
                return Err(wrong("the token is there twice"));
            }
        }
        Ok(StaticTokens(all))
    }

    pub fn user(&self, token: &str) -> Option<User> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&hash(token)).cloned()
    }
}

/// The columns of a line of CSV (RFC 4180); `None` when a quote is open at its end.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut all = vec![String::new()];
    let mut quoted = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                all.last_mut()?.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => all.push(String::new()),
            other => all.last_mut()?.push(other),
        }
    }
    (!quoted).then(|| all.into_iter().map(|field| field.trim().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<StaticTokens, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        StaticTokens::read(file.path())
    }

    #[test]
    fn users_of_tokens() {
        let tokens = read("# ours\nabc,ann,1\n\ndef,bob,2,\"dev, ops\"\n").unwrap();
        assert_eq!(tokens.user("abc").unwrap().groups, ["system:authenticated"]);
        let bob = tokens.user("def").unwrap();
        assert_eq!((&*bob.name, &*bob.uid, bob.groups.len()), ("bob", "2", 3));
        assert!(bob.in_group("ops"));
        assert!(tokens.user("ab").is_none() && tokens.user("").is_none());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("abc,ann", "line 1: must have at least 3 columns"),
            ("x,y,z\n,ann,1", "line 2: token and user name must not be empty"),
            ("abc,ann,1,\"dev", "a quote is not closed"),
            ("abc,ann,1\nabc,bob,2", "line 2: the token is there twice"),
        ] {
            let why = read(text).err().unwrap();
            assert!(why.contains(words), "{why}");
        }
    }
}
