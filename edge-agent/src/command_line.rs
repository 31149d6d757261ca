//! The command line: what a person or the keeper wrote, as data.
//!
//! In: words, LIMPET_JOIN. Out: a `Cli`; or what to print, with an exit code. Written out and not derived: a parser for
//! every purpose was a twentieth of this program, and each board carries it.
//! Never: a word that is passed over; an option that its command does not have.

use crate::locks;
use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

#[derive(Clone, Debug, PartialEq)]
pub struct Cli {
    pub options: Options,
    pub command: Option<Command>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub join: Option<String>,
    pub node_name: Option<String>,
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    pub config: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Ps { all: bool },
    Logs(Logs),
    Exec { container: String, command: Vec<String> },
    Images,
    Doctor { json: bool },
    Lock { name: String, reason: String },
    Unlock { name: String },
    /// Started by the keeper.
    Agent,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logs {
    pub container: String,
    pub follow: bool,
    pub timestamps: bool,
    pub previous: bool,
    pub tail: Option<u64>,
    pub since: Option<u64>,
}

/// Instead of a command: help, the version, or what is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    pub text: String,
    /// 0: for stdout; 2: for stderr.
    pub code: i32,
}

/// One option: its long name, its short one, what its value is called (empty: it has none), what it is for.
type Known = (&'static str, &'static str, &'static str, &'static str);

const PLACES: [Known; 2] = [
    ("--data-dir", "", "DIR", "What must survive a reboot: journal, images, logs, identity [default: /var/lib/limpet]"),
    ("--run-dir", "", "DIR", "What must not: namespaces, pipes, records of running containers [default: /run/limpet]"),
];
const NODE: [Known; 3] = [
    ("--join", "", "TOKEN", "Join token, needed at the first start only [env: LIMPET_JOIN]"),
    ("--node-name", "", "NAME", "Name of this node; the host's name when absent"),
    ("--config", "", "FILE", "Settings as JSON (docs/agent-config.md)"),
];
const HELP: [Known; 2] = [("--help", "-h", "", "Print help"), ("--version", "-V", "", "Print version")];

/// A command: its name, its further words, what it does, its own options.
type About = (&'static str, &'static str, &'static str, &'static [Known]);

const CONTAINER: &str = "CONTAINER is a pod, pod/container, a container's name or the beginning of its id (see `ps`).";
const COMMANDS: [About; 7] = [
    ("ps", "", "Lists this node's containers", &[("--all", "-a", "", "Also those that have ended")]),
    (
        "logs",
        "CONTAINER",
        "Prints the log of a container of this node",
        &[
            ("--follow", "-f", "", "Go on with what is written from now on"),
            ("--timestamps", "", "", "A time before each line"),
            ("--previous", "-p", "", "Of the run before the last restart"),
            ("--tail", "", "LINES", "Only so many lines from the end"),
            ("--since", "", "SECONDS", "Only lines of the last so many seconds"),
        ],
    ),
    ("exec", "CONTAINER COMMAND...", "Runs a command in a container of this node", &[]),
    ("images", "", "Lists the images that are here", &[]),
    ("doctor", "", "Says whether this board can be a node, and what to change", &[("--json", "", "", "For programs")]),
    (
        "lock",
        "[NAME]",
        "Holds updates of this board back: its agent, its system, what a FleetRollout would change here",
        &[("--reason", "", "TEXT", "Shown at the hub to whoever waits")],
    ),
    ("unlock", "[NAME]", "Lets updates come again", &[]),
];
const ABOUT: &str = "A whole Kubernetes node in one small binary: joins a hub and runs the pods that it is given, also offline";
const AFTER: &str = "The first start needs a token: limpet-agent --join \"$(limpet token create --data-dir DIR)\"";

