//! A connection to `PostgreSQL` for each worker.

use super::{TABLE, Unreached, WRITE, WriteError};
use anyhow::{Context, Result};
use lastecho::{Deadline, Stop};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::error::Error as _;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, Error, NoTls, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long an address may take to answer, unless the URL says it, and the
/// look at the table.
const CONNECT: Duration = Duration::from_secs(5);

/// How often it is looked whether a stop comes before an answer.
const LOOK: Duration = Duration::from_millis(50);

/// What a commit waits for: as it is set, but the disk at least. It is set here
/// so that nothing that changes later changes it.
const SETTINGS: &str = "SELECT set_config('synchronous_commit', \
    CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' \
    ELSE current_setting('synchronous_commit') END, false), \
    to_regclass('messages') IS NULL, \
    EXISTS (SELECT FROM pg_index JOIN pg_collation ON pg_collation.oid = ANY (indcollation) \
    WHERE indrelid = to_regclass('messages') AND indisunique AND NOT collisdeterministic)";
/// One at a time: two that make the table together fail. The lock ends with
/// the batch.
const LOCK: &str = "SELECT pg_advisory_xact_lock(48879)";

/// A `PostgreSQL` server.
pub struct Server {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    /// The longest that connecting may take,
    patience: Duration,
    /// and what else ends it: what is in hand is put back then.
    stop: Stop,
}

/// A connection to it.
pub struct Session {
    /// It runs the connection while it waits for an answer.
    runtime: Runtime,
    client: Client,
    write: Statement,
}

impl Server {
    pub(super) fn new(config: &Config, authority: Option<&Path>, stop: &Stop) -> Result<Self> {
        let mut config = config.clone();
        let each = config.get_connect_timeout().copied().unwrap_or(CONNECT);
        config.connect_timeout(each);
        let hosts = config.get_hosts().len().max(config.get_hostaddrs().len());
        let hosts = u32::try_from(hosts).unwrap_or(u32::MAX);
        let needs_tls = config.get_ssl_mode() == SslMode::Require;
        Ok(Self {
            tls: needs_tls.then(|| encryption(authority)).transpose()?,
            patience: each.saturating_mul(hosts).saturating_add(CONNECT),
            config,
            stop: stop.clone(),
        })
    }

