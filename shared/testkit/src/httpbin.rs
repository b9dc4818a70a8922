//! httpbin, a real HTTP application that nobody here wrote, behind the waitress WSGI server.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use goldleaves_toolbox::Toolbox;

use crate::child::{Child, wait_for};
use crate::scratch::Scratch;

/// Binds first and prints its port, since waitress' own line depends on its logging.
const SERVE: &str = "\
import socket, waitress\n\
from httpbin import app\n\
listener = socket.create_server(('127.0.0.1', 0))\n\
print(listener.getsockname()[1], flush=True)\n\
waitress.serve(app, sockets=[listener], threads=8)\n";

/// A running httpbin. It ends with the value.
#[derive(Debug)]
pub struct Httpbin {
    address: SocketAddr,
    _child: Child,
    _scratch: Scratch,
}

impl Httpbin {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// Python or httpbin is missing, or it does not start.
    pub async fn start() -> Result<Self> {
        let tool = Toolbox::of_target().httpbin()?;
        let scratch = Scratch::new("httpbin")?;
        let (stdout, stderr) = (scratch.join("stdout"), scratch.join("stderr"));
        let mut command = Command::new(tool.python);
        command.args(["-c", SERVE]).env("PYTHONPATH", tool.site).env("PYTHONDONTWRITEBYTECODE", "1");
        command.current_dir(scratch.path()).stdin(Stdio::null());
        command.stdout(std::fs::File::create(&stdout).context("httpbin's output")?);
        command.stderr(std::fs::File::create(&stderr).context("httpbin's output")?);
        let mut child = Child::spawn(command, "httpbin")?;
        let port = wait_for("httpbin to print its port", Duration::from_secs(60), async || {
            let text = std::fs::read_to_string(&stdout).unwrap_or_default();
            if let Some(status) = child.ended()? {
                bail!("httpbin ended with {status}: {}", std::fs::read_to_string(&stderr).unwrap_or_default());
            }
            Ok(text.ends_with('\n').then(|| text.trim().parse::<u16>().ok()).flatten())
        })
        .await?;
        Ok(Self { address: SocketAddr::from(([127, 0, 0, 1], port)), _child: child, _scratch: scratch })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Request;

    #[tokio::test]
    async fn it_answers() {
        let httpbin = Httpbin::start().await.unwrap();
        let response = Request::post("/anything", "hello").send(httpbin.address()).await.unwrap();
        assert_eq!(response.json().unwrap()["data"], "hello");
    }
}
