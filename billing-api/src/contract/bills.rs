//! Invoices, periods, and what is reported of them to Stripe.

use goldleaves_web::ProblemCode as Code;

use super::{Access, Answers, Content, FORMAT, Kind, OWN, Operation, PAGE, Parameter, RANGE, Shape, TENANT_ID, member};

/// A line of an invoice.
pub(crate) const LINE: Shape<9> = Shape {
    name: "InvoiceLine",
    members: [
        member("kind", Kind::Words(&["usage", "late", "amount"])),
        member("for_number", Kind::Integer).about("The period that the usage is of"),
        member("route", Kind::Text).or_null(),
        member("action", Kind::Text).or_null(),
        member("rate_version", Kind::Integer).or_null(),
        member("pricing", Kind::Json).or_null(),
        member("events", Kind::Integer),
        member("units", Kind::Decimal).about("Units, an exact decimal"),
        member("cost_cents", Kind::Integer).about("Whole cents"),
    ],
};

/// An invoice.
pub(crate) const INVOICE: Shape<9> = Shape {
    name: "Invoice",
    members: [
        member("tenant_id", Kind::TenantId),
        member("number", Kind::Integer),
        member("state", Kind::Words(&["open", "closed"])),
        member("period_start", Kind::Time),
        member("period_end", Kind::Time),
        member("time_zone", Kind::Text),
        member("lines", Kind::List(LINE.whole())),
        member("total_cost_cents", Kind::Integer),
        member("lines_hash", Kind::Text).about("SHA-256 of the lines"),
    ],
};

/// A closed period.
pub(crate) const PERIOD: Shape<8> = Shape {
    name: "Period",
    members: [
        member("number", Kind::Integer),
        member("starts_at", Kind::Time),
        member("ends_at", Kind::Time),
        member("closed_at", Kind::Time),
        member("actor", Kind::Text),
        member("total_cost_cents", Kind::Integer),
        member("lines_hash", Kind::Text),
        member("unbilled_late_cents", Kind::Integer)
            .about("What it costs more, or less, since it was closed: the next close bills it"),
    ],
};

/// The closing of a period.
pub(crate) const NEW_PERIOD: Shape<3> = Shape {
    name: "PeriodRequest",
    members: [
        member("starts_at", Kind::Moment).optional(),
        member("ends_at", Kind::Moment).optional(),
        member("reason", Kind::Reason),
    ],
};

/// An hour that changed after its end.
pub(crate) const LATE_HOUR: Shape<4> = Shape {
    name: "LateHour",
    members: [
        member("hour", Kind::Time),
        member("changes", Kind::Integer),
        member("changed_at", Kind::Time),
        member("period_number", Kind::Integer).or_null().about("The closed period that it lies in"),
    ],
};

/// The range whose usage is reported.
pub(crate) const REPORTED: Shape<4> = Shape {
    name: "ReportUsageRequest",
    members: [
        member("tenant_id", Kind::TenantId),
        member("start_date", Kind::Moment).optional(),
        member("end_date", Kind::Moment).optional(),
        member("meter", Kind::Text).optional().about("goldleaves_units where it is left out"),
    ],
};

/// The share of a range that is reported.
pub(crate) const REPORT: Shape<7> = Shape {
    name: "UsagePush",
    members: [
        member("report_id", Kind::Uuid).about("The same for the same tenant and period"),
        member("tenant_id", Kind::TenantId),
        member("period_start", Kind::Time),
        member("period_end", Kind::Time),
        member("reported_quantity", Kind::Decimal).about("Units that rows exist for"),
        member("pushed_quantity", Kind::Decimal).about("Of these, what the external system has"),
        member("state", Kind::Words(&["unmapped", "pending", "pushed", "failed"])),
    ],
};

const NUMBER: Parameter = Parameter::path("number", Kind::Counted, "Periods count from 1").example("1");