/// `words`: without the program's name.
pub fn parse(words: &[OsString], join: Option<String>) -> Result<Cli, Said> {
    let mut found = Found::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        if let Some(command) = found.command.filter(|c| *c == "exec" && !found.plain.is_empty()) {
            // All that follows is the other program's, hyphens too.
            let own = found.plain.len() == 1 && text == "--";
            if !own {
                found.plain.push(plain(command, word)?);
            }
        } else if text.starts_with('-') && text.len() > 1 && text != "--" {
            found.option(&text, word, &mut words)?;
        } else if text == "--" {
            for rest in words.by_ref() {
                found.plain.push(plain("--", rest)?);
            }
        } else if found.command.is_some() {
            found.plain.push(plain("", word)?);
        } else {
            found.begin(&text)?;
        }
    }
    found.finish(join)
}

#[derive(Default)]
struct Found {
    command: Option<&'static str>,
    plain: Vec<String>,
    /// Long names with their values.
    given: Vec<(&'static str, OsString)>,
}

impl Found {
    fn begin(&mut self, text: &str) -> Result<(), Said> {
        let known = COMMANDS.iter().map(|(name, ..)| *name).chain(["agent", "help"]);
        match known.into_iter().find(|name| *name == text) {
            Some("help") => Err(Said { text: help(None), code: 0 }),
            Some(name) => {
                self.command = Some(name);
                Ok(())
            }
            None => Err(wrong(None, format!("there is no command `{}`", text.escape_debug()))),
        }
    }

    fn option<'a>(&mut self, text: &str, word: &OsStr, rest: &mut impl Iterator<Item = &'a OsString>) -> Result<(), Said> {
        let (name, inline) = match text.split_once('=').filter(|_| text.starts_with("--")) {
            Some((name, _)) => (name, Some(OsString::from(bytes_after(word, name.len() + 1)))),
            None => (text, None),
        };
        let unknown = || wrong(self.command, format!("there is no option `{}` here", name.escape_debug()));
        let (long, _, value, _) = self.options().find(|(long, short, ..)| *long == name || *short == name).ok_or_else(unknown)?;
        match (*long, value.is_empty(), inline) {
            ("--help", ..) => return Err(Said { text: help(self.command), code: 0 }),
            ("--version", ..) => {
                return Err(Said { text: format!("limpet-agent {}\n", env!("CARGO_PKG_VERSION")), code: 0 });
            }
            (_, true, Some(_)) => return Err(wrong(self.command, format!("`{long}` takes no value"))),
            (_, true, None) => self.given.push((long, OsString::new())),
            (_, false, inline) => {
                let given = inline.or_else(|| rest.next().cloned());
                let given = given.ok_or_else(|| wrong(self.command, format!("`{long}` needs a value: {long} {value}")))?;
                if self.given.iter().any(|(name, _)| name == long) {
                    return Err(wrong(self.command, format!("`{long}` is there twice")));
                }
                self.given.push((long, given));
            }
        }
        Ok(())
    }

