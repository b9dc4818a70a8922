//! The address of a service: https, unless it is this machine's own.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use url::{Host, Url};

/// The address of a service. It is never printed where it was refused: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    text: String,
    is_https: bool,
}

/// The reason a text is no address of a service. Never holds the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaseError {
    /// Not a URL.
    #[error("not a URL such as https://api.example.com")]
    Malformed,
    /// Plain http to another machine: whoever listens on the way would see the key.
    #[error("http is spoken to this machine alone (127.0.0.1, ::1, localhost): name an https:// address")]
    NotEncrypted,
    /// A user, a query or a fragment.
    #[error("only scheme, host, port and a path belong here")]
    MoreThanBase,
}

impl Base {
    /// Returns whether calls are encrypted.
    pub const fn is_https(&self) -> bool {
        self.is_https
    }

    /// Where a path and query of this service are.
    ///
    /// # Errors
    /// They have characters that no URI holds.
    pub fn join(&self, path_and_query: &str) -> Result<Uri, http::Error> {
        Ok(format!("{}{path_and_query}", self.text).parse()?)
    }
}

impl FromStr for Base {
    type Err = BaseError;

    fn from_str(text: &str) -> Result<Self, BaseError> {
        let url = Url::parse(text.trim()).map_err(|_| BaseError::Malformed)?;
        let is_https = match url.scheme() {
            "https" => true,
            "http" if is_loopback(&url) => false,
            "http" => return Err(BaseError::NotEncrypted),
            _ => return Err(BaseError::Malformed),
        };
        let has_user = !url.username().is_empty() || url.password().is_some();
        if has_user || url.query().is_some() || url.fragment().is_some() {
            return Err(BaseError::MoreThanBase);
        }
        let text = url.as_str().trim_end_matches('/').to_owned();
        text.parse::<Uri>().map_err(|_| BaseError::Malformed)?;
        Ok(Self { text, is_https })
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

impl fmt::Display for Base {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_is_needed_unless_it_is_this_machine() {
        for text in ["https://api.stripe.com", "http://127.0.0.1:12111", "http://[::1]:1/", "http://localhost:1/x/"] {
            assert!(text.parse::<Base>().is_ok(), "{text}");
        }
        for (text, error) in [
            ("http://api.stripe.com", BaseError::NotEncrypted),
            ("http://10.0.0.1", BaseError::NotEncrypted),
            ("http://localhost.example.com", BaseError::NotEncrypted),
            ("http://127.0.0.1.example.com", BaseError::NotEncrypted),
            ("ftp://127.0.0.1", BaseError::Malformed),
            ("api.stripe.com", BaseError::Malformed),
            ("", BaseError::Malformed),
            ("https://key@api.stripe.com", BaseError::MoreThanBase),
            ("https://api.stripe.com/?key=x", BaseError::MoreThanBase),
        ] {
            assert_eq!(text.parse::<Base>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_path_of_the_base_stays() {
        let base: Base = "http://localhost:1/stripe/".parse().unwrap();
        assert_eq!(base.join("/v1/x?a=b").unwrap().to_string(), "http://localhost:1/stripe/v1/x?a=b");
    }
}
