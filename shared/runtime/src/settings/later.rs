//! Settings that have a name and do nothing in this version. Whoever gives one relies on what it says, so that it is a
//! mistake like a wrong value: nothing here reads one.

use super::mistakes::Mistake;

/// The variables and their keys.
const LATER: &[(&str, &str)] = &[
    ("RATE_LIMITS", "rate_limits"),
    ("JWT_ISSUERS", "jwt.issuers"),
    ("JWT_SECRET_PREVIOUS", "jwt.secret_previous"),
    ("JWT_SECRET_PREVIOUS_FILE", "jwt.secret_previous_file"),
    ("JWT_KEYS_URL", "jwt.keys_url"),
    ("JWT_KEYS_FILE", "jwt.keys_file"),
    ("JWT_KEYS_CA_FILE", "jwt.keys_ca_file"),
    ("JWT_KEYS_REFRESH_SECS", "jwt.keys_refresh_secs"),
    ("JWT_KEYS_STALE_MAX_SECS", "jwt.keys_stale_max_secs"),
    ("JWT_LEEWAY_SECS", "jwt.leeway_secs"),
    ("JWT_CLAIM_USER", "jwt.claim_user"),
    ("JWT_CLAIM_TENANT", "jwt.claim_tenant"),
    ("JWT_CLAIM_ORGS", "jwt.claim_orgs"),
    ("JWT_CLAIM_ROLES", "jwt.claim_roles"),
    ("JWT_CLAIM_PLAN", "jwt.claim_plan"),
    ("JWT_ROLE_PREFIX", "jwt.role_prefix"),
    ("API_KEYS", "api_keys.enabled"),
    ("API_KEYS_STALE_MAX_SECS", "api_keys.stale_max_secs"),
    ("TLS_CERTIFICATES", "tls.certificates"),
    ("TLS_CERT_FILE", "tls.cert_file"),
    ("TLS_KEY_FILE", "tls.key_file"),
    ("TLS_VERSION_MIN", "tls.version_min"),
    ("TLS_CLIENT_CA_FILE", "tls.client_ca_file"),
    ("TLS_CLIENT_AUTH", "tls.client_auth"),
    ("TLS_REDIRECT_ADDR", "tls.redirect_addr"),
    ("TLS_REDIRECT_PORT", "tls.redirect_port"),
    ("TLS_HSTS_SECS", "tls.hsts_secs"),
    ("TRUSTED_PROXIES", "gateway.trusted_proxies"),
    ("PROXY_PROTOCOL", "gateway.proxy_protocol"),
    ("FORWARDED_HEADER", "gateway.forwarded_header"),
    ("CONNECTIONS_PER_IP_MAX", "limits.connections_per_ip_max"),
    ("CLIENT_RATE_MIN_BYTES_PER_SEC", "limits.client_rate_min_bytes_per_sec"),
    ("CONNECTION_AGE_MAX_SECS", "limits.connection_age_max_secs"),
    ("RATE_LIMIT_HEADERS", "limits.rate_limit_headers"),
    ("ACCESS_LOG", "access_log.path"),
    ("ACCESS_LOG_SAMPLE", "access_log.sample"),
    ("ACCESS_LOG_QUERY", "access_log.query"),
    ("SPEND_LIMITS", "spend.limits"),
    ("ALERT_WEBHOOK_URL", "alert.webhook_url"),
    ("ALERT_WEBHOOK_SECRET", "alert.webhook_secret"),
    ("ALERT_WEBHOOK_SECRET_FILE", "alert.webhook_secret_file"),
];

/// Returns whether a variable is one of them.
pub(super) fn is_variable(name: &str) -> bool {
    LATER.iter().any(|(known, _)| *known == name)
}

/// The mistake of a variable that is one of them.
pub(super) fn given(name: &str) -> Mistake {
    let text = "is a setting that this version does not have; expected it to be unset".to_owned();
    Mistake { subject: name.to_owned(), text }
}

/// Returns whether a key of the file is one of them, or a table of nothing else.
pub(super) fn is_key(key: &str) -> bool {
    let within = |outer: &str, inner: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
    LATER.iter().any(|(_, known)| *known == key || within(key, known) || within(known, key))
}

#[cfg(test)]
mod tests {
    use super::super::table;
    use super::*;

    #[test]
    fn none_of_them_is_a_setting() {
        const SETTINGS: &str = include_str!("../../../../docs/SETTINGS.md");
        for (name, key) in LATER {
            let files = || table::ALL.iter().filter_map(table::Setting::file);
            assert!(!table::ALL.iter().any(|known| known.name == *name || known.key == *key), "{name}");
            assert!(!files().any(|known| known.0 == *name || known.1 == *key), "{name}");
            assert!(SETTINGS.contains(&format!("`{name}`")), "{name}");
        }
    }
}
