//! The start-up text: every address, and lines that work when pasted.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// The text that a person is shown at the start.
#[derive(Debug)]
pub(crate) struct Banner {
    /// Where the gateway listens.
    pub(crate) gateway: SocketAddr,
    /// Where the billing API listens.
    pub(crate) billing: SocketAddr,
    /// True if it shows its documentation.
    pub(crate) docs: bool,
    /// Where metrics and health are.
    pub(crate) ops: SocketAddr,
    /// Where calls go, in words.
    pub(crate) upstream: String,
    /// True if `UPSTREAM_URL` named it; the demo answers everything.
    pub(crate) is_own: bool,
    /// The routes that are billed, in words.
    pub(crate) billed: String,
    /// `DATA_DIR`.
    pub(crate) data_dir: PathBuf,
    /// Lines to paste; none in production, where no token belongs on a screen.
    pub(crate) sample: Option<SampleCall>,
}

/// A call that works.
#[derive(Debug)]
pub(crate) struct SampleCall {
    /// A token for `tenant`.
    pub(crate) token: String,
    /// The tenant whose usage it will be.
    pub(crate) tenant: &'static str,
    /// The time for which the token is valid.
    pub(crate) minutes: u64,
    /// The words by which curl is told the method, when it is not GET.
    pub(crate) method: &'static str,
    /// A billable path.
    pub(crate) path: String,
}

impl fmt::Display for Banner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "Goldleaves {}, all in one process", env!("CARGO_PKG_VERSION"))?;
        writeln!(out)?;
        writeln!(out, "  gateway   http://{}", self.gateway)?;
        let docs = if self.docs { "   documentation at /billing/docs" } else { "" };
        writeln!(out, "  billing   http://{}{docs}", self.billing)?;
        writeln!(out, "  ops       http://{}   /metrics, /health/live, /health/ready", self.ops)?;
        writeln!(out, "  upstream  {}", self.upstream)?;
        writeln!(out, "  billed    {}", self.billed)?;
        writeln!(out, "  data      {}", self.data_dir.display())?;
        let Some(sample) = &self.sample else { return Ok(()) };
        let (gateway, SampleCall { token, tenant, minutes, method, path }) = (reachable(self.gateway), sample);
        writeln!(out)?;
        writeln!(
            out,
            "A call as tenant {tenant:?}, its usage summary and its report (the token is good for {minutes} minutes):"
        )?;
        if self.is_own {
            writeln!(out, "(X-Usage-Skipped in an answer says why a call to your service was not billed.)")?;
        }
        writeln!(out)?;
        writeln!(out, "curl -i {method}-H 'Authorization: Bearer {token}' http://{gateway}{path}")?;
        writeln!(out)?;
        for view in ["usage-summary", "usage-report"] {
            writeln!(out, "curl -s -H 'Authorization: Bearer {token}' http://{gateway}/billing/{view}/{tenant}")?;
            writeln!(out)?;
        }
        Ok(())
    }
}

/// An address that can be called from this machine: the one listened on may stand for all of them.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let host = match address.ip() {
        IpAddr::V4(host) if host.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(host) if host.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        host => host,
    };
    SocketAddr::new(host, address.port())
}
