//! Upstreams over TLS: whose certificate is good is called, and nobody else.

use goldleaves_testkit::client::Request;
use goldleaves_testkit::nginx::Nginx;
use goldleaves_testkit::secure::{Authority, TlsIdentity, Validity};
use goldleaves_testkit::upstream::{Answer, Upstream};
use serde_json::{Value, json};

use crate::world::{BILLABLE, Plan, World};

fn good(authority: &Authority, names: &[&str]) -> TlsIdentity {
    authority.sign(&names.join("-"), names, Validity::Good).unwrap()
}

async fn secure(identity: &TlsIdentity, clients: Option<&Authority>) -> Upstream {
    let tls = Authority::server(identity, &["http/1.1"], clients).unwrap();
    Upstream::start_secure(tls, |_| Answer::ok("over TLS")).await.unwrap()
}

/// In front of an https upstream of which the entry says so much more.
async fn before(address: std::net::SocketAddr, more: Value) -> World {
    let mut entry = json!({"name": "default"});
    entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Plan::with("UPSTREAMS", json!([entry])).start_before(&format!("https://localhost:{}", address.port())).await
}

#[tokio::test]
async fn an_upstream_with_a_good_certificate_is_called() {
    let authority = Authority::new().unwrap();
    let identity = good(&authority, &["localhost"]);
    let ours = secure(&identity, None).await;
    let nginx = Nginx::start_secure(&identity, "return 200 \"over TLS\";").await.unwrap();
    for address in [ours.address(), nginx.address()] {
        let world = before(address, json!({"ca_file": authority.file()})).await;
        for _ in 0..3 {
            let response = world.send(Request::get(BILLABLE)).await;
            assert_eq!((response.status, response.text().as_str()), (200, "over TLS"), "{}", nginx.log());
        }
        assert_eq!(world.metric("goldleaves_upstream_connects_total"), 1.0, "its connection is used again");
        assert_eq!(world.finish().await.len(), 3);
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_good_is_a_502_and_no_bill() {
    let (authority, other) = (Authority::new().unwrap(), Authority::new().unwrap());
    let expired = authority.sign("expired", &["localhost"], Validity::Expired).unwrap();
    let (trusted, by_name) =
        (json!({"ca_file": authority.file()}), json!({"ca_file": authority.file(), "server_name": "docs.internal"}));
    for (what, identity, entry, status) in [
        ("of an authority that nobody named", good(&other, &["localhost"]), &trusted, 502),
        ("that has expired", expired, &trusted, 502),
        ("of another name", good(&authority, &["docs.internal"]), &trusted, 502),
        ("of the name that the entry says", good(&authority, &["docs.internal"]), &by_name, 200),
        ("of another name than the entry says", good(&authority, &["localhost"]), &by_name, 502),
        ("where the machine's roots count", good(&authority, &["localhost"]), &json!({}), 502),
    ] {
        let upstream = secure(&identity, None).await;
        let world = before(upstream.address(), entry.clone()).await;
        let response = world.send(Request::get(BILLABLE)).await;
        assert_eq!(response.status, status, "a certificate {what}");
        if status == 502 {
            assert_eq!(response.json().unwrap()["code"], "upstream_unreachable", "a certificate {what}");
        }
        assert_eq!(upstream.served().len(), usize::from(status == 200), "a certificate {what}");
        assert_eq!(world.finish().await.len(), usize::from(status == 200), "a certificate {what}");
    }
}

#[tokio::test]
async fn what_speaks_no_tls_is_a_502() {
    let nginx = Nginx::start("return 200 plain;", &[]).await.unwrap();
    let world = before(nginx.address(), json!({})).await;
    assert_eq!(world.send(Request::get(BILLABLE)).await.status, 502);
    assert!(world.finish().await.is_empty());
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_who_wants_one() {
    let (authority, clients) = (Authority::new().unwrap(), Authority::new().unwrap());
    let identity = good(&authority, &["localhost"]);
    let own = clients.sign("client", &["gateway"], Validity::Good).unwrap();
    let upstream = secure(&identity, Some(&clients)).await;
    let entry = json!({
        "ca_file": authority.file(), "client_cert_file": own.certificate, "client_key_file": own.key,
    });
    for (entry, status) in [(entry, 200), (json!({"ca_file": authority.file()}), 502)] {
        let world = before(upstream.address(), entry).await;
        assert_eq!(world.send(Request::get(BILLABLE)).await.status, status);
        assert_eq!(world.finish().await.len(), usize::from(status == 200));
    }
}

#[tokio::test]
async fn the_billing_api_is_called_over_tls() {
    let authority = Authority::new().unwrap();
    let billing = secure(&good(&authority, &["127.0.0.1"]), None).await;
    let upstream = Upstream::start(|_| Answer::ok("")).await.unwrap();
    let plan = Plan::with("BILLING_CA_FILE", authority.file().display());
    let world = plan.and("BILLING_URL", format!("https://{}", billing.address())).start(upstream).await;
    let response = world.send(Request::get("/billing/health")).await;
    assert_eq!((response.status, response.text().as_str()), (200, "over TLS"));
}
