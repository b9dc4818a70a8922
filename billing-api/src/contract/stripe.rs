//! The shapes of the push to Stripe.

use goldleaves_web::ProblemCode as Code;

use super::bills;
use super::{Access, Answers, Content, Kind, Operation, PAGE, Parameter, RANGE, ROLES, Shape, TENANT_ID, member};

/// A row that is pushed.
pub(crate) const PUSH: Shape<17> = Shape {
    name: "StripePush",
    members: [
        member("id", Kind::Uuid),
        member("tenant_id", Kind::TenantId),
        member("meter", Kind::Text),
        member("hour", Kind::Time),
        member("revision", Kind::Integer),
        member("units", Kind::Decimal),
        member("value", Kind::Integer).or_null().about("What is sent"),
        member("state", Kind::Words(&["unmapped", "pending", "pushed", "failed", "abandoned"])),
        member("origin", Kind::Words(&["sealed", "adopted"])),
        member("identifier", Kind::Text).or_null(),
        member("event_timestamp", Kind::Time).or_null(),
        member("attempts", Kind::Integer),
        member("first_attempt_at", Kind::Time).or_null(),
        member("next_attempt_at", Kind::Time).or_null(),
        member("pushed_at", Kind::Time).or_null(),
        member("confirmed_at", Kind::Time).or_null(),
        member("last_error", Kind::Text).or_null(),
    ],
};

/// The columns of the file that Stripe's dashboard takes.
pub(crate) const STRIPE_CSV: [&str; 5] =
    ["identifier", "timestamp", "event_name", "payload_stripe_customer_id", "payload_value"];

/// A lane: what both sides have.
pub(crate) const LANE: Shape<12> = Shape {
    name: "StripeLane",
    members: [
        member("stripe_customer_id", Kind::Text),
        member("event_name", Kind::Text),
        member("ledger_units", Kind::Decimal),
        member("unsealed", Kind::Decimal),
        member("pending", Kind::Decimal),
        member("held", Kind::Decimal),
        member("failed", Kind::Decimal),
        member("pushed", Kind::Decimal),
        member("stripe_units", Kind::Decimal).or_null(),
        member("drift_units", Kind::Decimal)
            .or_null()
            .about("What Stripe has less what was pushed, when both were read"),
        member("blocked", Kind::Text).or_null(),
        member("read_back_at", Kind::Time).or_null(),
    ],
};

/// A meter.
pub(crate) const METER: Shape<7> = Shape {
    name: "StripeMeter",
    members: [
        member("meter", Kind::Text),
        member("event_name", Kind::Text),
        member("stripe_meter_id", Kind::Text),
        member("route", Kind::Text).or_null(),
        member("places", Kind::Integer),
        member("checked_at", Kind::Time).or_null(),
        member("unfit", Kind::Text).or_null(),
    ],
};

/// A meter that is set.
pub(crate) const NEW_METER: Shape<5> = Shape {
    name: "StripeMeterRequest",
    members: [
        member("event_name", Kind::Text),
        member("stripe_meter_id", Kind::Text),
        member("route", Kind::Text).optional(),
        member("places", Kind::Choice(&[0, 6])),
        member("reason", Kind::Reason),
    ],
};

/// A mapping.
pub(crate) const MAPPING: Shape<6> = Shape {
    name: "StripeMapping",
    members: [
        member("tenant_id", Kind::TenantId),
        member("meter", Kind::Text),
        member("from_hour", Kind::Time),
        member("stripe_customer_id", Kind::Text).or_null(),
        member("actor", Kind::Text),
        member("created_at", Kind::Time),
    ],
};

/// A mapping that is set.
pub(crate) const NEW_MAPPING: Shape<3> = Shape {
    name: "StripeMappingRequest",
    members: [
        member("stripe_customer_id", Kind::Text).or_null(),
        member("from_hour", Kind::Time).optional().about("A whole hour; the next one where it is left out"),
        member("reason", Kind::Reason),
    ],
};

/// The reason a row is looked at again.
pub(crate) const RETRIED: Shape<1> = Shape { name: "StripeRetryRequest", members: [member("reason", Kind::Reason)] };

/// The lane that is adopted.
pub(crate) const ADOPTING: Shape<3> = Shape {
    name: "StripeAdoptRequest",
    members: [
        member("stripe_customer_id", Kind::Text),
        member("event_name", Kind::Text),
        member("reason", Kind::Reason),
    ],
};

/// The result of an adoption.
pub(crate) const ADOPTED: Shape<5> = Shape {
    name: "StripeAdopted",
    members: [
        member("stripe_customer_id", Kind::Text),
        member("event_name", Kind::Text),
        member("adopted", Kind::Integer).about("Minutes that had no row and have one now"),
        member("corrected", Kind::Integer).about("Rows that have Stripe's value now"),
        member("left", Kind::Integer).about("Rows that may only lag, and were left"),
    ],
};

/// A webhook of Stripe.
pub(crate) const WEBHOOK: Shape<3> = Shape {
    name: "StripeEvent",
    members: [
        member("id", Kind::Text),
        member("type", Kind::Text),
        member("related_object", Kind::Json).optional().or_null(),
    ],
};

const METER_ID: Parameter = Parameter::path("meter", Kind::Text, "The meter's name here").example("goldleaves_units");

