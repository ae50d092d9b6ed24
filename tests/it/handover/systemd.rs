//! Under a real systemd, which runs the units of examples/systemd.
//!
//! Needs root, namespaces and cgroups; `make systemd TREE=…` runs it with the
//! systemd of another tree.

mod machine;
mod reloads;
mod traffic;
mod units;
