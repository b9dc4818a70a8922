//! Starts and stops the gateway: one thread, runtime, listening socket and upstream pool per core.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use goldleaves_auth::TokenVerifier;
use goldleaves_record::Recorder;
use goldleaves_runtime::{Metrics, descriptor_limit};
use goldleaves_trace::Tracer;
use goldleaves_web::{
    Buffers, ConnectionLimit, ListenerOptions, LiveOptions, ServeOptions, ServeStats, Served, Stop, WebBody,
    serve_peers,
};
use http::Response;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::call::Arrived;
use crate::config::GatewayConfig;
use crate::core::Core;
use crate::descriptors::{Shares, TooFewDescriptors};
use crate::metrics::{self, CoreMetrics};
use crate::open_calls::OpenCalls;
use crate::route_metrics::RouteRows;
use crate::snapshot::{Entrances, Lasting, LastingCore, OfCore, Reloader, Swap, serve_options};
use crate::stack::Entry;
use crate::transport::Slots;
use crate::upstream::{Clock, Plumbing, Upstreams, Workshop};
use crate::via::Via;

/// The reason the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken or not ours.
    #[error("GATEWAY_ADDR {address} can't be listened on")]
    Listen {
        /// `GATEWAY_ADDR`.
        address: SocketAddr,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// More sockets than anybody would serve.
    #[error(
        "LISTEN_FDS hands over {given} sockets for the gateway, and it has {cores} cores; expected at most one per core"
    )]
    Sockets {
        /// The number of them.
        given: usize,
        /// The number of cores that serve.
        cores: usize,
    },
    /// A thread or its runtime.
    #[error("a core's thread can't be started")]
    Thread(#[source] io::Error),
    /// Too many connections for the limit of open files.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// A thread that served requests ended by itself.
    #[error("a core's thread died, and the connections that it had are gone")]
    CoreDied,
    /// Neither `UPSTREAM_URL` nor a demo upstream.
    #[error("there is no upstream")]
    NoUpstream,
}

/// The parts that a gateway is given by the program it runs in.
#[derive(Debug, Clone)]
pub struct GatewayParts {
    /// Verifies bearer tokens.
    pub verifier: TokenVerifier,
    /// Where calls are recorded.
    pub recorder: Recorder,
    /// Where its numbers are shown.
    pub metrics: Metrics,
    /// Where its spans go.
    pub tracer: Tracer,
    /// Where it listens instead of `GATEWAY_ADDR`, where sockets were handed over.
    pub sockets: Arc<[StdListener]>,
}

/// A running gateway. Dropping it stops it at once.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    wishes: Wishes,
    cores: Vec<RunningCore>,
    metrics: Vec<Arc<CoreMetrics>>,
    reloader: Arc<Reloader>,
}

/// The tokens by which cores are told to stop, and the one by which a core says that it ended.
#[derive(Debug, Default)]
struct Wishes {
    draining: CancellationToken,
    graceful: CancellationToken,
    at_once: CancellationToken,
    /// Cancelled when a core's thread ends before it was told to.
    died: CancellationToken,
}

impl Wishes {
    fn of_a_core(&self) -> Stop {
        let (draining, graceful) = (self.draining.clone(), self.graceful.clone());
        Stop { draining, graceful, hard: self.at_once.child_token() }
    }
}

#[derive(Debug)]
struct RunningCore {
    thread: Option<JoinHandle<()>>,
    served: oneshot::Receiver<Served>,
}

