//! The load: many connections on one thread, each asking again when it has read an answer to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The number of connections that ask at once for small answers.
pub(crate) const CONNECTIONS_MAX: usize = 64;

/// The sizes of answers that are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// 200 bytes.
    Small,
    /// 16 KiB, chunked.
    Medium,
    /// 1 MiB, chunked.
    Large,
}

impl Size {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    /// Returns the end of a path that asks for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Small => "/small",
            Self::Medium => "/medium",
            Self::Large => "/large",
        }
    }

    /// The body's length.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::Small => 200,
            Self::Medium => 16 * 1024,
            Self::Large => 1024 * 1024,
        }
    }

    /// Returns the number of connections that ask at once.
    pub(crate) const fn connections(self) -> usize {
        match self {
            Self::Small | Self::Medium => CONNECTIONS_MAX,
            Self::Large => 16,
        }
    }
}

/// The counts of a load.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Answers read to their end.
    pub(crate) answers: u64,
    /// The time that it ran.
    pub(crate) elapsed: Duration,
    /// The median of the time from a request to its answer's last byte, in microseconds.
    pub(crate) p50_micros: f64,
    /// The 99th percentile.
    pub(crate) p99_micros: f64,
}

impl Seen {
    /// Sums up how long each answer took.
    pub(crate) fn of(mut micros: Vec<u32>, elapsed: Duration) -> Self {
        micros.sort_unstable();
        let quantile = |part: usize| micros.get(micros.len() * part / 100).map_or(0.0, |micros| f64::from(*micros));
        Self { answers: micros.len() as u64, elapsed, p50_micros: quantile(50), p99_micros: quantile(99) }
    }
}

/// The requests of one load: the same path, each with another caller's token.
#[derive(Debug, Clone)]
pub(crate) struct Requests(Arc<Vec<Vec<u8>>>);

impl Requests {
    /// Asks for answers of this size, in turn for each of these tokens.
    pub(crate) fn new(path: &str, tokens: &[String], size: Size) -> Self {
        let target = format!("{path}{}", size.word());
        let request = |token: &String| {
            format!("GET {target} HTTP/1.1\r\nHost: bench.test\r\nAuthorization: Bearer {token}\r\n\r\n").into_bytes()
        };
        Self(Arc::new(tokens.iter().map(request).collect()))
    }

    /// The requests of one connection, without end: each connection begins with another caller.
    pub(crate) fn from(&self, connection: usize) -> impl Iterator<Item = &[u8]> {
        let skip = connection * self.0.len() / CONNECTIONS_MAX;
        self.0.iter().map(Vec::as_slice).cycle().skip(skip)
    }
}

/// Asks for so long over so many connections.
pub(crate) async fn run(
    server: SocketAddr,
    requests: &Requests,
    count: usize,
    size: Size,
    duration: Duration,
) -> Result<Seen> {
    let start = Instant::now();
    let deadline = start + duration;
    let mut connections = JoinSet::new();
    for number in 0..count {
        connections.spawn(connection(server, requests.clone(), number, size.bytes(), deadline));
    }
    let mut micros = Vec::new();
    while let Some(done) = connections.join_next().await {
        micros.extend(done.context("a connection")??);
    }
    Ok(Seen::of(micros, start.elapsed()))
}

async fn connection(
    server: SocketAddr,
    requests: Requests,
    number: usize,
    body: usize,
    deadline: Instant,
) -> Result<Vec<u32>> {
    let mut requests = requests.from(number);
    let mut stream = TcpStream::connect(server).await.context("connecting")?;
    stream.set_nodelay(true).context("TCP_NODELAY")?;
    let mut buffer = vec![0; 256 * 1024];
    let mut micros = Vec::new();
    while Instant::now() < deadline {
        let start = Instant::now();
        stream.write_all(requests.next().unwrap_or_default()).await.context("sending")?;
        let mut answer = Answer::default();
        while !answer.complete {
            let length = stream.read(&mut buffer).await.context("reading")?;
            ensure!(length > 0, "the server closed the connection");
            answer.feed(buffer.get(..length).unwrap_or_default())?;
        }
        ensure!(answer.body == body, "a body of {} bytes instead of {body}", answer.body);
        micros.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    Ok(micros)
}

/// An answer as it comes: finds its end, counts its body, keeps nothing but a head.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    head: Vec<u8>,
    framing: Option<Framing>,
    body: usize,
    pub(crate) complete: bool,
}

#[derive(Debug, Clone, Copy)]
enum Framing {
    /// The bytes of the body that are still to come.
    Length(usize),
    /// In the digits of a chunk's length, which are so far.
    ChunkLength(usize),
    /// The bytes of a chunk, its line's end included, that are still to come.
    Chunk(usize),
    /// The bytes of the end that are still to come.
    End(usize),
}

impl Answer {
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<()> {
        if self.framing.is_none() {
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            let Some(end) = self.head.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(()) };
            bytes = bytes.get(end + 4 - before..).unwrap_or_default();
            self.framing = Some(framing(self.head.get(..end).unwrap_or_default())?);
        }
        while let (Some(framing), false) = (self.framing, self.complete) {
            if bytes.is_empty() && !matches!(framing, Framing::Length(0) | Framing::End(0)) {
                return Ok(());
            }
            bytes = self.step(framing, bytes)?;
        }
        Ok(())
    }

    fn step<'a>(&mut self, framing: Framing, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let skip = |count: usize| bytes.get(count..).unwrap_or_default();
        let (next, rest) = match framing {
            Framing::Length(0) | Framing::End(0) => {
                self.complete = true;
                (framing, bytes)
            }
            Framing::Length(left) => {
                let taken = left.min(bytes.len());
                self.body += taken;
                (Framing::Length(left - taken), skip(taken))
            }
            Framing::End(left) => {
                let taken = left.min(bytes.len());
                (Framing::End(left - taken), skip(taken))
            }
            Framing::Chunk(left) => {
                let taken = left.min(bytes.len());
                // The last two bytes are the line's end.
                self.body += taken.min(left.saturating_sub(2));
                let next = if taken == left { Framing::ChunkLength(0) } else { Framing::Chunk(left - taken) };
                (next, skip(taken))
            }
            Framing::ChunkLength(so_far) => {
                let digit = bytes.first().copied().unwrap_or_default();
                let next = match (char::from(digit).to_digit(16), digit) {
                    (Some(digit), _) => Framing::ChunkLength(so_far * 16 + digit as usize),
                    (None, b'\r') => Framing::ChunkLength(so_far),
                    (None, b'\n') if so_far == 0 => Framing::End(2),
                    (None, b'\n') => Framing::Chunk(so_far + 2),
                    _ => bail!("no chunk"),
                };
                (next, skip(1))
            }
        };
        self.framing = Some(next);
        Ok(rest)
    }
}

fn framing(head: &[u8]) -> Result<Framing> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    ensure!(head.starts_with("http/1.1 200"), "an answer that is none: {head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    match length {
        Some(length) => Ok(Framing::Length(length.trim().parse().context("Content-Length")?)),
        None => Ok(Framing::ChunkLength(0)),
    }
}
