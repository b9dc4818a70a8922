//! The limits a gateway holds its clients and its upstream to.

use std::time::Duration;

use goldleaves_runtime::settings::{Values, parse, table};

/// The number of fields over `HEADER_FIELDS_MAX` that a head may have and still be read, of requests and of answers:
/// hyper answers what it cannot read with a bare 431, the gateway's own says why.
pub(crate) const HEADER_FIELDS_NAMED: usize = 128;

/// Sizes, counts and time-outs of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayLimits {
    /// `REQUEST_BODY_BYTES_MAX`: 413 above.
    pub request_body_bytes_max: u64,
    /// `HEADER_BYTES_MAX`: the head of a request, 431 above.
    pub header_bytes_max: u32,
    /// `HEADER_FIELDS_MAX`: the fields of a head, of a request (431 above) and of an answer (502 above).
    pub header_fields_max: usize,
    /// `CONNECTIONS_MAX`: connections served at once.
    pub connections_max: usize,
    /// `UPSTREAM_CONNECTIONS_MAX`: connections to upstreams at once; `None` = half of the descriptors.
    pub upstream_connections_max: Option<usize>,
    /// `FIRST_BYTE_TIMEOUT_SECS`: from the accepted connection to the client's first bytes.
    pub first_byte_timeout: Duration,
    /// `HEADERS_TIMEOUT_SECS`: for a whole head; also the idle time between two requests.
    pub headers_timeout: Duration,
    /// `BODY_IDLE_TIMEOUT_SECS`: how long a body may stand still.
    pub body_idle_timeout: Duration,
    /// `TUNNEL_IDLE_TIMEOUT_SECS`: how long a tunnel, an event stream or a gRPC call may stand still.
    pub tunnel_idle_timeout: Duration,
    /// `UPSTREAM_CONNECT_TIMEOUT_SECS`.
    pub upstream_connect_timeout: Duration,
    /// `UPSTREAM_HEAD_TIMEOUT_SECS`: from the request to the head of its answer, 504 above.
    pub upstream_head_timeout: Duration,
    /// `CALL_TIMEOUT_SECS`: for a whole call.
    pub call_timeout: Duration,
    /// `RATE_LIMIT_PER_SECOND`: calls of a tenant; `None` = no limit.
    pub rate_per_second: Option<u32>,
    /// `CALLS_PER_TENANT_MAX`: calls of a tenant that are open at once, 429 above.
    pub calls_per_tenant_max: usize,
}

impl GatewayLimits {
    /// Reads them.
    pub fn read(values: &mut Values) -> Option<Self> {
        let request_body_bytes_max = values.required(table::REQUEST_BODY_BYTES_MAX, parse::byte_size);
        let header_bytes_max = values.required(table::HEADER_BYTES_MAX, parse::byte_size_in(8_192..=1_048_576));
        let header_fields_max = values.required(table::HEADER_FIELDS_MAX, parse::whole(1..=4_096));
        let connections_max = values.required(table::CONNECTIONS_MAX, parse::whole(1..=1_000_000));
        let upstream_connections_max = values.optional(table::UPSTREAM_CONNECTIONS_MAX, parse::whole(1..=1_000_000));
        let first_byte_timeout = values.required(table::FIRST_BYTE_TIMEOUT_SECS, parse::seconds);
        let headers_timeout = values.required(table::HEADERS_TIMEOUT_SECS, parse::seconds);
        let body_idle_timeout = values.required(table::BODY_IDLE_TIMEOUT_SECS, parse::seconds);
        let tunnel_idle_timeout = values.required(table::TUNNEL_IDLE_TIMEOUT_SECS, parse::seconds);
        let upstream_connect_timeout = values.required(table::UPSTREAM_CONNECT_TIMEOUT_SECS, parse::seconds);
        let upstream_head_timeout = values.required(table::UPSTREAM_HEAD_TIMEOUT_SECS, parse::seconds);
        let call_timeout = values.required(table::CALL_TIMEOUT_SECS, parse::seconds);
        let rate_per_second = values.optional(table::RATE_LIMIT_PER_SECOND, parse::whole(1..=1_000_000));
        let calls_per_tenant_max = values.required(table::CALLS_PER_TENANT_MAX, parse::whole(1..=1_000_000));
        Some(Self {
            request_body_bytes_max: request_body_bytes_max?,
            header_bytes_max: u32::try_from(header_bytes_max?).ok()?,
            header_fields_max: header_fields_max?,
            connections_max: connections_max?,
            upstream_connections_max: upstream_connections_max?,
            first_byte_timeout: first_byte_timeout?,
            headers_timeout: headers_timeout?,
            body_idle_timeout: body_idle_timeout?,
            tunnel_idle_timeout: tunnel_idle_timeout?,
            upstream_connect_timeout: upstream_connect_timeout?,
            upstream_head_timeout: upstream_head_timeout?,
            call_timeout: call_timeout?,
            rate_per_second: rate_per_second?,
            calls_per_tenant_max: calls_per_tenant_max?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: Option<&str>) -> GatewayLimits {
        GatewayLimits::read(&mut Values::load([] as [(&str, &str); 0], file)).unwrap()
    }

    #[test]
    fn the_defaults_are_those_that_are_promised() {
        let limits = read(None);
        assert_eq!((limits.request_body_bytes_max, limits.header_bytes_max), (1 << 30, 32 << 10));
        assert_eq!(limits.rate_per_second, None);
        assert_eq!(read(Some("[limits]\nrate_per_second = 100\n")).rate_per_second, Some(100));
    }
}
