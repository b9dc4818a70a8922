//! Where calls go, as it is written: `http://`, `https://` or `unix:`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use http::HeaderValue;
use http::uri::{Authority, Scheme, Uri};
use rustls::pki_types::ServerName;

use super::target::Target;

/// The longest path of a socket: `sun_path` holds 108 bytes, and a zero ends it.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// An upstream as `UPSTREAM_URL` and `BILLING_URL` name it: scheme, host and port, no path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    host: String,
    port: u16,
    authority: HeaderValue,
    /// `unix:` and a path.
    socket: Option<PathBuf>,
    is_https: bool,
}

/// The reason a text is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Not a URL.
    #[error("not a URL such as http://127.0.0.1:9000")]
    Malformed,
    /// `unix:` without a whole path.
    #[error("a socket is named by its whole path, such as unix:/run/docs.sock")]
    RelativeSocket,
    /// More than the kernel takes.
    #[error("the path of a socket has at most {SOCKET_PATH_BYTES_MAX} bytes")]
    LongSocket,
    /// Nobody can listen at it.
    #[error("port 0 is none that anybody listens at")]
    PortZero,
    /// A path, a query or a user.
    #[error("only scheme, host and port belong here: clients' paths are forwarded as they are")]
    MoreThanOrigin,
}

impl Origin {
    /// The host's name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns whether it is spoken to over TLS.
    pub const fn is_https(&self) -> bool {
        self.is_https
    }

    /// The name that its certificate must have where nothing else is said; `None` when no certificate can have it, such as that
    /// of `https://10.1` or of a label with more than 63 letters.
    pub(crate) fn server_name(&self) -> Option<ServerName<'static>> {
        ServerName::try_from(self.host.clone()).ok()
    }

    /// Returns what is wrong with its name, where it is `https` and needs another name for its certificate.
    pub(crate) fn unnameable(&self) -> Option<String> {
        let host = &self.host;
        (self.is_https && self.server_name().is_none()).then(|| {
            format!("names {host:?}, which no certificate can have as a name; set server_name to the name that it has")
        })
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The address itself, where the host is one and no name.
    pub(crate) fn target(&self) -> Option<Target> {
        if let Some(path) = &self.socket {
            return Some(Target::Unix(path.clone()));
        }
        self.host.parse().ok().map(|address| Target::Tcp(SocketAddr::new(address, self.port)))
    }

    /// Returns whether it is the same address, however the two are written: `http://LOCALHOST:80` is `http://localhost`.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        // A path of a socket is compared by its parts.
        self.is_https == other.is_https
            && self.port == other.port
            && self.socket == other.socket
            && match (self.host.parse::<IpAddr>(), other.host.parse::<IpAddr>()) {
                (Ok(one), Ok(two)) => one.to_canonical() == two.to_canonical(),
                _ => self.host == other.host,
            }
    }

    /// `host:port`, for requests that came without `Host`.
    pub(crate) const fn authority(&self) -> &HeaderValue {
        &self.authority
    }
}

impl Origin {
    fn unix(path: &str) -> Result<Self, OriginError> {
        if !path.starts_with('/') || path.contains('\0') {
            return Err(OriginError::RelativeSocket);
        }
        if path.len() > SOCKET_PATH_BYTES_MAX {
            return Err(OriginError::LongSocket);
        }
        let authority = HeaderValue::from_static("localhost");
        Ok(Self {
            host: "localhost".to_owned(),
            port: 0,
            authority,
            socket: Some(PathBuf::from(path)),
            is_https: false,
        })
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::unix(path);
        }
        let uri: Uri = text.parse().map_err(|_| OriginError::Malformed)?;
        let scheme = uri.scheme().ok_or(OriginError::Malformed)?;
        let is_https = *scheme == Scheme::HTTPS;
        if !is_https && *scheme != Scheme::HTTP {
            return Err(OriginError::Malformed);
        }
        let authority: &Authority = uri.authority().ok_or(OriginError::Malformed)?;
        let plain_path = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
        if !plain_path || authority.as_str().contains('@') || text.contains('#') {
            return Err(OriginError::MoreThanOrigin);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let has_port = authority.as_str().len() > authority.host().len();
        if host.is_empty() || (has_port && authority.port_u16().is_none()) {
            return Err(OriginError::Malformed);
        }
        let port = authority.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        if port == 0 {
            return Err(OriginError::PortZero);
        }
        let value = HeaderValue::from_str(authority.as_str()).map_err(|_| OriginError::Malformed)?;
        Ok(Self { host, port, authority: value, socket: None, is_https })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.socket {
            return write!(out, "unix:{}", path.display());
        }
        let scheme = if self.is_https { "https" } else { "http" };
        match self.host.contains(':') {
            true => write!(out, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(out, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_a_host_and_a_port() {
        let cases = [
            ("http://h", "h", 80),
            ("http://h:9/", "h", 9),
            ("http://[::1]:9000", "::1", 9000),
            ("https://h", "h", 443),
        ];
        for (text, host, port) in cases {
            let origin: Origin = text.parse().unwrap();
            assert_eq!((origin.host(), origin.port()), (host, port), "{text}");
        }
    }

    #[test]
    fn what_is_more_or_less_than_an_origin_is_refused() {
        let cases = [
            ("unix:run/docs.sock", OriginError::RelativeSocket),
            ("h:80", OriginError::Malformed),
            ("ftp://h", OriginError::Malformed),
            ("http://h/base", OriginError::MoreThanOrigin),
            ("http://h/?q=1", OriginError::MoreThanOrigin),
            ("http://u:p@h", OriginError::MoreThanOrigin),
            ("http://", OriginError::Malformed),
            ("http://h:99999", OriginError::Malformed),
            ("http://h:0", OriginError::PortZero),
            ("https://[::1]:0/", OriginError::PortZero),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Origin>().unwrap_err(), error, "{text}");
        }
    }
    #[test]
    fn a_socket_has_a_path_that_the_kernel_takes() {
        let longest = format!("unix:/{}", "s".repeat(106));
        assert!(longest.parse::<Origin>().is_ok());
        assert_eq!(format!("{longest}s").parse::<Origin>().unwrap_err(), OriginError::LongSocket);
    }

    #[test]
    fn one_address_is_one_however_it_is_written() {
        let origin = |text: &str| text.parse::<Origin>().unwrap();
        for (one, two, same) in [
            ("http://LOCALHOST:80", "http://localhost/", true),
            ("https://h", "https://H:443", true),
            ("http://[::1]:9", "http://[0:0:0:0:0:0:0:1]:9", true),
            ("http://[::ffff:127.0.0.1]:9", "http://127.0.0.1:9", true),
            ("unix:/run//a.sock", "unix:/run/./a.sock", true),
            ("unix:/run/a.sock", "unix:/run/b.sock", false),
            ("http://h:9", "http://h:8", false),
            ("http://h:9", "https://h:9", false),
            ("http://h", "unix:/h", false),
        ] {
            assert_eq!(origin(one).is_at(&origin(two)), same, "{one} {two}");
        }
    }
}
