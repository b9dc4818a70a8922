//! Memory: idle after a load, and while many large answers flow, and while they stand still because their clients take nothing.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::cpu;
use crate::load::{self, CONNECTIONS_MAX, Requests, Size};
use crate::server::Server;
use crate::table::{number, print};

/// The longest time answers may come until nothing moves any more.
const STANDSTILL: Duration = Duration::from_millis(700);

/// The time for which large answers flow, and the interval at which their server's memory is looked at.
const FLOWING: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(50);

/// Prints how much each of these servers holds.
pub(crate) async fn measure(servers: &[&Server], tokens: &[String]) -> Result<()> {
    let mut rows = Vec::new();
    for server in servers {
        let idle = cpu::own_mib(server.process)?;
        let flowing = flowing(server, tokens).await?;
        let stalled = stalled(server, tokens).await?;
        tokio::time::sleep(STANDSTILL).await;
        let after = cpu::own_mib(server.process)?;
        rows.push([vec![server.name.to_owned()], [idle, flowing, stalled, after].map(number).to_vec()].concat());
    }
    let columns = ["server", "idle", "64 × 1 MiB flow", "64 × 1 MiB stand still", "after that"];
    print("Memory (PSS, MiB)", &columns, &rows);
    Ok(())
}

/// Returns the most that is held while clients take large answers as fast as they come.
async fn flowing(server: &Server, tokens: &[String]) -> Result<f64> {
    let requests = Requests::new(server.path, tokens, Size::Large);
    let mut load = std::pin::pin!(load::run(server.address, &requests, CONNECTIONS_MAX, Size::Large, FLOWING));
    let mut most: f64 = 0.0;
    loop {
        tokio::select! {
            seen = &mut load => return seen.map(|_| most),
            () = tokio::time::sleep(LOOK) => most = most.max(cpu::own_mib(server.process)?),
        }
    }
}

/// Returns what is held for clients that asked and read only the beginning of their answers.
async fn stalled(server: &Server, tokens: &[String]) -> Result<f64> {
    let requests = Requests::new(server.path, tokens, Size::Large);
    let mut connections = Vec::new();
    for number in 0..CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(server.address).await.context("connecting")?;
        stream.write_all(requests.from(number).next().unwrap_or_default()).await.context("sending")?;
        let mut beginning = [0; 16];
        stream.read_exact(&mut beginning).await.context("reading")?;
        connections.push(stream);
    }
    tokio::time::sleep(STANDSTILL).await;
    cpu::own_mib(server.process)
}
