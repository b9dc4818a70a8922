//! The gateway in front of applications that nobody here wrote: what comes through it is what they say, byte for byte,
//! and every billable call is billed once.

use std::net::SocketAddr;

use goldleaves_e2e::compare;
use goldleaves_e2e::deployment::{Deployment, Kind};
use goldleaves_e2e::load::Receipt;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::httpbin::Httpbin;
use goldleaves_testkit::nginx::Nginx;

on_both!(
    httpbin_through_the_gateway_is_httpbin,
    nginx_through_the_gateway_is_nginx,
    a_client_of_h2_gets_the_same_bytes
);

/// Asks the application and the gateway, holds the answers against each other, and returns what the gateway's says.
async fn compare_one(deployment: &Deployment, application: SocketAddr, request: &Request) -> Receipt {
    // The application sees the same Host either way: redirects and links are made of it.
    let request = request.clone().header("Host", "application.test").header("User-Agent", "e2e");
    let direct = request.send(application).await.unwrap();
    let token = deployment.token("acme").unwrap();
    let through = deployment.ask(&request.clone().token(&token)).await.unwrap();
    compare::same(&direct, &through).unwrap_or_else(|error| panic!("{}: {error:#}", request.target()));
    Receipt::of(&through).unwrap()
}

/// Waits until every receipt with an event is a row, and looks that nothing else is.
async fn each_is_billed_once(deployment: &Deployment, receipts: &[Receipt]) {
    let billed: Vec<&Receipt> = receipts.iter().filter(|receipt| receipt.event_id.is_some()).collect();
    deployment.summary_of("acme", billed.len() as u64).await.unwrap();
    let contents = deployment.tables().await.unwrap().contents().await.unwrap();
    for receipt in &billed {
        let id = receipt.event_id.as_deref().unwrap();
        let rows: Vec<_> = contents.events.iter().filter(|row| row.id == id).collect();
        assert_eq!(rows.len(), 1, "{receipt:?}");
        assert_eq!(rows[0].outcome, "completed", "{receipt:?}");
    }
    assert_eq!(contents.len(), billed.len(), "{contents:?}");
}

async fn httpbin_through_the_gateway_is_httpbin(kind: Kind) {
    let httpbin = Httpbin::start().await.unwrap();
    let routes = "/json,/gzip,/redirect-to,/relative-redirect,/bytes,/stream-bytes,/stream,/drip,/status,\
        /range,/image,/etag,/cache,/encoding,/xml,/html,/base64,/post,/put";
    let settings = [("UPSTREAM_URL", httpbin.url()), ("BILLABLE_ROUTES", routes.to_owned())];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let deployment = Deployment::start_with(kind, &settings).await.unwrap();
    let mut receipts = Vec::new();
    let requests = [
        Request::get("/json"),
        Request::get("/html"),
        Request::get("/xml"),
        Request::get("/encoding/utf8"),
        Request::get("/base64/SGVsbG8%3D"),
        Request::get("/image/png"),
        Request::get("/redirect-to?url=%2Fjson&status_code=307"),
        Request::get("/relative-redirect/2"),
        Request::get("/bytes/1024?seed=7"),
        Request::get("/stream-bytes/1048576?seed=3&chunk_size=65536"),
        Request::get("/range/26").header("Range", "bytes=3-9"),
        Request::get("/range/26").header("Range", "bytes=90-"),
        Request::get("/etag/x").header("If-None-Match", "x"),
        Request::get("/etag/x").header("If-Match", "y"),
        Request::get("/cache").header("If-Modified-Since", "Tue, 24 Nov 2026 00:00:00 GMT"),
        Request::get("/drip?duration=1&numbytes=10&code=200&delay=0"),
        Request::new("HEAD", "/bytes/1024?seed=7"),
        Request::new("HEAD", "/json"),
        Request::get("/status/204"),
        Request::get("/status/304"),
        Request::get("/status/404"),
        Request::get("/status/500"),
        Request::get("/status/418"),
    ];
    for request in &requests {
        let receipt = compare_one(&deployment, httpbin.address(), request).await;
        let billable = (200..400).contains(&receipt.status);
        assert_eq!(receipt.event_id.is_some(), billable, "{} {receipt:?}", request.target());
        receipts.push(receipt);
    }
    receipts.extend(uploads(&deployment, &httpbin).await);
    receipts.push(compressed(&deployment).await);
    each_is_billed_once(&deployment, &receipts).await;
}

/// httpbin compresses an echo of the headers it saw, which differ by what the gateway adds: it must arrive as it was
/// sent, still compressed. (What nginx compresses is compared byte for byte.)
async fn compressed(deployment: &Deployment) -> Receipt {
    let request = Request::get("/gzip").header("Accept-Encoding", "gzip").token(&deployment.token("acme").unwrap());
    let response = deployment.ask(&request).await.unwrap();
    assert_eq!(response.header("content-encoding"), Some("gzip"));
    assert!(response.body.bytes.starts_with(&[0x1f, 0x8b]));
    assert_eq!(response.header("content-length"), Some(response.body.bytes.len().to_string().as_str()));
    Receipt::of(&response).unwrap()
}

