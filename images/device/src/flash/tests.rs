//! Machines made of files, and cards made of files and loop devices.

#![allow(clippy::unwrap_used)]

mod machines;
mod power;
mod pulled;
mod writing;
