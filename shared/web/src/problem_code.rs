//! The `code` of a problem document: one fixed word for each way a request can fail, for programs to decide by.
//!
//! Words stay as they are once they were released. `docs/ERRORS.md` lists every one of them; a test compares.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
        /// The reason a request failed, as one word. A program decides by it; the `detail` beside it is for people.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProblemCode {
            $($(#[$doc])* $name,)*
        }

        impl ProblemCode {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

codes! {
    /// 401: no `Authorization` header.
    TokenMissing = "token_missing";
    /// 401: the token's `exp` has passed.
    TokenExpired = "token_expired";
    /// 401: any other fault of the token or of its header.
    TokenInvalid = "token_invalid";
    /// 403: a billable route and a token that names no tenant.
    TenantMissing = "tenant_missing";
    /// 403: the token names several tenants and the request chose none; 400: its headers choose twice.
    TenantAmbiguous = "tenant_ambiguous";
    /// 403: a tenant that the token gives no access to.
    TenantForbidden = "tenant_forbidden";
    /// 403: the caller lacks a role.
    RoleMissing = "role_missing";
    /// 429: more requests than the limit allows.
    RateLimited = "rate_limited";
    /// 429: as many calls of the tenant are open as it may have.
    ConcurrencyLimited = "concurrency_limited";
    /// 503: the gateway serves as many requests as it can.
    Overloaded = "overloaded";
    /// 400: a path that two servers may read differently, or none at all.
    PathInvalid = "path_invalid";
    /// 400: not exactly one well-formed `Host`.
    HostInvalid = "host_invalid";
    /// 501: `CONNECT`, or a method too long to be one.
    MethodUnknown = "method_unknown";
    /// 405.
    MethodNotAllowed = "method_not_allowed";
    /// 404.
    NotFound = "not_found";
    /// 501: a transfer coding other than chunked.
    TransferCodingUnknown = "transfer_coding_unknown";
    /// 400: a header field that the version of HTTP does not allow.
    HeaderInvalid = "header_invalid";
    /// 431: the head has too many bytes.
    HeaderTooLarge = "header_too_large";
    /// 431: the head has too many fields.
    HeaderFieldsTooMany = "header_fields_too_many";
    /// 417: an expectation other than `100-continue`.
    ExpectationFailed = "expectation_failed";
    /// 400: `Upgrade` to HTTP/2 over cleartext.
    UpgradeRefused = "upgrade_refused";
    /// 508: the request came back to the gateway that had sent it.
    LoopDetected = "loop_detected";
    /// 413.
    BodyTooLarge = "body_too_large";
    /// 400: the body broke off or is no body.
    BodyInvalid = "body_invalid";
    /// 408: nothing came of the body for too long.
    BodyTimeout = "body_timeout";
    /// 400: a parameter that cannot be read, or that nobody knows.
    ParameterInvalid = "parameter_invalid";
    /// 415 and the like: the body is not of the wanted kind.
    MediaTypeUnsupported = "media_type_unsupported";
    /// 503: the call cannot be recorded, and must be.
    CallUnrecorded = "call_unrecorded";
    /// 502: no connection to the upstream.
    UpstreamUnreachable = "upstream_unreachable";
    /// 504: the upstream took no connection, or gave no answer, in time.
    UpstreamTimeout = "upstream_timeout";
    /// 502: the upstream broke off before its answer.
    UpstreamFailed = "upstream_failed";
    /// 502: an answer that cannot be passed on.
    UpstreamAnswerInvalid = "upstream_answer_invalid";
    /// 503: the gateway has as many connections to upstreams as it may have.
    UpstreamBusy = "upstream_busy";
    /// None of an upstream's addresses can be reached, or none is known.
    NoUpstream = "no_upstream";
    /// No route leads there, and there is no default upstream.
    NoRoute = "no_route";
    /// 502: no connection to billing-api.
    BillingUnreachable = "billing_unreachable";
    /// 504: billing-api took no connection, or gave no answer, in time.
    BillingTimeout = "billing_timeout";
    /// 502: billing-api broke off before its answer.
    BillingFailed = "billing_failed";
    /// 502: an answer of billing-api that cannot be passed on.
    BillingAnswerInvalid = "billing_answer_invalid";
    /// 406: the answer can't be had in the wanted form.
    NotAcceptable = "not_acceptable";
    /// 409: the id stands for something else, or the period is closed with other ends.
    AlreadyExists = "already_exists";
    /// 409: there is usage that was priced without the card.
    UsageExists = "usage_exists";
    /// 404: no event of this tenant has this id.
    NoSuchEvent = "no_such_event";
    /// 409: the event was set aside, so there is nothing to correct.
    NotBilled = "not_billed";
    /// 409: the event is void.
    AlreadyVoid = "already_void";
    /// 409: the period has not been over for an hour.
    TooEarly = "too_early";
    /// 409: periods are closed one after the other.
    OutOfOrder = "out_of_order";
    /// 409 or 410: the event lies in an archive.
    Archived = "archived";
    /// 422: the meter at Stripe can't take what would be pushed.
    MeterUnfit = "meter_unfit";
    /// 503: Stripe does not answer, or refuses.
    StripeUnavailable = "stripe_unavailable";
    /// 400: a webhook without a right signature of now.
    SignatureInvalid = "signature_invalid";
    /// 400: more groups than an answer holds.
    TooManyGroups = "too_many_groups";
    /// 400: more rows than an answer holds.
    TooManyRows = "too_many_rows";
    /// 500: usage was priced by a card that the ledger does not have.
    RateCardMissing = "rate_card_missing";
    /// 503: the database took too long.
    TooSlow = "too_slow";
    /// 503: the database is away.
    DatabaseUnavailable = "database_unavailable";
    /// 500: a fault of the program.
    InternalError = "internal_error";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DOCUMENT: &str = include_str!("../../../docs/ERRORS.md");

    #[test]
    fn each_word_is_used_once_and_listed_in_the_documentation() {
        let words: BTreeSet<&str> = ProblemCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), ProblemCode::ALL.len());
        let listed: BTreeSet<&str> =
            DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        assert_eq!(listed, words, "docs/ERRORS.md and the codes differ");
    }
}
