//! Containers, for real.