impl Gateway {
    /// Listens and serves.
    ///
    /// # Errors
    /// The address can't be listened on, a thread can't be started, or there is no upstream.
    pub fn start(config: &GatewayConfig, parts: &GatewayParts) -> Result<Self, StartError> {
        if config.upstream.is_none() && config.edge.upstreams.is_empty() {
            return Err(StartError::NoUpstream);
        }
        let shares = Shares::of(descriptor_limit(), &config.limits)?;
        let listeners = listen(config.address, config.cores.get(), &parts.sockets)?;
        let address = listeners.first().map_or(config.address, |(_, address)| *address);
        let wishes = Wishes::default();
        let stops: Vec<Stop> = listeners.iter().map(|_| wishes.of_a_core()).collect();
        let stats = ServeStats::default();
        let most = metrics::register_connections(&parts.metrics, &stats, shares.clients, &config.limits);
        let lasting = lasting(config, parts, shares, &stops);
        let snapshot = Arc::new(lasting.snapshot(config, parts.verifier.clone(), None));
        snapshot.edge.start(None);
        let connections = ConnectionLimit::new(shares.clients);
        let handed_over = !parts.sockets.is_empty();
        let serve = ServeOptions { connections: connections.clone(), stats, handed_over, ..ServeOptions::default() };
        let mut entrances = Entrances { swaps: Vec::new(), doors: Vec::new(), connections, most };
        let mut servings = Vec::with_capacity(listeners.len());
        for (index, ((listener, _), stop)) in listeners.into_iter().zip(stops).enumerate() {
            let Some(OfCore { parts, core, proxy }) = lasting.of_core(index, &snapshot) else { continue };
            let stack = Arc::new(Mutex::new(crate::stack::stack(parts, &core, proxy)));
            let cell = Arc::clone(&stack);
            let swap: Swap =
                Box::new(move |of: OfCore| *cell.lock() = crate::stack::stack(of.parts, &of.core, of.proxy));
            let door = LiveOptions::from(serve_options(config, &serve, &core.buffers));
            entrances.swaps.push(swap);
            entrances.doors.push(door.clone());
            servings.push((Serving { listener, serve: door, core, stop, died: wishes.died.clone() }, stack));
        }
        let metrics = lasting.cores.iter().map(|core| Arc::clone(&core.metrics)).collect();
        let reloader = Reloader::new(lasting, entrances, snapshot);
        let mut gateway = Self { address, wishes, cores: Vec::with_capacity(servings.len()), metrics, reloader };
        for (index, (serving, stack)) in servings.into_iter().enumerate() {
            gateway.cores.push(RunningCore::start(index, serving, stack)?);
        }
        Ok(gateway)
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// By which it takes other settings.
    pub(crate) fn reloader(&self) -> Arc<Reloader> {
        Arc::clone(&self.reloader)
    }

    /// Returns the metrics of its cores.
    pub(crate) fn metrics(&self) -> Vec<Arc<CoreMetrics>> {
        self.metrics.clone()
    }

    /// Goes on serving, and asks every HTTP/1 client not to come back over the same connection.
    pub fn drain(&self) {
        self.wishes.draining.cancel();
    }

    /// Accepts nothing more and lets requests finish for the grace of its settings; [`Self::stopped`] tells when.
    pub fn stop(&self) {
        self.wishes.graceful.cancel();
    }

    /// Stops without waiting: what is in flight is settled as stopped by the gateway.
    pub(crate) fn stop_at_once(&self) {
        self.wishes.graceful.cancel();
        self.wishes.at_once.cancel();
    }

    /// Cancelled when a core's thread died: its share of the connections is not served any more.
    pub(crate) fn died(&self) -> CancellationToken {
        self.wishes.died.clone()
    }

    /// Resolves when every core has stopped; how many connections had not finished by then.
    pub async fn stopped(mut self) -> usize {
        let mut left = 0;
        for core in &mut self.cores {
            left += (&mut core.served).await.map_or(0, |served| served.left);
        }
        // Every runtime has been dropped by now, and every guard with it: joining waits for no request.
        self.join();
        left
    }

    fn join(&mut self) {
        for core in &mut self.cores {
            if core.thread.take().is_some_and(|thread| thread.join().is_err()) {
                tracing::error!("a core's thread ended in a panic");
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop_at_once();
        self.join();
    }
}

/// The parts that a core's thread needs besides what it serves.
struct Serving {
    listener: StdListener,
    serve: LiveOptions,
    core: Arc<Core>,
    stop: Stop,
    died: CancellationToken,
}

/// Makes what goes on from one reading of the settings to the next.
fn lasting(config: &GatewayConfig, parts: &GatewayParts, shares: Shares, stops: &[Stop]) -> Lasting {
    let cores = config.cores.get();
    let slots = Slots::new(shares.upstreams);
    slots.clone().show(&parts.metrics);
    let buffers: Vec<Buffers> = stops.iter().map(|_| Buffers::default()).collect();
    metrics::register_buffers(&parts.metrics, buffers.clone());
    let plumbing = Plumbing { buffers: buffers.clone(), slots, clock: Clock::start() };
    let counted = metrics::register(&parts.metrics, cores).into_iter().zip(buffers).zip(stops);
    Lasting {
        recorder: parts.recorder.clone(),
        tracer: parts.tracer.clone(),
        workshop: Workshop { plumbing, counters: Upstreams::register(&parts.metrics, cores) },
        calls: Arc::new(OpenCalls::new(shares.calls_per_caller.min(parts.recorder.calls_max()))),
        rows: RouteRows::register(&parts.metrics, cores),
        via: Via::new(),
        cores: counted.map(|((metrics, buffers), stop)| lasting_core(metrics, buffers, stop)).collect(),
    }
}

fn lasting_core(metrics: Arc<CoreMetrics>, buffers: Buffers, stop: &Stop) -> LastingCore {
    LastingCore {
        metrics,
        buffers,
        stopping: stop.hard.clone(),
        tunnels: TaskTracker::new(),
        finishing: TaskTracker::new(),
    }
}

/// Dropped at the end of a core's thread, also by a panic.
#[derive(Debug)]
struct DeathWatch {
    stop: CancellationToken,
    died: CancellationToken,
}

impl Drop for DeathWatch {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            self.died.cancel();
        }
    }
}

impl RunningCore {
    fn start<S>(index: usize, serving: Serving, stack: Arc<Mutex<S>>) -> Result<Self, StartError>
    where
        S: Service<Arrived, Response = Response<WebBody>, Error = Infallible, Future: Send + 'static> + Send + 'static,
    {
        let (told, served) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let thread = std::thread::Builder::new().name(format!("gateway-{index}")).spawn(move || {
            let (stop, died) = (serving.stop.clone(), serving.died.clone());
            let _watch = DeathWatch { stop: stop.graceful.clone(), died };
            let ended = runtime.block_on(run(serving, stack));
            // Whatever is still there is dropped with the runtime, and was stopped by the gateway.
            stop.hard.cancel();
            drop(runtime);
            let _ = told.send(ended);
        });
        Ok(Self { thread: Some(thread.map_err(StartError::Thread)?), served })
    }
}

async fn run<S>(serving: Serving, stack: Arc<Mutex<S>>) -> Served
where
    S: Service<Arrived, Response = Response<WebBody>, Error = Infallible, Future: Send + 'static> + Send + 'static,
{
    let Serving { listener, serve, core, stop, .. } = serving;
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a core can't use its listening socket");
            return Served { left: 0 };
        }
    };
    let hard = stop.hard.clone();
    let served = serve_peers(listener, |peer| Entry::new(Arc::clone(&stack), peer), serve, stop).await;
    core.tunnels.close();
    core.finishing.close();
    tokio::select! {
        () = core.finishing.wait() => {}
        () = hard.cancelled() => {}
    }
    served
}

