//! A [`Pricing`] as JSON, as the API takes it and a rate card holds it. What is wrong is named with its member.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use crate::model::{Package, Pricing, Tier, Tiers};

/// The models that there are, as a person is told.
const MODELS: &str = "per_unit, graduated, volume, package and inherit";

/// The reason JSON is no pricing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{member} {what}")]
pub struct PricingError {
    /// The path of the member that is wrong, such as `pricing.tiers[1].up_to`.
    pub member: String,
    /// The fault, or what would be right.
    pub what: String,
}

impl Pricing {
    /// Reads the JSON form; members that it does not have are an error.
    ///
    /// # Errors
    /// The member that is wrong, and why.
    pub fn from_json(value: &Value) -> Result<Self, PricingError> {
        let members = PricingMembers::of("pricing".to_owned(), value)?;
        let model = members.text("model")?;
        let pricing = match model {
            "per_unit" => Self::PerUnit(members.only(&["model", "cents_per_unit"])?.parsed("cents_per_unit")?),
            "graduated" => Self::Graduated(members.only(&["model", "tiers"])?.tiers()?),
            "volume" => Self::Volume(members.only(&["model", "tiers"])?.tiers()?),
            "package" => {
                let members = members.only(&["model", "package_units", "cents_per_package", "free_units"])?;
                let units = members.parsed("package_units")?;
                let package = Package::new(units, members.parsed("cents_per_package")?, members.parsed("free_units")?);
                Self::Package(package.ok_or_else(|| members.wrong("package_units", "must be above 0"))?)
            }
            "inherit" => members.only(&["model"]).map(|_| Self::Inherit)?,
            other => return Err(members.wrong("model", format!("is {other:?}; there are {MODELS}"))),
        };
        Ok(pricing)
    }

    /// Reads the JSON form from text.
    ///
    /// # Errors
    /// As [`Pricing::from_json`].
    pub fn from_text(text: &str) -> Result<Self, PricingError> {
        let no_json = |error| PricingError { member: "pricing".to_owned(), what: format!("is no JSON: {error}") };
        Self::from_json(&serde_json::from_str(text).map_err(no_json)?)
    }

    /// The JSON form, with every member.
    pub fn to_json(&self) -> Value {
        let tiers = |tiers: &Tiers| tiers.as_slice().iter().map(tier_json).collect::<Vec<_>>();
        match self {
            Self::PerUnit(rate) => json!({"model": self.model(), "cents_per_unit": rate.to_string()}),
            Self::Graduated(ladder) | Self::Volume(ladder) => json!({"model": self.model(), "tiers": tiers(ladder)}),
            Self::Package(package) => json!({
                "model": self.model(),
                "package_units": package.units().to_string(),
                "cents_per_package": package.cents().to_string(),
                "free_units": package.free().to_string(),
            }),
            Self::Inherit => json!({"model": self.model()}),
        }
    }
}

fn tier_json(tier: &Tier) -> Value {
    json!({"up_to": tier.up_to.map(|up_to| up_to.to_string()), "cents_per_unit": tier.rate.to_string()})
}

impl Pricing {
    /// The price where cents per unit are understood: `25`, or the model's name.
    pub fn short(&self) -> String {
        match self {
            Self::PerUnit(rate) => rate.to_string(),
            other => other.model().to_owned(),
        }
    }
}

/// Shows a price as a person writes it down: `25 cents per unit`.
impl fmt::Display for Pricing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerUnit(rate) => write!(out, "{rate} cents per unit"),
            other => write!(out, "{}", other.to_json()),
        }
    }
}

/// The members of an object, each read by its name.
struct PricingMembers<'a> {
    path: String,
    object: &'a Map<String, Value>,
}

impl<'a> PricingMembers<'a> {
    fn of(path: String, value: &'a Value) -> Result<Self, PricingError> {
        match value.as_object() {
            Some(object) => Ok(Self { path, object }),
            None => Err(PricingError { member: path, what: "must be an object".to_owned() }),
        }
    }

    fn wrong(&self, member: &str, what: impl Into<String>) -> PricingError {
        PricingError { member: format!("{}.{member}", self.path), what: what.into() }
    }

    fn only(&self, known: &[&str]) -> Result<&Self, PricingError> {
        match self.object.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(self.wrong(name, format!("is unknown here; known are {}", known.join(", ")))),
            None => Ok(self),
        }
    }

    fn text(&self, member: &str) -> Result<&'a str, PricingError> {
        match self.object.get(member) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(self.wrong(member, "must be a string")),
            None => Err(self.wrong(member, "is missing")),
        }
    }

    fn parsed<T: FromStr<Err: fmt::Display>>(&self, member: &str) -> Result<T, PricingError> {
        self.text(member)?.parse().map_err(|error: T::Err| self.wrong(member, format!("is {error}")))
    }

    fn tiers(&self) -> Result<Tiers, PricingError> {
        let tiers = match self.object.get("tiers") {
            Some(Value::Array(tiers)) => tiers,
            Some(_) => return Err(self.wrong("tiers", "must be an array")),
            None => return Err(self.wrong("tiers", "is missing")),
        };
        let read = |(at, value)| Self::of(format!("{}.tiers[{at}]", self.path), value)?.tier();
        let tiers = tiers.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        Tiers::new(tiers).map_err(|error| self.wrong("tiers", error.to_string()))
    }

    fn tier(&self) -> Result<Tier, PricingError> {
        self.only(&["up_to", "cents_per_unit"])?;
        let up_to = match self.object.get("up_to") {
            Some(Value::Null) => None,
            _ => Some(self.parsed("up_to")?),
        };
        Ok(Tier { up_to, rate: self.parsed("cents_per_unit")? })
    }
}
