//! Curl lines as a person pastes them: read here and sent by the test's own client, and given to the real curl when it is
//! on this machine.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use goldleaves_testkit::client::{Request, Response};

/// The lines of a text that call curl, without what stands before it.
pub fn lines(text: &str) -> Vec<String> {
    let command = |line: &str| line.find("curl ").and_then(|at| line.get(at..)).map(|line| line.trim().to_owned());
    text.lines().filter_map(command).filter(|line| line.contains("http")).collect()
}

/// Sends what a curl line says.
///
/// # Errors
/// It uses an option that is not known here, or nobody answers.
pub async fn send(line: &str) -> Result<Response> {
    let (address, request) = parse(line)?;
    request.send(address).await
}

/// Pastes the line into a shell. None: there is no curl on this machine.
///
/// # Errors
/// curl fails.
pub fn paste(line: &str) -> Result<Option<String>> {
    let found = Command::new("curl").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        return Ok(None);
    }
    let output = Command::new("sh").arg("-c").arg(line).env("NO_PROXY", "*").output().context("starting a shell")?;
    ensure!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
}

fn parse(line: &str) -> Result<(SocketAddr, Request)> {
    let mut words = words(line).into_iter().skip(1);
    let (mut method, mut url, mut headers, mut data) = (None, None, Vec::new(), None);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-H" | "--header" => headers.push(words.next().context("a header")?),
            "-X" | "--request" => method = words.next(),
            "-d" | "--data" | "--json" => data = words.next(),
            "-s" | "-S" | "-sS" | "-i" | "-si" | "-f" | "-sf" | "--silent" | "--include" | "--fail" => {}
            option if option.starts_with('-') => bail!("an option that is not known here: {option}"),
            _ => url = Some(word),
        }
    }
    let url = url.context("a URL")?;
    let rest = url.strip_prefix("http://").context("an http URL")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let target = format!("/{path}");
    let mut request = match data {
        Some(data) => Request::post(&target, data.into_bytes()),
        None => Request::new(method.as_deref().unwrap_or("GET"), &target),
    };
    for header in headers {
        let (name, value) = header.split_once(':').context("a header")?;
        request = request.header(name, value.trim());
    }
    Ok((host.parse().with_context(|| format!("an address: {host}"))?, request))
}

/// Words as a shell splits them: quotes group, a backslash escapes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quote, mut escaped) = (None, false);
    for c in line.chars() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (None | Some('"'), '\\') => {
                escaped = true;
                continue;
            }
            (Some(open), c) if open == c => {
                quote = None;
                continue;
            }
            (None, '"' | '\'') => {
                quote = Some(c);
                continue;
            }
            (None, c) if c.is_whitespace() => {
                words.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(word) = words.last_mut() {
            word.push(c);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pasted_lines_are_understood() {
        let text = "Try it:\n  curl -i -H \"Authorization: Bearer a.b\" 'http://127.0.0.1:8080/api/v1/documents?x=1'\n\nuse curl";
        let found = lines(text);
        assert_eq!(found.len(), 1);
        let (address, request) = parse(&found[0]).unwrap();
        assert_eq!(address, "127.0.0.1:8080".parse().unwrap());
        let wire = String::from_utf8(request.wire("h")).unwrap();
        assert_eq!(wire, "GET /api/v1/documents?x=1 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer a.b\r\n\r\n");
    }
}
