//! `[[upstreams]]` and `[[routes]]` as they are written: read entry by entry, each mistake named by its place.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use goldleaves_domain::{BillableStatuses, NormalPath, RoutePattern, Units};
use goldleaves_runtime::settings::{Entry, Key, Values, parse, table};
use http::Method;
use rustls::pki_types::ServerName;

use crate::transport::{Origin, Speaks, Tls, TlsFiles};
use crate::upstream::Health;

const UPSTREAMS_MAX: usize = 1_000;
const ROUTES_MAX: usize = 10_000;
const NAME_CHARS_MAX: usize = 32;

const NAME: Key = Key::new("name", "a name of its own: 1 to 32 of a-z, 0-9 and -");
const ADDRESSES: Key =
    Key::new("addresses", "addresses such as http://docs:9000, https://docs:9443 or unix:/run/docs.sock, each once");
const PROTOCOL: Key = Key::new("protocol", "http1 or h2");
const CA_FILE: Key = Key::new("ca_file", "a PEM file of certificates");
const SERVER_NAME: Key = Key::new("server_name", "the name that the certificate has");
const CLIENT_CERT_FILE: Key = Key::new("client_cert_file", "a PEM file of certificates, the client's first");
const CLIENT_KEY_FILE: Key = Key::new("client_key_file", "a PEM file with the key");
const CONNECT_TIMEOUT: Key = Key::new("connect_timeout_secs", "seconds, more than 0 and at most 86400");
const REQUESTS_MAX: Key = Key::new("requests_max", "a whole number from 1 to 1000000");
const HEALTH: Key = Key::new("health", "a table such as { path = \"/healthz\" }");
const HEALTH_PATH: Key = Key::new("path", "a path such as /healthz");
const INTERVAL: Key = Key::new("interval_secs", "seconds, more than 0 and at most 86400");
const TIMEOUT: Key = Key::new("timeout_secs", "seconds, more than 0 and at most 86400");
const FAIL: Key = Key::new("fail", "a whole number from 1 to 100");
const PASS: Key = Key::new("pass", "a whole number from 1 to 100");
const STATUSES: Key = Key::new("statuses", "classes such as 2xx or codes such as 200, separated by commas");

const PATH: Key = Key::new("path", "a path of whole segments such as /api/v1/documents");
const METHODS: Key = Key::new("methods", "methods such as [\"GET\", \"POST\"], each once");
const UPSTREAM: Key = Key::new("upstream", "the name of an entry of [[upstreams]], default (UPSTREAM_URL) or billing");
const ACCESS: Key = Key::new("access", "token or open");
const BILLABLE: Key = Key::new("billable", "true or false");
const PREFIX: Key = Key::new("prefix", "a path such as /v2/docs, in its one form");
const HEAD_TIMEOUT: Key = Key::new("head_timeout_secs", "seconds, more than 0 and at most 86400");
const BODY_IDLE: Key = Key::new("body_idle_timeout_secs", "seconds, more than 0 and at most 86400");
const CALL_TIMEOUT: Key = Key::new("call_timeout_secs", "seconds, more than 0 and at most 86400");
const BODY_BYTES_MAX: Key = Key::new("request_body_bytes_max", "bytes such as 10485760 or 10MiB");
const CLIENT_ABORT: Key = Key::new("client_abort", "cancel or finish");
const UNITS: Key = Key::new("units", "units: 0 to 1000000000 with at most 6 places");

/// One entry of `[[upstreams]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpstreamEntry {
    pub(crate) name: String,
    /// None only for `default` and `billing`, whose address is a setting of its own.
    pub(crate) origins: Vec<Arc<Origin>>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) requests_max: Option<usize>,
    pub(crate) health: Option<Health>,
    /// `None` = HTTP/1.1, but HTTP/2 for gRPC.
    pub(crate) protocol: Option<Speaks>,
    /// Where one of the addresses is https.
    pub(crate) tls: Option<Arc<Tls>>,
}

/// Says whether an entry's calls need a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// They do.
    Token,
    /// They do not.
    Open,
}

/// The fate of the upstream's call when the client leaves before the head of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ClientAbort {
    /// It is broken off.
    #[default]
    Cancel,
    /// It goes on until the head.
    Finish,
}

/// One entry of `[[routes]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RouteEntry {
    /// `routes[2]`.
    pub(crate) place: String,
    pub(crate) path: RoutePattern,
    /// `None` = all.
    pub(crate) methods: Option<Vec<Method>>,
    pub(crate) upstream: String,
    pub(crate) access: Option<Access>,
    /// `None` = it says nothing of bills.
    pub(crate) billable: Option<bool>,
    pub(crate) prefix: Option<String>,
    pub(crate) head_timeout: Option<Duration>,
    pub(crate) body_idle: Option<Duration>,
    pub(crate) call_timeout: Option<Duration>,
    pub(crate) body_bytes_max: Option<u64>,
    pub(crate) client_abort: ClientAbort,
    pub(crate) units: Option<Units>,
}

