//! Limpet's side: a keeper and an agent that start containers when they are told.
//!
//! In: the agent's binary, a directory with a layer. Out: milliseconds as the agent sees them.
//! Never: leaves a keeper or an agent behind.

use super::stat_ms;
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

pub struct Ours {
    keeper: Child,
    agent: String,
    wishes: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Ours {
    pub fn start(program: &Path, base: &Path) -> Result<Ours, String> {
        let mut command = Command::new(program);
        command.arg("bench-create").arg(base).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().map_err(|e| format!("cannot start {}: {e}", program.display()))?;
        let (wishes, answers) = (keeper.stdin.take(), keeper.stdout.take().ok_or("the agent has no stdout")?);
        let mut ours = Ours { keeper, agent: String::new(), wishes, answers: BufReader::new(answers) };
        let line = ours.line()?;
        ours.agent = line.strip_prefix("ready ").ok_or_else(|| format!("the agent said `{line}`"))?.to_owned();
        Ok(ours)
    }

    pub fn once(&mut self) -> Result<f64, String> {
        let wishes = self.wishes.as_mut().ok_or("the agent was told to end")?;
        wishes.write_all(b"\n").map_err(|e| format!("the agent does not listen: {e}"))?;
        let line = self.line()?;
        line.parse().map_err(|_| format!("the agent said `{line}`"))
    }

    /// What keeper, agent and all helpers and containers that ended have used.
    pub fn cpu_ms(&self) -> Result<f64, String> {
        Ok(stat_ms(&self.keeper.id().to_string(), 14)? + stat_ms(&self.agent, 14)?)
    }

    pub fn end(mut self) -> Result<(), String> {
        self.close()
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => Err("the agent ended; what it said is above".into()),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(e) => Err(format!("cannot hear the agent: {e}")),
        }
    }

    /// The end of its input ends the agent, which removes its sandbox; the keeper ends with it.
    fn close(&mut self) -> Result<(), String> {
        self.wishes = None;
        self.keeper.wait().map(drop).map_err(|e| format!("cannot wait for the keeper: {e}"))
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.close();
    }
}
