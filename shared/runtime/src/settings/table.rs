//! The one table of all settings: variable, key in `goldleaves.toml`, and what would be right.

/// The care that a value needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKind {
    /// May be printed.
    Plain,
    /// May hold a password: never printed, also not in errors.
    Secret,
}

/// One setting: its name in the environment and its place in `goldleaves.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The variable in the environment.
    pub name: &'static str,
    /// The dotted key in `goldleaves.toml`.
    pub key: &'static str,
    /// Says whether its value may be printed.
    pub kind: SettingKind,
    /// The right form of a value, to follow "expected".
    pub expects: &'static str,
    /// The variable and the key that name a file with the value instead; only a secret has them.
    file: (&'static str, &'static str),
}

impl Setting {
    /// The variable and the key that name a file with the value instead, `X_FILE` for the secret `X`.
    pub const fn file(&self) -> Option<(&'static str, &'static str)> {
        match self.kind {
            SettingKind::Secret => Some(self.file),
            SettingKind::Plain => None,
        }
    }
}

macro_rules! settings {
    ($($name:ident = $key:literal, $kind:ident, $expects:literal;)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "`, in the file `", $key, "`: ", $expects, ".")]
            pub const $name: Setting = Setting {
                name: stringify!($name),
                key: $key,
                kind: SettingKind::$kind,
                expects: $expects,
                file: (concat!(stringify!($name), "_FILE"), concat!($key, "_file")),
            };
        )*

        /// Every setting there is.
        pub const ALL: &[Setting] = &[$($name),*];
    };
}

