//! The gateway's settings, read and checked at once.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use goldleaves_domain::{BillableRoutes, BillableStatuses, PublicRoutes, RouteError, RoutePattern};
use goldleaves_runtime::reload::read_watch;
use goldleaves_runtime::settings::{Common, Environment, Values, parse, table};

use crate::edge::{self, Bills, EdgeConfig, EdgeSettings, RouteShown, UpstreamEntry, Urls};
use crate::layers::{AllowedOrigins, ExposedHeaders};
use crate::limits::GatewayLimits;
use crate::transport::{Origin, Tls, TlsFiles};

/// Where the gateway listens when nothing is said: everywhere, as a program of its own.
const EVERYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 8080);
/// Where it listens in the one process: on this machine only.
const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

/// The program that the gateway runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deployment {
    /// One process with everything: it may bring its own demo upstream.
    Embedded,
    /// A program of its own.
    Distributed,
}

/// The settings of a gateway.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// `GATEWAY_ADDR`.
    pub address: SocketAddr,
    /// `UPSTREAM_URL`; `None` only in the one process.
    pub upstream: Option<Origin>,
    /// `BILLING_URL`.
    pub billing: Origin,
    /// The certificates of `BILLING_CA_FILE`; `None` = the machine's roots.
    pub(crate) billing_tls: Option<Arc<Tls>>,
    /// `[[upstreams]]` and `[[routes]]`.
    pub(crate) edge: EdgeConfig,
    /// `BILLABLE_ROUTES`.
    pub routes: Arc<BillableRoutes>,
    /// `PUBLIC_ROUTES`.
    pub public: Arc<PublicRoutes>,
    /// The patterns of `BILLABLE_ROUTES` that can never be billed, since all that they match is open.
    pub never_billed: Vec<String>,
    /// `BILLABLE_STATUSES`.
    pub statuses: Arc<BillableStatuses>,
    /// `ALLOWED_ORIGINS`; `None` = no CORS headers.
    pub origins: Option<Arc<AllowedOrigins>>,
    /// `CORS_EXPOSE_HEADERS`.
    pub exposed: Option<Arc<ExposedHeaders>>,
    /// `EVENT_CLIENT_INFO`.
    pub client_info: bool,
    /// `WEBSOCKET_TOKEN`.
    pub websocket_tokens: bool,
    /// True if answers without an event say why there is none: in development.
    pub says_skipped: bool,
    /// Sizes, counts and time-outs.
    pub limits: GatewayLimits,
    /// `SHUTDOWN_GRACE_SECS`.
    pub shutdown_grace: Duration,
    /// `DRAIN_DELAY_SECS`.
    pub drain_delay: Duration,
    /// `CONFIG_WATCH_SECS`; `None` = SIGHUP alone counts.
    pub watch_every: Option<Duration>,
    /// The number of cores that serve, each with a runtime, a listening socket and an upstream pool of its own.
    pub cores: NonZeroUsize,
}

impl GatewayConfig {
    /// The upstreams in words; `None` where the settings name none.
    pub fn named_upstreams(&self) -> Option<String> {
        let url = self.upstream.iter().map(ToString::to_string);
        let entries = self.edge.upstreams.iter().map(|entry| entry.name.clone());
        let all: Vec<String> = url.chain(entries).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// The routes of all calls, and what holds for them: a row for each entry of `[[routes]]` and for the calls of none.
    pub fn route_table(&self) -> Vec<RouteShown> {
        edge::route_table(&self.edge_settings())
    }

    /// The part that ways are made of.
    pub(crate) fn edge_settings(&self) -> EdgeSettings<'_> {
        EdgeSettings {
            upstream: self.upstream.as_ref(),
            billing: &self.billing,
            billing_tls: self.billing_tls.as_ref(),
            edge: &self.edge,
            routes: &self.routes,
            public: &self.public,
            limits: &self.limits,
        }
    }

