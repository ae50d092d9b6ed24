//! An authority of a test's own, and a certificate from it for 127.0.0.1.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

fn openssl(dir: &Path, words: &str) {
    let mut command = Command::new("openssl");
    command.args(words.split(' ')).current_dir(dir);
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("openssl: {error}: run `make deps`"));
    assert!(output.status.success(), "{words}: {output:?}");
}

/// Makes `ca.pem` of an authority with this name, and `cert.pem` with `key.pem`.
pub(crate) fn make(dir: &Path, name: &str) {
    const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(
        dir,
        &format!("req -x509 {KEY} -keyout ca.key -out ca.pem -subj /CN={name} -days 2"),
    );
    openssl(
        dir,
        &format!("req {KEY} -keyout key.pem -out cert.csr -subj /CN=redis"),
    );
    openssl(
        dir,
        "x509 -req -in cert.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 -extfile names",
    );
}
