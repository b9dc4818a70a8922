//! A TCP proxy whose wire can be cut, stalled and mended, between a program and a server it depends on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The state of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WireState {
    /// Bytes flow.
    Whole,
    /// Connections are open, no byte moves.
    Stalled,
    /// Connections are closed, new ones too, at once.
    Cut,
}

/// A proxy to one server. It ends with the value.
#[derive(Debug)]
pub struct WireProxy {
    address: SocketAddr,
    target: watch::Sender<String>,
    wire: watch::Sender<WireState>,
    /// Connections with a smaller number are silent for ever.
    silent: watch::Sender<u64>,
    accepted: Arc<AtomicU64>,
    accepting: tokio::task::JoinHandle<()>,
}

impl WireProxy {
    /// Listens on a free port and passes everything on to `target`, a `host:port`.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn start(target: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("binding the proxy")?;
        let address = listener.local_addr().context("the proxy's address")?;
        let (wire, seen) = watch::channel(WireState::Whole);
        let (silent, silenced) = watch::channel(0);
        let (target, aimed) = watch::channel(target.to_owned());
        let accepted = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&accepted);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::Relaxed);
                let mut silenced = silenced.clone();
                let passing = connection(client, aimed.borrow().clone(), seen.clone());
                tokio::spawn(async move {
                    let mut passing = std::pin::pin!(passing);
                    let silence = async { silenced.wait_for(|first| number < *first).await.is_ok() };
                    let is_silent = tokio::select! {
                        () = &mut passing => false,
                        is_silent = silence => is_silent,
                    };
                    if is_silent {
                        // Neither read from nor closed.
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Ok(Self { address, target, wire, silent, accepted, accepting })
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Passes new connections on to another `host:port`, as a name does that points elsewhere from now on.
    pub fn aim(&self, target: &str) {
        self.target.send_replace(target.to_owned());
    }

    /// Closes every connection and every new one.
    pub fn cut(&self) {
        self.wire.send_replace(WireState::Cut);
    }

    /// Keeps every connection open and lets no byte through: what a hanging server looks like.
    pub fn stall(&self) {
        self.wire.send_replace(WireState::Stalled);
    }

    /// Swallows every byte of the connections that are open now, without an end: what a firewall that forgot them looks like.
    /// New ones work.
    pub fn forget(&self) {
        self.silent.send_replace(self.accepted.load(Ordering::Relaxed));
    }

    /// Lets bytes flow again; connections that were cut stay gone.
    pub fn mend(&self) {
        self.wire.send_replace(WireState::Whole);
    }
}

impl Drop for WireProxy {
    fn drop(&mut self) {
        self.wire.send_replace(WireState::Cut);
        self.accepting.abort();
    }
}

async fn connection(client: TcpStream, target: String, mut wire: watch::Receiver<WireState>) {
    if wire.wait_for(|wire| *wire != WireState::Stalled).await.is_ok_and(|wire| *wire == WireState::Cut) {
        return;
    }
    let Ok(server) = TcpStream::connect(&target).await else { return };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let there = pass(client_read, server_write, wire.clone());
    let back = pass(server_read, client_write, wire.clone());
    let cut = async { wire.wait_for(|wire| *wire == WireState::Cut).await.map(drop) };
    tokio::select! {
        _ = async { tokio::join!(there, back) } => {}
        _ = cut => {}
    }
}

/// Moves bytes while the wire is whole; passes the end of one side on to the other.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut wire: watch::Receiver<WireState>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(length) = from.read(&mut buffer).await else { return };
        if wire.wait_for(|wire| *wire != WireState::Stalled).await.is_err() {
            return;
        }
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
            to.shutdown().await.ok();
            return;
        };
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo_server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await.ok();
                });
            }
        });
        address
    }

    async fn echo(stream: &mut TcpStream, text: &str) -> std::io::Result<String> {
        stream.write_all(text.as_bytes()).await?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).await?;
        Ok(String::from_utf8(answer).unwrap())
    }

    #[tokio::test]
    async fn the_wire_is_cut_stalled_and_mended() {
        let proxy = WireProxy::start(&echo_server().await.to_string()).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(echo(&mut stream, "one").await.unwrap(), "one");

        proxy.stall();
        let answer = tokio::spawn(async move { (echo(&mut stream, "two").await, stream) });
        tokio::task::yield_now().await;
        assert!(!answer.is_finished());
        proxy.mend();
        let (answer, mut stream) = answer.await.unwrap();
        assert_eq!(answer.unwrap(), "two");

        proxy.cut();
        assert!(echo(&mut stream, "three").await.is_err());
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(echo(&mut stream, "four").await.is_err());

        proxy.mend();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(echo(&mut stream, "five").await.unwrap(), "five");
    }
}
