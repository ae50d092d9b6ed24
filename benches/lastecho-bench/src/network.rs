//! A network of its own to measure in.

use anyhow::Result;
use std::convert::Infallible;
use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// What `$1` (options of unshare) and the command after it are run by. Every
/// kernel has Reno, and it sends as soon as it may; BBR, which some machines
/// have for all connections, spreads what it sends over time by a timer.
const SCRIPT: &str = r#"
PATH="$PATH:/usr/sbin:/sbin"
apart="unshare --net $1"
shift
if ! $apart true; then
    echo "lastecho-bench: a network of its own cannot be had here; --here measures in this machine's" >&2
    exit 1
fi
exec $apart sh -c '
    ip link set lo up && echo reno > /proc/sys/net/ipv4/tcp_congestion_control && exec "$@"
' sh "$@"
"#;

/// Runs this program again where there is nothing but loopback, whatever the
/// machine's network is set to. Returns only if that cannot be begun.
pub(crate) fn measure_apart() -> Result<Infallible> {
    let is_root = rustix::process::geteuid().is_root();
    let rights = if is_root { "" } else { "--map-root-user" };
    let error = Command::new("sh")
        .args(["-c", SCRIPT, "sh", rights])
        .arg(env::current_exe()?)
        .args(env::args_os().skip(1))
        .arg("--here")
        .exec();
    Err(error.into())
}

/// Who decides when a connection may send here.
pub(crate) fn congestion_control() -> String {
    let name = fs::read_to_string(CONGESTION_CONTROL);
    name.map_or_else(|_| "unknown".into(), |name| name.trim().into())
}
