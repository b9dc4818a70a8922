//! The audit.

use super::{Access, Answers, Content, Kind, Operation, PAGE, Parameter, RANGE, Shape, TENANT, member};

/// A change.
pub(crate) const AUDIT_ROW: Shape<8> = Shape {
    name: "AuditRow",
    members: [
        member("id", Kind::Uuid),
        member("at", Kind::Time),
        member("actor", Kind::Text),
        member("roles", Kind::Text),
        member("request_id", Kind::Text),
        member("action", Kind::Text),
        member("tenant_id", Kind::Text).or_null(),
        member("body", Kind::Text).about("The change as it was asked for"),
    ],
};

/// `GET /billing/audit`.
pub(crate) const LIST: Operation = Operation {
    id: "audit",
    summary: "Who changed what",
    about: "Needs the role admin.",
    parameters: &[&RANGE, &[Parameter::query(TENANT, Kind::TenantId, "Of one tenant")], &PAGE],
    answers: Answers::Found(Content::Page(AUDIT_ROW.whole())),
    access: Access::Role,
    ..Operation::NEW
};
