//! The host and port that a request names, as RFC 3986 (3.2.2, 3.2.3) writes them. It says nothing of whether there is such a host.

use std::net::Ipv6Addr;

/// Returns whether this is `host [":" port]`. An empty host is one: HTTP/1.1 sends it where a target has no authority.
pub(crate) fn is_host_and_port(text: &[u8]) -> bool {
    let (is_host, port) = match text.strip_prefix(b"[") {
        Some(literal) => {
            let Some(end) = literal.iter().position(|byte| *byte == b']') else { return false };
            let (literal, rest) = literal.split_at(end);
            (is_address(literal), rest.strip_prefix(b"]").unwrap_or(rest))
        }
        None => {
            let end = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
            let (name, rest) = text.split_at(end);
            (is_name(name), rest)
        }
    };
    is_host && is_port(port)
}

/// Nothing, or a colon and digits, which may be none.
fn is_port(text: &[u8]) -> bool {
    match text {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// The inside of brackets: an IPv6 address, or one of a later version.
fn is_address(literal: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(literal) else { return false };
    if let Some(later) = text.strip_prefix(['v', 'V']) {
        let Some((version, address)) = later.split_once('.') else { return false };
        let is_version = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_hexdigit());
        return is_version && !address.is_empty() && address.bytes().all(|byte| is_plain(byte) || byte == b':');
    }
    text.parse::<Ipv6Addr>().is_ok()
}

/// A registered name or an IPv4 address, which is written like one.
fn is_name(name: &[u8]) -> bool {
    let mut rest = name;
    while let Some((first, behind)) = rest.split_first() {
        rest = match (first, behind) {
            (b'%', [high, low, behind @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => behind,
            (byte, behind) if is_plain(*byte) => behind,
            _ => return false,
        };
    }
    true
}

/// The unreserved letters and the delimiters that a host may have.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~')
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_what_the_grammar_says() {
        for host in [
            "",
            ":80",
            "a",
            "a:",
            "A.example:8080",
            "127.0.0.1:1",
            "x_y~!$&'()*+,;=",
            "a%2Db",
            "[::1]",
            "[::1]:443",
            "[::ffff:1.2.3.4]",
            "[v1.a:b]",
            "a:99999999",
        ] {
            assert!(is_host_and_port(host.as_bytes()), "{host}");
        }
        for host in [
            "[::1",
            "[x]",
            "[]",
            "[::1]x",
            "[::1]:8a",
            "[::1%25eth0]",
            "[1.2.3.4]",
            "[v.a]",
            "[v1.]",
            "[vx.a]",
            "::1",
            "a:b",
            "a:1:2",
            "a[",
            "a]",
            "[[::1]]",
            "a%2",
            "a%zz",
            "%",
            "a b",
            "a/b",
            "u@b",
            "a,\"b\"",
            "a\\b",
            "a|b",
            "a#b",
            "a?b",
            "\u{fc}",
        ] {
            assert!(!is_host_and_port(host.as_bytes()), "{host}");
        }
    }
}
