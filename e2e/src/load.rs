//! Clients that keep a gateway busy and write down every response they read to its end, every one that broke, and how
//! long each took.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use goldleaves_testkit::client::{Connection, Request, Response};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The time for which a client waits before it connects again where nobody listened.
const RECONNECT_MILLIS: u64 = 20;
/// A response that takes longer than any request may is a client that hangs.
const ANSWER_SECS_MAX: u64 = 120;

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
    /// Returns what a response says of itself.
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
    counts: Arc<LoadCounts>,
}

#[derive(Debug, Default)]
struct LoadCounts {
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
        let counts = Arc::new(LoadCounts::default());
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

    /// Returns the number of responses that were read to their end so far.
    pub fn finished(&self) -> u64 {
        self.counts.finished.load(Ordering::Relaxed)
    }

    /// Returns the number of those that came without `X-Usage-Event-ID`.
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

/// The clients of a load: their number, their pace, and their time.
#[derive(Debug, Clone, Copy)]
pub struct LoadPlan {
    /// Clients at a time, each with a connection of its own.
    pub clients: usize,
    /// The time that a client waits between two requests.
    pub pause: Duration,
    /// Requests of all clients together; none: until it is stopped.
    pub requests: Option<usize>,
}

/// One request of a [`SteadyLoad`], as its client saw it end.
#[derive(Debug, Clone)]
pub struct LoadAnswer {
    /// The n-th of all.
    pub number: usize,
    /// When it was sent.
    pub at: Instant,
    /// From its sending to its end.
    pub took: Duration,
    /// The whole response; none when it broke, or never came.
    pub receipt: Option<Receipt>,
    /// The error that broke it.
    pub broken: Option<String>,
}

/// Clients that go on when the gateway is gone: they connect again wherever it is then, and ask what broke once more, under
/// the same id, as a client that wants its answer does.
#[derive(Debug)]
pub struct SteadyLoad {
    clients: JoinSet<Result<Vec<LoadAnswer>>>,
    stopping: Arc<AtomicBool>,
    finished: Arc<AtomicU64>,
}

struct Client {
    gateway: watch::Receiver<Option<SocketAddr>>,
    plan: LoadPlan,
    next: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    finished: Arc<AtomicU64>,
    asked: Vec<LoadAnswer>,
}

impl SteadyLoad {
    /// Starts it. `request` makes the n-th request; `gateway` says where it is asked, none while it is nowhere.
    pub fn start(
        gateway: watch::Receiver<Option<SocketAddr>>,
        plan: LoadPlan,
        request: impl Fn(usize) -> Request + Send + Sync + 'static,
    ) -> Self {
        let request = Arc::new(request);
        let (stopping, finished) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let next = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for _ in 0..plan.clients {
            let client = Client {
                gateway: gateway.clone(),
                plan,
                next: Arc::clone(&next),
                stopping: Arc::clone(&stopping),
                finished: Arc::clone(&finished),
                asked: Vec::new(),
            };
            let request = Arc::clone(&request);
            clients.spawn(client.run(request));
        }
        Self { clients, stopping, finished }
    }

    /// Returns the number of whole responses that were read so far.
    pub fn finished(&self) -> u64 {
        self.finished.load(Ordering::Relaxed)
    }

    /// Waits until every planned request has its whole response.
    ///
    /// # Errors
    /// A client failed otherwise than by a broken connection.
    pub async fn done(mut self) -> Result<Vec<LoadAnswer>> {
        let mut asked = Vec::new();
        while let Some(client) = self.clients.join_next().await {
            asked.extend(client.context("a client")??);
        }
        asked.sort_by_key(|asked| asked.at);
        Ok(asked)
    }

    /// Lets every client finish its request.
    ///
    /// # Errors
    /// As [`Self::done`].
    pub async fn stop(self) -> Result<Vec<LoadAnswer>> {
        self.stopping.store(true, Ordering::Relaxed);
        self.done().await
    }
}

impl Client {
    async fn run(mut self, request: Arc<impl Fn(usize) -> Request>) -> Result<Vec<LoadAnswer>> {
        let mut connection = None;
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if self.is_over(number) {
                return Ok(self.asked);
            }
            let request = request(number);
            while !self.ask(&mut connection, number, &request).await? {
                if self.stopping.load(Ordering::Relaxed) {
                    return Ok(self.asked);
                }
            }
            tokio::time::sleep(self.plan.pause).await;
        }
    }

    fn is_over(&self, number: usize) -> bool {
        self.stopping.load(Ordering::Relaxed) || self.plan.requests.is_some_and(|most| number >= most)
    }

    /// Asks once; whether the whole response came.
    async fn ask(&mut self, connection: &mut Option<Connection>, number: usize, request: &Request) -> Result<bool> {
        let open = match connection {
            Some(open) => open,
            None => match self.connect().await {
                Some(open) => connection.insert(open),
                None => return Ok(false),
            },
        };
        let at = Instant::now();
        let answer = tokio::time::timeout(Duration::from_secs(ANSWER_SECS_MAX), open.ask(request)).await;
        let took = at.elapsed();
        let answer = answer.with_context(|| format!("request {number} has no end after {ANSWER_SECS_MAX} s"))?;
        let (receipt, broken) = match answer {
            Ok(response) if response.body.complete => (Some(Receipt::of(&response)?), None),
            Ok(_) => (None, Some("the body broke off".to_owned())),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let whole = receipt.is_some();
        self.finished.fetch_add(u64::from(whole), Ordering::Relaxed);
        self.asked.push(LoadAnswer { number, at, took, receipt, broken });
        if !whole {
            *connection = None;
        }
        Ok(whole)
    }

    async fn connect(&mut self) -> Option<Connection> {
        let address = *self.gateway.borrow_and_update();
        if let Some(address) = address
            && let Ok(connection) = Connection::open(address).await
        {
            return Some(connection);
        }
        tokio::time::sleep(Duration::from_millis(RECONNECT_MILLIS)).await;
        None
    }
}

/// The whole responses among them; each was a success.
///
/// # Errors
/// One was none.
pub fn receipts(asked: &[LoadAnswer]) -> Result<Vec<Receipt>> {
    let receipts: Vec<Receipt> = asked.iter().filter_map(|asked| asked.receipt.clone()).collect();
    let failed = receipts.iter().find(|receipt| !(200..300).contains(&receipt.status));
    ensure!(failed.is_none(), "a request failed: {failed:?}");
    Ok(receipts)
}

/// Returns the times that the whole responses took: half of them at most the first, all but one in a hundred at most
/// the second, and the slowest.
pub fn latencies<'a>(asked: impl IntoIterator<Item = &'a LoadAnswer>) -> [Duration; 3] {
    let mut took: Vec<Duration> = asked.into_iter().map(|asked| asked.took).collect();
    took.sort_unstable();
    let at = |part: usize| took.get(took.len().saturating_sub(1) * part / 100).copied().unwrap_or_default();
    [at(50), at(99), at(100)]
}
