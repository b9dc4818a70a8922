//! Latency at a fixed rate, from the moment at which a request was to be sent: a server that falls behind is not asked less.
//!
//! A thread for each connection, because a runtime's timers tell milliseconds apart and a proxy takes a tenth of one.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::load::{Answer, CONNECTIONS_MAX, Requests, Seen};

/// Requests per second, of all connections together.
const RATE: u32 = 2_000;

/// Asks at that rate for so long. Blocks.
pub(crate) fn run(server: SocketAddr, requests: &Requests, duration: Duration) -> Result<Seen> {
    let begin = Instant::now() + Duration::from_millis(20);
    let start = |number: usize| {
        let requests = requests.clone();
        std::thread::spawn(move || connection(server, &requests, number, begin..begin + duration))
    };
    let threads: Vec<_> = (0..CONNECTIONS_MAX).map(start).collect();
    let mut micros = Vec::new();
    for thread in threads {
        micros.extend(thread.join().map_err(|_| anyhow::anyhow!("a connection's thread panicked"))??);
    }
    Ok(Seen::of(micros, begin.elapsed()))
}

fn connection(server: SocketAddr, requests: &Requests, number: usize, span: Range<Instant>) -> Result<Vec<u32>> {
    // The kernel may wake a thread 50 µs late otherwise.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).context("a timer's slack")?;
    let mut stream = TcpStream::connect(server).context("connecting")?;
    stream.set_nodelay(true).context("TCP_NODELAY")?;
    let mut buffer = vec![0; 16 * 1024];
    let mut micros = Vec::new();
    let between = Duration::from_secs(1) / RATE;
    let mut intended = span.start + between * u32::try_from(number).unwrap_or_default();
    for request in requests.from(number) {
        if intended >= span.end {
            break;
        }
        std::thread::sleep(intended.saturating_duration_since(Instant::now()));
        stream.write_all(request).context("sending")?;
        let mut answer = Answer::default();
        while !answer.complete {
            let length = stream.read(&mut buffer).context("reading")?;
            ensure!(length > 0, "the server closed the connection");
            answer.feed(buffer.get(..length).unwrap_or_default())?;
        }
        micros.push(u32::try_from(intended.elapsed().as_micros()).unwrap_or(u32::MAX));
        intended += between * u32::try_from(CONNECTIONS_MAX).unwrap_or_default();
    }
    Ok(micros)
}
