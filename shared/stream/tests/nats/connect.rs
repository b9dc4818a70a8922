//! Every way to reach a server, and what is said when it is the wrong one.

use std::error::Error as _;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use goldleaves_domain::{PublishError, Publisher};
use goldleaves_stream::{ConnectError, ConnectSettings, Connection, StreamPublisher};
use goldleaves_testkit::nats::NatsServer;
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::support::{
    TOPOLOGY, assert_stored_once, connect, declare, deliveries, publish_until_confirmed, publisher, quick, settings,
    within,
};

const USERS: &str = r#"
    authorization {
        users: [
            { user: "gate", password: "p@ss:word" }
            { user: "reader", password: "r", permissions: { publish: { deny: "usage.>" } } }
        ]
    }"#;

async fn error_of(url: &str) -> ConnectError {
    Connection::connect(&settings(url)).await.expect_err("refused")
}

#[tokio::test]
async fn user_and_password_come_from_the_url_and_wrong_ones_are_a_typed_error() {
    let server = NatsServer::start_with(USERS).await.unwrap();
    let host = format!("127.0.0.1:{}", server.port());
    declare(&connect(&format!("nats://gate:p%40ss%3Aword@{host}")).await, TOPOLOGY).await;
    for url in [format!("nats://gate:hunter2@{host}"), format!("nats://hunter2@{host}"), format!("nats://{host}")] {
        let error = error_of(&url).await;
        assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
        let text = format!("{error} {error:?}");
        assert!(text.contains(&host) && !text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn a_token_comes_from_the_url() {
    let server = NatsServer::start_with("authorization { token: \"s3cr3t\" }").await.unwrap();
    let host = format!("127.0.0.1:{}", server.port());
    declare(&connect(&format!("nats://s3cr3t@{host}")).await, TOPOLOGY).await;
    assert!(matches!(error_of(&format!("nats://wrong@{host}")).await, ConnectError::Refused { .. }));
}

#[tokio::test]
async fn a_missing_permission_is_told_with_the_unconfirmed_batch() {
    let server = NatsServer::start_with(USERS).await.unwrap();
    let host = format!("127.0.0.1:{}", server.port());
    declare(&connect(&format!("nats://gate:p%40ss%3Aword@{host}")).await, TOPOLOGY).await;
    let reader = connect(&format!("nats://reader:r@{host}")).await;
    let error = within(publisher(&reader).publish(deliveries(1))).await.unwrap_err();
    assert!(
        matches!(&error, PublishError::Unconfirmed { reason } if reason.contains("Permissions Violation")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_server_that_is_away_is_no_error_and_is_found_when_it_comes() {
    let mut server = NatsServer::start().await.unwrap();
    server.kill().await.unwrap();
    let connection = Connection::connect(&settings(&server.url())).await.unwrap();
    assert!(!connection.is_connected());
    let publisher = StreamPublisher::new(connection.clone(), TOPOLOGY, quick());
    assert!(within(publisher.publish(deliveries(1))).await.is_err());
    server.restart().await.unwrap();
    within(connection.connected()).await;
    declare(&connection, TOPOLOGY).await;
    publish_until_confirmed(&publisher, &deliveries(1)).await;
}

#[tokio::test]
async fn one_living_server_of_several_is_enough() {
    let mut dead = NatsServer::start().await.unwrap();
    dead.kill().await.unwrap();
    let living = NatsServer::start().await.unwrap();
    let connection = connect(&format!("{},nats://localhost:{}", dead.url(), living.port())).await;
    declare(&connection, TOPOLOGY).await;
    let batch = deliveries(10);
    publish_until_confirmed(&publisher(&connection), &batch).await;
    assert_stored_once(&living.url(), &batch).await;
}

/// A CA's certificate, and a server's certificate and key for 127.0.0.1, as PEM files.
fn certificates(directory: &Path) -> (PathBuf, String) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = authority.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(authority, key);
    let server_key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let server = server.signed_by(&server_key, &issuer).unwrap();
    let file = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let ca = file("ca.pem", certificate.pem());
    let cert = file("server.pem", server.pem());
    let key = file("key.pem", server_key.serialize_pem());
    (ca, format!("tls {{ cert_file: \"{}\", key_file: \"{}\" }}", cert.display(), key.display()))
}

#[tokio::test]
async fn tls_trusts_the_ca_file_and_nobody_else() {
    let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ca, tls) = certificates(directory.path());
    let (other_ca, _) = certificates(other.path());
    let server = NatsServer::start_with(&tls).await.unwrap();
    for scheme in ["nats", "tls"] {
        let url = format!("{scheme}://127.0.0.1:{}", server.port());
        let trusting = ConnectSettings { ca_file: Some(ca.clone()), ..settings(&url) };
        let connection = Connection::connect(&trusting).await.unwrap();
        within(connection.connected()).await;
        declare(&connection, TOPOLOGY).await;
        let wrong = ConnectSettings { ca_file: Some(other_ca.clone()), ..settings(&url) };
        let connection = Connection::connect(&wrong).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(1), connection.connected()).await.is_err());
    }
    // A server without TLS is not spoken to when a CA file asks for it.
    let open = NatsServer::start().await.unwrap();
    let strict = ConnectSettings { ca_file: Some(ca), ..settings(&open.url()) };
    let connection = Connection::connect(&strict).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(1), connection.connected()).await.is_err());
}

