//! The servers that are measured: where each comes from, how it is told to
//! listen, and how many connections it can be asked to carry.

use crate::scenario::Scenario;

/// Where a server's program is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `lastecho` itself: beside the runner, or where the command line says.
    Lastecho,
    /// Built by the runner's own package, so beside the runner.
    Beside(&'static str),
    /// Built from peers/echo.go with `go build`.
    Go,
    /// Installed on the machine.
    Installed(&'static str),
}

/// A server, before it is found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) source: Source,
    /// `{port}` and `{config}`, a file made for xinetd, are filled in.
    pub(crate) arguments: &'static [&'static str],
    pub(crate) limits: Limits,
}

/// What a server can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limits {
    None,
    /// It starts a process per connection.
    Forks,
    /// It forks, and the process that copies writes to cat without regard to
    /// what cat wants to write to it: under bulk they wait for each other.
    ForksAndStalls,
}

/// The name under which the table compares all others with it.
pub(crate) const OURS: &str = "lastecho";
/// Most connections of a server that starts a process for each.
const FORKS: usize = 100;

pub(crate) const ALL: [Server; 11] = [
    Server {
        name: OURS,
        source: Source::Lastecho,
        arguments: &["--quiet", "127.0.0.1:{port}"],
        limits: Limits::None,
    },
    Server {
        name: "bare",
        source: Source::Beside("peer-bare"),
        arguments: &["127.0.0.1:{port}"],
        limits: Limits::None,
    },
    Server {
        name: "go",
        source: Source::Go,
        arguments: &["127.0.0.1:{port}"],
        limits: Limits::None,
    },
    Server {
        name: "tokio",
        source: Source::Beside("peer-tokio"),
        arguments: &["127.0.0.1:{port}"],
        limits: Limits::None,
    },
    Server {
        name: "tokio-60k",
        source: Source::Beside("peer-tokio"),
        arguments: &["--buffer", "61440", "127.0.0.1:{port}"],
        limits: Limits::None,
    },
    Server {
        name: "tokio-current",
        source: Source::Beside("peer-tokio"),
        arguments: &[
            "--flavor",
            "current",
            "--buffer",
            "65536",
            "127.0.0.1:{port}",
        ],
        limits: Limits::None,
    },
    Server {
        name: "epoll",
        source: Source::Beside("peer-epoll"),
        arguments: &["127.0.0.1:{port}"],
        limits: Limits::None,
    },
    Server {
        name: "socat",
        source: Source::Installed("socat"),
        arguments: &[
            "TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,nodelay,backlog=4096",
            "PIPE",
        ],
        limits: Limits::Forks,
    },
    Server {
        name: "ncat",
        source: Source::Installed("ncat"),
        arguments: &[
            "-l",
            "-k",
            "-m",
            "5000",
            "127.0.0.1",
            "{port}",
            "--exec",
            "/bin/cat",
        ],
        limits: Limits::ForksAndStalls,
    },
    Server {
        name: "xinetd",
        source: Source::Installed("xinetd"),
        arguments: &["-dontfork", "-filelog", "/dev/null", "-f", "{config}"],
        limits: Limits::Forks,
    },
    Server {
        name: "tcpserver",
        source: Source::Installed("tcpserver"),
        arguments: &[
            "-q",
            "-R",
            "-H",
            "-l",
            "0",
            "-c",
            "5000",
            "-b",
            "4096",
            "127.0.0.1",
            "{port}",
            "/bin/cat",
        ],
        limits: Limits::Forks,
    },
];

impl Server {
    /// What must be installed on the machine for it.
    pub(crate) fn needs(&self) -> Option<&'static str> {
        match self.source {
            Source::Go => Some("go"),
            Source::Installed(program) => Some(program),
            Source::Lastecho | Source::Beside(_) => None,
        }
    }

    /// Why it is left out of a scenario, if it is.
    pub(crate) fn refuses(&self, scenario: Scenario) -> Option<String> {
        let is_bulk = matches!(scenario, Scenario::Bulk(_));
        if self.limits == Limits::ForksAndStalls && is_bulk {
            return Some("it and its child wait for each other for ever".into());
        }
        let is_too_many = self.limits != Limits::None && scenario.connections() > FORKS;
        is_too_many.then(|| format!("a process per connection, at most {FORKS} of them"))
    }
}

/// What `{config}` holds: xinetd's own echo, without its brakes.
pub(crate) fn xinetd_config(port: u16) -> String {
    format!(
        "defaults\n{{\n\tinstances = UNLIMITED\n\tper_source = UNLIMITED\n\tcps = 1000000 1\n}}\n\
         service echo\n{{\n\ttype = INTERNAL UNLISTED\n\tid = echo-stream\n\
         \tsocket_type = stream\n\tprotocol = tcp\n\twait = no\n\tbind = 127.0.0.1\n\
         \tport = {port}\n\tflags = NODELAY\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_server_learns_its_port() {
        for (index, server) in ALL.iter().enumerate() {
            assert!(ALL[..index].iter().all(|other| other.name != server.name));
            let told = server.arguments.join(" ");
            assert!(
                told.contains("{port}") || told.contains("{config}"),
                "{told}"
            );
        }
        assert!(xinetd_config(20_001).contains("port = 20001\n"));
    }

    #[test]
    fn servers_are_left_out_of_what_they_cannot_do() {
        let refusing = |scenario| {
            let refusing = ALL
                .iter()
                .filter(|server| server.refuses(scenario).is_some());
            refusing.map(|server| server.name).collect::<Vec<_>>()
        };
        let forking = ["socat", "ncat", "xinetd", "tcpserver"];
        assert_eq!(refusing(Scenario::Echo(1000)), forking);
        assert_eq!(refusing(Scenario::Bulk(4)), ["ncat"]);
        assert!(refusing(Scenario::Echo(50)).is_empty());
    }
}