/// One socket per core on the same address; the kernel spreads connections over them. Those that were handed over are dealt out
/// instead, where there are fewer than cores the same one to several.
fn listen(
    address: SocketAddr,
    cores: usize,
    given: &[StdListener],
) -> Result<Vec<(StdListener, SocketAddr)>, StartError> {
    let failed = |source| StartError::Listen { address, source };
    if given.len() > cores {
        return Err(StartError::Sockets { given: given.len(), cores });
    }
    if !given.is_empty() {
        let dealt = given.iter().cycle().take(cores);
        let own = |listener: &StdListener| Ok((listener.try_clone()?, listener.local_addr()?));
        return dealt.map(own).collect::<io::Result<_>>().map_err(failed);
    }
    let options = ListenerOptions { shared: true, ..ListenerOptions::default() };
    let mut bound = address;
    let mut listeners = Vec::with_capacity(cores);
    // Another process may share the address too, and take half of the calls: only a socket that shares nothing tells.
    if address.port() != 0 {
        drop(ListenerOptions::default().bind_std(address).map_err(failed)?);
    }
    for _ in 0..cores {
        let listener = options.bind_std(bound).map_err(failed)?;
        bound = listener.local_addr().map_err(failed)?;
        listeners.push((listener, bound));
    }
    Ok(listeners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_dies_is_noticed_and_one_that_stops_is_not() {
        let (stop, died) = (CancellationToken::new(), CancellationToken::new());
        let end = |act: fn()| {
            let watch = DeathWatch { stop: stop.clone(), died: died.clone() };
            let ended = std::thread::spawn(move || {
                let _watch = watch;
                act();
            });
            ended.join().is_err()
        };
        let stopped = stop.clone();
        assert!(end(|| std::panic::resume_unwind(Box::new("a core"))));
        assert!(died.is_cancelled());
        let (stop, died) = (stopped, CancellationToken::new());
        stop.cancel();
        drop(DeathWatch { stop, died: died.clone() });
        assert!(!died.is_cancelled());
    }
}
