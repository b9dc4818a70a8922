//! Listening sockets, also several on one address: one for each core.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// How a socket listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerOptions {
    /// Whether several sockets may share the address, the kernel spreading connections over them (`SO_REUSEPORT`).
    pub shared: bool,
    /// Connections the kernel keeps waiting.
    pub backlog: i32,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self { shared: false, backlog: 1_024 }
    }
}

/// Listens on an address. With port 0 the kernel chooses; ask `local_addr` and bind the others there.
///
/// # Errors
/// The address is taken or not ours.
///
/// # Panics
/// Outside a tokio runtime: the listener belongs to the runtime it is bound in. To bind on another thread than the
/// serving one, see [`ListenerOptions::bind_std`].
pub fn bind(address: SocketAddr, options: ListenerOptions) -> io::Result<TcpListener> {
    TcpListener::from_std(options.bind_std(address)?)
}

impl ListenerOptions {
    /// A listening socket that belongs to no runtime yet: hand it to `TcpListener::from_std` where it is served.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub fn bind_std(self, address: SocketAddr) -> io::Result<std::net::TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restarted server must not wait for the old connections' TIME_WAIT.
        socket.set_reuse_address(true)?;
        if self.shared {
            socket.set_reuse_port(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(self.backlog)?;
        Ok(socket.into())
    }
}
