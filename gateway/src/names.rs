//! The header names the gateway speaks, as constants.

use http::HeaderName;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {$(
        $(#[$doc])*
        pub(crate) const $name: HeaderName = HeaderName::from_static($text);
    )*};
}

names! {
    /// The request's id, on every request to the upstream and on every response.
    REQUEST_ID = "x-request-id";
    /// The event a billable response is metered as.
    USAGE_EVENT_ID = "x-usage-event-id";
    /// The reason an answer has no event; in development only.
    USAGE_SKIPPED = "x-usage-skipped";
    /// The header in which the upstream says what a call was worth.
    USAGE_UNITS = "x-usage-units";
    /// The header in which the upstream says what was done.
    USAGE_ACTION = "x-usage-action";
    USER_ID = "x-user-id";
    TENANT_ID = "x-tenant-id";
    ORGANIZATION_ID = "x-organization-id";
    FORWARDED_FOR = "x-forwarded-for";
    FORWARDED_HOST = "x-forwarded-host";
    FORWARDED_PREFIX = "x-forwarded-prefix";
    FORWARDED_PROTO = "x-forwarded-proto";
    TRACEPARENT = "traceparent";
    TRACESTATE = "tracestate";
}
