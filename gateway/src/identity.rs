//! The headers that say who a request comes from: the gateway sets them, and what the client says is removed here.

use http::{HeaderMap, HeaderName};

/// Names (with `-` for whatever is no letter and no digit; `*` for any end) that upstreams may take for the gateway's word on who
/// calls, for whom and from where, or that change method or path behind its back: what proxies, identity-aware balancers and ingress
/// controllers are known to say. By their first letter. `docs/DEPLOYMENT.md` lists every one of them; a test compares.
const fn stripped(first: u8) -> &'static [&'static str] {
    match first {
        b'a' => &["ali-cdn-real-ip"],
        b'c' => &["cdn-src-ip", "cf-access-*", "cf-connecting-ip*", "cf-pseudo-ipv4", "client-cert*", "client-ip"],
        b'd' => &["do-connecting-ip"],
        b'f' => &["fastly-client-ip", "fly-client-ip", "forwarded", "forwarded-for", "front-end-https"],
        b'i' => &["incap-client-ip", "iv-groups", "iv-user"],
        b'o' => &["org-id", "organization-*"],
        b'p' => &["proxy-client-ip"],
        b'r' => &["remote-*"],
        b's' => &["sm-user", "ssl-client-*"],
        b't' => &["tenant", "tenant-*", "thanos-tenant", "true-client-ip"],
        b'u' => &["user-email", "user-groups", "user-id", "user-name", "user-role*"],
        b'w' => &["wl-proxy-*"],
        _ => &[],
    }
}

/// The same behind `x-`, by the letter that comes then.
const fn stripped_behind_x(first: u8) -> &'static [&'static str] {
    match first {
        b'a' => &[
            "x-account-id",
            "x-admin",
            "x-amzn-mtls-*",
            "x-amzn-oidc-*",
            "x-anonymous-consumer",
            "x-appengine-*",
            "x-arr-*",
            "x-auth-couchdb-*",
            "x-auth-request-*",
            "x-auth-user*",
            "x-authenticated*",
            "x-azure-clientip",
            "x-azure-socketip",
        ],
        b'b' => &["x-backend-host"],
        b'c' => &[
            "x-client-cert*",
            "x-client-dn",
            "x-client-ip",
            "x-client-verify",
            "x-cluster-client-ip",
            "x-connecting-ip",
            "x-consumer-*",
            "x-credential-*",
            "x-customer-id",
        ],
        b'e' => &["x-email", "x-envoy-*"],
        b'f' => &["x-forwarded*"],
        b'g' => &["x-goldleaves-*", "x-goog-authenticated-user*", "x-goog-iap-*", "x-group", "x-groups"],
        b'h' => &["x-host", "x-http-host-override", "x-http-method", "x-http-method-override"],
        b'i' => &["x-identity*", "x-is-admin"],
        b'j' => &["x-jwt-assertion", "x-jwt-claim*"],
        b'm' => &["x-method-override", "x-ms-client-principal*", "x-ms-token-*"],
        b'o' => &[
            "x-org-*",
            "x-organization*",
            "x-orgid",
            "x-original-for",
            "x-original-forwarded*",
            "x-original-host",
            "x-original-method",
            "x-original-path",
            "x-original-prefix",
            "x-original-proto",
            "x-original-remote-*",
            "x-original-uri",
            "x-original-url",
            "x-original-user",
            "x-originating-ip",
        ],
        b'p' => &["x-pomerium-*", "x-principal*", "x-project-id", "x-proxyuser-ip"],
        b'r' => &["x-real-ip", "x-remote-*", "x-request-id*", "x-rewrite-url", "x-role*"],
        b's' => &["x-scheme", "x-scope-*", "x-source-ip", "x-ssl-*", "x-sso-*", "x-sub", "x-subject"],
        b't' => &["x-tenant*", "x-tls-client*", "x-true-client-ip"],
        b'u' => &["x-url-scheme", "x-usage-*", "x-user*"],
        b'v' => &["x-vouch-*"],
        b'w' => &["x-webauth-*"],
        _ => &[],
    }
}

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
    // Most names are told apart by a letter or two.
    let names = match *name.as_bytes() {
        [b'x', between, first, ..] if !between.is_ascii_alphanumeric() => stripped_behind_x(first),
        [first, ..] => stripped(first),
        [] => return false,
    };
    names.iter().any(|wanted| is_like(name, wanted)) && !KEPT.contains(&name)
}

/// Servers that turn header names into variables write `_` for whatever is no letter and no digit: they can't tell `.`
/// or `~` from `-`.
fn is_like(name: &str, wanted: &str) -> bool {
    let (start, goes_on) = wanted.strip_suffix('*').map_or((wanted, false), |start| (start, true));
    let alike = |own: u8, wanted: u8| own == wanted || (wanted == b'-' && !own.is_ascii_alphanumeric());
    let fits = if goes_on { name.len() >= start.len() } else { name.len() == start.len() };
    fits && name.bytes().zip(start.bytes()).all(|(own, wanted)| alike(own, wanted))
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
            "X-Original-Forwarded-For",
            "X-Original-Host",
            "x_original_remote_addr",
            "X-Consumer-ID",
            "X-Consumer-Username",
            "X-Credential-Identifier",
            "X-Scope-OrgID",
            "Tenant-ID",
            "tenant",
            "Organization_Id",
            "Org.Id",
            "User-ID",
            "Remote-Groups",
            "Thanos-Tenant",
            "X-Remote-Addr",
            "X-Envoy-External-Address",
            "CF-Connecting-IPv6",
            "Cf-Access-Authenticated-User-Email",
            "Client-Cert-Chain",
            "X-Ms-Client-Principal-Id",
            "X-Goog-Authenticated-User-Email",
            "X-Amzn-Oidc-Identity",
            "X-WebAuth-User",
            "X-OrgId",
            "X-Account-ID",
            "X-Customer-ID",
            "X-Sub",
            "X-Subject",
            "X-Original-User",
            "Forwarded-For",
            "X-Goldleaves-Tenant",
            "X-Project-ID",
            "X-HTTP-Method-Override",
            "X_HTTP_Method",
            "X-Method-Override",
        ] {
            assert!(is_stripped(&name.to_lowercase()), "{name}");
        }
    }

    #[test]
    fn everything_else_stays() {
        for name in [
            "host",
            "accept",
            "authorization",
            "cookie",
            "content-type",
            "client",
            "from",
            "if-match",
            "origin",
            "priority",
            "referer",
            "sec-fetch-user",
            "te",
            "traceparent",
            "user-agent",
            "x-user-agent",
            "x-request-id",
            "x-api-key",
            "x-auth-token",
            "x-custom",
            "x-original-name",
            "x-requested-with",
            "cache-control",
            "x",
            "x-",
            "xuser-id",
        ] {
            assert!(!is_stripped(name), "{name}");
        }
    }

    #[test]
    fn what_is_dropped_is_listed_in_the_guide() {
        const GUIDE: &str = include_str!("../../docs/DEPLOYMENT.md");
        let begin = "Dropped on the way in, in every spelling:";
        let listed = GUIDE.split("\n\n").find_map(|text| text.strip_prefix(begin)).unwrap();
        let mut listed: Vec<&str> = listed.split('`').skip(1).step_by(2).collect();
        let letters = b'a'..=b'z';
        let known = letters.clone().map(stripped).chain(letters.map(stripped_behind_x));
        let mut known: Vec<&str> = known.flatten().copied().collect();
        listed.sort_unstable();
        known.sort_unstable();
        assert_eq!(listed, known);
    }
}
