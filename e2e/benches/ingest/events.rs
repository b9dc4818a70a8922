//! The events: of many tenants in turn, as a gateway that serves them all at once hands them over.

use anyhow::{Context as _, Result};
use goldleaves_domain::wire::{BATCH_BYTES_MAX, EventBatch};
use goldleaves_domain::{Delivery, Epoch, Fingerprint, Timestamp, UsageEvent};
use goldleaves_testkit::usage;
use uuid::Uuid;

use crate::Arguments;

/// The most records that a relay's window has.
const WINDOW: usize = 8_000;

/// Says whether events share messages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Alone,
    Packed,
}

/// All messages, in their order.
pub(crate) fn messages(arguments: &Arguments, packing: Packing) -> Result<Vec<Delivery>> {
    let epoch = Epoch::new(Uuid::now_v7());
    let mut messages = Vec::new();
    let numbers: Vec<usize> = (0..arguments.events).collect();
    for window in numbers.chunks(WINDOW) {
        let mut open: Vec<Option<EventBatch>> = (0..arguments.tenants).map(|_| None).collect();
        for number in window {
            let event = event(*number, epoch, arguments)?;
            if packing == Packing::Alone {
                messages.push(Delivery::of_event(&event));
                continue;
            }
            let slot = open.get_mut(number % arguments.tenants).context("a tenant")?;
            if !slot.as_mut().is_some_and(|batch| batch.add(&event, BATCH_BYTES_MAX)) {
                messages.extend(slot.replace(EventBatch::of(&event)).map(EventBatch::finish));
            }
        }
        messages.extend(open.into_iter().flatten().map(EventBatch::finish));
    }
    Ok(messages)
}

/// The event with this number.
pub(crate) fn event(number: usize, epoch: Epoch, arguments: &Arguments) -> Result<UsageEvent> {
    let routes = ["/api/v1/documents", "/api/v1/ai", "/api/v1/search"];
    let event = usage::event();
    Ok(UsageEvent {
        tenant_id: format!("tenant-{}", number % arguments.tenants).parse()?,
        user_id: format!("user-{}", number % 5_000).parse()?,
        ts: Timestamp::from_unix_micros(1_773_136_800_000_000 + i64::try_from(number)? * 10_000)?,
        traceparent: Some(format!("00-{:032x}-{:016x}-00", event.event_id.as_uuid().as_u128(), number + 1)),
        route: routes.get(number % 3).context("three routes")?.parse()?,
        fingerprint: Some(format!("v1:{number:064x}").parse::<Fingerprint>()?),
        epoch,
        seq: u64::try_from(number)? + 1,
        ..event
    })
}
