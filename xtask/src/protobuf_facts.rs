//! `cargo xtask protobuf-facts`: brings the field numbers of Kubernetes' protobuf encoding up to date.
//!
//! In: Debian's packages golang-k8s-*-dev of the suite sid, fetched with apt into a temporary folder (the
//! struct tags of their `types.go`). Out: hub/src/api/protobuf/fields-1.36.txt: one message a line, with
//! number, JSON name and type.
//! Never: takes comments or code; changes apt's own state.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "hub/src/api/protobuf/fields-1.36.txt";
const PACKAGES: [&str; 3] =
    ["golang-k8s-api-dev", "golang-k8s-apimachinery-dev", "golang-k8s-apiextensions-apiserver-dev"];
const ROOT: &str = "usr/share/gocode/src/k8s.io";
const META: &str = "apimachinery/pkg/apis/meta/v1";

/// Go packages whose messages are served.
const SOURCES: [&str; 22] = [
    "api/admissionregistration/v1",
    "api/apps/v1",
    "api/authentication/v1",
    "api/authorization/v1",
    "api/autoscaling/v1",
    "api/autoscaling/v2",
    "api/batch/v1",
    "api/certificates/v1",
    "api/coordination/v1",
    "api/core/v1",
    "api/discovery/v1",
    "api/events/v1",
    "api/flowcontrol/v1",
    "api/networking/v1",
    "api/node/v1",
    "api/policy/v1",
    "api/rbac/v1",
    "api/resource/v1",
    "api/scheduling/v1",
    "api/storage/v1",
    "apiextensions-apiserver/pkg/apis/apiextensions/v1",
    META,
];

/// Fetches the packages and rewrites the table. Run from the workspace's root.
pub fn run() -> Result<(), String> {
    let work = std::env::temp_dir().join(format!("limpet-protobuf-facts-{}", std::process::id()));
    let outcome = fetch(&work, &PACKAGES).and_then(|root| table(&root)).and_then(|text| {
        std::fs::write(TARGET, text).map_err(|e| format!("cannot write {TARGET}: {e}"))?;
        println!("wrote {TARGET}");
        Ok(())
    });
    // A left-over temporary folder harms nobody.
    let _ = std::fs::remove_dir_all(&work);
    outcome
}

/// Unpacks packages of Debian's sid below `work`; where their Kubernetes sources are.
pub fn fetch(work: &Path, packages: &[&str]) -> Result<PathBuf, String> {
    let io = |e: std::io::Error| format!("cannot use {}: {e}", work.display());
    for folder in ["lists/partial", "cache/archives/partial", "x"] {
        std::fs::create_dir_all(work.join(folder)).map_err(io)?;
    }
    let list = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main\n";
    std::fs::write(work.join("sid.list"), list).map_err(io)?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.current_dir(work).arg("-qq");
        for (key, value) in [
            ("Dir::Etc::sourcelist", work.join("sid.list")),
            ("Dir::Etc::sourceparts", PathBuf::from("-")),
            ("Dir::State::lists", work.join("lists")),
            ("Dir::Cache", work.join("cache")),
        ] {
            command.arg("-o").arg(format!("{key}={}", value.display()));
        }
        tool(command.args(arguments))
    };
    apt(&["update"])?;
    for package in packages {
        apt(&["download", package])?;
    }
    let files = std::fs::read_dir(work).map_err(io)?.filter_map(|e| e.ok().map(|e| e.path()));
    for file in files.filter(|f| f.extension().is_some_and(|e| e == "deb")) {
        tool(Command::new("dpkg").arg("-x").arg(&file).arg(work.join("x")))?;
    }
    Ok(work.join("x").join(ROOT))
}

fn tool(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("cannot run {command:?}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed: {status}")) }
}

/// The struct tags of one Go package.
#[derive(Default)]
struct Source {
    /// Struct -> fields.
    structs: BTreeMap<String, Vec<Field>>,
    /// Named types that are no structs, with what they stand for.
    aliases: BTreeMap<String, String>,
    /// Import name -> package.
    imports: BTreeMap<String, String>,
}

