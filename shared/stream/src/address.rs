//! `NATS_URL`: one or several servers, and the login inside. No error and no `Debug` shows any of it but the hosts.

use std::fmt;
use std::str::FromStr;

use async_nats::ServerAddr;
use percent_encoding::percent_decode_str;

/// The servers to try, in any order, and how to log in.
#[derive(Clone)]
pub struct Servers {
    addresses: Vec<ServerAddr>,
    login: Option<Login>,
}

/// The login before the `@`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    /// `user:password@`
    User { user: String, password: String },
    /// `token@`
    Token(String),
}

/// The reason a text names no servers. Numbers count from 1; the text itself may hold a password and is never repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing there.
    #[error("no server is named; wanted is an address such as nats://host:4222, several separated by commas")]
    Empty,
    /// Not an address.
    #[error("server {position} is not an address such as nats://host:4222")]
    Malformed {
        /// The server's place in the list.
        position: usize,
    },
    /// A scheme other than `nats` and `tls`.
    #[error("server {position} has another scheme than nats:// and tls://")]
    Scheme {
        /// The server's place in the list.
        position: usize,
    },
    /// A user, password or token that is not UTF-8 after percent-decoding.
    #[error("the user, password or token of server {position} is not UTF-8 after percent-decoding")]
    Login {
        /// The server's place in the list.
        position: usize,
    },
    /// Two servers with different logins.
    #[error("server {position} has another user, password or token than a server before it; all must be the same")]
    TwoLogins {
        /// The server's place in the list.
        position: usize,
    },
}

impl Servers {
    pub(crate) fn addresses(&self) -> &[ServerAddr] {
        &self.addresses
    }

    pub(crate) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }
}

impl FromStr for Servers {
    type Err = AddressError;

    /// Parses addresses separated by commas.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let mut servers = Self { addresses: Vec::new(), login: None };
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        for (part, position) in parts.zip(1..) {
            let (address, login) = parse_one(part, position)?;
            servers.addresses.push(address);
            match (&servers.login, login) {
                (Some(before), Some(login)) if *before != login => return Err(AddressError::TwoLogins { position }),
                (_, Some(login)) => servers.login = Some(login),
                (_, None) => {}
            }
        }
        if servers.addresses.is_empty() { Err(AddressError::Empty) } else { Ok(servers) }
    }
}

fn parse_one(text: &str, position: usize) -> Result<(ServerAddr, Option<Login>), AddressError> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("nats", text));
    if !matches!(scheme, "nats" | "tls") {
        return Err(AddressError::Scheme { position });
    }
    // The last `@` ends the login, so that a password which holds one unescaped still works.
    let (login, host) = match rest.rsplit_once('@') {
        Some((login, host)) => (Some(parse_login(login, position)?), host),
        None => (None, rest),
    };
    let host = host.strip_suffix('/').unwrap_or(host);
    let malformed = AddressError::Malformed { position };
    if host.is_empty() || host.contains(['/', '?', '#']) {
        return Err(malformed);
    }
    let address = format!("{scheme}://{host}").parse::<ServerAddr>().map_err(|_| malformed.clone())?;
    if address.host().is_empty() { Err(malformed) } else { Ok((address, login)) }
}

fn parse_login(text: &str, position: usize) -> Result<Login, AddressError> {
    let decode = |part: &str| {
        let decoded = percent_decode_str(part).decode_utf8().map_err(|_| AddressError::Login { position })?;
        Ok::<_, AddressError>(decoded.into_owned())
    };
    Ok(match text.split_once(':') {
        Some((user, password)) => Login::User { user: decode(user)?, password: decode(password)? },
        None => Login::Token(decode(text)?),
    })
}

/// Hosts and ports only.
impl fmt::Display for Servers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.addresses.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(out, "{comma}{}:{}", address.host(), address.port())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Servers({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_servers_share_one_login() {
        let servers: Servers = "nats://gate:p%40ss@one:4222, tls://two:4333/,three".parse().unwrap();
        assert_eq!(servers.to_string(), "one:4222,two:4333,three:4222");
        assert!(servers.login() == Some(&Login::User { user: "gate".into(), password: "p@ss".into() }));
        assert!(servers.addresses()[1].tls_required() && !servers.addresses()[0].tls_required());
    }

    #[test]
    fn a_login_without_colon_is_a_token() {
        let servers: Servers = "nats://s3cr3t@[::1]:4222".parse().unwrap();
        assert!(servers.login() == Some(&Login::Token("s3cr3t".into())));
        assert_eq!(servers.to_string(), "::1:4222");
    }

    #[test]
    fn neither_errors_nor_debug_show_a_secret() {
        let servers: Servers = "nats://user:hunter2@one".parse().unwrap();
        assert!(!format!("{servers:?}").contains("hunter2"));
        let addresses = format!("{:?}", servers.addresses());
        assert!(!addresses.contains("hunter2") && addresses.contains("password: None"), "{addresses}");
        let wrong = [
            ("", AddressError::Empty),
            (" , ", AddressError::Empty),
            ("nats://a:hunter2@one:port", AddressError::Malformed { position: 1 }),
            ("nats://a:hunter2@", AddressError::Malformed { position: 1 }),
            ("nats://one,http://hunter2@two", AddressError::Scheme { position: 2 }),
            ("nats://a:hunter2@one,nats://b:hunter2@two", AddressError::TwoLogins { position: 2 }),
            ("nats://%ff:hunter2@one", AddressError::Login { position: 1 }),
            ("nats://one/hunter2", AddressError::Malformed { position: 1 }),
        ];
        for (text, wanted) in wrong {
            let error = text.parse::<Servers>().unwrap_err();
            assert_eq!(error, wanted, "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