    /// The files that entries and `BILLING_CA_FILE` name.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let of_entries = self.edge.upstreams.iter().filter_map(|entry| entry.tls.as_ref());
        of_entries.chain(&self.billing_tls).flat_map(|tls| tls.files()).collect()
    }

    /// The most bytes that any request's body may have.
    pub(crate) fn body_bytes_max(&self) -> u64 {
        let of_entries = self.edge.routes.iter().filter_map(|entry| entry.body_bytes_max);
        of_entries.fold(self.limits.request_body_bytes_max, u64::max)
    }

    /// Every pattern that something is billed as.
    pub(crate) fn billed_patterns(&self) -> Vec<RoutePattern> {
        Bills::new(Arc::clone(&self.routes), &self.edge.routes).patterns().to_vec()
    }

    /// Reads it; `None` when there was a mistake, which `values` holds then.
    pub fn read(values: &mut Values, common: Option<&Common>, deployment: Deployment) -> Option<Self> {
        let here = if deployment == Deployment::Embedded { HERE } else { EVERYWHERE };
        let address = values.or_default(table::GATEWAY_ADDR, parse::socket_address, here);
        let upstream = origin(values, table::UPSTREAM_URL);
        let edge = EdgeConfig::read(values);
        if upstream == Some(None) && deployment == Deployment::Distributed && edge.names_none() {
            values.mistake(table::UPSTREAM_URL, "is missing");
        }
        let billing = origin(values, table::BILLING_URL);
        let urls = Urls {
            upstream: upstream.as_ref().map(Option::as_ref),
            billing: billing.as_ref().and_then(Option::as_ref),
        };
        let billing_tls = billing_tls(values, urls.billing, edge.entry("billing"));
        edge.check_with(values, urls);
        let routes = values.required(table::BILLABLE_ROUTES, |list| BillableRoutes::parse(list).map_err(all));
        let public = values.optional(table::PUBLIC_ROUTES, |list| PublicRoutes::parse(list).map_err(all));
        let public = public.map(Option::unwrap_or_default);
        let never_billed =
            routes.as_ref().zip(public.as_ref()).map(|(routes, public)| never_billed(values, routes, public));
        let routes = routes.map(Arc::new);
        check_routes(values, &edge, routes.as_ref(), public.as_ref());
        let statuses = values.required(table::BILLABLE_STATUSES, BillableStatuses::parse);
        let origins = values.optional(table::ALLOWED_ORIGINS, parse::from_str::<AllowedOrigins>);
        let exposed = values.optional(table::CORS_EXPOSE_HEADERS, parse::from_str::<ExposedHeaders>);
        let client_info = values.required(table::EVENT_CLIENT_INFO, parse::boolean);
        let websocket_tokens = values.required(table::WEBSOCKET_TOKEN, parse::boolean);
        let limits = GatewayLimits::read(values);
        let watch_every = read_watch(values);
        Some(Self {
            address: address?,
            upstream: upstream?,
            billing: billing??,
            billing_tls: billing_tls?,
            edge: edge.whole()?,
            routes: routes?,
            public: Arc::new(public?),
            never_billed: never_billed?,
            statuses: Arc::new(statuses?),
            origins: origins?.map(Arc::new),
            exposed: exposed?.map(Arc::new),
            client_info: client_info?,
            websocket_tokens: websocket_tokens?,
            says_skipped: common?.environment == Environment::Development,
            limits: limits?,
            shutdown_grace: common?.shutdown_grace,
            drain_delay: common?.drain_delay,
            watch_every: watch_every?,
            cores: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        })
    }
}

/// Checks what entries say of routes and bills together, and with those two lists as far as they could be read.
fn check_routes(
    values: &mut Values,
    edge: &EdgeConfig,
    routes: Option<&Arc<BillableRoutes>>,
    public: Option<&PublicRoutes>,
) {
    let routes = routes.map_or_else(|| Arc::new(BillableRoutes::none()), Arc::clone);
    let none = PublicRoutes::default();
    let bills = Bills::new(Arc::clone(&routes), &edge.routes);
    Bills::check(values, &routes, &edge.routes);
    edge::check(values, edge, &bills, public.unwrap_or(&none));
}

/// Returns whether a running gateway cannot take another value: where it listens, what it keeps, and what its connections to
/// others were opened by.
pub fn needs_restart(setting: &table::Setting) -> bool {
    let is_one = [
        table::ENVIRONMENT,
        table::GATEWAY_ADDR,
        table::BILLING_ADDR,
        table::OPS_ADDR,
        table::DATA_DIR,
        table::DATABASE_URL,
        table::METER_DURABILITY,
    ]
    .contains(setting);
    is_one || ["NATS_", "STREAM_", "SPOOL_", "OTEL_"].iter().any(|group| setting.name.starts_with(group))
}

