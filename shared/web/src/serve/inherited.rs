//! Listening sockets that a service manager made and hands over (`LISTEN_FDS`, the protocol of systemd). They outlive the
//! process: what waits in their queues is served by whoever comes next.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::SockRef;

/// The sockets that this process was given and nobody has taken yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Socket>);

#[derive(Debug)]
struct Socket {
    name: String,
    address: SocketAddr,
    listener: TcpListener,
}

/// Why a socket can't be used.
#[derive(Debug, thiserror::Error)]
#[error("LISTEN_FDS: socket {number} ({name}) is no listening TCP socket; expected one such as ListenStream= makes")]
pub struct InheritedError {
    number: usize,
    name: String,
    #[source]
    source: io::Error,
}

impl Inherited {
    /// The sockets of this process's environment; none where it has none, or where they are another process's.
    ///
    /// Must be called while the process has one thread: it takes the variables away, so that no child takes them for its own.
    ///
    /// # Errors
    /// One of them is no listening TCP socket.
    pub fn from_environment() -> Result<Self, InheritedError> {
        if std::env::var_os("LISTEN_PID").is_none_or(|process| process.is_empty()) {
            return Ok(Self::default());
        }
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut given = ListenFd::from_env();
        let mut sockets = Vec::with_capacity(given.len());
        for number in 0..given.len() {
            let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown").to_owned();
            let wrong = |source| InheritedError { number, name: name.clone(), source };
            let listener = given.take_tcp_listener(number).map_err(wrong)?;
            let Some(listener) = listener else { continue };
            let is_listening = SockRef::from(&listener).is_listener().map_err(wrong)?;
            if !is_listening {
                return Err(wrong(io::Error::other("nothing listens at it")));
            }
            listener.set_nonblocking(true).map_err(wrong)?;
            let address = listener.local_addr().map_err(wrong)?;
            sockets.push(Socket { name, address, listener });
        }
        Ok(Self(sockets))
    }

    /// Takes those of this name; where there is none, those that listen at this address.
    pub fn take(&mut self, name: &str, address: SocketAddr) -> Vec<TcpListener> {
        let is_named = self.0.iter().any(|socket| socket.name == name);
        let all = std::mem::take(&mut self.0);
        let is_wanted = |socket: &Socket| match is_named {
            true => socket.name == name,
            false => socket.address == address,
        };
        let (taken, left) = all.into_iter().partition(is_wanted);
        self.0 = left;
        taken.into_iter().map(|socket| socket.listener).collect()
    }

    /// The names of those that nobody took.
    pub fn left(&self) -> Vec<String> {
        self.0.iter().map(|socket| format!("{} at {}", socket.name, socket.address)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(name: &str) -> Socket {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Socket { name: name.to_owned(), address: listener.local_addr().unwrap(), listener }
    }

    #[test]
    fn a_socket_is_taken_by_its_name_else_by_its_address() {
        let sockets = vec![socket("gateway"), socket("unknown"), socket("gateway"), socket("other")];
        let (second, free) = (sockets[1].address, "127.0.0.1:1".parse().unwrap());
        let mut inherited = Inherited(sockets);
        assert!(inherited.take("billing", free).is_empty());
        assert_eq!(inherited.take("gateway", second).len(), 2);
        assert_eq!(inherited.take("billing", second).len(), 1);
        let left = inherited.left();
        assert!(left.len() == 1 && left[0].starts_with("other at "), "{left:?}");
    }
}