impl RouteEntry {
    /// The methods, for people.
    pub(super) fn shown_methods(&self) -> String {
        match &self.methods {
            None => "all".to_owned(),
            Some(methods) => methods.iter().map(Method::as_str).collect::<Vec<_>>().join(","),
        }
    }
}

/// Both lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EdgeConfig {
    pub(crate) upstreams: Vec<UpstreamEntry>,
    pub(crate) routes: Vec<RouteEntry>,
}

impl EdgeConfig {
    /// Reads them; `None` when there was a mistake, which `values` holds then.
    pub(crate) fn read(values: &mut Values) -> Option<Self> {
        let mut upstreams = Vec::new();
        let mut is_whole = true;
        let mut names = BTreeSet::from(["default".to_owned(), "billing".to_owned()]);
        let mut taken = BTreeSet::new();
        for mut entry in values.entries(table::UPSTREAMS, UPSTREAMS_MAX)? {
            let upstream = upstream(&mut entry);
            if let Some(upstream) = &upstream {
                names.insert(upstream.name.clone());
                if !taken.insert(upstream.name.clone()) {
                    entry.mistake(NAME, "is another entry's name, too");
                }
            }
            is_whole &= upstream.is_some();
            upstreams.extend(upstream);
            values.close(entry);
        }
        let mut routes: Vec<RouteEntry> = Vec::new();
        for mut entry in values.entries(table::ROUTES, ROUTES_MAX)? {
            let route = route(&mut entry);
            if let Some(route) = &route
                && !names.contains(&route.upstream)
            {
                let known = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                entry.mistake(UPSTREAM, &format!("{:?} is no upstream; there are {known}", route.upstream));
            }
            is_whole &= route.is_some();
            routes.extend(route);
            values.close(entry);
        }
        is_whole.then_some(Self { upstreams, routes })
    }
}

impl EdgeConfig {
    /// Notes addresses that are said twice, and entries that lead nowhere.
    pub(crate) fn check_addresses(&self, values: &mut Values, has_url: bool) {
        let described =
            |name: &str| self.upstreams.iter().find(|entry| entry.name == name).map(|entry| !entry.origins.is_empty());
        if has_url && described("default") == Some(true) {
            values.mistake(table::UPSTREAM_URL, "is set, and so are the addresses of the upstream `default`");
        }
        if !has_url && described("default") == Some(false) {
            values.mistake(table::UPSTREAMS, "describes `default`, which has no address: UPSTREAM_URL is not set");
        }
        if values.is_set(table::BILLING_URL) && described("billing") == Some(true) {
            values.mistake(table::BILLING_URL, "is set, and so are the addresses of the upstream `billing`");
        }
        let has_default = has_url || described("default") == Some(true);
        for route in self.routes.iter().filter(|route| route.upstream == "default" && !has_default) {
            // The one process brings an upstream of its own only where nothing else is named.
            if !self.upstreams.is_empty() {
                let text = format!("{}.upstream is missing, and there is no default (UPSTREAM_URL)", route.place);
                values.mistake(table::ROUTES, &text);
            }
        }
    }
}

impl EdgeConfig {
    /// Notes TLS that `default` is given for a `UPSTREAM_URL` without any.
    pub(crate) fn check_tls_of_default(&self, values: &mut Values, url: Option<&Origin>) {
        let default = self.upstreams.iter().find(|entry| entry.name == "default" && entry.origins.is_empty());
        if default.is_some_and(|entry| entry.tls.is_some()) && url.is_some_and(|url| !url.is_https()) {
            values.mistake(table::UPSTREAMS, "gives `default` TLS files, and UPSTREAM_URL is not https");
        }
    }
}

impl EdgeConfig {
    /// Notes hosts of `UPSTREAM_URL` and `BILLING_URL` that no certificate can name, where no entry says another name.
    pub(crate) fn check_names(&self, values: &mut Values, (url, billing): (Option<&Origin>, Option<&Origin>)) {
        for (setting, origin, name) in [(table::UPSTREAM_URL, url, "default"), (table::BILLING_URL, billing, "billing")]
        {
            let entry = self.upstreams.iter().find(|entry| entry.name == name);
            let is_named = entry.and_then(|entry| entry.tls.as_ref()).is_some_and(|tls| tls.has_own_name());
            if let Some(why) = origin.and_then(Origin::unnameable).filter(|_| !is_named) {
                values.mistake(setting, &format!("{why} in the entry {name:?} of [[upstreams]]"));
            }
        }
    }
}

