//! Shares the process's file descriptors out, so that nobody can take them all.

use crate::limits::GatewayLimits;

/// For spool, logs, operations, NATS or the database, and for accepting; of few descriptors an eighth.
const RESERVED: usize = 256;
/// Without a limit: more than any process has.
const UNLIMITED: usize = 1 << 20;

/// The shares of clients and upstreams, and what one caller may take of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Connections of clients at once.
    pub(crate) clients: usize,
    /// Connections to upstreams at once.
    pub(crate) upstreams: usize,
    /// Open calls of one tenant, or of one address without a tenant: each may hold a connection to the upstream, and others
    /// are to have some too.
    pub(crate) calls_per_caller: usize,
}

/// More connections were asked for than there are descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "UPSTREAM_CONNECTIONS_MAX={upstreams} and {reserved} descriptors for the gateway itself leave none for clients: the \
     limit of open files is {limit}"
)]
pub struct TooFewDescriptors {
    upstreams: usize,
    reserved: usize,
    limit: usize,
}

impl Shares {
    /// Divides `limit` descriptors.
    pub(crate) fn of(limit: Option<u64>, limits: &GatewayLimits) -> Result<Self, TooFewDescriptors> {
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(UNLIMITED).min(UNLIMITED);
        let reserved = RESERVED.min(limit / 8);
        let upstreams = limits.upstream_connections_max.unwrap_or(limit / 2);
        let left = limit.saturating_sub(reserved).saturating_sub(upstreams);
        if left == 0 {
            return Err(TooFewDescriptors { upstreams, reserved, limit });
        }
        let clients = limits.connections_max.min(left);
        if clients < limits.connections_max {
            tracing::warn!(
                limit,
                upstreams,
                reserved,
                clients,
                wanted = limits.connections_max,
                "too few file descriptors for CONNECTIONS_MAX; fewer clients are served at once"
            );
        }
        Ok(Self { clients, upstreams, calls_per_caller: limits.calls_per_tenant_max.min((upstreams / 2).max(1)) })
    }
}

#[cfg(test)]
mod tests {
    use goldleaves_runtime::settings::Values;

    use super::*;

    fn shares(limit: Option<u64>, settings: &[(&str, &str)]) -> Result<Shares, TooFewDescriptors> {
        let mut values = Values::load(settings.iter().copied(), None);
        Shares::of(limit, &GatewayLimits::read(&mut values).unwrap())
    }

    #[test]
    fn together_they_are_fewer_than_there_are() {
        let divided = |clients, upstreams, calls_per_caller| Ok(Shares { clients, upstreams, calls_per_caller });
        assert_eq!(shares(None, &[]), divided(10_000, UNLIMITED / 2, 4_000));
        assert_eq!(shares(Some(524_288), &[]), divided(10_000, 262_144, 4_000));
        assert_eq!(shares(Some(4_096), &[]), divided(1_792, 2_048, 1_024));
        assert_eq!(shares(Some(256), &[]), divided(96, 128, 64));
        let set = [("UPSTREAM_CONNECTIONS_MAX", "100"), ("CONNECTIONS_MAX", "500")];
        assert_eq!(shares(Some(4_096), &set), divided(500, 100, 50));
        assert_eq!(shares(Some(4_096), &[("UPSTREAM_CONNECTIONS_MAX", "1")]), divided(3_839, 1, 1));
    }

    #[test]
    fn what_leaves_nothing_for_clients_is_named() {
        let error = shares(Some(1_024), &[("UPSTREAM_CONNECTIONS_MAX", "1000")]).unwrap_err().to_string();
        assert!(error.contains("UPSTREAM_CONNECTIONS_MAX=1000") && error.contains("1024"), "{error}");
    }
}
