//! The door: a database, and the zone of tenants that have none of their own.

use std::sync::atomic::AtomicBool;

use chrono::Utc;
use goldleaves_domain::{TenantId, Timestamp};
use goldleaves_pricing::TimeZone;
use goldleaves_store::{Store, StoreError};
use sea_orm::EntityTrait as _;

use crate::BillingError;
use crate::entities::tenant;
use crate::limits::AnswerLimits;
use crate::schema::STEPS;
use crate::source::Source;

/// The reader and writer of everything that billing keeps. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Billing {
    store: Store,
    default_zone: TimeZone,
    limits: AnswerLimits,
}

impl Billing {
    /// Billing in this database; `default_zone` is that of tenants that have none of their own.
    pub fn new(store: Store, default_zone: TimeZone) -> Self {
        Self { store, default_zone, limits: AnswerLimits::default() }
    }

    /// With other limits of its answers.
    #[must_use]
    pub fn limited(self, limits: AnswerLimits) -> Self {
        Self { limits, ..self }
    }

    /// The database.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The zone of tenants that have none of their own.
    pub const fn default_zone(&self) -> TimeZone {
        self.default_zone
    }

    /// Keeps `is_ready` saying whether the database answers and has the schema, as [`Store::watch`] does.
    pub async fn watch(&self, is_ready: &AtomicBool) -> StoreError {
        self.store.watch(&STEPS, is_ready).await
    }

    /// The zone that a tenant's days and months are of.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn time_zone(&self, tenant: &TenantId) -> Result<TimeZone, BillingError> {
        self.zone_of(self.source(), tenant).await
    }

    pub(crate) async fn zone_of(&self, source: Source<'_>, tenant: &TenantId) -> Result<TimeZone, BillingError> {
        match source.first(tenant::Entity::find_by_id(tenant.as_str())).await? {
            Some(row) => row.time_zone.parse().map_err(|error| BillingError::unreadable("time_zone", error)),
            None => Ok(self.default_zone),
        }
    }

    pub(crate) const fn source(&self) -> Source<'_> {
        Source::Store(&self.store, self.limits)
    }
}

/// The moment of this process's clock, for what is no one's bill: a rate in force, a default range.
pub(crate) fn clock() -> Result<Timestamp, BillingError> {
    Timestamp::from_date_time(Utc::now()).map_err(|error| BillingError::unreadable("now", error))
}
