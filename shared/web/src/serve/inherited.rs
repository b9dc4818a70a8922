//! Listening sockets that a service manager made and hands over (`LISTEN_FDS`, the protocol of systemd). They outlive the
//! process: what waits in their queues is served by whoever comes next.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::SockRef;

/// More sockets than this are a slip of whoever wrote the number.
const SOCKETS_MAX: usize = 4_096;

/// The sockets that this process was given and nobody has taken yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Socket>,
    unused: Option<Unused>,
}

/// The reason what the environment says of sockets is not used.
#[derive(Debug, PartialEq, Eq)]
enum Unused {
    /// They are another process's, as is usual for children of one that was given some.
    Foreign(String),
    /// It makes no sense.
    Unusable(String),
}

#[derive(Debug)]
struct Socket {
    name: String,
    address: SocketAddr,
    listener: TcpListener,
}

/// The reason a socket can't be used.
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
        let variable = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let (count, process) = (variable("LISTEN_FDS"), variable("LISTEN_PID"));
        if let Err(unused) = usable(count.as_deref(), process.as_deref(), std::process::id()) {
            return Ok(Self { sockets: Vec::new(), unused });
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
        Ok(Self { sockets, unused: None })
    }

    /// Returns whether [`Self::take`] would find any.
    pub fn has(&self, name: &str, address: SocketAddr) -> bool {
        self.sockets.iter().any(|socket| socket.name == name || socket.address == address)
    }

    /// Takes those of this name; where there is none, those that listen at this address.
    pub fn take(&mut self, name: &str, address: SocketAddr) -> Vec<TcpListener> {
        let is_named = self.sockets.iter().any(|socket| socket.name == name);
        let all = std::mem::take(&mut self.sockets);
        let is_wanted = |socket: &Socket| match is_named {
            true => socket.name == name,
            false => socket.address == address,
        };
        let (taken, left) = all.into_iter().partition(is_wanted);
        self.sockets = left;
        taken.into_iter().map(|socket| socket.listener).collect()
    }

    /// Logs what of the environment's sockets is not used, and why.
    pub fn say_unused(&self) {
        match &self.unused {
            Some(Unused::Foreign(why)) => tracing::info!("{why}; listening at the addresses of the settings"),
            Some(Unused::Unusable(why)) => tracing::warn!("{why}; listening at the addresses of the settings"),
            None => {}
        }
        let left = self.left();
        if !left.is_empty() {
            tracing::warn!("LISTEN_FDS hands over {}, which nobody here serves", left.join(", "));
        }
    }

    /// The names of those that nobody took.
    fn left(&self) -> Vec<String> {
        self.sockets.iter().map(|socket| format!("{} at {}", socket.name, socket.address)).collect()
    }
}

/// Makes sure that sockets are handed over to the process of this id; the error says why not, where something is said of any.
fn usable(count: Option<&str>, process: Option<&str>, own: u32) -> Result<(), Option<Unused>> {
    let unusable = |why: String| Err(Some(Unused::Unusable(why)));
    let [count, process] = [count, process].map(|value| value.filter(|value| !value.is_empty()));
    let (count, process) = match (count, process) {
        (None, None) => return Err(None),
        (Some(count), Some(process)) => (count, process),
        (Some(_), None) => return unusable("LISTEN_FDS is set, and LISTEN_PID is not: no socket is taken".to_owned()),
        (None, Some(_)) => return unusable("LISTEN_PID is set, and LISTEN_FDS is not: no socket is taken".to_owned()),
    };
    match (count.parse::<usize>(), process.parse::<u32>()) {
        (_, Err(_)) => {
            unusable(format!("LISTEN_PID is {process:?}, which is the id of no process: no socket is taken"))
        }
        (_, Ok(process)) if process != own => Err(Some(Unused::Foreign(format!(
            "LISTEN_PID is {process}, another process: the sockets of LISTEN_FDS are not this one's"
        )))),
        (Ok(0), Ok(_)) => Err(None),
        (Ok(1..=SOCKETS_MAX), Ok(_)) => Ok(()),
        _ => unusable(format!(
            "LISTEN_FDS is {count:?}, which is no number of sockets from 0 to {SOCKETS_MAX}: no socket is taken"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_named() {
        let own = 7;
        assert_eq!(usable(Some("1"), Some("7"), own), Ok(()));
        for (count, process) in [(None, None), (Some(""), Some("")), (Some("0"), Some("7"))] {
            assert_eq!(usable(count, process, own), Err(None));
        }
        let foreign = usable(Some("1"), Some("8"), own);
        assert!(matches!(&foreign, Err(Some(Unused::Foreign(why))) if why.contains("LISTEN_PID is 8")), "{foreign:?}");
        for (count, process, word) in [
            (Some("1"), None, "LISTEN_PID is not"),
            (None, Some("7"), "LISTEN_FDS is not"),
            (Some("1"), Some("seven"), "LISTEN_PID is \"seven\""),
            (Some("one"), Some("7"), "LISTEN_FDS is \"one\""),
            (Some("-1"), Some("7"), "LISTEN_FDS is \"-1\""),
            (Some("2000000000"), Some("7"), "LISTEN_FDS is \"2000000000\""),
        ] {
            let said = usable(count, process, own);
            assert!(matches!(&said, Err(Some(Unused::Unusable(why))) if why.contains(word)), "{word}: {said:?}");
        }
    }

    fn socket(name: &str) -> Socket {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Socket { name: name.to_owned(), address: listener.local_addr().unwrap(), listener }
    }

    #[test]
    fn a_socket_is_taken_by_its_name_else_by_its_address() {
        let sockets = vec![socket("gateway"), socket("unknown"), socket("gateway"), socket("other")];
        let (second, free) = (sockets[1].address, "127.0.0.1:1".parse().unwrap());
        let mut inherited = Inherited { sockets, unused: None };
        assert!(!inherited.has("billing", free) && inherited.has("gateway", free) && inherited.has("billing", second));
        assert!(inherited.take("billing", free).is_empty());
        assert_eq!(inherited.take("gateway", second).len(), 2);
        assert_eq!(inherited.take("billing", second).len(), 1);
        let left = inherited.left();
        assert!(left.len() == 1 && left[0].starts_with("other at "), "{left:?}");
    }
}