fn upstream(entry: &mut Entry) -> Option<UpstreamEntry> {
    let name = entry.required(NAME, name);
    let is_known = name.as_deref().is_some_and(|name| matches!(name, "default" | "billing"));
    let origins = entry.list(ADDRESSES, |text| text.parse::<Origin>().map(Arc::new));
    if let Some(None) = &origins
        && !is_known
    {
        entry.mistake(ADDRESSES, "is missing");
    }
    if let Some(Some(origins)) = &origins
        && origins.iter().enumerate().any(|(index, origin)| origins.iter().skip(index + 1).any(|other| other == origin))
    {
        entry.mistake(ADDRESSES, "names one address twice");
    }
    let protocol = entry.optional(PROTOCOL, protocol);
    let tls = tls(entry, origins.as_ref().and_then(Option::as_ref));
    let connect_timeout = entry.optional(CONNECT_TIMEOUT, parse::seconds);
    let requests_max = entry.optional(REQUESTS_MAX, parse::whole(1..=1_000_000));
    let health = match entry.table(HEALTH) {
        Some(Some(mut inner)) => {
            let health = health(&mut inner);
            entry.close(inner);
            health.map(Some)
        }
        none => none.map(|_| None),
    };
    Some(UpstreamEntry {
        name: name?,
        origins: origins?.unwrap_or_default(),
        connect_timeout: connect_timeout?,
        requests_max: requests_max?,
        health: health?,
        protocol: protocol?,
        tls: tls?,
    })
}

/// Reads what encrypts connections, where there is an https address. The outer `None` is a mistake, already noted.
fn tls(entry: &mut Entry, origins: Option<&Vec<Arc<Origin>>>) -> Option<Option<Arc<Tls>>> {
    let ca = entry.optional(CA_FILE, parse::path);
    let server_name = entry.optional(SERVER_NAME, |text| ServerName::try_from(text.to_owned()));
    let certificate = entry.optional(CLIENT_CERT_FILE, parse::path);
    let key = entry.optional(CLIENT_KEY_FILE, parse::path);
    let is_https = origins.is_some_and(|origins| origins.iter().any(|origin| origin.is_https()));
    if let Some(origins) = origins
        && !is_https
        && !origins.is_empty()
    {
        let keys = [CA_FILE, SERVER_NAME, CLIENT_CERT_FILE, CLIENT_KEY_FILE];
        let unused: Vec<Key> = keys.into_iter().filter(|key| entry.has(*key)).collect();
        for unused in unused {
            entry.mistake(unused, "is set, and none of the addresses is https");
        }
    }
    if let Some(None) = server_name
        && let Some(why) = origins.into_iter().flatten().find_map(|origin| origin.unnameable())
    {
        entry.mistake(ADDRESSES, &why);
    }
    let client = match (certificate?, key?) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => return entry.mistaken(CLIENT_KEY_FILE, "is missing beside client_cert_file"),
        (None, Some(_)) => return entry.mistaken(CLIENT_CERT_FILE, "is missing beside client_key_file"),
    };
    let files = TlsFiles { ca: ca?, server_name: server_name?, client };
    if !is_https && files == TlsFiles::default() {
        return Some(None);
    }
    let of_file = |file: Option<&Path>| match &files.client {
        Some((certificate, _)) if file == Some(certificate) => CLIENT_CERT_FILE,
        Some((_, key)) if file == Some(key) => CLIENT_KEY_FILE,
        _ => CA_FILE,
    };
    match Tls::read(files.clone()) {
        Ok(tls) => Some(Some(Arc::new(tls))),
        Err(error) => entry.mistaken(of_file(error.file()), &format!("can't be used: {error}")),
    }
}

fn health(entry: &mut Entry) -> Option<Health> {
    let path = entry.required(HEALTH_PATH, path);
    let interval = entry.optional(INTERVAL, parse::seconds);
    let timeout = entry.optional(TIMEOUT, parse::seconds);
    let fail = entry.optional(FAIL, parse::whole(1..=100));
    let pass = entry.optional(PASS, parse::whole(1..=100));
    let statuses = entry.optional(STATUSES, BillableStatuses::parse);
    Some(Health {
        path: path?,
        interval: interval?.unwrap_or(Duration::from_secs(5)),
        timeout: timeout?.unwrap_or(Duration::from_secs(2)),
        fail: fail?.unwrap_or(3),
        pass: pass?.unwrap_or(2),
        statuses: match statuses? {
            Some(statuses) => statuses,
            None => BillableStatuses::parse("2xx").ok()?,
        },
    })
}

