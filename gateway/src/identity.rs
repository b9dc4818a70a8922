//! The headers that say who a request comes from: the gateway sets them, and what the client says is removed here.

use http::{HeaderMap, HeaderName};

/// Names (with `-` for whatever is no letter and no digit) that upstreams may take for the gateway's word, or that change the path behind its back.
const STRIPPED: [&str; 16] = [
    "forwarded",
    "remote-user",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-real-ip",
    "x-remote-user",
    "x-admin",
    "x-is-admin",
    "x-email",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
];

/// Beginnings of such names.
const STRIPPED_PREFIXES: [&str; 11] = [
    "x-forwarded",
    "x-user",
    "x-tenant",
    "x-organization",
    "x-org-",
    "x-role",
    "x-request-id",
    "x-usage-",
    "x-authenticated",
    "x-auth-user",
    "x-auth-request-",
];

/// Names that begin like an identity and are none, or that the gateway replaces anyway.
const KEPT: [&str; 2] = ["x-user-agent", "x-request-id"];

/// Takes out what a client says about itself, in every spelling; returns how many fields it took.
pub(crate) fn strip(headers: &mut HeaderMap) -> usize {
    let said: Vec<HeaderName> = headers.keys().filter(|name| is_stripped(name.as_str())).cloned().collect();
    for name in &said {
        headers.remove(name);
    }
    said.len()
}

fn is_stripped(name: &str) -> bool {
    // Most names are told apart by their first letter.
    if !matches!(name.as_bytes().first(), Some(b'x' | b'f' | b'r' | b't' | b'c')) {
        return false;
    }
    if KEPT.contains(&name) {
        return false;
    }
    STRIPPED_PREFIXES.iter().any(|prefix| starts_with(name, prefix))
        || STRIPPED.iter().any(|full| name.len() == full.len() && starts_with(name, full))
}

/// Servers that turn header names into variables write `_` for whatever is no letter and no digit: they can't tell `.`
/// or `~` from `-`.
fn starts_with(name: &str, prefix: &str) -> bool {
    let (name, prefix) = (name.as_bytes(), prefix.as_bytes());
    let alike = |own: u8, wanted: u8| own == wanted || (wanted == b'-' && !own.is_ascii_alphanumeric());
    name.len() >= prefix.len() && name.iter().zip(prefix).all(|(own, wanted)| alike(*own, *wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_identity_goes() {
        for name in [
            "X-User-ID",
            "x_user_id",
            "X-Tenant_ID",
            "x-organization-id",
            "X-Org-Id",
            "x-user-roles",
            "X-Roles",
            "x_is_admin",
            "X-Auth-Request-Email",
            "Forwarded",
            "X-Forwarded-For",
            "x_forwarded_proto",
            "X-Real-IP",
            "x-rewrite-url",
            "X_Request_Id",
            "x-usage-units",
            "remote_user",
            "X.User.ID",
            "X~Forwarded~For",
            "x+tenant|id",
            "X.Request.Id",
            "x!usage'units",
            "Remote.User",
        ] {
            assert!(is_stripped(&name.to_lowercase()), "{name}");
        }
    }

    #[test]
    fn everything_else_stays() {
        for name in ["host", "accept", "cookie", "content-type", "x-api-key", "x-custom", "cache-control", "te", "x"] {
            assert!(!is_stripped(name), "{name}");
        }
    }
}
