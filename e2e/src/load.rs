//! Clients that keep a gateway busy and write down every response they read to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use goldleaves_testkit::client::{Connection, Request, Response};
use tokio::task::JoinSet;

/// A billable response that was read to its last byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// `X-Request-ID`, as the response had it.
    pub request_id: String,
    /// `X-Usage-Event-ID`.
    pub event_id: Option<String>,
    /// The status.
    pub status: u16,
}

impl Receipt {
    /// What a response says of itself.
    ///
    /// # Errors
    /// It has no `X-Request-ID`.
    pub fn of(response: &Response) -> Result<Self> {
        Ok(Self {
            request_id: response.header("x-request-id").context("a response without X-Request-ID")?.to_owned(),
            event_id: response.header("x-usage-event-id").map(str::to_owned),
            status: response.status,
        })
    }
}

/// Running clients.
#[derive(Debug)]
pub struct Load {
    clients: JoinSet<Vec<Receipt>>,
    stopping: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    finished: AtomicU64,
    without_event: AtomicU64,
}

impl Load {
    /// Starts clients that each ask on, one request after the other on one connection, until the gateway is gone.
    /// `request` makes the n-th request of a client.
    pub fn start(
        gateway: SocketAddr,
        clients: usize,
        request: impl Fn(usize, usize) -> Request + Send + Sync + 'static,
    ) -> Self {
        let request = Arc::new(request);
        let stopping = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Counts::default());
        let mut running = JoinSet::new();
        for client in 0..clients {
            let (request, stopping, counts) = (Arc::clone(&request), Arc::clone(&stopping), Arc::clone(&counts));
            running.spawn(async move {
                let mut receipts = Vec::new();
                let asked = (0..).map(|number| request(client, number));
                // The end is the gateway's: a broken response is what this is about.
                ask_all(gateway, asked, &stopping, |receipt| {
                    counts.finished.fetch_add(1, Ordering::Relaxed);
                    counts.without_event.fetch_add(u64::from(receipt.event_id.is_none()), Ordering::Relaxed);
                    receipts.push(receipt);
                })
                .await
                .ok();
                receipts
            });
        }
        Self { clients: running, stopping, counts }
    }

    /// How many responses were read to their end so far.
    pub fn finished(&self) -> u64 {
        self.counts.finished.load(Ordering::Relaxed)
    }

    /// How many of them came without `X-Usage-Event-ID`.
    pub fn without_event(&self) -> u64 {
        self.counts.without_event.load(Ordering::Relaxed)
    }

    /// Lets every client finish its request, and returns what all of them wrote down.
    ///
    /// # Errors
    /// A client panicked.
    pub async fn receipts(mut self) -> Result<Vec<Receipt>> {
        self.stopping.store(true, Ordering::Relaxed);
        let mut receipts = Vec::new();
        while let Some(client) = self.clients.join_next().await {
            receipts.extend(client.context("a client")?);
        }
        Ok(receipts)
    }
}

async fn ask_all(
    gateway: SocketAddr,
    requests: impl Iterator<Item = Request>,
    stopping: &AtomicBool,
    mut done: impl FnMut(Receipt),
) -> Result<()> {
    let mut connection = Connection::open(gateway).await?;
    for request in requests {
        if stopping.load(Ordering::Relaxed) {
            return Ok(());
        }
        let response = connection.ask(&request).await?;
        if !response.body.complete {
            return Ok(());
        }
        done(Receipt::of(&response)?);
    }
    Ok(())
}