struct Field {
    number: u32,
    /// Empty: inlined.
    json: String,
    go_type: String,
}

/// The whole table as text.
pub fn table(root: &Path) -> Result<String, String> {
    let mut sources = BTreeMap::new();
    for package in SOURCES {
        sources.insert(package.to_owned(), read(&root.join(package), package == META)?);
    }
    let mut text = String::from(
        "# Made by `cargo xtask protobuf-facts`: messages of Kubernetes' protobuf encoding, number:name:type.\n\
         # Types: s string, b bool, i integer, d double, y bytes, else a message. In front:\n\
         # * list, % map, ? optional.\n\
         # .X is a message of the same package, @X one of io.k8s.apimachinery.pkg.apis.meta.v1; no name: inlined.\n",
    );
    for (package, source) in &sources {
        text.push_str(&format!("= {}\n", dotted(package)));
        for (name, fields) in &source.structs {
            let mut line = name.clone();
            for field in fields {
                let type_ = resolve(&sources, package, &field.go_type, 0);
                // `.X` is of the same package, `@X` of meta/v1.
                let type_ = type_
                    .replace(&format!("{}.", dotted(package)), ".")
                    .replace(&format!("{}.", dotted(META)), "@");
                line.push_str(&format!(" {}:{}:{type_}", field.number, field.json));
            }
            text.push_str(&line);
            text.push('\n');
        }
    }
    Ok(text)
}

/// `api/core/v1` -> `io.k8s.api.core.v1`.
fn dotted(package: &str) -> String {
    format!("io.k8s.{}", package.replace('/', "."))
}

fn read(folder: &Path, all_files: bool) -> Result<Source, String> {
    let mut source = Source::default();
    let mut files = vec![folder.join("types.go")];
    if all_files {
        files.push(folder.join("group_version.go"));
    } else if folder.ends_with("apiextensions/v1") {
        files.push(folder.join("types_jsonschema.go"));
    }
    for file in files {
        let text =
            std::fs::read_to_string(&file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        parse(&text, &mut source);
    }
    Ok(source)
}

fn parse(text: &str, source: &mut Source) {
    let mut open: Option<String> = None;
    for line in text.lines() {
        let code = line.trim();
        if code.starts_with("//") {
            continue;
        }
        if let Some(name) = &open {
            match code {
                "}" => open = None,
                _ => source.structs.entry(name.clone()).or_default().extend(field(code)),
            }
            continue;
        }
        let mut words = code.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("type"), Some(name), Some("struct")) => {
                source.structs.entry(name.to_owned()).or_default();
                open = (!code.ends_with('}')).then(|| name.to_owned());
            }
            (Some("type"), Some(name), Some(_)) => {
                let rest = code.splitn(3, char::is_whitespace).nth(2).unwrap_or_default();
                source.aliases.insert(name.to_owned(), rest.trim_start_matches("= ").trim().to_owned());
            }
            (first, second, None) => import(first, second, source),
            _ => {}
        }
    }
}

fn import(first: Option<&str>, second: Option<&str>, source: &mut Source) {
    let (name, path) = match (first, second) {
        (Some(path), None) if path.starts_with('"') => (None, path),
        (Some(name), Some(path)) if path.starts_with('"') => (Some(name), path),
        _ => return,
    };
    if let Some(package) = path.trim_matches('"').strip_prefix("k8s.io/") {
        let last = package.rsplit('/').next().unwrap_or(package);
        source.imports.insert(name.unwrap_or(last).to_owned(), package.to_owned());
    }
}

