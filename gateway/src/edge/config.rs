//! `[[upstreams]]` and `[[routes]]` as they are written: read entry by entry, each mistake named by its place.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use goldleaves_domain::{BillableStatuses, NormalPath, RoutePattern, Units};
use goldleaves_runtime::settings::{Entry, EntryKey, Values, parse, table};
use http::Method;
use rustls::pki_types::ServerName;

use super::together::Unread;
use crate::transport::{Of, Origin, Speaks, Tls, TlsFiles};
use crate::upstream::Health;

const UPSTREAMS_MAX: usize = 1_000;
const ROUTES_MAX: usize = 10_000;
const NAME_CHARS_MAX: usize = 32;

const NAME: EntryKey = EntryKey::new("name", "a name of its own: 1 to 32 of a-z, 0-9 and -");
const ADDRESSES: EntryKey = EntryKey::new(
    "addresses",
    "addresses such as http://docs:9000, https://docs:9443 or unix:/run/docs.sock, each once",
);
const PROTOCOL: EntryKey = EntryKey::new("protocol", "http1 or h2");
const CA_FILE: EntryKey = EntryKey::new("ca_file", "a PEM file of certificates");
const SERVER_NAME: EntryKey = EntryKey::new("server_name", "the name that the certificate has");
const CLIENT_CERT_FILE: EntryKey = EntryKey::new("client_cert_file", "a PEM file of certificates, the client's first");
const CLIENT_KEY_FILE: EntryKey = EntryKey::new("client_key_file", "a PEM file with the key");
const CONNECT_TIMEOUT: EntryKey = EntryKey::new("connect_timeout_secs", "seconds, more than 0 and at most 86400");
const REQUESTS_MAX: EntryKey = EntryKey::new("requests_max", "a whole number from 1 to 1000000");
const HEALTH: EntryKey = EntryKey::new("health", "a table such as { path = \"/healthz\" }");
const HEALTH_PATH: EntryKey = EntryKey::new("path", "a path such as /healthz");
const INTERVAL: EntryKey = EntryKey::new("interval_secs", "seconds, more than 0 and at most 86400");
const TIMEOUT: EntryKey = EntryKey::new("timeout_secs", "seconds, more than 0 and at most 86400");
const FAIL: EntryKey = EntryKey::new("fail", "a whole number from 1 to 100");
const PASS: EntryKey = EntryKey::new("pass", "a whole number from 1 to 100");
const STATUSES: EntryKey = EntryKey::new("statuses", "classes such as 2xx or codes such as 200, separated by commas");

const PATH: EntryKey = EntryKey::new("path", "a path of whole segments such as /api/v1/documents");
const METHODS: EntryKey = EntryKey::new("methods", "methods such as [\"GET\", \"POST\"], each once");
const UPSTREAM: EntryKey =
    EntryKey::new("upstream", "the name of an entry of [[upstreams]], default (UPSTREAM_URL) or billing");
const ACCESS: EntryKey = EntryKey::new("access", "token or open");
const BILLABLE: EntryKey = EntryKey::new("billable", "true or false");
const PREFIX: EntryKey = EntryKey::new("prefix", "a path such as /v2/docs, in its one form");
const HEAD_TIMEOUT: EntryKey = EntryKey::new("head_timeout_secs", "seconds, more than 0 and at most 86400");
const BODY_IDLE: EntryKey = EntryKey::new("body_idle_timeout_secs", "seconds, more than 0 and at most 86400");
const CALL_TIMEOUT: EntryKey = EntryKey::new("call_timeout_secs", "seconds, more than 0 and at most 86400");
const BODY_BYTES_MAX: EntryKey = EntryKey::new("request_body_bytes_max", "bytes such as 10485760 or 10MiB");
const CLIENT_ABORT: EntryKey = EntryKey::new("client_abort", "cancel or finish");
const UNITS: EntryKey = EntryKey::new("units", "units: 0 to 1000000000 with at most 6 places");

/// One entry of `[[upstreams]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpstreamEntry {
    /// `upstreams[2]`.
    pub(crate) place: String,
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

/// Both lists, as far as they could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EdgeConfig {
    pub(crate) upstreams: Vec<UpstreamEntry>,
    pub(crate) routes: Vec<RouteEntry>,
    pub(super) unread: Unread,
    /// True if every entry was read whole.
    is_whole: bool,
}

impl EdgeConfig {
    /// Reads them. `values` holds what could not be read; what could is checked together all the same, so that all mistakes are
    /// known at once.
    pub(crate) fn read(values: &mut Values) -> Self {
        let mut edge = Self { is_whole: true, ..Self::default() };
        edge.read_upstreams(values);
        edge.read_routes(values);
        edge
    }

    /// The settings, where every entry was read whole.
    pub(crate) fn whole(self) -> Option<Self> {
        self.is_whole.then_some(self)
    }

    /// Returns whether no upstream is described.
    pub(crate) fn names_none(&self) -> bool {
        self.upstreams.is_empty() && self.unread.is_empty()
    }

    fn read_upstreams(&mut self, values: &mut Values) {
        let Some(entries) = values.entries(table::UPSTREAMS, UPSTREAMS_MAX) else {
            (self.unread.is_all, self.is_whole) = (true, false);
            return;
        };
        let mut taken: BTreeMap<String, String> = BTreeMap::new();
        for mut entry in entries {
            let (name, upstream) = upstream(&mut entry);
            if let Some(first) = name.as_ref().and_then(|name| taken.get(name)) {
                entry.mistake(NAME, &format!("is the name of {first}, too"));
            }
            let place = entry.place().to_owned();
            if !values.close(entry) {
                self.is_whole = false;
                self.unread.names.extend(name.clone());
            }
            self.upstreams.extend(upstream.filter(|upstream| !taken.contains_key(&upstream.name)));
            taken.extend(name.map(|name| (name, place)));
        }
    }

