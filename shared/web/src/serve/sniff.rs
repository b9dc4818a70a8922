//! Tells HTTP/1 from h2 by a connection's first bytes, in bounded time.
//!
//! `hyper_util::server::conn::auto` waits for them without limit (hyper issue 3962).

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The bytes that every h2 connection starts with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FIRST_READ_BYTES: usize = 4_096;

/// The protocol that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SniffedVersion {
    Http1,
    H2,
}

/// The meaning of the first bytes, and the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sniffed {
    Speaks(SniffedVersion, BytesMut),
    /// The client left without a word.
    Left,
    /// The bytes did not come in time.
    TimedOut,
}

/// Reads until the version is known.
///
/// # Errors
/// The connection broke.
pub(super) async fn sniff(stream: &mut (impl AsyncRead + Unpin), limit: Duration) -> io::Result<Sniffed> {
    match tokio::time::timeout(limit, read_version(stream)).await {
        Ok(sniffed) => sniffed,
        Err(_) => Ok(Sniffed::TimedOut),
    }
}

async fn read_version(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Sniffed> {
    let mut bytes = BytesMut::with_capacity(FIRST_READ_BYTES);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(if bytes.is_empty() { Sniffed::Left } else { Sniffed::Speaks(SniffedVersion::Http1, bytes) });
        }
        if bytes.starts_with(PREFACE) {
            return Ok(Sniffed::Speaks(SniffedVersion::H2, bytes));
        }
        if !PREFACE.starts_with(&bytes) {
            return Ok(Sniffed::Speaks(SniffedVersion::Http1, bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn tells_versions_apart_however_the_bytes_come() {
        let h2 = [PREFACE, b"more"].concat();
        for (sent, version) in [
            (h2.as_slice(), SniffedVersion::H2),
            (b"GET / HTTP/1.1\r\n", SniffedVersion::Http1),
            (b"PRI * HTTP/1.1\r\n\r\n", SniffedVersion::Http1),
            (b"PUT / HTTP/1.1\r\n", SniffedVersion::Http1),
            (b"\r\n", SniffedVersion::Http1),
        ] {
            for step in [1, 3, sent.len()] {
                let (mut client, mut server) = tokio::io::duplex(1);
                let bytes = sent.to_vec();
                let writer = tokio::spawn(async move {
                    for piece in bytes.chunks(step) {
                        if client.write_all(piece).await.is_err() {
                            break;
                        }
                    }
                });
                let sniffed = sniff(&mut server, Duration::from_secs(60)).await.unwrap();
                let Sniffed::Speaks(found, read) = sniffed else { panic!("{sniffed:?}") };
                assert_eq!(found, version);
                assert!(sent.starts_with(&read), "nothing is lost");
                drop(server);
                writer.await.unwrap();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_half_a_preface_time_out() {
        for sent in [&b""[..], b"PRI * HTTP"] {
            let (mut client, mut server) = tokio::io::duplex(64);
            client.write_all(sent).await.unwrap();
            assert_eq!(sniff(&mut server, Duration::from_secs(10)).await.unwrap(), Sniffed::TimedOut);
        }
    }

    #[tokio::test]
    async fn leaving_is_no_error() {
        let (client, mut server) = tokio::io::duplex(64);
        drop(client);
        assert_eq!(sniff(&mut server, Duration::from_secs(10)).await.unwrap(), Sniffed::Left);
    }
}