/// Reads an address to call. What is wrong with it is told in words that repeat nothing: it might hold a password.
fn origin(values: &mut Values, setting: table::Setting) -> Option<Option<Origin>> {
    let parsed = values.optional(setting, |text| Ok::<_, Infallible>(text.trim().parse::<Origin>()))?;
    match parsed.transpose() {
        Ok(origin) => Some(origin),
        Err(error) => {
            values.mistake(setting, &format!("is wrong: {error}"));
            None
        }
    }
}

/// Reads what `BILLING_URL` is encrypted with where `BILLING_CA_FILE` is set, with what its entry says of certificates. The outer
/// `None` is a mistake, already noted.
fn billing_tls(
    values: &mut Values,
    billing: Option<&Origin>,
    entry: Option<&UpstreamEntry>,
) -> Option<Option<Arc<Tls>>> {
    let Some(file) = values.optional(table::BILLING_CA_FILE, parse::path)? else { return Some(None) };
    if billing.is_some_and(|billing| !billing.is_https()) {
        values.mistake(table::BILLING_CA_FILE, "is set, and BILLING_URL is not https");
        return None;
    }
    let read = match entry.map(|entry| (&entry.place, entry.tls.as_ref())) {
        Some((place, Some(tls))) if tls.has_own_ca() => {
            values.mistake(
                table::BILLING_CA_FILE,
                &format!("is set, and so is {place}.ca_file; one of the two is enough"),
            );
            return None;
        }
        Some((_, Some(tls))) => tls.with_ca(file),
        _ => Tls::read(TlsFiles { ca: Some(file), ..TlsFiles::default() }),
    };
    match read {
        Ok(tls) => Some(Some(Arc::new(tls))),
        Err(errors) => {
            for error in errors {
                values.mistake(table::BILLING_CA_FILE, &format!("can't be used: {error}"));
            }
            None
        }
    }
}

