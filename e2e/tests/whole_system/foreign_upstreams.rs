//! Upstreams and clients that nobody here wrote: nginx over HTTP/1.1 and TLS, haproxy over HTTP/1.1 and HTTP/2, h2load before the
//! gateway. Each call is answered by whom its route names, and is one event.

use goldleaves_e2e::deployment::{Deployment, Kind};
use goldleaves_testkit::client::{Connection, Request};
use goldleaves_testkit::h2load::{self, H2Load, H2LoadCounts};
use goldleaves_testkit::haproxy::{Haproxy, Protocol};
use goldleaves_testkit::nginx::Nginx;
use goldleaves_testkit::secure::{Authority, Validity};
use serde_json::json;

on_both!(each_answers_its_calls_and_each_call_is_one_event);

/// The path that leads to each of them, and what it says.
const WAYS: [(&str, &str); 4] = [
    ("/api/v1/documents", "nginx"),
    ("/api/v1/cases", "nginx over TLS"),
    ("/api/v1/clients", "haproxy"),
    ("/api/v1/forms", "haproxy over HTTP/2"),
];
const REQUESTS: u32 = 400;
const POSTS: usize = 10;

/// They run as long as the value lives.
struct Foreign {
    nginx: [Nginx; 2],
    haproxy: [Haproxy; 2],
    authority: Authority,
}

impl Foreign {
    async fn start() -> Self {
        let authority = Authority::new().unwrap();
        let identity = authority.sign("nginx", &["nginx.internal"], Validity::Good).unwrap();
        let [plain, secure, one, two] = WAYS.map(|(_, says)| says);
        let returns = |says: &str| format!("keepalive_requests 1000000; return 200 \"{says}\";");
        let rules = |says: &str| {
            let answer = format!("http-request return status 200 content-type text/plain string \"{says}\"");
            ["option http-buffer-request".to_owned(), answer]
        };
        let haproxy = async |protocol, says: &str| {
            let rules = rules(says);
            Haproxy::start(protocol, &rules.each_ref().map(String::as_str)).await.unwrap()
        };
        Self {
            nginx: [
                Nginx::start(&returns(plain), &[]).await.unwrap(),
                Nginx::start_secure(&identity, &returns(secure)).await.unwrap(),
            ],
            haproxy: [haproxy(Protocol::One, one).await, haproxy(Protocol::Two, two).await],
            authority,
        }
    }

    fn settings(&self) -> [(&'static str, String); 2] {
        let [plain, secure] = &self.nginx;
        let [one, two] = &self.haproxy;
        let secure = format!("https://{}", secure.address());
        let upstreams = json!([
            {"name": "plain", "addresses": [plain.url()]},
            {"name": "secure", "addresses": [secure], "ca_file": self.authority.file(), "server_name": "nginx.internal"},
            {"name": "one", "addresses": [one.url()]},
            {"name": "two", "addresses": [two.url()], "protocol": "h2"},
        ]);
        let names = ["plain", "secure", "one", "two"];
        let routes = WAYS.iter().zip(names).map(|((path, _), upstream)| json!({"path": path, "upstream": upstream}));
        let routes: serde_json::Value = routes.collect();
        [("UPSTREAMS", upstreams.to_string()), ("ROUTES", routes.to_string())]
    }

    fn logs(&self) -> String {
        let nginx = self.nginx.iter().map(Nginx::log);
        nginx.chain(self.haproxy.iter().map(Haproxy::log)).collect()
    }
}

async fn each_answers_its_calls_and_each_call_is_one_event(kind: Kind) {
    let foreign = Foreign::start().await;
    let settings = foreign.settings();
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let deployment = Deployment::start_with(kind, &settings).await.unwrap();
    let (gateway, token) = (deployment.gateway().unwrap(), deployment.token("acme").unwrap());
    let mut connection = Connection::open(gateway).await.unwrap();
    for (path, says) in WAYS {
        for number in 0..POSTS {
            let posts = Request::post(path, vec![b'x'; 1 + number * 1_000]).token(&token);
            for request in [posts, Request::get(&format!("{path}/{number}")).token(&token)] {
                let response = connection.ask(&request).await.unwrap();
                assert_eq!((response.status, response.text().as_str()), (200, says), "{}", foreign.logs());
            }
        }
        let url = format!("http://{gateway}{path}");
        let bearer = format!("authorization: Bearer {token}");
        let load = H2Load { url: &url, fields: &[&bearer], requests: REQUESTS, connections: 4, streams: 25 };
        let counted = h2load::run(load).await.unwrap();
        assert_eq!(counted, H2LoadCounts { succeeded: REQUESTS, failed: 0 }, "{says}: {}", foreign.logs());
    }
    let calls = WAYS.len() * (REQUESTS as usize + 2 * POSTS);
    let tables = deployment.tables().await.unwrap();
    let contents = tables.wait("every call", |contents| contents.events.len() == calls).await.unwrap();
    assert_eq!((contents.duplicates.len(), contents.dead_letters.len()), (0, 0));
    for (path, _) in WAYS {
        assert_eq!(contents.events.iter().filter(|row| row.route == path).count() * WAYS.len(), calls, "{path}");
    }
}