    /// Connects and sees whether the table can be written to. Blocks for the
    /// time of [`CONNECT`] for each address, and once more, or until the stop.
    pub(super) fn connect(&self) -> Result<Session, Unreached> {
        let passing = |why: String| Unreached {
            is_lasting: false,
            why,
        };
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| passing(error.to_string()))?;
        let began = runtime.block_on(async {
            let (deadline, mut begin) = (Deadline::after(self.patience), pin!(self.begin()));
            loop {
                match timeout(deadline.cap(LOOK), &mut begin).await {
                    Err(_) if !self.stop.is_set() && !deadline.has_passed() => {}
                    began => return began,
                }
            }
        });
        let why = match began {
            Ok(Ok((client, write))) => {
                return Ok(Session {
                    runtime,
                    client,
                    write,
                });
            }
            Ok(Err(unreached)) => unreached,
            Err(_) => passing("no answer in time".into()),
        };
        // A name that is still being looked up is not waited for.
        runtime.shutdown_background();
        Err(why)
    }

    async fn begin(&self) -> Result<(Client, Statement), Unreached> {
        let client = self.reach().await?;
        let found = client.query_one(SETTINGS, &[]).await?;
        if found.get(1) {
            client.batch_execute(&format!("{LOCK}; {TABLE}")).await?;
        }
        if found.get(2) {
            return Err(lasting("its collation takes two keys for one".into()));
        }
        // What only a write would find wrong: no permission, no such column, no
        // key. EXPLAIN looks at all of it and writes nothing.
        let trial = WRITE.replace("$1", "''").replace("$2", "''");
        client.batch_execute(&format!("EXPLAIN {trial}")).await?;
        let write = client.prepare(WRITE).await?;
        // Others take two keys for one: name cuts them, citext folds them.
        if let [Type::TEXT | Type::VARCHAR, Type::BYTEA] = *write.params() {
            return Ok((client, write));
        }
        let types = write.params();
        Err(lasting(format!(
            "key and body are {types:?}, not text and bytea"
        )))
    }

    async fn reach(&self) -> Result<Client, Error> {
        // The connection ends with an error that the next answer has, too.
        if let Some(tls) = &self.tls {
            let (client, connection) = self.config.connect(tls.clone()).await?;
            tokio::spawn(connection);
            return Ok(client);
        }
        let (client, connection) = self.config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

impl Session {
    /// Writes, and puts itself back into `kept` unless the error may be the
    /// connection's.
    pub(super) fn write(
        self: Box<Self>,
        key: &str,
        body: &[u8],
        kept: &mut Option<Box<Self>>,
    ) -> Result<bool, WriteError> {
        // Returns when the server is ready for the next: it has committed then.
        let row = self
            .runtime
            .block_on(self.client.query_opt(&self.write, &[&key, &body]));
        let is_new = match row {
            Ok(Some(row)) => Ok(row.try_get(0).ok().flatten().unwrap_or(false)),
            Ok(None) => Err(WriteError::Refused("a trigger kept no row of it".into())),
            Err(error) => Err(judge(&error)(tell(&error))),
        };
        if let Ok(_) | Err(WriteError::Refused(_)) = is_new {
            *kept = Some(self);
        }
        is_new
    }
}

/// Encryption with a server whose certificate is good for its name.
fn encryption(authority: Option<&Path>) -> Result<MakeRustlsConnect> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = authority {
        let name = || path.display().to_string();
        for certificate in CertificateDer::pem_file_iter(path).with_context(name)? {
            roots
                .add(certificate.with_context(name)?)
                .with_context(name)?;
        }
        anyhow::ensure!(
            !roots.is_empty(),
            "{}: no certificate in it",
            path.display()
        );
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    // The one that the build has: there may be several.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn lasting(why: String) -> Unreached {
    Unreached {
        is_lasting: true,
        why,
    }
}

impl From<Error> for Unreached {
    fn from(error: Error) -> Self {
        Self {
            is_lasting: !passes(&error),
            why: tell(&error),
        }
    }
}

/// The class of an error, and where it is one of its own, its code.
fn code(error: &Error) -> Option<(&str, &str)> {
    let code = error.code().map(SqlState::code)?;
    Some((code.get(..2)?, code))
}

/// Whether waiting helps a connection that failed so.
fn passes(error: &Error) -> bool {
    if let Some((class, _)) = code(error) {
        return is_passing(class);
    }
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            // What is said in another protocol, or with a certificate that is
            // not trusted.
            return !matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
            );
        }
        source = inner.source();
    }
    error.is_closed()
}

/// Classes of errors of the server's, whatever was asked: connection (08),
/// read-only (25), conflict of transactions (40), resources (53), in use (55),
/// shut down (57), system (58).
fn is_passing(class: &str) -> bool {
    ["08", "25", "40", "53", "55", "57", "58"].contains(&class)
}

/// Classes of errors of what was to be written: not supported (0A), too many
/// rows (21), data (22), constraint (23), view (44), too large (54), raised by a
/// trigger (P0).
fn is_refused(class: &str) -> bool {
    ["0A", "21", "22", "23", "44", "54", "P0"].contains(&class)
}

fn judge(error: &Error) -> fn(String) -> WriteError {
    match code(error) {
        Some((class, _)) if is_refused(class) => WriteError::Refused,
        // A statement that took too long: perhaps only with this message.
        Some((_, "57014")) => WriteError::Unclear,
        Some((class, _)) if is_passing(class) => WriteError::Down,
        _ => WriteError::Unclear,
    }
}

/// In one line what went wrong, and why.
fn tell(error: &Error) -> String {
    if let Some(error) = error.as_db_error() {
        let detail = error.detail().or(error.hint());
        let detail = detail.map(|detail| format!(" ({detail})"));
        return error.message().to_owned() + &detail.unwrap_or_default();
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text += &format!(": {inner}");
        source = inner.source();
    }
    text
}