    /// Those that may stand here.
    fn options(&self) -> impl Iterator<Item = &'static Known> {
        let own = about(self.command).map_or(&[] as &[Known], |(.., own)| own);
        let node = if matches!(self.command, None | Some("agent")) { NODE.as_slice() } else { &[] };
        own.iter().chain(node).chain(&PLACES).chain(&HELP)
    }

    fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(long, _)| *long == name)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.given.iter().find(|(long, _)| *long == name).map(|(_, value)| PathBuf::from(value))
    }

    fn text(&self, name: &str) -> Result<Option<String>, Said> {
        let value = self.given.iter().find(|(long, _)| *long == name);
        value.map(|(_, value)| plain(name, value)).transpose()
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Said> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let number = text.parse().map_err(|_| wrong(self.command, format!("`{name} {}` is no number", text.escape_debug())))?;
        Ok(Some(number))
    }

    fn finish(mut self, join: Option<String>) -> Result<Cli, Said> {
        let options = Options {
            join: self.text("--join")?.or(join).filter(|token| !token.is_empty()),
            node_name: self.text("--node-name")?,
            data_dir: self.path("--data-dir").unwrap_or_else(|| "/var/lib/limpet".into()),
            run_dir: self.path("--run-dir").unwrap_or_else(|| "/run/limpet".into()),
            config: self.path("--config"),
        };
        let mut plain = std::mem::take(&mut self.plain).into_iter();
        let missing = |what: &str| wrong(self.command, format!("{what} is missing"));
        let command = match self.command {
            None => None,
            Some("ps") => Some(Command::Ps { all: self.has("--all") }),
            Some("logs") => Some(Command::Logs(Logs {
                container: plain.next().ok_or_else(|| missing("the container"))?,
                follow: self.has("--follow"),
                timestamps: self.has("--timestamps"),
                previous: self.has("--previous"),
                tail: self.number("--tail")?,
                since: self.number("--since")?,
            })),
            Some("exec") => {
                let container = plain.next().ok_or_else(|| missing("the container"))?;
                let command: Vec<String> = plain.by_ref().collect();
                if command.is_empty() {
                    return Err(missing("the command"));
                }
                Some(Command::Exec { container, command })
            }
            Some("images") => Some(Command::Images),
            Some("doctor") => Some(Command::Doctor { json: self.has("--json") }),
            Some("lock") => {
                let name = plain.next().unwrap_or_else(|| locks::NAME.into());
                Some(Command::Lock { name, reason: self.text("--reason")?.unwrap_or_default() })
            }
            Some("unlock") => Some(Command::Unlock { name: plain.next().unwrap_or_else(|| locks::NAME.into()) }),
            Some(_) => Some(Command::Agent),
        };
        match plain.next() {
            Some(word) => Err(wrong(self.command, format!("`{}` is one word too many", word.escape_debug()))),
            None => Ok(Cli { options, command }),
        }
    }
}

fn about(command: Option<&str>) -> Option<&'static About> {
    COMMANDS.iter().find(|(name, ..)| Some(*name) == command)
}

fn plain(of: &str, word: &OsStr) -> Result<String, Said> {
    let text = word.to_str().map(String::from);
    text.ok_or_else(|| wrong(None, format!("`{} {}` is not UTF-8", of, word.to_string_lossy())))
}

fn bytes_after(word: &OsStr, at: usize) -> &OsStr {
    use std::os::unix::ffi::OsStrExt;
    OsStr::from_bytes(word.as_bytes().get(at..).unwrap_or_default())
}

fn wrong(command: Option<&str>, why: String) -> Said {
    let of = command.map(|name| format!(" {name}")).unwrap_or_default();
    Said { text: format!("limpet-agent: {why}; see `limpet-agent{of} --help`\n"), code: 2 }
}