    fn read_routes(&mut self, values: &mut Values) {
        let Some(entries) = values.entries(table::ROUTES, ROUTES_MAX) else {
            self.is_whole = false;
            return;
        };
        let own = ["default", "billing"].into_iter();
        let described = self.upstreams.iter().map(|upstream| upstream.name.as_str());
        let unread = self.unread.names.iter().map(String::as_str);
        let names: BTreeSet<&str> = own.chain(described).chain(unread).collect();
        for mut entry in entries {
            let (upstream, route) = route(&mut entry);
            if let Some(upstream) = upstream.filter(|name| !self.unread.is_all && !names.contains(name.as_str())) {
                let known = names.iter().copied().collect::<Vec<_>>().join(", ");
                entry.mistake(UPSTREAM, &format!("{upstream:?} is no upstream; there are {known}"));
            }
            self.routes.extend(route);
            self.is_whole &= values.close(entry);
        }
    }
}

/// The name as it is written, and the entry where its name and its addresses could be read: the rest of it says nothing of others.
fn upstream(entry: &mut Entry) -> (Option<String>, Option<UpstreamEntry>) {
    let mut written = None;
    let name = entry.required(NAME, |text| {
        written = Some(text.to_owned());
        name(text)
    });
    let is_known = name.as_deref().is_some_and(|name| matches!(name, "default" | "billing"));
    // One address that is written twice, be it in two ways, would be two that share nothing of what is known of them.
    let mut seen: Vec<(String, Arc<Origin>)> = Vec::new();
    let origins = entry.list(ADDRESSES, |text| {
        let origin = Arc::new(text.parse::<Origin>().map_err(|error| error.to_string())?);
        if let Some((first, _)) = seen.iter().find(|(_, other)| other.is_at(&origin)) {
            return Err(format!("it is the same address as {first:?}"));
        }
        seen.push((text.to_owned(), Arc::clone(&origin)));
        Ok(origin)
    });
    if let Some(None) = &origins
        && !is_known
    {
        entry.mistake(ADDRESSES, "is missing");
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
    let place = entry.place().to_owned();
    let read = name.zip(origins).map(|(name, origins)| UpstreamEntry {
        place,
        name,
        origins: origins.unwrap_or_default(),
        connect_timeout: connect_timeout.flatten(),
        requests_max: requests_max.flatten(),
        health: health.flatten(),
        protocol: protocol.flatten(),
        tls: tls.flatten(),
    });
    (written, read)
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
        let unused: Vec<EntryKey> = keys.into_iter().filter(|key| entry.has(*key)).collect();
        for unused in unused {
            entry.mistake(unused, "is set, and none of the addresses is https");
        }
    }
    if let Some(None) = server_name {
        let unnameable = origins.into_iter().flatten().enumerate();
        let unnameable: Vec<_> = unnameable.filter_map(|(at, origin)| Some((at, origin.unnameable()?))).collect();
        unnameable.iter().for_each(|(at, why)| entry.mistake_in(ADDRESSES, *at, why));
    }
    let client = match (certificate?, key?) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => entry.mistaken(CLIENT_KEY_FILE, "is missing beside client_cert_file"),
        (None, Some(_)) => entry.mistaken(CLIENT_CERT_FILE, "is missing beside client_key_file"),
    };
    let files = TlsFiles { ca: ca?, server_name: server_name?, client };
    if !is_https && files == TlsFiles::default() {
        return Some(None);
    }
    let key_of = |part| match part {
        Of::Authorities => CA_FILE,
        Of::Certificates => CLIENT_CERT_FILE,
        Of::Key => CLIENT_KEY_FILE,
    };
    match Tls::read(files) {
        Ok(tls) => Some(Some(Arc::new(tls))),
        Err(errors) => {
            errors.iter().for_each(|error| entry.mistake(key_of(error.of()), &format!("can't be used: {error}")));
            None
        }
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

/// The upstream that is named, and the entry where it could be read as far as others are held against it; mistakes are noted.
fn route(entry: &mut Entry) -> (Option<String>, Option<RouteEntry>) {
    let place = entry.place().to_owned();
    let pattern = entry.required(PATH, |text| text.trim().parse::<RoutePattern>());
    let mut named = Vec::new();
    let methods = entry.list(METHODS, |text| match method(text)? {
        method if named.contains(&method) => Err(Wrong("it is named twice")),
        method => {
            named.push(method.clone());
            Ok(method)
        }
    });
    let upstream = entry.optional(UPSTREAM, parse::text);
    let access = entry.optional(ACCESS, access);
    let billable = entry.flag(BILLABLE);
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
    let named = upstream.clone().flatten();
    // What others are held against must have been read; of the rest nothing follows.
    let read = || {
        Some(RouteEntry {
            place,
            path: pattern?,
            methods: methods?,
            upstream: upstream?.unwrap_or_else(|| "default".to_owned()),
            access: access?,
            billable: billable?,
            prefix: prefix.flatten(),
            head_timeout: head_timeout.flatten(),
            body_idle: body_idle.flatten(),
            call_timeout: call_timeout.flatten(),
            body_bytes_max: body_bytes_max.flatten(),
            client_abort: client_abort.flatten().unwrap_or_default(),
            units: units.flatten(),
        })
    };
    (named, read())
}

/// Returns whether the callers of a pattern are decided before any entry is looked at.
fn is_fixed(pattern: &RoutePattern) -> bool {
    let first = pattern.as_str().split('/').nth(1).unwrap_or_default();
    matches!(first, "health" | "metrics" | "billing" | "auth" | "docs" | "openapi.json")
}

/// The reason a text is not what a key wants.
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