fn route(entry: &mut Entry) -> Option<RouteEntry> {
    let place = entry.place().to_owned();
    let pattern = entry.required(PATH, |text| text.trim().parse::<RoutePattern>());
    let methods = entry.list(METHODS, method);
    if let Some(Some(methods)) = &methods
        && methods.iter().enumerate().any(|(index, method)| methods.iter().skip(index + 1).any(|other| other == method))
    {
        entry.mistake(METHODS, "names one method twice");
    }
    let upstream = entry.optional(UPSTREAM, parse::text);
    let access = entry.optional(ACCESS, access);
    let billable = entry.optional(BILLABLE, parse::boolean);
    let prefix = entry.optional(PREFIX, prefix);
    let head_timeout = entry.optional(HEAD_TIMEOUT, parse::seconds);
    let body_idle = entry.optional(BODY_IDLE, parse::seconds);
    let call_timeout = entry.optional(CALL_TIMEOUT, parse::seconds);
    let body_bytes_max = entry.optional(BODY_BYTES_MAX, parse::byte_size);
    let client_abort = entry.optional(CLIENT_ABORT, client_abort);
    let units = entry.optional(UNITS, parse::from_str::<Units>);
    if let Some(Some(Access::Open)) = access
        && let Some(Some(true)) = billable
    {
        entry.mistake(BILLABLE, "is true, and the entry is open: nobody is known who could pay");
    }
    if let Some(pattern) = &pattern
        && access.is_some_and(|access| access.is_some())
        && is_fixed(pattern)
    {
        entry.mistake(ACCESS, &format!("{pattern} has a fixed access, which no entry changes; expected none here"));
    }
    if let Some(pattern) = &pattern
        && billable == Some(Some(true))
        && is_fixed(pattern)
    {
        entry.mistake(BILLABLE, &format!("is true, and {pattern} is the gateway's own: it is never billed"));
    }
    Some(RouteEntry {
        place,
        path: pattern?,
        methods: methods?,
        upstream: upstream?.unwrap_or_else(|| "default".to_owned()),
        access: access?,
        billable: billable?,
        prefix: prefix?,
        head_timeout: head_timeout?,
        body_idle: body_idle?,
        call_timeout: call_timeout?,
        body_bytes_max: body_bytes_max?,
        client_abort: client_abort?.unwrap_or_default(),
        units: units?,
    })
}

/// Returns whether the callers of a pattern are decided before any entry is looked at.
fn is_fixed(pattern: &RoutePattern) -> bool {
    let first = pattern.as_str().split('/').nth(1).unwrap_or_default();
    matches!(first, "health" | "metrics" | "billing" | "auth" | "docs" | "openapi.json")
}

/// Why a text is not what a key wants.
#[derive(Debug)]
struct Wrong(&'static str);

impl fmt::Display for Wrong {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0)
    }
}

fn name(text: &str) -> Result<String, Wrong> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match text {
        "" => Err(Wrong("it is empty")),
        long if long.len() > NAME_CHARS_MAX => Err(Wrong("it is too long")),
        text if text.bytes().all(legal) => Ok(text.to_owned()),
        _ => Err(Wrong("it has other characters")),
    }
}

fn path(text: &str) -> Result<String, Wrong> {
    let plain =
        text.starts_with('/') && text.parse::<http::uri::PathAndQuery>().is_ok_and(|path| path.query().is_none());
    if plain { Ok(text.to_owned()) } else { Err(Wrong("it is no path")) }
}

/// Also `/`; what is appended to it begins with a slash, so that it does not end with one.
fn prefix(text: &str) -> Result<String, Wrong> {
    match NormalPath::normalise(text) {
        Err(_) => Err(Wrong("it is no path that could be forwarded")),
        Ok(normal) if normal.as_str() != text || text.contains(['?', '#', ';', '*']) => {
            Err(Wrong("it is not the one form of a path"))
        }
        Ok(_) if text.len() > 1 && text.ends_with('/') => Err(Wrong("it ends with a slash")),
        Ok(_) => Ok(text.trim_end_matches('/').to_owned()),
    }
}

fn method(text: &str) -> Result<Method, Wrong> {
    let legal = !text.is_empty() && text.len() <= 32 && !matches!(text, "CONNECT" | "TRACE" | "HEAD");
    match Method::from_bytes(text.as_bytes()) {
        Ok(method) if legal => Ok(method),
        _ if text == "HEAD" => Err(Wrong("GET covers HEAD")),
        _ => Err(Wrong("it is no method that is served")),
    }
}

fn protocol(text: &str) -> Result<Speaks, Wrong> {
    match text {
        "http1" => Ok(Speaks::One),
        "h2" => Ok(Speaks::Two),
        _ => Err(Wrong("it is neither")),
    }
}

fn access(text: &str) -> Result<Access, Wrong> {
    match text {
        "token" => Ok(Access::Token),
        "open" => Ok(Access::Open),
        _ => Err(Wrong("it is neither")),
    }
}

fn client_abort(text: &str) -> Result<ClientAbort, Wrong> {
    match text {
        "cancel" => Ok(ClientAbort::Cancel),
        "finish" => Ok(ClientAbort::Finish),
        _ => Err(Wrong("it is neither")),
    }
}
