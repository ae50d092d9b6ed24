//! A connection to Redis, and which of its errors no waiting mends.

use crate::options::RedisOptions;
use anyhow::{Context, Result};
use lastecho::Stop;
use redis::{Client, ClientTlsConfig, Cmd, Connection, ErrorKind, IntoConnectionInfo};
use redis::{RedisConnectionInfo, RedisError, RedisResult, TlsCertificates};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

/// Where Redis is, and who we are there.
pub struct Server {
    client: Client,
    /// What a connection begins with. We say it ourselves: the client does not
    /// tell with which words it was refused.
    login: Vec<Cmd>,
}

impl Server {
    /// Reads the certificates; connects nowhere yet.
    ///
    /// # Errors
    /// The URL is none of Redis, or a certificate cannot be read.
    pub fn new(options: &RedisOptions) -> Result<Self> {
        // The first that chooses what encrypts is the one whose choice holds.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let info = options.redis.as_str().into_connection_info()?;
        let (settings, mut login) = (info.redis_settings(), Vec::new());
        if let Some(password) = settings.password() {
            let mut auth = redis::cmd("AUTH");
            auth.arg(settings.username()).arg(password);
            login.push(auth);
        }
        if settings.db() != 0 {
            let mut select = redis::cmd("SELECT");
            select.arg(settings.db());
            login.push(select);
        }
        let silent = RedisConnectionInfo::default().set_skip_set_lib_name();
        let info = info.set_redis_settings(silent);
        let client = match certificates(options)? {
            None => Client::open(info)?,
            Some(certificates) => Client::build_with_tls(info, certificates)
                .context("--redis-ca and --redis-cert need a rediss:// URL and PEM files")?,
        };
        Ok(Self { client, login })
    }

    /// Connects, logs in, and chooses the database. Every wait of it, and of
    /// the connection later, is for at most so long.
    ///
    /// # Errors
    /// What Redis says, or the connection to it.
    pub fn connect(&self, longest: Duration) -> RedisResult<Connection> {
        let mut connection = self.client.get_connection_with_timeout(longest)?;
        connection.set_read_timeout(Some(longest))?;
        connection.set_write_timeout(Some(longest))?;
        for command in &self.login {
            command.exec(&mut connection)?;
        }
        Ok(connection)
    }
}

/// What the connection is encrypted with, where the options name it.
fn certificates(options: &RedisOptions) -> Result<Option<TlsCertificates>> {
    let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
    let root_cert = options.redis_ca.as_deref().map(read).transpose()?;
    let pair = options
        .redis_cert
        .as_deref()
        .zip(options.redis_key.as_deref());
    let client_tls = pair.map(|(cert, key)| -> Result<_> {
        Ok(ClientTlsConfig {
            client_cert: read(cert)?,
            client_key: read(key)?,
        })
    });
    let client_tls = client_tls.transpose()?;
    let is_named = root_cert.is_some() || client_tls.is_some();
    Ok(is_named.then_some(TlsCertificates {
        client_tls,
        root_cert,
    }))
}

/// Whether an error is the same at every try, until somebody changes Redis or
/// our options.
#[must_use]
pub fn is_permanent(error: &RedisError) -> bool {
    const CODES: [&str; 6] = [
        "NOAUTH",
        "WRONGPASS",
        "NOPERM",
        "WRONGTYPE",
        "MOVED",
        "CROSSSLOT",
    ];
    // Of what has only the code ERR. "max number of clients" is not among it.
    const WORDS: [&str; 5] = [
        "unknown command",
        "unauthenticated",
        "AUTH",
        "DB index",
        "cluster mode",
    ];
    let detail = error.detail().unwrap_or_default();
    match error.kind() {
        // A certificate that is not trusted, TLS where there is none.
        ErrorKind::Io => io_kind(error) == Some(io::ErrorKind::InvalidData),
        ErrorKind::Parse | ErrorKind::InvalidClientConfig => true,
        _ => match error.code() {
            Some("ERR") => WORDS.iter().any(|word| detail.contains(word)),
            Some(code) => CODES.contains(&code),
            None => false,
        },
    }
}

/// Whether a call was interrupted: SIGSTOP and SIGCONT do so where a socket has a
/// timeout (signal(7)). That says nothing about Redis, which may have the question
/// and answer it yet: it is to be asked again, on another connection.
#[must_use]
pub fn is_interrupted(error: &RedisError) -> bool {
    io_kind(error) == Some(io::ErrorKind::Interrupted)
}

/// Whether we have only stopped listening: Redis may hear the question yet.
#[must_use]
pub fn is_unheard(error: &RedisError) -> bool {
    error.is_timeout() || is_interrupted(error)
}

/// Asks, and again as long as that is interrupted; not after the cut.
///
/// # Errors
/// What Redis says, or the connection to it.
pub fn uninterrupted<T>(stop: &Stop, mut ask: impl FnMut() -> RedisResult<T>) -> RedisResult<T> {
    loop {
        match ask() {
            Err(error) if is_interrupted(&error) && !stop.is_cut() => {}
            answer => return answer,
        }
    }
}

fn io_kind(error: &RedisError) -> Option<io::ErrorKind> {
    let source: &Arc<dyn Error + Send + Sync> = error.source()?.downcast_ref()?;
    source.downcast_ref().map(io::Error::kind)
}

/// Says an error in the words of Redis.
#[must_use]
pub fn words(error: &RedisError) -> String {
    let detail = error.detail().unwrap_or_default();
    match error.code() {
        _ if error.kind() == ErrorKind::Parse => "what answers there is no Redis".into(),
        _ if error.is_timeout() => "no answer in time".into(),
        // To a command that is longer than ten words.
        _ if detail.contains("unauthenticated") => "NOAUTH Authentication required".into(),
        Some("ERR") => detail.to_owned(),
        Some(code) => format!("{code} {detail}"),
        None => error.to_string(),
    }
}
