//! Parameters of paths and queries that more than one operation has.

use super::shape::Kind;

/// Where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Path,
    Query,
}

/// A parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) place: Place,
    pub(crate) kind: Kind,
    pub(crate) is_required: bool,
    pub(crate) about: &'static str,
    /// Empty where the kind says enough.
    pub(crate) example: &'static str,
}

impl Parameter {
    /// A segment of the path.
    pub(crate) const fn path(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, place: Place::Path, kind, is_required: true, about, example: "" }
    }

    /// A parameter of the query that may be left out.
    pub(crate) const fn query(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, place: Place::Query, kind, is_required: false, about, example: "" }
    }

    /// The parameter, which must be there.
    pub(crate) const fn required(self) -> Self {
        Self { is_required: true, ..self }
    }

    /// The parameter with an example.
    pub(crate) const fn example(self, example: &'static str) -> Self {
        Self { example, ..self }
    }
}

/// The name of the parameter that names the tenant.
pub(crate) const TENANT: &str = "tenant_id";
/// The tenant in the path.
pub(crate) const TENANT_ID: Parameter = Parameter::path(
    TENANT,
    Kind::TenantId,
    "Whose usage. A name that no path can hold is given as the query parameter tenant_id of the same path without this segment.",
)
.example("acme");
/// The parameters that name a range.
pub(crate) const RANGE: [Parameter; 4] = [
    Parameter::query(
        "start_date",
        Kind::Moment,
        "The first moment that counts: RFC 3339, or a date of the time zone. Missing: the first of this month.",
    )
    .example("2026-01-01"),
    Parameter::query(
        "end_date",
        Kind::Moment,
        "The first moment that no longer counts: RFC 3339, or a date of the time zone. Missing: the first of next month. \
         Must lie after start_date; in lists and groups at most 400 days.",
    )
    .example("2026-02-01"),
    Parameter::query("month", Kind::Month, "A month of the time zone, instead of start_date and end_date")
        .example("2026-01"),
    Parameter::query(
        "time_zone",
        Kind::Text,
        "The zone of dates, days and months, such as Europe/Berlin. Missing: the tenant's.",
    ),
];
/// The parameters that name a page.
pub(crate) const PAGE: [Parameter; 2] = [
    Parameter::query("limit", Kind::Counted, "Items of a page, 1000 at most; missing: 100"),
    Parameter::query(
        "cursor",
        Kind::Text,
        "next_cursor of the page before, with the same other parameters; only limit may differ",
    ),
];
/// The form of the answer.
pub(crate) const FORMAT: Parameter =
    Parameter::query("format", Kind::Words(&["json", "csv"]), "json or csv; missing: what Accept prefers");
