//! A tenant's events.

use goldleaves_web::ProblemCode as Code;

use super::corrections::CORRECTION;
use super::{Answers, Content, FORMAT, Kind, Member, OWN, Operation, PAGE, Parameter, RANGE, Shape, TENANT_ID, member};

/// An event, and what became of it.
pub(crate) const EVENT: Shape<16> = Shape {
    name: "UsageEvent",
    members: [
        member("event_id", Kind::Text).about("The event's id; of what could not be read, a hash"),
        member("request_id", Kind::Text).or_null().about("The row's label"),
        member("client_request_id", Kind::Text).or_null().about("The id that the client chose"),
        member("ts", Kind::Time),
        member("user_id", Kind::Text).or_null(),
        member("route", Kind::Text).or_null(),
        member("action", Kind::Text).or_null(),
        member("units", Kind::Decimal).about("Units, an exact decimal"),
        member("outcome", Kind::Text).or_null(),
        member("state", Kind::Words(&["billed", "void", "repeat", "set_aside"])),
        member("duplicate_of", Kind::Uuid).or_null().about("The billed event that it repeats"),
        member("set_aside_reason", Kind::Text).or_null(),
        member("rate_version", Kind::Integer).or_null(),
        member("cost_cents", Kind::Integer).or_null().about("What it would cost alone"),
        member("metadata", Kind::Json).or_null().about("The call's circumstances"),
        member("recorded_at", Kind::Time).or_null(),
    ],
};

/// The card that prices an event.
pub(crate) const EVENT_RATE: Shape<2> =
    Shape { name: "EventRate", members: [member("pricing", Kind::Json), member("effective_from", Kind::Time)] };

/// The period that an event lies in.
pub(crate) const EVENT_PERIOD: Shape<3> = Shape {
    name: "EventPeriod",
    members: [
        member("number", Kind::Integer),
        member("state", Kind::Words(&["open", "closed"])),
        member("closed_at", Kind::Time).or_null(),
    ],
};

/// The state of an event's hour at Stripe.
pub(crate) const EVENT_STRIPE: Shape<6> = Shape {
    name: "EventStripe",
    members: [
        member("meter", Kind::Text),
        member("hour", Kind::Time),
        member("state", Kind::Words(&["with_stripe", "partly", "pending", "held", "failed", "unmapped"])),
        member("through_revision", Kind::Integer).or_null(),
        member("pushed_at", Kind::Time).or_null(),
        member("confirmed_at", Kind::Time).or_null(),
    ],
};

/// The members that one event has beside those of a list.
const FOUND: [Member; 4] = [
    member("rate", Kind::Object(EVENT_RATE.whole())).or_null(),
    member("period", Kind::Object(EVENT_PERIOD.whole())).or_null(),
    member("corrections", Kind::List(CORRECTION.whole())),
    member("stripe", Kind::List(EVENT_STRIPE.whole())),
];

/// The events that an id names.
pub(crate) const MATCHES: Shape<1> =
    Shape { name: "Matches", members: [member("matches", Kind::List(EVENT.with("Match", &FOUND)))] };

const FILTERS: [Parameter; 5] = [
    Parameter::query(
        "state",
        Kind::Words(&["billed", "void", "repeat", "set_aside", "all"]),
        "What became of the events; missing: billed",
    ),
    Parameter::query("route", Kind::Text, "Of one route"),
    Parameter::query("action", Kind::Text, "Of one action"),
    Parameter::query("user_id", Kind::Text, "Of one user"),
    Parameter::query("order", Kind::Words(&["asc", "desc"]), "By time, oldest or newest first; missing: asc"),
];

/// `GET /billing/usage-events/{tenant_id}`.
pub(crate) const LIST: Operation = Operation {
    id: "usageEvents",
    summary: "A tenant's events",
    about: OWN,
    parameters: &[&[TENANT_ID], &RANGE, &PAGE, &FILTERS, &[FORMAT]],
    answers: Answers::Found(Content::Page(EVENT.whole())),
    ..Operation::NEW
};

/// `GET /billing/usage-events/{tenant_id}/{id}`.
pub(crate) const ONE: Operation = Operation {
    id: "usageEvent",
    summary: "One call, with everything that became of it",
    about: OWN,
    parameters: &[&[
        TENANT_ID,
        Parameter::path("id", Kind::Text, "An event's id, else a request's").example("order-9"),
        Parameter::query(
            "by",
            Kind::Words(&["event", "request"]),
            "Which id it is; missing: an event's, else a request's",
        ),
    ]],
    answers: Answers::Found(Content::Object(MATCHES.whole())),
    problems: &[(404, &[Code::NoSuchEvent, Code::NotFound]), (500, &[Code::RateCardMissing])],
    ..Operation::NEW
};
