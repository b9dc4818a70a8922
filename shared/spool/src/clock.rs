//! The wall clock, in whole seconds. Tests move it.

/// Seconds since 1970.
pub(crate) fn unix_secs() -> u64 {
    #[cfg(test)]
    if let Some(leapt) = crate::tests::clock() {
        return leapt;
    }
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