/// `GET /billing/stripe/pushes/{tenant_id}`.
pub(crate) const PUSHES: Operation = Operation {
    id: "stripePushes",
    summary: "The rows of a tenant that are pushed to Stripe",
    about: "format=stripe-csv gives what is not sent yet as the file that Stripe's dashboard takes. Needs the role admin, billing:read or billing:write.",
    parameters: &[
        &[TENANT_ID],
        &RANGE,
        &[
            bills::METER,
            Parameter::query(
                "format",
                Kind::Words(&["json", "csv", "stripe-csv"]),
                "json, csv or stripe-csv; missing: what Accept prefers",
            ),
        ],
        &PAGE,
    ],
    answers: Answers::Found(Content::Page(PUSH.whole())),
    access: Access::Role,
    ..Operation::NEW
};

/// `POST /billing/stripe/pushes/{id}/retry`.
pub(crate) const RETRY: Operation = Operation {
    id: "retryStripePush",
    summary: "Look at a failed row again",
    about: "Its minute is read: it is pushed where its value is there, and abandoned where it is not and never will be. Needs the role admin.",
    parameters: &[&[Parameter::path("id", Kind::Uuid, "The row's id").example("01935b1c-0000-7000-8000-000000000002")]],
    body: Some(RETRIED.whole()),
    answers: Answers::Accepted(PUSH.whole()),
    access: Access::Role,
    example: r#"{"reason": "looked at in the dashboard"}"#,
    problems: &[(404, &[Code::NotFound]), (409, &[Code::AlreadyExists])],
};

/// `GET /billing/stripe/drift`.
pub(crate) const DRIFT: Operation = Operation {
    id: "stripeDrift",
    summary: "What the ledger has and what Stripe has, lane by lane",
    about: ROLES,
    parameters: &[&PAGE],
    answers: Answers::Found(Content::Page(LANE.whole())),
    access: Access::Role,
    ..Operation::NEW
};

/// `POST /billing/stripe/lanes/adopt`.
pub(crate) const ADOPT: Operation = Operation {
    id: "adoptStripeLane",
    summary: "Take over what Stripe has in a lane",
    about: "For a ledger that was restored: rows are made of what Stripe has and the ledger has forgotten, and the next rows cover the differences. Needs the role admin.",
    body: Some(ADOPTING.whole()),
    answers: Answers::Found(Content::Object(ADOPTED.whole())),
    access: Access::Role,
    example: r#"{"stripe_customer_id": "cus_123", "event_name": "goldleaves_units", "reason": "the ledger was restored"}"#,
    problems: &[(404, &[Code::NotFound]), (503, &[Code::StripeUnavailable])],
    ..Operation::NEW
};

/// `POST /billing/stripe/webhook`.
pub(crate) const HOOK: Operation = Operation {
    id: "stripeWebhook",
    summary: "Stripe's own calls",
    about: "Signed by Stripe in Stripe-Signature; a body of at most 256 KiB. What is wrong with a signature is not said.",
    access: Access::Signed,
    body: Some(WEBHOOK.whole()),
    answers: Answers::Heard,
    example: r#"{"id": "evt_1", "type": "v1.billing.meter.error_report_triggered", "related_object": {"id": "mtr_123"}}"#,
    problems: &[
        (400, &[Code::SignatureInvalid, Code::BodyInvalid]),
        (404, &[Code::NotFound]),
        (413, &[Code::BodyTooLarge]),
        (503, &[Code::DatabaseUnavailable, Code::TooSlow]),
    ],
    ..Operation::NEW
};

/// `GET /billing/stripe/meters`.
pub(crate) const METERS: Operation = Operation {
    id: "stripeMeters",
    summary: "The meters that usage is pushed to",
    about: ROLES,
    answers: Answers::Found(Content::Page(METER.whole())),
    access: Access::Role,
    ..Operation::NEW
};

/// `PUT /billing/stripe/meters/{meter}`.
pub(crate) const SET_METER: Operation = Operation {
    id: "putStripeMeter",
    summary: "Push usage to a meter of Stripe",
    about: "The meter is read at Stripe; one that can't take differences is refused. Needs the role admin.",
    parameters: &[&[METER_ID]],
    body: Some(NEW_METER.whole()),
    answers: Answers::Put(METER.whole()),
    access: Access::Role,
    example: r#"{"event_name": "goldleaves_units", "stripe_meter_id": "mtr_123", "places": 6, "reason": "set-up"}"#,
    problems: &[(409, &[Code::AlreadyExists]), (422, &[Code::MeterUnfit]), (503, &[Code::StripeUnavailable])],
};

/// `GET /billing/stripe/mappings/{tenant_id}`.
pub(crate) const MAPPINGS: Operation = Operation {
    id: "stripeMappings",
    summary: "The customers of Stripe that a tenant's usage goes to",
    about: ROLES,
    parameters: &[&[TENANT_ID]],
    answers: Answers::Found(Content::Page(MAPPING.whole())),
    access: Access::Role,
    ..Operation::NEW
};

/// `PUT /billing/stripe/mappings/{tenant_id}/{meter}`.
pub(crate) const SET_MAPPING: Operation = Operation {
    id: "putStripeMapping",
    summary: "Push a tenant's usage to a customer of Stripe from an hour on",
    about: "Nothing of earlier hours is ever pushed. Needs the role admin.",
    parameters: &[&[TENANT_ID, METER_ID]],
    body: Some(NEW_MAPPING.whole()),
    answers: Answers::Put(MAPPING.whole()),
    access: Access::Role,
    example: r#"{"stripe_customer_id": "cus_123", "from_hour": "2026-01-01T00:00:00Z", "reason": "the contract begins"}"#,
    problems: &[(404, &[Code::NotFound]), (409, &[Code::AlreadyExists]), (422, &[Code::MeterUnfit])],
};
