//! The OpenAPI document, made of the operations that the router answers.

use serde_json::Value;
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, SchemaFormat, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, HttpMethod, InfoBuilder, KnownFormat, OpenApiBuilder, Paths, Ref, RefOr,
    Required, ResponseBuilder, ResponsesBuilder, Schema,
};

use super::PAGE_OF;
use super::operation::{Answers, Content, Method, Operation};
use super::parameters::{Parameter, Place};
use super::shape::{Kind, Member, Shape, ShapeRef, member};

const ABOUT: &str = "What tenants used and what it costs, corrections of it, and the periods it is billed in. Units are exact \
    decimals of at most six places; costs are whole cents. Ranges are half open, `[start, end)`; moments are answered in UTC. \
    Unknown and doubled parameters and members are refused. Behind the gateway the same paths are served under the gateway's \
    address.";
const BEARER: &str = "bearer";
const JSON: &str = "application/json";
/// A problem document, RFC 9457.
const PROBLEM: Shape<6> = Shape {
    name: "Problem",
    members: [
        member("type", Kind::Text),
        member("title", Kind::Text),
        member("status", Kind::Integer),
        member("code", Kind::Text).about("What went wrong, as one fixed word; each status of a call lists its own"),
        member("detail", Kind::Text).about("What was wrong and what would be right, for people (RFC 9457)"),
        member("request_id", Kind::Text),
    ],
};

/// The document of these operations; one that is answered at more than one path is told of at the first.
pub(crate) fn document<'a>(calls: impl Iterator<Item = (&'a str, Method, &'static Operation)>) -> String {
    let (mut paths, mut schemas, mut told) = (Paths::new(), Schemas::default(), Vec::new());
    for (path, method, operation) in calls {
        if told.contains(&operation.id) {
            continue;
        }
        told.push(operation.id);
        let method = match method {
            Method::Get => HttpMethod::Get,
            Method::Put => HttpMethod::Put,
            Method::Post => HttpMethod::Post,
        };
        paths.add_path_operation(path, vec![method], schemas.operation(operation));
    }
    schemas.shape(PROBLEM.whole());
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    let components = ComponentsBuilder::new()
        .security_scheme(BEARER, SecurityScheme::Http(scheme))
        .schemas_from_iter(fixed())
        .schemas_from_iter(schemas.0);
    let document = OpenApiBuilder::new()
        .info(InfoBuilder::new().title("Goldleaves Billing API").version("1").description(Some(ABOUT)).build())
        .security(Some([SecurityRequirement::new(BEARER, [""; 0])]))
        .paths(paths)
        .components(Some(components.build()))
        .build();
    document.to_json().unwrap_or_else(|error| {
        tracing::error!(
            cause = &error as &dyn std::error::Error,
            "the OpenAPI document can't be written; an empty one is served"
        );
        "{}".to_owned()
    })
}

/// The schemas of shapes that were met, each once.
#[derive(Default)]
struct Schemas(Vec<(String, RefOr<Schema>)>);

impl Schemas {
    fn operation(&mut self, operation: &'static Operation) -> utoipa::openapi::path::Operation {
        let mut built = OperationBuilder::new()
            .operation_id(Some(operation.id))
            .summary(Some(operation.summary))
            .description(Some(operation.about).filter(|about| !about.is_empty()))
            .responses(self.answers(operation));
        for one in operation.parameters() {
            built = built.parameter(self.parameter(one));
        }
        if let Some(body) = operation.body {
            // What is no JSON is told of as nothing; a test sends every example.
            let example = serde_json::from_str::<Value>(operation.example).ok();
            let content = ContentBuilder::new().schema(Some(self.shape(body))).example(example).build();
            built = built.request_body(Some(
                RequestBodyBuilder::new().required(Some(Required::True)).content(JSON, content).build(),
            ));
        }
        if !operation.needs_token() {
            // None of those that the rest needs.
            built = built.securities(Some(Vec::<SecurityRequirement>::new()));
        }
        built.build()
    }

    fn parameter(&mut self, one: &Parameter) -> utoipa::openapi::path::Parameter {
        let place = match one.place {
            Place::Path => ParameterIn::Path,
            Place::Query => ParameterIn::Query,
        };
        ParameterBuilder::new()
            .name(one.name)
            .parameter_in(place)
            .required(if one.is_required { Required::True } else { Required::False })
            .description(Some(one.about))
            .schema(Some(self.schema(one.kind, Said { is_nullable: false, about: "" })))
            .example(Some(one.example).filter(|example| !example.is_empty()).map(Value::from))
            .build()
    }

    fn answers(&mut self, operation: &Operation) -> utoipa::openapi::Responses {
        let mut responses = ResponsesBuilder::new();
        let statuses: &[&str] = match operation.answers {
            Answers::Found(_) | Answers::Heard => &["200"],
            Answers::Put(_) => &["200", "201"],
            Answers::Accepted(_) => &["202"],
        };
        for status in statuses {
            let mut response = ResponseBuilder::new().description("The answer");
            let content = match operation.answers {
                Answers::Found(Content::Page(shape)) => Some(self.page(shape)),
                Answers::Found(Content::Object(shape)) | Answers::Put(shape) | Answers::Accepted(shape) => {
                    Some(self.shape(shape))
                }
                Answers::Heard => None,
            };
            if let Some(schema) = content {
                response = response.content(JSON, ContentBuilder::new().schema(Some(schema)).build());
            }
            if operation.has_csv() {
                let text = ObjectBuilder::new().schema_type(Type::String).build();
                response = response.content("text/csv", ContentBuilder::new().schema(Some(text)).build());
            }
            responses = responses.response(*status, response);
        }
        for (status, codes) in operation.problems() {
            responses = responses.response(status.to_string(), problem(&codes));
        }
        responses.build()
    }

