//! `limpet completions`: scripts that let shells complete the command line.
//!
//! In: a shell. Out: its script on stdout. Never: writes to the shell's own files.

use super::Outcome;
use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

/// Print the completion script of a shell.
///
/// bash:  source <(limpet completions bash)
/// zsh:   limpet completions zsh > "${fpath[1]}/_limpet"
/// fish:  limpet completions fish > ~/.config/fish/completions/limpet.fish
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    shell: Which,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    Bash,
    Zsh,
    Fish,
}

pub fn run<C: CommandFactory>(args: &Args) -> Outcome {
    let shell = match args.shell {
        Which::Bash => Shell::Bash,
        Which::Zsh => Shell::Zsh,
        Which::Fish => Shell::Fish,
    };
    clap_complete::generate(shell, &mut C::command(), "limpet", &mut std::io::stdout());
    Ok(())
}