#[tokio::test]
async fn files_that_can_not_be_used_are_typed_errors_and_not_quoted() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "hunter2").unwrap();
    for path in [file, directory.path().join("absent")] {
        let server = settings("nats://127.0.0.1:1");
        let credentials = ConnectSettings { credentials_file: Some(path.clone()), ..server.clone() };
        let error = Connection::connect(&credentials).await.unwrap_err();
        assert!(matches!(&error, ConnectError::CredentialsFile { path: named, .. } if *named == path));
        let ca = ConnectSettings { ca_file: Some(path.clone()), ..server };
        let wrong_ca = Connection::connect(&ca).await.unwrap_err();
        assert!(matches!(&wrong_ca, ConnectError::CaFile { path: named, .. } if *named == path));
        for error in [error, wrong_ca] {
            let text = format!("{error} {} {error:?}", error.source().unwrap());
            assert!(text.contains(&path.display().to_string()) && !text.contains("hunter2"), "{text}");
        }
    }
}

/// A NATS JWT: signed by `issuer`, about `subject`.
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: Value) -> String {
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = encode(json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let claims = json!({
        "jti": "test", "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(),
        "name": "test", "nats": nats,
    });
    let signed = format!("{head}.{}", encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

fn credentials(user_jwt: &str, user: &KeyPair) -> String {
    let mut text = String::new();
    for (kind, body) in [("NATS USER JWT", user_jwt), ("USER NKEY SEED", &user.seed().unwrap())] {
        writeln!(text, "-----BEGIN {kind}-----\n{body}\n------END {kind}------\n").unwrap();
    }
    text
}

#[tokio::test]
async fn a_credentials_file_logs_in_and_one_of_a_stranger_does_not() {
    let (operator, account, system) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let (user, stranger) = (KeyPair::new_user(), KeyPair::new_account());
    let operator_jwt = jwt(&operator, &operator, json!({ "type": "operator", "version": 2 }));
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let account_jwt = jwt(&operator, &account, json!({ "type": "account", "version": 2, "limits": limits }));
    let system_jwt =
        jwt(&operator, &system, json!({ "type": "account", "version": 2, "limits": { "conn": -1, "subs": -1 } }));
    let nobody = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
    let (account_key, system_key) = (account.public_key(), system.public_key());
    let config = format!(
        "operator: {operator_jwt}\nsystem_account: {system_key}\nresolver: MEMORY\n\
         resolver_preload: {{ {account_key}: {account_jwt}, {system_key}: {system_jwt} }}"
    );
    let server = NatsServer::start_with(&config).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.creds");
    let with_file = ConnectSettings { credentials_file: Some(path.clone()), ..settings(&server.url()) };

    std::fs::write(&path, credentials(&jwt(&account, &user, nobody.clone()), &user)).unwrap();
    let connection = Connection::connect(&with_file).await.unwrap();
    within(connection.connected()).await;
    declare(&connection, TOPOLOGY).await;
    publish_until_confirmed(&publisher(&connection), &deliveries(10)).await;

    std::fs::write(&path, credentials(&jwt(&stranger, &user, nobody), &user)).unwrap();
    let error = Connection::connect(&with_file).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
}
