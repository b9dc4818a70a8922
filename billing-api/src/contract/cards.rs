//! Rate cards.

use goldleaves_web::ProblemCode as Code;

use super::{Access, Answers, Content, Kind, Operation, PAGE, Parameter, Shape, TENANT, member};

/// A rate card.
pub(crate) const CARD: Shape<11> = Shape {
    name: "RateCard",
    members: [
        member("version", Kind::Integer),
        member("id", Kind::Uuid).or_null(),
        member("tenant_id", Kind::Text).or_null(),
        member("route", Kind::Text).or_null(),
        member("action", Kind::Text).or_null(),
        member("pricing", Kind::Json),
        member("effective_from", Kind::Time),
        member("origin", Kind::Words(&["setting", "api"])),
        member("actor", Kind::Text).or_null(),
        member("reason", Kind::Text).or_null(),
        member("created_at", Kind::Time),
    ],
};

/// A card that is added.
pub(crate) const NEW_CARD: Shape<6> = Shape {
    name: "RateCardRequest",
    members: [
        member("tenant_id", Kind::Text).optional().about("Missing: all"),
        member("route", Kind::Text).optional().about("Missing: all"),
        member("action", Kind::Text).optional().about("Missing: all"),
        member("pricing", Kind::Json).about("{model: per_unit, cents_per_unit}, {model: graduated or volume, tiers: [{up_to, cents_per_unit}, …]}, {model: package, package_units, cents_per_package, free_units} or {model: inherit}; numbers are decimals in strings"),
        member("effective_from", Kind::Moment),
        member("reason", Kind::Reason),
    ],
};

/// A card that is tried out.
pub(crate) const TRIED_CARD: Shape<7> = Shape {
    name: "RateCardPreviewRequest",
    members: [
        member("tenant_id", Kind::Text).optional().about("Missing: all"),
        member("route", Kind::Text).optional().about("Missing: all"),
        member("action", Kind::Text).optional().about("Missing: all"),
        member("pricing", Kind::Json),
        member("start_date", Kind::Moment).optional(),
        member("end_date", Kind::Moment).optional(),
        member("reason", Kind::Reason).optional(),
    ],
};

/// A tenant whose cost would be another one.
pub(crate) const DIFFERENCE: Shape<4> = Shape {
    name: "RateCardDifference",
    members: [
        member("tenant_id", Kind::Text),
        member("units", Kind::Decimal),
        member("cost_cents_now", Kind::Integer),
        member("cost_cents_with", Kind::Integer),
    ],
};

/// The answer of a preview: the changes that a card would make.
pub(crate) const PREVIEW: Shape<4> = Shape {
    name: "RateCardPreview",
    members: [
        member("tenants", Kind::List(DIFFERENCE.whole())),
        member("total_units", Kind::Decimal),
        member("total_cost_cents_now", Kind::Integer),
        member("total_cost_cents_with", Kind::Integer),
    ],
};

/// `GET /billing/rate-cards`.
pub(crate) const LIST: Operation = Operation {
    id: "rateCards",
    summary: "Rate cards, oldest version first",
    about: "With tenant_id those that can price that tenant's usage; without it all, which needs one of the roles admin, billing:read and billing:write. With at those in force at a moment.",
    parameters: &[
        &[
            Parameter::query(TENANT, Kind::TenantId, "The tenant"),
            Parameter::query("at", Kind::Moment, "The moment at which they are in force"),
        ],
        &PAGE,
    ],
    answers: Answers::Found(Content::Page(CARD.whole())),
    access: Access::OwnOrRole,
    ..Operation::NEW
};

/// `POST /billing/rate-cards/preview`.
pub(crate) const PREVIEW_CALL: Operation = Operation {
    id: "previewRateCard",
    summary: "Try a rate card out",
    about: "What usage of a range costs, and what it would cost were the card in force all the time wherever it would be chosen. Makes nothing. Needs one of the roles admin, billing:read and billing:write.",
    body: Some(TRIED_CARD.whole()),
    answers: Answers::Found(Content::Object(PREVIEW.whole())),
    access: Access::Role,
    example: r#"{"tenant_id": "acme", "pricing": {"model": "volume", "tiers": [{"up_to": "1000", "cents_per_unit": "20"}, {"up_to": null, "cents_per_unit": "15"}]}, "start_date": "2026-03-01", "end_date": "2026-04-01"}"#,
    problems: &[(500, &[Code::RateCardMissing])],
    ..Operation::NEW
};

/// `PUT /billing/rate-cards/{id}`.
pub(crate) const ADD: Operation = Operation {
    id: "addRateCard",
    summary: "Add a rate card",
    about: "The same call twice adds one. effective_from lies at least 60 s ahead and after every hour of which usage is recorded: the past is changed by corrections. Needs the role admin.",
    parameters: &[&[Parameter::path("id", Kind::Uuid, "A UUID that you choose; the same one twice is the same card")
        .example("01935b1c-0000-7000-8000-000000000002")]],
    body: Some(NEW_CARD.whole()),
    answers: Answers::Put(CARD.whole()),
    access: Access::Role,
    example: r#"{"tenant_id": "acme", "pricing": {"model": "graduated", "tiers": [{"up_to": "1000", "cents_per_unit": "0"}, {"up_to": null, "cents_per_unit": "25"}]}, "effective_from": "2099-01-01", "reason": "the new contract"}"#,
    problems: &[(409, &[Code::AlreadyExists, Code::UsageExists])],
};
