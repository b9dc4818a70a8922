//! Listening sockets, also several on one address: one for each core.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use tokio::net::TcpListener;

/// The way a socket listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerOptions {
    /// True if several sockets may share the address, the kernel spreading connections over them (`SO_REUSEPORT`).
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

/// Lets no new connection begin at this socket; those that have begun are unaffected. Their SYN is not answered, so that
/// they try again a moment later, and then find the port closed or somebody else behind it. Closing the socket is not
/// enough: what its queue holds, or is on its way into it, would be reset with a request that may be sent already.
pub(super) fn refuse_newcomers(listener: &TcpListener) {
    // Load the byte of the flags, keep SYN and ACK, and drop what is SYN alone (classic BPF).
    let filter = [
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(AND, 0, 0, 0x12),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0x02),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    if let Err(error) = SockRef::from(listener).attach_filter(&filter) {
        tracing::debug!(%error, "new connections can't be held back; the port closes all the same");
    }
}

const LOAD_BYTE: u16 = 0x30;
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
