//! Requests where there is more of everything: tenants, each with a token of its own, and connections that stay open. Always
//! as many requests are under way at once, so that only what is compared grows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use goldleaves_testkit::token::Claims;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::http::{KINDS, kind_of, rest};
use crate::load::{Answer, CONNECTIONS_MAX, Size};
use crate::server::{self, BILLED, LOAD_CORE, Ours, SECRET, Server};
use crate::table::{median, number, print};
use crate::{Effort, Part, cpu};

const TENANTS: [usize; 4] = [100, 1_000, 10_000, 100_000];
const CONNECTIONS: [usize; 4] = [10, 100, 1_000, 9_000];
/// Requests of one measurement, unless there are more tenants.
const REQUESTS: usize = 20_000;
/// Between two connections that are made: the queue of a listening socket is shorter than there are connections.
const OPENED_AT_ONCE: usize = 100;

/// One gateway, and what it is asked by.
struct Point {
    label: String,
    server: Server,
    requests: Arc<Vec<Vec<u8>>>,
    streams: Vec<TcpStream>,
    /// The microseconds of CPU per request in each round, of all and by kind of thread.
    rounds: Vec<Vec<f64>>,
    memory: f64,
}

/// Measures what is asked for.
pub(crate) async fn measure(effort: &Effort) -> Result<()> {
    let behind = server::upstream(LOAD_CORE).await?;
    for (part, counts) in [(Part::Tenants, TENANTS), (Part::Connections, CONNECTIONS)] {
        if effort.parts.contains(&part) {
            let mut points = Vec::new();
            for count in counts {
                points.push(Point::start(part, count, behind.address).await?);
            }
            for _ in 0..effort.rounds {
                for point in &mut points {
                    point.measure().await?;
                }
            }
            report(part, &points);
        }
    }
    Ok(())
}

impl Point {
    async fn start(part: Part, count: usize, behind: SocketAddr) -> Result<Self> {
        let ours = Ours { name: "gateway", program: "gateway", durability: "available" };
        let server = server::ours(ours, ("UPSTREAM_URL", format!("http://{behind}")), "").await?;
        let (tenants, connections) = if part == Part::Tenants { (count, CONNECTIONS_MAX) } else { (1_000, count) };
        let request = |tenant: usize| -> Result<Vec<u8>> {
            let token = Claims::new(&format!("tenant-{tenant:06}"), &format!("user-{tenant:06}")).sign(SECRET)?;
            let target = format!("{BILLED}{}", Size::Small.word());
            let head = format!("GET {target} HTTP/1.1\r\nHost: bench.test\r\nAuthorization: Bearer {token}\r\n\r\n");
            Ok(head.into_bytes())
        };
        let requests: Vec<_> = (0..tenants).map(request).collect::<Result<_>>()?;
        let mut streams = Vec::new();
        for number in 0..connections {
            if number.is_multiple_of(OPENED_AT_ONCE) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let stream = TcpStream::connect(server.address).await.context("connecting")?;
            stream.set_nodelay(true).context("TCP_NODELAY")?;
            streams.push(stream);
        }
        let mut point = Self {
            label: count.to_string(),
            server,
            requests: Arc::new(requests),
            streams,
            rounds: Vec::new(),
            memory: 0.0,
        };
        // Each token is verified, and each connection's room made, before anything is measured.
        point.ask(tenants.max(connections)).await?;
        rest(&point.server).await?;
        Ok(point)
    }

    async fn measure(&mut self) -> Result<()> {
        let count = REQUESTS.max(self.requests.len());
        let before = cpu::used(self.server.process)?;
        self.ask(count).await?;
        rest(&self.server).await?;
        let used = cpu::between(&before, &cpu::used(self.server.process)?);
        let micros = |nanos: u64| nanos as f64 / 1000.0 / count as f64;
        let of_kind =
            |kind| micros(used.iter().filter(|(name, _)| kind_of(name) == kind).map(|(_, nanos)| nanos).sum());
        self.rounds.push([vec![micros(used.values().sum())], KINDS.map(of_kind).to_vec()].concat());
        self.memory = cpu::own_mib(self.server.process)?;
        Ok(())
    }

    /// Asks so often, in turn for each caller and over each connection.
    async fn ask(&mut self, count: usize) -> Result<()> {
        let (under_way, connections) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), self.streams.len());
        let mut asking = JoinSet::new();
        for (number, mut stream) in self.streams.drain(..).enumerate() {
            let (requests, under_way) = (Arc::clone(&self.requests), Arc::clone(&under_way));
            asking.spawn(async move {
                for turn in (number..count).step_by(connections) {
                    let _turn = under_way.acquire().await.context("a turn")?;
                    let request = requests.get(turn % requests.len()).context("a request")?;
                    ask_once(&mut stream, request).await?;
                }
                Ok::<_, anyhow::Error>(stream)
            });
        }
        while let Some(done) = asking.join_next().await {
            self.streams.push(done.context("a connection")??);
        }
        Ok(())
    }
}

async fn ask_once(stream: &mut TcpStream, request: &[u8]) -> Result<()> {
    stream.write_all(request).await.context("sending")?;
    let (mut answer, mut buffer) = (Answer::default(), [0; 2_048]);
    while !answer.complete {
        let length = stream.read(&mut buffer).await.context("reading")?;
        ensure!(length > 0, "the server closed the connection");
        answer.feed(buffer.get(..length).unwrap_or_default())?;
    }
    Ok(())
}

fn report(part: Part, points: &[Point]) {
    let rows = points.iter().map(|point| {
        let of = |index: usize| {
            median(&point.rounds.iter().filter_map(|round| round.get(index).copied()).collect::<Vec<_>>())
        };
        let mut ratios: Vec<f64> = points.first().map_or_else(Vec::new, |first| {
            let all =
                |point: &Point| point.rounds.iter().filter_map(|round| round.first().copied()).collect::<Vec<_>>();
            all(point).into_iter().zip(all(first)).map(|(one, other)| one / other).collect()
        });
        ratios.sort_by(f64::total_cmp);
        let spread = [ratios.first(), ratios.last()].map(|end| number(end.copied().unwrap_or_default()));
        let mut row = vec![point.label.clone()];
        row.extend((0..=KINDS.len()).map(|index| number(of(index))));
        row.extend([number(median(&ratios)), spread.join(" to "), number(point.memory)]);
        row
    });
    let what = if part == Part::Tenants { "tenants" } else { "connections" };
    let columns = [&[what, "CPU µs/request"][..], &KINDS, &["÷ the first", "rounds", "memory (PSS, MiB)"]].concat();
    print(part.title(), &columns, &rows.collect::<Vec<_>>());
}
