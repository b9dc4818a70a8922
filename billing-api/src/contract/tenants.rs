//! All tenants, and the zone of one.

use goldleaves_web::ProblemCode as Code;

use super::{
    Access, Answers, Content, FORMAT, Kind, Operation, PAGE, Parameter, RANGE, ROLES, Shape, TENANT_ID, member,
};

/// A tenant's usage.
pub(crate) const TENANT_USAGE: Shape<4> = Shape {
    name: "TenantUsage",
    members: [
        member("tenant_id", Kind::TenantId),
        member("events", Kind::Integer),
        member("units", Kind::Decimal).about("Units, an exact decimal"),
        member("cost_cents", Kind::Integer).about("Whole cents"),
    ],
};

/// A tenant's zone.
pub(crate) const ZONE: Shape<2> =
    Shape { name: "TenantZone", members: [member("tenant_id", Kind::TenantId), member("time_zone", Kind::Text)] };

/// A zone that is set.
pub(crate) const NEW_ZONE: Shape<2> = Shape {
    name: "ZoneRequest",
    members: [
        member("time_zone", Kind::Text).about("A zone of the IANA database, such as Europe/Berlin"),
        member("reason", Kind::Reason),
    ],
};

/// `GET /billing/tenants`.
pub(crate) const LIST: Operation = Operation {
    id: "tenants",
    summary: "All tenants by what they used",
    about: ROLES,
    parameters: &[
        &RANGE,
        &[Parameter::query(
            "sort",
            Kind::Words(&["cost", "units", "tenant_id"]),
            "By cost or units, the most first, or by name; missing: cost",
        )],
        &PAGE,
        &[FORMAT],
    ],
    answers: Answers::Found(Content::Page(TENANT_USAGE.whole())),
    access: Access::Role,
    problems: &[(500, &[Code::RateCardMissing])],
    ..Operation::NEW
};

/// `PUT /billing/tenants/{tenant_id}`.
pub(crate) const SET_ZONE: Operation = Operation {
    id: "setTimeZone",
    summary: "Set a tenant's time zone",
    about: "Closed periods keep the ends they have. Needs the role admin.",
    parameters: &[&[TENANT_ID]],
    body: Some(NEW_ZONE.whole()),
    answers: Answers::Put(ZONE.whole()),
    access: Access::Role,
    example: r#"{"time_zone": "Europe/Berlin", "reason": "they moved"}"#,
    ..Operation::NEW
};
