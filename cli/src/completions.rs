//! `limpet completions SHELL`.
//!
//! In: a shell's name. Out: a script on stdout. Never: writes to a shell's own files.

use clap_complete::{Shell, generate};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  source <(limpet completions bash)\n  \
                        limpet completions zsh > \"${fpath[1]}/_limpet\"\n  \
                        limpet completions fish > ~/.config/fish/completions/limpet.fish")]
pub struct Args {
    /// bash, zsh or fish
    #[arg(value_parser = shell)]
    shell: Shell,
}

fn shell(text: &str) -> Result<Shell, String> {
    match text {
        "bash" => Ok(Shell::Bash),
        "zsh" => Ok(Shell::Zsh),
        "fish" => Ok(Shell::Fish),
        _ => Err("choose bash, zsh or fish".into()),
    }
}

pub fn run(args: &Args, command: &mut clap::Command) -> Result<(), String> {
    generate(args.shell, command, "limpet", &mut std::io::stdout());
    Ok(())
}
