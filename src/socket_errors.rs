//! What the error of a call on a socket means.

use std::io;

/// Whether a call on a socket came back only to let us look around: its time
/// passed, a signal came, or the kernel is out of memory for the moment.
pub(crate) fn is_tick(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(Errno::AGAIN | Errno::INTR | Errno::NOMEM | Errno::NOBUFS)
    )
}

/// Whether an error says that the peer or the network ended the connection;
/// others are this system's.
pub(crate) fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::BrokenPipe
            | Kind::NotConnected
            | Kind::TimedOut
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
    )
}
