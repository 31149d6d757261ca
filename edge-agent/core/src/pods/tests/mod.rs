//! Scenarios of pods under a virtual clock, with a device that does what it is told.

mod adoption;
mod lifecycle;
mod orders;
mod random;
mod resize;
mod statics;
mod trouble;
mod world;
