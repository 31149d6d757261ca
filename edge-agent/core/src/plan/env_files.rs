//! Variables that stand in files of the pod's volumes (`env[].valueFrom.fileKeyRef`, KEP-3721).
//!
//! In: the container; texts that the shell has read. Out: which files are needed; one variable of one file, or why not.
//! Source: Kubernetes "Define Environment Variable Values Using An Init Container", section "Env file syntax".
//! Never: reads a file, or takes a value that is not in single quotes.

use crate::api::{Container, FileKeyRef, PodSpec};
use std::collections::{BTreeMap, BTreeSet};

/// A volume's name and a path in it → the file's text; `None` when it is not there.
pub type EnvFiles = BTreeMap<(String, String), Option<String>>;

/// Where no files are needed.
pub static NO_ENV_FILES: EnvFiles = BTreeMap::new();

/// No file of variables may be larger.
pub const ENV_FILE_BYTES_MAX: usize = 64 * 1024;

/// The files that a container's variables are in.
pub fn wanted(container: &Container) -> BTreeSet<(String, String)> {
    let sources = container.env.iter().filter_map(|v| v.value_from.as_ref()?.file_key_ref.as_ref());
    sources.map(|f| (f.volume_name.clone(), f.path.clone())).collect()
}

/// The variable that a reference names. `Ok(None)`: it is optional, and not there.
pub(super) fn value(spec: &PodSpec, files: &EnvFiles, wanted: &FileKeyRef) -> Result<Option<String>, String> {
    let FileKeyRef { volume_name: volume, path, key, optional } = wanted;
    match spec.volumes.iter().find(|v| v.name == *volume) {
        None => return Err(format!("fileKeyRef names the volume \"{volume}\", which the pod does not have")),
        Some(v) if v.empty_dir.is_none() => {
            return Err(format!("fileKeyRef names the volume \"{volume}\", which is no emptyDir; only those are read"));
        }
        Some(_) => {}
    }
    let text = files.get(&(volume.clone(), path.clone())).cloned().flatten();
    let Some(text) = text else {
        let missing = format!("environment variable file \"{path}\" not found in volume \"{volume}\"");
        return if *optional { Ok(None) } else { Err(missing) };
    };
    let found = parse(&text).map_err(|why| format!("couldn't parse environment variable file \"{path}\": {why}"))?.remove(key);
    match found {
        None if !optional => Err(format!("environment variable key \"{key}\" not found in file \"{path}\"")),
        found => Ok(found),
    }
}

/// `NAME='value'` a line; values may go over several.
fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut all = BTreeMap::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(all);
        }
        let line = 1 + text[..text.len() - rest.len()].matches('\n').count();
        if rest.starts_with('#') {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
            continue;
        }
        let (name, after) = rest.split_once('=').ok_or_else(|| format!("line {line} is no NAME='value'"))?;
        let name = name.trim_end_matches([' ', '\t']);
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(format!("line {line} is no NAME='value'"));
        }
        let quoted = after.trim_start_matches([' ', '\t']).strip_prefix('\'');
        let quoted = quoted.ok_or_else(|| format!("the value in line {line} is not in single quotes"))?;
        let (value, after) = quoted.split_once('\'').ok_or_else(|| format!("the quote of line {line} has no end"))?;
        let (tail, next) = after.split_once('\n').unwrap_or((after, ""));
        if !tail.trim().is_empty() {
            return Err(format!("something follows the quoted value of line {line}"));
        }
        all.insert(name.to_string(), value.to_string());
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_file_may_say() {
        for (text, want) in [
            ("", Ok(vec![])),
            ("A='1'\nB=''", Ok(vec![("A", "1"), ("B", "")])),
            ("# c\n\n  A = 'x # no $comment \"at\\n all'  \n", Ok(vec![("A", "x # no $comment \"at\\n all")])),
            ("A='one\ntwo'\nB='b'", Ok(vec![("A", "one\ntwo"), ("B", "b")])),
            ("A='1'\nA='2'", Ok(vec![("A", "2")])),
            ("A=1", Err("the value in line 1 is not in single quotes")),
            ("# c\nA=\"1\"", Err("the value in line 2 is not in single quotes")),
            ("A='1''2'", Err("something follows the quoted value of line 1")),
            ("A='1'$B", Err("something follows the quoted value of line 1")),
            ("A='1", Err("the quote of line 1 has no end")),
            ("A='1'\nwords", Err("line 2 is no NAME='value'")),
            ("='1'", Err("line 1 is no NAME='value'")),
        ] {
            let got = parse(text);
            let got = got.as_ref().map(|all| all.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>());
            assert_eq!(got.map_err(String::as_str), want, "{text:?}");
        }
    }

    #[test]
    fn what_is_missing_and_what_may_be() {
        let pod = json!({"spec": {"volumes": [{"name": "e", "emptyDir": {}}, {"name": "h", "hostPath": {"path": "/"}}]}});
        let pod: crate::api::Pod = crate::api::parse(pod.to_string().as_bytes()).unwrap();
        let files: EnvFiles = [(("e".into(), "f".into()), Some("A='1'".into())), (("e".into(), "no".into()), None)].into();
        for (volume, path, key, optional, want) in [
            ("e", "f", "A", false, Ok(Some("1"))),
            ("e", "f", "B", true, Ok(None)),
            ("e", "f", "B", false, Err("environment variable key \"B\" not found in file \"f\"")),
            ("e", "no", "A", true, Ok(None)),
            ("e", "no", "A", false, Err("environment variable file \"no\" not found in volume \"e\"")),
            ("h", "f", "A", true, Err("fileKeyRef names the volume \"h\", which is no emptyDir; only those are read")),
            ("x", "f", "A", true, Err("fileKeyRef names the volume \"x\", which the pod does not have")),
        ] {
            let wanted = FileKeyRef { volume_name: volume.into(), path: path.into(), key: key.into(), optional };
            let got = value(&pod.spec, &files, &wanted);
            assert_eq!(got.as_ref().map(Option::as_deref).map_err(String::as_str), want, "{volume} {path} {key}");
        }
    }
}
