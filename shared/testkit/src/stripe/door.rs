//! Addresses of the double: each client can have one of its own, which can be shut, so that nobody listens there any more.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{State, lock};
use crate::child::wait_for;
use crate::client::Request;
use crate::upstream::{Answer, Received, Upstream};

/// The longest time the port of a door may take to be free again.
const PATIENCE: Duration = Duration::from_secs(20);

/// An address of the double. Nobody listens there once it is gone.
#[derive(Debug)]
pub struct Door {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    /// `None` while it is shut.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    server: Upstream,
    /// True from the moment on at which what came in through it is cut.
    is_shut: Arc<AtomicBool>,
}

impl Open {
    async fn at(state: &Arc<Mutex<State>>, address: SocketAddr) -> Result<Self> {
        let is_shut = Arc::new(AtomicBool::new(false));
        let (state, is_cut) = (Arc::clone(state), Arc::clone(&is_shut));
        let answer = move |received: &Received| match is_cut.load(Ordering::SeqCst) {
            true => Answer::raw(Vec::new()),
            false => lock(&state).answer(received),
        };
        Ok(Self { server: Upstream::start_keeping_ids_at(address, answer).await?, is_shut })
    }
}

impl Door {
    pub(super) async fn of(state: &Arc<Mutex<State>>) -> Result<Self> {
        let open = Open::at(state, SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        Ok(Self { state: Arc::clone(state), address: open.server.address(), open: Some(open) })
    }

    /// Returns the value for `STRIPE_API_BASE`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Refuses connections from now on, and cuts those that are open at their next call.
    pub fn shut(&mut self) {
        if let Some(open) = self.open.take() {
            open.is_shut.store(true, Ordering::SeqCst);
        }
    }

    /// Listens again, at the same address.
    ///
    /// # Errors
    /// Somebody else has taken the port.
    pub async fn open(&mut self) -> Result<()> {
        if self.open.is_none() {
            let again = async || Ok(Open::at(&self.state, self.address).await.ok());
            self.open = Some(wait_for("the door's port", PATIENCE, again).await?);
        }
        Ok(())
    }

    /// Waits until everything was worked off that came from clients which are gone by now.
    ///
    /// # Errors
    /// A client is still there after `limit`.
    pub async fn drained(&self, limit: Duration) -> Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        // Connections are accepted in order: once this one is served, those before it are counted.
        Request::get("/v1/none").send(self.address).await.context("asking at the door")?;
        let is_alone = async || Ok((open.server.open_connections() == 0).then_some(()));
        wait_for("clients of the double to be gone", limit, is_alone).await
    }
}
