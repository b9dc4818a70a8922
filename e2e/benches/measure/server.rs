//! The servers that are measured: each one process, or the peers' equivalent of one, on a core of its own.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use goldleaves_testkit::child::{Child, wait_for};
use goldleaves_testkit::client::Request;
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::program::{Launch, Program};
use goldleaves_testkit::scratch::Scratch;
use goldleaves_toolbox::Toolbox;
use tokio::net::TcpStream;

use crate::Part;

/// The core that the server measured has to itself.
pub(crate) const SERVER_CORE: usize = 0;
/// The core of load and upstream.
pub(crate) const LOAD_CORE: usize = 1;
/// The secret that tokens are signed with.
pub(crate) const SECRET: &str = "a-secret-for-measuring-of-enough-bytes-0123456789";

/// A server that runs, and where to ask it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// The path's beginning: some servers are measured twice, on routes that cost something and on others.
    pub(crate) path: &'static str,
    pub(crate) process: u32,
    kind: Kind,
    /// Where its metrics are.
    ops: Option<SocketAddr>,
    /// `None` = that of another row.
    _process: Option<Process>,
    /// The NATS server that it stands on.
    _broker: Option<NatsServer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The upstream behind the servers measured, which may be measured itself.
    Upstream,
    Peer,
    Ours,
    /// A row of its own for the same program on a route that costs nothing.
    Twin,
    /// The gateway by other settings, on a route that costs nothing.
    Edge,
}

#[derive(Debug)]
enum Process {
    Ours(
        #[expect(dead_code, reason = "ends with the value")] Program,
        #[expect(dead_code, reason = "as long")] Scratch,
    ),
    Peer(#[expect(dead_code, reason = "ends with the value")] Child, #[expect(dead_code, reason = "as long")] Scratch),
}

/// The rows that ratios are made of.
pub(crate) const UPSTREAM: &str = "upstream alone";
pub(crate) const NGINX: &str = "nginx, plain";
pub(crate) const HAPROXY_DUTIES: &str = "haproxy, the same duties";
pub(crate) const METERED: &str = "gateway";
pub(crate) const NOT_METERED: &str = "gateway, not metered";

/// The name of the upstream behind the servers measured, which is no row.
const BEHIND: &str = "upstream behind";

/// The route that costs something.
pub(crate) const BILLED: &str = "/api/v1/documents";
/// One that does not.
pub(crate) const UNBILLED: &str = "/free";

/// Starts the upstream on a core.
pub(crate) async fn upstream(core: usize) -> Result<Server> {
    upstream_as("upstream", core).await
}

/// Starts one of the upstreams that this program can be.
pub(crate) async fn upstream_as(command_word: &str, core: usize) -> Result<Server> {
    let scratch = Scratch::new("bench-upstream")?;
    let output = scratch.join("stdout");
    let mut command = pinned(core, &std::env::current_exe().context("this program")?);
    command.arg(command_word).stdin(Stdio::null()).stdout(std::fs::File::create(&output).context("output")?);
    let child = Child::spawn(command, "the upstream")?;
    let address = wait_for("the upstream's address", Duration::from_secs(10), async || {
        let text = std::fs::read_to_string(&output).unwrap_or_default();
        Ok(text.lines().find_map(|line| line.strip_prefix("upstream http://")?.parse().ok()))
    });
    let address = address.await?;
    let process = child.id();
    let name = if core == SERVER_CORE { UPSTREAM } else { BEHIND };
    let _process = Some(Process::Peer(child, scratch));
    Ok(Server { name, address, path: UNBILLED, process, kind: Kind::Upstream, ops: None, _process, _broker: None })
}

impl Server {
    /// A row for the same program on a route that is not billed.
    pub(crate) fn not_metered(&self) -> Self {
        let Self { address, process, ops, .. } = *self;
        Self {
            name: NOT_METERED,
            address,
            path: UNBILLED,
            process,
            kind: Kind::Twin,
            ops,
            _process: None,
            _broker: None,
        }
    }

    /// A row for a program of other settings, which is measured in a part of its own.
    pub(crate) fn of_settings(self) -> Self {
        Self { path: UNBILLED, kind: Kind::Edge, ..self }
    }

    /// Returns whether it is measured in a part. The upstream speaks HTTP/1 only, and so does nginx where one port speaks one protocol.
    pub(crate) fn takes(&self, part: Part) -> bool {
        if (part == Part::Edge) != (self.kind == Kind::Edge) {
            return part == Part::Edge && self.name == UPSTREAM;
        }
        self.name != BEHIND && (part != Part::H2c || !matches!(self.name, UPSTREAM | NGINX))
    }

    /// Returns whether it is a program of its own that is compared with others.
    pub(crate) fn is_program(&self) -> bool {
        matches!(self.kind, Kind::Peer | Kind::Ours)
    }