    /// The schema of a page of these.
    fn page(&mut self, of: ShapeRef) -> RefOr<Schema> {
        let name = format!("{}Page", of.name);
        let items = self.schema(Kind::List(of), Said { is_nullable: false, about: "" });
        let [_, next] = &PAGE_OF.members;
        let page = ObjectBuilder::new().schema_type(Type::Object).property("items", items).required("items");
        let page = self.with(page, next);
        self.keep(&name, page)
    }

    /// The schema of a shape, by its name.
    fn shape(&mut self, shape: ShapeRef) -> RefOr<Schema> {
        let mut object = ObjectBuilder::new().schema_type(Type::Object);
        for one in shape.all() {
            object = self.with(object, one);
        }
        self.keep(shape.name, object)
    }

    fn with(&mut self, object: ObjectBuilder, one: &Member) -> ObjectBuilder {
        let said = Said { is_nullable: one.is_nullable, about: one.about };
        let object = object.property(one.name, self.schema(one.kind, said));
        if one.is_required { object.required(one.name) } else { object }
    }

    fn keep(&mut self, name: &str, object: ObjectBuilder) -> RefOr<Schema> {
        if !self.0.iter().any(|(known, _)| known == name) {
            let closed = utoipa::openapi::schema::AdditionalProperties::FreeForm(false);
            self.0.push((name.to_owned(), object.additional_properties(Some(closed)).build().into()));
        }
        named(name)
    }

    fn schema(&mut self, kind: Kind, said: Said) -> RefOr<Schema> {
        let format = |format| Some(SchemaFormat::KnownFormat(format));
        let words = |words: &[&str]| words.iter().map(|word| Value::from(*word)).collect::<Vec<_>>();
        let built = match kind {
            Kind::Moment => return named("Moment"),
            Kind::TenantId if !said.is_nullable => return named("TenantId"),
            Kind::Reason => return named("Reason"),
            Kind::Object(shape) => {
                let shape = self.shape(shape);
                if !said.is_nullable {
                    return shape;
                }
                let null = ObjectBuilder::new().schema_type(Type::Null);
                return RefOr::T(Schema::AnyOf(AnyOfBuilder::new().item(shape).item(null).build()));
            }
            Kind::List(shape) => {
                let items = self.shape(shape);
                return ArrayBuilder::new().items(items).description(said.description()).build().into();
            }
            Kind::Text | Kind::TenantId => said.of(Type::String),
            Kind::Uuid => said.of(Type::String).format(Some(SchemaFormat::Custom("uuid".to_owned()))),
            Kind::Day => said.of(Type::String).format(format(KnownFormat::Date)),
            Kind::Time => said.of(Type::String).format(format(KnownFormat::DateTime)),
            Kind::Month => said.of(Type::String).pattern(Some("^[0-9]{4}-[0-9]{2}$")),
            Kind::Integer => said.of(Type::Integer),
            Kind::Counted => said.of(Type::Integer).minimum(Some(1)),
            Kind::Decimal => said.of(Type::Number),
            Kind::Json => said.of(Type::Object),
            Kind::Words(list) => said.of(Type::String).enum_values(Some(words(list))),
            Kind::Choice(list) => said.of(Type::Integer).enum_values(Some(list.to_vec())),
        };
        built.build().into()
    }
}

/// Everything that is said of a value beside its kind.
#[derive(Clone, Copy)]
struct Said {
    is_nullable: bool,
    about: &'static str,
}

impl Said {
    fn description(self) -> Option<&'static str> {
        Some(self.about).filter(|about| !about.is_empty())
    }

    fn of(self, kind: Type) -> ObjectBuilder {
        let kind = if self.is_nullable { SchemaType::Array(vec![kind, Type::Null]) } else { SchemaType::Type(kind) };
        ObjectBuilder::new().schema_type(kind).description(self.description())
    }
}

fn named(name: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}

/// The problem documents of a status, by their codes.
fn problem(codes: &[&str]) -> utoipa::openapi::Response {
    let content = ContentBuilder::new().schema(Some(named(PROBLEM.name))).build();
    ResponseBuilder::new().description(codes.join(", ")).content("application/problem+json", content).build()
}

/// Values that many shapes have.
fn fixed() -> [(&'static str, RefOr<Schema>); 3] {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let tenant = text().min_length(Some(1)).max_length(Some(255)).pattern(Some("^[^\\u0000-\\u001f\\u007f-\\u009f]+$"));
    let reason = text().min_length(Some(1)).max_length(Some(500)).description(Some("Why; it is kept with the change"));
    let of = |format| text().format(Some(SchemaFormat::KnownFormat(format))).build();
    let moment = AnyOfBuilder::new()
        .description(Some("RFC 3339, or a date: its first moment in the time zone"))
        .item(of(KnownFormat::Date))
        .item(of(KnownFormat::DateTime));
    [
        ("TenantId", tenant.build().into()),
        ("Reason", reason.build().into()),
        ("Moment", RefOr::T(Schema::AnyOf(moment.build()))),
    ]
}
