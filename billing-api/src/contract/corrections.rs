//! Corrections of bills.

use goldleaves_web::ProblemCode as Code;

use super::{Access, Answers, Content, FORMAT, Kind, Operation, PAGE, Parameter, RANGE, Shape, TENANT, member};

/// A correction.
pub(crate) const CORRECTION: Shape<15> = Shape {
    name: "Correction",
    members: [
        member("id", Kind::Uuid),
        member("tenant_id", Kind::TenantId),
        member("kind", Kind::Words(&["void", "adjust", "amount", "follow"])),
        member("event_id", Kind::Uuid).or_null(),
        member("follows", Kind::Uuid).or_null().about("The correction that this one follows since a verdict changed"),
        member("ts", Kind::Time).about("Where it counts"),
        member("route", Kind::Text).or_null(),
        member("action", Kind::Text).or_null(),
        member("rate_version", Kind::Integer).or_null(),
        member("events", Kind::Integer).about("Events more, or less"),
        member("units", Kind::Decimal).about("Units more, or less"),
        member("cents", Kind::Integer).about("Cents more, or less"),
        member("actor", Kind::Text),
        member("reason", Kind::Text),
        member("created_at", Kind::Time),
    ],
};

/// A correction that is asked for.
pub(crate) const NEW_CORRECTION: Shape<7> = Shape {
    name: "CorrectionRequest",
    members: [
        member("kind", Kind::Words(&["void", "adjust", "amount"]))
            .about("void takes an event off the bill, adjust changes what it counts, amount changes the bill"),
        member("tenant_id", Kind::TenantId),
        member("event_id", Kind::Uuid).optional().about("void, adjust: the event, or a repeat of it"),
        member("units", Kind::Text)
            .optional()
            .about("adjust: units more, or less, such as \"-0.5\"; at least 0 must be left"),
        member("cents", Kind::Integer).optional().about("amount: cents more, or less"),
        member("ts", Kind::Moment).optional().about("amount: the moment that it counts at; missing: now"),
        member("reason", Kind::Reason),
    ],
};

/// `GET /billing/corrections`.
pub(crate) const LIST: Operation = Operation {
    id: "corrections",
    summary: "A tenant's corrections",
    about: "Also answered at /billing/corrections/{tenant_id}. A tenant sees only itself; the roles admin, billing:read and billing:write see all.",
    parameters: &[
        &[Parameter::query(TENANT, Kind::TenantId, "Whose corrections").required().example("acme")],
        &RANGE,
        &PAGE,
        &[FORMAT],
    ],
    answers: Answers::Found(Content::Page(CORRECTION.whole())),
    ..Operation::NEW
};

/// `PUT /billing/corrections/{id}`.
pub(crate) const CORRECT: Operation = Operation {
    id: "correct",
    summary: "Correct a bill",
    about: "The same call twice corrects once. Needs the role admin or billing:write.",
    parameters: &[&[
        Parameter::path("id", Kind::Uuid, "A UUID that you choose").example("01935b1c-0000-7000-8000-000000000002")
    ]],
    body: Some(NEW_CORRECTION.whole()),
    answers: Answers::Put(CORRECTION.whole()),
    access: Access::Role,
    example: r#"{"kind": "void", "tenant_id": "acme", "event_id": "01935b1c-0000-7000-8000-000000000001", "reason": "a test call, ticket 4711"}"#,
    problems: &[
        (404, &[Code::NoSuchEvent]),
        (409, &[Code::AlreadyExists, Code::AlreadyVoid, Code::NotBilled, Code::Archived]),
    ],
};