/// httpbin echoes uploads beside the headers it saw, which differ by what the gateway adds: what it says it received
/// must be what was sent.
async fn uploads(deployment: &Deployment, httpbin: &Httpbin) -> Vec<Receipt> {
    let megabyte: Vec<u8> = (0..1_048_576_u32).map(|n| b'a' + (n % 23) as u8).collect();
    let chunks: Vec<Vec<u8>> = megabyte.chunks(10_000).map(<[u8]>::to_vec).collect();
    let requests = [
        Request::post("/post", megabyte.clone()).header("Content-Type", "text/plain"),
        Request::new("POST", "/post").chunked(chunks.clone()).header("Content-Type", "text/plain"),
        Request::new("PUT", "/put").chunked(chunks).header("Content-Type", "text/plain"),
    ];
    let mut receipts = Vec::new();
    for request in requests {
        let direct = request.send(httpbin.address()).await.unwrap().json().unwrap();
        let through = deployment.ask(&request.token(&deployment.token("acme").unwrap())).await.unwrap();
        let receipt = Receipt::of(&through).unwrap();
        let through = through.json().unwrap();
        assert_eq!(through["data"].as_str().map(str::len), Some(megabyte.len()));
        assert_eq!(through["data"], direct["data"]);
        receipts.push(receipt);
    }
    receipts
}

async fn nginx_through_the_gateway_is_nginx(kind: Kind) {
    let text = "All work is counted once. ".repeat(2000);
    let large: Vec<u8> = (0..1_048_576_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let files: [(&str, &[u8]); 3] = [("a.txt", text.as_bytes()), ("large.bin", &large), ("empty.txt", b"")];
    let nginx = Nginx::serving(&files).await.unwrap();
    let settings =
        [("UPSTREAM_URL", nginx.url()), ("BILLABLE_ROUTES", "/a.txt,/large.bin,/empty.txt,/missing".to_owned())];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let deployment = Deployment::start_with(kind, &settings).await.unwrap();
    let modified = Request::get("/a.txt").send(nginx.address()).await.unwrap();
    let etag = modified.header("etag").unwrap().to_owned();
    let modified = modified.header("last-modified").unwrap().to_owned();
    let requests = [
        Request::get("/a.txt"),
        Request::get("/a.txt").header("Accept-Encoding", "gzip"),
        Request::get("/a.txt").header("If-None-Match", &etag),
        Request::get("/a.txt").header("If-Modified-Since", &modified),
        Request::get("/a.txt").header("Range", "bytes=0-9"),
        Request::get("/a.txt").header("Range", "bytes=0-1,5-6"),
        Request::get("/a.txt").header("Range", "bytes=999999-"),
        Request::get("/large.bin"),
        Request::get("/large.bin").header("Range", "bytes=-100000"),
        Request::new("HEAD", "/large.bin"),
        Request::get("/empty.txt"),
        Request::get("/missing"),
        Request::new("DELETE", "/a.txt"),
    ];
    let mut receipts = Vec::new();
    for request in &requests {
        // Boundaries of multipart ranges are random: only their framing can be the same.
        let receipt = if request.target() == "/a.txt" && format!("{request:?}").contains("0-1,5-6") {
            let through = deployment.ask(&request.clone().token(&deployment.token("acme").unwrap())).await.unwrap();
            assert_eq!(through.status, 206);
            Receipt::of(&through).unwrap()
        } else {
            compare_one(&deployment, nginx.address(), request).await
        };
        receipts.push(receipt);
    }
    each_is_billed_once(&deployment, &receipts).await;
}

async fn a_client_of_h2_gets_the_same_bytes(kind: Kind) {
    let httpbin = Httpbin::start().await.unwrap();
    let settings = [("UPSTREAM_URL", httpbin.url()), ("BILLABLE_ROUTES", "/stream-bytes,/post".to_owned())];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let deployment = Deployment::start_with(kind, &settings).await.unwrap();
    let token = deployment.token("acme").unwrap();
    let download = Request::get("/stream-bytes/200000?seed=5");
    let direct = download.send(httpbin.address()).await.unwrap();
    let through = download.token(&token).send_h2(deployment.gateway().unwrap()).await.unwrap();
    assert_eq!(through.head.start, "HTTP/2.0 200 OK");
    assert!(through.body.bytes == direct.body.bytes);
    assert!(through.header("x-usage-event-id").is_some());
    let upload = Request::post("/post", vec![b'x'; 200_000]).header("content-type", "text/plain").token(&token);
    let seen = upload.send_h2(deployment.gateway().unwrap()).await.unwrap();
    assert_eq!(seen.status, 200);
    assert_eq!(seen.json().unwrap()["data"].as_str().map(str::len), Some(200_000));
    deployment.summary_of("acme", 2).await.unwrap();
}