/// One line of a struct that has a protobuf tag.
fn field(code: &str) -> Option<Field> {
    let (front, tags) = code.split_once('`')?;
    let tag = |name: &str| {
        let rest = &tags[tags.find(&format!("{name}:\""))? + name.len() + 2..];
        rest.split('"').next()
    };
    let number = tag("protobuf")?.split(',').nth(1)?.parse().ok()?;
    let json = tag("json")?.split(',').next().unwrap_or_default().to_owned();
    // An embedded struct has no name in front of its type.
    let go_type = front.split_whitespace().last()?.to_owned();
    Some(Field { number, json, go_type })
}

/// The table's word for a Go type of a package.
fn resolve(sources: &BTreeMap<String, Source>, package: &str, go: &str, depth: u8) -> String {
    if depth > 8 {
        return "y".into();
    }
    let again = |package: &str, go: &str| resolve(sources, package, go, depth + 1);
    if let Some(rest) = go.strip_prefix('*') {
        return format!("?{}", again(package, rest).trim_start_matches('?'));
    }
    if go == "[]byte" {
        return "y".into();
    }
    if let Some(rest) = go.strip_prefix("[]") {
        return format!("*{}", again(package, rest).trim_start_matches('?'));
    }
    if let Some(rest) = go.strip_prefix("map[").and_then(|r| r.split_once(']')) {
        let value = match slice_message(sources, package, rest.1) {
            Some(message) => message,
            None => again(package, rest.1),
        };
        return format!("%{value}");
    }
    match go {
        // An empty struct has no message of its own here; the hub knows this name.
        "struct{}" => return format!("{}.Empty", dotted(META)),
        // The one named list that is a message of its own outside a map.
        "Verbs" => return "?items".into(),
        "string" => return "s".into(),
        "bool" => return "b".into(),
        "int" | "int32" | "int64" | "uint8" | "uint32" | "uint64" => return "i".into(),
        "float64" | "float32" => return "d".into(),
        _ => {}
    }
    if let Some((import, name)) = go.split_once('.') {
        let found = sources.get(package).and_then(|s| s.imports.get(import));
        return match (found, name) {
            (Some(package), _) if sources.contains_key(package) => again(package, name),
            (_, "UID" | "NodeName" | "ResourceName") => "s".into(),
            (Some(package), name) => format!("{}.{name}", dotted(package)),
            (None, name) => name.to_owned(),
        };
    }
    let Some(source) = sources.get(package) else { return go.to_owned() };
    match source.aliases.get(go) {
        Some(_) if go == "JSONSchemaDependencies" || go == "JSONSchemaDefinitions" => {
            again(package, &source.aliases[go])
        }
        Some(stands_for) => again(package, stands_for),
        None => format!("{}.{go}", dotted(package)),
    }
}

/// A named list as the value of a map is a message of its own, with the list as field 1.
fn slice_message(sources: &BTreeMap<String, Source>, package: &str, go: &str) -> Option<String> {
    let (package, name) = match go.split_once('.') {
        Some((import, name)) => (sources.get(package)?.imports.get(import)?.as_str(), name),
        None => (package, go),
    };
    sources.get(package)?.aliases.get(name)?.strip_prefix("[]string").map(|_| "items".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_struct_tags() {
        let mut source = Source::default();
        parse(
            "import (\n\tmetav1 \"k8s.io/apimachinery/pkg/apis/meta/v1\"\n)\ntype Name string\ntype A struct {\n\
             \t// a comment `json:\"x\" protobuf:\"bytes,9,opt,name=x\"`\n\tmetav1.TypeMeta `json:\",inline\"`\n\
             \tReplicas *int32 `json:\"replicas,omitempty\" protobuf:\"varint,1,opt,name=replicas\"`\n\
             \tNames []Name `json:\"names\" protobuf:\"bytes,2,rep,name=names\"`\n}\n",
            &mut source,
        );
        let sources = BTreeMap::from([("p".to_owned(), source)]);
        let fields = &sources["p"].structs["A"];
        let types: Vec<_> =
            fields.iter().map(|f| (f.number, resolve(&sources, "p", &f.go_type, 0))).collect();
        assert_eq!(types, [(1, "?i".to_owned()), (2, "*s".to_owned())]);
    }
}