    /// Returns how many events it recorded so far; `None` of what records none.
    pub(crate) async fn recorded(&self) -> Result<Option<u64>> {
        let Some(ops) = self.ops else { return Ok(None) };
        Ok(Some(metric(&metrics(ops).await?, "goldleaves_captured_events_total")))
    }

    /// Returns whether nothing that it recorded waits to be handed over.
    pub(crate) async fn has_handed_over(&self) -> Result<bool> {
        let Some(ops) = self.ops else { return Ok(true) };
        Ok(metric(&metrics(ops).await?, "goldleaves_spool_unsent_records") == 0)
    }
}

async fn metrics(ops: SocketAddr) -> Result<String> {
    let response = Request::get("/metrics").send(ops).await.context("asking for metrics")?;
    Ok(response.text())
}

/// The sum of a metric's values.
fn metric(text: &str, name: &str) -> u64 {
    let values = text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next());
    values.filter_map(|value| value.parse::<u64>().ok()).sum()
}

/// The way one of our programs is started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ours {
    pub(crate) name: &'static str,
    /// `goldleaves`, all in one process, or `gateway`, with nats-server on the load's core.
    pub(crate) program: &'static str,
    pub(crate) durability: &'static str,
}

/// Starts one of our programs, with these settings and this file of them.
pub(crate) async fn ours(ours: Ours, edge: (&'static str, String), file: &str) -> Result<Server> {
    let scratch = Scratch::new("bench")?;
    std::fs::write(scratch.join("goldleaves.toml"), file).context("a file of settings")?;
    let alone = ours.program == "gateway";
    let broker = if alone { Some(NatsServer::start().await?) } else { None };
    let mut settings = vec![
        edge,
        ("DATA_DIR", scratch.join("data").display().to_string()),
        ("JWT_SECRET", SECRET.to_owned()),
        ("GATEWAY_ADDR", "127.0.0.1:0".to_owned()),
        ("BILLING_ADDR", "127.0.0.1:0".to_owned()),
        ("OPS_ADDR", "127.0.0.1:0".to_owned()),
        ("METER_DURABILITY", ours.durability.to_owned()),
        ("RATE_LIMIT_PER_SECOND", "1000000".to_owned()),
        ("ENVIRONMENT", "production".to_owned()),
        ("LOG_LEVEL", "info".to_owned()),
    ];
    if let Some(broker) = &broker {
        settings.extend([("NATS_URL", broker.url()), ("STREAM_BYTES_MAX", "8GiB".to_owned())]);
        declare_stream(&scratch, &settings)?;
    }
    let mut program = Launch::new(ours.program, scratch.path()).settings(settings).on_core(SERVER_CORE).start()?;
    let address = program.address(if alone { "gateway listens on" } else { "gateway " }).await?;
    let ops = program.address("ops on").await?;
    Ok(Server {
        name: ours.name,
        address,
        path: BILLED,
        process: program.id(),
        kind: Kind::Ours,
        ops: Some(ops),
        _process: Some(Process::Ours(program, scratch)),
        _broker: broker,
    })
}

/// `migrate` makes the stream; the database it also makes is not used.
fn declare_stream(scratch: &Scratch, settings: &[(&'static str, String)]) -> Result<()> {
    let database = format!("sqlite://{}", scratch.join("unused.db").display());
    let launch = Launch::new("migrate", scratch.path()).settings(settings.iter().cloned());
    let output = launch.setting("DATABASE_URL", database).output()?;
    anyhow::ensure!(output.status.success(), "migrate: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Every peer that is installed. None is no failure: a measurement without peers is one, too.
pub(crate) async fn peers(upstream: SocketAddr) -> Result<Vec<Server>> {
    let mut peers = Vec::new();
    if let Ok(nginx) = Toolbox::of_target().nginx() {
        let arguments = ["-c", "peer.conf", "-e", "peer.log", "-p", "."];
        peers.push(peer(NGINX, &nginx, &arguments, &nginx_configuration(upstream)).await?);
    }
    let haproxy = Path::new("/usr/sbin/haproxy");
    if haproxy.is_file() {
        let arguments = ["-db", "-f", "peer.conf"];
        peers.push(peer("haproxy, plain", haproxy, &arguments, &haproxy_configuration(upstream, "")).await?);
        peers
            .push(peer(HAPROXY_DUTIES, haproxy, &arguments, &haproxy_configuration(upstream, &haproxy_rules())).await?);
    }
    Ok(peers)
}

async fn peer(name: &'static str, program: &Path, arguments: &[&str], configuration: &str) -> Result<Server> {
    let scratch = Scratch::new("bench-peer")?;
    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).context("a port")?.port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let text = configuration.replace("LISTEN", &address.to_string());
    std::fs::write(scratch.join("peer.conf"), text).context("a peer's configuration")?;
    let log = std::fs::File::create(scratch.join("output")).context("a peer's output")?;
    let mut command = pinned(SERVER_CORE, program);
    command.args(arguments).current_dir(scratch.path()).stdin(Stdio::null());
    command.stdout(log.try_clone().context("a peer's output")?).stderr(log);
    let mut child = Child::spawn(command, name)?;
    wait_for("a peer to listen", Duration::from_secs(10), async || {
        let said = || std::fs::read_to_string(scratch.join("output")).unwrap_or_default();
        anyhow::ensure!(child.ended()?.is_none(), "{name} ended: {}", said());
        Ok(TcpStream::connect(address).await.is_ok().then_some(()))
    })
    .await?;
    let process = child.id();
    let _process = Some(Process::Peer(child, scratch));
    Ok(Server { name, address, path: BILLED, process, kind: Kind::Peer, ops: None, _process, _broker: None })
}

fn pinned(core: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(program);
    command
}

/// One worker, connections to the upstream kept, nothing written to disk.
fn nginx_configuration(upstream: SocketAddr) -> String {
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path temporary_{kind}; "))
        .concat();
    format!(
        "daemon off; master_process off; {user} pid peer.pid; error_log peer.log warn;\n\
         events {{ worker_connections 8192; multi_accept on; }}\n\
         http {{\n  access_log off; sendfile off; tcp_nodelay on; keepalive_requests 100000000; keepalive_timeout 300s;\n  \
         {temporary}\n  upstream behind {{ server {upstream}; keepalive 512; keepalive_requests 100000000; }}\n  \
         server {{ listen LISTEN backlog=4096; location / {{ proxy_pass http://behind; proxy_http_version 1.1;\n    \
         proxy_set_header Connection \"\"; proxy_set_header Host $host;\n    \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n    \
         proxy_buffers 16 16k; proxy_buffer_size 16k; proxy_max_temp_file_size 0; }} }}\n}}\n"
    )
}

fn haproxy_configuration(upstream: SocketAddr, rules: &str) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 8000\ndefaults\n  mode http\n  option http-keep-alive\n  http-reuse always\n  \
         timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n  timeout http-keep-alive 300s\n\
         frontend before\n  bind LISTEN backlog 4096\n  option forwardfor\n{rules}  default_backend behind\n\
         backend behind\n  server one {upstream} pool-max-conn -1 pool-purge-delay 300s\n"
    )
}

/// Returns what the gateway does short of metering: verify HS256 and expiry, make an id, limit a tenant's rate, take out what a
/// client says about itself and say who calls.
fn haproxy_rules() -> String {
    let rules = [
        "unique-id-format %[uuid()]".to_owned(),
        "unique-id-header X-Request-ID".to_owned(),
        "stick-table type string len 64 size 100k expire 60s store http_req_rate(1s)".to_owned(),
        "http-request set-var(txn.bearer) http_auth_bearer".to_owned(),
        "http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')".to_owned(),
        "http-request deny deny_status 401 unless { var(txn.alg) -m str HS256 }".to_owned(),
        format!("http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,\"{SECRET}\") 1 }}"),
        "http-request set-var(txn.sub) var(txn.bearer),jwt_payload_query('$.sub')".to_owned(),
        "http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')".to_owned(),
        "http-request set-var(txn.now) date()".to_owned(),
        "http-request deny deny_status 401 if { var(txn.exp),sub(txn.now) -m int le 0 }".to_owned(),
        "http-request set-var(txn.tenant) var(txn.bearer),jwt_payload_query('$.tenant_id')".to_owned(),
        "http-request deny deny_status 403 unless { var(txn.tenant) -m found }".to_owned(),
        "http-request track-sc0 var(txn.tenant)".to_owned(),
        "http-request deny deny_status 429 if { sc_http_req_rate(0) gt 100000000 }".to_owned(),
        "http-request del-header x-user -m beg".to_owned(),
        "http-request del-header x-tenant -m beg".to_owned(),
        "http-request del-header x-organization -m beg".to_owned(),
        "http-request del-header x-forwarded -m beg".to_owned(),
        "http-request del-header x-usage- -m beg".to_owned(),
        "http-request set-header X-User-ID %[var(txn.sub)]".to_owned(),
        "http-request set-header X-Tenant-ID %[var(txn.tenant)]".to_owned(),
        "http-request set-header X-Organization-ID %[var(txn.tenant)]".to_owned(),
        "http-request set-header X-Forwarded-Proto http".to_owned(),
        "http-request set-header X-Forwarded-Host %[req.hdr(host)]".to_owned(),
        "http-response set-header X-Request-ID %[unique-id]".to_owned(),
    ];
    rules.iter().map(|rule| format!("  {rule}\n")).collect()
}
