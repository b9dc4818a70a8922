//! The work beside the calls: names are looked up, and addresses that could not be connected to are tried again.

use std::net::SocketAddr;
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::Upstream;
use super::address::Address;
use crate::transport::Origin;

/// The interval at which a name is looked up.
const LOOK_UP_EVERY: Duration = Duration::from_secs(5);
/// The same while it has no address at all.
const LOOK_UP_AGAIN: Duration = Duration::from_millis(500);
/// The time for which a start waits for the first answers.
const FIRST_LOOK_UP_MAX: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(250);
/// The interval at which unused connections are looked at.
const LONG: Duration = Duration::from_secs(4);

/// Looks names up for the first time, waiting a little for their addresses, so that the first calls find some.
pub(crate) fn first_look_up(upstreams: &[Arc<Upstream>]) {
    let (said, hear) = mpsc::channel();
    let mut asked = 0;
    for upstream in upstreams {
        for (index, origin) in upstream.names() {
            let (upstream, said) = (Arc::clone(upstream), said.clone());
            let ask = move || {
                let found = std::net::ToSocketAddrs::to_socket_addrs(&(origin.host(), origin.port()));
                upstream.looked_up(index, found.map(Iterator::collect));
                // Nobody waits any more.
                let _ = said.send(());
            };
            asked += usize::from(std::thread::Builder::new().name("look-up".to_owned()).spawn(ask).is_ok());
        }
    }
    let end = std::time::Instant::now() + FIRST_LOOK_UP_MAX;
    for _ in 0..asked {
        if hear.recv_timeout(end.saturating_duration_since(std::time::Instant::now())).is_err() {
            return;
        }
    }
}

impl Upstream {
    /// Starts the upkeep, which ends with the upstream.
    pub(crate) fn keep_up(self: &Arc<Self>, control: &Handle) {
        let (upstream, over) = (Arc::downgrade(self), self.over.clone());
        control.spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = keep_up(upstream) => {}
            }
        });
    }

    /// The addresses that were written as names.
    fn names(&self) -> Vec<(usize, Arc<Origin>)> {
        let origins = self.spec().origins.iter().cloned().enumerate();
        origins.filter(|(_, origin)| origin.target().is_none()).collect()
    }

    fn looked_up(&self, index: usize, found: std::io::Result<Vec<SocketAddr>>) {
        match found {
            Ok(found) if !found.is_empty() => self.learned(index, found),
            failed => {
                self.metrics().look_up_failed();
                let error = failed.err().map(|error| error.to_string());
                tracing::debug!(upstream = self.name(), error, "a name has no address now; those it had stay in use");
            }
        }
    }

    fn needs_upkeep(&self) -> bool {
        self.spec.health.is_some()
            || !self.names().is_empty()
            || self.known.lock().all().iter().any(|one| one.standing.outage.is_unreachable())
    }

    fn due_trials(&self) -> Vec<Arc<Address>> {
        let now = self.clock.now();
        let mut all = self.known.lock().all();
        all.retain(|address| address.standing.outage.is_trial_due(now));
        all
    }

    async fn try_again(self: Arc<Self>, address: Arc<Address>) {
        let Some(pool) = address.pool(0) else { return };
        match pool.try_connect(self.speaks()).await {
            Ok(()) => {
                self.connected(&address);
                tracing::info!(upstream = self.name(), address = %address.target(), "can be connected to again");
            }
            Err(error) => self.connect_failed(&address, &error),
        }
    }
}

async fn keep_up(weak: Weak<Upstream>) {
    let trials = TaskTracker::new();
    let (mut look_up_at, mut ask_at, mut sweep_at) = (Instant::now(), Instant::now(), Instant::now());
    loop {
        let Some(upstream) = weak.upgrade() else { return };
        let pause = if upstream.needs_upkeep() { TICK } else { LONG };
        if look_up_at <= Instant::now() {
            for (index, origin) in upstream.names() {
                let found = tokio::net::lookup_host((origin.host(), origin.port())).await;
                upstream.looked_up(index, found.map(Iterator::collect));
            }
            let pause = if upstream.addresses().is_empty() { LOOK_UP_AGAIN } else { LOOK_UP_EVERY };
            look_up_at = Instant::now() + pause;
        }
        let now = Instant::now();
        if let Some(health) = upstream.spec.health.clone()
            && ask_at <= now
        {
            ask_at = now + health.interval;
            let list = upstream.addresses();
            for address in list.iter() {
                trials.spawn(Arc::clone(&upstream).ask(Arc::clone(address), health.clone()));
            }
        }
        if sweep_at <= now {
            sweep_at = now + LONG;
            upstream.sweep();
        }
        if trials.is_empty() {
            for address in upstream.due_trials() {
                trials.spawn(Arc::clone(&upstream).try_again(address));
            }
        }
        // Nothing is held while it waits: the upstream may be gone meanwhile.
        let attention = Arc::clone(&upstream.attention);
        drop(upstream);
        tokio::select! {
            () = attention.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
