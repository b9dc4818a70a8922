//! The page `/upstreams` of the operations listener: everything that is known of an upstream, for people.

use serde_json::{Value, json};

use super::Upstream;
use super::outage::Reason;

impl Upstream {
    /// Its addresses and how each is.
    pub(crate) fn shown(&self) -> Value {
        let now = self.clock.now();
        let list = self.addresses();
        let addresses: Vec<Value> = list
            .iter()
            .map(|address| {
                let (standing, recent) = (&address.standing, address.standing.answers.recent(now));
                json!({
                    "address": address.target().to_string(),
                    "written": address.origin.to_string(),
                    "state": standing.outage.reason(now).map_or("in_service", Reason::as_str),
                    "outstanding": standing.outstanding(),
                    "average_millis": standing.average(now).as_micros() as f64 / 1e3,
                    "recent_calls": recent.total,
                    "recent_bad": recent.bad,
                })
            })
            .collect();
        json!({ "name": self.name(), "addresses": addresses })
    }
}
