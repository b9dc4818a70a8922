//! Summary and report of a range.

use goldleaves_web::ProblemCode as Code;

use super::{Access, Answers, Content, FORMAT, Kind, Member, Operation, Parameter, RANGE, Shape, TENANT_ID, member};

/// The sum of the corrections of events.
pub(crate) const CORRECTED: Shape<2> = Shape {
    name: "Corrected",
    members: [
        member("events", Kind::Integer).about("Events more, or less"),
        member("units", Kind::Decimal).about("Units more, or less"),
    ],
};

/// A summary.
pub(crate) const SUMMARY: Shape<11> = Shape {
    name: "UsageSummary",
    members: [
        member("tenant_id", Kind::TenantId),
        member("period_start", Kind::Time),
        member("period_end", Kind::Time),
        member("total_events", Kind::Integer).about("Billed events, net of corrections"),
        member("total_units", Kind::Decimal).about("Units, an exact decimal"),
        member("total_cost_cents", Kind::Integer).about("The sum of the invoice lines and of the adjustments"),
        member("unique_routes", Kind::Integer),
        member("current_rate_cents", Kind::Decimal)
            .or_null()
            .about("Cents per unit of the default card in force now; null where the card has more than one rate"),
        member("adjustments_cents", Kind::Integer).about("Corrections by an amount"),
        member("corrections", Kind::Object(CORRECTED.whole())),
        member("priced_as", Kind::Words(&["period"])).about("A range is priced as if it were a billing period"),
    ],
};

/// A route's part of a report.
pub(crate) const ROUTE: Shape<4> = Shape {
    name: "RouteUsage",
    members: [
        member("route", Kind::Text).about("The matched pattern"),
        member("events", Kind::Integer),
        member("units", Kind::Decimal).about("Units, an exact decimal"),
        member("cost_cents", Kind::Integer).about("Whole cents"),
    ],
};

/// A group of a report: the keys that it was asked for by, and what it used.
pub(crate) const GROUP: Shape<9> = Shape {
    name: "UsageGroup",
    members: [
        member("route", Kind::Text).optional(),
        member("action", Kind::Text).optional(),
        member("user", Kind::Text).optional(),
        member("day", Kind::Day).optional().about("A day of the time zone"),
        member("hour", Kind::Time).optional().about("A UTC hour"),
        member("rate", Kind::Integer).optional().about("A rate version"),
        member("events", Kind::Integer),
        member("units", Kind::Decimal).about("Units, an exact decimal"),
        member("cost_cents", Kind::Integer).about("Whole cents"),
    ],
};

/// The members that a report has beside a summary's.
const BREAKDOWN: [Member; 2] = [
    member("route_breakdown", Kind::List(ROUTE.whole())),
    member("groups", Kind::List(GROUP.whole())).optional().about("Where group_by asks for them"),
];

/// The answer of the health check.
pub(crate) const HEALTH: Shape<4> = Shape {
    name: "Health",
    members: [
        member("status", Kind::Words(&["healthy"])),
        member("service", Kind::Words(&["billing"])),
        member("timestamp", Kind::Time),
        member("version", Kind::Text),
    ],
};

/// `GET /billing/health`.
pub(crate) const HEALTH_CALL: Operation = Operation {
    id: "health",
    summary: "Whether the service can reach its database",
    access: Access::Open,
    answers: Answers::Found(Content::Object(HEALTH.whole())),
    problems: &[(503, &[Code::DatabaseUnavailable])],
    ..Operation::NEW
};

/// `GET /billing/usage-summary/{tenant_id}`.
pub(crate) const SUMMARY_CALL: Operation = Operation {
    id: "usageSummary",
    summary: "Events, units and cost of a tenant in a range",
    about: "No events is no error: 200 and zeros. A tenant sees only itself; the roles admin, billing:read and billing:write see all.",
    parameters: &[&[TENANT_ID], &RANGE],
    answers: Answers::Found(Content::Object(SUMMARY.whole())),
    problems: &[(400, &[Code::TooManyRows]), (500, &[Code::RateCardMissing])],
    ..Operation::NEW
};

/// `GET /billing/usage-report/{tenant_id}`.
pub(crate) const REPORT_CALL: Operation = Operation {
    id: "usageReport",
    summary: "The summary with a line for each route, and groups",
    about: "An invoice line is a rate version, rounded once, half to even; the total is the sum of the lines and the adjustments. Routes and groups share the cents of each line by units, so that every breakdown adds up. At most 10,000 groups; by user at most 31 days.",
    parameters: &[&[TENANT_ID], &RANGE, &[GROUP_BY, FORMAT]],
    answers: Answers::Found(Content::Object(SUMMARY.with("UsageReport", &BREAKDOWN))),
    problems: &[(400, &[Code::TooManyGroups]), (500, &[Code::RateCardMissing])],
    ..Operation::NEW
};

const GROUP_BY: Parameter = Parameter::query(
    "group_by",
    Kind::Text,
    "One or two, separated by a comma, of route, action, user, day, hour and rate",
)
.example("route,day");
