//! How many files and sockets this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files and sockets as far as the system lets this process, and says what it is then; `None`
/// = without limit. Many systems start programs with 1,024, which is fewer than the connections a gateway serves.
pub fn raise_descriptor_limit() -> Option<u64> {
    let found = getrlimit(Resource::Nofile);
    if found.current == found.maximum {
        return found.current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: found.maximum, maximum: found.maximum }) {
        Ok(()) => found.maximum,
        Err(_) => found.current,
    }
}

/// Returns the number of files and sockets that this process may have open; `None` = without limit.
pub fn descriptor_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_raised_to_what_is_allowed() {
        let raised = raise_descriptor_limit();
        let now = getrlimit(Resource::Nofile);
        assert_eq!(now.current, raised);
        assert_eq!(now.maximum, raised);
    }
}