fn help(command: Option<&str>) -> String {
    let rows = |rows: &[(String, &str)]| {
        let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
        rows.iter().map(|(left, right)| format!("  {left:width$}  {right}\n")).collect::<String>()
    };
    let option = |(long, short, value, what): &Known| {
        let short = if short.is_empty() { "    ".to_string() } else { format!("{short}, ") };
        (format!("{short}{long} {value}").trim_end().to_string(), *what)
    };
    match about(command) {
        None => {
            let commands: Vec<(String, &str)> = COMMANDS.iter().map(|(name, _, what, _)| ((*name).to_string(), *what)).collect();
            let options: Vec<(String, &str)> = NODE.iter().chain(&PLACES).chain(&HELP).map(option).collect();
            format!(
                "{ABOUT}\n\nUsage: limpet-agent [OPTIONS] [COMMAND]\n\nCommands:\n{}\nOptions:\n{}\n{AFTER}\n",
                rows(&commands),
                rows(&options)
            )
        }
        Some((name, words, what, own)) => {
            let options: Vec<(String, &str)> = own.iter().chain(&PLACES).chain(&HELP).map(option).collect();
            let more = if words.starts_with("CONTAINER") { format!("\n\n{CONTAINER}") } else { String::new() };
            let usage = format!("limpet-agent {name} [OPTIONS] {words}");
            format!("{what}{more}\n\nUsage: {}\n\nOptions:\n{}", usage.trim_end(), rows(&options))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, Said> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse(&words, None)
    }

    #[test]
    fn commands_and_their_options() {
        let exec = |words: &[&str]| {
            let command = words.iter().map(|word| (*word).to_string()).collect();
            Some(Command::Exec { container: "web".into(), command })
        };
        let logs = |container: &str| Logs { container: container.into(), ..Logs::default() };
        for (line, want) in [
            ("", None),
            ("--node-name pi --join t", None),
            ("ps", Some(Command::Ps { all: false })),
            ("ps -a --data-dir /d", Some(Command::Ps { all: true })),
            ("logs web", Some(Command::Logs(logs("web")))),
            ("logs -f --tail=5 web", Some(Command::Logs(Logs { follow: true, tail: Some(5), ..logs("web") }))),
            ("logs web --since 7 -p --timestamps",
                Some(Command::Logs(Logs { since: Some(7), previous: true, timestamps: true, ..logs("web") }))),
            ("exec web ls -l --all", exec(&["ls", "-l", "--all"])),
            ("exec web -- sh -c -- x", exec(&["sh", "-c", "--", "x"])),
            ("exec --run-dir /r web true", exec(&["true"])),
            ("doctor --json", Some(Command::Doctor { json: true })),
            ("lock", Some(Command::Lock { name: locks::NAME.into(), reason: String::new() })),
            ("lock me --reason later", Some(Command::Lock { name: "me".into(), reason: "later".into() })),
            ("unlock me", Some(Command::Unlock { name: "me".into() })),
            ("agent --node-name pi --config /c", Some(Command::Agent)),
        ] {
            let cli = parsed(line).unwrap_or_else(|said| panic!("{line}: {}", said.text));
            assert_eq!(cli.command, want, "{line}");
        }
        let options = parsed("--join=a=b --node-name pi --data-dir /d --run-dir=/r --config /c").unwrap().options;
        assert_eq!((options.join.as_deref(), options.node_name.as_deref()), (Some("a=b"), Some("pi")));
        assert_eq!((options.data_dir, options.run_dir, options.config), ("/d".into(), "/r".into(), Some("/c".into())));
        let told = parse(&[], Some("from the environment".into())).unwrap().options;
        assert_eq!(told.join.as_deref(), Some("from the environment"));
        assert_eq!(told.data_dir, PathBuf::from("/var/lib/limpet"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, words) in [
            ("nothing", "there is no command `nothing`"),
            ("ps --follow", "there is no option `--follow` here"),
            ("ps --join t", "there is no option `--join` here"),
            ("-x", "there is no option `-x` here"),
            ("ps more", "`more` is one word too many"),
            ("logs", "the container is missing"),
            ("exec web", "the command is missing"),
            ("exec", "the container is missing"),
            ("logs web --tail", "`--tail` needs a value: --tail LINES"),
            ("logs web --tail x", "`--tail x` is no number"),
            ("ps --all=yes", "`--all` takes no value"),
            ("--join a --join b", "`--join` is there twice"),
            ("ps -- x", "`x` is one word too many"),
        ] {
            let said = parsed(line).unwrap_err();
            assert!(said.code == 2 && said.text.contains(words), "{line}: {}", said.text);
        }
        use std::os::unix::ffi::OsStringExt;
        let said = parse(&[OsString::from("logs"), OsString::from_vec(vec![0xff])], None).unwrap_err();
        assert!(said.code == 2 && said.text.contains("is not UTF-8"), "{}", said.text);
    }

    #[test]
    fn help_names_everything() {
        let all = parsed("--help").unwrap_err();
        assert_eq!(all.code, 0);
        for (name, ..) in COMMANDS {
            assert!(all.text.contains(name), "{name}");
            let own = parsed(&format!("{name} -h")).unwrap_err();
            assert!(own.code == 0 && own.text.contains(&format!("Usage: limpet-agent {name}")), "{}", own.text);
        }
        assert_eq!(parsed("help").unwrap_err(), all);
        assert!(parsed("--version").unwrap_err().text.starts_with("limpet-agent "));
    }
}