/// Every mistake of a list in one text.
#[expect(clippy::needless_pass_by_value, reason = "what a parser hands over when it fails")]
fn all(errors: Vec<RouteError>) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The patterns that are listed as billable and never can be, which `check-config` refuses: somebody waits for that bill.
fn never_billed(values: &mut Values, routes: &BillableRoutes, public: &PublicRoutes) -> Vec<String> {
    let never: Vec<String> = routes.never_billed(public).iter().map(ToString::to_string).collect();
    if !never.is_empty() {
        let open =
            "what is open (/health, /metrics, /docs, /openapi.json, /auth, /billing, PUBLIC_ROUTES) is never billed";
        values.doubt(table::BILLABLE_ROUTES, &format!("can never bill {}: {open}", never.join(", ")));
    }
    never
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(settings: &[(&str, &str)], deployment: Deployment) -> Result<GatewayConfig, String> {
        let mut values = Values::load(settings.iter().copied(), None);
        let common = Common::read(&mut values);
        let config = GatewayConfig::read(&mut values, common.as_ref(), deployment);
        values.finish(config).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn only_the_one_process_can_do_without_an_upstream() {
        let embedded = read(&[], Deployment::Embedded).unwrap();
        assert_eq!((embedded.upstream, embedded.address), (None, HERE));
        assert!(read(&[], Deployment::Distributed).unwrap_err().contains("UPSTREAM_URL"));
        let distributed = read(&[("UPSTREAM_URL", "http://h:9")], Deployment::Distributed).unwrap();
        assert_eq!((distributed.upstream.unwrap().port(), distributed.address), (9, EVERYWHERE));
        assert_eq!(distributed.origins, None);
    }

    #[test]
    fn what_can_never_be_billed_is_named_and_refused_by_a_check() {
        for (routes, public, never) in [
            ("/health", "", "/health"),
            ("/,/auth/login,/billing/x", "", "/auth/login, /billing/x"),
            ("/api,/static/paid", "/static", "/static/paid"),
        ] {
            let settings = [("BILLABLE_ROUTES", routes), ("PUBLIC_ROUTES", public)];
            assert_eq!(
                read(&settings, Deployment::Embedded).unwrap().never_billed.join(", "),
                never,
                "it runs all the same"
            );
            let mut values = Values::load(settings, None);
            let common = Common::read(&mut values);
            let config = GatewayConfig::read(&mut values, common.as_ref(), Deployment::Embedded);
            let mistakes = values.finish_strictly(config).unwrap_err().to_string();
            assert!(mistakes.contains(&format!("BILLABLE_ROUTES: can never bill {never}: ")), "{mistakes}");
        }
        let good = [("BILLABLE_ROUTES", "/"), ("PUBLIC_ROUTES", "/static,/assets/*")];
        assert!(read(&good, Deployment::Embedded).is_ok());
        assert!(read(&[("PUBLIC_ROUTES", "/")], Deployment::Embedded).unwrap_err().contains("would open everything"));
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let settings = [
            ("UPSTREAM_URL", "https://h/base"),
            ("BILLING_URL", "http://h/base"),
            ("BILLABLE_ROUTES", "/a/*/b,/a,/a"),
            ("BILLABLE_STATUSES", "2xx,abc"),
            ("ALLOWED_ORIGINS", "app.example"),
            ("CORS_EXPOSE_HEADERS", "X-Total Count"),
            ("EVENT_CLIENT_INFO", "perhaps"),
            ("GATEWAY_ADDR", "nowhere"),
            ("CONNECTIONS_MAX", "0"),
        ];
        let mistakes = read(&settings, Deployment::Distributed).unwrap_err();
        for (name, _) in settings {
            assert!(mistakes.contains(name), "{name} is not in\n{mistakes}");
        }
    }

    #[test]
    fn a_host_that_no_certificate_can_name_needs_a_server_name() {
        let entry = |name: &str, more: serde_json::Value| {
            let mut entry = serde_json::json!({"name": name});
            entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::json!([entry]).to_string()
        };
        for host in ["10.1:8443".to_owned(), "db-.internal".to_owned(), format!("{}.internal", "a".repeat(64))] {
            let url = format!("https://{host}");
            let (addresses, named) = (serde_json::json!([url]), serde_json::json!({"server_name": "db.internal"}));
            let written = entry("docs", serde_json::json!({"addresses": addresses}));
            let mistakes = read(&[("UPSTREAMS", &written)], Deployment::Embedded).unwrap_err();
            assert!(
                mistakes.contains("upstreams[0].addresses[0]: names ") && mistakes.contains("server_name"),
                "{mistakes}"
            );
            let written = entry("docs", serde_json::json!({"addresses": addresses, "server_name": "db.internal"}));
            assert!(read(&[("UPSTREAMS", &written)], Deployment::Embedded).is_ok());
            for (setting, name) in [("UPSTREAM_URL", "default"), ("BILLING_URL", "billing")] {
                let mistakes = read(&[(setting, &url)], Deployment::Embedded).unwrap_err();
                assert!(mistakes.contains(&format!("{setting}: names ")), "{mistakes}");
                let written = entry(name, named.clone());
                assert!(read(&[(setting, &url), ("UPSTREAMS", &written)], Deployment::Embedded).is_ok());
            }
        }
    }

    #[test]
    fn what_is_open_and_billed_is_refused_wherever_it_is_said() {
        let open = r#"{"path":"/b","access":"open"}"#;
        let free = r#"{"path":"/b","access":"open","billable":false}"#;
        let paid = r#"{"path":"/b/in","billable":true}"#;
        let token = r#"{"path":"/pub/x","access":"token"}"#;
        for (billed, public, entries, said) in [
            ("/b", "", vec![open], "routes[0].access: opens /b, and /b is billed"),
            ("/B/in", "", vec![open], "routes[0].access: opens /b, and /B/in is billed"),
            ("/", "", vec![open], "routes[0].access: opens /b, and / is billed"),
            ("/x", "", vec![open, paid], "routes[0].access: opens /b, and /b/in is billed"),
            ("/", "", vec![free, paid], "routes[0].access: opens /b, and /b/in is billed"),
            ("/x", "/b", vec![paid], "routes[0].billable: is true, and PUBLIC_ROUTES opens /b/in"),
            ("/x", "/pub", vec![token], "routes[0].access: is token, and PUBLIC_ROUTES opens /pub/x"),
            (
                "/x",
                "",
                vec![r#"{"path":"/health","billable":true}"#],
                "routes[0].billable: is true, and /health is the",
            ),
            ("/b/in", "", vec![r#"{"path":"/free","prefix":"/"}"#], "routes[0].prefix: makes of /free what is billed"),
        ] {
            let entries = format!("[{}]", entries.join(","));
            let settings = [("BILLABLE_ROUTES", billed), ("PUBLIC_ROUTES", public), ("ROUTES", entries.as_str())];
            let mut values = Values::load(settings, None);
            let common = Common::read(&mut values);
            let config = GatewayConfig::read(&mut values, common.as_ref(), Deployment::Embedded);
            let mistakes = values.finish_strictly(config).map(|_| ()).unwrap_err().to_string();
            assert!(mistakes.contains(said), "{said}: {mistakes}");
        }
        for entries in [
            format!("[{free}]"),
            r#"[{"path":"/b","methods":["GET"],"access":"open","billable":false},{"path":"/b","methods":["POST"]}]"#
                .to_owned(),
        ] {
            assert!(read(&[("BILLABLE_ROUTES", "/"), ("ROUTES", &entries)], Deployment::Embedded).is_ok(), "{entries}");
        }
    }

    #[test]
    fn every_file_of_tls_is_watched() {
        let authority = goldleaves_testkit::secure::Authority::new().unwrap();
        let ca = authority.file();
        let settings = [("BILLING_URL", "https://b"), ("BILLING_CA_FILE", ca.to_str().unwrap())];
        assert_eq!(read(&settings, Deployment::Embedded).unwrap().files(), [ca]);
    }

    #[test]
    fn mistakes_of_tls_are_named_by_their_place() {
        let authority = goldleaves_testkit::secure::Authority::new().unwrap();
        let (ca, none) = (authority.file(), authority.file().with_file_name("none.pem"));
        let empty = authority.file().with_file_name("empty.pem");
        std::fs::write(&empty, "nothing").unwrap();
        let entry = |more: serde_json::Value| {
            let mut entry = serde_json::json!({"name": "docs", "addresses": ["https://docs:9443"]});
            entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::json!([entry]).to_string()
        };
        for (more, wrong) in [
            (serde_json::json!({"ca_file": none}), "upstreams[0].ca_file: can't be used: "),
            (serde_json::json!({"ca_file": empty}), "upstreams[0].ca_file: can't be used: "),
            (serde_json::json!({"server_name": "a b"}), "upstreams[0].server_name: "),
            (serde_json::json!({"client_key_file": ca}), "upstreams[0].client_cert_file: is missing beside"),
            (serde_json::json!({"client_cert_file": ca}), "upstreams[0].client_key_file: is missing beside"),
            (
                serde_json::json!({"client_cert_file": none, "client_key_file": ca}),
                "upstreams[0].client_key_file: can't be used: ",
            ),
            (serde_json::json!({"protocol": "h3"}), "upstreams[0].protocol: \"h3\" is wrong"),
            (
                serde_json::json!({"addresses": ["http://docs:9000"], "ca_file": ca}),
                "upstreams[0].ca_file: is set, and none of the addresses is https",
            ),
            (serde_json::json!({"name": "default", "addresses": null}), "upstreams[0].addresses"),
        ] {
            let mistakes = read(&[("UPSTREAMS", &entry(more.clone()))], Deployment::Embedded).unwrap_err();
            assert!(mistakes.contains(wrong), "{wrong} is not in\n{mistakes}");
        }
        let same = serde_json::json!({"ca_file": none, "client_cert_file": none, "client_key_file": none});
        let mistakes = read(&[("UPSTREAMS", &entry(same))], Deployment::Embedded).unwrap_err();
        for key in ["ca_file", "client_cert_file", "client_key_file"] {
            let named = mistakes.matches(&format!("upstreams[0].{key}: can't be used: ")).count();
            assert_eq!(named, 1, "{key} in\n{mistakes}");
        }
        let default = serde_json::json!([{"name": "default", "ca_file": ca}]).to_string();
        let mistakes =
            read(&[("UPSTREAM_URL", "http://h"), ("UPSTREAMS", &default)], Deployment::Embedded).unwrap_err();
        assert!(mistakes.contains("upstreams[0].ca_file: is set for `default`, and UPSTREAM_URL is"), "{mistakes}");
        assert!(read(&[("UPSTREAM_URL", "https://h"), ("UPSTREAMS", &default)], Deployment::Embedded).is_ok());
        let ca = ca.display().to_string();
        let mistakes = read(&[("BILLING_CA_FILE", &ca)], Deployment::Embedded).unwrap_err();
        assert!(mistakes.contains("BILLING_CA_FILE: is set, and BILLING_URL is not https"), "{mistakes}");
    }
    #[test]
    fn all_mistakes_of_lists_come_in_one_round_each_at_its_place() {
        let upstreams = serde_json::json!([
            {"name": "docs", "addresses": ["http://LOCALHOST:80", "http://h:0", "http://localhost"]},
            {"name": "pages", "addresses": ["http://h:1", "http://H:1/", format!("unix:/{}", "s".repeat(107))]},
            {"name": "pages", "addresses": ["http://h:2", "http://[::1]:3", "http://[0:0:0:0:0:0:0:1]:3"], "fail": 3},
            {"name": "Wrong", "addresses": ["http://h:3"]},
            {"name": "default", "health": {}},
        ]);
        let routes = serde_json::json!([
            {"path": "/a", "upstream": "docs", "units": "many"},
            {"path": "/a", "upstream": "docs"},
            {"path": "/b", "upstream": "nobody", "methods": ["GET", "PUT", "GET"]},
            {"path": "/c", "billable": true},
            {"path": "/c/in", "access": "open", "billable": true},
            {"path": "/C", "methods": ["GET"], "billable": true, "upstream": "Wrong"},
            {"path": "/c", "methods": ["GET"], "billable": false},
        ]);
        let settings = [
            ("UPSTREAMS", upstreams.to_string()),
            ("ROUTES", routes.to_string()),
            ("BILLABLE_ROUTES", "*".to_owned()),
            ("BILLABLE_STATUSES", "none".to_owned()),
        ];
        let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mistakes = read(&settings, Deployment::Distributed).unwrap_err();
        let expected = [
            "upstreams[0].addresses[1]: \"http://h:0\" is wrong: port 0",
            "upstreams[0].addresses[2]: \"http://localhost\" is wrong: it is the same address as \"http://LOCALHOST:80\"",
            "upstreams[1].addresses[1]: \"http://H:1/\" is wrong: it is the same address as \"http://h:1\"",
            "upstreams[1].addresses[2]: \"unix:/sss",
            "upstreams[2].name: is the name of upstreams[1], too",
            "upstreams[2].addresses[2]: \"http://[0:0:0:0:0:0:0:1]:3\" is wrong",
            "upstreams[2].fail: is no key here",
            "upstreams[3].name: \"Wrong\" is wrong",
            "upstreams[4].health.path: is missing",
            "upstreams[4].addresses: is missing, and UPSTREAM_URL is not set",
            "routes[0].units: \"many\" is wrong",
            "routes[1].path: is /a, which routes[0] has",
            "routes[2].upstream: \"nobody\" is no upstream",
            "routes[2].methods[2]: \"GET\" is wrong: it is named twice",
            "routes[4].billable: is true, and the entry is open",
            "routes[6].billable: says of /c what another entry",
            "BILLABLE_ROUTES: ",
            "BILLABLE_STATUSES: ",
        ];
        for line in expected {
            assert!(mistakes.contains(line), "{line} is not in\n{mistakes}");
        }
        assert!(mistakes.starts_with(&format!("{} settings are wrong", expected.len())), "{mistakes}");
    }

    #[test]
    fn the_certificates_of_billing_come_from_one_place() {
        let authority = goldleaves_testkit::secure::Authority::new().unwrap();
        let ca = authority.file().display().to_string();
        let with = |entry: serde_json::Value| {
            let entries = serde_json::json!([entry]).to_string();
            let settings = [("BILLING_URL", "https://10.1"), ("BILLING_CA_FILE", &ca), ("UPSTREAMS", entries.as_str())];
            read(&settings, Deployment::Embedded)
        };
        let mistakes = with(serde_json::json!({"name": "billing", "server_name": "b", "ca_file": ca})).unwrap_err();
        assert!(mistakes.contains("BILLING_CA_FILE: is set, and so is upstreams[0].ca_file"), "{mistakes}");
        // What the two say together holds together.
        let config = with(serde_json::json!({"name": "billing", "server_name": "b"})).unwrap();
        let tls = config.billing_tls.unwrap();
        assert!(tls.has_own_ca() && tls.has_own_name());
    }
}
