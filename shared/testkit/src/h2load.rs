//! h2load, a client of HTTP/2 that nobody here wrote: many streams over few connections, and a count of what came back.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use goldleaves_toolbox::Toolbox;

/// The longest time a load may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The requests, and how they are sent.
#[derive(Debug, Clone, Copy)]
pub struct H2Load<'a> {
    /// Where to.
    pub url: &'a str,
    /// Fields of every request, as `name: value`.
    pub fields: &'a [&'a str],
    /// The number of requests in all.
    pub requests: u32,
    /// Over how many connections.
    pub connections: u32,
    /// The number of streams that each has open at once.
    pub streams: u32,
}

/// The count of h2load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct H2LoadCounts {
    /// Answers with a status of 2xx or 3xx.
    pub succeeded: u32,
    /// Answers with another one, and requests without any.
    pub failed: u32,
}

/// Sends a load and waits for its end.
///
/// # Errors
/// h2load is missing, or says something else than what it counted.
pub async fn run(load: H2Load<'_>) -> Result<H2LoadCounts> {
    let mut command = tokio::process::Command::new(Toolbox::of_target().h2load()?);
    let numbers = [("-n", load.requests), ("-c", load.connections), ("-m", load.streams), ("-t", 1)];
    command.args(numbers.iter().flat_map(|(flag, number)| [(*flag).to_owned(), number.to_string()]));
    command.args(load.fields.iter().flat_map(|field| ["-H", field])).arg(load.url);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.context("h2load did not end")?;
    let output = output.context("running h2load")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "h2load: {said}{}", String::from_utf8_lossy(&output.stderr));
    counted(&said).with_context(|| format!("h2load said {said}"))
}

/// Reads `requests: 100 total, 100 started, 100 done, 98 succeeded, 2 failed, 0 errored, 0 timeout`.
fn counted(said: &str) -> Option<H2LoadCounts> {
    let line = said.lines().find_map(|line| line.strip_prefix("requests: "))?;
    let number = |word: &str| {
        let part = line.split(", ").find(|part| part.ends_with(word))?;
        part.split(' ').next()?.parse::<u32>().ok()
    };
    Some(H2LoadCounts { succeeded: number(" succeeded")?, failed: number(" total")? - number(" succeeded")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_counted_is_read() {
        let said = "finished in 1s\nrequests: 100 total, 100 started, 99 done, 97 succeeded, 2 failed, 1 errored, 0 timeout\nstatus";
        assert_eq!(counted(said), Some(H2LoadCounts { succeeded: 97, failed: 3 }));
        assert_eq!(counted("nothing"), None);
    }
}
