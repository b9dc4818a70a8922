//! Where a call goes and what holds for it there.

use std::sync::Arc;
use std::time::Duration;

use goldleaves_domain::{NormalPath, Units};
use http::HeaderValue;

use super::config::{Access, ClientAbort, RouteEntry};
use crate::destination::Destination;
use crate::error::GatewayError;
use crate::limits::GatewayLimits;
use crate::transport::UploadLimits;
use crate::upstream::Upstream;

/// The time a call may take, and the amount that may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallLimits {
    pub(crate) head_timeout: Duration,
    pub(crate) body_idle: Duration,
    pub(crate) call_timeout: Duration,
    /// The idle limit of what is quiet by nature: tunnels, event streams, gRPC.
    pub(crate) stream_idle: Duration,
    pub(crate) body_bytes_max: u64,
}

impl CallLimits {
    /// The limits of calls that no entry mentions.
    pub(crate) const fn of(limits: &GatewayLimits) -> Self {
        Self {
            head_timeout: limits.upstream_head_timeout,
            body_idle: limits.body_idle_timeout,
            call_timeout: limits.call_timeout,
            stream_idle: limits.tunnel_idle_timeout,
            body_bytes_max: limits.request_body_bytes_max,
        }
    }

    /// Returns the limits of a request's body.
    pub(crate) const fn upload(&self) -> UploadLimits {
        UploadLimits { bytes_max: self.body_bytes_max, idle: self.body_idle }
    }
}

/// The way of a call.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) limits: CallLimits,
    /// `None` = the entry says nothing of it.
    pub(super) access: Option<Access>,
    /// The path that takes the place of the entry's segments.
    prefix: Option<String>,
    pub(crate) client_abort: ClientAbort,
    /// True if the entry is for paths of the billing API.
    pub(super) is_of_billing: bool,
    _mark: Arc<()>,
}

/// A way, and the path that is asked for at its end.
#[derive(Debug)]
pub(crate) struct Heading {
    pub(crate) way: Arc<Way>,
    /// `None` = the client's own.
    pub(crate) target: Option<Box<Target>>,
    /// The units that the call counts when the upstream says nothing; `None` = one.
    pub(crate) units: Option<Units>,
}

/// A rewritten path.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) path: NormalPath,
    /// The part of the path that was cut, for `X-Forwarded-Prefix`.
    pub(crate) cut: HeaderValue,
}

impl Way {
    /// The way of calls that no entry says anything of.
    pub(super) fn plain(upstream: Arc<Upstream>, limits: CallLimits, mark: &Arc<()>) -> Self {
        Self {
            upstream,
            limits,
            access: None,
            prefix: None,
            client_abort: ClientAbort::Cancel,
            is_of_billing: false,
            _mark: Arc::clone(mark),
        }
    }

    /// The way of an entry's calls.
    pub(super) fn of(entry: &RouteEntry, upstream: Arc<Upstream>, limits: CallLimits, mark: &Arc<()>) -> Self {
        Self {
            upstream,
            limits: CallLimits {
                head_timeout: entry.head_timeout.unwrap_or(limits.head_timeout),
                body_idle: entry.body_idle.unwrap_or(limits.body_idle),
                call_timeout: entry.call_timeout.unwrap_or(limits.call_timeout),
                stream_idle: entry.body_idle.unwrap_or(limits.stream_idle),
                body_bytes_max: entry.body_bytes_max.unwrap_or(limits.body_bytes_max),
            },
            access: entry.access,
            prefix: entry.prefix.clone(),
            client_abort: entry.client_abort,
            is_of_billing: entry.path.as_str().split('/').nth(1) == Some("billing"),
            _mark: Arc::clone(mark),
        }
    }

    /// Returns the server whose answers come back, in the words of errors.
    pub(crate) fn whom(&self) -> Destination {
        self.upstream.whom()
    }

    /// The way of a call whose path has so many bytes beyond the entry's own.
    ///
    /// # Errors
    /// The rewritten path would be read in two ways.
    pub(super) fn toward(self: &Arc<Self>, path: &NormalPath, rest_bytes: usize) -> Result<Heading, GatewayError> {
        let way = Arc::clone(self);
        let Some(prefix) = &self.prefix else { return Ok(Heading { way, target: None, units: None }) };
        let split = path.as_str().len().saturating_sub(rest_bytes);
        let (cut, rest) = path.as_str().split_at_checked(split).unwrap_or(("", path.as_str()));
        let text = match (prefix.as_str(), rest) {
            ("", "") => "/".to_owned(),
            (prefix, rest) => format!("{prefix}{rest}"),
        };
        let rewritten = NormalPath::normalise(&text)?;
        if rewritten.as_str() != text {
            return Err(GatewayError::Rewritten);
        }
        // A normalised path is visible ASCII.
        let cut = HeaderValue::from_str(cut).unwrap_or(HeaderValue::from_static("/"));
        Ok(Heading { way, target: Some(Box::new(Target { path: rewritten, cut })), units: None })
    }
}
