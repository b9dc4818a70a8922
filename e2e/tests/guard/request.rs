//! One gateway under callgrind, in front of an upstream in the test's own process; two runs of it, which differ by the number of
//! requests alone, so that starting and stopping count for nothing.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use goldleaves_testkit::callgrind::Callgrind;
use goldleaves_testkit::client::{Connection, Request};
use goldleaves_testkit::h2_upstream::{H2Upstream, Options};
use goldleaves_testkit::program::Launch;
use goldleaves_testkit::scratch::Scratch;
use goldleaves_testkit::token::Claims;
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const SECRET: &str = "a-secret-for-counting-of-enough-bytes-0123456789";
const PATH: &str = "/api/v1/documents/7";
/// Requests of the shorter run. The longer one has twice as many, so that starting, stopping and what is done the first time count for
/// nothing.
const HALF: u64 = 150;
/// The rest of upstream and client before they go on: the gateway has come to wait for them by then, so that each
/// request takes the same turns. One that is answered while it is still looked after takes fewer, as the machine likes.
const REST: Duration = Duration::from_millis(5);
/// Only the thread that serves requests of clients is ever there.
const OF_A_CORE: &str = "goldleaves_auth::verifier::TokenVerifier::verify";

/// The upstream behind the gateway, and how the settings name it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Behind {
    /// `UPSTREAM_URL`.
    Url,
    /// The upstream `docs`, of this protocol.
    Docs(&'static str),
}

/// The gateway that is asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) behind: Behind,
    /// Its file of settings.
    pub(crate) file: String,
}

/// The runs that were counted: of each length the least.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    least: Option<(u64, u64)>,
}

impl Counted {
    /// Counts once more, and returns what a request took this time.
    pub(crate) async fn again(&mut self, asked: &Asked) -> Result<u64> {
        let (half, whole) = (run(asked, HALF).await?, run(asked, 2 * HALF).await?);
        let each = whole.checked_sub(half).context("more requests took less")? / HALF;
        let (least_half, least_whole) = self.least.unwrap_or((half, whole));
        self.least = Some((half.min(least_half), whole.min(least_whole)));
        Ok(each)
    }

    /// The instructions of one request.
    pub(crate) fn each(&self) -> u64 {
        self.least.map_or(0, |(half, whole)| whole.saturating_sub(half) / HALF)
    }
}

/// Starts an upstream that sends each answer in one piece, and returns where it is: what comes in two pieces is read in one turn or
/// in two, as the machine likes, and would cost now more and now less.
async fn in_one_piece() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("an upstream")?;
    let url = format!("http://{}", listener.local_addr().context("an upstream")?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    Ok(url)
}

async fn answer(mut stream: TcpStream) {
    let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{}", "x".repeat(200));
    let mut read = Vec::new();
    while stream.read_buf(&mut read).await.is_ok_and(|bytes| bytes > 0) {
        if read.ends_with(b"\r\n\r\n") {
            read.clear();
            tokio::time::sleep(REST).await;
            if stream.write_all(whole.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

async fn run(asked: &Asked, requests: u64) -> Result<u64> {
    let one = in_one_piece().await?;
    let two = H2Upstream::start(Options::default(), |asked| async move {
        tokio::time::sleep(REST).await;
        asked.answer("x".repeat(200), &[]).ok();
    })
    .await?;
    let named = match asked.behind {
        Behind::Url => ("UPSTREAM_URL", one),
        Behind::Docs(protocol) => {
            let address = if protocol == "h2" { format!("http://{}", two.authority()) } else { one };
            ("UPSTREAMS", json!([{"name": "docs", "addresses": [address], "protocol": protocol}]).to_string())
        }
    };
    let scratch = Scratch::new("guard")?;
    std::fs::write(scratch.join("goldleaves.toml"), &asked.file).context("a file of settings")?;
    let addresses = ["GATEWAY_ADDR", "OPS_ADDR"].map(|name| (name, "127.0.0.1:0".to_owned()));
    // Nobody is at the broker's address: handing over is not what is counted.
    let launch = Launch::new("gateway", scratch.path())
        .settings(addresses)
        .settings([named])
        .setting("DATA_DIR", scratch.join("data"))
        .setting("JWT_SECRET", SECRET)
        .setting("NATS_URL", "nats://127.0.0.1:1")
        .on_core(0);
    let count = Callgrind::new()?;
    let mut gateway = count.counted(launch)?.start()?;
    let mut connection = Connection::open(gateway.address("gateway listens on").await?).await?;
    let token = Claims::new("acme", "ann").sign(SECRET)?;
    for _ in 0..requests {
        tokio::time::sleep(REST).await;
        let response = connection.ask(&Request::get(PATH).token(&token)).await?;
        ensure!(response.status == 200, "{} {}", response.status, response.text());
    }
    gateway.signal(Signal::TERM)?;
    gateway.wait().await?;
    count.instructions(OF_A_CORE)
}
