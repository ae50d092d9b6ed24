//! Networks that lose, delay, reorder, duplicate, vanish: namespaces of our own.
//!
//! Server and clients live in a namespace each, joined by a veth pair whose
//! link can go down, or by a relay that treats every packet as it pleases. (The
//! kernel's own netem is not built into every kernel; the relay needs socat and
//! TUN only.)

mod far;
mod joined;
mod relay;
mod silence;
mod weather;
