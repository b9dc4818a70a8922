//! Stripe is called through TLS, and only where its certificate is one that the machine trusts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE, SECRET};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::stripe::StripeDouble;
use goldleaves_testkit::token::Claims;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

const METER: &str = "goldleaves_units";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stripe_is_trusted_by_its_certificate_alone() {
    let double = StripeDouble::start().await.unwrap();
    double.add_meter("mtr_1", METER);
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key);
    let behind: SocketAddr = double.url().trim_start_matches("http://").parse().unwrap();
    let (port, refused) = in_front_of(behind, TlsAcceptor::from(Arc::new(config.unwrap()))).await;
    let scratch = tempfile::tempdir().unwrap();
    let base = format!("https://localhost:{port}");
    for (name, pem, status) in [("other.pem", other.cert.pem(), 201), ("own.pem", own.cert.pem(), 422)] {
        let file = scratch.path().join(name);
        std::fs::write(&file, pem).unwrap();
        let settings = [
            ("UPSTREAM_URL", "http://127.0.0.1:9"),
            ("STRIPE_API_BASE", base.as_str()),
            ("STRIPE_API_KEY", "rk_test_double"),
            ("SSL_CERT_FILE", file.to_str().unwrap()),
        ];
        let mut deployment = Deployment::start_with(Kind::Embedded, &settings).await.unwrap();
        // A meter that Stripe does not have is refused where Stripe can be asked, and kept unchecked where it can't.
        let meter = json!({"event_name": "none", "stripe_meter_id": "mtr_none", "places": 6, "reason": "set-up"});
        let request = Request::put("/billing/stripe/meters/none", meter.to_string());
        let token = Claims::new("any", "ann").role("admin").sign(SECRET).unwrap();
        let request = request.header("content-type", "application/json").token(&token);
        let answer = deployment.ask(&request).await.unwrap();
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        if status == 201 {
            let is_refused = async || Ok((refused.load(Ordering::SeqCst) > 0).then_some(()));
            wait_for("a handshake that ends", PATIENCE, is_refused).await.unwrap();
            assert_eq!(double.calls("meter"), 0, "the key went to nobody who is not trusted");
        }
        assert!(deployment.stop().await.unwrap().success());
    }
    assert_eq!(double.calls("meter"), 1);
}

/// The port of a listener that takes TLS off what it hands on, and how many handshakes failed.
async fn in_front_of(behind: SocketAddr, acceptor: TlsAcceptor) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, failed) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&failed);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, counted) = (acceptor.clone(), Arc::clone(&counted));
            tokio::spawn(async move {
                let handshake = tokio::time::timeout(Duration::from_secs(30), acceptor.accept(stream)).await;
                let Ok(Ok(mut stream)) = handshake else {
                    counted.fetch_add(1, Ordering::SeqCst);
                    return;
                };
                let mut onward = TcpStream::connect(behind).await.unwrap();
                tokio::io::copy_bidirectional(&mut stream, &mut onward).await.ok();
            });
        }
    });
    (port, failed)
}