/// `GET /billing/invoice/{tenant_id}`.
pub(crate) const OPEN_INVOICE: Operation = Operation {
    id: "openInvoice",
    summary: "The open period's invoice, as a close would make it",
    about: OWN,
    parameters: &[&[TENANT_ID, FORMAT]],
    answers: Answers::Found(Content::Object(INVOICE.whole())),
    problems: &[(500, &[Code::RateCardMissing])],
    ..Operation::NEW
};

/// `GET /billing/invoice/{tenant_id}/{number}`.
pub(crate) const ONE_INVOICE: Operation = Operation {
    id: "invoice",
    summary: "A period's invoice",
    about: OWN,
    parameters: &[&[TENANT_ID, NUMBER, FORMAT]],
    answers: Answers::Found(Content::Object(INVOICE.whole())),
    problems: &[(404, &[Code::NotFound]), (500, &[Code::RateCardMissing])],
    ..Operation::NEW
};

/// `GET /billing/periods/{tenant_id}`.
pub(crate) const PERIODS: Operation = Operation {
    id: "periods",
    summary: "A tenant's closed periods",
    about: OWN,
    parameters: &[&[TENANT_ID], &PAGE],
    answers: Answers::Found(Content::Page(PERIOD.whole())),
    problems: &[(500, &[Code::RateCardMissing])],
    ..Operation::NEW
};

/// `PUT /billing/periods/{tenant_id}/{number}`.
pub(crate) const CLOSE: Operation = Operation {
    id: "closePeriod",
    summary: "Close a period",
    about: "Periods are closed one after the other, an hour after their end at the earliest, and never reopened. What comes late is billed with the next close. Needs the role admin or billing:write.",
    parameters: &[&[TENANT_ID, NUMBER]],
    body: Some(NEW_PERIOD.whole()),
    answers: Answers::Put(PERIOD.whole()),
    access: Access::Role,
    example: r#"{"reason": "the month is over"}"#,
    problems: &[(409, &[Code::OutOfOrder, Code::TooEarly, Code::AlreadyExists]), (500, &[Code::RateCardMissing])],
};

/// `GET /billing/late/{tenant_id}`.
pub(crate) const LATE: Operation = Operation {
    id: "lateHours",
    summary: "Hours that changed after their end",
    about: OWN,
    parameters: &[&[TENANT_ID], &RANGE, &PAGE],
    answers: Answers::Found(Content::Page(LATE_HOUR.whole())),
    ..Operation::NEW
};

/// `POST /billing/report-usage`.
pub(crate) const REPORT_USAGE: Operation = Operation {
    id: "reportUsage",
    summary: "Report a tenant's usage to the external billing system",
    about: "Makes the missing rows to push for the hours that lie wholly in the period and whose end lies at least 5 minutes back. The same call twice makes the same rows; usage that came later becomes a new revision of its hour, holding the difference. Needs the role admin or billing:write, also for the caller's own tenant.",
    body: Some(REPORTED.whole()),
    answers: Answers::Accepted(REPORT.whole()),
    access: Access::Role,
    example: r#"{"tenant_id": "acme", "start_date": "2026-03-01", "end_date": "2026-04-01"}"#,
    problems: &[(404, &[Code::NotFound])],
    ..Operation::NEW
};

/// `GET /billing/report-usage/{tenant_id}`.
pub(crate) const USAGE_REPORTED: Operation = Operation {
    id: "usageReported",
    summary: "How much of a tenant's usage Stripe has",
    about: "The answer of the POST, without making rows.",
    parameters: &[&[TENANT_ID], &RANGE, &[METER]],
    answers: Answers::Found(Content::Object(REPORT.whole())),
    problems: &[(404, &[Code::NotFound])],
    ..Operation::NEW
};

/// The parameter that names a meter.
pub(crate) const METER: Parameter = Parameter::query("meter", Kind::Text, "Of which meter; missing: goldleaves_units");