settings! {
    ENVIRONMENT = "environment", Plain, "development, local, test, testing, ci, staging or production";
    DEBUG = "debug", Plain, "true or false";
    ENABLE_DOCS = "enable_docs", Plain, "true or false";
    DATA_DIR = "data_dir", Plain, "a directory";
    ALLOWED_ORIGINS = "allowed_origins", Plain, "origins such as https://app.example.com, separated by commas, or *";
    CORS_EXPOSE_HEADERS = "cors_expose_headers", Plain, "header names such as X-Total-Count, separated by commas";
    DATABASE_URL = "database.url", Secret, "postgresql://user:password@host:port/database or sqlite://path";
    JWT_SECRET = "jwt.secret", Secret, "a random text of at least 32 bytes, the same for every program";
    JWT_ALGORITHM = "jwt.algorithm", Plain, "HS256, HS384 or HS512";
    JWT_EXPIRATION_MINUTES = "jwt.expiration_minutes", Plain, "a whole number of minutes from 1 to 5256000";
    JWT_ISSUER = "jwt.issuer", Plain, "the text that `iss` must equal";
    JWT_AUDIENCE = "jwt.audience", Plain, "the text that `aud` must hold";
    USAGE_RATE_CENTS = "usage.rate_cents", Plain, "cents a unit: 0 to 1000000 with at most 6 places";
    BILLABLE_ROUTES = "billable.routes", Plain, "path prefixes such as /api/v1/documents, separated by commas";
    PUBLIC_ROUTES = "public.routes", Plain, "path prefixes such as /static, separated by commas";
    BILLABLE_STATUSES = "billable.statuses", Plain, "classes such as 2xx or codes such as 200, separated by commas";
    LOG_LEVEL = "log.level", Plain, "trace, debug, info, warn, error or off";
    LOG_FORMAT = "log.format", Plain, "text or json";
    UPSTREAM_URL = "upstream.url", Secret, "http://host:port or https://host:port of the service behind the gateway";
    CONFIG_WATCH_SECS = "config.watch_secs", Plain, "seconds, from 0 to 86400";
    UPSTREAMS = "upstreams", Plain, "a list of tables such as {name = \"docs\", addresses = [\"http://docs:9000\"]}";
    ROUTES = "routes", Plain, "a list of tables such as {path = \"/api/v1/documents\", upstream = \"docs\"}";
    NATS_URL = "nats.url", Secret, "nats://host:port, several separated by commas";
    NATS_CREDENTIALS_FILE = "nats.credentials_file", Plain, "the path of a .creds file";
    NATS_CA_FILE = "nats.ca_file", Plain, "the path of a PEM file";
    GATEWAY_ADDR = "gateway.addr", Plain, "an address and port such as 127.0.0.1:8080";
    BILLING_ADDR = "billing.addr", Plain, "an address and port such as 127.0.0.1:8081";
    BILLING_TIME_ZONE = "billing.time_zone", Plain, "a time zone of the IANA database such as UTC or Europe/Berlin";
    PERIOD_CLOSE_AFTER_HOURS = "billing.period_close_after_hours", Plain, "a whole number of hours from 1 to 8760";
    BILLING_URL = "billing.url", Secret, "http://host:port or https://host:port of billing-api";
    BILLING_CA_FILE = "billing.ca_file", Plain, "the path of a PEM file";
    OPS_ADDR = "ops.addr", Plain, "an address and port such as 127.0.0.1:9090";
    METER_DURABILITY = "meter.durability", Plain, "available or strict";
    EVENT_CLIENT_INFO = "event.client_info", Plain, "true or false";
    SPOOL_BYTES_MAX = "spool.bytes_max", Plain, "bytes such as 8589934592 or 8GiB";
    SPOOL_RETAIN_HOURS = "spool.retain_hours", Plain, "a number of hours from 0 to 8760";
    SPOOL_STAGE_DIR = "spool.stage_dir", Plain, "a folder on a tmpfs that outlives the program, such as /dev/shm";
    STREAM_REPLICAS = "stream.replicas", Plain, "1, 3 or 5";
    STREAM_BYTES_MAX = "stream.bytes_max", Plain, "bytes such as 68719476736 or 64GiB";
    STREAM_HISTORY_DAYS = "stream.history_days", Plain, "a whole number of days from 1 to 3650";
    RATE_LIMIT_PER_SECOND = "limits.rate_per_second", Plain, "calls a tenant may make in a second, from 1 to 1000000";
    CALLS_PER_TENANT_MAX = "limits.calls_per_tenant_max", Plain, "a whole number from 1 to 1000000";
    REQUEST_BODY_BYTES_MAX = "limits.request_body_bytes_max", Plain, "bytes such as 1073741824 or 1GiB";
    HEADER_BYTES_MAX = "limits.header_bytes_max", Plain, "bytes from 8KiB to 1MiB";
    HEADER_FIELDS_MAX = "limits.header_fields_max", Plain, "a whole number from 1 to 4096";
    CONNECTIONS_MAX = "limits.connections_max", Plain, "a whole number from 1 to 1000000";
    UPSTREAM_CONNECTIONS_MAX = "limits.upstream_connections_max", Plain, "a whole number from 1 to 1000000";
    FIRST_BYTE_TIMEOUT_SECS = "limits.first_byte_timeout_secs", Plain, "seconds, more than 0 and at most 86400";
    HEADERS_TIMEOUT_SECS = "limits.headers_timeout_secs", Plain, "seconds, more than 0 and at most 86400";
    BODY_IDLE_TIMEOUT_SECS = "limits.body_idle_timeout_secs", Plain, "seconds, more than 0 and at most 86400";
    UPSTREAM_CONNECT_TIMEOUT_SECS = "limits.upstream_connect_timeout_secs", Plain, "seconds, more than 0 and at most 86400";
    UPSTREAM_HEAD_TIMEOUT_SECS = "limits.upstream_head_timeout_secs", Plain, "seconds, more than 0 and at most 86400";
    CALL_TIMEOUT_SECS = "limits.call_timeout_secs", Plain, "seconds, more than 0 and at most 86400";
    DRAIN_DELAY_SECS = "limits.drain_delay_secs", Plain, "seconds, from 0 to 86400";
    SHUTDOWN_GRACE_SECS = "limits.shutdown_grace_secs", Plain, "seconds, from 0 to 86400";
    WEBSOCKET_TOKEN = "gateway.websocket_token", Plain, "true or false";
    TUNNEL_IDLE_TIMEOUT_SECS = "limits.tunnel_idle_timeout_secs", Plain, "seconds, more than 0 and at most 86400";
    STRIPE_API_KEY = "stripe.api_key", Secret, "a secret or restricted key of Stripe such as rk_live_…";
    STRIPE_API_BASE = "stripe.api_base", Secret, "https://api.stripe.com, or an http:// URL of this machine";
    STRIPE_WEBHOOK_SECRET = "stripe.webhook_secret", Secret, "signing secrets such as whsec_…, separated by commas";
    STRIPE_CALLS_PER_SECOND = "stripe.calls_per_second", Plain, "a whole number from 1 to 1000";
    OTEL_EXPORTER_OTLP_ENDPOINT = "otel.exporter_otlp_endpoint", Secret, "http://host:4318 or https://host:4318 of a collector that takes OTLP over HTTP";
    OTEL_EXPORTER_OTLP_HEADERS = "otel.exporter_otlp_headers", Secret, "name=value, separated by commas, values percent-encoded";
    OTEL_EXPORTER_OTLP_PROTOCOL = "otel.exporter_otlp_protocol", Plain, "http/protobuf";
    OTEL_EXPORTER_OTLP_CERTIFICATE = "otel.exporter_otlp_certificate", Plain, "a file of certificates in PEM";
    OTEL_TRACES_SAMPLER = "otel.traces_sampler", Plain, "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or parentbased_traceidratio";
    OTEL_TRACES_SAMPLER_ARG = "otel.traces_sampler_arg", Plain, "a number from 0 to 1";
    OTEL_RESOURCE_ATTRIBUTES = "otel.resource_attributes", Plain, "name=value, separated by commas, values percent-encoded";
    OTEL_SERVICE_NAME = "otel.service_name", Plain, "what traces call the program";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_keys_are_each_used_once() {
        let files = || ALL.iter().filter_map(Setting::file);
        let names: BTreeSet<_> = ALL.iter().map(|setting| setting.name).chain(files().map(|(name, _)| name)).collect();
        let keys: BTreeSet<_> = ALL.iter().map(|setting| setting.key).chain(files().map(|(_, key)| key)).collect();
        let count = ALL.len() + files().count();
        assert_eq!(names.len(), count);
        assert_eq!(keys.len(), count);
    }
}
