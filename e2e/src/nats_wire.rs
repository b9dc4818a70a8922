//! NATS in its own words, a line at a time: what a client without this project's code is answered.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// One logged-in connection.
#[derive(Debug)]
pub struct NatsWire {
    stream: BufReader<TcpStream>,
    /// The number of times it asked. The server forgets a subscription a moment after its last message: a number given
    /// out again by then would be none.
    asked: u64,
}

impl NatsWire {
    /// Connects and logs in; a server without logins takes any.
    ///
    /// # Errors
    /// No server, or a refused login.
    pub async fn connect(port: u16, user: &str, password: &str) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let mut wire = Self { stream: BufReader::new(stream), asked: 0 };
        ensure!(wire.line().await?.starts_with("INFO "), "no greeting");
        let login = json!({ "verbose": false, "user": user, "pass": password, "headers": true });
        wire.send(&format!("CONNECT {login}\r\nPING\r\n")).await?;
        match wire.line().await?.as_str() {
            "PONG" => Ok(wire),
            line => bail!("the login is answered with {line}"),
        }
    }

    /// Asks a subject and waits for the answer; a violated permission is an error with the server's words.
    ///
    /// # Errors
    /// No answer, or a complaint of the server.
    pub async fn ask(&mut self, subject: &str, payload: &str) -> Result<Value> {
        self.asked += 1;
        let (inbox, number, size) = ("_INBOX.test.answer", self.asked, payload.len());
        let once = format!("SUB {inbox} {number}\r\nUNSUB {number} 1\r\n");
        self.send(&format!("{once}PUB {subject} {inbox} {size}\r\n{payload}\r\n")).await?;
        loop {
            let line = self.line().await?;
            match line.split(' ').next() {
                Some("MSG") => {
                    let size: usize = line.rsplit(' ').next().context("no size")?.parse()?;
                    let mut body = vec![0; size + 2];
                    self.stream.read_exact(&mut body).await?;
                    return Ok(serde_json::from_slice(body.get(..size).context("no body")?)?);
                }
                Some("HMSG") => bail!("no answer but a status: nobody listens on {subject}"),
                Some("PING") => self.send("PONG\r\n").await?,
                _ => bail!("{line}"),
            }
        }
    }

    /// Gives the workers' consumer another `ack_wait`, as operations may: what a dead worker was handed comes back after it.
    ///
    /// # Errors
    /// JetStream does not take it.
    pub async fn redeliver_after(&mut self, ack_wait: Duration) -> Result<()> {
        let found = self.ask("$JS.API.CONSUMER.INFO.USAGE.meter", "").await?;
        let mut config = found.get("config").cloned().with_context(|| format!("no consumer: {found}"))?;
        let nanos = u64::try_from(ack_wait.as_nanos()).context("too long")?;
        config.as_object_mut().context("no object")?.insert("ack_wait".to_owned(), json!(nanos));
        let request = json!({ "stream_name": "USAGE", "action": "update", "config": config });
        let answer = self.ask("$JS.API.CONSUMER.CREATE.USAGE.meter", &request.to_string()).await?;
        ensure!(answer.get("error").is_none(), "{answer}");
        Ok(())
    }

    async fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.stream.get_mut().write_all(text.as_bytes()).await?)
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = tokio::time::timeout(Duration::from_secs(30), self.stream.read_line(&mut line));
        ensure!(read.await.context("the server says nothing")?? > 0, "the server closed the connection");
        Ok(line.trim_end().to_owned())
    }
}
